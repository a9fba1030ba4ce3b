"""What the bookkeeping needs from outside, so that the same code runs on SLURM and MongoDB and in a simulation."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime


class Clock(Protocol):
    """Time."""

    def now(self) -> datetime:
        """Return the time, with its zone."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class JobState(StrEnum):
    """What a queue says of a job that has not ended.

    PENDING: it waits; also one that is held, or requeued.
    RUNNING: it has its nodes; also one that is suspended or being configured.
    ENDING: its processes are being ended.
    """

    PENDING = "pending"
    RUNNING = "running"
    ENDING = "ending"


class JobEnd(StrEnum):
    """How a queue says that a job ended; the words of SLURM.

    GONE: the queue knows nothing of the job any more.
    """

    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    TIMEOUT = "TIMEOUT"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    NODE_FAIL = "NODE_FAIL"
    BOOT_FAIL = "BOOT_FAIL"
    PREEMPTED = "PREEMPTED"
    CANCELLED = "CANCELLED"
    DEADLINE = "DEADLINE"
    REVOKED = "REVOKED"
    GONE = "GONE"


@dataclass(frozen=True)
class JobRequest:
    """A job to be submitted.

    Attributes:
        name: Made before the submission, unlike that of any other job: by it the job is found again, whatever happens
            between the submission and the note of its number. Numbers repeat after a crash of the controller.
        comment: Tells the jobs of this project from others; the same for all of them.
        script: The whole text of the batch script.
        n_tasks: Number of tasks of a job array; 0 for a job that is none.
    """

    name: str
    comment: str
    script: str
    n_tasks: int = 0


@dataclass(frozen=True)
class LiveJob:
    """A job, or one task of an array, that the queue holds.

    Attributes:
        job_id: As `Queue.cancel` takes it: ``17``, or ``17_3`` for a task of an array.
        name: Its name.
        submitted_at: When it was submitted.
        state: Whether it waits or runs.
        reason: Why it waits, in the queue's words.
        started_at: When it started, none while it waits.
        ends_at: When its time is over, none while it waits.
        nodes: The nodes that it runs on.
    """

    job_id: str
    name: str
    submitted_at: datetime
    state: JobState
    reason: str = ""
    started_at: datetime | None = None
    ends_at: datetime | None = None
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True)
class EndedJob:
    """A job, or one task of an array, that has ended.

    Attributes:
        job_id: Its number.
        name: Its name.
        submitted_at: When it was submitted.
        end: How it ended.
        started_at: When it started, none when it never did.
        ended_at: When it ended, as far as is known.
        exit_code: Exit status of its script.
        signal: The signal that ended it, 0 for none.
        nodes: The nodes that it ran on.
        source: Who says so: ``sacct``, ``jobcomp``, ``scontrol``.
    """

    job_id: str
    name: str
    submitted_at: datetime
    end: JobEnd
    started_at: datetime | None = None
    ended_at: datetime | None = None
    exit_code: int = 0
    signal: int = 0
    nodes: tuple[str, ...] = ()
    source: str = ""


class Queue(Protocol):
    """A batch system. Every method may raise `hullworks.errors.QueueAwayError`: it did not answer; nothing is known."""

    def submit(self, request: JobRequest) -> str:
        """Submit a job and return its number.

        Raises:
            JobRejectedError: The queue does not take it, and says why.
            QueueAwayError: It did not answer; the job may or may not have been taken.
        """
        ...

    def live(self) -> list[LiveJob]:
        """Return all jobs of this project that wait or run."""
        ...

    def ended(self, names: Collection[str]) -> list[EndedJob]:
        """Return those of the named jobs that have ended, as far as the queue still knows; array tasks one by one."""
        ...

    def cancel(self, job_ids: Collection[str]) -> None:
        """End jobs; what runs is asked first. Unknown numbers are no error."""
        ...
