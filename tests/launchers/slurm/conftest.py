"""Workers as batch scripts start them, and runs for them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from fireworks import Firework, ScriptTask, Workflow

from hullworks.documents import Candidate
from hullworks.launchers.configuration import write_configuration
from hullworks.launchers.launchpad import add_workflow
from hullworks.states import CandidateState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fireworks import LaunchPad

    from hullworks.settings import Settings

PATIENCE_S = 120.0


class Allocations:
    """Starts workers as batch scripts do."""

    def __init__(self, settings: Settings, compiled: dict[str, str]) -> None:
        self.settings = settings
        self.environment = {**os.environ, **compiled, **write_configuration(settings), "HULLWORKS_JOB": "hw-test-1"}
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *options: str, **variables: str) -> subprocess.Popen[str]:
        """Start one."""
        process = subprocess.Popen(
            [sys.executable, "-m", "hullworks.launchers.slurm.allocation", "--idle", "0.5", *options],
            env={**self.environment, **variables},
            cwd=self.settings.project_dir,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def run(self, *options: str, **variables: str) -> tuple[int, str]:
        """Run one to its end; return exit status and what it said of errors."""
        process = self.start(*options, **variables)
        _, errors = process.communicate(timeout=PATIENCE_S)
        return process.returncode, errors


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables with which the workers of the session compile the libraries once, whatever the tests run under."""
    return {"PYTHONPYCACHEPREFIX": str(tmp_path_factory.mktemp("compiled")), "PYTHONDONTWRITEBYTECODE": ""}


@pytest.fixture
def allocations(mongod: Settings, compiled: dict[str, str]) -> Iterator[Allocations]:
    """Allocations of the project, ended with the test."""
    found = Allocations(mongod, compiled)
    yield found
    for process in found.started:
        process.kill()
        process.communicate()


@pytest.fixture
def add(launchpad: LaunchPad) -> Callable[..., None]:
    """Put a workflow of one step for each script on the LaunchPad, each of a candidate of its own."""

    def add_scripts(*scripts: str, name: str = "step") -> None:
        for script in scripts:
            number = launchpad.fireworks.count_documents({}) + 1
            ids = {"candidate_id": f"cand-{number}", "calculation_id": f"calc-{number}"}
            Candidate(
                **ids, row_id=f"row-{number}", batch="b", level_key="l", source_file="f", source_row=1,
                state=CandidateState.SUBMITTED,
            ).save(force_insert=True)  # fmt: skip
            firework = Firework([ScriptTask.from_str(script, {"fizzle_bad_rc": True})], name=name, spec=ids)
            add_workflow(launchpad, Workflow([firework], metadata=ids))

    return add_scripts


@pytest.fixture
def states(launchpad: LaunchPad) -> Callable[[], list[str]]:
    """Return the states of all steps, in their order."""
    return lambda: [each["state"] for each in launchpad.fireworks.find().sort("fw_id", 1)]


@pytest.fixture
def wait_for() -> Callable[[Callable[[], object]], None]:
    """Wait until something is true in another process, which sends no signal of it."""

    def wait(what: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not what():
            assert time.monotonic() < end, "it did not happen in time"
            time.sleep(0.02)

    return wait


@pytest.fixture
def files(project: Settings) -> Callable[[], dict[str, Path]]:
    """Return the folders in which runs wrote files, by the files' names."""
    return lambda: {path.name: path.parent for path in project.runs_dir.rglob("*") if path.is_file()}
