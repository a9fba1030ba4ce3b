"""What a solved store says: distances, canonical decompositions, queries."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from hullworks.analysis.engine import kernels
from hullworks.analysis.engine.columns import Columns, gather
from hullworks.analysis.engine.keys import mixed, spans, sums_of_rows
from hullworks.analysis.engine.programs import by_system, programs_of
from hullworks.analysis.engine.simplex import Targets, TIGHT_eV, UNDERCUT_eV, solve
from hullworks.analysis.engine.store import keys_of_rows

if TYPE_CHECKING:
    from hullworks.analysis.engine.keys import Array
    from hullworks.analysis.engine.store import Rows, Store

NOTHING: Final = 1e-8
"""A phase of less than this fraction of atoms is not in a mixture: it is round-off."""
TOO_DEAR: Final = 1e4
"""The weight of an element that is in no cheapest mixture."""


def formation_energies(store: Store, entries: Array) -> Array:
    """Return formation energies of entries in eV/atom; NaN where an elemental reference is missing."""
    comps, which = np.unique(store.entries["comp"][entries], return_inverse=True)
    rows = store.rows_of(comps)
    of_references = sums_of_rows(rows.fractions * store.references()[rows.codes], rows.indptr)
    energies: Array = store.entries["energy"][entries] - of_references[which]
    return energies


def distances(store: Store, entries: Array) -> Array:
    """Return energies above hull of entries in eV/atom; NaN where there is no hull or the entry is gone."""
    comp, energy = store.entries["comp"][entries], store.entries["energy"]
    ground = store.comps["ground"][comp]
    with np.errstate(invalid="ignore"):
        of_ground = np.maximum(store.comps["e"][comp] - store.comps["h"][comp], 0.0)
    above: Array = energy[entries] - energy[ground] + of_ground
    return np.where(store.entries["active"][entries], above, np.nan)


def lowest_of_others(store: Store, entries: Array) -> Array:
    """Return the lowest energy in eV/atom among the other active entries of the same composition; inf without one."""
    comps, which = np.unique(store.entries["comp"][entries], return_inverse=True)
    every, own = store.entries_of(comps)
    there = store.entries["active"][every]
    every, own = every[there], own[there]
    energies, ground = store.entries["energy"][every], store.comps["ground"][comps]
    second = np.full(len(comps), np.inf)
    others = every != ground[own]
    np.minimum.at(second, own[others], energies[others])
    lowest: Array = np.where(entries == ground[which], second[which], store.entries["energy"][ground[which]])
    return lowest


@dataclass(frozen=True)
class Decompositions:
    """The cheapest mixture of other compositions at each of n compositions, unique and canonical.

    h: eV/atom relative to the elements, (n,); indptr, (n + 1,), entries and fractions of atoms: the mixtures, phases by
    entry.
    """

    h: Array
    indptr: Array
    entries: Array
    fractions: Array


def decompositions(store: Store, comps: Array) -> Decompositions:
    """Return the canonical mixtures of other compositions at some solved ones of two or more elements.

    The numbers follow from the entries alone, bit for bit: where several mixtures are equally cheap, one is chosen by
    fixed weights of their compositions, and its fractions are solved for anew.
    """
    n = len(comps)
    width = int(store.comps["k"][comps].max(initial=1))
    basis, lam = np.full((n, width), -1, dtype=np.int64), np.zeros((n, width))
    for systems, at, row in by_system(store, comps, kernels.SYSTEMS_AT_ONCE):
        own_basis, own_lam = _chosen(store, systems, comps[at], row)
        basis[at, : own_basis.shape[1]], lam[at, : own_basis.shape[1]] = own_basis, own_lam
    ground = store.comps["ground"][basis].astype(np.int64)
    kept = (basis >= 0) & (lam > NOTHING)
    order = np.argsort(np.where(kept, ground, np.iinfo(np.int64).max), axis=1, kind="stable")
    kept, basis = np.take_along_axis(kept, order, axis=1), np.take_along_axis(basis, order, axis=1)
    counts = kept.sum(axis=1)
    entries = np.take_along_axis(ground, order, axis=1)[kept]
    fractions = _fractions(store, comps, basis, counts)
    indptr = np.concatenate([[0], np.cumsum(counts)])
    h = sums_of_rows(fractions * formation_energies(store, entries), indptr)
    return Decompositions(h, indptr, entries, fractions)


def _chosen(store: Store, systems: Array, comps: Array, row: Array) -> tuple[Array, Array]:
    """Return the mixtures of compositions of k elements, of equally cheap ones the canonical: basis and lam, (n, k)."""
    codes, places, targets = programs_of(store, systems, comps, row)
    mu, basis, lam = places.get("mu"), places.get("basis").copy(), places.get("lam").copy()
    columns = gather(store, codes, systems)
    column, program = _touching(columns, targets, mu)
    elements = targets.e_elements - mu < TIGHT_eV
    spare = np.bincount(program, minlength=len(comps)) + elements.sum(axis=1)
    several = np.flatnonzero(spare > (lam > NOTHING).sum(axis=1))
    if not len(several):
        return basis, lam
    place = np.full(len(comps), -1)
    place[several] = np.arange(len(several))
    column, of = column[place[program] >= 0], place[program][place[program] >= 0]
    comp, count = columns.comp[column], np.bincount(of, minlength=len(several))
    only = Columns(np.cumsum(count) - count, count, columns.x[:, column], _weights(store, comp), comp)
    own = targets.elements[several]
    weights = np.where(elements[several], _weights(store, own.reshape(-1)).reshape(own.shape), TOO_DEAR)
    nobody = np.full(len(several), -1)
    found = solve(only, Targets(np.arange(len(several)), targets.x[several], nobody, own, weights))
    basis[several], lam[several] = found.basis, found.lam
    return basis, lam


def _touching(columns: Columns, targets: Targets, mu: Array) -> tuple[Array, Array]:
    """Return the columns that lie on the plane of each program, and the program of each, increasing."""
    count = columns.count[targets.row]
    column, program = spans(columns.start[targets.row], count), np.repeat(np.arange(len(count)), count)
    reduced = columns.e[column].copy()
    for j in range(mu.shape[1]):
        reduced -= mu[program, j] * columns.x[j, column]
    tight = (reduced < TIGHT_eV) & (columns.comp[column] != targets.own[program])
    return column[tight], program[tight]


def _weights(store: Store, comps: Array) -> Array:
    """Return weights between 1 and 2 that follow from the compositions alone, (n,)."""
    keys, _ = keys_of_rows(store.rows_of(comps), 0)
    weights: Array = 1.0 + mixed(keys) / 2.0**64
    return weights


def _fractions(store: Store, comps: Array, basis: Array, counts: Array) -> Array:
    """Return the fractions of atoms of mixtures whose phases are known, solved for anew, one after the other."""
    parts = np.zeros((len(comps), basis.shape[1]))
    sizes = store.comps["k"][comps].astype(np.int64)
    for kind in np.unique(sizes << 8 | counts):
        k, n = int(kind >> 8), int(kind & 255)
        at = np.flatnonzero((sizes == k) & (counts == n))
        codes = store.system_codes(store.comps["sys"][comps[at]], k)
        matrix = np.stack([store.fractions_in(codes, basis[at, column]) for column in range(n)], axis=2)
        solved = np.clip(_eliminated(matrix, store.places(comps[at], k).get("x")), 0.0, None)
        total = np.zeros(len(at))
        for j in range(n):  # not `sum`, whose order of additions depends on the shape of the array
            total += solved[:, j]
        parts[at, :n] = solved / total[:, None]
    kept: Array = parts[np.arange(basis.shape[1]) < counts[:, None]]
    return kept


def _eliminated(matrix: Array, x: Array) -> Array:
    """Solve many small systems that have one solution, k equations for n unknowns, by Gauss-Jordan elimination.

    Elementwise, so that the bits of a solution do not depend on its neighbours, as those of a library's blocked
    algorithms do.

    Args:
        matrix: (m, k, n), k >= n.
        x: (m, k).
    """
    m, k, n = matrix.shape
    table, every = np.concatenate([matrix, x[..., None]], axis=2), np.arange(m)
    for j in range(n):
        pivot = j + np.abs(table[:, j:, j]).argmax(axis=1)
        row = table[every, pivot]
        table[every, pivot] = table[:, j]
        row /= row[:, [j]]
        for other in range(k):
            table[:, other] -= table[:, other, [j]] * row
        table[:, j] = row
    solved: Array = table[:, :n, n]
    return solved


@dataclass(frozen=True)
class Numbers:
    """What the hull says of m entries, as `HullNumbers` of the public module."""

    formation: Array
    above: Array
    to_others: Array
    indptr: Array
    products: Array
    fractions: Array


def numbers(store: Store, entries: Array) -> Numbers:
    """Return the canonical numbers of some active entries."""
    energy, comp = store.entries["energy"][entries], store.entries["comp"][entries]
    comps, which = np.unique(comp, return_inverse=True)
    ground, has_hull = store.comps["ground"][comps], ~np.isnan(store.comps["h"][comps])
    compound = np.flatnonzero(has_hull & (store.comps["k"][comps] > 1))
    mixed_ = decompositions(store, comps[compound])
    h = np.where(has_hull, np.inf, np.nan)
    h[compound] = mixed_.h

    formation = formation_energies(store, entries)
    of_ground = formation_energies(store, ground) - h
    of_ground = np.where(of_ground <= UNDERCUT_eV, 0.0, of_ground)
    above = energy - store.entries["energy"][ground][which] + of_ground[which]
    with np.errstate(invalid="ignore"):
        to_others = np.maximum(energy - lowest_of_others(store, entries), formation - h[which])
    to_others[np.isinf(to_others)] = np.nan

    # What is on the hull is its own decomposition, a polymorph that of its ground state.
    place = np.full(len(comps), -1)
    place[compound] = np.arange(len(compound))
    own = place[which]
    simple = np.isnan(above) | (of_ground[which] == 0)
    counts = np.where(simple, np.where(np.isnan(above), 0, 1), np.diff(mixed_.indptr)[own] if len(compound) else 0)
    indptr = np.concatenate([[0], np.cumsum(counts)])
    products, fractions = np.empty(indptr[-1], dtype=np.int64), np.ones(indptr[-1])
    one = simple & (counts == 1)
    products[indptr[:-1][one]] = np.where(above == 0, entries, ground[which])[one]
    if not simple.all():
        into, out = spans(indptr[:-1][~simple], counts[~simple]), spans(mixed_.indptr[own[~simple]], counts[~simple])
        products[into], fractions[into] = mixed_.entries[out], mixed_.fractions[out]
    return Numbers(formation, above, to_others, indptr, products, fractions)


def without(store: Store, entry: int) -> tuple[Array, Array]:
    """Return what an active entry would decompose into without itself: entries, and fractions of atoms.

    Nothing where there is no hull without it: it is the only entry of its element, or an element has no reference.
    """
    comp = np.array([store.entries["comp"][entry]])
    mates, _ = store.entries_of(comp)
    mates = mates[store.entries["active"][mates] & (mates != entry)]
    lowest = mates[[store.entries["energy"][mates].argmin()]] if len(mates) else mates
    if np.isnan(store.comps["h"][comp[0]]):
        return mates[:0], np.zeros(0)
    if store.comps["k"][comp[0]] == 1:
        return lowest, np.ones(len(lowest))
    mixture = decompositions(store, comp)
    if len(lowest) and formation_energies(store, lowest)[0] <= mixture.h[0] + UNDERCUT_eV:
        return lowest, np.ones(1)
    return mixture.entries, mixture.fractions


def potentials(store: Store, comp: int) -> Array:
    """Return chemical potentials in eV/atom relative to the elements that prove the hull at a composition, (k,)."""
    k = int(store.comps["k"][comp])
    if k == 1:
        return np.zeros(1)
    codes, _, targets = programs_of(store, store.comps["sys"][[comp]], np.array([comp]), np.zeros(1, np.int64))
    found = kernels.solve(store, codes, replace(targets, own=np.array([-1])))
    mu: Array = found.mu[0] - targets.e_elements[0]
    return mu


@dataclass(frozen=True)
class Queried:
    """Hull energies of n compositions in the frame, eV/atom, NaN where there is no hull; shift, what the frame adds.

    basis, lam: the phases, compositions and fractions of atoms, (n, k) padded with -1.
    """

    h: Array
    shift: Array
    basis: Array
    lam: Array


def query(store: Store, rows: Rows) -> Queried:
    """Return the hull at any compositions; the store stays as it is."""
    n, sizes = len(rows), np.diff(rows.indptr)
    shift = sums_of_rows(rows.fractions * store.known_frame()[rows.codes], rows.indptr)
    width = int(sizes.max(initial=1))
    result = Queried(np.full(n, np.nan), shift, np.full((n, width), -1), np.zeros((n, width)))
    there = np.ones(n, dtype=bool)
    if n:
        there = np.logical_and.reduceat(store.elements_there()[rows.codes], rows.indptr[:-1])
    energies = store.element_energies()
    for k in np.unique(sizes[there]):
        at = np.flatnonzero(there & (sizes == k))
        codes = rows.codes[rows.indptr[:-1][at][:, None] + np.arange(k)]
        order = np.lexsort(codes.T)
        at, codes = at[order], codes[order]
        new = np.ones(len(at), dtype=bool)
        new[1:] = (codes[1:] != codes[:-1]).any(axis=1)
        systems, row = codes[new], np.cumsum(new) - 1
        x = rows.fractions[rows.indptr[:-1][at][:, None] + np.arange(k)]
        targets = Targets(row, x, np.full(len(at), -1), store.element_comp[codes], energies[codes])
        found = kernels.solve(store, systems, targets)
        result.h[at], result.basis[at, :k], result.lam[at, :k] = found.h, found.basis, found.lam
    return result
