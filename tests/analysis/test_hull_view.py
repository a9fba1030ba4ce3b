"""Views of a chemical system, and the fold of events that they are made of: one level, in order, nothing twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hullworks.analysis.hull_view import HullView, load_view
from hullworks.analysis.resident import load_level
from hullworks.analysis.stability import update_all
from hullworks.documents import Candidate
from hullworks.errors import LevelError
from hullworks.states import CandidateState

if TYPE_CHECKING:
    from tests.analysis.conftest import Lab


def test_levels_never_share_a_hull(lab: Lab) -> None:
    """The same crystal at another level is invisible; its row, or its events, are refused."""
    for formula in ("Mg", "Si", "MgSi"):
        lab.enter(formula)
    lab.enter("Mg2Si", level=lab.other)
    update_all()
    view, foreign = load_view(lab.key, ["Mg", "Si"]), load_view(lab.other, ["Mg", "Si"])
    assert [row.name for row in view.entries] == ["Mg", "Si", "MgSi"]
    with pytest.raises(LevelError, match="different levels"):
        HullView(view.level_key, view.elements, view.sequence, view.entries + foreign.entries, view.fold)
    with pytest.raises(LevelError, match="its events are of"):
        HullView(view.level_key, view.elements, view.sequence, view.entries, foreign.fold)
    hull = load_level(lab.key, view.sequence)
    with pytest.raises(LevelError, match="cannot enter this hull"):
        hull.advance(foreign.fold.entries.values())


def test_a_view_says_of_each_entry_what_the_level_does(lab: Lab) -> None:
    """The hull of one system has the same verdicts as the hull of all, references that are missing included."""
    lab.enter_all()
    for formula in ("Ge", "Mg2Ge", "Ge2Si"):
        lab.enter(formula, -3.0)
    lab.declare("Mg5Si", CandidateState.QUEUED)
    update_all()
    view = load_view(lab.key, ["Mg", "Si"])
    stored = lab.kinds()
    said = {row.name: verdict.kind.value for row, verdict in zip(view.entries, view.verdicts(), strict=True)}
    assert said == {name: stored[name] for name in said}
    assert said["MgSi"] == "indeterminate"
    assert Candidate.objects.count() == 1
