"""What the hull benchmark runs on: a published table of formation energies, or a made set of any size."""

from __future__ import annotations

import csv
import gzip
import re
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

import numpy as np
import yaml
from hull_synthesis import drawn
from numpy.typing import NDArray

from hullworks.analysis.compositions import CompositionArrays

if TYPE_CHECKING:
    from collections.abc import Iterator

Array: TypeAlias = NDArray[Any]

SETTINGS: Final = Path(__file__).with_suffix(".yaml")
TOKEN: Final = re.compile(r"([A-Z][a-z]?)(\d+)")
ARRAYS: Final = ("symbols", "indptr", "indices", "amounts", "energies")


@cache
def settings() -> dict[str, Any]:
    """Return what `hull_data.yaml` says."""
    read: dict[str, Any] = yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))
    return read


@dataclass(frozen=True, eq=False)
class Entries:
    """n entries in compressed rows; one of every element first, the others in random order.

    Attributes:
        symbols: The elements.
        indptr: int64, (n + 1,).
        indices: Positions in ``symbols``, each once in a row, (nnz,).
        amounts: Atoms, whole numbers, (nnz,).
        energies: Formation energies in eV/atom, float64, (n,).
    """

    symbols: tuple[str, ...]
    indptr: Array
    indices: Array
    amounts: Array
    energies: Array

    def __len__(self) -> int:
        return len(self.energies)

    def rows(self, rows: Array) -> Self:
        """Return some of the entries; ``rows`` is int64, (m,)."""
        sizes = np.diff(self.indptr)[rows]
        indptr = np.concatenate([[0], np.cumsum(sizes)])
        flat = np.arange(indptr[-1]) + np.repeat(self.indptr[rows] - indptr[:-1], sizes)
        return type(self)(self.symbols, indptr, self.indices[flat], self.amounts[flat], self.energies[rows])

    def first(self, n: int) -> Self:
        """Return the first n entries, without copying."""
        end = int(self.indptr[n])
        return type(self)(
            self.symbols, self.indptr[: n + 1], self.indices[:end], self.amounts[:end], self.energies[:n]
        )  # fmt: skip

    def after(self, n: int) -> Self:
        """Return what comes after the first n entries."""
        return self.rows(np.arange(n, len(self)))

    def compositions(self) -> CompositionArrays:
        """Return the compositions as the hull takes them."""
        return CompositionArrays.from_arrays(
            self.symbols, self.indptr, self.indices.astype(np.int64), self.amounts.astype(np.float64)
        )

    def formulas(self) -> list[str]:
        """Return the formulas, every amount written out."""
        parts = [
            f"{self.symbols[j]}{n}" for j, n in zip(self.indices.tolist(), self.amounts.tolist(), strict=True)
        ]  # fmt: skip
        ends = self.indptr.tolist()
        return ["".join(parts[start:stop]) for start, stop in pairwise(ends)]

    def save(self, path: Path) -> None:
        """Write the arrays into a file."""
        arrays: dict[str, Any] = {name: np.asarray(getattr(self, name)) for name in ARRAYS}
        np.savez(path, **arrays)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        with np.load(path) as file:
            symbols, *arrays = (file[name] for name in ARRAYS)
        return cls(tuple(symbols.tolist()), *arrays)


def published(path: Path) -> Entries:
    """Return a published table, gzipped CSV with a header, a formula and a formation energy in eV/atom per row.

    Elements without an entry of their own get one at 0 eV/atom. The order is random, by the seed of the settings.
    """
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[1:]
    formulas = [TOKEN.findall(formula) for formula, _ in rows]
    symbols = tuple(sorted({symbol for formula in formulas for symbol, _ in formula}))
    own = {formula[0][0] for formula in formulas if len(formula) == 1}
    added = [[(symbol, "1")] for symbol in symbols if symbol not in own]
    place = {symbol: j for j, symbol in enumerate(symbols)}
    every = formulas + added
    indptr = np.concatenate([[0], np.cumsum([len(formula) for formula in every])])
    indices = np.array([place[symbol] for formula in every for symbol, _ in formula], dtype=np.uint8)
    amounts = np.array([int(amount) for formula in every for _, amount in formula], dtype=np.int16)
    energies = np.array([float(energy) for _, energy in rows] + [0.0] * len(added))
    return _shuffled(Entries(symbols, indptr, indices, amounts, energies))


def _shuffled(entries: Entries) -> Entries:
    """Return the entries in random order, after the lowest one of every element."""
    order = np.random.default_rng(settings()["seed"]).permutation(len(entries))
    pure = order[np.diff(entries.indptr)[order] == 1]
    pure = pure[np.argsort(entries.energies[pure], kind="stable")]
    _, lowest = np.unique(entries.indices[entries.indptr[pure]], return_index=True)
    first = pure[np.sort(lowest)]
    return entries.rows(np.concatenate([first, order[~np.isin(order, first)]]))


def synthetic(n: int) -> Entries:
    """Return a made set of n entries; the same for the same settings, a smaller one the beginning of a larger one."""
    recipe = settings()["recipe"]
    symbols = tuple(sorted(recipe["elements_per_mille"]))
    indices, amounts, energies = drawn(n - len(symbols), symbols, settings())
    own = np.arange(len(symbols))
    there = indices >= 0
    sizes = np.concatenate([np.ones(len(symbols), dtype=np.int64), there.sum(axis=1)])
    return Entries(
        symbols,
        np.concatenate([[0], np.cumsum(sizes)]),
        np.concatenate([own.astype(np.uint8), indices[there].astype(np.uint8)]),
        np.concatenate([np.ones(len(symbols), dtype=np.int16), amounts[there]]),
        np.concatenate([np.zeros(len(symbols)), energies]),
    )


def unseen(entries: Entries) -> Entries:
    """Return compositions within the chemistry of some entries, most of them in no system of theirs; energies are 0.

    A composition has elements of one entry after another until it has enough, and amounts at random.
    """
    asked = settings()["unseen"]
    sizes = asked["elements"]
    rng = np.random.default_rng([settings()["seed"], len(entries)])
    rows = [_collected(entries, sizes[i % len(sizes)], rng) for i in range(asked["number"])]
    indices = np.concatenate(rows)
    return Entries(
        entries.symbols,
        np.concatenate([[0], np.cumsum([len(row) for row in rows])]),
        indices,
        rng.integers(1, asked["largest_amount"], len(indices), endpoint=True).astype(np.int16),
        np.zeros(len(rows)),
    )


def _collected(entries: Entries, k: int, rng: np.random.Generator) -> Array:
    """Return k different elements of entries at random."""
    found: dict[int, None] = {}
    while len(found) < k:
        found |= dict.fromkeys(next(_elements(entries, rng)))
    return np.array(list(found)[:k], dtype=np.uint8)


def _elements(entries: Entries, rng: np.random.Generator) -> Iterator[list[int]]:
    """Yield the elements of entries at random."""
    while True:
        i = int(rng.integers(len(entries)))
        yield entries.indices[entries.indptr[i] : entries.indptr[i + 1]].tolist()
