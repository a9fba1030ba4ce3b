"""The inside of the convex hull: immutable sets of entries and the solved hull of each chemical system."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Final, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hullworks.analysis.compositions import SAME_COMPOSITION, CompositionArrays, FloatArray, IntArray, System
from hullworks.errors import HullError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

BoolArray: TypeAlias = NDArray[np.bool_]
Row: TypeAlias = tuple[System, FloatArray]
"""Chemical system and atomic fractions of an entry."""

ROUND_OFF_eV: Final = 1e-10
"""Distances in eV/atom below this are round-off and are reported as 0. Total energies reach 1e4 eV/atom, whose last
bit is 2e-12 eV."""
TOUCHES: Final = 1e-9
"""A phase fraction down to minus this is round-off of a point on the edge of its facet; an entry down to this many
eV/atom below a facet is round-off of an entry in its plane."""


@dataclass(frozen=True, eq=False)
class SystemHull:
    """Facets of the lower hull of one chemical system of k elements, in formation energies.

    vertices: entry indices, (f, k); fractions: atomic fractions of the vertices, (f, k, k);
    potentials: chemical potentials relative to the elements in eV/atom, (f, k).
    """

    system: System
    vertices: IntArray
    fractions: FloatArray
    potentials: FloatArray

    def locate(self, x: FloatArray) -> tuple[float, int, FloatArray]:
        """Return hull energy in eV/atom at the atomic fractions x, the facet there, and its phase fractions, (k,).

        Every facet's plane bounds the hull from below, and phase fractions that are not negative bound it from above;
        a facet that does both is the right one.
        """
        heights = self.potentials @ x
        best = float(heights.max(initial=-np.inf))
        for facet in np.flatnonzero(heights >= best - TOUCHES):
            amounts = np.linalg.solve(self.fractions[facet].T, x)
            if amounts.min() >= -TOUCHES:
                clean = np.clip(amounts, 0.0, None)
                return best, int(facet), clean / clean.sum()
        raise HullError(
            f"no facet of the {'-'.join(self.system)} hull covers the composition {x.tolist()}",
            next_step="Compositions of two entries are closer than floating-point numbers resolve; merge them.",
        )

    def phases(self, x: FloatArray) -> list[tuple[int, float]]:
        """Return the phases at the fractions x: (entry index, fraction of atoms), by index, without round-off."""
        _, facet, amounts = self.locate(x)
        kept = amounts > SAME_COMPOSITION
        shares = amounts[kept] / amounts[kept].sum()
        return sorted(zip(self.vertices[facet][kept].tolist(), shares.tolist(), strict=True))


@dataclass(frozen=True, eq=False)
class HullState:
    """One immutable set of entries; what is solved of it is kept, and solving twice gives the same.

    rows: chemical system and atomic fractions of each entry; by_system: the active entries of each system;
    references: lowest energy of each element in eV/atom; e_above: eV/atom, valid where ``known``.
    """

    compositions: CompositionArrays
    rows: tuple[Row, ...]
    energies: FloatArray
    active: BoolArray
    by_system: Mapping[System, IntArray]
    references: Mapping[str, float]
    e_above: FloatArray
    known: BoolArray
    solved: dict[System, SystemHull] = field(default_factory=dict)

    @classmethod
    def empty(cls) -> Self:
        """Return the state without any entry."""
        return cls(CompositionArrays.from_amounts([]), (), np.zeros(0), np.zeros(0, bool), {}, {}, *_unknown(0))

    def changed(self, gone: IntArray, new: CompositionArrays, energies: FloatArray) -> tuple[Self, IntArray]:
        """Return the state after entries went and came, and the entries left whose energy above hull may differ."""
        rows = (*self.rows, *new)
        come = np.arange(len(self.rows), len(rows))
        moved = self._moved_hulls(gone, new, energies)
        active = np.concatenate([self.active, np.ones(len(come), bool)])
        active[gone] = False
        by_system = self._regrouped(rows, active, [*gone.tolist(), *come.tolist()])
        all_energies = np.concatenate([self.energies, energies])
        references = {s[0]: float(all_energies[own].min()) for s, own in by_system.items() if len(s) == 1}
        stale = np.union1d(come, joined(own for system, own in by_system.items() if _holds_any(system, moved)))
        # `known` before `e_above`: another thread may be filling both, in the opposite order.
        fresh = _unknown(len(come))
        known = np.concatenate([self.known, fresh[1]])
        e_above = np.concatenate([self.e_above, fresh[0]])
        known[stale], known[gone], e_above[gone] = False, True, np.nan
        solved = {s: hull for s, hull in list(self.solved.items()) if not _holds_any(s, moved)}
        compositions = self.compositions.followed_by(new)
        state = type(self)(compositions, rows, all_energies, active, by_system, references, e_above, known, solved)
        return state, stale

    def _moved_hulls(self, gone: IntArray, new: CompositionArrays, energies: FloatArray) -> set[System]:
        """Return the systems of the entries whose coming or going moves a hull: those below or on it."""
        rows = [*zip(new, energies, strict=True), *((self.rows[i], self.energies[i]) for i in gone)]
        return {row[0] for row, energy in rows if not self.distance(row, energy) > 0}

    def _regrouped(self, rows: tuple[Row, ...], active: BoolArray, touched: Sequence[int]) -> dict[System, IntArray]:
        """Return the active entries of each system after the touched ones went or came."""
        groups: dict[System, list[int]] = {}
        for i in touched:
            groups.setdefault(rows[i][0], []).append(i)
        by_system = dict(self.by_system)
        for system, indices in groups.items():
            own = joined([by_system.pop(system, np.zeros(0, np.int64)), np.array(indices)])
            if active[own].any():
                by_system[system] = own[active[own]]
        return by_system

    def missing(self, system: System) -> tuple[str, ...]:
        """Return the elements of a system that have no elemental reference."""
        return tuple(symbol for symbol in system if symbol not in self.references)

    def formation(self, row: Row, energy: float) -> float:
        """Return the formation energy in eV/atom; NaN without all elemental references."""
        references = np.array([self.references.get(symbol, np.nan) for symbol in row[0]])
        return float(energy - row[1] @ references)

    def members(self, system: System) -> IntArray:
        """Return the active entries within a system, its subsystems included."""
        if 2 ** len(system) > len(self.by_system):
            inside = [s for s in self.by_system if set(s) <= set(system)]
        else:
            inside = [s for r in range(1, len(system) + 1) for s in combinations(system, r) if s in self.by_system]
        return joined(self.by_system[s] for s in inside)

    def columns(self, system: System, indices: IntArray) -> tuple[FloatArray, FloatArray]:
        """Return atomic fractions over the system, (m, k), and formation energies, (m,), of some of its entries."""
        position = {symbol: j for j, symbol in enumerate(system)}
        x = np.zeros((len(indices), len(system)))
        for row, i in enumerate(indices):
            own, fractions = self.rows[i]
            x[row, [position[symbol] for symbol in own]] = fractions
        return x, self.energies[indices] - x @ np.array([self.references[symbol] for symbol in system])

    def hull(self, system: System) -> SystemHull:
        """Return the solved hull of a system whose elemental references are all there."""
        if system not in self.solved:
            self.solved[system] = self.solve(system, self.members(system))
        return self.solved[system]

    def solve(self, system: System, indices: IntArray) -> SystemHull:
        """Solve a system for some of its entries, the elements among them."""
        x, formation = self.columns(system, indices)
        kept = _lowest_of_each_composition(x, formation)
        facets = kept[_lower_facets(system, x[kept], formation[kept])]
        fractions = x[facets]
        potentials = np.linalg.solve(fractions, formation[facets][..., None])[..., 0]
        # Triangulated degenerate facets can be slivers, whose planes are noise: a true facet has no entry below it.
        true = (formation[kept] - potentials @ x[kept].T).min(axis=1) >= -TOUCHES
        return SystemHull(system, indices[facets[true]], fractions[true], potentials[true])

    def distance(self, row: Row, energy: float) -> float:
        """Return the signed distance from the hull in eV/atom; NaN without all elemental references."""
        system, x = row
        if self.missing(system):
            return np.nan
        return _clean(self.formation(row, energy) - self.hull(system).locate(x)[0])

    def e_above_hull(self, indices: IntArray) -> FloatArray:
        """Return, after solving what is not known yet, energies above hull in eV/atom."""
        for i in indices[~self.known[indices]]:
            self.e_above[i] = np.maximum(self.distance(self.rows[i], self.energies[i]), 0.0)
            self.known[i] = True
        return self.e_above[indices]


def _unknown(n: int) -> tuple[FloatArray, BoolArray]:
    return np.full(n, np.nan), np.zeros(n, dtype=bool)


def joined(parts: Iterable[IntArray]) -> IntArray:
    """Return all indices of the parts, increasing."""
    return np.sort(np.concatenate([np.zeros(0, dtype=np.int64), *parts]))


def _clean(distance: float) -> float:
    return 0.0 if abs(distance) < ROUND_OFF_eV else distance


def _holds_any(system: System, inner: set[System]) -> bool:
    """Tell whether one of some systems lies within a system."""
    if len(inner) < 2 ** len(system):
        return any(set(s) <= set(system) for s in inner)
    return any(s in inner for r in range(1, len(system) + 1) for s in combinations(system, r))


def _lowest_of_each_composition(x: FloatArray, formation: FloatArray) -> IntArray:
    """Return the rows of x, (m, k), that have the lowest energy of their composition; the first of those that tie."""
    order = np.argsort(formation, kind="stable")
    _, first = np.unique(np.round(x[order] / SAME_COMPOSITION).astype(np.int64), axis=0, return_index=True)
    return np.sort(order[first])


def _lower_facets(system: System, x: FloatArray, formation: FloatArray) -> IntArray:
    """Return the facets of the lower hull of points x, (m, k), as rows, (f, k); one point per composition."""
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
    from pymatgen.core.composition import Composition

    if not (formation < -ROUND_OFF_eV).any():
        return np.array([np.argmax(x, axis=0)], dtype=np.int64)
    entries = [
        PDEntry(Composition(dict(zip(system, row, strict=True))), energy, name=str(i), attribute=i)
        for i, (row, energy) in enumerate(zip(x.tolist(), formation.tolist(), strict=True))
    ]
    diagram = PhaseDiagram(entries)
    return np.array([[diagram.qhull_entries[j].attribute for j in facet] for facet in diagram.facets], dtype=np.int64)


def doubt(state: HullState, system: System) -> float:
    """Return the largest gap in eV/atom between what is reported for a system's own entries and what is proved."""
    hull, own = state.hull(system), state.by_system[system]
    x, formation = state.columns(system, state.members(system))
    reported = state.e_above_hull(own)
    worst = 0.0
    for (x_i, e_i), e_above in zip(zip(*state.columns(system, own), strict=True), reported, strict=True):
        height, facet, amounts = hull.locate(x_i)
        undercut = -float((formation - x @ hull.potentials[facet]).min())
        corners, energies = state.columns(system, hull.vertices[facet])
        residual = float(np.abs(amounts @ corners - x_i).max())
        gap = abs(float(amounts @ energies) - height)
        worst = max(worst, undercut, residual, gap, abs(e_i - height - e_above))
    return worst
