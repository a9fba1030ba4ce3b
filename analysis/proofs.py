"""Independent proofs of a hull's numbers, from the events alone: nothing here solves a hull the way the engine does."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from hullworks.analysis.compositions import CompositionArrays
from hullworks.analysis.engine.keys import spans

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hullworks.analysis.compositions import FloatArray, IntArray
    from hullworks.analysis.convex_hull import HullNumbers
    from hullworks.analysis.events import Event
    from hullworks.analysis.resident import LevelHull, Step

TOLERANCE_eV: Final = 1e-7
"""Two ways to one number may differ by so much, eV/atom: a linear program's round-off, a thousandth of what matters."""
SAMPLED_PROGRAMS: Final = (1, 10)
"""Fewest and most linear programs before a publication, one for each hundred judged entries; each takes 5 ms."""
CERTIFY_FROM: Final = 500
"""From so many judged entries on, all certificates of the hull are checked before publication."""
CHUNK: Final = 10_000
"""Mixtures checked at once: 10,000 compositions of 100 elements take 8 MB."""


def problems_of_step(hull: LevelHull, step: Step, numbers: HullNumbers) -> tuple[list[str], dict[str, Any]]:
    """Check what some events changed, before it is published.

    Args:
        hull: The hull after the events.
        step: What they changed.
        numbers: What the engine says of the judged entries.

    Returns:
        What is wrong, each with its entry; and what was checked.
    """
    checked: dict[str, Any] = {"mixtures": len(step.judged), "certificates": False}
    problems = problems_of_counts(hull) + problems_of_mixtures(hull, numbers)
    sample = random.Random(f"{hull.fold.level_key}#{hull.version}")  # noqa: S311 - a sample, not a secret
    fewest, most = SAMPLED_PROGRAMS
    wanted = min(max(fewest, len(step.judged) // 100), most, len(step.judged))
    rows = sample.sample(range(len(step.judged)), wanted)
    checked["linear_programs"] = len(rows)
    for row in rows:
        i = int(step.judged[row])
        problems += _compared(hull.ids[i], independent_distance(hull, i), float(numbers.e_above_hull[row]))
    if len(step.judged) >= CERTIFY_FROM:
        checked["certificates"] = True
        problems += problems_of_certificates(hull)
    return problems, checked


def problems_of_counts(hull: LevelHull) -> list[str]:
    """Check that the engine holds the entries that the events say, no more and no less."""
    held, wanted = int(hull.engine.active.sum()), len(hull.fold.entries)
    return [] if held == wanted else [f"the engine holds {held} entries, the events {wanted}"]


def problems_of_certificates(hull: LevelHull) -> list[str]:
    """Check the engine's own certificates: no entry lies below the hull."""
    doubt = hull.engine.verify()
    return [] if doubt <= TOLERANCE_eV else [f"a certificate fails by {doubt:.1e} eV/atom"]


def problems_of_mixtures(hull: LevelHull, numbers: HullNumbers) -> list[str]:
    """Check, by the energies of the events, that each decomposition has its entry's composition and energy.

    This bounds every energy above hull from below: the mixture exists.
    """
    known = np.flatnonzero(~np.isnan(numbers.e_above_hull))
    problems: list[str] = []
    for start in range(0, len(known), CHUNK):
        problems += _problems_of_rows(hull, numbers, known[start : start + CHUNK])
    return problems


def _problems_of_rows(hull: LevelHull, numbers: HullNumbers, rows: IntArray) -> list[str]:
    lengths = np.diff(numbers.indptr)[rows]
    flat = spans(numbers.indptr[rows], lengths)
    products, shares = numbers.products[flat], numbers.fractions[flat]
    own = numbers.indices[rows]
    used, inverse = np.unique(np.concatenate([own, products]), return_inverse=True)
    events = [hull.entry(i) for i in used.tolist()]
    energies = np.array([event["subject"]["energy_eV_per_atom"] for event in events], dtype=np.float64)
    which = np.repeat(np.arange(len(rows)), lengths)
    mixed = np.bincount(which, shares * energies[inverse[len(own) :]], len(rows))
    gap = np.abs(energies[inverse[: len(own)]] - numbers.e_above_hull[rows] - mixed)
    rest = _leftover(events, inverse, which, shares, len(rows))
    wrong = np.flatnonzero(~((gap <= TOLERANCE_eV) & (rest <= TOLERANCE_eV)))
    return [f"{hull.ids[own[r]]} is no mixture of what it decomposes into ({gap[r]:.1e} eV/atom)" for r in wrong]


def _leftover(events: Sequence[Event], inverse: IntArray, which: IntArray, shares: FloatArray, n: int) -> FloatArray:
    """Return the largest difference in atomic fraction between each of n entries and its mixture, (n,)."""
    arrays = CompositionArrays.from_amounts([event["subject"]["composition"] for event in events])
    lengths = np.diff(arrays.indptr)[inverse]
    flat = spans(arrays.indptr[inverse], lengths)
    rows = np.repeat(np.concatenate([np.arange(n), which]), lengths)
    signs = np.repeat(np.concatenate([np.ones(n), -shares]), lengths)
    cells = rows * len(arrays.elements) + arrays.indices[flat]
    left = np.bincount(cells, signs * arrays.fractions[flat], n * len(arrays.elements))
    largest: FloatArray = np.abs(left).reshape(n, -1).max(axis=1)
    return largest


def independent_distance(hull: LevelHull, i: int) -> float:
    """Return the energy above hull of an entry in eV/atom by a linear program (HiGHS) over the raw entries.

    Args:
        hull: The hull, of which only the events are used.
        i: Engine index of the entry.

    Returns:
        NaN where an elemental reference is missing.
    """
    from scipy.optimize import linprog

    own = hull.entry(i)
    elements = sorted(own["subject"]["composition"])
    events = [hull.entry(j) for j in hull.members(own["chemsys"])]
    x = np.array([_fractions(event, elements) for event in events])
    energies = np.array([event["subject"]["energy_eV_per_atom"] for event in events])
    pure = [energies[x[:, column] == 1.0] for column in range(len(elements))]
    if not all(len(values) for values in pure):
        return float("nan")
    formation = energies - x @ np.array([values.min() for values in pure])
    target = np.array(_fractions(own, elements))
    exact = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
    solved = linprog(formation, A_eq=x.T, b_eq=target, method="highs", options=exact)
    return float(own["subject"]["energy_eV_per_atom"] - target @ [v.min() for v in pure] - solved.fun)


def _fractions(event: Event, elements: Sequence[str]) -> list[float]:
    amounts = event["subject"]["composition"]
    total = sum(amounts.values())
    return [amounts.get(symbol, 0.0) / total for symbol in elements]


def _compared(entry_id: str, proved: float, said: float) -> list[str]:
    if np.isnan(proved) and np.isnan(said):
        return []
    if abs(proved - said) <= TOLERANCE_eV:
        return []
    return [f"{entry_id} lies {proved:.9f} eV/atom above the hull by a linear program, {said:.9f} by the engine"]
