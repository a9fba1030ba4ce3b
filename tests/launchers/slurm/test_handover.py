"""Results first: what lies in a run's folder reaches the database, whatever happened meanwhile; real parts."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from jobflow import Flow, job
from jobflow.managers.fireworks import flow_to_workflow

from hullworks.errors import InputError
from hullworks.launchers.launchpad import add_workflow
from hullworks.launchers.services import mongod as service
from hullworks.launchers.slurm.clients import job_store
from hullworks.launchers.slurm.handover import STEP_FILE, Step
from hullworks.launchers.slurm.land import land_folders
from hullworks.launchers.slurm.results_first import ResultsFirstPad

if TYPE_CHECKING:
    from collections.abc import Callable

    from fireworks import LaunchPad

    from hullworks.settings import Settings
    from tests.launchers.slurm.conftest import Allocations


def only_folder(launchpad: LaunchPad) -> Path:
    """Return the folder of the only launch."""
    return Path(launchpad.launches.find_one()["launch_dir"])


def leave_a_result(
    launchpad: LaunchPad,
    allocations: Allocations,
    add: Callable[..., None],
    wait_for: Callable[[Callable[[], object]], None],
) -> Path:
    """Let a run end while its worker hangs, and kill the worker; return the run's folder."""
    add("touch begun; sleep 1")
    process = allocations.start("--slots", "1")
    wait_for(lambda: launchpad.launches.find_one() and (only_folder(launchpad) / "begun").exists())
    process.send_signal(signal.SIGSTOP)
    folder = only_folder(launchpad)
    wait_for(lambda: getattr(Step.read(folder), "state", "") == "COMPLETED")
    process.kill()
    process.communicate()
    return folder


def test_jobs_refer_to_each_others_outputs(launchpad: LaunchPad, allocations: Allocations) -> None:
    """Through the folders; outputs are stored as jobflow stores them, large parts apart, and nothing is left over."""
    import math

    first = job(math.sqrt, data="numbers")(16.0)
    second = job(math.hypot)(first.output, 3.0)
    add_workflow(launchpad, flow_to_workflow(Flow([first, second])))
    status, errors = allocations.run("--slots", "2")
    assert status == 0, errors
    assert job_store(launchpad.db).get_output(second.uuid) == 5.0
    assert {firework["state"] for firework in launchpad.fireworks.find()} == {"COMPLETED"}
    assert not list(allocations.settings.runs_dir.rglob(STEP_FILE))


def test_a_run_has_no_connection(
    launchpad: LaunchPad,
    allocations: Allocations,
    add: Callable[..., None],
    wait_for: Callable[[Callable[[], object]], None],
) -> None:
    """The worker has one client of two connections or three, however many runs it has in hand."""
    add(*["touch begun; sleep 600"] * 4)
    process = psutil.Process(allocations.start("--slots", "4").pid)
    wait_for(lambda: launchpad.launches.count_documents({}) == 4)
    wait_for(lambda: len(list(allocations.settings.runs_dir.rglob("begun"))) == 4)
    below = process.children(recursive=True)
    assert len(below) >= 12  # a place, a run and its script, four times
    assert [each.net_connections(kind="inet") for each in below] == [[]] * len(below)
    assert len(process.net_connections(kind="inet")) <= 3


def test_an_outage_is_ridden_out(
    server: Settings,
    launchpad: LaunchPad,
    allocations: Allocations,
    add: Callable[..., None],
    states: Callable[[], list[str]],
    wait_for: Callable[[Callable[[], object]], None],
) -> None:
    """A run that ends while the database is away is not lost, nor is what comes after it."""
    add("touch begun; sleep 1; touch ended", "true")
    process = allocations.start("--slots", "1", "--idle", "1")
    wait_for(lambda: launchpad.launches.find_one() and (only_folder(launchpad) / "begun").exists())
    folder = only_folder(launchpad)
    service.stop(server)
    try:
        wait_for((folder / "ended").exists)
        time.sleep(2.0)
        assert process.poll() is None
    finally:
        service.start(server)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert states() == ["COMPLETED", "COMPLETED"]


def test_a_result_without_its_worker_is_landed_by_hand(
    launchpad: LaunchPad,
    allocations: Allocations,
    add: Callable[..., None],
    states: Callable[[], list[str]],
    wait_for: Callable[[Callable[[], object]], None],
) -> None:
    """It is known afterwards; to do so again changes nothing; a folder without a run is refused."""
    folder = leave_a_result(launchpad, allocations, add, wait_for)
    assert states() == ["RUNNING"]
    assert land_folders(launchpad, [folder.parent])[0]["result"] == "done"
    assert states() == ["COMPLETED"]
    assert land_folders(launchpad, [folder])[0]["result"] == "known"
    with pytest.raises(InputError, match="no folder"):
        land_folders(launchpad, [Path(os.devnull).parent / "shm"])


def test_a_result_without_its_worker_is_taken_up(
    launchpad: LaunchPad,
    allocations: Allocations,
    add: Callable[..., None],
    states: Callable[[], list[str]],
    wait_for: Callable[[Callable[[], object]], None],
) -> None:
    """By whoever reconciles, before the run is called lost; not while its worker may be about to tell it."""
    leave_a_result(launchpad, allocations, add, wait_for)
    assert [run.state for run in ResultsFirstPad(launchpad, 600).runs({"RUNNING"})] == ["RUNNING"]
    assert ResultsFirstPad(launchpad, 0.01).runs({"RUNNING"}) == []
    assert states() == ["COMPLETED"]


def test_a_result_that_came_too_late_stays_in_its_folder(
    launchpad: LaunchPad,
    allocations: Allocations,
    add: Callable[..., None],
    states: Callable[[], list[str]],
    wait_for: Callable[[Callable[[], object]], None],
) -> None:
    """The run was given to somebody else meanwhile: there is one result of it, that of the other."""
    folder = leave_a_result(launchpad, allocations, add, wait_for)
    launchpad.rerun_fw(1)
    assert land_folders(launchpad, [folder])[0]["result"] == "late"
    assert states() == ["READY"]
    assert (folder / STEP_FILE).exists()
