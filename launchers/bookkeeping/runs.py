"""Runs that somebody has in hand, and runs that failed: is there still somebody, why did it end, what follows."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from hullworks.launchers.bookkeeping.causes import (
    Remedy,
    Verdict,
    cause_of,
    had_resources,
    remedy_for,
)
from hullworks.launchers.bookkeeping.ports import EndedJob, JobEnd
from hullworks.launchers.bookkeeping.queue_view import is_later_start, look_at_queue
from hullworks.launchers.bookkeeping.records import TAKEN, EndedRun, Resources
from hullworks.states import OPEN_JOBS, CandidateState, Cause

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hullworks.launchers.bookkeeping.look import Look
    from hullworks.launchers.bookkeeping.queue_view import QueueView
    from hullworks.launchers.bookkeeping.records import Case, Job, Launch, PadRun, WorkerMark

HELD = {CandidateState.PAUSED: "PAUSED", CandidateState.CANCELLED: "DEFUSED"}
"""What becomes of the workflow of a candidate that its user holds back, or has given up."""

GOOD_END = Verdict(Cause.CONVERGED, "completed")
"""A step that ended well and wrote nothing about itself, such as landing."""


@dataclass(frozen=True)
class Loss:
    """A run that nobody has in hand any more.

    Attributes:
        why: How that is known.
        end: How its queue job ended, none outside a queue.
    """

    why: str
    end: EndedJob | None = None


@dataclass
class Hands:
    """What somebody has in hand at one look, and who.

    Attributes:
        runs: Fireworks that are reserved or running.
        workers: Who has them.
        queue: What the queue says; none when nothing is known.
    """

    runs: list[PadRun]
    workers: dict[str, WorkerMark] = field(default_factory=dict)
    queue: QueueView | None = None


def look_at_hands(look: Look) -> Hands:
    """Return what is in hand; first the runs, then who has them, then what the queue says: so nothing is missed."""
    runs = look.ports.pad.runs(TAKEN)
    names = {run.launch.worker_id for run in runs if run.launch is not None}
    workers = look.ports.book.workers(names)
    return Hands(runs, workers, look_at_queue(look, workers.values()))


def check_hands(look: Look, hands: Hands) -> None:
    """Put right what is said to be in hand and is not."""
    for run in hands.runs:
        if run.fw_id not in look.locked:
            _check_taken(look, run, hands)


def _check_taken(look: Look, run: PadRun, hands: Hands) -> None:
    """Put one run right that is said to be in hand."""
    if run.launch is None:
        # Killed between taking it and noting the launch. What stands here was written by whoever took it, and is
        # written anew when he goes on.
        if look.doubt(f"taken, not launched: {run.fw_id} {run.updated_at.isoformat()}", look.ports.patience.grace_s):
            look.done["lost"] += look.ports.pad.give_back(run)
    elif run.launch.state == "RESERVED":
        _check_reserved(look, run, run.launch, hands.queue)
    elif run.launch.state != "RUNNING":
        # Killed between the end of the launch and the refresh of its workflow: the result is there, only not noted.
        look.done["refreshed" if look.ports.pad.refresh(run.fw_id) else "unreadable"] += 1
    else:
        loss = _loss(look, run, run.launch, hands)
        if loss is not None and look.ports.pad.take_up(run):
            look.done["taken up"] += 1
        elif loss is not None:
            settle_lost(look, run, loss, hands)


def _check_reserved(look: Look, run: PadRun, launch: Launch, queue: QueueView | None) -> None:
    """Give a reservation back whose job will never come."""
    pad = look.ports.pad
    job = look.ports.book.jobs_of([launch.worker_id]).get(launch.worker_id)
    if job is None:
        # Ours are planned before anything is reserved for them: this is of a stock `qlaunch`.
        if look.is_older(launch.last_sign, look.ports.patience.stock_reservation_s):
            look.done["reservations given back"] += pad.give_back(run)
    elif job.state not in OPEN_JOBS and not (queue is not None and queue.live.get(job.name)):
        look.done["reservations given back"] += pad.give_back(run)


def _loss(look: Look, run: PadRun, launch: Launch, hands: Hands) -> Loss | None:
    """Return why a run is lost; none while it lives, or while that is not known."""
    worker = hands.workers.get(launch.worker_id)
    if worker is None:
        return _silence(look, run, launch)
    if worker.job:
        return _loss_in_queue(look, run, launch, worker, hands.queue)
    lives = look.ports.site.lives(worker)
    if lives is None:
        return _silence(look, run, launch)
    return None if lives else Loss("its worker process is gone")


def _loss_in_queue(look: Look, run: PadRun, launch: Launch, worker: WorkerMark, queue: QueueView | None) -> Loss | None:
    """Return why a run in a queue job is lost: when its job has ended, not when it is silent for a while."""
    if queue is None:
        return None
    live = queue.live_of(worker)
    if live is None:
        end = queue.end_of(worker)
        if end is not None and end.end is not JobEnd.GONE:
            return Loss("its queue job has ended", end)
        # A controller that crashed forgets jobs that go on: only the run's own silence can tell then.
        return _silence(look, run, launch)
    if is_later_start(live, worker.started_at, look.ports.patience.clock_skew_s):
        # The queue starts a job anew when its node failed or when it was preempted; the accounting may know which.
        return Loss("the queue has started its job anew", queue.end_of(worker))
    return _silence(look, run, launch)


def _silence(look: Look, run: PadRun, launch: Launch) -> Loss | None:
    """Return a loss when a run was silent for too long, and stayed so while the database was there to be told."""
    limit = look.ports.lost_after_s
    if not look.is_older(launch.last_sign, limit):
        return None
    patience_s = min(limit, look.ports.patience.silence_s)
    sign = launch.last_sign.isoformat()
    if look.doubt(f"silent: {run.fw_id} {launch.launch_id} {sign}", patience_s):
        return Loss(f"it was silent for more than {limit:.0f} s")
    return None


def settle_lost(look: Look, run: PadRun, loss: Loss, hands: Hands) -> None:
    """Record a lost run, and start its step again within its budget; else fail it."""
    if run.launch is None:
        return
    ports = look.ports
    report = ports.site.report(run.launch.directory)
    verdict = cause_of(run.launch, report, loss.end, loss.why, ports.rules)
    case = ports.book.cases_of([run.candidate_id]).get(run.candidate_id)
    held = HELD.get(case.state) if case is not None else None
    remedy = _settle(look, run, verdict, report, hands, case)
    if held is not None:
        look.done["held"] += ports.pad.give_back(run, held)
    elif remedy.again:
        look.done["lost"] += ports.pad.give_back(run)
    else:
        look.done["given up"] += ports.pad.fizzle(run)


def _settle(
    look: Look, run: PadRun, verdict: Verdict, report: Mapping[str, Any], hands: Hands, case: Case | None
) -> Remedy:
    """Record an ended run, once, and return what follows; noted with its candidate when it is started again.

    Killed between any two steps, the next look comes to the same: a run is counted once, and so is its remedy.
    """
    book = look.ports.book
    job = _job_of(run, hands)
    ended = ended_run(look, run, verdict, report, job)
    book.record(ended)
    since = None if case is None else case.budget_since
    known = Resources() if case is None else case.resources
    failures = book.failures(run.candidate_id, run.step, since)
    remedy = remedy_for(verdict, failures, had_resources(job, look.ports.rules), known, look.ports.rules)
    if remedy.again:
        book.remedy(ended, remedy.resources, remedy.why)
    return remedy


def _job_of(run: PadRun, hands: Hands) -> Job | None:
    worker = hands.workers.get(run.launch.worker_id) if run.launch is not None else None
    if worker is None or not worker.job or hands.queue is None:
        return None
    return hands.queue.jobs.get(worker.job)


def ended_run(look: Look, run: PadRun, verdict: Verdict, report: Mapping[str, Any], job: Job | None) -> EndedRun:
    """Return what is stored of an ended run; its launch must be known."""
    launch = run.launch
    assert launch is not None  # noqa: S101 - callers have looked; this tells the type checker
    return EndedRun(
        launch_id=launch.launch_id,
        fw_id=run.fw_id,
        candidate_id=run.candidate_id or "unknown",
        calculation_id=run.calculation_id or "unknown",
        step=run.step,
        worker_id=launch.worker_id,
        job="" if job is None else job.name,
        host=launch.host,
        directory=launch.directory,
        cause=verdict.cause,
        outcome=verdict.outcome,
        evidence=verdict.evidence,
        ended_at=look.ports.clock.now(),
        report=report,
    )


def settle_failed(look: Look, run: PadRun, case: Case, hands: Hands) -> tuple[Verdict, Remedy] | None:
    """Record a run that its worker called failed, and start its step again when that is the remedy.

    Returns:
        Why it failed and what follows, when its candidate is to fail; none when it goes on, or must wait until the
        queue has told the cause.
    """
    if run.launch is None:
        return None
    ports = look.ports
    report = ports.site.report(run.launch.directory)
    stored = ports.book.recorded([run.launch.launch_id]).get(run.launch.launch_id)
    verdict = Verdict(*stored) if stored is not None else _verdict_of_failed(look, run.launch, report, hands)
    if verdict is None:
        return None
    remedy = _settle(look, run, verdict, report, hands, case)
    if not remedy.again:
        return verdict, remedy
    look.done["started again"] += ports.pad.give_back(run)
    return None


def _verdict_of_failed(look: Look, launch: Launch, report: Mapping[str, Any], hands: Hands) -> Verdict | None:
    """Return why a run failed that its worker called so; none when the queue is about to know better."""
    own = cause_of(launch, report, None, rules=look.ports.rules)
    worker = hands.workers.get(launch.worker_id)
    if worker is None or not worker.job or own.outcome not in look.ports.rules.ended_from_outside:
        return own
    patience = look.ports.patience
    if hands.queue is None or hands.queue.live_of(worker) is not None:
        # Its job may be about to end: what ends a job ends its runs some seconds before.
        return own if look.doubt(f"failed from outside: {launch.launch_id}", patience.together_s) else None
    end = hands.queue.end_of(worker)
    if end is None:
        return own if look.doubt(f"failed in no job: {launch.launch_id}", patience.forgotten_s) else None
    if end.ended_at is not None and end.ended_at - launch.last_sign > timedelta(seconds=patience.together_s):
        return own
    return cause_of(launch, report, end, rules=look.ports.rules)


def record_finished(look: Look) -> None:
    """Store the runs that ended well since the last look."""
    pad, book = look.ports.pad, look.ports.book
    finished = pad.finished()
    for run in finished:
        if run.calculation_id and run.launch is not None:
            report = look.ports.site.report(run.launch.directory)
            verdict = cause_of(run.launch, report, None, rules=look.ports.rules) if report else GOOD_END
            book.record(ended_run(look, run, verdict, report, None))
            look.done["runs"] += 1
    if finished:
        pad.note_recorded([run.launch.launch_id for run in finished if run.launch is not None])


def failed_workers(look: Look, hands: Hands, runs: list[PadRun]) -> None:
    """Make known who had runs that failed, and how their jobs ended."""
    names = {run.launch.worker_id for run in runs if run.launch is not None} - set(hands.workers)
    fresh = look.ports.book.workers(names) if names else {}
    hands.workers |= fresh
    jobs = {worker.job for worker in fresh.values() if worker.job}
    if hands.queue is not None and jobs - set(hands.queue.jobs):
        hands.queue = look_at_queue(look, hands.workers.values())
