"""Chemical compositions of many entries as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

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
        lengths = np.diff(self.indptr)
        if self.indptr[0] != 0 or self.indptr[-1] != len(self.indices) or len(self.indices) != len(self.fractions):
            raise HullError("the row pointers of composition arrays do not fit their indices and fractions")
        if (lengths < 1).any() or (self.indices < 0).any() or (self.indices >= len(self.elements)).any():
            raise HullError("composition arrays hold an empty row or an index outside their elements")
        inside_row = np.ones(max(len(self.indices) - 1, 0), dtype=bool)
        inside_row[self.indptr[1:-1] - 1] = False
        if (np.diff(self.indices)[inside_row] <= 0).any():
            raise HullError("the indices of a composition row do not increase")
        sums = np.add.reduceat(self.fractions, self.indptr[:-1]) if len(self) else np.ones(0)
        if not ((self.fractions > 0).all() and np.allclose(sums, 1, rtol=0, atol=SAME_COMPOSITION)):
            raise HullError("atomic fractions are not positive or do not sum to 1")

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def __iter__(self) -> Iterator[tuple[System, FloatArray]]:
        """Yield the chemical system and the fractions, shape (n_elements,), of each row."""
        for start, stop in pairwise(self.indptr):
            yield tuple(self.elements[j] for j in self.indices[start:stop]), self.fractions[start:stop]

    @classmethod
    def from_amounts(cls, rows: Iterable[Mapping[str, float]]) -> Self:
        """Build the arrays from mappings of element symbol to any positive amount of atoms."""
        kept = [sorted((symbol, float(n)) for symbol, n in row.items() if n) for row in rows]
        elements = tuple(sorted({symbol for row in kept for symbol, _ in row}))
        position = {symbol: j for j, symbol in enumerate(elements)}
        totals = [sum(n for _, n in row) for row in kept]
        return cls(
            elements,
            np.cumsum([0, *map(len, kept)], dtype=np.int64),
            np.array([position[symbol] for row in kept for symbol, _ in row], dtype=np.int64),
            np.array([n / total for row, total in zip(kept, totals, strict=True) for _, n in row], dtype=np.float64),
        )

    @classmethod
    def from_compositions(cls, compositions: Iterable[str | Composition]) -> Self:
        """Build the arrays from formulas or pymatgen Compositions; oxidation states are ignored.

        Raises:
            HullError: A formula cannot be read or names something that is not an element.
        """
        return cls.from_amounts(_amounts(composition) for composition in compositions)

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


def _amounts(composition: str | Composition) -> dict[str, float]:
    """Return atoms per element symbol."""
    from pymatgen.core.composition import Composition
    from pymatgen.core.periodic_table import Element

    try:
        amounts = Composition(composition).get_el_amt_dict()
    except ValueError as error:
        raise HullError(f"{composition!r} is not a chemical formula", next_step=str(error)) from error
    if unknown := [symbol for symbol in amounts if not Element.is_valid_symbol(symbol)]:
        raise HullError(f"{', '.join(unknown)} in {composition!s} is not an element")
    return amounts
