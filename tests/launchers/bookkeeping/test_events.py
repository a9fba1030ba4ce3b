"""What can happen to a campaign on a queue, event by event, on a real LaunchPad and MongoDB; the queue is scripted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from fireworks import Firework, FWAction, FWorker, ScriptTask, Workflow

from hullworks.documents import Candidate, QueueJob, Run, Worker, now
from hullworks.errors import QueueAwayError
from hullworks.launchers.bookkeeping import lifecycle
from hullworks.launchers.bookkeeping.feeding import feed
from hullworks.launchers.bookkeeping.launchpad_pad import FireworksGraph, LaunchPadPad
from hullworks.launchers.bookkeeping.mongo_book import MongoBook
from hullworks.launchers.bookkeeping.patience import load_patience
from hullworks.launchers.bookkeeping.ports import EndedJob, JobEnd, JobRequest, JobState, LiveJob
from hullworks.launchers.bookkeeping.reconciliation import reconcile
from hullworks.launchers.bookkeeping.records import Job
from hullworks.launchers.reconcile import real_ports
from hullworks.states import CandidateState, Cause, QueueJobState

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime
    from pathlib import Path

    from fireworks import LaunchPad

    from hullworks.launchers.bookkeeping.look import Ports

S = CandidateState
JOB = "job-1"
IMPATIENT = replace(load_patience(), grace_s=0.0, plan_s=0.0, forgotten_s=0.0, silence_s=0.0)


@dataclass
class Script:
    """A queue that says what it is told to say."""

    alive: list[LiveJob] = field(default_factory=list)
    past: list[EndedJob] = field(default_factory=list)
    away: bool = False
    cancelled: list[str] = field(default_factory=list)

    def submit(self, request: JobRequest) -> str:
        """As the port says."""
        raise NotImplementedError(request.name)

    def live(self) -> list[LiveJob]:
        """As the port says."""
        if self.away:
            raise QueueAwayError("no answer")
        return self.alive

    def ended(self, names: Collection[str]) -> list[EndedJob]:
        """As the port says."""
        return [job for job in self.past if job.name in names]

    def cancel(self, job_ids: Collection[str]) -> None:
        """As the port says."""
        self.cancelled += job_ids


@dataclass
class Desk:
    """The books, with one candidate, and a queue to play with."""

    launchpad: LaunchPad
    queue: Script
    ports: Ports
    folder: Path

    def submit(self, state: CandidateState = S.SUBMITTED) -> None:
        """Put one candidate and its workflow of two steps there."""
        Candidate(
            candidate_id="cand-1",
            row_id="row-1",
            batch="b",
            level_key="l",
            source_file="f",
            source_row=1,
            state=state,
            state_since=now() - timedelta(minutes=5),
            calculation_id="calc-1",
        ).save(force_insert=True)
        self.ports.pad.add(graph())

    def plan(self, state: QueueJobState, mode: str = "packed") -> None:
        """Put a queue job into the books."""
        QueueJob(
            name=JOB,
            mode=mode,
            state=state,
            walltime_s=3600.0,
            planned_at=now(),
            fw_ids=[1] if mode == "single" else [],
        ).save(force_insert=True)

    def take(self, job: str = JOB, started: datetime | None = None) -> None:
        """Let a worker in a queue job take the run."""
        Worker(
            worker_id="w",
            host="elsewhere",
            boot_id="another",
            pid=1,
            process_started=1,
            started_at=started or now(),
            job=job,
            job_id="17",
        ).save(force_insert=True)
        assert self.launchpad.checkout_fw(FWorker(name="w"), str(self.folder))[0] is not None

    def look(self, *, impatient: bool = False) -> Counter[str]:
        """Reconcile."""
        ports = replace(self.ports, patience=IMPATIENT) if impatient else self.ports
        look = reconcile(ports)
        assert look is not None
        return look.done

    def states(self) -> list[str]:
        """Return the states of the fireworks, first step first."""
        return [item["state"] for item in self.launchpad.fireworks.find().sort("fw_id", 1)]


def graph() -> FireworksGraph:
    """Return a workflow of two steps."""
    spec = {"candidate_id": "cand-1", "calculation_id": "calc-1"}
    first = Firework([ScriptTask.from_str("true")], name="relax 1", spec=spec)
    second = Firework([ScriptTask.from_str("true")], name="static", spec=spec, parents=[first])
    return FireworksGraph(Workflow([first, second], metadata=spec))


@pytest.fixture
def desk(launchpad: LaunchPad, tmp_path: Path) -> Desk:
    """Books without anything in them."""
    queue = Script()
    return Desk(launchpad, queue, real_ports(launchpad, lost_after_s=600, queue=queue), tmp_path)


def live(state: JobState = JobState.RUNNING, *, started: datetime | None = None, name: str = JOB) -> LiveJob:
    """Return what the queue says of a job that it holds."""
    return LiveJob("17", name, now() - timedelta(minutes=9), state, started_at=started, nodes=("n1",))


def ended(how: JobEnd, *, at: datetime | None = None, name: str = JOB, job_id: str = "17") -> EndedJob:
    """Return what the queue says of a job that it held."""
    return EndedJob(
        job_id, name, now() - timedelta(minutes=9), how, ended_at=at or now(), nodes=("n1",), source="sacct"
    )


@pytest.mark.parametrize(
    ("how", "cause"),
    [
        (JobEnd.TIMEOUT, Cause.WALLTIME),
        (JobEnd.OUT_OF_MEMORY, Cause.OUT_OF_MEMORY),
        (JobEnd.NODE_FAIL, Cause.NODE_FAILURE),
        (JobEnd.PREEMPTED, Cause.PREEMPTED),
        (JobEnd.CANCELLED, Cause.CANCELLED),
        (JobEnd.FAILED, Cause.LOST),
    ],
)
def test_a_run_whose_job_ended_is_given_back_with_its_cause(desk: Desk, how: JobEnd, cause: Cause) -> None:
    """At the next look, not after minutes of silence; while its job runs it is left alone."""
    desk.submit()
    desk.plan(QueueJobState.SUBMITTED)
    desk.take()
    desk.queue.alive = [live(started=now() - timedelta(seconds=60))]
    assert desk.look() == Counter(started=1)
    assert QueueJob.objects.get().state is QueueJobState.RUNNING
    desk.queue.alive, desk.queue.past = [], [ended(how)]
    assert desk.look() == Counter({"lost": 1, "jobs ended": 1})
    assert desk.states() == ["READY", "WAITING"]
    run, job, candidate = Run.objects.get(), QueueJob.objects.get(), Candidate.objects.get()
    assert (run.cause, run.job) == (cause, JOB)
    assert "sacct" in run.evidence[0]
    assert (job.state, job.end, job.ran_on) == (QueueJobState.ENDED, how.value, ["n1"])
    assert [note.cause for note in candidate.remedies] == [cause]
    assert desk.look() == Counter()


@pytest.mark.parametrize("how", ["away", "none"])
def test_without_an_answer_of_the_queue_its_runs_are_left_alone(desk: Desk, how: str) -> None:
    """Also by a launch on a machine that has no queue; what is silent there may live."""
    desk.submit(S.RUNNING)
    desk.plan(QueueJobState.RUNNING)
    desk.take()
    desk.queue.away = True
    if how == "none":
        desk.ports = replace(desk.ports, queue=None)
    desk.ports = replace(desk.ports, lost_after_s=-1.0)
    assert desk.look(impatient=True) == Counter()
    assert desk.states() == ["RUNNING", "WAITING"]


def test_a_job_that_was_started_anew_has_lost_its_first_runs(desk: Desk) -> None:
    """The cause is that of its first end; a run of its second start is not touched."""
    desk.submit(S.RUNNING)
    desk.plan(QueueJobState.RUNNING)
    desk.take(started=now() - timedelta(minutes=8))
    desk.queue.alive = [live(started=now())]
    desk.queue.past = [ended(JobEnd.PREEMPTED, at=now() - timedelta(minutes=3))]
    assert desk.look()["lost"] == 1
    assert Run.objects.get().cause is Cause.PREEMPTED
    Worker.objects.delete()
    desk.take(started=now() + timedelta(seconds=1))
    assert desk.look() == Counter()


def test_a_number_that_comes_twice_does_not_confuse(desk: Desk) -> None:
    """Another job has the same number now: names tell them apart."""
    desk.submit(S.RUNNING)
    desk.plan(QueueJobState.RUNNING)
    desk.take()
    desk.queue.alive = [live(started=now(), name="job-of-another-time")]
    desk.queue.past = [ended(JobEnd.OUT_OF_MEMORY)]
    assert desk.look()["lost"] == 1
    assert Run.objects.get().cause is Cause.OUT_OF_MEMORY


def test_a_job_that_the_queue_forgot_is_not_the_end_of_a_run_that_speaks(desk: Desk) -> None:
    """A controller that crashed forgets jobs that go on: the run is lost when it is silent too."""
    desk.submit(S.RUNNING)
    desk.plan(QueueJobState.RUNNING)
    desk.take()
    assert desk.look(impatient=True) == Counter({"jobs ended": 1})
    assert QueueJob.objects.get().end == JobEnd.GONE.value
    assert desk.look(impatient=True) == Counter()
    desk.ports = replace(desk.ports, lost_after_s=-1.0)
    assert desk.look(impatient=True) == Counter(lost=1)


@pytest.mark.parametrize(
    "state", [QueueJobState.REJECTED, QueueJobState.NEVER_SUBMITTED, QueueJobState.ENDED, QueueJobState.PLANNED]
)
def test_a_reservation_without_a_job_is_given_back(desk: Desk, state: QueueJobState) -> None:
    """Rejected, ended while it waited, never submitted: also when nobody noted that."""
    desk.submit()
    desk.plan(state, "single")
    assert desk.ports.pad.reserve(1, JOB)
    assert not desk.ports.pad.reserve(1, "job-2"), "one job has it"
    assert desk.ports.pad.reserved_for(1) == JOB
    if state is QueueJobState.PLANNED:
        assert not desk.look()
        assert desk.look(impatient=True)["never submitted"] == 1
    assert desk.look()["reservations given back"] + desk.states().count("READY") >= 1
    assert desk.states() == ["READY", "WAITING"]


def test_a_job_that_nobody_noted_is_found_by_its_name(desk: Desk) -> None:
    """Its submitter was killed before he noted the number: its reservation stays."""
    desk.submit()
    desk.plan(QueueJobState.PLANNED, "single")
    assert desk.ports.pad.reserve(1, JOB)
    desk.queue.alive = [live(JobState.PENDING)]
    assert desk.look(impatient=True) == Counter({"jobs found": 1})
    job = QueueJob.objects.get()
    assert (job.state, job.job_id) == (QueueJobState.SUBMITTED, "17")
    assert desk.states() == ["RESERVED", "WAITING"]


def test_a_workflow_left_locked_is_freed(desk: Desk) -> None:
    """By whoever was killed with it; one that is written to in the meantime is not."""
    desk.submit()
    desk.launchpad.workflows.update_one({}, {"$set": {"locked": True}})
    assert desk.look() == Counter()
    assert "locked" in desk.launchpad.workflows.find_one()
    assert desk.look(impatient=True)["unlocked"] == 1
    assert "locked" not in desk.launchpad.workflows.find_one()


def test_a_step_that_was_not_let_go_is_let_go(desk: Desk) -> None:
    """FireWorks was killed between the end of the first step and the release of the second."""
    desk.submit(S.RUNNING)
    desk.take(job="")
    launch = desk.launchpad.launches.find_one()
    desk.launchpad.complete_launch(launch["launch_id"], FWAction(), "COMPLETED")
    desk.launchpad.workflows.update_one({}, {"$set": {"fw_states.1": "RUNNING", "fw_states.2": "WAITING"}})
    desk.launchpad.fireworks.update_one({"fw_id": 2}, {"$set": {"state": "WAITING"}})
    assert desk.look() == Counter(runs=1)
    assert desk.look(impatient=True) == Counter(mended=1)
    assert desk.states() == ["COMPLETED", "READY"]
    assert desk.look() == Counter()


def test_a_workflow_without_a_candidate_is_stopped(desk: Desk) -> None:
    """Nobody asked for it any more."""
    desk.submit()
    Candidate.objects.delete()
    assert desk.look() == Counter()
    assert desk.look(impatient=True) == Counter(held=2)
    assert desk.states() == ["DEFUSED", "DEFUSED"]


def test_what_no_workflow_has_is_put_away(desk: Desk) -> None:
    """FireWorks stores what a workflow grows by before it says so, and was killed in between."""
    desk.submit()
    stray = {**desk.launchpad.fireworks.find_one({"fw_id": 1}), "fw_id": 99}
    del stray["_id"]
    desk.launchpad.fireworks.insert_one(stray)
    assert desk.look() == Counter()
    assert desk.look(impatient=True) == Counter(strays=1)
    assert desk.states() == ["READY", "WAITING", "ARCHIVED"]


def built(candidate_ids: Sequence[str]) -> dict[str, FireworksGraph]:
    """Return the graphs of candidates."""
    return {name: graph() for name in candidate_ids}


def test_what_its_user_held_back_does_not_start_again(desk: Desk) -> None:
    """Its run is lost while it is paused: it waits for its user; resumed, it goes on."""
    desk.submit(S.RUNNING)
    desk.plan(QueueJobState.RUNNING)
    desk.take()
    done = lifecycle.pause(desk.ports, batch="b")
    assert done == Counter({"candidates": 1, "fireworks held": 1})
    assert lifecycle.pause(desk.ports, batch="b") == Counter(), "it was done before"
    assert lifecycle.runs_to_stop(MongoBook(), ["cand-1"]) == {"cand-1"}
    desk.queue.past = [ended(JobEnd.CANCELLED)]
    assert desk.look()["held"] == 1
    assert desk.states() == ["PAUSED", "PAUSED"]
    assert lifecycle.resume(desk.ports, candidates=["cand-1"]) == Counter(candidates=1)
    assert feed(desk.ports.book, desk.ports.pad, built, 10) == Counter(submitted=1)
    assert desk.states() == ["READY", "WAITING"]
    assert Candidate.objects.get().state is S.SUBMITTED


def test_cancelled_and_retried(desk: Desk) -> None:
    """Its pending job is taken out of the queue by name; tried again, its budget begins anew."""
    desk.submit()
    desk.plan(QueueJobState.SUBMITTED, "single")
    assert desk.ports.pad.reserve(1, JOB)
    desk.queue.alive = [live(JobState.PENDING)]
    done = lifecycle.cancel(desk.ports, batch="b")
    assert done == Counter({"candidates": 1, "fireworks held": 1, "jobs ended": 1})
    assert desk.queue.cancelled == ["17"]
    desk.queue.alive, desk.queue.past = [], [ended(JobEnd.CANCELLED)]
    desk.look()
    desk.look()
    assert desk.states() == ["DEFUSED", "DEFUSED"]
    assert lifecycle.retry(desk.ports, batch="b") == Counter(candidates=1)
    assert Candidate.objects.get().budget_since is not None
    feed(desk.ports.book, desk.ports.pad, built, 10)
    assert desk.states() == ["READY", "WAITING"]


def test_too_many_failures_of_nodes_quarantine_a_candidate(desk: Desk) -> None:
    """It fails with that as its reason, and its evidence."""
    desk.submit(S.RUNNING)
    desk.plan(QueueJobState.RUNNING)
    for _ in range(desk.ports.rules.causes[Cause.NODE_FAILURE].again + 1):
        Worker.objects.delete()
        desk.take()
        desk.queue.past = [ended(JobEnd.NODE_FAIL)]
        desk.look()
    desk.look()
    candidate = Candidate.objects.get()
    assert (candidate.state, candidate.cause, candidate.reason.code) == (S.FAILED, Cause.NODE_FAILURE, "kills_nodes")
    assert desk.states() == ["FIZZLED", "WAITING"]


def test_a_worker_may_only_take_by_number_what_is_reserved_for_its_job(desk: Desk) -> None:
    """FireWorks hands a reserved firework to everybody who asks for its number: the bookkeeping says who may ask."""
    desk.submit()
    pad = LaunchPadPad(desk.launchpad)
    assert pad.reserved_for(1) == ""
    assert pad.reserve(1, JOB)
    assert (pad.reserved_for(1), pad.reserved_for(2), pad.reserved_for(99)) == (JOB, "", "")


def test_a_planned_job_is_stored_before_it_is_submitted(desk: Desk) -> None:
    """With all that it will ask for."""
    job = Job(JOB, "single", now(), 60.0, partition="p", fw_ids=(1,), memory_MB=5.0, excluded=("n1",))
    desk.ports.book.plan(job)
    assert desk.ports.book.jobs_of([JOB])[JOB] == job
    stored = QueueJob.objects.get()
    assert (stored.state, stored.excluded, stored.memory_MB) == (QueueJobState.PLANNED, ["n1"], 5.0)
