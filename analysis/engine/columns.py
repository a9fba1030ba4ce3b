"""The competing phases of chemical systems: all vertices of the hull within each, gathered for many systems at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np

from hullworks.analysis.engine.keys import element_keys, spans

if TYPE_CHECKING:
    from hullworks.analysis.engine.keys import Array
    from hullworks.analysis.engine.store import Store

PAIR: Final = 2
"""Elements of the smallest systems whose phases are gathered: elements themselves are always at hand."""
ENUMERATED: Final = 10
"""Systems of up to so many elements look their subsystems up, 2^k of them; larger ones scan all that have vertices."""


@dataclass(frozen=True)
class Columns:
    """Competing phases of s systems of k elements; elements are not among them.

    start, count: int64, (s,): the columns of each system; x: float64, (k, t): atomic fractions in the order of the
    system's elements; e: float64, (t,): energies in the frame; comp: int32, (t,): compositions.
    """

    start: Array
    count: Array
    x: Array
    e: Array
    comp: Array


@cache
def _subsets(k: int) -> tuple[Array, Array]:
    """Return the masks of all subsets of k places with two or more, and the places of every mask, (2^k, k)."""
    every = np.arange(1 << k)
    bits = (every[:, None] >> np.arange(k)) & 1
    return every[bits.sum(axis=1) >= PAIR], np.argsort(1 - bits, axis=1, kind="stable")


def gather(store: Store, codes: Array, systems: Array | None = None) -> Columns:
    """Return the competing phases of systems of k elements.

    Args:
        store: The store.
        codes: Element codes of the systems, increasing, (s, k).
        systems: The systems, (s,), when all their own compositions are wanted: without one of the vertices, others may
            be on the hull.
    """
    n, k = codes.shape
    row, system, mask = _subsystems(store, codes) if k <= ENUMERATED else _scanned(store, codes)
    n_own = store.systems["vcount"][system]
    comp = store.vertices["comp"][spans(store.systems["vstart"][system], n_own)]
    masks, rows = np.repeat(mask, n_own), np.repeat(row, n_own)
    if systems is not None:
        more, where = store.others_of(systems)
        rows = np.concatenate([rows, where])
        order = np.argsort(rows, kind="stable")
        comp, rows = np.concatenate([comp, more])[order], rows[order]
        masks = np.concatenate([masks, np.full(len(more), (1 << min(k, ENUMERATED)) - 1)])[order]
    count = np.bincount(rows, minlength=n)
    x = _aligned(store, comp, masks, k) if k <= ENUMERATED else store.fractions_in(codes[rows], comp).T
    return Columns(np.cumsum(count) - count, count, x, store.comps["e"][comp], comp)


def _aligned(store: Store, comp: Array, masks: Array, k: int) -> Array:
    """Return the fractions of phases in the places that their masks name, (k, t)."""
    x = np.zeros((k, len(comp)))
    sizes, off, fractions = store.comps["k"][comp], store.comps["off"][comp], store.flat["x"]
    for size in range(PAIR, k + 1):
        at = np.flatnonzero(sizes == size)
        places = _subsets(k)[1][masks[at]]
        for j in range(size):
            x[places[:, j], at] = fractions[off[at] + j]
    return x


def _subsystems(store: Store, codes: Array) -> tuple[Array, Array, Array]:
    """Return (place in codes, subsystem, mask of the subset) of all subsystems that have vertices, by place."""
    masks, _ = _subsets(codes.shape[1])
    sums = np.zeros((len(codes), 1), dtype=np.uint64)
    keys = element_keys()[codes]
    for j in range(codes.shape[1]):
        sums = np.concatenate([sums, sums + keys[:, j : j + 1]], axis=1)
    found = store.vertex_table.find(sums[:, masks])
    there = found >= 0
    there[there] = store.systems["vcount"][found[there]] > 0
    row, column = np.nonzero(there)
    return row, found[row, column], masks[column]


def _scanned(store: Store, codes: Array) -> tuple[Array, Array, Array]:
    """Do the same for systems of many elements."""
    from hullworks.analysis.engine.store import masks_of

    systems = store.systems
    having = np.flatnonzero((systems["vcount"] > 0) & (systems["k"] >= PAIR))
    rows, found = [], []
    for row, own in enumerate(codes):
        lo, hi = masks_of(own)
        inside = having[((systems["lo"][having] & ~lo) | (systems["hi"][having] & ~hi)) == 0]
        rows.append(np.full(len(inside), row))
        found.append(inside)
    system = np.concatenate(found)
    return np.concatenate(rows), system, np.zeros(len(system), dtype=np.int64)
