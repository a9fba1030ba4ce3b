"""The launch loop's core on the simulated ports: what it submits, what it says, what it survives."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from hullworks.errors import JobRejectedError, QueueAwayError
from hullworks.launchers.bookkeeping.look import Ports
from hullworks.launchers.bookkeeping.loop import LaunchLoop, Policy, load_loop_rules
from hullworks.launchers.bookkeeping.ports import EndedJob, JobEnd, JobRequest, JobState, LiveJob
from hullworks.launchers.bookkeeping.records import Case, Job, Resources
from hullworks.states import CandidateState, QueueJobState
from tests.simulation.sim_book import SimBook
from tests.simulation.sim_pad import SimGraph, SimPad
from tests.simulation.world import START, AwayError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from datetime import datetime

S = CandidateState


class Clock:
    """A clock that is moved by hand."""

    time = START

    def now(self) -> datetime:
        """As the port says."""
        self.time += timedelta(milliseconds=1)
        return self.time

    def sleep(self, seconds: float) -> None:
        """As the port says."""
        self.time += timedelta(seconds=seconds)


class Queue:
    """A queue that does what it is told."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.jobs: dict[str, LiveJob] = {}
        self.past: list[EndedJob] = []
        self.away = False
        self.reject: Callable[[JobRequest], bool] = lambda _request: False

    def submit(self, request: JobRequest) -> str:
        """As the port says."""
        if self.away:
            raise QueueAwayError("no answer")
        if self.reject(request):
            raise JobRejectedError("Invalid account")
        number = str(len(self.jobs) + len(self.past) + 1)
        self.jobs[request.name] = LiveJob(number, request.name, self.clock.now(), JobState.PENDING)
        return number

    def live(self) -> list[LiveJob]:
        """As the port says."""
        if self.away:
            raise QueueAwayError("no answer")
        return list(self.jobs.values())

    def ended(self, names: Collection[str]) -> list[EndedJob]:
        """As the port says."""
        return [job for job in self.past if job.name in names]

    def cancel(self, job_ids: Collection[str]) -> None:
        """As the port says."""
        for name, job in list(self.jobs.items()):
            if job.job_id in job_ids:
                self.end(name, JobEnd.CANCELLED)

    def end(self, name: str, how: JobEnd, node: str = "n1") -> None:
        """End a job."""
        job = self.jobs.pop(name)
        self.past.append(
            EndedJob(job.job_id, name, job.submitted_at, how, ended_at=self.clock.now(), nodes=(node,), source="sacct")
        )


class Bench:
    """A loop with everything that it works on."""

    def __init__(self, n: int, policy: Policy) -> None:
        self.clock = Clock()
        self.down = False
        self.book = SimBook(self._step, self.clock.now)
        self.pad = SimPad(self._step, self.clock.now, self.clock.sleep)
        self.queue = Queue(self.clock)
        for number in range(n):
            name = f"cand-{number:03d}"
            self.book.candidates[name] = Case(name, f"calc-{number:03d}", S.QUEUED, START)
        self.ports = Ports(self.book, self.pad, _Nobody(), self.clock, self.queue)
        self.requests: list[Job] = []
        self.policy = policy

    def _step(self, _what: str) -> None:
        if self.down:
            raise AwayError

    def loop(self, *policies: Policy) -> LaunchLoop:
        """Return a loop, of its own or of these policies."""
        return LaunchLoop(
            self.ports, self._build, list(policies or (self.policy,)), self._request, window=200, away=(AwayError,)
        )

    def _build(self, candidate_ids: Sequence[str]) -> dict[str, SimGraph]:
        cases = [self.book.candidates[name] for name in candidate_ids]
        return {case.candidate_id: SimGraph(case.calculation_id, case.candidate_id, ("relax",)) for case in cases}

    def _request(self, job: Job) -> JobRequest:
        self.requests.append(job)
        return JobRequest(job.name, "c", "", job.n_tasks)

    def in_state(self, state: QueueJobState) -> list[Job]:
        """Return the jobs in the books."""
        return [job for job in self.book.queue_jobs.values() if job.state is state]


class _Nobody:
    def report(self, _directory: str) -> dict[str, Any]:
        return {}

    def lives(self, _worker: object) -> bool | None:
        return None


def test_single_runs_are_reserved_each_for_a_job_of_its_own() -> None:
    """With what experience shows that they need; what is reserved is not submitted again."""
    bench = Bench(3, Policy(mode="single", walltime_s=100.0))
    name = "cand-001"
    bench.book.candidates[name] = replace(bench.book.candidates[name], resources=Resources(500.0, 9000.0))
    loop = bench.loop()
    assert loop.tick().done["jobs submitted"] == 3
    assert not loop.tick().done["jobs submitted"]
    assert [(job.walltime_s, job.memory_MB) for job in bench.requests] == [
        (100.0, None),
        (500.0, 9000.0),
        (100.0, None),
    ]
    reserved = [run.launch.worker_id for run in bench.pad.runs({"RESERVED"}) if run.launch is not None]
    assert reserved == [job.name for job in bench.in_state(QueueJobState.SUBMITTED)]


def test_allocations_are_as_many_as_there_is_work_for() -> None:
    """Nine runs, four at a time and two after one another: two allocations; they are not asked for again."""
    bench = Bench(9, Policy(mode="packed", slots=4, runs_per_slot=2))
    loop = bench.loop()
    assert loop.tick().done["jobs submitted"] == 2
    assert not loop.tick().done["jobs submitted"]


def test_an_array_has_a_task_for_each_run() -> None:
    """In arrays of at most so many."""
    bench = Bench(7, Policy(mode="array", max_array=4))
    bench.loop().tick()
    assert [job.n_tasks for job in bench.requests] == [4, 3]


def test_throttles_hold_for_all_loops_together() -> None:
    """Most jobs in the queue, and most submissions in a minute; the loop says which it waits for."""
    bench = Bench(30, Policy(mode="single", max_jobs=5, max_per_minute=3))
    first, second = bench.loop(), bench.loop()
    assert first.tick().done["jobs submitted"] == 3
    held = second.tick()
    assert not held.done["jobs submitted"]
    assert "submissions in this minute" in held.waits[0]
    bench.clock.sleep(61)
    assert second.tick().done["jobs submitted"] == 2
    bench.clock.sleep(61)
    full = first.tick()
    assert not full.done["jobs submitted"]
    assert "jobs in the queue" in full.waits[0]
    assert full.n_jobs == 5


def test_a_rejected_job_is_said_and_the_loop_backs_off() -> None:
    """Its run is ready again, others are tried, then nothing for a while; another account goes on."""
    bench = Bench(10, Policy(mode="single", partition="bad"))
    bench.queue.reject = lambda request: bench.book.queue_jobs[request.name].partition == "bad"
    loop = bench.loop(bench.policy, Policy(mode="single", partition="good", max_jobs=2))
    tick = loop.tick()
    assert any("Invalid account" in wait for wait in tick.waits)
    assert tick.done["jobs rejected"] == load_loop_rules().most_rejections
    assert tick.done["jobs submitted"] == 2
    again = loop.tick()
    assert not again.done["jobs rejected"]
    assert any("was not taken" in wait for wait in again.waits)
    assert len(bench.pad.runs({"RESERVED"})) == 2, "what was rejected is free again"
    bench.clock.sleep(load_loop_rules().back_off_s + 1)
    bench.queue.reject = lambda _request: False
    assert loop.tick().done["jobs submitted"] == 8


def test_a_submission_without_an_answer_is_found_out_later() -> None:
    """Planned before; when the queue has it, it is taken into the books, else it was never submitted."""
    bench = Bench(2, Policy(mode="single"))
    loop = bench.loop()
    original = bench.queue.submit

    def loses_the_answer(request: JobRequest) -> str:
        if not bench.queue.jobs:
            original(request)
        raise QueueAwayError("no answer")

    bench.queue.submit = loses_the_answer  # type: ignore[method-assign]
    assert any("does not answer" in wait for wait in loop.tick().waits)
    assert any("does not answer" in wait for wait in loop.tick().waits)
    assert len(bench.in_state(QueueJobState.PLANNED)) + len(bench.in_state(QueueJobState.SUBMITTED)) == 2
    bench.queue.submit = original  # type: ignore[method-assign]
    for _ in range(6):
        bench.clock.sleep(100)
        loop.tick()
    assert len(bench.in_state(QueueJobState.NEVER_SUBMITTED)) == 1
    assert len(bench.in_state(QueueJobState.SUBMITTED)) == 2, "the other run was submitted anew"


@pytest.mark.parametrize("part", ["queue", "database"])
def test_what_is_away_is_waited_for(part: str) -> None:
    """The loop says so, and submits when it is back."""
    bench = Bench(2, Policy(mode="packed"))
    loop = bench.loop()
    bench.queue.away, bench.down = part == "queue", part == "database"
    assert any(part in wait for wait in loop.tick().waits)
    bench.queue.away = bench.down = False
    for _ in range(4):
        bench.clock.sleep(100)
        loop.tick()
    assert len(bench.in_state(QueueJobState.SUBMITTED)) == 2


def test_a_node_that_failed_jobs_is_avoided_for_a_time() -> None:
    """And tried again when the time is over."""
    bench = Bench(8, Policy(mode="packed", slots=1, max_jobs=1))
    loop = bench.loop()
    for _ in range(bench.ports.rules.node_failures):
        loop.tick()
        bench.queue.end(next(iter(bench.queue.jobs)), JobEnd.NODE_FAIL, "n7")
    loop.tick()
    assert bench.requests[-1].excluded == ("n7",)
    bench.queue.end(next(iter(bench.queue.jobs)), JobEnd.COMPLETED)
    bench.clock.sleep(bench.ports.rules.node_window.total_seconds() + 1)
    loop.tick()
    assert not bench.requests[-1].excluded


def test_a_job_whose_run_is_held_is_taken_out_of_the_queue() -> None:
    """By its name: whatever its number is by now."""
    bench = Bench(2, Policy(mode="single"))
    loop = bench.loop()
    loop.tick()
    name = "cand-000"
    bench.book.candidates[name] = replace(bench.book.candidates[name], state=S.PAUSED)
    assert loop.tick().done["withdrawn"] == 1
    assert len(bench.queue.jobs) == 1
    loop.tick()
    states = {run.candidate_id: run.state for run in bench.pad.runs({"PAUSED", "RESERVED", "READY"})}
    assert states == {"cand-000": "PAUSED", "cand-001": "RESERVED"}
