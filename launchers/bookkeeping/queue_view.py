"""What the queue says of this project's jobs, and the books of jobs brought to it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeVar

from hullworks.errors import QueueAwayError
from hullworks.launchers.bookkeeping.causes import END_CAUSES
from hullworks.launchers.bookkeeping.ports import EndedJob, JobEnd, JobState, LiveJob
from hullworks.states import OPEN_JOBS, Cause, QueueJobState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from datetime import datetime

    from hullworks.launchers.bookkeeping.look import Look
    from hullworks.launchers.bookkeeping.ports import Queue
    from hullworks.launchers.bookkeeping.records import Job, WorkerMark

_J = TypeVar("_J", LiveJob, EndedJob)

_WORST: Final = (
    JobEnd.NODE_FAIL,
    JobEnd.BOOT_FAIL,
    JobEnd.OUT_OF_MEMORY,
    JobEnd.TIMEOUT,
    JobEnd.PREEMPTED,
    JobEnd.FAILED,
    JobEnd.CANCELLED,
)
"""Of an array whose tasks ended differently, the end that counts for the whole."""


@dataclass(frozen=True)
class QueueView:
    """What is known of the queue at one look.

    Attributes:
        live: Jobs and tasks that wait or run, by name.
        ended: Jobs and tasks that have ended, by name.
        jobs: The books' records, by name, of all that are named here.
    """

    live: Mapping[str, Sequence[LiveJob]] = field(default_factory=dict)
    ended: Mapping[str, Sequence[EndedJob]] = field(default_factory=dict)
    jobs: Mapping[str, Job] = field(default_factory=dict)

    def live_of(self, worker: WorkerMark) -> LiveJob | None:
        """Return the job, or the task of an array, that a worker runs in, while it waits or runs."""
        return next(iter(self._own(self.live.get(worker.job, ()), worker)), None)

    def end_of(self, worker: WorkerMark) -> EndedJob | None:
        """Return how the job, or the task of an array, ended that a worker ran in; none while that is not known.

        A job that the queue has started anew ends several times under one name and number: it is the first end after
        the worker began.
        """
        found = self._own(self.ended.get(worker.job, ()), worker)
        job = self.jobs.get(worker.job)
        if not found and job is not None and job.state is QueueJobState.ENDED and job.mode != "array":
            found = [_as_ended(job)]
        held = [item for item in found if _may_hold(item, worker)]
        return min(held, key=lambda item: item.ended_at or item.submitted_at, default=None)

    def _own(self, found: Sequence[_J], worker: WorkerMark) -> list[_J]:
        """Return a worker's own among those that bear one name: of an array its task."""
        job = self.jobs.get(worker.job)
        of_array = job is not None and job.mode == "array" and worker.job_id
        return [item for item in found if not of_array or item.job_id == worker.job_id]


def _may_hold(end: EndedJob, worker: WorkerMark) -> bool:
    """Return whether a worker may have run in what ended like this: it began before the end."""
    return end.ended_at is None or end.ended_at >= worker.started_at


def _as_ended(job: Job) -> EndedJob:
    """Return what the books remember of the end of a job that the queue has forgotten."""
    return EndedJob(
        job_id=job.job_id,
        name=job.name,
        submitted_at=job.submitted_at or job.planned_at,
        end=JobEnd(job.end or JobEnd.GONE),
        started_at=job.started_at,
        ended_at=job.ended_at,
        nodes=job.ran_on,
        source="the books",
    )


def look_at_queue(look: Look, workers: Collection[WorkerMark]) -> QueueView | None:
    """Ask the queue for this project's jobs, and bring the books of jobs to what it says.

    Args:
        look: The present look.
        workers: Workers whose jobs must be known, because they have runs in hand; read before this.

    Returns:
        What the queue says; none when there is no queue, or it does not answer: then nothing is known.
    """
    queue, book = look.ports.queue, look.ports.book
    opened = {job.name: job for job in book.jobs(OPEN_JOBS)}
    wanted = {worker.job for worker in workers if worker.job}
    skew_s = look.ports.patience.clock_skew_s
    if queue is None:
        return None
    if not opened and not wanted:
        return QueueView()
    try:
        live = _by_name(queue.live())
        jobs = opened | book.jobs_of((wanted | set(live)) - set(opened))
        anew = {worker.job for worker in workers if _is_anew(live.get(worker.job, ()), worker, skew_s)}
        missing = [name for name in jobs if name not in live or name in anew or jobs[name].mode == "array"]
        ended = _by_name(queue.ended(missing)) if missing else {}
    except QueueAwayError as error:
        look.waits.append(f"the queue does not answer ({error.what})")
        return None
    view = QueueView(live, ended, jobs)
    look.done["unknown jobs"] += len(set(live) - set(jobs))
    for job in jobs.values():
        _bring_up_to_date(look, job, view)
    return view


def _by_name(found: Iterable[_J]) -> dict[str, list[_J]]:
    grouped: defaultdict[str, list[_J]] = defaultdict(list)
    for item in found:
        grouped[item.name].append(item)
    return dict(grouped)


def _bring_up_to_date(look: Look, job: Job, view: QueueView) -> None:
    """Bring the books of one job to what the queue says of it."""
    patience = look.ports.patience
    live, ended = view.live.get(job.name, ()), view.ended.get(job.name, ())
    if live:
        _note_live(look, job, live)
    elif job.state not in OPEN_JOBS:
        return
    elif ended:
        _note_end(look, job, ended)
    elif job.state is QueueJobState.PLANNED:
        if look.doubt(f"not submitted: {job.name}", patience.plan_s):
            _note(look, job, "never submitted", state=QueueJobState.NEVER_SUBMITTED, ended_at=look.now)
    elif look.doubt(f"forgotten: {job.name}", patience.forgotten_s):
        evidence = ("the queue knows nothing of it any more",)
        end = {"end": JobEnd.GONE.value, "cause": Cause.LOST, "evidence": evidence, "ended_at": look.now}
        _note(look, job, "jobs ended", state=QueueJobState.ENDED, **end)


def _note_live(look: Look, job: Job, live: Sequence[LiveJob]) -> None:
    """Note that the queue holds a job: also one that was given up too early, or whose number nobody noted."""
    runs = [item for item in live if item.state is not JobState.PENDING]
    state = QueueJobState.RUNNING if runs else QueueJobState.SUBMITTED
    if job.state is state and job.job_id:
        return
    changes: dict[str, object] = {
        "state": state,
        "job_id": job.job_id or live[0].job_id.partition("_")[0],
        "submitted_at": live[0].submitted_at,
        "started_at": min((item.started_at for item in runs if item.started_at), default=None),
        "ran_on": tuple(sorted({node for item in runs for node in item.nodes})),
        "end": "",
        "ended_at": None,
    }
    _note(look, job, "jobs found" if job.state is QueueJobState.PLANNED else "", **changes)


def _note_end(look: Look, job: Job, ended: Sequence[EndedJob]) -> None:
    """Note the end of a job, with its cause: of an array the worst of its tasks'."""
    worst = next((item for end in _WORST for item in ended if item.end is end), ended[-1])
    _note(
        look,
        job,
        "jobs ended",
        state=QueueJobState.ENDED,
        job_id=job.job_id or worst.job_id.partition("_")[0],
        submitted_at=worst.submitted_at,
        started_at=worst.started_at,
        ended_at=worst.ended_at or look.now,
        ran_on=worst.nodes,
        end=worst.end.value,
        cause=END_CAUSES.get(worst.end),
        evidence=(f"{worst.source}: {worst.end.value}, exit {worst.exit_code}, signal {worst.signal}",),
    )


def _note(look: Look, job: Job, what: str, **changes: object) -> None:
    if look.ports.book.note_job(job, **changes) and what:
        look.done[what] += 1


def is_later_start(live: LiveJob, since: datetime, skew_s: float) -> bool:
    """Return whether a job has been started anew after a time, as the queue does after a node failure."""
    if live.state is JobState.PENDING:
        return True
    return live.started_at is not None and live.started_at > since + timedelta(seconds=skew_s)


def _is_anew(live: Sequence[LiveJob], worker: WorkerMark, skew_s: float) -> bool:
    return any(is_later_start(item, worker.started_at, skew_s) for item in live)


def cancel_by_name(queue: Queue, names: Collection[str]) -> int:
    """End the jobs of these names, whatever their numbers are now; return how many the queue held.

    Raises:
        QueueAwayError: The queue did not answer.
    """
    wanted = set(names)
    ids = sorted({item.job_id for item in queue.live() if item.name in wanted}) if wanted else []
    if ids:
        queue.cancel(ids)
    return len(ids)
