"""Chemical formulas of many entries read at once, as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hullworks.analysis.compositions import CompositionArrays, FloatArray, IntArray
from hullworks.elements import ELEMENTS, SYMBOLS
from hullworks.errors import HullError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pymatgen.core.composition import Composition

ByteArray: TypeAlias = NDArray[np.uint8]

CHUNK: Final = 65536
"""Formulas read in one pass: their arrays stay within the processor's caches."""

MAX_DIGITS: Final = 15
"""Digits of an amount up to which reading it digit by digit gives the same float64 as Python does (2**53 has 16)."""

NO_ATOMS: Final = 1e-8
"""Amounts below it are no atoms at all, as pymatgen counts them."""

_SEPARATOR, _UPPER, _LOWER, _DIGIT, _DOT, _OTHER = range(6)


def _classes() -> ByteArray:
    table = np.full(256, _OTHER, dtype=np.uint8)
    table[ord("\n")], table[ord(".")] = _SEPARATOR, _DOT
    for first, last, kind in (("A", "Z", _UPPER), ("a", "z", _LOWER), ("0", "9", _DIGIT)):
        table[ord(first) : ord(last) + 1] = kind
    return table


def _codes() -> NDArray[np.int16]:
    """Return the place in `SYMBOLS` by (first letter, second letter or 0), -1 where there is no such element."""
    table = np.full((256, 256), -1, dtype=np.int16)
    for place, symbol in enumerate(SYMBOLS):
        table[ord(symbol[0]), ord(symbol[1]) if len(symbol) > 1 else 0] = place
    return table


_CLASS: Final = _classes()
_CODE: Final = _codes()
_POWER: Final = 10.0 ** np.arange(MAX_DIGITS + 1)


@dataclass(frozen=True)
class ReadFormulas:
    """What became of many formulas.

    Attributes:
        compositions: The readable ones, in their order.
        rows: int64, shape (n_readable,): the row of each among all.
        faults: Why each of the others cannot be read, by row.
    """

    compositions: CompositionArrays
    rows: IntArray
    faults: dict[int, str]


def parse_formulas(formulas: Sequence[str]) -> CompositionArrays:
    """Return the compositions of n formulas.

    Plain ones (symbols with integer or decimal amounts, each element once) are read together, in about 0.5 microseconds
    each; all others (parentheses, repeated elements, spaces, deuterium) one by one by pymatgen.

    >>> parse_formulas(["Mg2Si", "Ca(OH)2"]).elements
    ('Ca', 'H', 'Mg', 'O', 'Si')

    Raises:
        HullError: A formula cannot be read or names something that is not an element; it names the row, from 0.
    """
    read = read_formulas(formulas)
    for row, fault in read.faults.items():
        raise HullError(fault, f"row {row}", "Correct the formula, or leave the row out.")
    return read.compositions


def read_formulas(formulas: Sequence[str]) -> ReadFormulas:
    """Return the compositions of the readable ones among n formulas, and what is wrong with the others."""
    tokens, faults = _read(formulas)
    rows = np.setdiff1d(np.arange(len(formulas)), np.fromiter(faults, dtype=np.int64), assume_unique=True)
    lengths = np.bincount(tokens.rows, minlength=len(formulas))[rows]
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    return ReadFormulas(CompositionArrays.from_arrays(SYMBOLS, indptr, tokens.places, tokens.amounts), rows, faults)


def read_amounts(formulas: Sequence[str]) -> tuple[list[dict[str, float]], dict[int, str]]:
    """Return atoms per element symbol of n formulas, empty where one cannot be read, and why by row."""
    tokens, faults = _read(formulas)
    ends = np.cumsum(np.bincount(tokens.rows, minlength=len(formulas))).tolist()
    pairs = list(zip([SYMBOLS[place] for place in tokens.places.tolist()], tokens.amounts.tolist(), strict=True))
    return [dict(pairs[start:stop]) for start, stop in pairwise([0, *ends])], faults


def element_amounts(composition: str | Mapping[str, float] | Composition) -> dict[str, float]:
    """Return atoms per element symbol, read by pymatgen; oxidation states are ignored, isotopes are their element.

    Raises:
        HullError: It cannot be read, names something that is not an element, or holds no atoms.
    """
    from pymatgen.core.composition import Composition

    try:
        amounts = Composition(composition).get_el_amt_dict()
    except (ValueError, TypeError) as error:
        raise HullError(f"{composition!r} is not a chemical formula", next_step=str(error)) from error
    if unknown := [symbol for symbol in amounts if symbol not in ELEMENTS]:
        raise HullError(f"{', '.join(unknown)} in {composition!s} is not an element")
    if not amounts or not all(np.isfinite(list(amounts.values()))):
        raise HullError(f"{composition!r} holds no atoms, or no countable ones")
    return amounts


@dataclass(frozen=True)
class _Tokens:
    """Elements of formulas one after the other: row, place in `SYMBOLS` and amount; shape (n_tokens,) each."""

    rows: IntArray
    places: IntArray
    amounts: FloatArray

    @classmethod
    def joined(cls, parts: Sequence[_Tokens]) -> _Tokens:
        """Return the tokens of all parts in the order of their rows."""
        rows = np.concatenate([np.zeros(0, dtype=np.int64), *(part.rows for part in parts)])
        places = np.concatenate([np.zeros(0, dtype=np.int64), *(part.places for part in parts)])
        amounts = np.concatenate([np.zeros(0), *(part.amounts for part in parts)])
        return cls(rows, places, amounts)

    def kept(self, keep: NDArray[np.bool_] | IntArray) -> _Tokens:
        return _Tokens(self.rows[keep], self.places[keep], self.amounts[keep])


def _read(formulas: Sequence[str]) -> tuple[_Tokens, dict[int, str]]:
    chunks = [_read_chunk(formulas[start : start + CHUNK], start) for start in range(0, len(formulas), CHUNK)]
    faults = {row: fault for _, found in chunks for row, fault in found.items()}
    return _Tokens.joined([tokens for tokens, _ in chunks]), faults


def _read_chunk(formulas: Sequence[str], start: int) -> tuple[_Tokens, dict[int, str]]:
    """Read some formulas, whose first has the row ``start``."""
    tokens, odd = _read_plain(formulas)
    by_hand, faults = _read_odd(formulas, odd)
    if len(odd):
        plain = np.ones(len(formulas), dtype=bool)
        plain[odd] = False
        tokens = _Tokens.joined([tokens.kept(plain[tokens.rows]), by_hand])
        tokens = tokens.kept(np.argsort(tokens.rows, kind="stable"))
    return _Tokens(tokens.rows + start, tokens.places, tokens.amounts), {
        row + start: fault for row, fault in faults.items()
    }


def _read_odd(formulas: Sequence[str], rows: IntArray) -> tuple[_Tokens, dict[int, str]]:
    """Read some rows one by one."""
    found: list[tuple[int, int, float]] = []
    faults: dict[int, str] = {}
    for row in rows.tolist():
        try:
            amounts = element_amounts(formulas[row])
        except HullError as error:
            faults[row] = f"{error.what}: {error.next_step}" if error.next_step else error.what
        else:
            found += [(row, SYMBOLS.index(symbol), amount) for symbol, amount in amounts.items()]
    table = np.array(found, dtype=np.float64).reshape(-1, 3)
    return _Tokens(table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), table[:, 2]), faults


def _read_plain(formulas: Sequence[str]) -> tuple[_Tokens, IntArray]:
    """Return the elements of all plain formulas, and the rows that are not plain (whose tokens mean nothing)."""
    text = _joined(formulas)
    kinds = _CLASS[text]
    edges = np.flatnonzero(kinds <= _UPPER)  # where an element or a row ends
    is_end = kinds[edges] == _SEPARATOR
    row_of_edge = np.cumsum(is_end) - is_end
    is_symbol = ~is_end
    starts, stops, rows = edges[is_symbol], edges[1:][is_symbol[:-1]], row_of_edge[is_symbol]
    second = text[starts + 1] * (kinds[starts + 1] == _LOWER)
    places = _CODE[text[starts], second].astype(np.int64)
    amounts, readable = _read_amounts(text, starts + 1 + (second > 0), stops)
    odd_rows = [
        rows[(places < 0) | ~readable | (amounts < NO_ATOMS)],
        np.searchsorted(edges[is_end], _misplaced(kinds)),
        np.flatnonzero(np.bincount(rows, minlength=len(formulas)) == 0),
        _repeating(rows, places),
    ]
    return _Tokens(rows, places, amounts), np.unique(np.concatenate(odd_rows))


def _joined(formulas: Sequence[str]) -> ByteArray:
    """Return the bytes of all formulas, each ended by a newline; what is not ASCII becomes a question mark."""
    text = "\n".join([*formulas, ""])
    if text.count("\n") != len(formulas):
        text = "\n".join([*(formula.replace("\n", "?") for formula in formulas), ""])
    return np.frombuffer(text.encode("ascii", "replace"), dtype=np.uint8)


def _misplaced(kinds: ByteArray) -> IntArray:
    """Return the positions of bytes that stand in no plain formula, or not where they are."""
    before = np.concatenate([[_SEPARATOR], kinds[:-1]])
    lower = (kinds == _LOWER) & (before != _UPPER)
    number = ((kinds == _DIGIT) | (kinds == _DOT)) & (before == _SEPARATOR)
    return np.flatnonzero((kinds == _OTHER) | lower | number)


def _read_amounts(text: ByteArray, starts: IntArray, stops: IntArray) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Return the numbers between some positions, 1 where there is none, and whether each can be read this way."""
    lengths = stops - starts
    digits, places = np.zeros(len(starts), dtype=np.int64), np.zeros(len(starts), dtype=np.int64)
    dots = np.zeros(len(starts), dtype=np.int64)
    open_tokens = np.flatnonzero(lengths > 0)
    for k in range(MAX_DIGITS + 1):  # one more for a dot
        open_tokens = open_tokens[lengths[open_tokens] > k]
        if not len(open_tokens):
            break
        byte = text[starts[open_tokens] + k]
        dot = byte == ord(".")
        if dot.any():
            dots[open_tokens] += dot
            places[open_tokens] += ~dot & (dots[open_tokens] > 0)
            digits[open_tokens] = np.where(dot, digits[open_tokens], digits[open_tokens] * 10 + byte - ord("0"))
        else:
            places[open_tokens] += dots[open_tokens] > 0
            digits[open_tokens] = digits[open_tokens] * 10 + byte - ord("0")
    count = lengths - dots
    readable = (dots <= 1) & (count <= MAX_DIGITS) & ((lengths == 0) | (count > 0))
    amounts = np.where(lengths == 0, 1, digits) / _POWER[np.minimum(places, MAX_DIGITS)]
    return amounts, readable


def _repeating(rows: IntArray, places: IntArray) -> IntArray:
    """Return the rows that name an element twice."""
    keys: IntArray = np.sort(rows * len(SYMBOLS) + np.maximum(places, 0))
    repeated: IntArray = keys[1:][keys[1:] == keys[:-1]] // len(SYMBOLS)
    return repeated
