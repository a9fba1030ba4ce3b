"""The worker of an allocation: many runs in one process, results first, an orderly end; real parts."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from hullworks.documents import Candidate, Run, Worker
from hullworks.launchers.slurm.allocation import granted_cpus
from hullworks.launchers.slurm.runs import NOTE
from hullworks.launchers.slurm.seats import EXIT_STOPPED, places_for
from hullworks.states import CandidateState, Cause

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fireworks import LaunchPad

    from tests.launchers.slurm.conftest import Allocations


def in_an_hour() -> str:
    """Return when an allocation of an hour ends."""
    return str(int(time.time()) + 3600)


def test_one_process_works_through_many_runs(
    launchpad: LaunchPad,
    allocations: Allocations,
    add: Callable[..., None],
    states: Callable[[], list[str]],
    files: Callable[[], dict[str, Path]],
) -> None:
    """Each in a folder of its own, failures apart; it ends when nothing is left, and its job is on record."""
    add("touch one", "exit 3", "true", "touch two; pwd > here")
    status, _ = allocations.run("--slots", "2", SLURM_JOB_ID="17", SLURM_JOB_END_TIME=in_an_hour())
    assert status == 0
    assert states() == ["COMPLETED", "FIZZLED", "COMPLETED", "COMPLETED"]
    found = files()
    assert found["one"] != found["two"]
    assert (found["two"] / "here").read_text().strip() == str(found["two"])
    worker = Worker.objects.get()
    assert (worker.job, worker.job_id) == ("hw-test-1", "17")
    assert {launch["fworker"]["name"] for launch in launchpad.launches.find()} == {worker.worker_id}
    left = [path for path in allocations.settings.runs_dir.rglob("run-*") if not any(path.iterdir())]
    assert not left


def test_runs_side_by_side_have_their_own_processors(
    allocations: Allocations, add: Callable[..., None], files: Callable[[], dict[str, Path]]
) -> None:
    """Two runs at a time, each bound to one of the two, and each told when its allocation ends, less the lead."""
    cpus = sorted(os.sched_getaffinity(0))[:2]
    if len(cpus) < 2:
        pytest.skip("it takes two processors")
    show = "taskset -cp $$ | sed 's/.*: //' > $$.cpu; echo $SLURM_JOB_END_TIME > end; sleep 0.5"
    add(*[show] * 5)
    ends = in_an_hour()
    os.sched_setaffinity(0, cpus)
    allocations.run("--slots", "2", "--lead", "100", SLURM_CPUS_ON_NODE="2", SLURM_JOB_END_TIME=ends)
    runs = [folder for name, folder in files().items() if name.endswith(".cpu")]
    bound = {next(folder.glob("*.cpu")).read_text().strip() for folder in runs}
    assert bound == {str(cpu) for cpu in cpus}
    assert len(runs) == 5
    assert {(folder / "end").read_text().strip() for folder in runs} == {str(int(ends) - 100)}


def test_sigterm_gives_the_runs_back_within_seconds(
    launchpad: LaunchPad,
    allocations: Allocations,
    add: Callable[..., None],
    states: Callable[[], list[str]],
    files: Callable[[], dict[str, Path]],
    wait_for: Callable[[Callable[[], object]], None],
) -> None:
    """They are ready again, their launches say why, nothing of them runs on, and it ends."""
    add("touch first; sleep 600", "touch second; sleep 600", "true")
    process = allocations.start("--slots", "2")
    wait_for(lambda: {"first", "second"} <= set(files()))
    below = psutil.Process(process.pid).children(recursive=True)
    told = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)  # as SLURM does
    process.communicate(timeout=30)
    assert time.monotonic() - told < 10
    assert process.returncode == EXIT_STOPPED
    assert states() == ["READY"] * 3
    assert [launch[NOTE] for launch in launchpad.launches.find()] == ["the allocation was ended (SIGTERM)"] * 2
    assert [run.cause for run in Run.objects] == [Cause.CANCELLED] * 2
    _, alive = psutil.wait_procs(below, timeout=5)
    assert not alive


def test_the_end_of_the_time_gives_the_runs_back(
    allocations: Allocations,
    add: Callable[..., None],
    states: Callable[[], list[str]],
    files: Callable[[], dict[str, Path]],
    wait_for: Callable[[Callable[[], object]], None],
) -> None:
    """The signal before the end stops what still runs, begins nothing new, and is no failure of the job."""
    add("touch first; sleep 600", "true")
    process = allocations.start("--lead", "5", SLURM_JOB_END_TIME=str(int(time.time()) + 40))
    wait_for(lambda: "first" in files())
    process.send_signal(signal.SIGUSR1)
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert states() == ["READY", "READY"]


def test_a_run_that_loses_its_process_is_begun_again(
    allocations: Allocations, add: Callable[..., None], states: Callable[[], list[str]]
) -> None:
    """Within the budget of its step: a run that kills its processes each time fails in the end."""
    add("kill -9 $PPID", "true")
    assert allocations.run("--slots", "1")[0] == 0
    assert states() == ["FIZZLED", "COMPLETED"]
    assert [run.cause for run in Run.objects] == [Cause.LOST] * 6
    assert "SIGKILL" in Run.objects.first().evidence[0]


def test_a_run_whose_candidate_is_given_up_is_stopped(
    allocations: Allocations,
    add: Callable[..., None],
    states: Callable[[], list[str]],
    files: Callable[[], dict[str, Path]],
    wait_for: Callable[[Callable[[], object]], None],
) -> None:
    """Within a heartbeat; the others go on."""
    add("touch first; sleep 600", "touch second; sleep 600", "touch third; sleep 4")
    process = allocations.start("--slots", "3", HULLWORKS_LAUNCH__HEARTBEAT_S="1")
    wait_for(lambda: {"first", "second", "third"} <= set(files()))
    Candidate.move("cand-1", CandidateState.CANCELLED, "test")
    Candidate.move("cand-2", CandidateState.PAUSED, "test")
    process.communicate(timeout=60)
    assert states() == ["DEFUSED", "PAUSED", "COMPLETED"]


def test_one_run_per_job(allocations: Allocations, add: Callable[..., None], states: Callable[[], list[str]]) -> None:
    """It does the run that it is told, and no other; or so many as it is told."""
    add("true", "true", "true", "true")
    assert allocations.run("--fw-id", "3")[0] == 0
    assert states() == ["READY", "READY", "COMPLETED", "READY"]
    assert allocations.run("--fw-id", "3")[0] == 0
    assert allocations.run("--max-runs", "1")[0] == 0
    assert states() == ["COMPLETED", "READY", "COMPLETED", "READY"]


def test_what_does_not_fit_is_left_to_others(
    allocations: Allocations, add: Callable[..., None], states: Callable[[], list[str]]
) -> None:
    """A run whose forecast exceeds the time that is left is not begun; the first is, in any case."""
    add("true", "true", name="relax 1")
    add("true", name="land")
    assert allocations.run(SLURM_JOB_END_TIME=str(int(time.time()) + 600))[0] == 0
    assert states() == ["COMPLETED", "READY", "COMPLETED"]


def test_processors_are_shared_out_where_they_are_known() -> None:
    """Not where the cluster leaves its jobs on all processors of a node, nor where there are too few."""
    assert places_for(2, [4, 5, 6, 7], 4) == [(4, 5), (6, 7)]
    assert places_for(3, [0, 1, 2, 3, 4, 5, 6], None) == [(0, 1), (2, 3), (4, 5)]
    assert places_for(2, [0, 1, 2, 3], 2) == [(), ()]
    assert places_for(4, [0, 1], None) == [(), (), (), ()]
    assert granted_cpus({"SLURM_CPUS_ON_NODE": "8"}) == 8
    assert granted_cpus({}) is None
