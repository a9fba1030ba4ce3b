"""Chemical compositions of many entries as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Final, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hullworks.analysis.engine.keys import spans
from hullworks.errors import HullError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pymatgen.core.composition import Composition

IntArray: TypeAlias = NDArray[np.int64]
FloatArray: TypeAlias = NDArray[np.float64]
System: TypeAlias = tuple[str, ...]
"""Element symbols of a chemical system, sorted."""

SAME_COMPOSITION: Final = 1e-8
"""Atomic fractions that differ by less belong to the same composition."""


@dataclass(frozen=True, eq=False)
class CompositionArrays:
    """Compositions of n entries in compressed rows, as in a sparse matrix.

    >>> two = CompositionArrays.from_amounts([{"Mg": 2, "Si": 1}, {"Mg": 1}])
    >>> two.elements, two.indptr.tolist(), two.indices.tolist(), two.fractions.round(3).tolist()
    (('Mg', 'Si'), [0, 2, 3], [0, 1, 0], [0.667, 0.333, 1.0])

    Args:
        elements: Element symbols, sorted.
        indptr: int64, shape (n + 1,): row i occupies positions ``indptr[i]:indptr[i + 1]``.
        indices: int64, shape (nnz,): positions in ``elements``, increasing within a row.
        fractions: float64, shape (nnz,): atomic fractions, positive, each row summing to 1.

    Raises:
        HullError: The arrays do not describe compositions.
    """

    elements: tuple[str, ...]
    indptr: IntArray
    indices: IntArray
    fractions: FloatArray

    def __post_init__(self) -> None:
        if list(self.elements) != sorted(set(self.elements)):
            raise HullError("the elements of composition arrays are not sorted and unique", str(self.elements))
        if self.indptr[0] != 0 or self.indptr[-1] != len(self.indices) or len(self.indices) != len(self.fractions):
            raise HullError("the row pointers of composition arrays do not fit their indices and fractions")
        if len(self):
            self._check_rows()

    def _check_rows(self) -> None:
        if np.diff(self.indptr).min() < 1 or self.indices.min() < 0 or self.indices.max() >= len(self.elements):
            raise HullError("composition arrays hold an empty row or an index outside their elements")
        steps = np.diff(self.indices)
        steps[self.indptr[1:-1] - 1] = 1  # from one row to the next they may do as they like
        if len(steps) and steps.min() < 1:
            raise HullError("the indices of a composition row do not increase")
        sums = np.add.reduceat(self.fractions, self.indptr[:-1])
        if not (self.fractions.min() > 0 and np.abs(sums - 1).max() <= SAME_COMPOSITION):  # also refuses NaN
            raise HullError("atomic fractions are not positive or do not sum to 1")

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def __iter__(self) -> Iterator[tuple[System, FloatArray]]:
        """Yield the chemical system and the fractions, shape (n_elements,), of each row."""
        for start, stop in pairwise(self.indptr):
            yield tuple(self.elements[j] for j in self.indices[start:stop]), self.fractions[start:stop]

    @classmethod
    def from_amounts(cls, rows: Iterable[Mapping[str, float]]) -> Self:
        """Build the arrays from mappings of element symbol to any positive amount of atoms; zeros are left out.

        Raises:
            HullError: A row holds no atoms, or an amount is negative or not finite.
        """
        given = list(rows)
        symbols = list(chain.from_iterable(given))
        elements = tuple(sorted(set(symbols)))
        position = {symbol: j for j, symbol in enumerate(elements)}
        indptr = np.zeros(len(given) + 1, dtype=np.int64)
        np.cumsum(np.fromiter(map(len, given), np.int64, len(given)), out=indptr[1:])
        indices = np.fromiter(map(position.__getitem__, symbols), np.int64, len(symbols))
        values = chain.from_iterable(row.values() for row in given)
        return cls.from_arrays(elements, indptr, indices, np.fromiter(values, np.float64, len(symbols)))

    @classmethod
    def from_arrays(cls, elements: Sequence[str], indptr: IntArray, indices: IntArray, amounts: FloatArray) -> Self:
        """Build the arrays from amounts of atoms in compressed rows.

        Amounts of equal ratio give the same bits: a fraction is one division of an amount by the sum of its row.

        Args:
            elements: Element symbols, each once, in any order; those that no row holds are left out.
            indptr: int64, shape (n + 1,): row i occupies positions ``indptr[i]:indptr[i + 1]``.
            indices: int64, shape (nnz,): positions in ``elements``, each once in a row, in any order.
            amounts: float64, shape (nnz,): atoms in any unit; zeros are left out.

        Raises:
            HullError: A row holds no atoms or an element twice, or an amount is negative or not finite.
        """
        if len(amounts) and not (amounts.min() >= 0 and amounts.max() < np.inf):  # also refuses NaN
            raise HullError(
                "an amount of atoms is negative or not finite",
                _first_row(indptr, ~((amounts >= 0) & (amounts < np.inf))),
            )
        ranks, names = _alphabetical(elements, np.bincount(indices[amounts > 0], minlength=len(elements)) > 0)
        rows = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
        order = np.argsort(rows * len(elements) + ranks[indices], kind="stable")
        order = order[amounts[order] > 0]
        lengths = np.bincount(rows[order], minlength=len(indptr) - 1)
        if len(lengths) and lengths.min() == 0:
            raise HullError("a composition holds no atoms", f"row {int(np.argmin(lengths))}")
        kept = amounts[order]
        pointers = np.concatenate([[0], np.cumsum(lengths)])
        sums = np.add.reduceat(kept, pointers[:-1]) if len(lengths) else np.zeros(0)
        return cls(names, pointers, ranks[indices[order]], kept / np.repeat(sums, lengths))

    @classmethod
    def from_compositions(cls, compositions: Iterable[str | Composition]) -> Self:
        """Build the arrays from formulas or pymatgen Compositions; oxidation states are ignored.

        Raises:
            HullError: A formula cannot be read or names something that is not an element.
        """
        from hullworks.analysis.formulas import element_amounts, parse_formulas  # which builds on this module

        given = list(compositions)
        texts = [i for i, composition in enumerate(given) if isinstance(composition, str)]
        parsed = parse_formulas([str(given[i]) for i in texts])
        others = [i for i, composition in enumerate(given) if not isinstance(composition, str)]
        if others:
            parsed = parsed.followed_by(cls.from_amounts(element_amounts(given[i]) for i in others))
            parsed = parsed.take(np.argsort(np.array(texts + others)))
        return cls(parsed.elements, parsed.indptr, parsed.indices, parsed.fractions)

    def take(self, rows: IntArray) -> Self:
        """Return some rows, in the order given; ``rows`` is int64, shape (m,)."""
        lengths = np.diff(self.indptr)[rows]
        positions = spans(self.indptr[rows], lengths)
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        return type(self)(self.elements, indptr, self.indices[positions], self.fractions[positions])

    def system(self, i: int) -> System:
        """Return the chemical system of a row."""
        return tuple(self.elements[j] for j in self.indices[self.indptr[i] : self.indptr[i + 1]])

    def within(self, system: System) -> IntArray:
        """Return the rows whose elements are all among those of a chemical system, increasing."""
        if not len(self):
            return np.zeros(0, dtype=np.int64)
        inside = np.isin(np.array(self.elements), np.array(system, dtype=str))[self.indices]
        return np.flatnonzero(np.logical_and.reduceat(inside, self.indptr[:-1]))

    def followed_by(self, other: CompositionArrays) -> CompositionArrays:
        """Return the rows of both, first these."""
        elements = tuple(sorted({*self.elements, *other.elements}))
        position = {symbol: j for j, symbol in enumerate(elements)}
        moved = [np.array([position[s] for s in part.elements], dtype=np.int64)[part.indices] for part in (self, other)]
        return CompositionArrays(
            elements,
            np.concatenate([self.indptr, other.indptr[1:] + self.indptr[-1]]),
            np.concatenate(moved),
            np.concatenate([self.fractions, other.fractions]),
        )


Compositions: TypeAlias = "CompositionArrays | Sequence[str | Composition]"


def as_arrays(compositions: Compositions) -> CompositionArrays:
    """Return compositions of either kind as arrays."""
    if isinstance(compositions, CompositionArrays):
        return compositions
    return CompositionArrays.from_compositions(compositions)


def _alphabetical(elements: Sequence[str], used: NDArray[np.bool_]) -> tuple[IntArray, tuple[str, ...]]:
    """Return the place of each element among those used, in alphabetical order, and their symbols."""
    order = [j for j in sorted(range(len(elements)), key=elements.__getitem__) if used[j]]
    ranks = np.zeros(len(elements), dtype=np.int64)
    ranks[order] = np.arange(len(order))
    return ranks, tuple(elements[j] for j in order)


def _first_row(indptr: IntArray, wrong: NDArray[np.bool_]) -> str:
    """Return the first row with a wrong position, in words."""
    return f"row {int(np.searchsorted(indptr, np.argmax(wrong), side='right')) - 1}"
