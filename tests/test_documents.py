"""Documents: compare-and-set moves, unique keys, schema versions, leases; on a real MongoDB."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest
from mongoengine.errors import NotUniqueError, ValidationError

from hullworks.database import connect
from hullworks.documents import DOCUMENTS, Candidate, Entry, HullEvent, SchemaInfo
from hullworks.errors import DatabaseError, StateError
from hullworks.leases import lease
from hullworks.states import CandidateState

if TYPE_CHECKING:
    from hullworks.settings import Settings

pytestmark = pytest.mark.usefixtures("mongod")
S = CandidateState


def _candidate(name: str = "cand-1", state: CandidateState = S.QUEUED) -> Candidate:
    candidate = Candidate(
        candidate_id=name, row_id=f"row-{name}", batch="b", level_key="l", source_file="f", source_row=1, state=state
    )
    candidate.save(force_insert=True)
    return candidate


def test_a_move_is_stored_with_time_and_reason() -> None:
    """The history tells old and new state and why."""
    _candidate()
    moved = Candidate.move("cand-1", S.SUBMITTED, "fed", workflow_id=7)
    assert moved.state is S.SUBMITTED
    assert moved.workflow_id == 7
    assert [(m.old, m.new, m.reason) for m in Candidate.objects.get().history] == [(S.QUEUED, S.SUBMITTED, "fed")]
    assert moved.state_since == moved.history[0].at


def test_a_forbidden_move_changes_nothing() -> None:
    """Neither state nor history nor the other fields."""
    _candidate(state=S.VERIFIED)
    with pytest.raises(StateError, match="verified"):
        Candidate.move("cand-1", S.QUEUED, workflow_id=7)
    stored = Candidate.objects.get()
    assert (stored.state, stored.history, stored.workflow_id) == (S.VERIFIED, [], None)


def test_a_move_meant_from_one_state_is_refused_from_another() -> None:
    """Although the table would allow it."""
    _candidate(state=S.FAILED)
    with pytest.raises(StateError, match="meant from running"):
        Candidate.move("cand-1", S.LANDED, only_from={S.RUNNING})
    with pytest.raises(StateError, match="no such candidate"):
        Candidate.move("cand-2", S.LANDED)


def test_of_many_movers_exactly_one_wins() -> None:
    """Sixteen threads at once: one move, one line of history, fifteen refusals."""
    _candidate()
    won: list[int] = []
    gate = threading.Barrier(16)

    def mover(number: int) -> None:
        gate.wait()
        try:
            Candidate.move("cand-1", S.SUBMITTED, str(number), only_from={S.QUEUED})
        except StateError:
            return
        won.append(number)

    threads = [threading.Thread(target=mover, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert [move.reason for move in Candidate.objects.get().history] == [str(won[0])]


def test_the_database_itself_keeps_keys_unique() -> None:
    """A second row id, a second entry of one calculation, a second event of one number are refused."""
    _candidate()
    with pytest.raises(NotUniqueError):
        Candidate(
            candidate_id="cand-2",
            row_id="row-cand-1",
            batch="b",
            level_key="l",
            source_file="f",
            source_row=2,
            state=S.QUEUED,
        ).save(force_insert=True)
    event = {"level_key": "l", "kind": "entry_added", "chemsys": "Mg"}
    HullEvent(sequence=1, token="1", entry_id="e1", **event).save(force_insert=True)
    for sequence, token, entry_id in ((1, "2", "e2"), (2, "1", "e2"), (2, "2", "e1")):
        with pytest.raises(NotUniqueError):
            HullEvent(sequence=sequence, token=token, entry_id=entry_id, **event).save(force_insert=True)


def test_an_entry_without_its_level_cannot_be_stored() -> None:
    """The fence is in the schema too."""
    with pytest.raises(ValidationError, match="level_key"):
        Entry(entry_id="e", calculation_id="c").save()


def test_every_document_declares_version_and_indexes() -> None:
    """Each collection has a schema version, and its declared indexes exist after connecting."""
    for document in DOCUMENTS:
        assert "schema_version" in document._fields
        wanted = len(document._get_collection().index_information())
        assert wanted >= 1 + len(document._meta["indexes"])


def test_documents_of_another_schema_version_are_refused(mongod: Settings) -> None:
    """A newer or older database is not written to by accident."""
    SchemaInfo.objects.update_one(set__version=99)
    with pytest.raises(DatabaseError, match="schema version 99"):
        connect(mongod)


def test_a_lease_is_held_by_one_and_ends_by_itself() -> None:
    """A second taker gets nothing while it lasts, also when the holder was killed; then it may."""
    with lease("x", 60) as held:
        assert held
        with lease("x", 60) as second:
            assert not second
    with lease("x", 60) as again:
        assert again
    killed = lease("y", 0.05)
    assert killed.__enter__()
    time.sleep(0.1)
    with lease("y", 60) as heir:
        assert heir


def test_a_lease_can_be_kept_and_its_loss_is_noticed() -> None:
    """It is renewed when little of it is left; a holder that slept too long is told that another has it."""
    with lease("x", 0.4) as held:
        first = held.deadline
        held.keep()
        assert held.deadline == first, "more than half is left"
        time.sleep(0.25)
        held.keep()
        assert held.left_s > 0.3
        time.sleep(0.5)
        with lease("x", 60) as heir:
            assert heir
            with pytest.raises(StateError, match="another process has it"):
                held.keep()
    with lease("x", 60) as again:
        assert again, "what was lost is not given up a second time"


def test_many_candidates_are_moved_at_once_and_each_by_its_state() -> None:
    """Those in another state stay; a move that the table does not have is refused for all."""
    for name, state in (("a", S.LANDED), ("b", S.LANDED), ("c", S.FAILED)):
        _candidate(name, state)
    assert Candidate.move_many(S.LANDED, S.VERIFIED, {"a": "stable", "b": "unstable", "c": "stable"}) == 2
    assert {c.candidate_id: (c.state, [m.reason for m in c.history]) for c in Candidate.objects} == {
        "a": (S.VERIFIED, ["stable"]),
        "b": (S.VERIFIED, ["unstable"]),
        "c": (S.FAILED, []),
    }
    assert Candidate.move_many(S.LANDED, S.VERIFIED, {}) == 0
    with pytest.raises(StateError, match="cannot become"):
        Candidate.move_many(S.VERIFIED, S.LANDED, {"a": "why"})


def test_an_unreachable_server_is_reported_without_the_password(mongod: Settings) -> None:
    """The error says what to do and keeps the secret."""
    from pydantic import SecretStr

    uri = SecretStr("mongodb://u:hush@127.0.0.1:9/")
    settings = mongod.model_copy(update={"database": mongod.database.model_copy(update={"uri": uri})})
    with pytest.raises(DatabaseError, match="does not answer") as caught:
        connect(settings, wait_s=0.2)
    assert "hush" not in str(caught.value)
    connect(mongod)
