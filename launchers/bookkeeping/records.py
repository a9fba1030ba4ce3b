"""The plain records that the bookkeeping works on, whatever database and LaunchPad they come from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from hullworks.states import QueueJobState

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from hullworks.states import CandidateState, Cause

Mode = Literal["single", "packed", "array"]

UNFINISHED: Final = frozenset({"READY", "RESERVED", "RUNNING"})
"""States of FireWorks' fireworks with which something still happens by itself."""
STOPPED: Final = frozenset({"FIZZLED", "DEFUSED", "PAUSED"})
"""States of fireworks with which nothing happens until somebody acts."""
TAKEN: Final = frozenset({"RESERVED", "RUNNING"})
"""States of fireworks that somebody has in hand."""


@dataclass(frozen=True)
class Resources:
    """What a run needs where experience shows that it is more than usual; none for the usual.

    Attributes:
        walltime_s: Time, s.
        memory_MB: Memory, MB.
    """

    walltime_s: float | None = None
    memory_MB: float | None = None

    def as_dict(self) -> dict[str, float]:
        """Return what is known."""
        known = {"walltime_s": self.walltime_s, "memory_MB": self.memory_MB}
        return {name: value for name, value in known.items() if value is not None}


@dataclass(frozen=True)
class Case:
    """A candidate, as far as the books of a campaign need it.

    Attributes:
        candidate_id: The candidate.
        calculation_id: Its calculation, which names its workflow.
        state: Where it stands.
        since: Since when; together with the state it tells whether somebody has moved it in the meantime.
        batch: Its batch.
        resources: What its runs need.
        budget_since: When the count of its failures began anew, none for the beginning.
    """

    candidate_id: str
    calculation_id: str
    state: CandidateState
    since: datetime
    batch: str = ""
    resources: Resources = field(default_factory=Resources)
    budget_since: datetime | None = None


@dataclass(frozen=True)
class Why:
    """Why something is as it is, for a person: a short code, a text, what to do next."""

    code: str
    text: str
    next_step: str = ""


@dataclass(frozen=True)
class Move:
    """One move of a candidate that is meant for it as it was seen, and for nothing else.

    Attributes:
        case: The candidate as it was seen.
        new: The state to move to.
        why: Why, for its history.
        cause: The cause to store with it.
        reason: The reason to store with it.
        fresh_budget: Let the count of its failures begin anew.
        counts: Whether this is one more attempt at its calculation.
    """

    case: Case
    new: CandidateState
    why: str
    cause: Cause | None = None
    reason: Why | None = None
    fresh_budget: bool = False
    counts: bool = False


@dataclass(frozen=True)
class WorkerMark:
    """A worker on record.

    Attributes:
        worker_id: Its name on the LaunchPad.
        started_at: When it started.
        job: Name of the queue job that it runs in, empty outside a queue.
        job_id: The queue's number of that job, or of its task in an array.
        process: What its own machine knows it by: process id, start, boot, host.
    """

    worker_id: str
    started_at: datetime
    job: str = ""
    job_id: str = ""
    process: tuple[int, int, str, str] | None = None


@dataclass(frozen=True)
class Job:
    """A job of the batch system, as the books have it; see `hullworks.documents.QueueJob`."""

    name: str
    mode: Mode
    planned_at: datetime
    walltime_s: float
    state: QueueJobState = QueueJobState.PLANNED
    account_key: str = ""
    partition: str = ""
    account: str = ""
    n_tasks: int = 0
    slots: int = 1
    fw_ids: tuple[int, ...] = ()
    memory_MB: float | None = None
    cpus: int = 1
    nodes: int = 1
    excluded: tuple[str, ...] = ()
    job_id: str = ""
    submitted_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    ran_on: tuple[str, ...] = ()
    end: str = ""
    cause: Cause | None = None
    evidence: tuple[str, ...] = ()

    @property
    def capacity(self) -> int:
        """How many runs it can have in hand at a time."""
        return max(1, self.n_tasks) * self.slots


@dataclass(frozen=True)
class EndedRun:
    """One ended launch, to be stored once.

    Attributes:
        launch_id: The launch.
        fw_id: Its firework.
        candidate_id: Who asked for it.
        calculation_id: For what.
        step: Name of the firework.
        worker_id: Who ran it.
        job: In which queue job.
        host: Where.
        directory: Its folder.
        cause: Why it ended.
        outcome: The same in the code's own words.
        evidence: What shows it.
        ended_at: When, as far as is known.
        report: What the run wrote about itself.
    """

    launch_id: int
    fw_id: int
    candidate_id: str
    calculation_id: str
    step: str
    worker_id: str
    job: str
    host: str
    directory: str
    cause: Cause
    outcome: str
    evidence: tuple[str, ...]
    ended_at: datetime
    report: Mapping[str, object] = field(default_factory=dict)

    @property
    def run_id(self) -> str:
        """Its key."""
        return f"run-{self.launch_id}"


@dataclass(frozen=True)
class Launch:
    """One launch of a firework.

    Attributes:
        launch_id: Its number.
        state: FireWorks' word for it.
        worker_id: Name of the worker that took it; of a reservation, name of the queue job that it is for.
        host: The machine.
        directory: Its folder.
        last_sign: When it was last heard of.
        trace: The last lines of what it raised, if it did.
    """

    launch_id: int
    state: str
    worker_id: str
    host: str
    directory: str
    last_sign: datetime
    trace: tuple[str, ...] = ()


@dataclass(frozen=True)
class PadRun:
    """A firework: one step of a candidate's workflow.

    Attributes:
        fw_id: Its number.
        step: Its name.
        state: FireWorks' word for it.
        candidate_id: Whose it is, empty when it is not one of ours.
        calculation_id: For which calculation.
        updated_at: When it was last written.
        launch: Its newest launch.
    """

    fw_id: int
    step: str
    state: str
    candidate_id: str
    calculation_id: str
    updated_at: datetime
    launch: Launch | None = None


@dataclass(frozen=True)
class PadWorkflow:
    """A workflow, as its fireworks are.

    Attributes:
        calculation_id: The calculation that it is for.
        states: FireWorks' words for its fireworks, by number; those that are missing are not in it.
        n_nodes: How many fireworks it has by its own account.
        adding: Whether it is still being added, or whoever added it was killed at it.
        behind: Steps that have ended well, of which the workflow has not taken note: what they ask of the steps after
            them may not be done.
    """

    calculation_id: str
    states: Mapping[int, str]
    n_nodes: int
    adding: bool = False
    behind: frozenset[int] = frozenset()

    @property
    def is_whole(self) -> bool:
        """Whether all of it was stored."""
        return not self.adding and len(self.states) == self.n_nodes

    @property
    def is_completed(self) -> bool:
        """Whether every step has ended well."""
        return self.is_whole and set(self.states.values()) <= {"COMPLETED", "ARCHIVED"}

    @property
    def has_started(self) -> bool:
        """Whether a worker has started it."""
        return bool({"RUNNING", "COMPLETED"} & set(self.states.values()))

    @property
    def is_stalled(self) -> bool:
        """Whether steps wait in it and none will let them go: whoever should have done so was killed before."""
        present = set(self.states.values())
        waits = "WAITING" in present and not present & (UNFINISHED | STOPPED)
        return self.is_whole and (waits or bool(self.behind))

    def among(self, states: frozenset[str]) -> list[int]:
        """Return the numbers of the fireworks that are in one of these states."""
        return [fw_id for fw_id, state in self.states.items() if state in states]


@dataclass(frozen=True)
class Locked:
    """A workflow that somebody holds for writing.

    Attributes:
        nodes: Its fireworks.
        version: Changes when its holder writes to it.
    """

    nodes: tuple[int, ...]
    version: str
