"""The same linear programs as in `simplex`, compiled: one program after the other, its columns in the cache.

Imported only where numba is installed. What it computes agrees with `simplex` to round-off; the
numbers that a hull hands out follow from it by the same code.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from hullworks.analysis.engine.keys import STEPS_OF_A_FRACTION
from hullworks.analysis.engine.simplex import DANTZIG_STEPS, MAX_STEPS, PIVOT, UNDERCUT_eV

SAME_STEP = 1e-14
ROUND_OFF = 1e-14
KNOWN = 32
"""Mixtures of one system that are remembered: looking through them takes less than solving a program."""
ROOM = 256
"""Columns that there is room for at first."""


@njit(cache=True, nogil=True)
def look_up(keys, values, key):
    """Return the number of a key in a `KeyTable`, -1 where there is none."""
    mask = np.uint64(len(keys) - 1)
    slot = key & mask
    while values[slot] >= 0:
        if keys[slot] == key:
            return values[slot]
        slot = (slot + np.uint64(1)) & mask
    return -1


@njit(cache=True, nogil=True)
def place(table_keys, table_values, keys, values):
    """Put distinct keys that are not there into a `KeyTable`."""
    mask = np.uint64(len(table_keys) - 1)
    for i in range(len(keys)):
        slot = keys[i] & mask
        while table_values[slot] >= 0:
            slot = (slot + np.uint64(1)) & mask
        table_keys[slot], table_values[slot] = keys[i], values[i]


@njit(cache=True, nogil=True)
def _mixed(z):
    z += np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(cache=True, nogil=True)
def keys_of_rows(indptr, codes, fractions, salt, element_keys):
    """Do what `store.keys_of_rows` does, in one pass."""
    n = len(indptr) - 1
    keys, system_keys = np.zeros(n, dtype=np.uint64), np.zeros(n, dtype=np.uint64)
    salted = np.uint64(salt) << np.uint64(50)
    for row in range(n):
        for i in range(indptr[row], indptr[row + 1]):
            step = np.uint64(np.int64(np.rint(fractions[i] * STEPS_OF_A_FRACTION)))
            keys[row] += _mixed((np.uint64(codes[i]) << np.uint64(40)) ^ step ^ salted)
            system_keys[row] += element_keys[codes[i]]
    return keys, system_keys


@njit(cache=True, nogil=True)
def _grown(cols, cost, comp, m, wanted):
    """Return the buffers with room for as many columns as wanted; the first m are kept."""
    capacity = max(wanted, 2 * len(cost))
    new_cols, new_cost = np.empty((len(cols), capacity)), np.empty(capacity)
    new_comp = np.empty(capacity, dtype=np.int64)
    new_cols[:, :m], new_cost[:m], new_comp[:m] = cols[:, :m], cost[:m], comp[:m]
    return new_cols, new_cost, new_comp, np.empty(capacity)


@njit(cache=True, nogil=True)
def _phases(codes, sums, buffers, tables):
    """Gather the vertices of all subsystems of one system; return the buffers and the number of columns."""
    cols, cost, comp, reduced = buffers
    element_keys, keys, values, vstart, vcount, vertices, off, e, x = tables
    k, m = len(codes), 0
    sums[0] = 0
    for mask in range(1, 1 << k):
        low = 0
        while not (mask >> low) & 1:
            low += 1
        rest = mask & (mask - 1)
        sums[mask] = sums[rest] + element_keys[codes[low]]
        if rest == 0:
            continue
        system = look_up(keys, values, sums[mask])
        if system < 0 or vcount[system] == 0:
            continue
        count = vcount[system]
        if m + count > len(cost):
            cols, cost, comp, reduced = _grown(cols, cost, comp, m, m + count)
        for v in range(vstart[system], vstart[system] + count):
            c = vertices[v]
            at = off[c]
            for j in range(k):
                if (mask >> j) & 1:
                    cols[j, m] = x[at]
                    at += 1
                else:
                    cols[j, m] = 0.0
            cost[m], comp[m] = e[c], c
            m += 1
    return (cols, cost, comp, reduced), m


@njit(cache=True, nogil=True)
def _with(buffers, m, k, comps, tables):
    """Append compositions of the very system to the columns."""
    cols, cost, comp, reduced = buffers
    off, e, x = tables[6], tables[7], tables[8]
    if m + len(comps) > len(cost):
        cols, cost, comp, reduced = _grown(cols, cost, comp, m, m + len(comps))
    for c in comps:
        for j in range(k):
            cols[j, m] = x[off[c] + j]
        cost[m], comp[m] = e[c], c
        m += 1
    return (cols, cost, comp, reduced), m


@njit(cache=True, nogil=True)
def _buffers(k):
    return np.empty((k, ROOM)), np.empty(ROOM), np.empty(ROOM, dtype=np.int64), np.empty(ROOM)


@njit(cache=True, nogil=True)
def solve_systems(codes, row_ptr, targets, own_ptr, own_comps, tables, result, fresh):
    """Solve all programs of systems of k elements.

    Args:
        codes: Element codes of the systems, (s, k).
        row_ptr: The programs of each system, (s + 1,).
        targets: x, own, elements, e_elements of `simplex.Targets`.
        own_ptr: Compositions of each system that compete beside the vertices, (s + 1,); empty for none.
        own_comps: These compositions.
        tables: See `kernels`.
        result: h, mu, lam, basis of `simplex.Mixtures`, to be filled.
        fresh: The programs are all new compositions: they compete with each other.

    Returns:
        The number of programs that did not end.
    """
    k = codes.shape[1]
    sums, buffers = np.zeros(1 << k, dtype=np.uint64), _buffers(k)
    work = (np.empty((k, k)), np.empty(k), np.empty(k))
    known = (np.empty((KNOWN, k, k)), np.empty((KNOWN, k)), np.empty((KNOWN, k), dtype=np.int64))
    failed = 0
    for s in range(len(codes)):
        buffers, m = _phases(codes[s], sums, buffers, tables)
        if len(own_ptr):
            buffers, m = _with(buffers, m, k, own_comps[own_ptr[s] : own_ptr[s + 1]], tables)
        first, last = row_ptr[s], row_ptr[s + 1]
        n_known = 0
        for p in range(first, last):
            if fresh and _is_known(p, k, n_known, known, targets, tables, result):
                continue
            failed += _solve_one(p, k, m, buffers, targets, tables, result, work, not fresh)
            if fresh and n_known < KNOWN:
                known[0][n_known], known[1][n_known], known[2][n_known] = work[0], result[1][p], result[3][p]
                n_known += 1
        if fresh and last - first > 1:
            buffers, more = _compete(first, last, k, m, buffers, targets, tables, result, work)
            failed += more
    return failed


@njit(cache=True, nogil=True)
def _is_known(p, k, n_known, known, targets, tables, result):
    """Solve a program by a mixture of phases that was optimal for another one of its system; tell whether it is.

    The chemical potentials of the other prove this one too, if its phases make up this composition.
    """
    x, e = targets[0], tables[7]
    h, mu, lam, basis = result
    for b in range(n_known):
        inside = True
        for i in range(k):
            share = 0.0
            for j in range(k):
                share += known[0][b, i, j] * x[p, j]
            if share < -ROUND_OFF:
                inside = False
                break
            lam[p, i] = max(share, 0.0)
        if inside:
            h[p] = 0.0
            for i in range(k):
                mu[p, i], basis[p, i] = known[1][b, i], known[2][b, i]
                h[p] += lam[p, i] * e[known[2][b, i]]
            return True
    return False


@njit(cache=True, nogil=True)
def _compete(first, last, k, m, buffers, targets, tables, result, work):
    """Let new compositions of one system, solved against m columns, compete with each other.

    What lies on the hull of the others so far competes with all; what lies above, only with what may be on the hull.
    """
    own, e, h = targets[1], tables[7], result[0]
    n = last - first
    on_hull = np.empty(n, dtype=np.bool_)
    n_on = 0
    for i in range(n):
        on_hull[i] = e[own[first + i]] <= h[first + i] + UNDERCUT_eV
        n_on += on_hull[i]
    if n_on == 0:
        return buffers, 0
    mine = own[first:last].astype(np.int64)
    ordered = np.concatenate((mine[on_hull], mine[~on_hull]))
    buffers, every = _with(buffers, m, k, ordered, tables)
    failed = 0
    for i in range(n):
        width = every if on_hull[i] else m + n_on
        if _is_undercut(first + i, k, m, width, buffers, own, result[1]):
            failed += _solve_one(first + i, k, width, buffers, targets, tables, result, work, on_hull[i])
    return buffers, failed


@njit(cache=True, nogil=True)
def _is_undercut(p, k, start, stop, buffers, own, mu):
    """Tell whether one of some columns lies below the plane of a program."""
    cols, cost, comp, _ = buffers
    for i in range(start, stop):
        plane = 0.0
        for j in range(k):
            plane += mu[p, j] * cols[j, i]
        if plane > cost[i] + UNDERCUT_eV and comp[i] != own[p]:
            return True
    return False


@njit(cache=True, nogil=True)
def _solve_one(p, k, m, buffers, targets, tables, result, work, among):
    """Solve one program against the first m columns, itself perhaps among them; return 1 if it did not end."""
    x, own, elements, e_elements = targets
    h, mu, lam, basis = result
    e, cost, comp = tables[7], buffers[1], buffers[2]
    mine = -1
    if among and own[p] >= 0:
        for i in range(m):
            if comp[i] == own[p]:
                mine = i
                cost[i] = np.inf
                break
    ended = _simplex(p, k, m, buffers, x, elements, e_elements, work, mu, lam, basis)
    h[p] = 0.0
    for i in range(k):
        h[p] += lam[p, i] * e[basis[p, i]]
    if mine >= 0:
        cost[mine] = e[own[p]]
    return 0 if ended else 1


@njit(cache=True, nogil=True, error_model="numpy")
def _simplex(p, k, m, buffers, x, elements, e_elements, work, mu, lam, basis):
    """Solve one program; return whether it ended."""
    cols, cost, comp, reduced = buffers
    inverse, direction, column = work
    for i in range(k):
        for j in range(k):
            inverse[i, j] = 1.0 if i == j else 0.0
        mu[p, i], lam[p, i], basis[p, i] = e_elements[p, i], x[p, i], elements[p, i]
    for step in range(MAX_STEPS):
        mu_0 = mu[p, 0]
        for i in range(m):
            reduced[i] = cost[i] - mu_0 * cols[0, i]
        for j in range(1, k):
            mu_j = mu[p, j]
            for i in range(m):
                reduced[i] -= mu_j * cols[j, i]
        entering, lowest = -1, -UNDERCUT_eV
        for i in range(m):
            if reduced[i] < lowest:
                entering, lowest = i, reduced[i]
                if step >= DANTZIG_STEPS:
                    break
        if entering < 0 or step < DANTZIG_STEPS:
            for j in range(k):
                if e_elements[p, j] - mu[p, j] < lowest:
                    entering, lowest = m + j, e_elements[p, j] - mu[p, j]
                    if step >= DANTZIG_STEPS:
                        break
        if entering < 0:
            return True
        for j in range(k):
            column[j] = cols[j, entering] if entering < m else (1.0 if j == entering - m else 0.0)
        least = np.inf
        for i in range(k):
            total = 0.0
            for j in range(k):
                total += inverse[i, j] * column[j]
            direction[i] = total
            if total > PIVOT and lam[p, i] / total < least:
                least = lam[p, i] / total
        out = -1
        for i in range(k):
            runs_out = direction[i] > PIVOT and lam[p, i] / direction[i] <= least + SAME_STEP
            if runs_out and (out < 0 or direction[i] > direction[out]):
                out = i
        if out < 0:
            return False
        pivot = direction[out]
        length = lam[p, out] / pivot
        for j in range(k):
            inverse[out, j] /= pivot
        for i in range(k):
            if i != out:
                factor = direction[i]
                for j in range(k):
                    inverse[i, j] -= factor * inverse[out, j]
                lam[p, i] = max(0.0, lam[p, i] - factor * length)
        lam[p, out] = length
        for j in range(k):
            mu[p, j] += lowest * inverse[out, j]
        basis[p, out] = comp[entering] if entering < m else elements[p, entering - m]
    return False


@njit(cache=True, nogil=True)
def doubt(codes, row_ptr, targets, own_ptr, own_comps, tables, result):
    """Return the largest gap in what proves the programs of systems of k elements; see `certificates`."""
    k = codes.shape[1]
    sums, buffers, made = np.zeros(1 << k, dtype=np.uint64), _buffers(k), np.empty(k)
    worst = 0.0
    for s in range(len(codes)):
        buffers, m = _phases(codes[s], sums, buffers, tables)
        if len(own_ptr):
            buffers, m = _with(buffers, m, k, own_comps[own_ptr[s] : own_ptr[s + 1]], tables)
        for p in range(row_ptr[s], row_ptr[s + 1]):
            worst = max(worst, _gap_below(p, k, m, buffers, targets, result))
            worst = max(worst, _gap_above(p, k, m, buffers, targets, result, made))
    return worst


@njit(cache=True, nogil=True)
def _gap_below(p, k, m, buffers, targets, result):
    """Return how far a phase lies below the plane of a program, or the plane from its height."""
    cols, cost, comp, _ = buffers
    x, own, _, e_elements = targets
    mu = result[1]
    height, worst = 0.0, 0.0
    for j in range(k):
        height += mu[p, j] * x[p, j]
        worst = max(worst, mu[p, j] - e_elements[p, j])
    for i in range(m):
        below = -cost[i]
        for j in range(k):
            below += mu[p, j] * cols[j, i]
        if below > worst and comp[i] != own[p]:
            worst = below
    return max(worst, abs(height - result[0][p]))


@njit(cache=True, nogil=True)
def _gap_above(p, k, m, buffers, targets, result, made):
    """Return how far a mixture is from the composition and energy that it should have; infinity for no mixture."""
    cols, cost, comp, _ = buffers
    x, own, elements, e_elements = targets
    h, _, lam, basis = result
    energy, worst = 0.0, 0.0
    made[:] = 0.0
    for b in range(k):
        share = lam[p, b]
        worst = max(worst, -share)
        if share == 0.0:
            continue
        found = False
        for j in range(k):
            if elements[p, j] == basis[p, b]:
                made[j] += share
                energy += share * e_elements[p, j]
                found = True
        for i in range(m):
            if not found and comp[i] == basis[p, b] and comp[i] != own[p]:
                for j in range(k):
                    made[j] += share * cols[j, i]
                energy += share * cost[i]
                found = True
        if not found:
            return np.inf
    for j in range(k):
        worst = max(worst, abs(made[j] - x[p, j]))
    return max(worst, abs(energy - h[p]))
