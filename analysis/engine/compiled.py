"""The same linear programs as in `simplex`, compiled: one program after the other, its columns in the cache.

Imported only where numba is installed. What it computes agrees with `simplex` to round-off; the
numbers that a hull hands out follow from it by the same code.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from hullworks.analysis.engine.simplex import DANTZIG_STEPS, MAX_STEPS, PIVOT, UNDERCUT_eV

SAME_STEP = 1e-14


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
def solve_systems(
    codes, row_ptr, x, own, elements, e_elements, own_ptr, own_comps,
    element_keys, table_keys, table_values, vstart, vcount, vertices, off, e, flat_x,
    h, mu, lam, basis,
):  # fmt: skip
    """Solve all programs of systems of k elements; see `simplex.Targets` and `simplex.Mixtures` for the arrays.

    Returns:
        The number of programs that did not end.
    """
    n_systems, k = codes.shape
    sums = np.zeros(1 << k, dtype=np.uint64)
    capacity = 256
    cols, cost, comp = np.empty((k, capacity)), np.empty(capacity), np.empty(capacity, dtype=np.int64)
    place = np.empty(k, dtype=np.int64)
    inverse, direction, column = np.empty((k, k)), np.empty(k), np.empty(k)
    reduced = np.empty(capacity)
    failed = 0
    for s in range(n_systems):
        m = 0
        sums[0] = 0
        for mask in range(1, 1 << k):
            low = 0
            while not (mask >> low) & 1:
                low += 1
            rest = mask & (mask - 1)
            sums[mask] = sums[rest] + element_keys[codes[s, low]]
            if rest == 0:
                continue
            system = look_up(table_keys, table_values, sums[mask])
            if system < 0 or vcount[system] == 0:
                continue
            size = 0
            for j in range(k):
                if (mask >> j) & 1:
                    place[size] = j
                    size += 1
            count = vcount[system]
            if m + count > capacity:
                cols, cost, comp, reduced, capacity = _grown(cols, cost, comp, m, m + count)
            for v in range(vstart[system], vstart[system] + count):
                c = vertices[v]
                for j in range(k):
                    cols[j, m] = 0.0
                for j in range(size):
                    cols[place[j], m] = flat_x[off[c] + j]
                cost[m], comp[m] = e[c], c
                m += 1
        if len(own_ptr):
            count = own_ptr[s + 1] - own_ptr[s]
            if m + count > capacity:
                cols, cost, comp, reduced, capacity = _grown(cols, cost, comp, m, m + count)
            for v in range(own_ptr[s], own_ptr[s + 1]):
                c = own_comps[v]
                for j in range(k):
                    cols[j, m] = flat_x[off[c] + j]
                cost[m], comp[m] = e[c], c
                m += 1
        for p in range(row_ptr[s], row_ptr[s + 1]):
            mine = -1
            if own[p] >= 0:
                for i in range(m):
                    if comp[i] == own[p]:
                        mine = i
                        cost[i] = np.inf
                        break
            ended = _simplex(
                k, m, cols, cost, comp, x[p], elements[p], e_elements[p], inverse, direction, column, reduced,
                mu[p], lam[p], basis[p],
            )  # fmt: skip
            failed += not ended
            total = 0.0
            for i in range(k):
                total += lam[p, i] * e[basis[p, i]]
            h[p] = total
            if mine >= 0:
                cost[mine] = e[own[p]]
    return failed


@njit(cache=True, nogil=True)
def _grown(cols, cost, comp, m, wanted):
    capacity = max(wanted, 2 * len(cost))
    k = len(cols)
    new_cols, new_cost, new_comp = np.empty((k, capacity)), np.empty(capacity), np.empty(capacity, dtype=np.int64)
    new_cols[:, :m], new_cost[:m], new_comp[:m] = cols[:, :m], cost[:m], comp[:m]
    return new_cols, new_cost, new_comp, np.empty(capacity), capacity


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _simplex(k, m, cols, cost, comp, x, elements, e_elements, inverse, direction, column, reduced, mu, lam, basis):
    """Solve one program; return whether it ended."""
    for i in range(k):
        for j in range(k):
            inverse[i, j] = 1.0 if i == j else 0.0
        mu[i], lam[i], basis[i] = e_elements[i], x[i], elements[i]
    for step in range(MAX_STEPS):
        for i in range(m):
            reduced[i] = cost[i]
        for j in range(k):
            mu_j = mu[j]
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
                if e_elements[j] - mu[j] < lowest:
                    entering, lowest = m + j, e_elements[j] - mu[j]
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
            if total > PIVOT and lam[i] / total < least:
                least = lam[i] / total
        out = -1
        for i in range(k):
            runs_out = direction[i] > PIVOT and lam[i] / direction[i] <= least + SAME_STEP
            if runs_out and (out < 0 or direction[i] > direction[out]):
                out = i
        if out < 0:
            return False
        pivot = direction[out]
        length = lam[out] / pivot
        for j in range(k):
            inverse[out, j] /= pivot
        for i in range(k):
            if i != out:
                factor = direction[i]
                for j in range(k):
                    inverse[i, j] -= factor * inverse[out, j]
                lam[i] = max(0.0, lam[i] - factor * length)
        lam[out] = length
        for j in range(k):
            mu[j] += lowest * inverse[out, j]
        basis[out] = comp[entering] if entering < m else elements[entering - m]
    return False
