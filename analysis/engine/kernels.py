"""The linear programs by one of two implementations: numpy's, or the compiled one where numba is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from hullworks.analysis.engine.choice import compiled_is_used
from hullworks.analysis.engine.columns import ENUMERATED, gather
from hullworks.analysis.engine.keys import element_keys
from hullworks.analysis.engine.simplex import Mixtures, Targets, unended
from hullworks.analysis.engine.simplex import solve as solve_arrays

if TYPE_CHECKING:
    from hullworks.analysis.engine.keys import Array
    from hullworks.analysis.engine.store import Store

SYSTEMS_AT_ONCE: Final = 1 << 13
"""Systems whose competing phases are gathered at once: what the cache holds."""


def is_compiled(k: int) -> bool:
    """Tell whether compiled code serves systems of k elements."""
    return k <= ENUMERATED and compiled_is_used()


def solve(store: Store, codes: Array, targets: Targets, systems: Array | None = None) -> Mixtures:
    """Return the cheapest mixture of vertices at each target.

    Args:
        store: The store.
        codes: Element codes of the systems, increasing, (s, k).
        targets: The programs, ordered by system.
        systems: The systems, (s,), when all their own compositions are to compete; by default the vertices alone.
    """
    if is_compiled(codes.shape[1]):
        return solve_compiled(store, codes, targets, systems)
    parts = []
    for first in range(0, len(codes), SYSTEMS_AT_ONCE):
        last = first + SYSTEMS_AT_ONCE
        at = slice(*np.searchsorted(targets.row, [first, last]))
        columns = gather(store, codes[first:last], None if systems is None else systems[first:last])
        part = Targets(
            targets.row[at] - first, targets.x[at], targets.own[at], targets.elements[at], targets.e_elements[at]
        )
        parts.append(solve_arrays(columns, part))
    if len(parts) == 1:
        return parts[0]
    return Mixtures(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("h", "mu", "lam", "basis")))


def solve_compiled(
    store: Store, codes: Array, targets: Targets, systems: Array | None, *, fresh: bool = False
) -> Mixtures:
    """Do the same with compiled code.

    Args:
        store: The store.
        codes: Element codes of the systems, (s, k).
        targets: The programs, ordered by system.
        systems: The systems, when all their own compositions are to compete.
        fresh: The targets are new compositions: they compete with each other, as far as it matters.
    """
    from hullworks.analysis.engine import compiled

    n, k = targets.x.shape
    result = Mixtures(np.empty(n), np.empty((n, k)), np.empty((n, k)), np.empty((n, k), dtype=np.int32))
    programs = (np.ascontiguousarray(targets.x), targets.own, targets.elements, targets.e_elements)
    row_ptr = np.searchsorted(targets.row, np.arange(len(codes) + 1))
    into = (result.h, result.mu, result.lam, result.basis)
    failed = compiled.solve_systems(codes, row_ptr, programs, *_own(store, systems), _tables(store), into, fresh)
    if failed:
        raise unended(failed)
    return result


def doubt_compiled(store: Store, codes: Array, targets: Targets, solved: Mixtures, systems: Array | None) -> float:
    """Return the largest gap in what proves some solved programs; the arrays are those of `solve`."""
    from hullworks.analysis.engine import compiled

    programs = (np.ascontiguousarray(targets.x), targets.own, targets.elements, targets.e_elements)
    row_ptr = np.searchsorted(targets.row, np.arange(len(codes) + 1))
    proof = (solved.h, solved.mu, solved.lam, solved.basis)
    return float(compiled.doubt(codes, row_ptr, programs, *_own(store, systems), _tables(store), proof))


def _own(store: Store, systems: Array | None) -> tuple[Array, Array]:
    if systems is None:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int32)
    comps, place = store.others_of(systems)
    return np.searchsorted(place, np.arange(len(systems) + 1)), comps.astype(np.int32)


def _tables(store: Store) -> tuple[Array, ...]:
    """Return the arrays in which compiled code looks phases up, in its order."""
    systems, comps = store.systems, store.comps
    table = store.vertex_table
    return (
        element_keys(), table.keys, table.values, systems["vstart"], systems["vcount"], store.vertices["comp"],
        comps["off"], comps["e"], store.flat["x"],
    )  # fmt: skip
