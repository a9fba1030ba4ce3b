"""The stability database's writer: entries, events, verdicts; on a real MongoDB."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
from pymatgen.core import Composition

from hullworks.analysis.client import StabilityDB
from hullworks.analysis.hull_view import load_view
from hullworks.analysis.stability import update_all, update_level
from hullworks.documents import Candidate, Entry, HullEvent, Level, StoredVerdict
from hullworks.errors import HullError, LevelError
from hullworks.leases import lease
from hullworks.levels import LevelOfTheory
from hullworks.states import CandidateState, Role

if TYPE_CHECKING:
    from hullworks.settings import Settings

LEVEL = LevelOfTheory("qe", "PBE", "fast")
OTHER = LevelOfTheory("qe", "PBE", "balanced")
ENERGIES = {"Mg": -1.0, "Si": -4.0, "Mg2Si": -2.2, "MgSi": -2.3, "Mg3Si": -1.8}
"""eV/atom; Mg2Si lies 0.2 below its elements, MgSi and Mg3Si above the hull."""


@pytest.fixture(autouse=True)
def _levels(mongod: Settings) -> None:
    assert mongod.database.name.startswith("t"), "never anybody's real database"
    for level in (LEVEL, OTHER):
        Level(key=level.key, slug=level.slug, data=level.as_dict()).save()


def _enter(formula: str, energy: float | None = None, *, level: LevelOfTheory = LEVEL, **fields: Any) -> Entry:
    composition = Composition(formula)
    key = f"{formula}-{level.protocol}"
    known = formula in {"Mg", "Si", "Mg2Si"}
    values: dict[str, Any] = {
        "entry_id": f"entry-{key}",
        "calculation_id": f"calc-{key}",
        "candidate_id": f"cand-{key}",
        "level_key": level.key,
        "name": formula,
        "role": Role.REFERENCE if known else Role.CANDIDATE,
        "formula": formula,
        "reduced_formula": composition.reduced_formula,
        "chemsys": composition.chemical_system,
        "elements": sorted(composition.get_el_amt_dict()),
        "composition": composition.get_el_amt_dict(),
        "n_atoms": int(composition.num_atoms),
        "uncorrected_energy_eV_per_atom": 0.0,
        "energy_eV_per_atom": ENERGIES[formula] if energy is None else energy,
        "structure": {"made": "for this test"},
        "structure_id": key,
        "initial_structure_id": key,
        "valid": True,
    }
    entry = Entry(**{**values, **fields})
    entry.save(force_insert=True)
    return entry


def _declare(formula: str, state: CandidateState, role: Role = Role.REFERENCE) -> Candidate:
    composition = Composition(formula)
    candidate = Candidate(
        candidate_id=f"cand-{formula}-fast",
        row_id=f"row-{formula}",
        batch="b",
        level_key=LEVEL.key,
        source_file="f",
        source_row=1,
        name=formula,
        role=role,
        reduced_formula=composition.reduced_formula,
        chemsys=composition.chemical_system,
        state=state,
        entry_id=f"entry-{formula}-fast",
    )
    candidate.save(force_insert=True)
    return candidate


def _kinds() -> dict[str, str]:
    return {v.entry_id.split("-")[1]: v.kind for v in StoredVerdict.objects(level_key=LEVEL.key)}


def test_entries_become_numbered_events_and_verdicts() -> None:
    """Each entry is one event; every verdict has level, version and flags."""
    for formula in ENERGIES:
        _enter(formula)
    assert update_all()["events"] == 5
    assert [event.sequence for event in HullEvent.objects.order_by("sequence")] == [1, 2, 3, 4, 5]
    expected = {"Mg": "stable", "Si": "stable", "Mg2Si": "stable", "MgSi": "unstable", "Mg3Si": "unstable"}
    assert _kinds() == expected
    verdict = StoredVerdict.objects.get(entry_id="entry-MgSi-fast")
    assert (verdict.level_key, verdict.hull_sequence, verdict.flags) == (LEVEL.key, 5, [])
    # MgSi = 0.75 Mg2Si + 0.25 Si by atoms: -2.3 - (0.75 * -2.2 + 0.25 * -4.0)
    assert verdict.e_above_hull_eV_per_atom == pytest.approx(0.35, abs=1e-12)
    assert {part["formula"]: part["fraction"] for part in verdict.decomposition} == pytest.approx(
        {"Mg2Si": 0.75, "Si": 0.25}
    )


def test_a_second_update_changes_nothing() -> None:
    """It finds nothing to do, and touches no document."""
    for formula in ENERGIES:
        _enter(formula)
    update_all()
    before = [v.to_mongo() for v in StoredVerdict.objects]
    assert not update_all()
    assert [v.to_mongo() for v in StoredVerdict.objects] == before


def test_the_order_of_arrival_does_not_matter() -> None:
    """Whatever order entries land in, the last verdicts are the same."""
    rng = random.Random(1)
    for round_number in range(4):
        for document in (Entry, HullEvent, StoredVerdict):
            document.objects.delete()
        Level.objects.update(set__verdicts_sequence=0)
        order = rng.sample(list(ENERGIES), len(ENERGIES))
        for formula in order:
            _enter(formula)
            if rng.random() < 0.5:
                update_all()
        update_all()
        assert _kinds()["Mg2Si"] == "stable", (round_number, order)
        assert StoredVerdict.objects.get(entry_id="entry-MgSi-fast").e_above_hull_eV_per_atom == pytest.approx(0.35)


def test_without_an_element_the_verdict_is_indeterminate_and_names_it() -> None:
    """No number is guessed; when the element comes, the verdict follows."""
    for formula in ("Mg", "Mg2Si", "MgSi"):
        _enter(formula)
    update_all()
    verdict = StoredVerdict.objects.get(entry_id="entry-MgSi-fast")
    assert (verdict.kind, verdict.missing, verdict.e_above_hull_eV_per_atom) == ("indeterminate", ["Si"], None)
    _enter("Si")
    update_all()
    assert _kinds()["MgSi"] == "unstable"


def test_a_declared_competing_phase_without_an_entry_makes_verdicts_indeterminate() -> None:
    """Until it has landed; also when it failed, and no longer when its user gives it up."""
    for formula in ("Mg", "Si", "MgSi"):
        _enter(formula)
    reference = _declare("Mg2Si", CandidateState.FAILED)
    update_all()
    verdict = StoredVerdict.objects.get(entry_id="entry-MgSi-fast")
    assert verdict.kind == "indeterminate"
    assert "Mg2Si" in verdict.missing[0]
    assert _kinds()["Mg"] == "stable", "an element's own system owes nothing"
    Candidate.move(reference.candidate_id, CandidateState.CANCELLED)
    update_all()
    assert _kinds()["MgSi"] != "indeterminate"


def test_invalid_entries_never_move_the_hull() -> None:
    """They are stored, and no event speaks of them."""
    for formula in ("Mg", "Si", "Mg2Si"):
        _enter(formula)
    _enter("MgSi", -30.0, valid=False)
    update_all()
    assert _kinds() == {"Mg": "stable", "Si": "stable", "Mg2Si": "stable"}
    assert HullEvent.objects(entry_id="entry-MgSi-fast").count() == 0


def test_an_event_says_who_entered_who_left_and_who_moved() -> None:
    """A better Mg2Si from elsewhere dethrones nobody, but raises MgSi; a deep MgSi pushes Mg2Si's neighbours up."""
    for formula in ("Mg", "Si", "MgSi"):
        _enter(formula, None if formula != "MgSi" else -2.6)
    update_all()
    _enter("Mg2Si")
    update_all()
    event = HullEvent.objects.get(entry_id="entry-Mg2Si-fast")
    assert event.entered == ["entry-Mg2Si-fast"]
    assert event.left == ["entry-MgSi-fast"]
    # before on the hull, now -2.6 - (0.75 * -2.2 + 0.25 * -4.0) = 0.05 above
    assert event.moved["entry-MgSi-fast"] == pytest.approx(0.05)
    assert set(event.libraries) == {"hullworks", "numpy", "pymatgen"}


def test_levels_never_share_a_hull() -> None:
    """The same crystal at another level is invisible, and an entry edited to another level is refused."""
    for formula in ("Mg", "Si", "MgSi"):
        _enter(formula)
    _enter("Mg2Si", level=OTHER)
    update_all()
    assert "Mg2Si" not in _kinds()
    view = load_view(LEVEL.key, ["Mg", "Si"])
    foreign = load_view(OTHER.key, ["Mg", "Si"]).entries
    with pytest.raises(LevelError, match="different levels"):
        type(view)(view.level_key, view.elements, view.sequence, view.entries + foreign)


def test_a_killed_writer_is_caught_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after the event, before the entry's number or the verdicts: the next update completes it, once."""
    for formula in ENERGIES:
        _enter(formula)
    calls = {"n": 0}
    original = Entry.objects.__class__.update_one

    def dies(self: Any, *args: Any, **fields: Any) -> Any:  # noqa: ANN401 - mongoengine's own
        calls["n"] += 1
        if calls["n"] == 3:
            raise KeyboardInterrupt
        return original(self, *args, **fields)

    monkeypatch.setattr(Entry.objects.__class__, "update_one", dies)
    with pytest.raises(KeyboardInterrupt):
        update_level(LEVEL.key)
    monkeypatch.undo()
    update_all()
    assert sorted(e.sequence for e in HullEvent.objects) == [1, 2, 3, 4, 5]
    assert {e.entry_id: e.hull_sequence for e in Entry.objects} == {e.entry_id: e.sequence for e in HullEvent.objects}
    assert _kinds()["MgSi"] == "unstable"


def test_while_one_writer_is_at_it_another_does_nothing() -> None:
    """One writer at a time, by lease."""
    _enter("Mg")
    with lease(f"stability:{LEVEL.key}", 60):
        assert not update_level(LEVEL.key)
    assert update_level(LEVEL.key)["events"] == 1


def test_the_client_reads_hulls_as_of_any_event(mongod: Settings) -> None:
    """The past hull is rebuilt exactly, and its verdicts quote its own version."""
    for formula in ENERGIES:
        _enter(formula)
        update_all()
    db = StabilityDB(mongod)
    now = db.hull("Si-Mg", level="qe-pbe-fast")
    assert list(now.stable["name"]) == ["Mg", "Si", "Mg2Si"]
    diagram = now.phase_diagram()
    proposed = next(entry for entry in diagram.all_entries if entry.reduced_formula == "MgSi")
    assert diagram.get_e_above_hull(proposed) == pytest.approx(0.35, abs=1e-8)
    then = db.hull("Mg-Si", level="qe-pbe-fast", as_of=2)
    assert [row["name"] for row in then.rows()] == ["Mg", "Si"]
    assert {row["hull_version"] for row in then.rows()} == {2}
    with pytest.raises(HullError, match="no event 9"):
        db.hull("Mg-Si", level="qe-pbe-fast", as_of=9)
    assert db.e_above_hull(["MgSi", "Mg2Si"], [-2.3, -2.5], level="qe-pbe-fast") == pytest.approx([0.35, -0.3])


def test_landed_candidates_are_verified_with_their_verdict() -> None:
    """The move quotes verdict and hull version."""
    for formula in ENERGIES:
        _enter(formula)
    _declare("MgSi", CandidateState.LANDED, Role.CANDIDATE)
    assert update_all()["verified"] == 1
    candidate = Candidate.objects.get()
    assert candidate.state is CandidateState.VERIFIED
    assert candidate.history[-1].reason == "unstable at hull version 5"
