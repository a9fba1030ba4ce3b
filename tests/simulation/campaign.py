"""A campaign in a simulated world: candidates, loops, workers, a queue, a user; and the invariants that must hold."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from hullworks.errors import QueueAwayError, StateError
from hullworks.launchers.bookkeeping import lifecycle
from hullworks.launchers.bookkeeping.causes import Rules, load_rules
from hullworks.launchers.bookkeeping.look import Look, Ports
from hullworks.launchers.bookkeeping.loop import LaunchLoop, Policy
from hullworks.launchers.bookkeeping.patience import load_patience
from hullworks.launchers.bookkeeping.ports import JobEnd, JobRequest
from hullworks.launchers.bookkeeping.reconciliation import reconcile
from hullworks.launchers.bookkeeping.records import TAKEN, Case, WorkerMark
from hullworks.launchers.bookkeeping.runs import Hands, Loss, settle_lost
from hullworks.states import IN_FLIGHT, OPEN_JOBS, CandidateState, Cause
from tests.simulation.rules import Referee, Truth
from tests.simulation.sim_book import SimBook
from tests.simulation.sim_pad import SimGraph, SimPad
from tests.simulation.sim_queue import SimJob, SimQueue
from tests.simulation.world import START, Actor, AwayError, Faults, Killed, Violation, World

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hullworks.launchers.bookkeeping.records import Job, Mode, PadRun

S = CandidateState

STEPS: Final = ("relax", "land")
PING_S: Final = 120.0
WALLTIME_S: Final = 1500.0
PATIENCE: Final = replace(load_patience(), grace_s=90.0, gap_s=400.0, plan_s=300.0, forgotten_s=200.0, silence_s=400.0)
"""The product's, at the pace of loops that look every minute or two."""

_ENDS: Final = {
    JobEnd.TIMEOUT: Cause.WALLTIME,
    JobEnd.CANCELLED: Cause.CANCELLED,
    JobEnd.NODE_FAIL: Cause.NODE_FAILURE,
    JobEnd.PREEMPTED: Cause.PREEMPTED,
    JobEnd.OUT_OF_MEMORY: Cause.OUT_OF_MEMORY,
    JobEnd.FAILED: Cause.LOST,
}


@dataclass(frozen=True)
class Plan:
    """What takes part in a simulation; a failing one is shrunk by taking parts away.

    Attributes:
        candidates: How many.
        loops: Launch loops at once.
        reconcilers: Who reconciles beside them.
        local_workers: Workers outside the queue.
        user: Whether a user pauses, resumes, cancels and retries.
        outages: Whether database and queue are away at times.
        mode: How jobs are asked for.
        faults: What else goes wrong.
    """

    candidates: int = 3
    loops: int = 2
    reconcilers: int = 1
    local_workers: int = 1
    user: bool = True
    outages: bool = True
    mode: Mode = "packed"
    faults: Faults = field(default_factory=Faults)


class Site:
    """`hullworks.launchers.bookkeeping.stores.Site` of the simulated machines."""

    def __init__(self, campaign: Campaign) -> None:
        self._campaign = campaign
        self.reports: dict[str, dict[str, Any]] = {}

    def report(self, directory: str) -> Mapping[str, object]:
        """As the port says."""
        return self.reports.get(directory, {})

    def lives(self, worker: WorkerMark) -> bool | None:
        """As the port says."""
        actor = self._campaign.workers.get(worker.worker_id)
        return actor is not None and actor.alive


class Campaign:
    """Everything, from a seed and a plan.

    Args:
        seed: Draws what happens.
        plan: What takes part.
        mutate: Breaks something on purpose, to see that it is found.
    """

    def __init__(self, seed: int, plan: Plan, mutate: Callable[[Campaign], None] = lambda _campaign: None) -> None:
        self.plan = plan
        self.world = World(seed, replace(plan.faults))
        self.random = self.world.random
        self.rules: Rules = load_rules()
        self.book = SimBook(self._database, self.world.now)
        self.referee = Referee(self.book, self.rules)
        self.nature = self.referee.nature
        self.pad = SimPad(self._database, self.world.now, self.world.sleep, self._delicate)
        self.site = Site(self)
        self.queue = SimQueue(self.world, self._walltime_of, self._start_job, self._end_job)
        self.queue.rejects = self.random.choice((0, 0, 3))
        self.ports = Ports(self.book, self.pad, self.site, self.world, self.queue, 600.0, PATIENCE, self.rules)
        self.workers: dict[str, Actor] = {}
        self.job_workers: dict[str, Actor] = {}
        self.executing: dict[int, str] = {}
        self.progress: Counter[str] = Counter()
        self.n = 0
        self._people()
        mutate(self)

    # --------------------------------------------------------------------------------------------------------- people
    def _people(self) -> None:
        natures = ("good", "good", "good", "long", "fails", "hungry", "kills its node", "vanishes")
        for number in range(self.plan.candidates):
            name = f"cand-{number}"
            self.book.candidates[name] = Case(name, f"calc-{number}", S.QUEUED, START, batch="b")
            self.nature[name] = self.random.choice(natures)
        for number in range(self.plan.loops):
            self._keep_alive(f"loop-{number}", self._loop)
        for number in range(self.plan.reconcilers):
            self._keep_alive(f"reconciler-{number}", self._reconciler)
        for number in range(self.plan.local_workers):
            self._keep_alive(f"local-{number}", lambda: self._worker("", "", 1e9))
        self.world.add("slurmctld", self._controller, mortal=False)
        if self.plan.user:
            self.world.add("user", self._user, mortal=False, delay_s=self.random.uniform(0, 1500))
        self.world.settled = self._is_settled
        self.world.on_kill = self._on_kill

    def _keep_alive(self, name: str, act: Callable[[], None]) -> None:
        """Start somebody, and somebody else in his place when he has died."""

        def supervise() -> None:
            self.world.sleep(self.random.uniform(0, 30))
            actor = self.world.add(name, act)
            while True:
                self.world.sleep(self.random.uniform(60, 180))
                if actor.ended:
                    actor = self.world.add(name, act)

        self.world.add(f"supervisor of {name}", supervise, mortal=False)

    def _on_kill(self, actor: Actor) -> None:
        """A process is gone: what it had in hand is lost, and its job ends."""
        name = actor.name
        self.referee.dies(name, Cause.LOST)
        self.executing = {fw_id: worker for fw_id, worker in self.executing.items() if worker != name}
        job = next((job for job, worker in self.job_workers.items() if worker is actor), None)
        if job is not None:
            del self.job_workers[job]
            self.queue.end(job, JobEnd.FAILED)

    # ---------------------------------------------------------------------------------------------------------- ports
    def _delicate(self, change: int) -> None:
        self.world.me.delicate += change

    def _database(self, what: str) -> None:
        """One operation on the database: workers wait for it when it is away, others are told."""
        self.world.step(what)
        waited = 0.0
        while self.world.time_s < self.world.down_until_s:
            if self.world.me.name not in self.workers and waited >= 5.0:
                raise AwayError(what)
            self.world.sleep(5.0)
            waited += 5.0
        self.referee.always()

    def _walltime_of(self, name: str) -> float:
        return self.book.queue_jobs[name].walltime_s

    def _build(self, candidate_ids: Sequence[str]) -> dict[str, SimGraph]:
        cases = [self.book.candidates[name] for name in candidate_ids]
        return {case.candidate_id: SimGraph(case.calculation_id, case.candidate_id, STEPS) for case in cases}

    def _request(self, job: Job) -> JobRequest:
        return JobRequest(job.name, "simulated", "")

    def _is_settled(self) -> bool:
        """Whether nothing more is to happen: checked when things no longer go wrong."""
        if not self.world.calm or self.world.time_s < self.world.down_until_s:
            return False
        if any(case.state in IN_FLIGHT or case.state is S.QUEUED for case in self.book.candidates.values()):
            return False
        if any(firework.state in TAKEN for firework in self.pad.fireworks.values()):
            return False
        if any(workflow.locked for workflow in self.pad.workflows_.values()):
            return False
        return all(job.state not in OPEN_JOBS for job in self.book.queue_jobs.values())

    # --------------------------------------------------------------------------------------------------------- actors
    def _loop(self) -> None:
        policy = Policy(mode=self.plan.mode, max_jobs=4, walltime_s=WALLTIME_S)
        loop = LaunchLoop(
            self.ports,
            self._build,
            [policy],
            self._request,
            window=2,
            away=(AwayError,),
            make_name=lambda: self._name("job"),
        )
        while True:
            loop.tick()
            self.world.sleep(self.random.uniform(40, 120))

    def _name(self, what: str) -> str:
        self.n += 1
        return f"{what}-{self.n}"

    def _reconciler(self) -> None:
        while True:
            with suppress(AwayError):
                reconcile(self.ports)
            self.world.sleep(self.random.uniform(40, 250))

    def _user(self) -> None:
        operations = (lifecycle.pause, lifecycle.resume, lifecycle.cancel, lifecycle.retry)
        while not self.world.calm:
            operation = self.random.choice(operations)
            which = self.random.sample(sorted(self.book.candidates), 1)
            try:
                if self.random.random() < 0.5:
                    operation(self.ports, batch="b")
                else:
                    operation(self.ports, candidates=which)
            except (AwayError, StateError):
                pass
            self.world.sleep(self.random.uniform(50, 1200))

    def _controller(self) -> None:
        """The queue's controller and the machines: jobs start and end, and things go wrong."""
        while True:
            self.queue.advance()
            self.world.sleep(self.random.uniform(10, 60))
            if not self.world.calm:
                self._misfortune()

    def _misfortune(self) -> None:
        draw = self.random.random()
        running = [name for name, job in self.queue.jobs.items() if job.live.nodes]
        if self.plan.outages and draw < 0.01:
            self.world.down_until_s = self.world.time_s + self.random.choice((20, 100, 650))
        elif self.plan.outages and draw < 0.02:
            self.queue.away_until_s = self.world.time_s + self.random.choice((30, 300))
        elif running and draw < 0.05 and self.world.faults.kills > 0:
            self.world.faults.kills -= 1
            name = self.random.choice(running)
            what = self.random.choice(("cancel", "fail", "requeue", "preempt", "forget"))
            self.world.trace.append((name, what))
            if what == "cancel":
                self.queue.end(name, JobEnd.CANCELLED)
            elif what == "fail":
                self.queue.end(name, JobEnd.NODE_FAIL)
            elif what == "forget":
                self.queue.forget(name)
            else:
                self.queue.requeue(name, JobEnd.NODE_FAIL if what == "requeue" else JobEnd.PREEMPTED)

    def _start_job(self, job: SimJob) -> None:
        name, live = job.live.name, job.live
        assert live.ends_at is not None
        ends_s = (live.ends_at - START).total_seconds()
        worker = self._name(f"worker of {name}")
        self.job_workers[name] = self.world.add(worker, lambda: self._worker(name, live.job_id, ends_s))

    def _end_job(self, name: str, how: JobEnd) -> None:
        """The queue ends a job: its processes are gone, for the reason that the queue names."""
        actor = self.job_workers.pop(name, None)
        if actor is None or not actor.alive:
            return
        self.referee.dies(actor.name, _ENDS.get(how, Cause.LOST))
        self.world.kill(actor)

    # -------------------------------------------------------------------------------------------------------- workers
    def _worker(self, job: str, job_id: str, ends_s: float) -> None:
        """A worker process: registers, and works through the LaunchPad until its time is nearly over."""
        me = self.world.me
        if not job:
            me.name = self._name(me.name)
        me.longest_delay_s = PING_S / 2  # a run's heartbeat has a thread of its own
        self.workers[me.name] = me
        self._database("register")
        self.book.workers_[me.name] = WorkerMark(me.name, self.world.now(), job, job_id)
        wanted = self.book.queue_jobs[job].fw_ids if job else ()
        idle = 0
        while self.world.time_s < ends_s - 300 and idle < 3:
            number = wanted[0] if wanted else 0
            own = not number or self.pad.reserved_for(number) == job
            run = self.pad.check_out(me.name, "", fw_id=number, only_ready=not own)
            if run is None:
                idle += bool(job)
                self.world.sleep(60.0)
            else:
                idle = 0
                self._execute(run, me)
            if wanted:
                break
        if job and self.job_workers.get(job) is me:
            del self.job_workers[job]
            self.queue.end(job, JobEnd.COMPLETED)

    def _execute(self, run: PadRun, me: Actor) -> None:
        """What a run does, after the nature of its candidate."""
        assert run.launch is not None
        launch = run.launch
        truth = self.referee.truth[launch.launch_id] = Truth(run.fw_id, me.name)
        if run.fw_id in self.executing:
            raise Violation(f"{run.fw_id} runs with {self.executing[run.fw_id]} and with {me.name}")
        self.executing[run.fw_id] = me.name
        self._end(run, truth, me, self._calculate(run, me) if run.step == "relax" else self._land(run))

    def _land(self, run: PadRun) -> str:
        self.book.store_entry(run.calculation_id, valid=True)
        return "COMPLETED"

    def _calculate(self, run: PadRun, me: Actor) -> str:
        """Calculate for some time, with pings; return how FireWorks is told that it ended."""
        assert run.launch is not None
        nature = self.nature[run.candidate_id]
        needs = 2600.0 if nature == "long" else 500.0
        while self.progress[run.candidate_id] < needs:
            self.world.sleep(PING_S)
            self.progress[run.candidate_id] += int(PING_S)  # checkpoints keep it across launches
            self.pad.ping(run.launch.launch_id)
            if lifecycle.runs_to_stop(self.book, [run.candidate_id]):
                return "STOPPED"
            if nature in {"hungry", "kills its node", "vanishes"}:
                return self._misbehave(run, me, nature)
        if nature == "fails":
            report = {"cause": "code_error", "outcome": "scf_stuck", "evidence": ["pw.out:1: no convergence"]}
            self.site.reports[run.launch.directory] = report
            return "FIZZLED"
        return "COMPLETED"

    def _misbehave(self, run: PadRun, me: Actor, nature: str) -> str:
        """What a run does that no code could tell of itself."""
        case = self.book.candidates[run.candidate_id]
        job = next((name for name, actor in self.job_workers.items() if actor is me), None)
        if nature == "hungry" and ((case.resources.memory_MB or 0) > 10_000 or job is None):
            return "COMPLETED"
        if job is not None and nature != "vanishes":
            self.queue.end(job, JobEnd.OUT_OF_MEMORY if nature == "hungry" else JobEnd.NODE_FAIL)
        self.world.kill(me)  # also when the queue has forgotten the job
        raise Killed

    def _end(self, run: PadRun, truth: Truth, me: Actor, how: str) -> None:
        """Tell FireWorks how a run ended, as the worker does."""
        assert run.launch is not None
        truth.over = True
        self.executing.pop(run.fw_id, None)
        if how == "STOPPED":
            truth.causes |= {Cause.CANCELLED}
            self.site.reports[run.launch.directory] = {"cause": "cancelled", "outcome": "user_stop"}
            hands = Hands([run], {me.name: self.book.workers_[me.name]})
            settle_lost(Look(self.ports), run, Loss("it was told to stop"), hands)
            return
        truth.causes |= {Cause.CONVERGED, Cause.LOST} if how == "COMPLETED" else {Cause.CODE_ERROR}
        trace = () if how == "COMPLETED" else ("RunError: scf stuck",)
        self.pad.complete(run.launch.launch_id, how, trace)
        truth.told = True


def run_campaign(
    seed: int, plan: Plan | None = None, mutate: Callable[[Campaign], None] = lambda _campaign: None
) -> Campaign:
    """Simulate a campaign to its end.

    Raises:
        Violation: An invariant does not hold.
    """
    campaign = Campaign(seed, plan or plan_of(seed), mutate)
    try:
        campaign.world.run()
    except QueueAwayError as error:  # the product lets nothing of the kind out of its loops
        raise Violation(f"{error!r} reached an actor") from error
    campaign.referee.end()
    return campaign


def plan_of(seed: int) -> Plan:
    """Return what takes part for a seed: every mode, with and without each kind of trouble."""
    modes: tuple[Mode, ...] = ("packed", "single", "packed", "array")
    return Plan(mode=modes[seed % 4], candidates=2 + seed % 3, local_workers=seed // 4 % 2, user=seed // 8 % 4 > 0)
