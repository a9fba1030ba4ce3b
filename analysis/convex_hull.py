"""The convex hull of formation energies: arrays in, arrays out; it knows neither documents nor databases."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from hullworks.analysis.compositions import SAME_COMPOSITION, CompositionArrays, as_arrays
from hullworks.analysis.hull_state import HullState, ROUND_OFF_eV, doubt
from hullworks.errors import HullError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import ArrayLike
    from pymatgen.core.composition import Composition

    from hullworks.analysis.compositions import Compositions, FloatArray, IntArray, System
    from hullworks.analysis.hull_state import BoolArray, Row

__all__ = ["CompositionArrays", "ConvexHull", "HullChange", "ON_HULL_eV"]

ON_HULL_eV: Final = 1e-8
"""Distance in eV/atom up to which an entry counts as on the hull: far above round-off, far below anything physical."""


@dataclass(frozen=True)
class HullChange:
    """What one change of the entries did to the hull; all indices are entry indices, increasing.

    added, removed: The entries that came and went.
    affected: Entries whose energy above hull changed, those added and removed among them.
    entered, left: Entries that came onto the hull and that are no longer on it.
    touched: Entries of which any of `ConvexHull.numbers` may have changed; the affected ones among them.
    e_above_hull_before, e_above_hull_after: eV/atom, one per affected entry; NaN where the entry was not there or an
        elemental reference was missing.
    """

    added: IntArray
    removed: IntArray
    affected: IntArray
    entered: IntArray
    left: IntArray
    touched: IntArray
    e_above_hull_before: FloatArray
    e_above_hull_after: FloatArray


@dataclass(frozen=True)
class HullNumbers:
    """What the hull says of m entries; energies in eV/atom.

    indices: Entry indices, (m,).
    formation_energy: (m,); NaN where an elemental reference is missing.
    e_above_hull: (m,), >= 0; NaN where an elemental reference is missing.
    e_to_hull_of_others: (m,): signed distance from the hull without the entry; NaN where there is none.
    indptr, products, fractions: Entry r decomposes into the entries ``products[indptr[r]:indptr[r + 1]]`` with these
        fractions of atoms; nothing where an elemental reference is missing.
    """

    indices: IntArray
    formation_energy: FloatArray
    e_above_hull: FloatArray
    e_to_hull_of_others: FloatArray
    indptr: IntArray
    products: IntArray
    fractions: FloatArray

    def decomposition(self, r: int) -> list[tuple[int, float]]:
        """Return what the entry in row r decomposes into: (entry index, fraction of atoms)."""
        row = slice(int(self.indptr[r]), int(self.indptr[r + 1]))
        return list(zip(self.products[row].tolist(), self.fractions[row].tolist(), strict=True))


class ConvexHull:
    """The convex hull of formation energies over every chemical system that occurs among its entries.

    An entry's hull is that of its own chemical system, made of all entries within it. Systems are solved when first
    asked for. Entries keep their index for good: adding appends, and removing leaves a gap with ``active`` False and
    NaN results. Reading from several threads while one changes the entries is safe: each call answers for one set.

    >>> hull = ConvexHull.from_entries(["Mg", "Si", "Mg2Si", "MgSi"], [0.0, 0.0, -0.15, 0.17])
    >>> hull.e_above_hull.round(4).tolist()
    [0.0, 0.0, 0.0, 0.2825]
    >>> [(i, round(fraction, 2)) for i, fraction in hull.decomposition(3)]
    [(1, 0.25), (2, 0.75)]

    Args:
        compositions: Compositions of the n entries.
        energies_per_atom: float64, shape (n,), in eV/atom: total or formation energies of one level of theory; any
            constant per atom of each element may be in them.

    Raises:
        HullError: An energy is not finite, or the lengths differ.
    """

    def __init__(self, compositions: CompositionArrays, energies_per_atom: ArrayLike) -> None:
        self._writing = threading.Lock()
        nobody = np.zeros(0, np.int64)
        self._state = HullState.empty().changed(nobody, compositions, _energies(energies_per_atom, len(compositions)))[
            0
        ]

    @classmethod
    def from_entries(cls, compositions: Sequence[str | Composition], energies_per_atom: ArrayLike) -> Self:
        """Build the hull from formulas or pymatgen Compositions."""
        return cls(CompositionArrays.from_compositions(compositions), energies_per_atom)

    def __getstate__(self) -> dict[str, Any]:
        return {"_state": self._state}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _writing=threading.Lock())

    def __len__(self) -> int:
        return len(self._state.rows)

    @property
    def compositions(self) -> CompositionArrays:
        """Compositions of all entries, removed ones included."""
        return self._state.compositions

    @property
    def active(self) -> BoolArray:
        """bool, shape (n_entries,): False for removed entries; a copy."""
        return self._state.active.copy()

    @property
    def elements(self) -> tuple[str, ...]:
        """Elements of the active entries, sorted."""
        return tuple(sorted({symbol for system in self._state.by_system for symbol in system}))

    @property
    def missing_elements(self) -> tuple[str, ...]:
        """Elements that occur, but only in compounds: no system with them has a hull."""
        return self._state.missing(self.elements)

    @property
    def e_above_hull(self) -> FloatArray:
        """float64, shape (n_entries,), eV/atom, >= 0; NaN where an elemental reference is missing; a copy."""
        state = self._state
        return state.e_above_hull(np.arange(len(state.rows)))

    @property
    def formation_energy_per_atom(self) -> FloatArray:
        """float64, shape (n_entries,), eV/atom; NaN where an elemental reference is missing, or for removed entries."""
        state = self._state
        values = [state.formation(row, energy) for row, energy in zip(state.rows, state.energies, strict=True)]
        return np.where(state.active, np.array(values), np.nan)

    @property
    def stable(self) -> IntArray:
        """Indices of the entries on the hull, increasing; of entries that tie, all."""
        return np.flatnonzero(self.e_above_hull <= ON_HULL_eV)

    def decomposition(self, i: int) -> list[tuple[int, float]]:
        """Return the stable phases that entry i decomposes into: (entry index, fraction of atoms), summing to 1.

        An entry on the hull decomposes into itself.

        Raises:
            HullError: The entry was removed, or an elemental reference is missing.
        """
        state = self._state
        system, x = self._row(state, i)
        if self._missing_refused(state, system) is None and state.e_above_hull(np.array([i]))[0] == 0:
            return [(i, 1.0)]
        return state.hull(system).phases(x)

    def numbers(self, indices: ArrayLike) -> HullNumbers:
        """Return all numbers of some active entries.

        They follow from the set of active entries alone, bit for bit, whatever changes led to it.

        Raises:
            HullError: An entry is unknown or was removed.
        """
        asked = np.array(indices, dtype=np.int64)
        above, formation = self.e_above_hull, self.formation_energy_per_atom
        parts = [[] if np.isnan(above[i]) else self.decomposition(i) for i in asked.tolist()]
        flat = [part for row in parts for part in row]
        return HullNumbers(
            asked,
            formation[asked],
            above[asked],
            np.array([self.e_to_hull_of_others(i) for i in asked.tolist()], dtype=np.float64),
            np.cumsum([0, *map(len, parts)], dtype=np.int64),
            np.array([j for j, _ in flat], dtype=np.int64),
            np.array([fraction for _, fraction in flat], dtype=np.float64),
        )

    def chemical_potentials(self, i: int) -> dict[str, float]:
        """Return one set of chemical potentials of the hull at entry i, in eV/atom relative to the elements.

        A phase that is a vertex of the hull allows a range of potentials, of which this is one corner.

        Raises:
            HullError: The entry was removed, or an elemental reference is missing.
        """
        state = self._state
        system, x = self._row(state, i)
        self._missing_refused(state, system)
        hull = state.hull(system)
        return dict(zip(system, hull.potentials[hull.locate(x)[1]].tolist(), strict=True))

    def e_to_hull_of_others(self, i: int, *, ignore_polymorphs: bool = False) -> float:
        """Return the signed distance in eV/atom of entry i from the hull without it.

        Negative for a vertex of the hull: how deep the phase lies below what would be stable without it. For any
        other entry this is its energy above hull.

        Args:
            i: Entry index.
            ignore_polymorphs: Leave out all entries of the same composition, as for the decomposition enthalpy of
                Bartel et al., npj Comput. Mater. 6, 97 (2020).

        Returns:
            NaN where an elemental reference is missing without the entry.
        """
        state = self._state
        system, x = self._row(state, i)
        own = state.by_system[system]
        same = [j for j in own.tolist() if np.abs(state.rows[j][1] - x).max() < SAME_COMPOSITION]
        gone = np.array(same if ignore_polymorphs else [i], dtype=np.int64)
        others, _ = state.changed(gone, CompositionArrays.from_amounts([]), np.zeros(0))
        return others.distance((system, x), state.energies[i])

    def query(self, compositions: Compositions, energies_per_atom: ArrayLike) -> FloatArray:
        """Return signed distances from the hull, float64, (m,), in eV/atom; negative means it would be stable.

        Args:
            compositions: m compositions; nothing is added to the hull.
            energies_per_atom: Shape (m,), eV/atom, on the same scale as the entries.

        Returns:
            NaN where an elemental reference is missing.
        """
        rows = as_arrays(compositions)
        state = self._state
        energies = _energies(energies_per_atom, len(rows))
        distances = [state.distance(row, energy) for row, energy in zip(rows, energies, strict=True)]
        return np.array(distances, dtype=np.float64)

    def query_decomposition(self, composition: str | Composition) -> list[tuple[int, float]]:
        """Return the stable phases at any composition: (entry index, fraction of atoms), summing to 1.

        Raises:
            HullError: The composition cannot be read, or an elemental reference is missing.
        """
        state = self._state
        system, x = next(iter(CompositionArrays.from_compositions([composition])))
        self._missing_refused(state, system)
        return state.hull(system).phases(x)

    def add(self, compositions: Compositions, energies_per_atom: ArrayLike) -> HullChange:
        """Append entries; their indices are those of ``added`` in the change."""
        return self.update(compositions=compositions, energies_per_atom=energies_per_atom)

    def remove(self, indices: Iterable[int]) -> HullChange:
        """Remove entries; the others keep their indices."""
        return self.update(remove=indices)

    def update(
        self, *, remove: Iterable[int] = (), compositions: Compositions = (), energies_per_atom: ArrayLike = ()
    ) -> HullChange:
        """Remove and append entries as one change, such as when an energy is corrected.

        Raises:
            HullError: An index to remove is unknown or removed already, or an energy is not finite; nothing changes.
        """
        new = as_arrays(compositions)
        energies = _energies(energies_per_atom, len(new))
        with self._writing:
            before = self._state
            gone = np.unique(np.array(list(remove), dtype=np.int64))
            for i in gone.tolist():
                self._row(before, i)
            after, stale = before.changed(gone, new, energies)
            self._state = after
        return _compare(before, after, gone, stale)

    def verify(self) -> float:
        """Prove all energies above hull, and return the largest doubt in eV/atom; round-off when all is right.

        Weak duality of linear programming: chemical potentials that no entry undercuts bound the hull from below,
        and a mixture of entries of the same composition bounds it from above. Where both meet, they are the hull.
        """
        state = self._state
        doubts = [doubt(state, system) for system in state.by_system if not state.missing(system)]
        return max(doubts, default=0.0)

    @staticmethod
    def _row(state: HullState, i: int) -> Row:
        if not 0 <= i < len(state.rows) or not state.active[i]:
            raise HullError(f"there is no entry {i} in this hull", next_step="`active` tells which indices are in use.")
        return state.rows[i]

    @staticmethod
    def _missing_refused(state: HullState, system: System) -> None:
        if missing := state.missing(system):
            raise HullError(
                f"there is no elemental reference of {', '.join(missing)}",
                "-".join(system),
                "Add an entry of each missing element at the same level of theory.",
            )


def _energies(values: ArrayLike, n: int) -> FloatArray:
    energies = np.array(values, dtype=np.float64)
    if energies.shape != (n,):
        raise HullError(f"there are {n} compositions, but energies of shape {energies.shape}")
    if not np.isfinite(energies).all():
        raise HullError("an energy is not finite", f"entry {int(np.flatnonzero(~np.isfinite(energies))[0])}")
    return energies


def _compare(before: HullState, after: HullState, gone: IntArray, stale: IntArray) -> HullChange:
    """Return what differs between two states; only entries gone or stale can differ."""
    asked = np.union1d(gone, stale)
    old = np.full(len(asked), np.nan)
    there = asked < len(before.rows)
    old[there] = before.e_above_hull(asked[there])
    new = after.e_above_hull(asked)
    came = asked >= len(before.rows)
    changed = came | np.isin(asked, gone) | (np.isnan(old) != np.isnan(new)) | (np.abs(old - new) > ROUND_OFF_eV)
    was, now = old <= ON_HULL_eV, new <= ON_HULL_eV
    return HullChange(
        asked[came], gone, asked[changed], asked[now & ~was], asked[was & ~now], asked,
        old[changed], new[changed],
    )  # fmt: skip
