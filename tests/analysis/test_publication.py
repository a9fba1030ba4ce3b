"""Publication of hull versions: killed anywhere, overtaken anywhere, two at once; a wrong number is never published."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from pymongo.errors import DuplicateKeyError

from hullworks.analysis.audit import audit_level, repair_level
from hullworks.analysis.convex_hull import ConvexHull
from hullworks.analysis.history import replay
from hullworks.analysis.published import content_of, verdicts_of_level
from hullworks.analysis.resident import WRITERS
from hullworks.analysis.stability import update_all, update_level
from hullworks.documents import OPEN_END, Candidate, Entry, HullEvent, HullVersion, Lease, Level, StoredVerdict
from hullworks.errors import HullError
from hullworks.states import CandidateState, Role

if TYPE_CHECKING:
    from collections.abc import Callable

    from hullworks.settings import Settings
    from tests.analysis.conftest import Lab, Writes


def _said(level_key: str) -> dict[str, Any]:
    """Return what is published, without the versions between which it holds."""
    version = Level.objects.get(key=level_key).published
    return {doc["entry_id"]: content_of(doc) for doc in verdicts_of_level(level_key, version)}


def _stage(lab: Lab) -> None:
    """A published hull, and after it two new entries, a retraction and a re-correction that wait."""
    lab.empty()
    for formula in ("Mg", "Si", "Mg3Si", "MgSi"):
        lab.enter(formula)
    update_all()
    lab.enter("Mg2Si")
    lab.enter("Mg5Si", -1.4)
    lab.declare("Mg5Si", CandidateState.LANDED, Role.CANDIDATE)
    lab.declare("Mg3Si", CandidateState.VERIFIED, Role.CANDIDATE)
    Entry.objects(entry_id="entry-Mg3Si-fast").update(
        set__retracted=True, set__retraction="wrong", unset__hull_sequence=True
    )
    Entry.objects(entry_id="entry-MgSi-fast").update(
        set__energy_eV_per_atom=-2.35, inc__recorrections=1, unset__hull_sequence=True
    )


def _finished(lab: Lab, expected: dict[str, Any]) -> None:
    """Everything is published, proved, and told to entries and candidates."""
    assert _said(lab.key) == expected
    report = audit_level(lab.key)
    assert report.ok, report.problems
    assert all(version.same for version in replay(lab.key))
    heard = {entry.entry_id: entry.hull_sequence for entry in Entry.objects}
    last = {e.entry_id: e.sequence for e in HullEvent.objects(entry_id__ne=None).order_by("sequence")}
    assert heard.keys() == last.keys()
    assert all(heard[name] >= last[name] for name in heard)
    states = {candidate.name: candidate.state for candidate in Candidate.objects}
    assert states == {"Mg5Si": CandidateState.VERIFIED, "Mg3Si": CandidateState.FAILED}


def test_a_writer_killed_at_any_write_is_completed_by_the_next(lab: Lab, writes: Writes) -> None:
    """Between any two writes, and in the middle of one that has many documents; nothing is done twice."""
    _stage(lab)
    lab.restart()
    writes.count = 0
    update_level(lab.key)
    expected, total = _said(lab.key), writes.count
    assert total > 8
    for number in range(1, total + 1):
        writes.let()
        _stage(lab)
        before = _said(lab.key)
        lab.restart()
        writes.kill_at(number)
        with pytest.raises(KeyboardInterrupt):
            update_level(lab.key)
        writes.let()
        assert _said(lab.key) in (before, expected), f"half a version is readable after a kill at write {number}"
        lab.restart()
        update_all()
        _finished(lab, expected)


def test_a_writer_that_is_overtaken_at_any_write_does_no_harm(lab: Lab, writes: Writes) -> None:
    """Its lease ran out without its noticing; another publishes, and more entries; then it goes on with its own."""
    _stage(lab)
    update_all()
    lab.enter("Mg7Si", -1.2)
    update_all()
    expected = _said(lab.key)
    for number in range(2, 50):
        writes.let()
        _stage(lab)
        lab.restart()

        def overtake() -> None:
            lab.restart()
            update_all()
            lab.enter("Mg7Si", -1.2)
            update_all()

        writes.interrupt_at(number, overtake)
        update_level(lab.key)
        writes.let()
        if not Entry.objects(entry_id="entry-Mg7Si-fast"):
            assert number > 8, "the writer had ended before"
            break
        lab.restart()
        update_all()
        _finished(lab, expected)


WRITER = """
import sys
from hullworks.database import connect
from hullworks.settings import load_settings
from hullworks.analysis.stability import update_all
connect(load_settings(), create=False)
for _ in range(40):
    update_all()
"""


@pytest.mark.timeout(120)
def test_two_writers_at_once_make_one_history(lab: Lab, mongod: Settings) -> None:
    """While a third process stores entries; every entry is judged, once, and all numbers hold."""
    for formula in ("Mg", "Si"):
        lab.enter(formula)
    update_all()
    writers = [subprocess.Popen([sys.executable, "-c", WRITER], cwd=mongod.project_dir) for _ in range(2)]
    for n in range(2, 22):
        lab.enter(f"Mg{n}Si", -1.0 - 4.0 / (n + 1))
        update_all()
    assert [writer.wait() for writer in writers] == [0, 0]
    update_all()
    events = list(HullEvent.objects(level_key=lab.key).order_by("sequence"))
    assert [event.sequence for event in events] == list(range(1, 24))
    assert len(lab.kinds()) == 22
    assert audit_level(lab.key).ok


def _other_energies(engine: ConvexHull) -> ConvexHull:
    return ConvexHull(engine.compositions, [-1.0, -4.0, -2.9, -2.3, -1.8])


def _one_more(engine: ConvexHull) -> ConvexHull:
    engine.add(["Mg2Si"], [-9.0])
    return engine


@pytest.mark.parametrize("rot", [_other_energies, _one_more])
def test_a_hull_that_rotted_in_memory_is_built_anew(lab: Lab, rot: Callable[[ConvexHull], ConvexHull]) -> None:
    """The audit before publication notices, the events know better, and nobody else needs to."""
    lab.enter_all()
    update_all()
    hull = WRITERS.take(lab.key, 6)
    hull.engine = rot(hull.engine)
    WRITERS.give_back(hull)
    lab.enter("Mg5Si", -1.4)
    assert update_all()["versions"] == 1
    assert audit_level(lab.key).ok
    assert lab.kinds()["MgSi"] == "unstable"


def test_an_engine_that_is_wrong_publishes_nothing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last good version stays readable, the level says what is wrong, and a repair resumes."""
    from hullworks.analysis.resident import LevelHull

    lab.enter_all()
    update_all()
    good = _said(lab.key)
    original = LevelHull._enlist

    def wrong(self: LevelHull, events: Any) -> Any:  # noqa: ANN401
        compositions, energies = original(self, events)
        return compositions, energies * 1.01

    monkeypatch.setattr(LevelHull, "_enlist", wrong)
    lab.enter("Mg5Si", -1.4)
    with pytest.raises(HullError, match=r"nothing more is published.*audit --repair"):
        update_level(lab.key)
    with pytest.raises(HullError, match="nothing more is published"):
        update_level(lab.key)
    assert update_all()["halted"] == 1
    assert _said(lab.key) == good
    level = Level.objects.get(key=lab.key)
    assert (level.published, level.halted["version"]) == (6, 7)
    assert "no mixture" in level.halted["evidence"][0]
    assert StoredVerdict.objects(since__gt=6).count() == 0
    monkeypatch.undo()
    assert repair_level(lab.key)["versions"] == 1
    assert lab.kinds()["Mg5Si"] == "unstable"
    assert not Level.objects.get(key=lab.key).halted


def test_something_else_under_the_same_key_stops_publication(lab: Lab) -> None:
    """A verdict of the next version that says another thing is not taken for a repetition."""
    lab.enter_all()
    update_all()
    lab.enter("Mg5Si", -1.4)
    foreign = StoredVerdict.collection().find_one({"entry_id": "entry-MgSi-fast"})
    assert foreign is not None
    del foreign["_id"]
    StoredVerdict.collection().insert_one({**foreign, "entry_id": "entry-Mg5Si-fast", "since": 7})
    with pytest.raises(HullError, match="another verdict on entry-Mg5Si-fast is there"):
        update_level(lab.key)
    assert repair_level(lab.key)["versions"] == 1
    assert lab.kinds()["Mg5Si"] == "unstable"


def test_the_database_itself_keeps_levels_apart(lab: Lab) -> None:
    """Behind the documents' back, too: no second level can add an entry, or have a verdict on it that holds."""
    lab.enter_all()
    update_all()
    event = HullEvent.collection().find_one({"entry_id": "entry-MgSi-fast"}, {"_id": 0})
    verdict = StoredVerdict.collection().find_one({"entry_id": "entry-MgSi-fast"}, {"_id": 0})
    assert event is not None
    assert verdict is not None
    with pytest.raises(DuplicateKeyError):
        HullEvent.collection().insert_one({**event, "level_key": lab.other, "sequence": 1})
    for since in (verdict["since"], 99):
        with pytest.raises(DuplicateKeyError):
            StoredVerdict.collection().insert_one(
                {**verdict, "level_key": lab.other, "since": since, "until": OPEN_END}
            )


def test_versions_are_chained(lab: Lab) -> None:
    """Each names the one before, and the lease of an ended writer is free."""
    for formula in ("Mg", "Si", "MgSi"):
        lab.enter(formula)
        update_all()
    pairs = [(version.previous, version.version) for version in HullVersion.objects.order_by("version")]
    assert pairs == [(0, 2), (2, 3), (3, 4)]
    assert Lease.objects.count() == 0
