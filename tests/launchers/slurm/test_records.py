"""What the commands of SLURM print is read as it is meant; texts recorded on a real one (sacct: by its manual)."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from hullworks.launchers.bookkeeping.ports import EndedJob, JobEnd, JobState
from hullworks.launchers.slurm import records

RECORDED = Path(__file__).parent / "recorded"


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """SLURM prints local times; those of the recorded texts are of this zone."""
    import time

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def read(name: str) -> str:
    """Return a recorded text."""
    return (RECORDED / name).read_text(encoding="utf-8")


def by_number(jobs: list[EndedJob]) -> dict[str, EndedJob]:
    """Return jobs by their number."""
    return {job.job_id: job for job in jobs}


def test_the_queue_is_read() -> None:
    """Only this project's jobs; forecasts of starts and ends are no starts and ends; what is suspended still runs."""
    jobs = {job.job_id: job for job in records.read_queue(read("squeue.txt"), "hullworks-test")}
    assert set(jobs) == {"67", "68_0", "68_1", "68_2", "68_3", "69", "70", "72", "74"}
    assert jobs["70"].nodes == ("n2", "n3")
    assert (jobs["69"].state, jobs["69"].reason, jobs["69"].ends_at) == (JobState.PENDING, "Resources", None)
    assert (jobs["74"].state, jobs["74"].reason) == (JobState.RUNNING, "")
    assert jobs["67"].started_at == datetime(2026, 11, 20, 15, 11, 1, tzinfo=UTC)
    assert jobs["68_0"].ends_at is None, "a job without a limit"


def test_the_completion_log_is_read() -> None:
    """Each end by its own name; a task of an array by the array's number; a requeue is no end."""
    names = ["ok", "bad", "run", "arr", "big", "sig", "nf", "rq"]
    jobs = by_number(list(records.read_completion_log(read("jobcomp.txt"), names)))
    assert {job_id: job.end for job_id, job in jobs.items() if "_" not in job_id} == {
        "1": JobEnd.COMPLETED,
        "2": JobEnd.FAILED,
        "3": JobEnd.TIMEOUT,
        "5": JobEnd.CANCELLED,
        "6": JobEnd.FAILED,
        "7": JobEnd.COMPLETED,  # the end after it was requeued
        "8": JobEnd.NODE_FAIL,
    }
    assert (jobs["2"].exit_code, jobs["6"].signal) == (3, 9)
    assert jobs["5"].started_at is None, "it was cancelled while it waited"
    assert (jobs["4_0"].name, jobs["4_0"].end) == ("arr", JobEnd.CANCELLED)
    assert (jobs["8"].nodes, jobs["8"].source) == (("n3",), "jobcomp")
    assert not list(records.read_completion_log(read("jobcomp.txt"), ["no such job"]))


def test_the_controllers_memory_is_read() -> None:
    """Jobs that have not ended are in it too, and are left out."""
    jobs = list(records.read_show_jobs(read("show_jobs.txt"), ["run", "arr"]))
    assert all(job.source == "scontrol" for job in jobs)
    assert "67" not in by_number(jobs)
    assert not list(records.read_show_jobs("No jobs in the system\n", ["run"]))


def test_accounting_is_read() -> None:
    """``CANCELLED by 1000`` is an end; what runs or waits is none."""
    jobs = by_number(list(records.read_sacct(read("sacct.txt"))))
    assert {job_id: job.end.value for job_id, job in jobs.items()} == {
        "4711": "COMPLETED",
        "4712": "CANCELLED",
        "4713": "CANCELLED",
        "4714_3": "OUT_OF_MEMORY",
    }
    assert jobs["4711"].nodes == ("cn001", "cn002")
    assert jobs["4712"].signal == 15
    assert jobs["4713"].started_at is None
    assert jobs["4711"].name == "hw-a"


def test_the_last_word_on_a_job_counts() -> None:
    """A job that was requeued ends more than once."""
    times = [datetime(2026, 1, 1, hour, tzinfo=UTC) for hour in (1, 2, 3)]
    ends = [EndedJob("7", "a", times[0], end, ended_at=at) for end, at in zip(
        (JobEnd.NODE_FAIL, JobEnd.COMPLETED), times[1:], strict=True
    )]  # fmt: skip
    (job,) = records.latest(reversed(ends))
    assert job.end is JobEnd.COMPLETED
    assert len(records.latest([*ends, EndedJob("8", "a", times[0], JobEnd.FAILED)])) == 2


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("n1", ("n1",)),
        ("n[1-3,07]-ib,m4", ("n1-ib", "n2-ib", "n3-ib", "n07-ib", "m4")),
        ("cn[008-011]", ("cn008", "cn009", "cn010", "cn011")),
        ("(null)", ()),
        ("", ()),
    ],
)
def test_lists_of_nodes_are_expanded(text: str, names: tuple[str, ...]) -> None:
    """Numbers keep their width."""
    assert records.expand_hosts(text) == names


@pytest.mark.parametrize(
    ("said", "away"),
    [
        ("sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)", True),
        ("slurm_load_jobs error: Socket timed out on send/recv operation", True),
        ("sbatch: error: Batch job submission failed: Invalid partition name specified", False),
        ("sbatch: error: Batch job submission failed: Requested node configuration is not available", False),
        ("sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit)", False),
    ],
)
def test_nobody_there_is_told_from_no(said: str, away: bool) -> None:
    """The one is asked again; the other is a fact about the job."""
    assert records.load_answers().is_away(said) is away
