"""Keys and tables: 64-bit keys of compositions and chemical systems, a vectorised hash table, arrays that grow."""

from __future__ import annotations

from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hullworks.analysis.engine.choice import compiled_is_used
from hullworks.elements import ELEMENTS_AND_ISOTOPES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Array: TypeAlias = NDArray[Any]
Keys: TypeAlias = NDArray[np.uint64]

N_CODES: Final = 128
"""Element codes are below it, so that a chemical system is a mask of 128 bits."""
N_BITS, CODE_BITS = 64, 7
"""Bits of a key, and of an element code."""
HALF: Final = N_CODES // 2
"""Codes below it are bits of the lower word of a mask."""
STEPS_OF_A_FRACTION: Final = 2.0**32
"""Atomic fractions that round to the same multiple of its inverse, 2e-10, belong to the same composition."""

CODED_SYMBOLS: Final = tuple(sorted(ELEMENTS_AND_ISOTOPES))
"""All element symbols, isotopes D and T among them; an element's code is its place."""
CODE_OF: Final[Mapping[str, int]] = MappingProxyType({symbol: code for code, symbol in enumerate(CODED_SYMBOLS)})
"""The code of each element symbol."""


def mixed(values: Keys) -> Keys:
    """Return well-mixed 64-bit keys, one to one (the finaliser of SplitMix64, Steele et al., OOPSLA 2014)."""
    z = values + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@cache
def element_keys() -> Keys:
    """Return one key per element code; the key of a chemical system is the sum of those of its elements."""
    return mixed(np.arange(N_CODES, dtype=np.uint64) << np.uint64(48))


def composition_keys(codes: Array, steps: Keys, indptr: Array, salt: int) -> Keys:
    """Return one key per composition of a CSR set: the sum over its elements of mixed (element, fraction).

    Args:
        codes: Element codes, (nnz,).
        steps: Atomic fractions in steps of `STEPS_OF_A_FRACTION`, (nnz,).
        indptr: Row pointers, (n + 1,).
        salt: Another number gives other keys.
    """
    parts = mixed((codes.astype(np.uint64) << np.uint64(40)) ^ steps ^ (np.uint64(salt) << np.uint64(50)))
    return sums_of_rows(parts, indptr)


def fraction_steps(fractions: Array) -> Keys:
    """Return atomic fractions in steps of `STEPS_OF_A_FRACTION`."""
    # By way of signed integers, for which processors have an instruction.
    steps: Keys = np.rint(fractions * STEPS_OF_A_FRACTION).astype(np.int64).view(np.uint64)
    return steps


def sums_of_rows(values: Array, indptr: Array) -> Array:
    """Return the sum of each row of a CSR set whose rows are not empty."""
    if len(indptr) <= 1:
        return np.zeros(0, dtype=values.dtype)
    return np.add.reduceat(values, indptr[:-1])


def spans(starts: Array, counts: Array) -> Array:
    """Return the positions ``starts[i], ..., starts[i] + counts[i] - 1`` of all i, one after the other.

    >>> spans(np.array([10, 4]), np.array([2, 3])).tolist()
    [10, 11, 4, 5, 6]
    """
    counts = np.asarray(counts, dtype=np.int64)
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    positions = np.arange(total, dtype=np.int64)
    positions += np.repeat(starts - (ends - counts), counts)
    return positions


def unique_keys(keys: Keys) -> tuple[Keys, Array, Array]:
    """Return distinct keys, where one of each stands, and which of them each key is; faster than ``np.unique``."""
    order = np.argsort(keys)
    ordered = keys[order]
    first = np.ones(len(keys), dtype=bool)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    which = np.empty(len(keys), dtype=np.int64)
    which[order] = np.cumsum(first) - 1
    return ordered[first], order[first], which


class KeyTable:
    """A hash table from 64-bit keys to numbers, open addressing, looked up for whole arrays at once."""

    def __init__(self) -> None:
        self.keys: Keys = np.zeros(16, dtype=np.uint64)
        self.values: NDArray[np.int32] = np.full(16, -1, dtype=np.int32)
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def find(self, keys: Keys) -> NDArray[np.int32]:
        """Return the number of each key, -1 where there is none; any shape."""
        mask = np.uint64(len(self.keys) - 1)
        slots = (keys & mask).astype(np.int64)
        found: NDArray[np.int32] = self.values[slots]
        wrong = (self.keys[slots] != keys) & (found >= 0)
        if wrong.any():
            at = np.nonzero(wrong)
            found[at] = self._probe(keys[at], slots[at])
        return found

    def _probe(self, keys: Keys, slots: Array) -> NDArray[np.int32]:
        """Return the number of each key whose first slot holds another one."""
        found = np.full(len(keys), -1, dtype=np.int32)
        left = np.arange(len(keys))
        while len(left):
            slots = (slots + 1) & (len(self.keys) - 1)
            value, same = self.values[slots], self.keys[slots] == keys[left]
            found[left[same]] = value[same]
            on = ~same & (value >= 0)
            left, slots = left[on], slots[on]
        return found

    def add(self, keys: Keys, values: Array) -> None:
        """Add distinct keys that are not there."""
        self._n += len(keys)
        if self._n * 2 > len(self.keys):
            old = self.values >= 0
            keys, values = np.concatenate([self.keys[old], keys]), np.concatenate([self.values[old], values])
            size = 1 << max(4, int(self._n * 2).bit_length())
            self.keys, self.values = np.zeros(size, dtype=np.uint64), np.full(size, -1, dtype=np.int32)
        self._place(keys, np.asarray(values, dtype=np.int32))

    def _place(self, keys: Keys, values: NDArray[np.int32]) -> None:
        if compiled_is_used():
            from hullworks.analysis.engine import compiled

            compiled.place(self.keys, self.values, keys, values)
            return
        slots = (keys & np.uint64(len(self.keys) - 1)).astype(np.int64)
        while len(keys):
            empty = self.values[slots] < 0
            # Of two that want the same empty slot, the later one gets it.
            self.values[slots[empty]], self.keys[slots[empty]] = values[empty], keys[empty]
            left = ~empty | (self.values[slots] != values)
            keys, values, slots = keys[left], values[left], (slots[left] + 1) & (len(self.keys) - 1)


class Table:
    """Columns of equal length that grow at their end without being copied each time.

    >>> table = Table(n=np.int64)
    >>> table.extend(2, n=7); table.extend(1, n=[8])
    >>> table["n"].tolist(), len(table)
    ([7, 7, 8], 3)
    """

    def __init__(self, **dtypes: Any) -> None:
        self._columns = {name: np.zeros(0, dtype=dtype) for name, dtype in dtypes.items()}
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, name: str) -> Array:
        return self._columns[name][: self._n]

    def extend(self, n: int, **values: Any) -> None:
        """Append n rows; a column without values is filled with 0."""
        old, self._n = self._n, self._n + n
        for name, column in self._columns.items():
            if self._n > len(column):
                # The first rows get what they need, later ones room for more.
                room = self._n if old == 0 else self._n + self._n // 4
                grown = np.zeros(room, dtype=column.dtype)
                grown[:old] = column[:old]
                self._columns[name] = grown
            if name in values:
                self._columns[name][old : self._n] = values[name]


def union(parts: Iterable[Array]) -> Array:
    """Return the distinct numbers of all parts, increasing; faster than ``np.unique``."""
    every = np.sort(np.concatenate([np.zeros(0, dtype=np.int64), *parts]))
    first = np.ones(len(every), dtype=bool)
    np.not_equal(every[1:], every[:-1], out=first[1:])
    distinct: Array = every[first]
    return distinct
