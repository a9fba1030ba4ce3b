"""The worker process: what it runs and where, how it stops, and what it leaves when it is killed; real parts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from fireworks import Firework, ScriptTask, Workflow

from hullworks.documents import Candidate, Run, Worker
from hullworks.launchers.configuration import write_configuration
from hullworks.launchers.launchpad import add_workflow
from hullworks.launchers.reconcile import reconcile
from hullworks.launchers.services.processes import ProcessMark
from hullworks.launchers.worker import EXIT_DATABASE, EXIT_STOPPED
from hullworks.states import CandidateState, Cause

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fireworks import LaunchPad

    from hullworks.settings import Settings

PATIENCE_S = 90.0


class Workers:
    """Starts worker processes as a launcher does."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.stop_file = settings.project_dir / "stop"
        self.environment = {**os.environ, **write_configuration(settings)}
        self.started: list[subprocess.Popen[str]] = []

    def command(self, parent: int | str) -> list[str]:
        """Return a worker's command line."""
        module = [sys.executable, "-m", "hullworks.launchers.worker"]
        return [*module, "--parent", str(parent), "--stop-file", str(self.stop_file)]

    def start(self, command: list[str] | None = None) -> subprocess.Popen[str]:
        """Start a worker below this process, or another command in its place."""
        process = subprocess.Popen(
            command or self.command(os.getpid()),
            env=self.environment,
            cwd=self.settings.project_dir,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process


@pytest.fixture
def workers(mongod: Settings) -> Iterator[Workers]:
    """Workers of the project, ended with the test."""
    found = Workers(mongod)
    yield found
    for process in found.started:
        process.kill()
        process.communicate()


def _submit(launchpad: LaunchPad, script: str) -> None:
    Candidate(
        candidate_id="cand-1",
        row_id="row-1",
        batch="b",
        level_key="l",
        source_file="f",
        source_row=1,
        state=CandidateState.SUBMITTED,
        calculation_id="calc-1",
    ).save(force_insert=True)
    spec = {"candidate_id": "cand-1", "calculation_id": "calc-1"}
    firework = Firework([ScriptTask.from_str(script, {"fizzle_bad_rc": True})], name="relax 1", spec=spec)
    add_workflow(launchpad, Workflow([firework], metadata=spec))


def _wait_for(what: Callable[[], object]) -> None:
    """Wait until something is true in another process, which sends no signal of it."""
    end = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def _state(launchpad: LaunchPad) -> str:
    return str(launchpad.fireworks.find_one()["state"])


def test_a_worker_runs_registers_and_stops(launchpad: LaunchPad, mongod: Settings, workers: Workers) -> None:
    """It works in a folder of the run's own, is on record with its process, and ends when the stop file appears."""
    _submit(launchpad, "pwd > here")
    process = workers.start()
    _wait_for(lambda: _state(launchpad) == "COMPLETED")
    launch = launchpad.launches.find_one()
    folder = Path(launch["launch_dir"])
    assert folder.is_relative_to(mongod.runs_dir)
    assert folder.name.startswith("run-")
    assert (folder / "here").read_text(encoding="utf-8").strip() == str(folder)
    record = Worker.objects.get()
    assert launch["fworker"]["name"] == record.worker_id
    mark = ProcessMark(record.pid, record.process_started, record.boot_id, record.host)
    assert record.pid == process.pid
    assert mark.is_alive
    workers.stop_file.touch()
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, errors) == (0, "")
    assert not mark.is_alive


def test_each_run_has_its_own_folder(launchpad: LaunchPad, mongod: Settings, workers: Workers) -> None:
    """A failing run does not end the worker; folders in which nothing was written do not stay."""
    for number, script in enumerate(("touch one", "exit 3", "true", "touch two")):
        firework = Firework([ScriptTask.from_str(script, {"fizzle_bad_rc": True})], name=f"run {number}")
        add_workflow(launchpad, Workflow([firework]))
    process = workers.start()
    states = ["COMPLETED", "FIZZLED", "COMPLETED", "COMPLETED"]
    _wait_for(lambda: [d["state"] for d in launchpad.fireworks.find().sort("fw_id", 1)] == states)
    workers.stop_file.touch()
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    files = {path.name: path.parent for path in mongod.runs_dir.rglob("*") if path.is_file()}
    assert files["one"] != files["two"]
    empty = [path for path in mongod.runs_dir.rglob("run-*") if not any(path.iterdir())]
    assert not empty


def test_sigterm_leaves_the_run_to_be_given_back(launchpad: LaunchPad, workers: Workers) -> None:
    """The run is not called failed: it is found RUNNING without a process, recorded as lost, and ready again."""
    _submit(launchpad, "touch started; sleep 600")
    process = workers.start()
    _wait_for(lambda: _state(launchpad) == "RUNNING")
    folder = Path(launchpad.launches.find_one()["launch_dir"])
    _wait_for((folder / "started").exists)
    assert reconcile(launchpad, lost_after_s=600)["lost"] == 0
    sleepers = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    process.wait(timeout=PATIENCE_S)
    assert process.returncode == EXIT_STOPPED
    assert _state(launchpad) == "RUNNING"
    assert reconcile(launchpad, lost_after_s=600)["lost"] == 1
    assert _state(launchpad) == "READY"
    assert [run.cause for run in Run.objects] == [Cause.LOST]
    for sleeper in sleepers:  # pw.x has a supervisor that ends with its worker; a plain script has none
        sleeper.kill()


def test_a_run_that_is_given_up_is_stopped(launchpad: LaunchPad, workers: Workers) -> None:
    """Its worker ends within a heartbeat, and reconciliation puts the run away."""
    workers.environment["HULLWORKS_LAUNCH__HEARTBEAT_S"] = "1"
    _submit(launchpad, "touch started; exec sleep 600")
    process = workers.start()
    _wait_for(lambda: _state(launchpad) == "RUNNING")
    _wait_for((Path(launchpad.launches.find_one()["launch_dir"]) / "started").exists)
    sleepers = psutil.Process(process.pid).children(recursive=True)
    Candidate.move("cand-1", CandidateState.CANCELLED, "test")
    assert process.wait(PATIENCE_S) == EXIT_STOPPED
    reconcile(launchpad, lost_after_s=600)
    assert _state(launchpad) == "DEFUSED"
    for sleeper in sleepers:
        sleeper.kill()


def test_a_worker_ignores_the_terminals_interrupt(launchpad: LaunchPad, workers: Workers) -> None:
    """Ctrl-C reaches the whole process group; the launcher decides what it means."""
    process = workers.start()
    _wait_for(lambda: Worker.objects.count() == 1)
    process.send_signal(signal.SIGINT)
    _submit(launchpad, "true")
    _wait_for(lambda: _state(launchpad) == "COMPLETED")
    assert process.poll() is None


def test_a_worker_dies_with_its_parent(workers: Workers) -> None:
    """Also when the parent is killed with SIGKILL, which it cannot notice itself."""
    script = f"{' '.join(workers.command('$$'))} & wait"
    parent = workers.start(["bash", "-c", script])
    _wait_for(lambda: Worker.objects.count() == 1)
    worker = psutil.Process(Worker.objects.get().pid)
    assert worker.ppid() == parent.pid
    parent.send_signal(signal.SIGKILL)
    worker.wait(PATIENCE_S)
    assert not worker.is_running()


def test_a_worker_whose_parent_is_gone_does_not_start(workers: Workers) -> None:
    """The parent died before the worker could ask the kernel to be told."""
    process = workers.start(workers.command(parent=1))
    assert process.wait(PATIENCE_S) == EXIT_STOPPED
    assert Worker.objects.count() == 0


def test_a_worker_without_a_database_ends_in_one_line(workers: Workers) -> None:
    """A fresh worker is cheaper than one in a half-known state; its log says what failed, without the password."""
    away = "mongodb://someone:hunter2@127.0.0.1:9/?authSource=admin"
    workers.environment |= {"HULLWORKS_DATABASE__URI": away, "HULLWORKS_DATABASE__WAIT_S": "0.5"}
    process = workers.start()
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode in {6, EXIT_DATABASE}
    assert errors.startswith("worker ends: ")
    assert errors.count("\n") == 1
    assert "hunter2" not in errors
