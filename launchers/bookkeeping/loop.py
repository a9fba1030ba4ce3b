"""The core of every launch loop: books kept, LaunchPad fed, as many jobs as there is work for, within throttles."""

from __future__ import annotations

import uuid
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING

from hullworks.errors import JobRejectedError, QueueAwayError
from hullworks.launchers.bookkeeping.causes import excluded_nodes
from hullworks.launchers.bookkeeping.feeding import feed
from hullworks.launchers.bookkeeping.lifecycle import withdraw
from hullworks.launchers.bookkeeping.reconciliation import reconcile
from hullworks.launchers.bookkeeping.records import Job
from hullworks.shipped import shipped_yaml
from hullworks.states import OPEN_JOBS, QueueJobState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from hullworks.launchers.bookkeeping.look import Ports
    from hullworks.launchers.bookkeeping.ports import JobRequest, Queue
    from hullworks.launchers.bookkeeping.records import Case, Mode, PadRun
    from hullworks.launchers.bookkeeping.stores import Build


@dataclass(frozen=True)
class Policy:
    """How jobs are asked for, and how many; what differs from it per candidate is what experience shows.

    Attributes:
        mode: One run per job (``single``), many in one allocation (``packed``), or single runs as a job array.
        max_jobs: Most jobs in the queue, waiting or running, of this partition and account.
        max_per_minute: Most submissions per minute, of this partition and account, whoever makes them.
        slots: Runs side by side in one allocation; packed mode.
        runs_per_slot: Runs one after another that an allocation is asked for; packed mode.
        max_array: Most tasks of one array; array mode.
        partition: Where to; the site's default when empty.
        account: On whose account; the site's default when empty.
        walltime_s: Time of a job, s.
        memory_MB: Memory of a run, MB; the site's default when none.
        cpus: Cores of a run.
        nodes: Nodes of a job.
    """

    mode: Mode = "packed"
    max_jobs: int = 100
    max_per_minute: int = 1000
    slots: int = 1
    runs_per_slot: int = 1
    max_array: int = 1000
    partition: str = ""
    account: str = ""
    walltime_s: float = 86400.0
    memory_MB: float | None = None
    cpus: int = 1
    nodes: int = 1

    @property
    def account_key(self) -> str:
        """What the throttles are counted by."""
        return f"{self.partition}/{self.account}"


@dataclass(frozen=True)
class LoopRules:
    """The numbers of ``loop.yaml``, which gives the reason of each; s."""

    back_off_s: float
    longest_back_off_s: float
    most_rejections: int
    lease_s: float


@cache
def load_loop_rules() -> LoopRules:
    """Return the rules that HullWorks ships."""
    return LoopRules(**shipped_yaml("hullworks.launchers.bookkeeping", "loop.yaml"))


@dataclass
class Tick:
    """One round of a launch loop.

    Attributes:
        done: How many of what were done.
        waits: What the loop waits for, for a person.
        n_jobs: Jobs of its partition and account in the queue.
    """

    done: Counter[str] = field(default_factory=Counter)
    waits: list[str] = field(default_factory=list)
    n_jobs: int = 0


class LaunchLoop:
    """Launches what is queued, round by round; any number of them side by side, each safe to be killed anywhere.

    Args:
        ports: What it works on; with a queue.
        build: Makes the workflows of candidates.
        policies: How jobs are asked for; work goes to the first policy that may still submit.
        make_request: Makes the request, with the text of the script, of a job.
        window: Most candidates on the LaunchPad at a time.
        away: The errors by which a database shows that it is away.
        make_name: Makes the name of a job, unlike any other.
    """

    def __init__(
        self,
        ports: Ports,
        build: Build,
        policies: list[Policy],
        make_request: Callable[[Job], JobRequest],
        *,
        window: int = 500,
        away: tuple[type[Exception], ...] = (),
        make_name: Callable[[], str] = lambda: f"hw-{uuid.uuid4().hex[:16]}",
    ) -> None:
        self.ports = ports
        self.build = build
        self.policies = policies
        self.make_request = make_request
        self.window = window
        self.away = away
        self.make_name = make_name
        self._pauses: dict[str, tuple[datetime, float]] = {}

    def tick(self) -> Tick:
        """Do one round; errors of the database and the queue are said, not raised."""
        tick = Tick()
        try:
            self._round(tick)
        except self.away as error:
            tick.waits.append(f"the database is away ({type(error).__name__})")
        except QueueAwayError as error:
            tick.waits.append(f"the queue does not answer ({error.what})")
        return tick

    def _round(self, tick: Tick) -> None:
        look = reconcile(self.ports)
        if look is not None:
            tick.done += look.done
            tick.waits += look.waits
        tick.done += feed(self.ports.book, self.ports.pad, self.build, self.window)
        queue = self.ports.queue
        if queue is None:
            return
        with self.ports.book.lease("submit", load_loop_rules().lease_s) as held:
            if not held:
                tick.waits.append("another loop submits")
                return
            tick.done["withdrawn"] += withdraw(self.ports)
            for policy in self.policies:
                self._submit_for(policy, queue, tick)

    def _submit_for(self, policy: Policy, queue: Queue, tick: Tick) -> None:
        """Submit what one policy asks for."""
        room = self._room(policy, tick)
        rejected = 0
        for job in self._wanted(policy, room):
            if rejected >= load_loop_rules().most_rejections:
                break
            state = self._submit(job, queue, tick)
            rejected += state is QueueJobState.REJECTED
        if rejected:
            self._back_off(policy.account_key)
        elif tick.done["jobs submitted"]:
            self._pauses.pop(policy.account_key, None)

    def _room(self, policy: Policy, tick: Tick) -> int:
        """Return how many jobs may be submitted now, and say what stands against more."""
        now = self.ports.clock.now()
        jobs = [job for job in self.ports.book.jobs(OPEN_JOBS) if job.account_key == policy.account_key]
        tick.n_jobs += len(jobs)
        until = self._pauses.get(policy.account_key, (now, 0.0))[0]
        if until > now:
            tick.waits.append(f"{policy.account_key}: a job was not taken, the next is tried at {until:%H:%M:%S}")
            return 0
        lately = self.ports.book.planned_since(policy.account_key, now - timedelta(minutes=1))
        room = min(policy.max_jobs - len(jobs), policy.max_per_minute - lately)
        if room <= 0:
            what = "jobs in the queue" if policy.max_jobs <= len(jobs) else "submissions in this minute"
            tick.waits.append(f"{policy.account_key}: the most {what}")
        return max(0, room)

    def _wanted(self, policy: Policy, room: int) -> Iterator[Job]:
        """Yield the jobs that there is work for, at most so many."""
        if room <= 0:
            return
        now, failures = self.ports.clock.now(), self.ports.book.node_failures
        template = Job(
            name="",
            mode=policy.mode,
            planned_at=now,
            walltime_s=policy.walltime_s,
            account_key=policy.account_key,
            partition=policy.partition,
            account=policy.account,
            slots=policy.slots if policy.mode == "packed" else 1,
            memory_MB=policy.memory_MB,
            cpus=policy.cpus,
            nodes=policy.nodes,
            excluded=excluded_nodes(failures(now - self.ports.rules.node_window), self.ports.rules),
        )
        if policy.mode == "single":
            yield from self._singles(policy, template, room)
        else:
            yield from self._shared(policy, template, room)

    def _singles(self, policy: Policy, template: Job, room: int) -> Iterator[Job]:
        """Yield one job for each ready run, with what experience shows that it needs."""
        runs = self.ports.pad.runs({"READY"})[:room]
        cases = self.ports.book.cases_of({run.candidate_id for run in runs}) if runs else {}
        for run in runs:
            yield _job_for(run, cases.get(run.candidate_id), policy, replace(template, name=self.make_name()))

    def _shared(self, policy: Policy, template: Job, room: int) -> Iterator[Job]:
        """Yield allocations, or arrays, for the ready runs that no waiting job will take."""
        waiting = {QueueJobState.PLANNED, QueueJobState.SUBMITTED}
        coming = sum(job.capacity * policy.runs_per_slot for job in self.ports.book.jobs(waiting) if not job.fw_ids)
        left = self.ports.pad.count_ready() - coming
        for _ in range(room):
            if left <= 0:
                return
            n_tasks = min(left, policy.max_array) if policy.mode == "array" else 0
            job = replace(template, name=self.make_name(), n_tasks=n_tasks)
            left -= job.capacity * policy.runs_per_slot
            yield job

    def _submit(self, job: Job, queue: Queue, tick: Tick) -> QueueJobState:
        """Plan, reserve, submit and note one job; killed in between, the next look knows what became of it.

        Raises:
            QueueAwayError: Whether it was taken is not known; the books say that it is planned.
        """
        book, pad = self.ports.book, self.ports.pad
        book.plan(job)
        for fw_id in job.fw_ids:
            if not pad.reserve(fw_id, job.name):
                book.note_job(job, state=QueueJobState.NEVER_SUBMITTED, evidence=("its run was taken by another",))
                return QueueJobState.NEVER_SUBMITTED
        try:
            job_id = queue.submit(self.make_request(job))
        except JobRejectedError as error:
            book.note_job(job, state=QueueJobState.REJECTED, evidence=(error.what,), ended_at=self.ports.clock.now())
            tick.waits.append(f"{job.account_key}: the queue does not take a job: {error.what}")
            tick.done["jobs rejected"] += 1
            return QueueJobState.REJECTED
        # The queue's own time of submission is noted by the next look, which finds the job by its name.
        book.note_job(job, state=QueueJobState.SUBMITTED, job_id=job_id, submitted_at=self.ports.clock.now())
        tick.done["jobs submitted"] += 1
        return QueueJobState.SUBMITTED

    def _back_off(self, account_key: str) -> None:
        rules = load_loop_rules()
        last = self._pauses.get(account_key, (None, 0.0))[1]
        pause_s = min(max(rules.back_off_s, 2 * last), rules.longest_back_off_s)
        self._pauses[account_key] = (self.ports.clock.now() + timedelta(seconds=pause_s), pause_s)


def _job_for(run: PadRun, case: Case | None, policy: Policy, template: Job) -> Job:
    """Return the job of one run."""
    needs = None if case is None else case.resources
    walltime_s = max(policy.walltime_s, (needs and needs.walltime_s) or 0.0)
    memory_MB = max(policy.memory_MB or 0.0, (needs and needs.memory_MB) or 0.0)
    return replace(template, fw_ids=(run.fw_id,), walltime_s=walltime_s, memory_MB=memory_MB or None)
