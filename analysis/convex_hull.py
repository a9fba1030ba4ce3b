"""The convex hull of formation energies: arrays in, arrays out; it knows neither documents nor databases."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from hullworks.analysis.compositions import CompositionArrays, as_arrays
from hullworks.analysis.engine import answers, certificates
from hullworks.analysis.engine.changes import change
from hullworks.analysis.engine.keys import CODE_OF, CODED_SYMBOLS
from hullworks.analysis.engine.store import Rows, Store
from hullworks.errors import HullError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import ArrayLike, NDArray
    from pymatgen.core.composition import Composition

    from hullworks.analysis.compositions import Compositions, FloatArray, IntArray
    from hullworks.analysis.engine.keys import Array

__all__ = ["CompositionArrays", "ConvexHull", "HullChange", "HullNumbers", "ON_HULL_eV"]

ON_HULL_eV: Final = 1e-8
"""Distance in eV/atom up to which an entry counts as on the hull: far above round-off, far below anything physical."""
ROUND_OFF_eV: Final = 1e-10
"""Distances in eV/atom below this are round-off and are reported as 0. Total energies reach 1e4 eV/atom, whose last
bit is 2e-12 eV."""


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

    An entry's hull is that of its own chemical system, made of all entries within it. Each entry's place on it is
    proved: by a mixture of phases that reaches its composition, and by chemical potentials that no phase undercuts;
    a change of the entries solves only those again whose proof it breaks. Entries keep their index for good: adding
    appends, and removing leaves a gap with ``active`` False and NaN results. Reading from several threads while one
    changes the entries is safe: each call answers for one set.

    Compositions whose atomic fractions differ by less than 1e-10 are the same composition.

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
        self._lock = threading.RLock()
        self._store = Store()
        energies = _energies(energies_per_atom, len(compositions))
        change(self._store, np.zeros(0, np.int64), _rows(compositions), energies)

    @classmethod
    def from_entries(cls, compositions: Sequence[str | Composition], energies_per_atom: ArrayLike) -> Self:
        """Build the hull from formulas or pymatgen Compositions."""
        return cls(CompositionArrays.from_compositions(compositions), energies_per_atom)

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            return {"_store": self._store}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.RLock())

    def __len__(self) -> int:
        return len(self._store.entries)

    @property
    def compositions(self) -> CompositionArrays:
        """Compositions of all entries, removed ones included."""
        with self._lock:
            rows = self._store.rows_of(self._store.entries["comp"])
        codes, indices = np.unique(rows.codes, return_inverse=True)
        return CompositionArrays(tuple(CODED_SYMBOLS[c] for c in codes), rows.indptr, indices, rows.fractions)

    @property
    def active(self) -> NDArray[np.bool_]:
        """bool, shape (n_entries,): False for removed entries; a copy."""
        with self._lock:
            active: NDArray[np.bool_] = self._store.entries["active"].copy()
        return active

    @property
    def elements(self) -> tuple[str, ...]:
        """Elements of the active entries, sorted."""
        with self._lock:
            return tuple(CODED_SYMBOLS[code] for code in np.flatnonzero(self._store.elements_occurring()))

    @property
    def missing_elements(self) -> tuple[str, ...]:
        """Elements that occur, but only in compounds: no system with them has a hull."""
        with self._lock:
            missing = self._store.elements_occurring() & ~self._store.elements_there()
        return tuple(CODED_SYMBOLS[code] for code in np.flatnonzero(missing))

    @property
    def e_above_hull(self) -> FloatArray:
        """float64, shape (n_entries,), eV/atom, >= 0; NaN where an elemental reference is missing; a copy."""
        with self._lock:
            return _clean(answers.distances(self._store, np.arange(len(self))))

    @property
    def formation_energy_per_atom(self) -> FloatArray:
        """float64, shape (n_entries,), eV/atom; NaN where an elemental reference is missing, or for removed entries."""
        with self._lock:
            formation = answers.formation_energies(self._store, np.arange(len(self)))
            return np.where(self._store.entries["active"], formation, np.nan)

    @property
    def stable(self) -> IntArray:
        """Indices of the entries on the hull, increasing; of entries that tie, all."""
        return np.flatnonzero(self.e_above_hull <= ON_HULL_eV)

    def numbers(self, indices: ArrayLike) -> HullNumbers:
        """Return all numbers of some active entries.

        They follow from the active entries and their order alone, bit for bit, whatever changes led there; where
        several mixtures are equally cheap, one of them is chosen for good.

        Raises:
            HullError: An entry is unknown or was removed.
        """
        asked = np.array(indices, dtype=np.int64)
        with self._lock:
            self._must_be_active(asked)
            found = answers.numbers(self._store, asked)
        return HullNumbers(
            asked, found.formation, _clean(found.above), _clean(found.to_others), found.indptr, found.products,
            found.fractions,
        )  # fmt: skip

    def decomposition(self, i: int) -> list[tuple[int, float]]:
        """Return the stable phases that entry i decomposes into: (entry index, fraction of atoms), summing to 1.

        An entry on the hull decomposes into itself.

        Raises:
            HullError: The entry was removed, or an elemental reference is missing.
        """
        with self._lock:
            self._must_have_hull(i)
            return self.numbers([i]).decomposition(0)

    def decomposition_of_others(self, i: int) -> list[tuple[int, float]]:
        """Return what entry i would decompose into without itself: (entry index, fraction of atoms), summing to 1.

        For an entry on the hull these are the phases that it is stable against; empty where there is no hull without
        it, as for the only entry of an element.

        Raises:
            HullError: The entry was removed.
        """
        with self._lock:
            self._must_be_active(np.array([i]))
            entries, fractions = answers.without(self._store, i)
        return list(zip(entries.tolist(), fractions.tolist(), strict=True))

    def chemical_potentials(self, i: int) -> dict[str, float]:
        """Return one set of chemical potentials of the hull at entry i, in eV/atom relative to the elements.

        A phase that is a vertex of the hull allows a range of potentials, of which this is one corner.

        Raises:
            HullError: The entry was removed, or an elemental reference is missing.
        """
        with self._lock:
            system = self._must_have_hull(i)
            return dict(zip(system, answers.potentials(self._store, self._comp(i)).tolist(), strict=True))

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
        with self._lock:
            if not ignore_polymorphs:
                return float(self.numbers([i]).e_to_hull_of_others[0])
            self._must_be_active(np.array([i]))
            comp = self._comp(i)
            energy = self._store.entries["energy"][i] - self._store.comps["shift"][comp]
            distance = energy - self._store.comps["h"][comp]
        return float(_clean(np.array(distance if np.isfinite(distance) else np.nan)))

    def query(self, compositions: Compositions, energies_per_atom: ArrayLike) -> FloatArray:
        """Return signed distances from the hull, float64, (m,), in eV/atom; negative means it would be stable.

        Args:
            compositions: m compositions; nothing is added to the hull.
            energies_per_atom: Shape (m,), eV/atom, on the same scale as the entries.

        Returns:
            NaN where an elemental reference is missing.
        """
        rows = _rows(as_arrays(compositions))
        energies = _energies(energies_per_atom, len(rows))
        with self._lock:
            found = answers.query(self._store, rows)
        return _clean(energies - found.shift - found.h)

    def query_decomposition(self, composition: str | Composition) -> list[tuple[int, float]]:
        """Return the stable phases at any composition: (entry index, fraction of atoms), summing to 1.

        Raises:
            HullError: The composition cannot be read, or an elemental reference is missing.
        """
        rows = _rows(CompositionArrays.from_compositions([composition]))
        with self._lock:
            self._must_be_complete(rows)
            found = answers.query(self._store, rows)
            kept = found.lam[0] > answers.NOTHING
            ground, shares = self._store.comps["ground"][found.basis[0][kept]], found.lam[0][kept]
        return sorted(zip(ground.tolist(), (shares / shares.sum()).tolist(), strict=True))

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
        rows, energies = _rows(new), _energies(energies_per_atom, len(new))
        with self._lock:
            gone = np.unique(np.array(list(remove), dtype=np.int64))
            self._must_be_active(gone)
            before = _Places.of(self._store)
            moved = change(self._store, gone, rows, energies)
            return before.compared(self._store, moved.comps, moved.added, gone)

    def verify(self) -> float:
        """Prove all energies above hull, and return the largest doubt in eV/atom; round-off when all is right.

        Weak duality of linear programming: chemical potentials that no entry undercuts bound the hull from below,
        and a mixture of entries of the same composition bounds it from above. Where both meet, they are the hull.
        Nothing is solved again.
        """
        with self._lock:
            return certificates.largest_doubt(self._store)

    def _comp(self, i: int) -> int:
        return int(self._store.entries["comp"][i])

    def _must_be_active(self, indices: IntArray) -> None:
        inside = (indices >= 0) & (indices < len(self))
        bad = indices[~inside] if not inside.all() else indices[~self._store.entries["active"][indices]]
        if len(bad):
            raise HullError(f"there is no entry {bad[0]} in this hull", next_step="`active` tells which are in use.")

    def _must_have_hull(self, i: int) -> list[str]:
        """Return the chemical system of an entry that has a hull."""
        self._must_be_active(np.array([i]))
        return self._must_be_complete(self._store.rows_of(self._store.entries["comp"][[i]]))

    def _must_be_complete(self, rows: Rows) -> list[str]:
        system = [CODED_SYMBOLS[code] for code in rows.codes]
        there = self._store.elements_there()[rows.codes]
        if missing := [symbol for symbol, known in zip(system, there, strict=True) if not known]:
            raise HullError(
                f"there is no elemental reference of {', '.join(missing)}",
                "-".join(system),
                "Add an entry of each missing element at the same level of theory.",
            )
        return system


@dataclass(frozen=True)
class _Places:
    """Where the compositions were before a change."""

    ground: Array
    e: Array
    h: Array
    n_entries: int

    @classmethod
    def of(cls, store: Store) -> Self:
        comps = store.comps
        return cls(comps["ground"].copy(), comps["e"].copy(), comps["h"].copy(), len(store.entries))

    def compared(self, store: Store, comps: IntArray, added: IntArray, gone: IntArray) -> HullChange:
        """Return what a change did, given all compositions that it may have concerned."""
        touched, _ = store.entries_of(comps)
        old = self._above(store, touched, gone)
        new = _clean(answers.distances(store, touched))
        with np.errstate(invalid="ignore"):
            changed = (np.isnan(old) != np.isnan(new)) | (np.abs(old - new) > ROUND_OFF_eV)
        changed |= np.isin(touched, added) | np.isin(touched, gone)
        was, now = old <= ON_HULL_eV, new <= ON_HULL_eV
        return HullChange(
            added, gone, touched[changed], touched[now & ~was], touched[was & ~now], touched, old[changed],
            new[changed],
        )  # fmt: skip

    def _above(self, store: Store, touched: IntArray, gone: IntArray) -> FloatArray:
        """Return the energies above hull before the change; NaN of entries that were not there."""
        energy, there = store.entries["energy"], store.entries["active"][touched] | np.isin(touched, gone)
        there &= touched < self.n_entries
        above = np.full(len(touched), np.nan)
        own = touched[there]
        comp = store.entries["comp"][own]
        with np.errstate(invalid="ignore"):
            of_ground = np.maximum(self.e[comp] - self.h[comp], 0.0)
        above[there] = energy[own] - energy[self.ground[comp]] + of_ground
        return _clean(above)


def _rows(compositions: CompositionArrays) -> Rows:
    """Return compositions with the engine's element codes, which are ordered as the symbols are."""
    codes = np.array([CODE_OF[symbol] for symbol in compositions.elements], dtype=np.uint8)
    return Rows(compositions.indptr, codes[compositions.indices], compositions.fractions)


def _clean(distances: FloatArray) -> FloatArray:
    """Return distances without round-off."""
    return np.where(np.abs(distances) < ROUND_OFF_eV, 0.0, distances)


def _energies(values: ArrayLike, n: int) -> FloatArray:
    energies = np.array(values, dtype=np.float64)
    if energies.shape != (n,):
        raise HullError(f"there are {n} compositions, but energies of shape {energies.shape}")
    if not np.isfinite(energies).all():
        raise HullError("an energy is not finite", f"entry {int(np.flatnonzero(~np.isfinite(energies))[0])}")
    return energies
