"""A batch system in memory: jobs wait, run, meet their end; its controller is away at times, and forgets."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from hullworks.errors import JobRejectedError, QueueAwayError
from hullworks.launchers.bookkeeping.ports import EndedJob, JobEnd, JobState, LiveJob

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from datetime import datetime

    from hullworks.launchers.bookkeeping.ports import JobRequest
    from tests.simulation.world import World


@dataclass
class SimJob:
    """A job as the controller has it."""

    live: LiveJob
    walltime_s: float
    ending: JobEnd | None = None
    kill_at: datetime | None = None
    starts: int = 0


@dataclass
class SimQueue:
    """`hullworks.launchers.bookkeeping.ports.Queue` in memory.

    Args:
        world: Whose time and chance it uses.
        walltime_of: The walltime of a job, by its name.
        on_start: A job has started: its worker is to be started.
        on_end: A job ends in a way: what runs in it is to be ended.
        nodes: Names of the nodes, each for one job at a time.
    """

    world: World
    walltime_of: Callable[[str], float]
    on_start: Callable[[SimJob], None]
    on_end: Callable[[str, JobEnd], None]
    nodes: tuple[str, ...] = ("n1", "n2", "n3")
    jobs: dict[str, SimJob] = field(default_factory=dict)
    past: list[EndedJob] = field(default_factory=list)
    away_until_s: float = 0.0
    next_id: int = 1
    rejects: int = 0

    # ----------------------------------------------------------------------------------------------------------- port
    def _ask(self, what: str) -> None:
        self.world.step(what)
        if self.world.time_s < self.away_until_s:
            self.world.sleep(9.0)
            raise QueueAwayError("no answer", what)

    def submit(self, request: JobRequest) -> str:
        """As the port says; when the answer is lost, the job may have been taken."""
        self.world.step("submit")
        away = self.world.time_s < self.away_until_s
        taken = not away or self.world.random.random() < 0.5
        if taken and self.rejects > 0 and not self.world.calm:
            self.rejects -= 1
            raise JobRejectedError("invalid account", request.name)
        if taken:
            job_id = str(self.next_id)
            self.next_id += 1
            live = LiveJob(job_id, request.name, self.world.now(), JobState.PENDING, reason="Priority")
            self.jobs[request.name] = SimJob(live, self.walltime_of(request.name))
        if away:
            self.world.sleep(9.0)
            raise QueueAwayError("no answer", "submit")
        return job_id

    def live(self) -> list[LiveJob]:
        """As the port says."""
        self._ask("squeue")
        return [job.live for job in self.jobs.values()]

    def ended(self, names: Collection[str]) -> list[EndedJob]:
        """As the port says."""
        self._ask("sacct")
        return [job for job in self.past if job.name in names]

    def cancel(self, job_ids: Collection[str]) -> None:
        """As the port says."""
        self._ask("scancel")
        for name, job in list(self.jobs.items()):
            if job.live.job_id in job_ids:
                self.end(name, JobEnd.CANCELLED)

    # ---------------------------------------------------------------------------------------------------- the machine
    def end(self, name: str, how: JobEnd) -> None:
        """End a job: what runs in it is gone, and the accounting knows."""
        job = self.jobs.pop(name, None)
        if job is None:
            return
        self.past.append(
            EndedJob(
                job.live.job_id,
                name,
                job.live.submitted_at,
                how,
                started_at=job.live.started_at,
                ended_at=self.world.now(),
                nodes=job.live.nodes,
                source="sacct",
            )
        )
        self.on_end(name, how)

    def requeue(self, name: str, how: JobEnd) -> None:
        """Let a job wait again whose node failed, or which was preempted; the accounting has its first run too."""
        job = self.jobs[name]
        self.end(name, how)
        live = replace(job.live, state=JobState.PENDING, started_at=None, ends_at=None, nodes=())
        self.jobs[name] = replace(job, live=live)

    def forget(self, name: str) -> None:
        """Lose a running job, as a controller does that is killed right after a submission; its number comes again."""
        job = self.jobs.pop(name)
        self.next_id = min(self.next_id, int(job.live.job_id))

    def advance(self) -> None:
        """Start what may start, end what is over."""
        now = self.world.now()
        for name, job in list(self.jobs.items()):
            if job.live.ends_at is not None and job.live.ends_at <= now:
                self.end(name, JobEnd.TIMEOUT)
        taken = {node for job in self.jobs.values() for node in job.live.nodes}
        free = [node for node in self.nodes if node not in taken]
        for name, job in list(self.jobs.items()):
            if free and job.live.state is JobState.PENDING:
                live = replace(
                    job.live,
                    state=JobState.RUNNING,
                    started_at=now,
                    ends_at=now + timedelta(seconds=job.walltime_s),
                    nodes=(free.pop(0),),
                )
                self.jobs[name] = replace(job, live=live, starts=job.starts + 1)
                self.on_start(self.jobs[name])
