"""States of candidates and of queue jobs: what each means, and the one table of a candidate's allowed moves."""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from hullworks.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Mapping


class CandidateState(StrEnum):
    """Where a candidate stands.

    REJECTED: screened out before any DFT (unphysical cell, above the policy's energy window); the reason is stored.
    DUPLICATE: the same crystal as another candidate or entry, which it names.
    QUARANTINED: the row could not be read as a crystal; row and reason are stored.
    QUEUED: accepted and waiting for its turn.
    SUBMITTED: its graph is on the LaunchPad, or about to be.
    RUNNING: a worker has started its graph.
    LANDED: its entry is stored, its verdict not yet made.
    VERIFIED: it has a verdict at its level.
    FAILED: its graph ended without an entry; the cause is stored.
    PAUSED: held back by its user.
    CANCELLED: given up by its user.
    """

    REJECTED = "rejected"
    DUPLICATE = "duplicate"
    QUARANTINED = "quarantined"
    QUEUED = "queued"
    SUBMITTED = "submitted"
    RUNNING = "running"
    LANDED = "landed"
    VERIFIED = "verified"
    FAILED = "failed"
    PAUSED = "paused"
    CANCELLED = "cancelled"


_S = CandidateState

MOVES: Final[Mapping[CandidateState, frozenset[CandidateState]]] = MappingProxyType(
    {
        _S.REJECTED: frozenset({_S.QUEUED}),
        _S.DUPLICATE: frozenset(),
        _S.QUARANTINED: frozenset(),
        _S.QUEUED: frozenset({_S.SUBMITTED, _S.LANDED, _S.REJECTED, _S.DUPLICATE, _S.PAUSED, _S.CANCELLED}),
        _S.SUBMITTED: frozenset({_S.QUEUED, _S.RUNNING, _S.LANDED, _S.FAILED, _S.PAUSED, _S.CANCELLED}),
        _S.RUNNING: frozenset({_S.SUBMITTED, _S.LANDED, _S.FAILED, _S.PAUSED, _S.CANCELLED}),
        _S.LANDED: frozenset({_S.VERIFIED, _S.FAILED}),
        _S.VERIFIED: frozenset({_S.FAILED}),
        _S.FAILED: frozenset({_S.QUEUED, _S.LANDED, _S.CANCELLED}),
        _S.PAUSED: frozenset({_S.QUEUED, _S.SUBMITTED, _S.RUNNING, _S.LANDED, _S.FAILED, _S.CANCELLED}),
        _S.CANCELLED: frozenset({_S.QUEUED}),
    }
)
"""From a state to the states that may follow it. LANDED and VERIFIED may become FAILED when an entry is retracted; a
late result may still land on a FAILED one, and a run that was under way when its candidate was PAUSED still ends."""

IN_FLIGHT: Final = frozenset({_S.SUBMITTED, _S.RUNNING})
"""Has, or is about to have, a graph on the LaunchPad."""

OPEN: Final = frozenset({_S.QUEUED, _S.SUBMITTED, _S.RUNNING, _S.LANDED})
"""Work is still owed."""

FINAL: Final = frozenset(_S) - OPEN - {_S.PAUSED}
"""Nothing more happens without a user."""


def check_move(old: CandidateState, new: CandidateState, where: str = "") -> None:
    """Raise `StateError` unless a candidate may move from ``old`` to ``new``."""
    if new not in MOVES[old]:
        allowed = ", ".join(sorted(MOVES[old])) or "nothing"
        raise StateError(f"a {old} candidate cannot become {new}", where, f"From {old} it may become: {allowed}.")


def sources_of(new: CandidateState) -> frozenset[CandidateState]:
    """Return the states from which a candidate may move to ``new``."""
    return frozenset(old for old, targets in MOVES.items() if new in targets)


class Cause(StrEnum):
    """Why a run ended; one per ended run.

    CONVERGED: the code finished and its result meets the protocol's thresholds.
    CODE_ERROR: the code ended without a usable result; the outcome names the error.
    WALLTIME: the time of the run or of its allocation was over.
    OUT_OF_MEMORY: the operating system or the queue killed it for its memory.
    NODE_FAILURE: the machine that it ran on failed.
    PREEMPTED: the queue took its place away.
    CANCELLED: its user stopped it.
    LOST: its worker died or vanished without a word.
    INVALID: the run converged, but its result does not meet the rules for an entry.
    """

    CONVERGED = "converged"
    CODE_ERROR = "code_error"
    WALLTIME = "walltime"
    OUT_OF_MEMORY = "out_of_memory"
    NODE_FAILURE = "node_failure"
    PREEMPTED = "preempted"
    CANCELLED = "cancelled"
    LOST = "lost"
    INVALID = "invalid"


class QueueJobState(StrEnum):
    """Where a job of the batch system stands in the books.

    PLANNED: its name is written down; it is about to be handed over, or was and nobody noted it.
    SUBMITTED: the queue holds it, waiting.
    RUNNING: it has its nodes.
    ENDED: it is over; how is noted with it.
    REJECTED: the queue did not take it, and said why.
    NEVER_SUBMITTED: it was planned, and the queue has never heard of it.
    """

    PLANNED = "planned"
    SUBMITTED = "submitted"
    RUNNING = "running"
    ENDED = "ended"
    REJECTED = "rejected"
    NEVER_SUBMITTED = "never_submitted"


OPEN_JOBS: Final = frozenset({QueueJobState.PLANNED, QueueJobState.SUBMITTED, QueueJobState.RUNNING})
"""Jobs that the queue has, or may have."""


class Role(StrEnum):
    """What an entry is for.

    REFERENCE: an element or a known competing phase that anchors a hull; its absence makes verdicts indeterminate.
    CANDIDATE: a proposed crystal whose stability is in question.
    """

    REFERENCE = "reference"
    CANDIDATE = "candidate"
