"""A level's hull in memory: what its verdicts miss, and how it keeps up with the events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hullworks.analysis.events import Fold
from hullworks.analysis.resident import WRITERS, LevelHull, load_level
from hullworks.analysis.stability import update_all

if TYPE_CHECKING:
    from tests.analysis.conftest import Lab


def test_a_verdict_misses_the_references_of_its_own_system_alone() -> None:
    """Whether they are few, and all are looked at, or many, and the subsystems are."""
    hull = LevelHull(Fold("a"))
    for n_others in (1, 40):
        others = {f"other {i}": f"Al-{'BCFHIKNOPSUVWY'[i % 14]}-Xe{i}" for i in range(n_others)}
        hull.fold.missing = {"Mg2Si": "Mg-Si", "MgGe": "Ge-Mg", "Mg": "Mg", **others}
        hull._owed = hull._references_by_system()
        assert hull.missing_in("Mg-Si") == ["Mg", "Mg2Si"]
        assert hull.missing_in("Si") == []
        assert hull.missing_in("Ge-Mg-Si") == ["Mg", "Mg2Si", "MgGe"]


def test_what_is_kept_in_memory_is_caught_up_or_thrown_away(lab: Lab) -> None:
    """Behind: the missing events are taken in. Ahead, or of another history: it is built anew."""
    lab.enter_all()
    update_all()
    old = load_level(lab.key, 4)
    WRITERS.give_back(old)
    assert WRITERS.take(lab.key, 6) is old
    assert old.version == 6
    assert len(old.index) == 5
    WRITERS.give_back(old)
    earlier = WRITERS.take(lab.key, 4)
    assert earlier is not old
    assert earlier.version == 4
    old.fold.last_id = "another"
    WRITERS.give_back(old)
    assert WRITERS.take(lab.key, 6) is not old
