"""The cheapest mixture of competing phases at many compositions at once: a revised simplex method over arrays.

Each linear program is min e·lam over lam >= 0 with sum(lam x) = target, of k elements. It starts from the elements,
which are always there, so every step is feasible; its end is proved by the chemical potentials mu (no column lies below
their plane) together with lam.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from hullworks.errors import HullError

if TYPE_CHECKING:
    from hullworks.analysis.engine.columns import Columns
    from hullworks.analysis.engine.keys import Array

UNDERCUT_eV: Final = 1e-10
"""A column this far below the plane of the chemical potentials, in eV/atom, improves the mixture; less is round-off."""
TIGHT_eV: Final = 1e-9
"""A phase within this many eV/atom of the plane of the chemical potentials may be in some cheapest mixture."""
PIVOT: Final = 1e-9
"""Smallest element to divide by: fractions of atoms of distinct phases differ by far more."""
CHUNK: Final = 1 << 16
"""Elements of a reduced-cost array that are worked on at once: what the cache holds."""
DANTZIG_STEPS: Final = 60
"""After so many steps the rule changes to Bland's, under which degenerate programs end."""
MAX_STEPS: Final = 5000


@dataclass(frozen=True)
class Targets:
    """Linear programs over the columns of systems of k elements.

    row: int64, (n,): which system of the columns each belongs to; x: float64, (n, k); own: int32, (n,): a composition
    that must not be among the columns, -1 for none; elements: int32, (n, k): the elements' compositions; e_elements:
    float64, (n, k): their energies in the frame.
    """

    row: Array
    x: Array
    own: Array
    elements: Array
    e_elements: Array


@dataclass(frozen=True)
class Mixtures:
    """Solved programs: h in eV/atom, (n,); mu, (n, k); lam, (n, k), fractions of atoms; basis, (n, k), compositions."""

    h: Array
    mu: Array
    lam: Array
    basis: Array


def solve(columns: Columns, targets: Targets) -> Mixtures:
    """Return the cheapest mixture of columns and elements at each target.

    Raises:
        HullError: A program did not end, which exact arithmetic excludes.
    """
    n, k = targets.x.shape
    result = Mixtures(np.empty(n), np.empty((n, k)), np.empty((n, k)), np.empty((n, k), dtype=np.int32))
    count = columns.count[targets.row]
    order = np.argsort(count, kind="stable")
    padded = _Padded.of(columns)
    start = 0
    while start < n:
        # Of equal length in one chunk, so that little is padded.
        stop = start + max(1, CHUNK // max(int(count[order[start]]), 4))
        width = int(count[order[min(stop, n) - 1]])
        stop = min(n, start + max(1, CHUNK // max(width, 4)))
        width = int(count[order[stop - 1]])
        _Chunk(padded, targets, order[start:stop], width).solve_into(result)
        start = stop
    return result


def unended(n: int) -> HullError:
    """Return the error of n programs that did not end."""
    return HullError(
        f"{n} mixtures of competing phases were not found in {MAX_STEPS} steps",
        next_step="Please report it with the compositions and energies.",
    )


@dataclass(frozen=True)
class _Padded:
    """Columns with one more at the end that nobody buys."""

    start: Array
    count: Array
    x: Array
    e: Array
    comp: Array

    @classmethod
    def of(cls, columns: Columns) -> _Padded:
        x = np.concatenate([columns.x, np.zeros((len(columns.x), 1))], axis=1)
        return cls(columns.start, columns.count, x, np.append(columns.e, np.inf), np.append(columns.comp, -2))


class _Chunk:
    """Programs that are solved together; the last axis of every array runs over them."""

    def __init__(self, columns: _Padded, targets: Targets, which: Array, width: int) -> None:
        rows = targets.row[which]
        count = columns.count[rows]
        place = np.arange(width)[:, None]
        at = np.where(place < count, columns.start[rows] + place, len(columns.e) - 1)
        k, n = len(columns.x), len(which)
        self.which = which
        self.x, self.comp = columns.x[:, at], columns.comp[at]
        self.e = np.where(self.comp == targets.own[which], np.inf, columns.e[at])
        self.elements, self.e_elements = targets.elements[which].T, targets.e_elements[which].T
        self.target = targets.x[which].T
        unit = np.broadcast_to(np.eye(k)[:, :, None], (k, k, n))
        self.inverse, self.matrix = unit.copy(), unit.copy()
        self.cost, self.mu, self.lam = self.e_elements.copy(), self.e_elements.copy(), self.target.copy()
        self.basis = self.elements.copy()

    _PER_PROGRAM = (
        "which", "x", "comp", "e", "elements", "e_elements", "target", "inverse", "matrix", "cost", "mu", "lam",
        "basis",
    )  # fmt: skip

    def keep(self, kept: Array) -> None:
        """Go on with some of the programs."""
        for name in self._PER_PROGRAM:
            setattr(self, name, getattr(self, name)[..., kept])

    def solve_into(self, result: Mixtures) -> None:
        """Step until every program is at its optimum."""
        for step in range(MAX_STEPS):
            entering, reduced = self.price(bland=step >= DANTZIG_STEPS)
            done = reduced >= -UNDERCUT_eV
            if done.any():
                self.finish(np.flatnonzero(done), result)
                going = np.flatnonzero(~done)
                if not len(going):
                    return
                self.keep(going)
                entering, reduced = entering[going], reduced[going]
            self.pivot(entering, reduced)
        raise unended(len(self.which))

    def price(self, *, bland: bool) -> tuple[Array, Array]:
        """Return the column that enters each program, elements after all others, and its reduced cost."""
        k, width, n = self.x.shape
        costs = np.empty((width + k, n))
        own = costs[:width]
        np.subtract(self.e, self.mu[0] * self.x[0], out=own)
        for j in range(1, k):
            own -= self.mu[j] * self.x[j]
        np.subtract(self.e_elements, self.mu, out=costs[width:])
        lowest = costs.min(axis=0)
        wanted = costs < -UNDERCUT_eV if bland else costs == lowest
        entering = wanted.argmax(axis=0)
        return entering, costs[entering, np.arange(n)] if bland else lowest

    def pivot(self, entering: Array, reduced: Array) -> None:
        """Exchange the entering column for the one that first runs out."""
        k, width, n = self.x.shape
        every = np.arange(n)
        column, cost, comp = np.zeros((k, n)), np.empty(n), np.empty(n, dtype=np.int32)
        phase = entering < width
        at, on = entering[phase], every[phase]
        column[:, on], cost[on], comp[on] = self.x[:, at, on], self.e[at, on], self.comp[at, on]
        at, on = entering[~phase] - width, every[~phase]
        column[at, on], cost[on], comp[on] = 1.0, self.e_elements[at, on], self.elements[at, on]

        direction = (self.inverse * column).sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(direction > PIVOT, self.lam / direction, np.inf)
        # Of those that run out together, the one with the largest element keeps the inverse well.
        out = np.where(ratio <= ratio.min(axis=0) + 1e-14, direction, -np.inf).argmax(axis=0)
        row = self.inverse[out, :, every].T / direction[out, every]
        step = np.maximum(self.lam[out, every], 0.0) / direction[out, every]
        self.inverse -= direction[:, None] * row
        self.inverse[out, :, every] = row.T
        self.lam -= direction * step
        np.maximum(self.lam, 0.0, out=self.lam)
        self.lam[out, every] = step
        self.mu += reduced * row
        self.matrix[:, out, every], self.cost[out, every], self.basis[out, every] = column, cost, comp

    def finish(self, done: Array, result: Mixtures) -> None:
        """Write down programs at their optimum, after one step of refinement against what the pivots rounded."""
        inverse, matrix = self.inverse[..., done], self.matrix[..., done]
        lam, mu, cost = self.lam[:, done], self.mu[:, done], self.cost[:, done]
        lam = lam + (inverse * (self.target[:, done] - (matrix * lam).sum(axis=1))).sum(axis=1)
        np.maximum(lam, 0.0, out=lam)
        mu = mu + ((cost - (mu[:, None] * matrix).sum(axis=0))[:, None] * inverse).sum(axis=0)
        which = self.which[done]
        result.h[which] = (cost * lam).sum(axis=0)
        result.mu[which], result.lam[which], result.basis[which] = mu.T, lam.T, self.basis[:, done].T
