"""The queue behind its port, on a real SLURM: every state and end, and a controller that is down."""

from __future__ import annotations

import os
import re
import runpy
import signal
import subprocess
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hullworks.errors import JobRejectedError, QueueAwayError
from hullworks.launchers.bookkeeping.ports import EndedJob, JobEnd, JobRequest, JobState, LiveJob
from hullworks.launchers.slurm.allocation import allocation_end
from hullworks.launchers.slurm.commands import SlurmQueue
from hullworks.launchers.slurm.scripts import Allocation, job_script
from hullworks.sites import load_site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hullworks.settings import Settings

PATIENCE_S = 60.0
SLEEP = "exec sleep 300"


class Jobs:
    """Submits jobs of a project of its own, and waits for what becomes of them."""

    def __init__(self, variables: dict[str, str]) -> None:
        self.variables = variables
        self.queue = SlurmQueue(f"test-{uuid.uuid4().hex}", environ=variables)
        self.numbers: dict[str, str] = {}

    def submit(self, line: str = SLEEP, *options: str, n_tasks: int = 0) -> str:
        """Submit a job that runs a line of shell; return its name."""
        name = f"hw-{uuid.uuid4().hex[:12]}"
        asked = "".join(f"#SBATCH {option}\n" for option in ("--output=/dev/null", "--partition=main", *options))
        request = JobRequest(name, self.queue.comment, f"#!/bin/bash\n{asked}{line}\n", n_tasks)
        self.numbers[name] = self.queue.submit(request)
        return name

    def shell(self, *command: str) -> str:
        """Run a command of SLURM."""
        done = subprocess.run(command, env=self.variables, capture_output=True, text=True, check=True)
        return done.stdout

    def live(self, name: str) -> list[LiveJob]:
        """Return what of a job waits or runs."""
        return [job for job in self.queue.live() if job.name == name]

    def wait_for(self, what: Callable[[], object]) -> None:
        """Wait until something is true."""
        end = time.monotonic() + PATIENCE_S
        while not what():
            assert time.monotonic() < end, "it did not happen in time"
            time.sleep(0.1)

    def running(self, name: str) -> LiveJob:
        """Wait until a job runs, and return it."""
        self.wait_for(lambda: [job.state for job in self.live(name)] == [JobState.RUNNING])
        return self.live(name)[0]

    def ended(self, name: str) -> EndedJob:
        """Wait until a job has ended, and return how."""
        self.wait_for(lambda: self.queue.ended([name]) and not self.live(name))
        (job,) = self.queue.ended([name])
        assert (job.name, job.job_id) == (name, self.numbers[name])
        return job


@pytest.fixture
def jobs(slurm: dict[str, str]) -> Iterator[Jobs]:
    """Jobs of a project of its own, ended with the test."""
    found = Jobs(slurm)
    yield found
    found.queue.cancel([job.job_id for job in found.queue.live()])
    found.wait_for(lambda: not found.queue.live())


def test_it_is_what_the_bookkeeping_relies_on(jobs: Jobs) -> None:
    """The same checks that the queue of the simulation passes."""

    def script(seconds: float, status: int) -> str:
        asked = "#SBATCH --output=/dev/null\n#SBATCH --partition=main\n"
        return f"#!/bin/bash\n{asked}sleep {seconds} && exit {status}\n"

    checks = runpy.run_path(str(Path(__file__).parents[1] / "launchers" / "bookkeeping" / "queue_conformance.py"))
    checks["check_queue"](jobs.queue, script, jobs.wait_for, jobs.queue.comment)


def test_a_job_that_ends_well(jobs: Jobs) -> None:
    """It is known with its times, its node, and who says so; SLURM's clock and ours are the same."""
    before = time.time()
    job = jobs.ended(jobs.submit("true"))
    assert (job.end, job.exit_code, job.signal) == (JobEnd.COMPLETED, 0, 0)
    assert abs(job.submitted_at.timestamp() - before) < 5
    assert job.started_at is not None
    assert job.ended_at is not None
    assert job.ended_at >= job.started_at
    assert job.nodes[0] in {"n1", "n2", "n3", "n4"}
    assert job.source in {"jobcomp", "scontrol"}


def test_jobs_that_fail(jobs: Jobs) -> None:
    """By an exit status, or by a signal."""
    names = [jobs.submit("exit 3"), jobs.submit("kill -9 $$")]
    status, killed = (jobs.ended(name) for name in names)
    assert (status.end, status.exit_code) == (JobEnd.FAILED, 3)
    assert killed.end is JobEnd.FAILED
    assert 9 in {killed.signal, killed.exit_code - 128}


def test_a_job_that_waits_and_one_that_runs_are_cancelled(jobs: Jobs) -> None:
    """The one never started; numbers that nobody knows are no error."""
    waiting, running = jobs.submit(SLEEP, "--hold"), jobs.submit(SLEEP, "--time=10")
    live = jobs.running(running)
    assert live.ends_at is not None
    assert live.started_at is not None
    assert (live.ends_at - live.started_at).total_seconds() == 600
    (held,) = jobs.live(waiting)
    assert (held.state, held.reason, held.started_at) == (JobState.PENDING, "JobHeldUser", None)
    jobs.queue.cancel([jobs.numbers[waiting], jobs.numbers[running], "999999", "999999_3"])
    assert [jobs.ended(name).end for name in (waiting, running)] == [JobEnd.CANCELLED] * 2
    assert jobs.ended(waiting).started_at is None


def test_a_job_whose_time_is_over(jobs: Jobs) -> None:
    """SLURM looks every half a minute."""
    name = jobs.submit(SLEEP, "--time=10")
    jobs.running(name)
    soon = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + 2))
    jobs.shell("scontrol", "update", f"JobId={jobs.numbers[name]}", f"EndTime={soon}")
    assert jobs.ended(name).end is JobEnd.TIMEOUT


def test_a_node_that_fails(jobs: Jobs) -> None:
    """The job ends with it, when it is not to be requeued."""
    name = jobs.submit(SLEEP, "--nodelist=n4", "--no-requeue")
    jobs.running(name)
    jobs.shell("scontrol", "update", "NodeName=n4", "State=DOWN", "Reason=test")
    try:
        job = jobs.ended(name)
    finally:
        jobs.shell("scontrol", "update", "NodeName=n4", "State=IDLE")
    assert (job.end, job.nodes) == (JobEnd.NODE_FAIL, ("n4",))


def test_a_requeued_job_lives(jobs: Jobs) -> None:
    """The log tells of its first piece, which is no end; the same job runs again."""
    name = jobs.submit(SLEEP, "--requeue")
    jobs.running(name)
    jobs.shell("scontrol", "requeue", jobs.numbers[name])
    jobs.wait_for(lambda: [job.state for job in jobs.live(name)] == [JobState.PENDING])
    assert jobs.queue.ended([name]) == []
    jobs.shell("scontrol", "update", f"JobId={jobs.numbers[name]}", "StartTime=now")
    assert jobs.running(name).job_id == jobs.numbers[name]


def test_the_tasks_of_an_array_are_told_apart(jobs: Jobs) -> None:
    """While they wait, run, and when they have ended; one is cancelled without the others."""
    name = jobs.submit('[ "$SLURM_ARRAY_TASK_ID" = 1 ] && exit 4; exec sleep 300', "--cpus-per-task=4", n_tasks=7)
    number = jobs.numbers[name]
    assert {job.job_id for job in jobs.live(name)} | {job.job_id for job in jobs.queue.ended([name])} == {
        f"{number}_{task}" for task in range(7)
    }
    jobs.wait_for(lambda: jobs.queue.ended([name]))
    (failed,) = jobs.queue.ended([name])
    assert (failed.job_id, failed.exit_code) == (f"{number}_1", 4)
    jobs.wait_for(lambda: sum(job.state is JobState.RUNNING for job in jobs.live(name)) == 4)
    jobs.queue.cancel([f"{number}_0"])
    jobs.wait_for(lambda: {job.job_id for job in jobs.queue.ended([name])} == {f"{number}_0", f"{number}_1"})
    jobs.queue.cancel([number])
    jobs.wait_for(lambda: not jobs.live(name))


def test_jobs_of_others_are_not_ours(jobs: Jobs) -> None:
    """They are told by their comment."""
    other = Jobs(jobs.variables)
    name = other.submit(SLEEP, "--hold")
    assert jobs.queue.live() == []
    assert len(other.live(name)) == 1
    other.queue.cancel([other.numbers[name]])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--partition=nowhere",), "partition"),
        (("--mem=1T",), "configuration"),
        (("--time=soon",), "time"),
        (("--no-such-option",), "."),
    ],
)
def test_what_slurm_does_not_take_says_why(jobs: Jobs, options: tuple[str, ...], said: str) -> None:
    """It is refused at once, in SLURM's words."""
    with pytest.raises(JobRejectedError, match=said):
        jobs.submit(SLEEP, *options)


def test_a_controller_that_is_down_is_no_refusal(jobs: Jobs) -> None:
    """Each question gives up within ten seconds; what was there before is there afterwards."""
    name = jobs.submit(SLEEP)
    jobs.running(name)
    folder = Path(jobs.variables["SLURM_CONF"]).parent
    jobs.shell("scontrol", "reconfigure")  # writes its state down
    os.kill(int((folder / "run" / "slurmctld.pid").read_text()), signal.SIGSTOP)
    quick = SlurmQueue(jobs.queue.comment, answer_s=1.0, environ=jobs.variables)
    try:
        for question in (quick.live, lambda: quick.ended([name]), lambda: quick.cancel(["1"])):
            with pytest.raises(QueueAwayError, match="did not answer within 1 s"):
                question()
        with pytest.raises(QueueAwayError):
            quick.submit(JobRequest("hw-late", "b", "#!/bin/bash\n#SBATCH --output=/dev/null\ntrue\n"))
    finally:
        os.kill(int((folder / "run" / "slurmctld.pid").read_text()), signal.SIGCONT)
    assert jobs.running(name).job_id == jobs.numbers[name]


def test_a_controller_that_is_gone_is_no_refusal(slurm: dict[str, str], tmp_path: Path) -> None:
    """Nobody listens where it should be; it is said within ten seconds, by SLURM or by our patience."""
    conf = Path(slurm["SLURM_CONF"]).read_text()
    (tmp_path / "slurm.conf").write_text(re.sub(r"SlurmctldPort=\d+", "SlurmctldPort=1", conf))
    started = time.monotonic()
    with pytest.raises(QueueAwayError):
        SlurmQueue("c", environ={**slurm, "SLURM_CONF": str(tmp_path / "slurm.conf")}).live()
    assert time.monotonic() - started < 11
    with pytest.raises(QueueAwayError, match="cannot be started"):
        SlurmQueue("c", environ={"PATH": "/nonexistent"}).live()


@pytest.mark.parametrize("mode", ["packed", "single", "array"])
def test_slurm_takes_the_scripts(jobs: Jobs, project: Settings, mode: str) -> None:
    """As they are written for the development cluster."""
    asked = Allocation(
        "hw-1", project.project_dir, project.project_dir, {}, n_tasks=3 * (mode == "array"),
        fw_id=7 if mode == "single" else None,
    )  # fmt: skip
    script = job_script(load_site(project, "devcluster"), asked)
    command = ["sbatch", "--test-only"]
    done = subprocess.run(command, input=script, env=jobs.variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "in partition main" in done.stderr


def test_an_older_slurm_is_asked_for_the_end(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Newer ones tell their jobs; outside of SLURM there is none."""
    monkeypatch.setenv("SLURM_CONF", jobs.variables["SLURM_CONF"])
    live = jobs.running(jobs.submit(SLEEP, "--time=10"))
    assert live.ends_at is not None
    assert allocation_end({"SLURM_JOB_ID": live.job_id}) == live.ends_at.timestamp()
    assert allocation_end({"SLURM_JOB_END_TIME": "1234", "SLURM_JOB_ID": live.job_id}) == 1234.0
    assert allocation_end({}) is None
