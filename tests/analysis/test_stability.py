"""The stability database's writer: entries become events and verdicts; retraction, re-correction, the door."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import pytest

from hullworks.analysis.stability import recorrect, retract, update_all, update_level
from hullworks.documents import Candidate, Entry, HullEvent, HullVersion, Level, StoredVerdict
from hullworks.errors import InputError, LevelError
from hullworks.leases import lease
from hullworks.states import CandidateState, Cause, Role

if TYPE_CHECKING:
    from tests.analysis.conftest import Lab

ALL = ["Mg", "Si", "Mg2Si", "MgSi", "Mg3Si"]


def test_entries_become_numbered_events_and_verdicts(lab: Lab) -> None:
    """Each entry is one event, after the rules of verdicts; every verdict has level, version and flags."""
    lab.enter_all()
    assert update_all() == {"events": 6, "versions": 1, "verdicts": 5}
    events = list(HullEvent.objects.order_by("sequence"))
    assert [(event.sequence, event.kind) for event in events] == [
        (1, "rules_changed"),
        *((number, "entry_added") for number in range(2, 7)),
    ]
    assert HullEvent.objects.get(entry_id="entry-Mg2Si-fast").subject["composition"] == {"Mg": 2.0, "Si": 1.0}
    assert set(events[3].libraries) == {"hullworks", "numpy", "pymatgen"}
    expected = {"Mg": "stable", "Si": "stable", "Mg2Si": "stable", "MgSi": "unstable", "Mg3Si": "unstable"}
    assert lab.kinds() == expected
    verdict = lab.verdict("MgSi")
    assert (verdict.level_key, verdict.hull_sequence, verdict.flags) == (lab.key, 6, [])
    # MgSi = 0.75 Mg2Si + 0.25 Si by atoms: -2.3 - (0.75 * -2.2 + 0.25 * -4.0)
    assert verdict.e_above_hull_eV_per_atom == pytest.approx(0.35, abs=1e-10)
    assert {part["formula"]: part["fraction"] for part in verdict.decomposition} == {"Mg2Si": 0.75, "Si": 0.25}
    assert not HullEvent.objects(level_key=lab.other)


def test_a_second_update_changes_nothing(lab: Lab) -> None:
    """It finds nothing to do, and touches no document."""
    lab.enter_all()
    update_all()
    before = [verdict.to_mongo() for verdict in StoredVerdict.objects]
    assert not update_all()
    lab.restart()
    assert not update_all()
    assert [verdict.to_mongo() for verdict in StoredVerdict.objects] == before
    assert {entry.hull_sequence for entry in Entry.objects} == {6}


def test_the_order_of_arrival_does_not_matter(lab: Lab) -> None:
    """Whatever order entries land in, and in however many versions, the last verdicts are the same."""
    rng = random.Random(1)
    said = set()
    for _ in range(3):
        lab.empty()
        for formula in rng.sample(ALL, len(ALL)):
            lab.enter(formula)
            if rng.random() < 0.5:
                update_all()
        update_all()
        verdicts = sorted(StoredVerdict.objects(until=2**62), key=lambda verdict: verdict.entry_id)
        said.add(str([(v.entry_id, v.kind, v.e_above_hull_eV_per_atom, sorted(map(str, v.decomposition)))
                      for v in verdicts]))  # fmt: skip
    assert len(said) == 1


def test_without_an_element_the_verdict_is_indeterminate_and_names_it(lab: Lab) -> None:
    """No number is guessed; when the element comes, the verdict follows."""
    for formula in ("Mg", "Mg2Si", "MgSi"):
        lab.enter(formula)
    update_all()
    verdict = lab.verdict("MgSi")
    assert (verdict.kind, verdict.missing, verdict.e_above_hull_eV_per_atom) == ("indeterminate", ["Si"], None)
    lab.enter("Si")
    update_all()
    assert lab.kinds()["MgSi"] == "unstable"


def test_a_declared_competing_phase_without_an_entry_makes_verdicts_indeterminate(lab: Lab) -> None:
    """Until it has landed; also when it failed, and no longer when its user gives it up. Both are hull events."""
    for formula in ("Mg", "Si", "MgSi"):
        lab.enter(formula)
    reference = lab.declare("Mg2Si", CandidateState.FAILED)
    update_all()
    verdict = lab.verdict("MgSi")
    assert verdict.kind == "indeterminate"
    assert verdict.missing == ["Mg2Si (cand-Mg2Si-fast, failed)"]
    assert lab.kinds()["Mg"] == "stable", "an element's own system owes nothing"
    Candidate.move(reference.candidate_id, CandidateState.CANCELLED)
    assert update_all() == {"events": 1, "versions": 1, "verdicts": 1}
    assert lab.kinds()["MgSi"] != "indeterminate"
    kinds = [(event.missing, event.settled) for event in HullEvent.objects(kind="references_changed")]
    pair = ["Mg2Si (cand-Mg2Si-fast, failed)", "Mg-Si"]
    assert kinds == [([pair], []), ([], [pair])]


def test_invalid_entries_never_move_the_hull(lab: Lab) -> None:
    """They are stored, and no event speaks of them."""
    for formula in ("Mg", "Si", "Mg2Si"):
        lab.enter(formula)
    lab.enter("MgSi", -30.0, valid=False)
    update_all()
    assert lab.kinds() == {"Mg": "stable", "Si": "stable", "Mg2Si": "stable"}
    assert HullEvent.objects(entry_id="entry-MgSi-fast").count() == 0


def test_a_version_says_who_entered_who_left_and_who_moved(lab: Lab) -> None:
    """A Mg2Si below MgSi's tie lines takes its place on the hull, and MgSi moves up."""
    lab.dethrone()
    version = HullVersion.objects.order_by("-version").first()
    assert (version.version, version.previous) == (5, 4)
    assert (version.entered, version.left) == (["entry-Mg2Si-fast"], ["entry-MgSi-fast"])
    # before on the hull, now -2.6 - (0.75 * -2.2 + 0.25 * -4.0) = 0.05 above
    (move,) = version.moves
    assert move == {"entry_id": "entry-MgSi-fast", "change_eV_per_atom": pytest.approx(0.05)}
    assert version.audit == {"mixtures": version.n_judged, "linear_programs": 1, "certificates": False}


@pytest.mark.parametrize("energy", [math.nan, math.inf, -math.inf, 50.1, -1e7])
def test_an_absurd_energy_is_refused_at_the_door(lab: Lab, energy: float) -> None:
    """With its id and the reason; the rest goes on, and an energy that makes sense lets it in."""
    lab.enter_all()
    lab.enter("Mg5Si", energy)
    assert update_all()["refused"] == 1
    assert sorted(lab.kinds()) == sorted(ALL)
    refused = Entry.objects.get(entry_id="entry-Mg5Si-fast")
    assert "no energy of a solid" in refused.refused.text
    assert not update_all()
    recorrect("entry-Mg5Si-fast", -1.4, {}, "a typing error")
    assert lab.kinds()["Mg5Si"] == "unstable"
    assert Entry.objects.get(entry_id="entry-Mg5Si-fast").refused is None


def test_a_composition_of_another_system_is_refused(lab: Lab) -> None:
    """Amounts that are none, and elements that the chemical system does not have."""
    lab.enter_all()
    lab.enter("Mg5Si", -1.4, composition={"Mg": 5.0, "Si": math.nan})
    lab.enter("Mg7Si", -1.4, composition={"Mg": 7.0, "Ge": 1.0})
    assert update_all()["refused"] == 2
    assert sorted(lab.kinds()) == sorted(ALL)


def test_an_entry_of_another_level_is_refused(lab: Lab) -> None:
    """An entry that is on one hull cannot enter another, however its document was edited; the rest goes on."""
    lab.enter_all()
    update_all()
    entries = Entry.collection()
    entries.update_one({"_id": "entry-MgSi-fast"}, {"$set": {"level_key": lab.other, "hull_sequence": None}})
    lab.enter("Mg", level=lab.other)
    assert update_level(lab.other)["refused"] == 1
    assert "belongs to one level" in Entry.objects.get(entry_id="entry-MgSi-fast").refused.text
    assert StoredVerdict.objects(level_key=lab.other).count() == 1
    assert lab.kinds()["MgSi"] == "unstable", "where it was, it stays"


def test_a_retraction_moves_everything_back(lab: Lab) -> None:
    """What the entry moved is as before, its candidate has failed with the reason, and the event says so."""
    for formula in ("Mg", "Si", "Mg3Si"):
        lab.enter(formula)
    update_all()
    before = lab.verdict("Mg3Si").e_above_hull_eV_per_atom
    lab.enter("Mg2Si", candidate_id="cand-Mg2Si-fast")
    lab.declare("Mg2Si", CandidateState.LANDED, Role.CANDIDATE)
    update_all()
    assert lab.verdict("Mg3Si").e_above_hull_eV_per_atom != before
    done = retract("entry-Mg2Si-fast", "the pseudopotential was broken")
    assert done["versions"] == 1
    assert lab.verdict("Mg3Si").e_above_hull_eV_per_atom == before
    assert "Mg2Si" not in lab.kinds()
    candidate = Candidate.objects.get()
    assert (candidate.state, candidate.cause, candidate.reason.text) == (
        CandidateState.FAILED,
        Cause.INVALID,
        "the pseudopotential was broken",
    )
    event = HullEvent.objects.get(kind="entry_retracted")
    assert (event.reason, event.entry_id) == ("the pseudopotential was broken", "entry-Mg2Si-fast")
    assert StoredVerdict.objects.get(entry_id="entry-Mg2Si-fast").until == event.sequence
    assert not retract("entry-Mg2Si-fast", "again")


def test_a_retracted_reference_is_missed_from_the_same_version_on(lab: Lab) -> None:
    """It is known to exist, and has no entry: verdicts that depend on it cannot be made until it is computed again."""
    lab.enter_all()
    lab.declare("Mg2Si", CandidateState.LANDED)
    update_all()
    retract("entry-Mg2Si-fast", "the pseudopotential was broken")
    assert lab.kinds() == {"Mg": "stable", "Si": "stable", "MgSi": "indeterminate", "Mg3Si": "indeterminate"}
    assert lab.verdict("MgSi").missing == ["Mg2Si (cand-Mg2Si-fast, failed)"]
    assert HullVersion.objects.count() == 2


def test_a_retraction_of_what_no_hull_has_heard_of_leaves_no_trace(lab: Lab) -> None:
    """The entry never becomes an event."""
    lab.enter("Mg")
    update_all()
    lab.enter("Si")
    Entry.objects(entry_id="entry-Si-fast").update(set__retracted=True)
    assert not update_all()
    assert HullEvent.objects(entry_id="entry-Si-fast").count() == 0


def test_a_recorrection_moves_the_hull_up_as_well_as_down(lab: Lab) -> None:
    """The same energy again gives the same verdicts again."""
    lab.enter_all()
    update_all()
    first = lab.verdict("MgSi").e_above_hull_eV_per_atom
    recorrect("entry-Mg2Si-fast", -2.1, {"shift": 0.1}, "another scheme")
    # MgSi between Mg2Si at -2.1 and Si: -2.3 - (0.75 * -2.1 + 0.25 * -4)
    assert lab.verdict("MgSi").e_above_hull_eV_per_atom == pytest.approx(0.275)
    recorrect("entry-Mg2Si-fast", -2.2, {}, "the first one was right")
    assert lab.verdict("MgSi").e_above_hull_eV_per_atom == first
    assert [e.reason for e in HullEvent.objects(kind="entry_recorrected").order_by("sequence")] == [
        "another scheme",
        "the first one was right",
    ]
    entry = Entry.objects.get(entry_id="entry-Mg2Si-fast")
    assert (entry.energy_eV_per_atom, entry.recorrections, entry.correction_parts_eV_per_atom) == (-2.2, 2, {})


def test_what_cannot_be_changed_is_refused_with_its_reason(lab: Lab) -> None:
    """Unknown entries, no reason, absurd energies, retracted entries."""
    lab.enter_all()
    update_all()
    with pytest.raises(InputError, match="no such entry"):
        retract("entry-x", "why")
    with pytest.raises(InputError, match="a reason is needed"):
        retract("entry-Mg-fast", " ")
    with pytest.raises(InputError, match="no energy of a solid"):
        recorrect("entry-Mg-fast", math.nan, {}, "why")
    retract("entry-MgSi-fast", "why")
    with pytest.raises(InputError, match="retracted"):
        recorrect("entry-MgSi-fast", -2.0, {}, "why")


def test_while_one_writer_is_at_it_another_does_nothing(lab: Lab) -> None:
    """One writer at a time, by lease."""
    lab.enter("Mg")
    with lease(f"stability:{lab.key}", 60):
        assert not update_level(lab.key)
    assert update_level(lab.key)["events"] == 2


def test_an_unknown_level_is_an_error(lab: Lab) -> None:
    """Nothing is written for it."""
    with pytest.raises(LevelError, match="no such level"):
        update_level(f"{lab.key}x")


def test_landed_candidates_are_verified_with_their_verdict(lab: Lab) -> None:
    """The move quotes verdict and hull version."""
    lab.enter_all()
    lab.declare("MgSi", CandidateState.LANDED, Role.CANDIDATE)
    assert update_all()["verified"] == 1
    candidate = Candidate.objects.get()
    assert candidate.state is CandidateState.VERIFIED
    assert candidate.history[-1].reason == "unstable at hull version 6"


def test_other_thresholds_are_an_event_and_change_verdicts(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was said under the old ones stays on record."""
    from dataclasses import replace

    from hullworks.analysis.verdicts import load_thresholds

    lab.enter_all()
    update_all()
    wider = replace(load_thresholds(), metastable_eV=0.4)
    monkeypatch.setattr("hullworks.analysis.events.load_thresholds", lambda: wider)
    assert update_all() == {"events": 1, "versions": 1, "verdicts": 2}
    assert lab.kinds()["MgSi"] == "metastable"
    assert [v.kind for v in StoredVerdict.objects(entry_id="entry-MgSi-fast").order_by("since")] == [
        "unstable",
        "metastable",
    ]
    assert Level.objects.get(key=lab.key).published == 7
