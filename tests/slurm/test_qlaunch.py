"""A campaign on one's own cluster with the stock commands of FireWorks, as the README of ``slurm/`` tells it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pymatgen.core.lattice import Lattice
from pymatgen.core.structure import Structure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROGRAMS = Path(sys.executable).parent
PATIENCE_S = 300.0
LOST_AFTER_S = 10
FEED_EVERY_S = 10.0
SUBMIT = "qlaunch -r --launch_dir .hullworks/runs rapidfire"


class Project:
    """A project folder in a shell that knows the cluster."""

    def __init__(self, folder: Path, parts_dir: Path, qe: list[str], slurm: dict[str, str]) -> None:
        self.folder = folder
        self.variables = {**slurm, "PATH": f"{PROGRAMS}:{os.environ['PATH']}"}
        folder.mkdir()
        launch = f"[launch]\nheartbeat_s = 1\nlost_after_s = {LOST_AFTER_S}\n"
        text = f'parts_dir = "{parts_dir}"\n[qe]\ncommand = "{" ".join(qe)}"\n{launch}'
        (folder / "hullworks.toml").write_text(text)
        half = 4.12 / 2
        aluminium = Structure(Lattice([[0, half, half], [half, 0, half], [half, half, 0]]), ["Al"], [[0, 0, 0]])
        row = {"name": "Al", "structure": aluminium.as_dict(), "role": "reference"}
        (folder / "batch.jsonl").write_text(json.dumps(row) + "\n")

    def start(self, line: str) -> subprocess.Popen[str]:
        """Start a line of shell, with the variables that the product prints for it."""
        script = f'eval "$(hullworks config --env)" && {line}'
        return subprocess.Popen(
            ["/bin/bash", "-c", script], cwd=self.folder, env=self.variables, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def shell(self, line: str) -> str:
        """Run a line of shell; return what it prints."""
        process = self.start(line)
        output, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, output
        return output

    def hullworks(self, *arguments: str) -> Any:  # noqa: ANN401 - whatever JSON it prints
        """Run a command of the product; return its JSON."""
        command = [str(PROGRAMS / "hullworks"), *arguments, "--json"]
        done = subprocess.run(command, cwd=self.folder, env=self.variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr + done.stdout
        return json.loads(done.stdout)

    def feed(self) -> dict[str, int]:
        """Feed the LaunchPad and keep the books once."""
        done: dict[str, int] = self.hullworks("launch", "feed", "--once")["done"]
        return done

    def submit_all(self) -> None:
        """Let ``qlaunch`` submit each step as soon as it is ready, and keep the books meanwhile.

        It ends early when a step is done between its two questions, what is ready and what runs; so it is called again,
        as one would from cron, while a step is ready.
        """
        while True:
            self.submit_until_nothing_is_left()
            self.wait_for(lambda: not self.queue())
            self.feed()
            if "READY" not in self.firework_states():
                return

    def submit_until_nothing_is_left(self) -> None:
        """Call ``qlaunch`` once."""
        submitter = self.start(f"{SUBMIT} --sleep 1")
        output = None
        while output is None:
            try:
                output, _ = submitter.communicate(timeout=FEED_EVERY_S)
            except subprocess.TimeoutExpired:
                self.feed()
        assert submitter.returncode == 0, output
        assert "Error" not in output

    def queue(self) -> list[str]:
        """Return number and state of each job in the queue."""
        return self.shell("squeue --noheader --format='%A %T'").splitlines()

    def firework_states(self) -> list[str]:
        """Return the states of the steps, in their order."""
        listed = json.loads(self.shell("lpad get_fws --display_format less"))
        return [each["state"] for each in sorted(listed, key=lambda each: int(each["fw_id"]))]

    def ended_jobs(self) -> list[tuple[str, str]]:
        """Return name and end of each job of this project, as SLURM tells it."""
        book = Path(self.variables["SLURM_CONF"]).parent / "log" / "jobcomp.log"
        lines = [line for line in book.read_text().splitlines() if f"WorkDir={self.folder}" in line]
        return [(field(line, "Name"), field(line, "JobState")) for line in lines]

    def wait_for(self, what: Callable[[], object]) -> None:
        """Wait until something is true."""
        end = time.monotonic() + PATIENCE_S
        while not what():
            assert time.monotonic() < end, "it did not happen in time"
            time.sleep(0.02)


def field(line: str, name: str) -> str:
    """Return a field of a line of SLURM's book of ended jobs."""
    found = re.search(rf"\b{name}=(\S+)", line)
    assert found is not None
    return found[1]


@pytest.fixture
def project_on_slurm(
    tmp_path: Path, parts_dir: Path, qe: list[str], slurm: dict[str, str], server: object
) -> Iterator[Project]:
    """A project with its private MongoDB, one candidate on the LaunchPad, and its partition in the template."""
    del server  # it says early whether a mongod is there
    project = Project(tmp_path / "campaign", parts_dir, qe, slurm)
    project.hullworks("up")
    project.shell("sed -i 's/^queue:.*/queue: main/' .hullworks/config/my_qadapter.yaml")
    assert project.hullworks("submit", "batch.jsonl", "--batch", "b")["counts"] == {"queued": 1}
    assert project.feed()["submitted"] == 1
    yield project
    project.shell("scancel --user $(id -un)")
    project.wait_for(lambda: not project.queue())
    project.hullworks("down")


def check_end(project: Project) -> None:
    """The candidate is verified: fcc aluminium is the hull of its element."""
    assert project.hullworks("status", "b")["counts"] == {"verified": 1}
    (entry,) = project.hullworks("hull", "Al")["entries"]
    assert (entry["verdict"], entry["e_above_hull"]) == ("stable", 0.0)


@pytest.mark.slow
def test_a_campaign_runs_by_the_stock_commands(project_on_slurm: Project) -> None:
    """Each step becomes ready after the former one, runs as a job of its own, and the candidate ends verified."""
    project = project_on_slurm
    assert project.firework_states() == ["READY", "WAITING", "WAITING", "WAITING"]
    project.submit_all()
    assert project.firework_states() == ["COMPLETED"] * 4
    assert project.ended_jobs() == [(step, "COMPLETED") for step in ("relax_1", "relax_2", "static", "land")]
    runs = project.hullworks("why", "Al")["runs"]
    assert [run["step"] for run in runs] == ["relax 1", "relax 2", "static", "land"]
    assert {run["cause"] for run in runs} <= {"converged", "completed"}
    check_end(project)


@pytest.mark.slow
def test_what_slurm_ends_is_run_again(project_on_slurm: Project) -> None:
    """A job cancelled in the queue and one cancelled at work cost nothing but their time."""
    project = project_on_slurm
    project.shell("scontrol update PartitionName=main State=DOWN")
    try:
        project.shell(f"{SUBMIT} --nlaunches 1")
        (pending,) = project.queue()
        assert pending.endswith("PENDING")
        project.shell(f"scancel {pending.split()[0]}")
        assert project.firework_states()[0] == "RESERVED"
        project.shell("lpad detect_unreserved --time 1 --rerun")
        assert project.firework_states()[0] == "READY"
    finally:
        project.shell("scontrol update PartitionName=main State=UP")

    project.shell(f"{SUBMIT} --nlaunches 1")
    runs = project.folder / ".hullworks" / "runs"
    project.wait_for(lambda: [*runs.rglob("attempt-1/pw.out")])
    subprocess.run(["scancel", "--name=relax_1"], env=project.variables, check=True)
    project.wait_for(lambda: not project.queue())
    (record,) = runs.rglob("hullworks_run.json")
    assert json.loads(record.read_text())["cause"] == "cancelled", "it had the time to write down its end"
    project.wait_for(lambda: project.feed().get("lost") == 1)
    project.submit_all()
    check_end(project)
