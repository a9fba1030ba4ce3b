"""``hullworks launch slurm``: the LaunchPad fed, the books kept, and as many jobs in the queue as there is work for."""

from __future__ import annotations

import hashlib
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import pymongo.errors

from hullworks.analysis.stability import update_all
from hullworks.documents import Candidate
from hullworks.launchers.bookkeeping.loop import LaunchLoop, Policy, Tick
from hullworks.launchers.bookkeeping.ports import JobRequest
from hullworks.launchers.configuration import write_configuration
from hullworks.launchers.feeder import builder
from hullworks.launchers.launchpad import open_launchpad
from hullworks.launchers.reconcile import real_ports
from hullworks.launchers.services import mongod
from hullworks.launchers.slurm.commands import SlurmQueue
from hullworks.launchers.slurm.scripts import Allocation, job_script

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType

    from fireworks import LaunchPad

    from hullworks.launchers.bookkeeping.records import Job
    from hullworks.settings import Settings, SlurmSettings

DATABASE_WAIT_S: Final = 5.0


def project_comment(settings: Settings) -> str:
    """Return the comment by which the jobs of a project are told from all others."""
    place = hashlib.sha256(str(settings.project_dir).encode()).hexdigest()[:8]
    return f"hullworks-{settings.database.name}-{place}"


def policy_of(site: SlurmSettings) -> Policy:
    """Return how jobs are asked for at a site."""
    return Policy(
        mode=site.mode,
        max_jobs=site.max_jobs,
        max_per_minute=site.submissions_per_minute,
        slots=1 if site.nodes > 1 else site.slots,
        runs_per_slot=site.runs_per_slot,
        partition=site.partition or "",
        account=site.account or "",
        walltime_s=float(site.walltime_s),
        memory_MB=None if site.memory_MB is None else float(site.memory_MB),
        cpus=site.cpus_per_run,
        nodes=site.nodes,
    )


@dataclass(frozen=True)
class RequestMaker:
    """Makes the request of a job in the books: its batch script, and what tells it from others.

    Attributes:
        settings: The project's settings.
        site: How its cluster is asked.
        variables: The environment that `write_configuration` returned.
    """

    settings: Settings
    site: SlurmSettings
    variables: Mapping[str, str]

    def __call__(self, job: Job) -> JobRequest:
        """Return the request."""
        asked = Allocation(
            name=job.name,
            project_dir=self.settings.project_dir,
            log_dir=self.settings.data_dir / "logs" / "slurm",
            variables=self.variables,
            n_tasks=job.n_tasks,
            fw_id=job.fw_ids[0] if job.fw_ids else None,
            max_runs=0 if job.mode == "packed" else 1,
            walltime_s=int(job.walltime_s),
            memory_MB=None if job.memory_MB is None else int(job.memory_MB),
            exclude=job.excluded,
        )
        return JobRequest(job.name, project_comment(self.settings), job_script(self.site, asked), job.n_tasks)


@dataclass
class SlurmLauncher:
    """Runs the work of a project on a SLURM cluster.

    Several may run side by side, and each may be killed: what is in the queue goes on, and the next one finds it.

    Args:
        settings: The project's settings; the documents must be connected.
        site: How its cluster is asked.
        batch: Only wait for this batch; all batches otherwise.
        forever: Go on when the work is done, for what may be submitted later.
        on_tick: Called after each look, with what it waits for.
    """

    settings: Settings
    site: SlurmSettings
    batch: str | None = None
    forever: bool = False
    on_tick: Callable[[str], None] = lambda _message: None
    done: Counter[str] = field(default_factory=Counter)

    def run(self) -> Counter[str]:
        """Work until nothing is left to do; return how many of what were done."""
        signal.signal(signal.SIGTERM, _leave)
        launchpad, loop = self._prepare()
        try:
            while self._tick(loop):
                time.sleep(self.site.look_every_s)
        finally:
            launchpad.connection.close()
        return self.done

    def run_once(self) -> Counter[str]:
        """Look once, and submit what there is work for; return how many of what were done."""
        launchpad, loop = self._prepare()
        try:
            self._tick(loop)
        finally:
            launchpad.connection.close()
        return self.done

    def _prepare(self) -> tuple[LaunchPad, LaunchLoop]:
        variables = write_configuration(self.settings)
        (self.settings.data_dir / "logs" / "slurm").mkdir(parents=True, exist_ok=True)
        launchpad = open_launchpad(self.settings, wait_s=DATABASE_WAIT_S)
        queue = SlurmQueue(project_comment(self.settings), self.site.answer_s)
        ports = real_ports(launchpad, lost_after_s=self.settings.launch.lost_after_s, queue=queue)
        loop = LaunchLoop(
            ports,
            builder(self.settings),
            [policy_of(self.site)],
            RequestMaker(self.settings, self.site, variables),
            window=self.settings.launch.window,
            away=(pymongo.errors.PyMongoError,),
        )
        return launchpad, loop

    def _tick(self, loop: LaunchLoop) -> bool:
        """Look once; return whether there is more to do."""
        tick = loop.tick()
        self.done += tick.done
        try:
            self.done += update_all()
            more = self.forever or Candidate.count_open(self.batch) > 0
            self.on_tick(_sentence(tick, more=more))
        except pymongo.errors.PyMongoError as error:
            self.on_tick(f"waiting for the database ({type(error).__name__})")
            if self.settings.embedded_database:
                mongod.ensure(self.settings)
            return True
        return more


def _sentence(tick: Tick, *, more: bool) -> str:
    """Return what a loop waits for, in words."""
    if not more:
        return "done"
    jobs = f"{tick.n_jobs + tick.done['jobs submitted']} jobs in the queue"
    return "; ".join([jobs, *dict.fromkeys(tick.waits)])


def _leave(_number: int, _frame: FrameType | None) -> None:
    """Leave on SIGTERM as on Ctrl-C: nothing of the loop has to be put in order."""
    raise SystemExit(128 + signal.SIGTERM)
