"""Errors of energies, shared between entries as they are, and what they leave of an energy above hull."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

import numpy as np

from hullworks.analysis.convex_hull import ON_HULL_eV
from hullworks.errors import HullError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike
    from scipy.sparse import csr_array

    from hullworks.analysis.compositions import CompositionArrays, FloatArray, IntArray
    from hullworks.analysis.convex_hull import ConvexHull

OWN: Final = "own:"
"""A source whose name begins so belongs to its entry alone, also where other entries have one of the same name."""


@dataclass(frozen=True, eq=False)
class EnergyErrors:
    """What is uncertain about the energies of n entries, as independent sources of error.

    The model: each source is one unknown number, normally distributed with mean 0 and standard deviation 1, independent
    of all other sources. It shifts the energy per atom of every entry by its coefficient for that entry. So entries
    that share a source are correlated by it, and an entry's variance is the sum of its squared coefficients.

    >>> errors = EnergyErrors.from_parts([{"MP2020:oxide": 0.002, "own:convergence": 0.01}, {"MP2020:oxide": 0.001}])
    >>> errors.sources
    ('MP2020:oxide', 'own:convergence:0')
    >>> errors.sigma.round(4).tolist()
    [0.0102, 0.001]

    Args:
        sources: Names of the s sources, all different.
        coefficients: float64, shape (n, s), in eV/atom: what one standard deviation of a source adds to the energy of
            an entry. The sign counts where a source moves two entries in opposite directions.

    Raises:
        HullError: Names and columns do not fit, a name stands twice, or a coefficient is not finite.
    """

    sources: tuple[str, ...]
    coefficients: csr_array

    def __post_init__(self) -> None:
        if len(set(self.sources)) != len(self.sources) or len(self.sources) != self.coefficients.shape[1]:
            raise HullError(
                f"{len(set(self.sources))} different names do not fit {self.coefficients.shape[1]} sources of error"
            )
        if not np.isfinite(self.coefficients.data).all():
            raise HullError("a coefficient of the energy errors is not finite")

    def __len__(self) -> int:
        return int(self.coefficients.shape[0])

    @classmethod
    def from_parts(cls, parts: Sequence[Mapping[str, float]]) -> Self:
        """Build the errors from the parts that each entry knows of its own.

        Args:
            parts: One mapping per entry: name of a source to one standard deviation in eV/atom of this entry. The same
                name in two entries is the same source, fully correlated; names that begin with ``own:`` are not.
        """
        shared = sorted({name for row in parts for name in row if not name.startswith(OWN)})
        own = [f"{name}:{i}" for i, row in enumerate(parts) for name in sorted(row) if name.startswith(OWN)]
        column = {name: j for j, name in enumerate([*shared, *own])}
        cells = [
            (i, column[f"{name}:{i}" if name.startswith(OWN) else name], sigma)
            for i, row in enumerate(parts)
            for name, sigma in row.items()
        ]
        return cls(tuple(column), _from_cells(cells, (len(parts), len(column))))

    @classmethod
    def per_atom(
        cls, compositions: CompositionArrays, sigma_eV: Mapping[str, float], *, prefix: str, where: ArrayLike = True
    ) -> Self:
        """Build errors that are linear in composition: one source per element, shared by all entries that hold it.

        An error that acts on *all* entries in proportion to an element, the element's own entries included, cancels in
        every reaction: it is a shift of the energy zero. It counts where some entries are exempt, as O2 is from a
        correction that oxides get.

        Args:
            compositions: Compositions of the n entries.
            sigma_eV: Element symbol to one standard deviation in eV per atom of that element.
            prefix: The source of element X is called ``prefix + X``.
            where: bool, shape (n,): the entries that the errors act on.
        """
        names = [symbol for symbol in compositions.elements if sigma_eV.get(symbol)]
        column = np.array([names.index(symbol) if symbol in names else -1 for symbol in compositions.elements])
        rows = np.repeat(np.arange(len(compositions)), np.diff(compositions.indptr))
        columns = column[compositions.indices]
        kept = (columns >= 0) & np.broadcast_to(np.asarray(where, dtype=bool), len(compositions))[rows]
        sigmas = np.array([sigma_eV[symbol] for symbol in names], dtype=np.float64)
        values = compositions.fractions[kept] * sigmas[columns[kept]]
        shape = (len(compositions), len(names))
        return cls(tuple(prefix + symbol for symbol in names), sparse(rows[kept], columns[kept], values, shape))

    def __add__(self, other: EnergyErrors) -> EnergyErrors:
        """Return the errors with the sources of both, for the same entries; sources of one name are one source.

        Raises:
            HullError: The numbers of entries differ.
        """
        if len(self) != len(other):
            raise HullError(f"errors of {len(self)} and of {len(other)} entries cannot be added")
        sources = tuple(dict.fromkeys([*self.sources, *other.sources]))
        return EnergyErrors(sources, (self._over(sources) + other._over(sources)).tocsr())

    def _over(self, sources: tuple[str, ...]) -> csr_array:
        """Return the coefficients with one column for each of more sources."""
        column = {name: j for j, name in enumerate(sources)}
        own = np.array([column[name] for name in self.sources], dtype=np.int64)
        return self.coefficients @ sparse(np.arange(len(own)), own, np.ones(len(own)), (len(own), len(sources)))

    @property
    def sigma(self) -> FloatArray:
        """float64, shape (n,), eV/atom: standard deviation of each entry's energy."""
        return _row_norms(self.coefficients)

    def shifts(self, seed: int, sample: int) -> FloatArray:
        """Return what one draw of all sources adds to the energies, float64, (n,), in eV/atom.

        Each sample has a seed of its own, so that any of them can be drawn anywhere, in any order.

        Args:
            seed: Seed of the ensemble.
            sample: Number of the draw, from 0; draw k uses child k of ``numpy.random.SeedSequence(seed).spawn``.
        """
        own_seed = np.random.SeedSequence(seed, spawn_key=(sample,))
        draws = np.random.Generator(np.random.PCG64(own_seed)).standard_normal(len(self.sources))
        shifted: FloatArray = self.coefficients @ draws
        return shifted

    def of(self, indices: IntArray) -> EnergyErrors:
        """Return the errors of some entries; all sources stay, so that the same seed draws the same numbers."""
        return EnergyErrors(self.sources, self.coefficients[indices])


@dataclass(frozen=True, eq=False)
class FirstOrder:
    """Signed distances of m entries from the hull of the others, and their errors to first order.

    indices: Entry indices, (m,).
    distance: (m,), eV/atom: negative for an entry below the hull of the others, otherwise its energy above hull; NaN
        where there is no hull without the entry, as for the only entry of an element.
    effects: (m, s) sparse, eV/atom: what one standard deviation of each source adds to the distance.
    """

    indices: IntArray
    distance: FloatArray
    effects: csr_array

    @property
    def sigma(self) -> FloatArray:
        """float64, (m,), eV/atom: standard deviation of the distance; NaN where the distance is."""
        return np.where(np.isnan(self.distance), np.nan, _row_norms(self.effects))

    @property
    def covariance(self) -> FloatArray:
        """float64, (m, m), (eV/atom)^2: how the distances vary together; dense, so for chosen entries."""
        dense: FloatArray = (self.effects @ self.effects.T).toarray()
        return dense

    def p_stable(self, stable_eV: float = 0.0) -> FloatArray:
        """Return P(distance <= stable_eV) of a normal distribution, (m,); NaN where the distance is.

        Right as long as the errors do not change what an entry decomposes into; `ensembles.p_stable` knows no such
        limit.
        """
        from scipy.special import ndtr

        sigma = self.sigma
        with np.errstate(divide="ignore", invalid="ignore"):
            probability = ndtr((stable_eV - self.distance) / sigma)
        return np.where(sigma == 0, np.where(self.distance <= stable_eV, 1.0, 0.0), probability)


def first_order(hull: ConvexHull, errors: EnergyErrors, indices: ArrayLike) -> FirstOrder:
    """Return signed distances from the hull and their errors, from the decompositions at the energies as they are.

    The distance of an entry is its energy less those of its products in their fractions, so a source changes it by the
    entry's coefficient less the products' in the same fractions. That is exact for every change of the energies that
    leaves the products the same. An entry on the hull is compared with what it would decompose into were it not there.

    Args:
        hull: The hull.
        errors: Errors of all its entries, by entry index; those of removed ones do not count.
        indices: The m entries asked for.

    Raises:
        HullError: An entry is unknown or was removed, or the errors are of another number of entries.
    """
    require_same_length(hull, errors)
    numbers = hull.numbers(indices)
    asked = numbers.indices
    products = [numbers.decomposition(r) for r in range(len(asked))]
    for r in np.flatnonzero(numbers.e_above_hull <= ON_HULL_eV).tolist():
        products[r] = hull.decomposition_of_others(int(asked[r]))
    cells = [(r, int(i), 1.0) for r, i in enumerate(asked) if products[r]]
    cells += [(r, j, -fraction) for r, row in enumerate(products) for j, fraction in row]
    gradient = _from_cells(cells, (len(asked), len(hull)))
    return FirstOrder(asked, numbers.e_to_hull_of_others, (gradient @ errors.coefficients).tocsr())


def require_same_length(hull: ConvexHull, errors: EnergyErrors) -> None:
    """Raise HullError unless the errors are of the hull's entries."""
    if len(hull) != len(errors):
        raise HullError(
            f"the hull has {len(hull)} entries, the errors are of {len(errors)}",
            next_step="Give errors for every entry index, removed entries included (no parts).",
        )


def sparse(rows: IntArray, columns: IntArray, values: FloatArray, shape: tuple[int, int]) -> csr_array:
    """Return a matrix from its cells; cells of one place add up."""
    from scipy.sparse import csr_array

    return csr_array((values, (rows, columns)), shape=shape)


def _from_cells(cells: Sequence[tuple[int, int, float]], shape: tuple[int, int]) -> csr_array:
    rows, columns, values = zip(*cells, strict=True) if cells else ((), (), ())
    return sparse(np.array(rows, np.int64), np.array(columns, np.int64), np.array(values, np.float64), shape)


def _row_norms(matrix: csr_array) -> FloatArray:
    norms: FloatArray = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    return norms
