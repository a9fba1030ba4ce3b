"""The memory: what was said of an entry and why, differences between versions, and the replay of everything."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from hullworks.analysis.audit import audit_level
from hullworks.analysis.history import diff, history, replay
from hullworks.analysis.hull_view import load_view
from hullworks.analysis.published import content_of, verdicts_of_level
from hullworks.analysis.stability import recorrect, retract, update_all
from hullworks.documents import Entry, HullEvent, HullVersion, Level, StoredVerdict
from hullworks.errors import HullError, InputError

if TYPE_CHECKING:
    from tests.analysis.conftest import Lab


@pytest.fixture
def told(lab: Lab) -> Lab:
    """Mg, Si and MgSi at version 4; Mg2Si comes (5), is re-corrected (6), and is taken back (7)."""
    lab.dethrone()
    recorrect("entry-Mg2Si-fast", -2.1, {}, "another scheme")
    retract("entry-Mg2Si-fast", "it was another crystal")
    return lab


def test_an_entry_that_others_moved_says_who_and_why(told: Lab) -> None:
    """MgSi was on the hull, left it for Mg2Si, came closer with its re-correction, and is back with its retraction."""
    assert told.made == 4
    steps = history("entry-MgSi-fast")
    assert [(step.version, step.what) for step in steps] == [(4, "added"), (5, "moved"), (6, "moved"), (7, "moved")]
    assert [step.change_eV_per_atom for step in steps] == [
        None,
        pytest.approx(0.05),
        pytest.approx(-0.05),
        None if steps[3].change_eV_per_atom is None else pytest.approx(0.0),
    ]
    assert [(because.kind, because.entry_id, because.reason) for because in steps[3].because] == [
        ("entry_retracted", "entry-Mg2Si-fast", "it was another crystal")
    ]
    assert [because.formula for because in steps[1].because] == ["Mg2Si"]


def test_an_entry_tells_its_own_events(told: Lab) -> None:
    """Added, re-corrected, retracted, each with what was said before and after."""
    assert told.made == 4
    steps = history("entry-Mg2Si-fast")
    assert [(step.what, step.before is None, step.after is None) for step in steps] == [
        ("added", True, False),
        ("re-corrected", False, False),
        ("retracted", False, True),
    ]
    with pytest.raises(InputError, match="no hull knows this entry"):
        history("entry-x")


def test_a_difference_of_two_versions_names_all_that_changed(told: Lab) -> None:
    """Appeared, gone, entered, left, another verdict, moved; and backwards the reverse."""
    there = diff(told.key, 4, 5)
    names = {part: [change.entry_id.split("-")[1] for change in getattr(there, part)]
             for part in ("appeared", "gone", "entered", "left", "reversed", "moved")}  # fmt: skip
    assert names == {
        "appeared": ["Mg2Si"],
        "gone": [],
        "entered": ["Mg2Si"],
        "left": ["MgSi"],
        "reversed": ["MgSi"],
        "moved": ["MgSi"],
    }
    assert there.moved[0].moved_eV_per_atom == pytest.approx(0.05)
    back = diff(told.key, 5, 4)
    assert [change.entry_id for change in back.gone] == ["entry-Mg2Si-fast"]
    assert not diff(told.key, 4, 7).changes, "the retraction took everything back"
    assert len(diff(told.key, 0, 7).appeared) == 3
    with pytest.raises(HullError, match="no hull version 8"):
        diff(told.key, 4, 8)


def test_the_hull_as_of_any_event_is_what_it_was(told: Lab) -> None:
    """Also as of an event within a version, which nobody had seen then."""
    energies = {}
    for number in range(1, 8):
        view = load_view(told.key, ["Mg", "Si"], as_of=number)
        energies[number] = {row.name: row.energy_eV_per_atom for row in view.entries}
    assert energies[1] == {}
    assert list(energies[2]) == ["Mg"]
    assert energies[5]["Mg2Si"] == -2.2
    assert energies[6]["Mg2Si"] == -2.1
    assert "Mg2Si" not in energies[7]
    then = load_view(told.key, ["Mg", "Si"], as_of=5)
    assert [verdict.kind.value for verdict in then.verdicts()] == ["stable", "stable", "metastable", "stable"]
    assert {verdict.hull_version for verdict in then.verdicts()} == {f"{told.key}#5"}


def test_a_replay_gives_every_version_bit_for_bit(told: Lab) -> None:
    """And a stored digest that is not that of the events is noticed."""
    versions = list(replay(told.key))
    assert [version.version for version in versions] == [4, 5, 6, 7]
    assert all(version.same for version in versions)
    HullVersion.objects(version=6).update(set__digest="0" * 64)
    assert [version.same for version in replay(told.key)] == [True, True, False, True]
    HullEvent.objects(sequence=3).delete()
    with pytest.raises(HullError, match="events of version 4 are missing"):
        list(replay(told.key))


@pytest.mark.parametrize("seed", range(3))
def test_any_sequence_of_changes_equals_a_build_of_what_is_left(lab: Lab, seed: int) -> None:
    """Entries of three elements come, go and change energy in random order and portions, in several processes."""
    rng = random.Random(seed)
    here: dict[str, float] = {}
    names = ["Mg", "Si", "Ge", *(f"Mg{a}Si{b}Ge{c}" for a in (0, 1, 3) for b in (0, 1, 2) for c in (1, 2))]
    formulas = [name.replace("Mg0", "").replace("Si0", "") for name in names]
    for formula in rng.sample(formulas, len(formulas)):
        lab.enter(formula, round(rng.uniform(-4.0, -1.0), 3))
        here[formula] = 0.0
        for _ in range(rng.randrange(2)):
            chosen = rng.choice(sorted(here))
            if rng.random() < 0.3:
                retract(f"entry-{chosen}-fast", "chance")
                del here[chosen]
                break
            recorrect(f"entry-{chosen}-fast", round(rng.uniform(-4.0, -1.0), 3), {}, "chance")
        if rng.random() < 0.3:
            lab.restart()
        if rng.random() < 0.5:
            update_all()
    update_all()
    assert all(version.same for version in replay(lab.key))
    assert audit_level(lab.key).ok
    version = Level.objects.get(key=lab.key).published
    said = {doc["entry_id"]: content_of(doc) for doc in verdicts_of_level(lab.key, version)}
    assert sorted(said) == sorted(f"entry-{formula}-fast" for formula in here)
    left = [(e.reduced_formula, e.energy_eV_per_atom) for e in Entry.objects(retracted__ne=True)]
    assert len(left) == len(here)
    numbers = load_view(lab.key, ["Mg", "Si", "Ge"]).hull.e_above_hull
    rebuilt = dict(zip(load_view(lab.key, ["Mg", "Si", "Ge"]).ids, numbers.tolist(), strict=True))
    for name, content in said.items():
        if content["e_above_hull_eV_per_atom"] is not None:
            assert content["e_above_hull_eV_per_atom"] == pytest.approx(rebuilt[name], abs=1e-9)
    assert StoredVerdict.objects(level_key=lab.key).count() >= len(said)
