"""Changes of the entries, and what they do to the hull: only what a change can move is solved again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

import numpy as np

from hullworks.analysis.engine.kernels import is_compiled, solve, solve_compiled
from hullworks.analysis.engine.keys import HALF, spans, union
from hullworks.analysis.engine.programs import by_system, programs_of
from hullworks.analysis.engine.simplex import TIGHT_eV, UNDERCUT_eV

if TYPE_CHECKING:
    from hullworks.analysis.engine.keys import Array
    from hullworks.analysis.engine.store import Rows, Store

PAIRS_AT_ONCE: Final = 1 << 19
"""Pairs of a changed phase and a composition that are compared at once."""
MEMBERS: Final = 8
"""About as many compositions have the same system, for cutting work into pieces."""
NOBODY: Final = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class Moved:
    """What a change concerned: entries that came, and the compositions whose numbers may differ."""

    added: Array
    comps: Array


@dataclass(frozen=True)
class Undercut:
    """Compositions whose plane is strictly undercut by a phase, and those whose plane one at least nearly touches."""

    strictly: Array
    nearly: Array

    @classmethod
    def nowhere(cls) -> Self:
        """Return none."""
        return cls(NOBODY, NOBODY)

    def __or__(self, other: Undercut) -> Undercut:
        return Undercut(union([self.strictly, other.strictly]), union([self.nearly, other.nearly]))


def change(store: Store, gone: Array, rows: Rows, energies: Array) -> Moved:
    """Remove and append entries, and bring every certificate up to date.

    Optimal stays optimal unless a phase of its mixture went or rose, or a phase fell below its plane: the first are
    found in the bases, the second by the chemical potentials. Everything else keeps its proof.

    Args:
        store: The store; it is changed.
        gone: Entries to remove, distinct and active.
        rows: Compositions of the new entries.
        energies: Their energies in eV/atom.
    """
    added = store.register(rows, energies)
    store.entries["active"][gone] = False
    own = union([store.entries["comp"][gone], store.entries["comp"][added]])
    e_before, ground_before = store.comps["e"][own], store.comps["ground"][own]
    store.set_grounds(own)
    moved_elements = _set_references(store, own, ground_before)
    # The frame of an element that comes may just have been fixed; its compositions have no solution yet.
    e = store.comps["e"][own]
    risen, fallen = own[e > e_before], own[e < e_before]
    # Who could be mixed with what goes, rises, or is another entry now at the same energy.
    other = (e > e_before) | ((e == e_before) & (store.comps["ground"][own] != ground_before))
    old = ~np.isnan(store.comps["h"]) & (store.comps["k"] > 1)
    ties = _near(store, own[other], e_before[other], old)
    _drop(store, own[np.isinf(e)])
    old &= ~np.isnan(store.comps["h"])

    widowed = _with_basis(store, risen)
    _solve(store, widowed)
    fallen = fallen[~np.isnan(store.comps["h"][fallen])]
    exposed = _flag(store, union([widowed, risen[~np.isnan(store.comps["h"][risen])], fallen]))

    fresh = _solve_fresh(store, union([own, moved_elements]), alone=not old.any())
    found = Undercut.nowhere()
    if old.any():
        found = _undercut(store, union([exposed, fresh[store.comps["vertex"][fresh]]]), old)
        # What is above the hull competes only where a vertex of its own system is thought away.
        found |= _undercut_in_own_systems(store, union([fallen, fresh]), old)
        found |= _undercut_in_own_systems(store, None, _marked(store, exposed))
        _solve(store, found.strictly)
        _flag(store, union([found.strictly, exposed]))
    return Moved(added, union([own, widowed, fresh, found.nearly, ties, moved_elements]))


def _near(store: Store, phases: Array, e_before: Array, old: Array) -> Array:
    """Return compositions that could, before a change, be mixed with one of some phases, whether they are or not."""
    if not len(phases):
        return NOBODY
    before = store.comps["e"].copy()
    before[phases] = e_before
    found = _undercut(store, phases[store.comps["vertex"][phases]], old, before)
    return (found | _undercut_in_own_systems(store, phases, old, before)).nearly


def _set_references(store: Store, own: Array, ground_before: Array) -> Array:
    """Take notice of elements whose reference came, went or moved; return the compositions that contain one."""
    pure = store.comps["k"][own] == 1
    moved = own[pure & (store.comps["ground"][own] != ground_before)]
    if not len(moved):
        return NOBODY
    codes = store.rows_of(moved).codes
    ground = store.comps["ground"][moved]
    there = ground >= 0
    first = there & np.isnan(store.frame[codes])
    if first.any():
        store.set_frame(codes[first], store.entries["energy"][ground[first]])
    comps = store.comps
    comps["h"][moved[there]], comps["vertex"][moved[there]] = np.inf, True
    store.set_vertices(moved)
    store.flat["mu"][comps["off"][moved]] = comps["e"][moved]
    store.flat["lam"][comps["off"][moved]], store.flat["basis"][comps["off"][moved]] = 1.0, moved
    systems = np.flatnonzero(store.systems_with(codes))
    lost = systems[~store.complete(systems)]
    _drop(store, store.members(lost)[0])
    return union([store.members(systems)[0]])


def _drop(store: Store, comps: Array) -> None:
    """Forget the solutions of compositions that have no entry any more, or no hull."""
    if not len(comps):
        return
    was_vertex = comps[store.comps["vertex"][comps]]
    store.comps["h"][comps], store.comps["vertex"][comps] = np.nan, False
    store.flat["basis"][spans(store.comps["off"][comps], store.comps["k"][comps])] = -1
    store.set_vertices(was_vertex)


def _with_basis(store: Store, comps: Array) -> Array:
    """Return the compositions of several elements whose mixture names one of some compositions, even with nothing."""
    if not len(comps):
        return NOBODY
    marked = np.zeros(len(store.comps) + 1, dtype=bool)
    marked[comps] = True
    flat = np.flatnonzero(marked[store.flat["basis"]])
    found = union([np.searchsorted(store.comps["off"], flat, "right") - 1])
    return found[store.comps["k"][found] > 1]


def _solve_fresh(store: Store, comps: Array, *, alone: bool) -> Array:
    """Solve those of some compositions that have an entry and a hull, but no solution; return them.

    By number of elements: what is on the hull of a system competes in all larger ones.

    Args:
        store: The store.
        comps: Compositions.
        alone: No other composition has a solution.
    """
    wanted = np.isnan(store.comps["h"][comps]) & (store.comps["ground"][comps] >= 0)
    fresh = comps[wanted & store.complete(store.comps["sys"][comps])]
    sizes = store.comps["k"][fresh]
    for k in range(2, int(sizes.max(initial=1)) + 1):
        comps = fresh[sizes == k]
        _solve_part(store, comps, depths=False, fresh=True)
        below = _flag(store, comps)
        if alone and is_compiled(k):
            continue  # compiled code has let them compete with each other
        found = _undercut_in_own_systems(store, below, _marked(store, comps) & ~store.comps["vertex"])
        found |= _undercut_in_own_systems(store, None, _marked(store, below))
        again = found.strictly
        _solve(store, again)
        _flag(store, union([below, again]))
    return fresh


def _marked(store: Store, comps: Array) -> Array:
    """Return a truth value per composition."""
    marked = np.zeros(len(store.comps), dtype=bool)
    marked[comps] = True
    return marked


def _flag(store: Store, comps: Array) -> Array:
    """Tell anew which of some solved compositions are on the hull; return those that are."""
    if not len(comps):
        return comps
    now = store.comps["e"][comps] <= store.comps["h"][comps] + UNDERCUT_eV
    differ = comps[store.comps["vertex"][comps] != now]
    store.comps["vertex"][comps] = now
    if len(differ):
        store.set_vertices(differ)
    return comps[now]


def _solve(store: Store, comps: Array) -> None:
    """Solve compositions of two or more elements against the present vertices.

    What is on the hull competes with all other compositions of its own system too: without it, they may be on the hull.
    """
    deep = store.comps["vertex"][comps]
    _solve_part(store, comps[~deep], depths=False)
    _solve_part(store, comps[deep], depths=True)


def _solve_part(store: Store, comps: Array, *, depths: bool, fresh: bool = False) -> None:
    for systems, at, row in by_system(store, comps):
        codes, places, targets = programs_of(store, systems, comps[at], row)
        if fresh and is_compiled(codes.shape[1]):
            found = solve_compiled(store, codes, targets, None, fresh=True)
        else:
            found = solve(store, codes, targets, systems if depths else None)
        store.comps["h"][comps[at]] = found.h
        places.put(mu=found.mu, lam=found.lam, basis=found.basis)


def _undercut_in_own_systems(
    store: Store, phases: Array | None, marked: Array, energies: Array | None = None
) -> Undercut:
    """Return which marked compositions have their plane undercut by a phase of the very same system.

    Args:
        store: The store.
        phases: The phases; None for all that have an entry.
        marked: bool, one per composition.
        energies: Energies of all compositions in the frame, by default the present ones.
    """
    energies = store.comps["e"] if energies is None else energies
    systems = _distinct(store, store.comps["sys"][np.flatnonzero(marked) if phases is None else phases])
    members, place = store.members(systems)
    order = np.argsort(place, kind="stable")
    members, place = members[order], place[order]
    mine = marked[members]
    theirs = store.comps["ground"][members] >= 0 if phases is None else _marked(store, phases)[members]
    comps, at = members[mine], place[mine]
    counts = np.bincount(at, minlength=len(systems))
    starts = np.cumsum(counts) - counts
    phase, of = members[theirs], place[theirs]
    found = Undercut.nowhere()
    for i in _pieces(counts[of]):
        mates = comps[spans(starts[of[i]], counts[of[i]])]
        found |= _priced(store, np.repeat(phase[i], counts[of[i]]), mates, energies)
    return found


def _distinct(store: Store, systems: Array) -> Array:
    """Return distinct systems, increasing."""
    there = np.zeros(len(store.systems), dtype=bool)
    there[systems] = True
    return np.flatnonzero(there)


def _undercut(store: Store, phases: Array, old: Array, energies: Array | None = None) -> Undercut:
    """Return which of the compositions marked old have their plane undercut by one of some phases."""
    energies = store.comps["e"] if energies is None else energies
    systems, which = store.supersystems(store.comps["sys"][phases])
    found = Undercut.nowhere()
    for piece in _pieces(np.full(len(systems), MEMBERS)):
        comps, place = store.members(systems[piece])
        kept = old[comps]
        found |= _priced(store, phases[which[piece]][place[kept]], comps[kept], energies)
    return found


def _pieces(counts: Array) -> list[Array]:
    """Cut rows so that the counts of each piece sum to about `PAIRS_AT_ONCE`."""
    if not len(counts):
        return []
    total = np.cumsum(counts)
    cuts = np.searchsorted(total, np.arange(PAIRS_AT_ONCE, int(total[-1]), PAIRS_AT_ONCE))
    return [piece for piece in np.split(np.arange(len(counts)), np.unique(cuts)) if len(piece)]


def _priced(store: Store, phases: Array, comps: Array, energies: Array) -> Undercut:
    """Compare phases with the planes of compositions, pair by pair; each phase lies within the other's system."""
    apart = phases != comps
    phases, comps = phases[apart], comps[apart]
    below = np.empty(len(phases))
    sizes = store.comps["k"][phases]
    for size in range(1, int(sizes.max(initial=0)) + 1):
        at = np.flatnonzero(sizes == size)
        phase, comp = phases[at], comps[at]
        plane = np.zeros(len(at))
        for j in range(size):
            place = store.comps["off"][comp] + _place(store, phase, j, comp)
            plane += store.flat["mu"][place] * store.flat["x"][store.comps["off"][phase] + j]
        below[at] = plane - energies[phase]
    return Undercut(union([comps[below > UNDERCUT_eV]]), union([comps[below > -TIGHT_eV]]))


def _place(store: Store, phase: Array, j: int, comp: Array) -> Array:
    """Return at which place of each composition's system the j-th element of the phase stands."""
    own, system = store.comps["sys"][phase], store.comps["sys"][comp]
    code = store.flat_codes["code"][store.systems["off"][own] + j].astype(np.uint64)
    high = code >= HALF
    below = (np.uint64(1) << (code & np.uint64(HALF - 1))) - np.uint64(1)
    lo, hi = store.systems["lo"][system], store.systems["hi"][system]
    place = np.bitwise_count(np.where(high, hi, lo) & below) + np.where(high, np.bitwise_count(lo), 0)
    places: Array = place.astype(np.int64)
    return places
