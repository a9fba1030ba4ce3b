"""Hull events and their fold: one level, in order, nothing twice."""

from __future__ import annotations

from typing import Any

import pytest

from hullworks.analysis.events import Fold, fold_events, reference_events, subsystems
from hullworks.errors import HullError


def _event(sequence: int, kind: str = "entry_added", formula: str = "Mg", energy: float = -1.0) -> dict[str, Any]:
    subject = {
        "candidate_id": f"cand-{formula}",
        "name": formula,
        "role": "reference",
        "formula": formula,
        "composition": {formula: 1.0},
        "n_atoms": 1,
        "energy_eV_per_atom": energy,
        "error_bar_eV": None,
        "flags": [],
        "recorrections": 0,
        "volume_change": None,
        "energy_drift_eV": None,
    }
    event = {"level_key": "a", "sequence": sequence, "kind": kind, "entry_id": formula, "chemsys": formula}
    return {**event, "subject": subject}


@pytest.mark.parametrize(
    ("events", "problem"),
    [
        ([_event(1), _event(2)], "added twice"),
        ([_event(1, "entry_retracted")], "not in this hull"),
        ([_event(1, "entry_recorrected")], "not in this hull"),
        ([_event(2), _event(1, formula="Si")], "comes after"),
        ([_event(1), _event(2, "entry_retracted"), _event(3)], "added twice"),
    ],
)
def test_events_that_do_not_follow_are_refused(events: list[dict[str, Any]], problem: str) -> None:
    """Nothing is guessed about a history that cannot be."""
    with pytest.raises(HullError, match=problem):
        fold_events("a", events)


def test_many_references_become_several_events() -> None:
    """A document must not exceed what the database takes; together they say all."""
    missing = {f"phase {i}": "Mg-Si" for i in range(12_000)}
    drafts = reference_events(Fold("a"), missing)
    assert [len(draft["missing"]) for draft in drafts] == [5000, 5000, 2000]
    assert len({draft["token"] for draft in drafts}) == 3
    fold = fold_events("a", [{**draft, "level_key": "a", "sequence": n} for n, draft in enumerate(drafts, 1)])
    assert fold.missing == missing
    (back,) = reference_events(fold, dict(list(missing.items())[3:]))
    assert (len(back["settled"]), back["missing"]) == (3, [])


def test_subsystems_are_all_and_sorted() -> None:
    """Each in the spelling that entries have."""
    assert subsystems(["Si", "Mg"]) == ["Mg", "Si", "Mg-Si"]
    assert len(subsystems("abcdefg")) == 127
