"""States: the table of moves."""

from __future__ import annotations

import pytest

from hullworks.errors import StateError
from hullworks.states import (
    FINAL,
    IN_FLIGHT,
    MOVES,
    OPEN,
    OPEN_JOBS,
    CandidateState,
    QueueJobState,
    check_move,
    sources_of,
)

S = CandidateState


def test_every_state_has_a_row_and_a_meaning() -> None:
    """The table is complete, and the docstring explains each member."""
    assert set(MOVES) == set(S)
    assert all(f"{state.name}:" in (S.__doc__ or "") for state in S)


def test_every_open_state_can_reach_verified_and_failed() -> None:
    """No candidate can get stuck by construction."""
    for state in OPEN | {S.PAUSED}:
        assert {S.VERIFIED, S.FAILED} <= _reachable(state)


def _reachable(start: CandidateState) -> set[CandidateState]:
    seen: set[CandidateState] = set()
    waiting = [start]
    while waiting:
        state = waiting.pop()
        if state not in seen:
            seen.add(state)
            waiting += MOVES[state]
    return seen


def test_quarantine_and_duplicates_are_for_ever() -> None:
    """A row that is no crystal never becomes one; submit a mended row instead."""
    assert not MOVES[S.QUARANTINED]
    assert not MOVES[S.DUPLICATE]


def test_the_named_sets_partition_the_states() -> None:
    """Open, final and paused do not overlap, and nothing is left out."""
    assert IN_FLIGHT < OPEN
    assert OPEN | FINAL | {S.PAUSED} == set(S)
    assert not OPEN & FINAL


def test_a_forbidden_move_says_what_is_allowed() -> None:
    """The error names the states that may follow."""
    with pytest.raises(StateError, match=r"a verified candidate cannot become queued.*failed"):
        check_move(S.VERIFIED, S.QUEUED, "cand-1")
    check_move(S.QUEUED, S.SUBMITTED)


def test_sources_are_the_table_read_backwards() -> None:
    """`sources_of` agrees with the table for every pair."""
    assert all((old in sources_of(new)) == (new in MOVES[old]) for old in S for new in S)


def test_every_state_of_a_queue_job_has_a_meaning() -> None:
    """And those in which the queue may have it are named."""
    assert all(f"{state.name}:" in (QueueJobState.__doc__ or "") for state in QueueJobState)
    assert set(QueueJobState) - OPEN_JOBS == {
        QueueJobState.ENDED,
        QueueJobState.REJECTED,
        QueueJobState.NEVER_SUBMITTED,
    }
