"""Independent proofs: they agree with the engine where it is right, and name the entry where it is wrong."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from hullworks.analysis.events import Fold
from hullworks.analysis.proofs import (
    independent_distance,
    problems_of_certificates,
    problems_of_counts,
    problems_of_mixtures,
    problems_of_step,
)
from hullworks.analysis.resident import LevelHull, Step

if TYPE_CHECKING:
    from hullworks.analysis.convex_hull import HullNumbers

SYMBOLS = ("Ge", "Mg", "Si", "Sn")


def _event(sequence: int, amounts: dict[str, float], energy: float) -> dict[str, Any]:
    name = "".join(f"{symbol}{n:g}" for symbol, n in amounts.items())
    subject = dict.fromkeys(("error_bar_eV", "volume_change", "energy_drift_eV", "name"))
    subject |= {
        "candidate_id": name,
        "role": "reference",
        "formula": name,
        "n_atoms": 1,
        "flags": [],
        "recorrections": 0,
    }
    subject |= {"composition": amounts, "energy_eV_per_atom": energy}
    own = {"entry_id": f"{name}-{sequence}", "chemsys": "-".join(sorted(amounts)), "subject": subject}
    return {"level_key": "qe-pbe-fast-0", "sequence": sequence, "kind": "entry_added", **own}


def _hull(n: int = 60, elements: tuple[str, ...] = SYMBOLS) -> tuple[LevelHull, Step, HullNumbers]:
    """Return a hull of elements at unlike total energies and random compounds, with polymorphs."""
    rng = random.Random(n)
    base = {symbol: -100.0 * place for place, symbol in enumerate(SYMBOLS, 1)}
    rows: list[tuple[dict[str, float], float]] = [({symbol: 1.0}, 0.0) for symbol in elements]
    for _ in range(n):
        chosen = sorted(rng.sample(SYMBOLS, rng.randint(2, 4)))
        rows.append(({symbol: float(rng.randint(1, 4)) for symbol in chosen}, rng.uniform(-0.5, 0.5)))
    hull = LevelHull(Fold("qe-pbe-fast-0"))
    events = []
    for sequence, (amounts, formation) in enumerate(rows, 1):
        total = sum(amounts.values())
        energy = formation + sum(count * base[symbol] for symbol, count in amounts.items()) / total
        events.append(_event(sequence, amounts, energy))
    step = hull.advance(events)
    return hull, step, hull.engine.numbers(step.judged)


def test_what_is_right_passes_every_proof() -> None:
    """Each energy above hull by a linear program, each decomposition as a mixture, all certificates, the counts."""
    hull, step, numbers = _hull()
    programs = [independent_distance(hull, i) for i in step.judged.tolist()]
    assert programs == pytest.approx(numbers.e_above_hull.tolist(), abs=1e-9)
    problems, checked = problems_of_step(hull, step, numbers)
    assert problems == []
    assert checked == {"mixtures": 64, "linear_programs": 1, "certificates": False}
    assert problems_of_certificates(hull) == []


def test_where_a_reference_is_missing_both_say_so() -> None:
    """NaN on both sides, and the mixtures of the others still count."""
    hull, step, numbers = _hull(elements=("Ge", "Mg", "Si"))
    unknown = np.isnan(numbers.e_above_hull)
    assert unknown.any()
    assert not unknown.all()
    assert [np.isnan(independent_distance(hull, i)) for i in step.judged.tolist()] == unknown.tolist()
    assert problems_of_step(hull, step, numbers)[0] == []


@pytest.mark.parametrize("field", ["e_above_hull", "fractions", "products"])
def test_what_is_wrong_is_named(field: str) -> None:
    """An energy that is too low, shares that do not add up, and phases that are others."""
    hull, step, numbers = _hull()
    row = int(np.flatnonzero(numbers.e_above_hull > 0.1)[0])
    wrong = getattr(numbers, field).copy()
    place = row if field == "e_above_hull" else int(numbers.indptr[row])
    wrong[place] = (wrong[place] + 1) % 4 if field == "products" else wrong[place] - 1e-4
    problems = problems_of_mixtures(hull, replace(numbers, **{field: wrong}))
    assert len(problems) == 1
    assert hull.ids[int(step.judged[row])] in problems[0]


def test_an_engine_with_other_entries_than_the_events_is_noticed() -> None:
    """One more, or one less."""
    hull, _, _ = _hull()
    hull.engine.remove([5])
    assert problems_of_counts(hull) == ["the engine holds 63 entries, the events 64"]
