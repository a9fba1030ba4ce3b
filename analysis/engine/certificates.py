"""Proofs of a solved hull, checked all at once without solving anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from hullworks.analysis.engine.columns import gather
from hullworks.analysis.engine.kernels import SYSTEMS_AT_ONCE, doubt_compiled, is_compiled
from hullworks.analysis.engine.keys import spans
from hullworks.analysis.engine.programs import by_system, programs_of
from hullworks.analysis.engine.simplex import Mixtures, UNDERCUT_eV

if TYPE_CHECKING:
    from hullworks.analysis.engine.columns import Columns
    from hullworks.analysis.engine.keys import Array
    from hullworks.analysis.engine.store import Store

PRICED_AT_ONCE: Final = 1 << 18
"""Pairs of a phase and a plane that are compared at once: what the cache holds."""


def largest_doubt(store: Store) -> float:
    """Return the largest gap in eV/atom between what the store says and what its certificates prove.

    Of each composition: its mixture is one (fractions not negative, of other phases, making up the composition at
    energy h); no other phase on the hull lies below the plane of its chemical potentials, whose height is h, nor, if it
    is on the hull itself, any other phase of its system; it is among the phases on the hull if, and only if, it lies on
    or below h; its ground entry is the lowest. Together with all others' this proves every plane against every entry:
    an entry lies above its own proved hull.
    """
    doubts = [_doubt_of_grounds(store), _doubt_of_solutions(store)]
    solved = ~np.isnan(store.comps["h"]) & (store.comps["k"] > 1)
    for deep in (False, True):
        comps = np.flatnonzero(solved & (store.comps["vertex"] == deep))
        for systems, at, row in by_system(store, comps, SYSTEMS_AT_ONCE):
            doubts.append(_doubt(store, systems, comps[at], row, deep=deep))
    return max(doubts)


def _doubt_of_grounds(store: Store) -> float:
    """Return how far an active entry lies below the ground entry of its composition."""
    entries = np.flatnonzero(store.entries["active"])
    ground = store.comps["ground"][store.entries["comp"][entries]]
    if (ground < 0).any() or not store.entries["active"][ground].all():
        return np.inf
    energies = store.entries["energy"]
    return float((energies[ground] - energies[entries]).max(initial=0.0))


def _doubt_of_solutions(store: Store) -> float:
    """Return infinity where a composition has a solution and should not, or the other way round, or the index lies."""
    should = (store.comps["ground"] >= 0) & store.complete(np.arange(len(store.systems)))[store.comps["sys"]]
    on_hull = should & (store.comps["e"] <= store.comps["h"] + UNDERCUT_eV)
    listed = np.zeros(len(store.comps), dtype=bool)
    listed[store.vertices["comp"][spans(store.systems["vstart"], store.systems["vcount"])]] = True
    wrong = (np.isnan(store.comps["h"]) == should) | (store.comps["vertex"] != on_hull) | (listed != on_hull)
    return np.inf if wrong.any() else 0.0


def _doubt(store: Store, systems: Array, comps: Array, row: Array, *, deep: bool) -> float:
    """Return the largest gap of compositions that are all on the hull, or all above it."""
    codes, places, targets = programs_of(store, systems, comps, row)
    solved = Mixtures(store.comps["h"][comps], places.get("mu"), places.get("lam"), places.get("basis"))
    if not all(np.isfinite(each).all() for each in (targets.x, solved.h, solved.mu, solved.lam)):
        return float("inf")
    if is_compiled(codes.shape[1]):
        return doubt_compiled(store, codes, targets, solved, systems if deep else None)
    columns = gather(store, codes, systems if deep else None)
    below = max(_undercut(columns, comps, row, solved.mu), float((solved.mu - targets.e_elements).max()))
    made = np.zeros_like(targets.x)
    for j in range(codes.shape[1]):
        made += solved.lam[:, [j]] * store.fractions_in(codes[row], solved.basis[:, j])
    e, itself = store.comps["e"][solved.basis], solved.basis == comps[:, None]
    heights = np.abs((solved.lam * e).sum(axis=1) - solved.h), np.abs((solved.mu * targets.x).sum(axis=1) - solved.h)
    gaps = [np.abs(made - targets.x), *heights, -solved.lam, solved.lam[itself]]
    return max(below, *(float(gap.max(initial=0.0)) for gap in gaps))


def _undercut(columns: Columns, comps: Array, row: Array, mu: Array) -> float:
    """Return how far a phase lies below the plane of one of some compositions, eV/atom."""
    worst = 0.0
    count = columns.count[row]
    order = np.argsort(count, kind="stable")
    for piece in np.array_split(order, 1 + int(count.sum()) // PRICED_AT_ONCE):
        width = int(count[piece[-1]]) if len(piece) else 0
        place = np.arange(width)[:, None]
        at = np.minimum(columns.start[row[piece]] + place, len(columns.e) - 1)
        reduced = columns.e[at]
        for j in range(mu.shape[1]):
            reduced -= mu[piece, j] * columns.x[j, at]
        there = (place < count[piece]) & (columns.comp[at] != comps[piece])
        worst = max(worst, -float(reduced.min(initial=0.0, where=there)))
    return worst
