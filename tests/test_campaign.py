"""The whole path with real parts: pw.x, MongoDB, FireWorks; and what kills at any moment do to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from pymatgen.core.lattice import Lattice
from pymatgen.core.structure import Structure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HULLWORKS = str(Path(sys.executable).with_name("hullworks"))
PATIENCE_S = 420.0


def _fcc(*species: str, a: float) -> Structure:
    sites = [[0.0, 0.0, 0.0], [0.25, 0.25, 0.25]][: len(species)]
    return Structure(Lattice([[0, a / 2, a / 2], [a / 2, 0, a / 2], [a / 2, a / 2, 0]]), species, sites)


def _rows() -> list[str]:
    """Two elements and one phase that must decompose into them, off equilibrium; a duplicate and a broken row."""
    aluminium, silicon, proposed = _fcc("Al", a=4.12), _fcc("Si", "Si", a=5.38), _fcc("Al", "Si", a=5.6)
    rows: list[dict[str, Any]] = [
        {"name": "Al", "structure": aluminium.as_dict(), "role": "reference"},
        {"name": "Si", "structure": silicon.as_dict(), "role": "reference"},
        {"name": "AlSi", "structure": proposed.as_dict(), "prediction": {"e_above_hull": 0.01, "model": "hope"}},
        {"name": "Si-again", "structure": (silicon * (2, 1, 1)).as_dict()},
    ]
    return [*map(json.dumps, rows), '{"name": "cut off", "structure": {']


class Project:
    """A project folder that is used as a user uses it: by its commands."""

    def __init__(self, folder: Path, parts_dir: Path, command: list[str]) -> None:
        self.folder = folder
        folder.mkdir()
        text = f'parts_dir = "{parts_dir}"\n[qe]\ncommand = "{" ".join(command)}"\n'
        (folder / "hullworks.toml").write_text(text)
        (folder / "batch.jsonl").write_text("\n".join(_rows()) + "\n")

    def run(self, *arguments: str, status: int = 0) -> Any:  # noqa: ANN401 - whatever JSON it prints
        """Run a command and return its JSON."""
        done = subprocess.run(
            [HULLWORKS, *arguments, "--json"],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )
        assert done.returncode == status, done.stderr + done.stdout
        return json.loads(done.stdout) if done.stdout.strip() else None

    def launch(self) -> subprocess.Popen[str]:
        """Start two workers in the background."""
        return subprocess.Popen(
            [HULLWORKS, "launch", "local", "--workers", "2", "--json"],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def processes(self, *words: str) -> list[psutil.Process]:
        """Return the processes of this project whose command line has all of some words."""
        found = []
        for process in psutil.process_iter():
            try:
                line, folder = " ".join(process.cmdline()), process.cwd()
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            if all(word in line for word in words) and (
                str(self.folder) in line or folder.startswith(str(self.folder))
            ):
                found.append(process)
        return found

    def pw_processes(self) -> list[psutil.Process]:
        """Return the running pw.x of this project, without what supervises them."""
        return [p for p in self.processes("-i", "pw.in") if "supervise" not in " ".join(p.cmdline())]

    def wait_for(self, what: Callable[[], object], seconds: float = 120.0) -> None:
        """Wait until something is true; it happens inside a real calculation, which sends no signal of it."""
        end = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < end, "it did not happen in time"
            time.sleep(0.1)


@pytest.fixture
def campaign(request: pytest.FixtureRequest, tmp_path: Path, parts_dir: Path, server: object) -> Iterator[Project]:
    """A project with a submitted batch and its own private MongoDB; the parameter names the fixture of its pw.x."""
    assert server, "it says early whether a mongod is there"
    project = Project(tmp_path / "campaign", parts_dir, request.getfixturevalue(request.param))
    project.run("up")
    report = project.run("submit", "batch.jsonl", "--batch", "b")
    assert report["counts"] == {"queued": 3, "duplicate": 1, "quarantined": 1}
    yield project
    project.run("down")
    for process in project.processes():
        process.kill()


def _check_end(project: Project) -> None:
    """Every row in one final state, every result once, verdicts as chemistry has them, nothing left running."""
    assert project.run("status", "b")["counts"] == {"duplicate": 1, "quarantined": 1, "verified": 3}
    hull = project.run("hull", "Al-Si")
    entries = {entry["name"]: entry for entry in hull["entries"]}
    assert len(hull["entries"]) == 3, "each result once"
    assert (entries["Al"]["verdict"], entries["Si"]["verdict"]) == ("stable", "stable")
    assert entries["AlSi"]["verdict"] == "unstable"
    assert 0.1 < entries["AlSi"]["e_above_hull"] < 0.6, "zincblende AlSi has an electron too few for its bonds"
    assert len({entry["hull_version"] for entry in hull["entries"]}) == 1, "all of one version"
    assert not project.pw_processes()
    assert not project.processes("hullworks.launchers.worker")


@pytest.mark.slow
@pytest.mark.qe
@pytest.mark.parametrize("campaign", ["qe"], indirect=True)
def test_a_campaign_survives_the_kill_of_its_launcher(campaign: Project) -> None:
    """SIGKILL in the middle of runs: pw.x dies with it, another launch completes the batch, a third adds nothing."""
    launcher = campaign.launch()
    campaign.wait_for(lambda: len(campaign.pw_processes()) == 2)
    launcher.send_signal(signal.SIGKILL)
    launcher.communicate()
    campaign.wait_for(lambda: not campaign.pw_processes() and not campaign.processes("launchers.worker"), 20)

    done = campaign.run("launch", "local", "--workers", "2")
    assert done["done"]["lost"] == 2
    _check_end(campaign)
    again = campaign.run("launch", "local", "--workers", "2")
    assert not {"submitted", "events", "runs"} & set(again["done"])
    story = campaign.run("why", "AlSi")
    # The kernel tells the workers that their launcher is dead, and a run that was told to stop says so.
    ended = [run for run in story["runs"] if run["cause"] != "converged"]
    assert all(run["cause"] == "lost" or "SIGTERM" in " ".join(run["evidence"]) for run in ended)
    assert story["entry"]["provenance"]["code_version"]
    resubmitted = campaign.run("submit", "batch.jsonl", "--batch", "b")
    assert resubmitted["counts"] == {"known": 5}


@pytest.mark.slow
@pytest.mark.qe
@pytest.mark.parametrize("campaign", ["system_qe"], indirect=True)
def test_a_campaign_survives_the_kill_of_a_worker_and_of_the_database(campaign: Project) -> None:
    """Both in the middle of runs, with SIGKILL: the launcher replaces them, and the batch completes."""
    launcher = campaign.launch()
    campaign.wait_for(lambda: len(campaign.pw_processes()) == 2)
    worker = campaign.processes("hullworks.launchers.worker")[0]
    worker.send_signal(signal.SIGKILL)
    campaign.wait_for(lambda: len(campaign.pw_processes()) == 2 and not worker.is_running())
    (database,) = campaign.processes("mongod", "--config")
    os.kill(database.pid, signal.SIGKILL)
    output, errors = launcher.communicate(timeout=PATIENCE_S)
    assert launcher.returncode == 0, errors
    done = json.loads(output)["done"]
    assert done["workers replaced"] >= 1
    assert done["lost"] >= 1
    _check_end(campaign)
