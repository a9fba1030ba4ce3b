"""Pause, resume, cancel, retry: what a user wants of candidates, as one operation that may be cut short and repeated.

What the user wants is the candidates' state, set in bulk by compare-and-set. All else follows from it: fireworks are
held, jobs of the queue are ended, running runs are stopped; at once by the operation itself, and by whoever reconciles
next if it was cut short.
"""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Final

from hullworks.errors import QueueAwayError, StateError
from hullworks.launchers.bookkeeping.queue_view import cancel_by_name
from hullworks.launchers.bookkeeping.records import TAKEN, Move
from hullworks.launchers.bookkeeping.runs import HELD
from hullworks.states import IN_FLIGHT, MOVES, OPEN_JOBS, CandidateState, QueueJobState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from hullworks.launchers.bookkeeping.look import Ports
    from hullworks.launchers.bookkeeping.records import Case, Job, PadRun
    from hullworks.launchers.bookkeeping.stores import Book

S = CandidateState

CHUNK: Final = 1000
"""Candidates of one command to the database."""

FROM: Final = {
    "pause": frozenset({S.QUEUED, *IN_FLIGHT}),
    "resume": frozenset({S.PAUSED}),
    "cancel": frozenset({S.QUEUED, S.PAUSED, *IN_FLIGHT}),
    "retry": frozenset({S.FAILED, S.CANCELLED}),
}
"""The states that each operation is meant for; candidates in others are left as they are."""

_TO: Final = {"pause": S.PAUSED, "resume": S.QUEUED, "cancel": S.CANCELLED, "retry": S.QUEUED}


def pause(ports: Ports, *, batch: str | None = None, candidates: Sequence[str] = ()) -> Counter[str]:
    """Hold candidates back: what waits does not start, what runs is stopped at its next checkpoint and kept.

    Args:
        ports: What to work on.
        batch: All candidates of this batch.
        candidates: These candidates.

    Returns:
        How many candidates were moved, fireworks held and jobs ended; all 0 when it was done before.
    """
    return _operate(ports, "pause", batch, candidates)


def resume(ports: Ports, *, batch: str | None = None, candidates: Sequence[str] = ()) -> Counter[str]:
    """Let paused candidates go on, from where they were; arguments and result as of `pause`."""
    return _operate(ports, "resume", batch, candidates)


def cancel(ports: Ports, *, batch: str | None = None, candidates: Sequence[str] = ()) -> Counter[str]:
    """Give candidates up; arguments and result as of `pause`."""
    return _operate(ports, "cancel", batch, candidates)


def retry(ports: Ports, *, batch: str | None = None, candidates: Sequence[str] = ()) -> Counter[str]:
    """Try failed and cancelled candidates again, with a fresh budget; arguments and result as of `pause`."""
    return _operate(ports, "retry", batch, candidates)


def _operate(ports: Ports, what: str, batch: str | None, candidates: Sequence[str]) -> Counter[str]:
    """Move the candidates, then let follow what follows from it."""
    done: Counter[str] = Counter()
    new, why = _TO[what], f"its user's {what}"
    for cases in _chunks(_selected(ports.book, FROM[what], batch, candidates)):
        moves = [Move(case, new, why, fresh_budget=what == "retry") for case in cases if new in MOVES[case.state]]
        done["candidates"] += ports.book.move(moves)
        if new in HELD:
            done["fireworks held"] += ports.pad.hold([case.calculation_id for case in cases], HELD[new])
    if new in HELD:
        try:
            done["jobs ended"] += withdraw(ports)
        except QueueAwayError as error:
            raise StateError(
                f"done but for jobs in the queue, which does not answer ({error.what})", "", "Repeat it later."
            ) from error
    return +done


def _selected(
    book: Book, states: frozenset[CandidateState], batch: str | None, candidates: Sequence[str]
) -> Iterator[Case]:
    """Yield what is selected and in these states."""
    if batch is not None:
        yield from book.cases(states, batch=batch)
    if candidates:
        yield from (case for case in book.cases_of(candidates).values() if case.state in states)


def _chunks(cases: Iterable[Case]) -> Iterator[list[Case]]:
    rest = iter(cases)
    while chunk := list(islice(rest, CHUNK)):
        yield chunk


def runs_to_stop(book: Book, candidate_ids: Iterable[str]) -> set[str]:
    """Return those of these candidates whose runs are to stop cleanly; every worker asks for what it has in hand."""
    cases = book.cases_of(set(candidate_ids))
    return {name for name, case in cases.items() if case.state in HELD}


def withdraw(ports: Ports) -> int:
    """End the queue's jobs that nobody needs: of single runs that are held, or are not reserved for them any more.

    Jobs that many runs share go on; their workers stop the runs that are held.

    Returns:
        How many jobs the queue was asked to end.

    Raises:
        QueueAwayError: The queue did not answer.
    """
    queue = ports.queue
    jobs = [job for job in ports.book.jobs(OPEN_JOBS) if job.fw_ids and job.state is not QueueJobState.PLANNED]
    if queue is None or not jobs:
        return 0
    runs = {run.fw_id: run for run in ports.pad.runs_of([fw_id for job in jobs for fw_id in job.fw_ids])}
    held = runs_to_stop(ports.book, {run.candidate_id for run in runs.values()})
    names = {job.name for job in jobs if not any(_needs(job, runs.get(fw_id), held) for fw_id in job.fw_ids)}
    return cancel_by_name(queue, names)


def _needs(job: Job, run: PadRun | None, held: set[str]) -> bool:
    """Return whether a run still needs the job that was submitted for it."""
    if run is None or run.candidate_id in held:
        return False
    if job.state is QueueJobState.RUNNING:
        return True  # it has begun: its worker knows what it has in hand
    return run.state in TAKEN and run.launch is not None and run.launch.worker_id == job.name
