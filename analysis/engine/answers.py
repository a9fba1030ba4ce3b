"""What a solved store says: distances, canonical decompositions, queries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from hullworks.analysis.engine import kernels
from hullworks.analysis.engine.columns import Columns, gather
from hullworks.analysis.engine.keys import mixed, spans, sums_of_rows
from hullworks.analysis.engine.simplex import Targets, TIGHT_eV, UNDERCUT_eV, solve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hullworks.analysis.engine.keys import Array
    from hullworks.analysis.engine.store import Rows, Store

NOTHING: Final = 1e-8
"""A phase of less than this fraction of atoms is not in a mixture: it is round-off."""
COMPOSITIONS_AT_ONCE: Final = 1 << 13
"""Compositions whose competing phases are gathered at once: what the cache holds."""
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
    for at, k in _by_size(store, comps):
        flat = store.comps["off"][comps[at]][:, None] + np.arange(k)
        own_basis, own_lam = store.flat["basis"][flat], store.flat["lam"][flat]
        _choose(store, comps[at], flat, own_basis, own_lam)
        basis[at, :k], lam[at, :k] = own_basis, own_lam
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


def _by_size(store: Store, comps: Array) -> Iterator[tuple[Array, int]]:
    """Yield places of compositions with the same number of elements, of few systems at a time."""
    sizes = store.comps["k"][comps]
    for k in np.unique(sizes):
        at = np.flatnonzero(sizes == k)
        at = at[np.argsort(store.comps["sys"][comps[at]], kind="stable")]
        for first in range(0, len(at), COMPOSITIONS_AT_ONCE):
            yield at[first : first + COMPOSITIONS_AT_ONCE], int(k)


def _problem(store: Store, comps: Array, flat: Array, own: Array) -> tuple[Columns, Targets]:
    systems, row = np.unique(store.comps["sys"][comps], return_inverse=True)
    codes = store.system_codes(systems, flat.shape[1])
    elements = codes[row]
    columns = gather(store, codes, systems)
    x = store.flat["x"][flat]
    return columns, Targets(row, x, own, store.element_comp[elements], store.element_energies()[elements])


def _choose(store: Store, comps: Array, flat: Array, basis: Array, lam: Array) -> None:
    """Replace mixtures, in place, where another one is as cheap."""
    columns, targets = _problem(store, comps, flat, comps)
    mu = store.flat["mu"][flat]
    column = spans(columns.start[targets.row], columns.count[targets.row])
    program = np.repeat(np.arange(len(comps)), columns.count[targets.row])
    reduced = columns.e[column].copy()
    for j in range(flat.shape[1]):
        reduced -= mu[program, j] * columns.x[j, column]
    tight = (reduced < TIGHT_eV) & (columns.comp[column] != comps[program])
    tight_elements = targets.e_elements - mu < TIGHT_eV
    spare = np.bincount(program[tight], minlength=len(comps)) + tight_elements.sum(axis=1)
    several = np.flatnonzero(spare > (lam > NOTHING).sum(axis=1))
    if not len(several):
        return
    place = np.full(len(comps), -1)
    place[several] = np.arange(len(several))
    kept = np.flatnonzero(tight & (place[program] >= 0))
    column, count = column[kept], np.bincount(place[program[kept]], minlength=len(several))
    only = Columns(
        np.cumsum(count) - count,
        count,
        columns.x[:, column],
        _weights(store, columns.comp[column]),
        columns.comp[column],
    )
    elements = targets.elements[several]
    weights = np.where(tight_elements[several], _weights(store, elements), TOO_DEAR)
    nobody = np.full(len(several), -1)
    found = solve(only, Targets(np.arange(len(several)), targets.x[several], nobody, elements, weights))
    basis[several], lam[several] = found.basis, found.lam


def _weights(store: Store, comps: Array) -> Array:
    """Return weights between 1 and 2 that follow from the compositions alone."""
    weights: Array = 1.0 + mixed(store.comps["key"][comps]) / 2.0**64
    return weights


def _fractions(store: Store, comps: Array, basis: Array, counts: Array) -> Array:
    """Return the fractions of atoms of mixtures whose phases are known, solved for anew, one after the other."""
    parts = np.zeros((len(comps), basis.shape[1]))
    sizes = store.comps["k"][comps].astype(np.int64)
    for kind in np.unique(sizes << 8 | counts):
        k, n = int(kind >> 8), int(kind & 255)
        at = np.flatnonzero((sizes == k) & (counts == n))
        matrix = _matrix(store, comps[at], basis[at, :n], k)
        x = store.flat["x"][store.comps["off"][comps[at]][:, None] + np.arange(k)]
        solved = np.clip(_eliminated(matrix, x), 0.0, None)
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


def _matrix(store: Store, comps: Array, phases: Array, k: int) -> Array:
    """Return the atomic fractions of phases in the order of elements of the systems they are in, (n, k, phases)."""
    codes = store.system_codes(store.comps["sys"][comps], k)
    matrix = np.zeros((len(comps), k, phases.shape[1]))
    for column in range(phases.shape[1]):
        rows = store.rows_of(phases[:, column])
        which = np.repeat(np.arange(len(comps)), np.diff(rows.indptr))
        place = (codes[which] < rows.codes[:, None]).sum(axis=1)
        matrix[which, place, column] = rows.fractions
    return matrix


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


def potentials(store: Store, comp: int) -> Array:
    """Return chemical potentials in eV/atom relative to the elements that prove the hull at a composition, (k,)."""
    k = int(store.comps["k"][comp])
    if k == 1:
        return np.zeros(1)
    codes = store.system_codes(store.comps["sys"][[comp]], k)
    x = store.flat["x"][store.comps["off"][comp] + np.arange(k)][None]
    e_elements = store.element_energies()[codes]
    targets = Targets(np.zeros(1, np.int64), x, np.array([-1]), store.element_comp[codes], e_elements)
    mu: Array = kernels.solve(store, codes, targets).mu[0] - e_elements[0]
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
