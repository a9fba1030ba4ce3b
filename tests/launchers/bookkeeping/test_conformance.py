"""The simulated LaunchPad and documents do what the real ones do: the same random calls to both, on a real MongoDB."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from fireworks import Firework, FWAction, FWorker, ScriptTask, Workflow

from hullworks.documents import Candidate, Worker, now
from hullworks.errors import StateError
from hullworks.launchers.bookkeeping.adding import ADDING
from hullworks.launchers.bookkeeping.launchpad_pad import FireworksGraph, LaunchPadPad
from hullworks.launchers.bookkeeping.mongo_book import MongoBook
from hullworks.launchers.bookkeeping.records import EndedRun, Job, Move, PadRun, Resources, Why
from hullworks.launchers.launchpad import CALCULATION_FIELD
from hullworks.states import OPEN_JOBS, CandidateState, Cause, QueueJobState
from tests.simulation.sim_book import SimBook
from tests.simulation.sim_pad import SimGraph, SimPad

if TYPE_CHECKING:
    from collections.abc import Callable

    from fireworks import LaunchPad

    from hullworks.launchers.bookkeeping.stores import Graph

S = CandidateState
STEPS = ("relax", "static", "land")
CALCULATIONS = tuple(f"calc-{number}" for number in range(3))
ALL = frozenset({"WAITING", "READY", "RESERVED", "RUNNING", "COMPLETED", "FIZZLED", "DEFUSED", "PAUSED", "ARCHIVED"})


class RealPad:
    """A real LaunchPad, with what FireWorks' workers do to it."""

    def __init__(self, launchpad: LaunchPad) -> None:
        self.raw = launchpad
        self.pad = LaunchPadPad(launchpad)

    def graph(self, calculation: str) -> Graph:
        """Return a workflow of three steps."""
        spec = {"candidate_id": f"cand-of-{calculation}", "calculation_id": calculation}
        fireworks: list[Firework] = []
        for step in STEPS:
            fireworks.append(Firework([ScriptTask.from_str("true")], name=step, spec=spec, parents=fireworks[-1:]))
        return FireworksGraph(Workflow(fireworks, metadata=spec))

    def check_out(self, worker: str, fw_id: int) -> None:
        """A worker takes a ready firework."""
        self.raw.checkout_fw(FWorker(name=worker, query={"fw_id": fw_id}), "/nowhere")

    def complete(self, launch_id: int, state: str) -> None:
        """A worker says how a launch ended."""
        self.raw.complete_launch(launch_id, FWAction(), state)

    def cut(self, launch_id: int) -> None:
        """A worker is killed after it said that its launch ended well, before anything followed from it."""
        ended = {"state": "COMPLETED", "action": FWAction().to_dict()}
        self.raw.launches.update_one({"launch_id": launch_id}, {"$set": ended})

    def half(self, calculation: str) -> None:
        """A feeder is killed while it adds a workflow: its last firework is missing."""
        graph = self.graph(calculation)
        self.pad.add(graph)
        found = self.raw.workflows.find_one_and_update({CALCULATION_FIELD: calculation}, {"$set": {ADDING: True}})
        own = {"fw_id": {"$in": found["nodes"]}}
        self.raw.fireworks.update_many(own, {"$set": {"state": "WAITING"}})
        self.raw.fireworks.delete_one({"fw_id": max(found["nodes"])})

    def lock(self, calculation: str) -> None:
        """A worker is killed while it holds a workflow."""
        self.raw.workflows.update_one({CALCULATION_FIELD: calculation}, {"$set": {"locked": True}})


class FakePad:
    """The simulated one, with the same."""

    def __init__(self) -> None:
        self.pad = SimPad(lambda _what: None, lambda: datetime.now(UTC), lambda _seconds: None)

    def graph(self, calculation: str) -> Graph:
        """Return a workflow of three steps."""
        return SimGraph(calculation, f"cand-of-{calculation}", STEPS)

    def check_out(self, worker: str, fw_id: int) -> None:
        """A worker takes a ready firework."""
        self.pad.check_out(worker, "/nowhere", fw_id=fw_id, only_ready=True)

    def complete(self, launch_id: int, state: str) -> None:
        """A worker says how a launch ended."""
        self.pad.complete(launch_id, state)

    def cut(self, launch_id: int) -> None:
        """A worker is killed after it said that its launch ended well."""
        self.pad.launches[launch_id] = replace(self.pad.launches[launch_id], state="COMPLETED")

    def half(self, calculation: str) -> None:
        """A feeder is killed while it adds a workflow."""
        self.pad.add(self.graph(calculation))
        workflow = self.pad.workflows_[calculation]
        self.pad.workflows_[calculation] = replace(workflow, adding=1)
        for fw_id in workflow.nodes:
            self.pad.fireworks[fw_id] = replace(self.pad.fireworks[fw_id], state="WAITING")
        del self.pad.fireworks[max(workflow.nodes)]

    def lock(self, calculation: str) -> None:
        """A worker is killed while it holds a workflow."""
        workflow = self.pad.workflows_.get(calculation)
        if workflow is not None:
            self.pad.workflows_[calculation] = replace(workflow, locked=True)


Side = RealPad | FakePad


def _run(run: PadRun) -> tuple[Any, ...]:
    """Return of a run what both must agree on: all but times, hosts and folders."""
    launch = run.launch and (run.launch.launch_id, run.launch.state, run.launch.worker_id)
    return run.fw_id, run.step, run.state, run.candidate_id, run.calculation_id, launch


def _snapshot(side: Side) -> dict[str, Any]:
    pad = side.pad
    runs = pad.runs(ALL)
    numbers = [run.fw_id for run in runs]
    return {
        "workflows": pad.workflows(CALCULATIONS),
        "runs": [_run(run) for run in runs],
        "free": [_run(run) for run in pad.runs({"READY"})],
        "of": [_run(run) for run in pad.runs_of(numbers[:2])],
        "ready": pad.count_ready(),
        "strays": pad.strays([*numbers, 999]),
        "finished": sorted(run.launch.launch_id for run in pad.finished() if run.launch is not None),
        "reserved": [pad.reserved_for(number) for number in numbers],
        "locked": sorted(lock.nodes for lock in pad.locked()),
    }


def _draw(chance: random.Random, side: Side, old: list[PadRun]) -> tuple[str, Callable[[Side], object]]:
    """Return one call, drawn from what stands on a LaunchPad; whatever it names is there on both."""
    runs = side.pad.runs(ALL)
    locked = {number for lock in side.pad.locked() for number in lock.nodes}
    free = [run for run in runs if run.fw_id not in locked]
    calculation = chance.choice(CALCULATIONS)
    touched = any(run.fw_id in locked for run in runs if run.calculation_id == calculation)
    state = chance.choice(("PAUSED", "DEFUSED"))
    calls: list[tuple[str, Callable[[Side], object]]] = [
        (f"add {calculation}", lambda on: on.pad.add(on.graph(calculation))),
        (f"remove {calculation}", lambda on: on.pad.remove_half(calculation)),
        (f"hold {calculation}", lambda on: on.pad.hold([calculation], state)),
        (f"lock {calculation}", lambda on: on.lock(calculation)),
        ("unlock", lambda on: [on.pad.unlock(lock) for lock in on.pad.locked()]),
        ("unlock", lambda on: [on.pad.unlock(lock) for lock in on.pad.locked()]),
        (
            "recorded",
            lambda on: on.pad.note_recorded([run.launch.launch_id for run in on.pad.finished() if run.launch]),
        ),
    ]
    if not touched:
        calls += [
            (f"mend {calculation}", lambda on: on.pad.mend(calculation)),
            (f"revive {calculation}", lambda on: on.pad.revive(calculation)),
        ]
    if calculation not in side.pad.workflows([calculation]):
        calls.append((f"half {calculation}", lambda on: on.half(calculation)))
    for run in chance.sample(free, min(3, len(free))):
        calls += _calls_on(run, chance)
    if old:
        stale = chance.choice(old)
        if stale.fw_id not in locked:
            calls.append((f"give back stale {stale.fw_id}", lambda on: on.pad.give_back(stale)))
    return chance.choice(calls)


def _calls_on(run: PadRun, chance: random.Random) -> list[tuple[str, Callable[[Side], object]]]:
    """Return the calls that make sense of a firework as it is."""
    number, launch = run.fw_id, run.launch
    if run.state == "READY":
        job = f"job-{chance.randrange(9)}"
        return [
            (f"check out {number}", lambda on: on.check_out("w", number)),
            (f"reserve {number}", lambda on: on.pad.reserve(number, job)),
        ]
    if launch is None or run.state not in {"RUNNING", "RESERVED", "FIZZLED"}:
        return []
    calls: list[tuple[str, Callable[[Side], object]]] = [
        (f"give back {number}", lambda on: on.pad.give_back(run)),
        (f"fizzle {number}", lambda on: on.pad.fizzle(run)),
    ]
    if run.state == "RUNNING" and launch.state == "RUNNING":
        calls += [
            (f"complete {number}", lambda on: on.complete(launch.launch_id, "COMPLETED")),
            (f"fail {number}", lambda on: on.complete(launch.launch_id, "FIZZLED")),
            (f"cut {number}", lambda on: on.cut(launch.launch_id)),
        ]
    return [*calls, (f"refresh {number}", lambda on: on.pad.refresh(number))]


@pytest.mark.parametrize("seed", range(8))
def test_the_simulated_launchpad_is_like_the_real_one(launchpad: LaunchPad, seed: int) -> None:
    """After each of many random calls both say the same of everything that the port can tell."""
    chance = random.Random(seed)
    real, fake = RealPad(launchpad), FakePad()
    old: list[PadRun] = []
    said: list[str] = []
    for _ in range(40):
        name, call = _draw(chance, fake, old)
        said.append(name)
        assert call(real) == call(fake), said
        assert _snapshot(real) == _snapshot(fake), said
        old = [*old, *fake.pad.runs({"RUNNING", "RESERVED"})][-10:]


# ------------------------------------------------------------------------------------------------------------ documents
def _both(n: int) -> tuple[MongoBook, SimBook]:
    """Return both books with the same candidates."""
    fake = SimBook(lambda _what: None, now)
    real = MongoBook()
    for number in range(n):
        name = f"cand-{number}"
        Candidate(
            candidate_id=name,
            row_id=f"row-{number}",
            batch=f"b{number % 2}",
            level_key="l",
            source_file="f",
            source_row=number,
            state=S.QUEUED,
            rank=float(number),
            calculation_id=f"calc-{number}",
        ).save(force_insert=True)
        fake.candidates[name] = real.cases_of([name])[name]
    return real, fake


def _cases(book: MongoBook | SimBook) -> list[tuple[Any, ...]]:
    names = [f"cand-{number}" for number in range(5)]
    found = book.cases_of(names)
    return [(c.candidate_id, c.state, c.batch, c.resources, c.budget_since is None) for c in found.values()]


@pytest.mark.usefixtures("mongod")
@pytest.mark.parametrize("seed", range(4))
def test_the_simulated_documents_move_like_the_real_ones(seed: int) -> None:
    """Moves by what was seen now or long ago: both make the same, and refuse the same."""
    chance = random.Random(seed)
    real, fake = _both(5)
    seen: list[tuple[str, Any, Any]] = []
    for _ in range(60):
        name = f"cand-{chance.randrange(5)}"
        seen = [*seen, (name, real.cases_of([name])[name], fake.cases_of([name])[name])][-12:]
        _, of_real, of_fake = chance.choice(seen)
        new, fresh = chance.choice(list(S)), chance.random() < 0.3
        made = []
        for book, case in ((real, of_real), (fake, of_fake)):
            move = Move(case, new, "why", cause=Cause.LOST, reason=Why("c", "t"), fresh_budget=fresh)
            try:
                made.append(book.move([move]))
            except StateError:
                made.append(-1)
        assert made[0] == made[1]
        assert _cases(real) == _cases(fake)
        states = chance.sample(list(S), 3)
        assert real.count(states) == fake.count(states)
        chosen = [[c.candidate_id for c in book.cases(states, batch="b1", limit=2)] for book in (real, fake)]
        assert chosen[0] == chosen[1]


def _ended(launch_id: int, cause: Cause, moment: datetime) -> EndedRun:
    return EndedRun(launch_id, 1, "cand-0", "calc-0", "relax", "w", "job", "h", "/d", cause, "o", ("e",), moment)


@pytest.mark.usefixtures("mongod")
def test_the_simulated_documents_record_like_the_real_ones() -> None:
    """Runs once, failures counted since a time, remedies once per run."""
    books = _both(1)
    moment = now()
    for book in books:
        for launch_id, cause, ago in ((1, Cause.LOST, 100), (2, Cause.LOST, 0), (1, Cause.WALLTIME, 0)):
            book.record(_ended(launch_id, cause, moment - timedelta(seconds=ago)))
        for walltime_s in (10.0, 20.0):
            book.remedy(_ended(1, Cause.LOST, moment), Resources(walltime_s), "again")
    real, fake = books
    assert real.recorded([1, 2, 3]) == fake.recorded([1, 2, 3])
    assert real.recorded([1])[1][0] is Cause.LOST
    for since in (None, moment):
        assert real.failures("cand-0", "relax", since) == fake.failures("cand-0", "relax", since)
    assert real.failures("cand-0", "relax", moment)[Cause.LOST] == 1
    assert _cases(real) == _cases(fake)
    assert real.cases_of(["cand-0"])["cand-0"].resources == Resources(10.0)


@pytest.mark.usefixtures("mongod")
def test_the_simulated_documents_keep_jobs_like_the_real_ones() -> None:
    """Planned, noted only as they were seen, counted per account and per node."""
    books = _both(0)
    moment = now()
    for book in books:
        for number, account in enumerate(("a", "a", "b")):
            planned = moment - timedelta(seconds=10 - number)
            book.plan(Job(f"job-{number}", "single", planned, 60.0, account_key=account, fw_ids=(number,)))
        seen = book.jobs_of(["job-0"])["job-0"]
        changes: dict[str, object] = {"state": QueueJobState.ENDED, "end": "NODE_FAIL", "ended_at": moment}
        assert book.note_job(seen, **changes, ran_on=("n1", "n2"), evidence=("e",), cause=Cause.NODE_FAILURE)
        assert not book.note_job(seen, state=QueueJobState.RUNNING)
    real, fake = books
    assert real.jobs(OPEN_JOBS) == fake.jobs(OPEN_JOBS)
    assert real.jobs_of(["job-0", "job-9"]) == fake.jobs_of(["job-0", "job-9"])
    for account in ("a", "b"):
        since = moment - timedelta(seconds=9)
        assert real.planned_since(account, since) == fake.planned_since(account, since)
    assert real.node_failures(moment) == fake.node_failures(moment) == {"n1": 1, "n2": 1}


@pytest.mark.usefixtures("mongod")
def test_the_simulated_documents_doubt_and_lease_like_the_real_ones() -> None:
    """Doubts are those of the last look; a lease is held by one, and free again when he has given it up."""
    moment = now()
    for book in _both(0):
        assert book.doubts() == (None, {})
        book.keep_doubts(moment, {"a.b": moment})
        book.keep_doubts(moment, {"c": moment})
        assert book.doubts() == (moment, {"c": moment})
        with book.lease("x", 60) as held:
            assert held
            with book.lease("x", 60) as second:
                assert not second
        with book.lease("x", 60) as again:
            assert again


@pytest.mark.usefixtures("mongod")
def test_a_worker_in_a_queue_job_is_known_by_it() -> None:
    """Its job and the queue's number of it are on record with its process."""
    Worker(
        worker_id="w", host="h", boot_id="b", pid=1, process_started=2, started_at=now(), job="job-1", job_id="17_3"
    ).save(force_insert=True)
    found = MongoBook().workers(["w", "x"])
    assert list(found) == ["w"]
    assert (found["w"].job, found["w"].job_id, found["w"].process) == ("job-1", "17_3", (1, 2, "b", "h"))
