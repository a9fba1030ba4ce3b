"""`hullworks launch slurm`, on a real SLURM with real pw.x, in each of its modes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer
from fireworks import Firework, ScriptTask, Workflow
from pymatgen.core.lattice import Lattice
from pymatgen.core.structure import Structure
from typer.testing import CliRunner

from hullworks.database import connect
from hullworks.documents import Candidate, Entry, QueueJob, Run, Worker
from hullworks.errors import InputError
from hullworks.launchers.cli import work
from hullworks.launchers.launchpad import add_workflow, open_launchpad
from hullworks.launchers.slurm.land import land_folders
from hullworks.launchers.slurm.launch import SlurmLauncher
from hullworks.settings import get_settings, load_settings
from hullworks.sites import load_site
from hullworks.states import CandidateState, Cause, QueueJobState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fireworks import LaunchPad

    from hullworks.settings import Settings

PROGRAMS = Path(sys.executable).parent
PATIENCE_S = 300.0


def aluminium() -> Structure:
    """Return fcc aluminium, 2 % too large."""
    half = 4.12 / 2
    return Structure(Lattice([[0, half, half], [half, 0, half], [half, half, 0]]), ["Al"], [[0, 0, 0]])


@pytest.fixture
def campaign(
    mongod: Settings,
    qe: list[str],
    slurm: dict[str, str],
    compiled: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Settings]:
    """A project with one candidate, on the cluster."""
    toml = mongod.project_dir / "hullworks.toml"
    text = toml.read_text()
    toml.write_text(text + f'[qe]\ncommand = "{" ".join(qe)}"\n[slurm]\nsite = "devcluster"\n')
    for name, value in {**compiled, "SLURM_CONF": slurm["SLURM_CONF"]}.items():
        monkeypatch.setenv(name, value)
    row = {"name": "Al", "structure": aluminium().as_dict(), "role": "reference"}
    (mongod.project_dir / "batch.jsonl").write_text(json.dumps(row) + "\n")
    hullworks("submit", "batch.jsonl", "--batch", "b")
    get_settings.cache_clear()
    yield load_settings(mongod.project_dir)
    subprocess.run(["scancel", "--me"], check=True)


def hullworks(*arguments: str) -> Any:  # noqa: ANN401 - whatever JSON it prints
    """Run a command of the product; return its JSON."""
    command = [str(PROGRAMS / "hullworks"), *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["packed", "single", "array"])
def test_a_candidate_is_verified(campaign: Settings, mode: str) -> None:
    """Whatever the mode: its steps run in jobs of the cluster, each job is in the books, and its end is known."""
    site = load_site(campaign, asked={"mode": mode})
    said: list[str] = []
    done = SlurmLauncher(campaign, site, on_tick=said.append).run()
    candidate = Candidate.objects.get()
    assert candidate.state is CandidateState.VERIFIED, (done, said[-3:])
    assert Entry.objects.get().valid
    # The entry lands while the landing still runs, and the loop ends with it.
    end = time.monotonic() + PATIENCE_S
    while Run.objects.count() < 4 and time.monotonic() < end:
        SlurmLauncher(campaign, site).run_once()
    runs = [(run.step, run.cause) for run in Run.objects.order_by("launch_id")]
    assert runs == [(step, Cause.CONVERGED) for step in ("relax 1", "relax 2", "static", "land")]
    jobs = list(QueueJob.objects)
    assert {job.mode for job in jobs} == {mode}
    assert {worker.job for worker in Worker.objects} <= {job.name for job in jobs}
    # Between two looks a step may be ready that the running allocation is about to take.
    assert len(jobs) < 4 if mode == "packed" else len(jobs) >= 4


@pytest.mark.slow
def test_run_folders_land_in_another_database(campaign: Settings) -> None:
    """As after one that was lost: the batch is submitted again, its folders are landed, and nothing is computed."""
    SlurmLauncher(campaign, load_site(campaign)).run()
    energy = Entry.objects.get().energy_eV_per_atom
    database = campaign.database.model_copy(update={"name": f"{campaign.database.name}_again"})
    again = campaign.model_copy(update={"database": database})
    os.environ["HULLWORKS_DATABASE__NAME"] = database.name
    try:
        connect(again)
        hullworks("submit", "batch.jsonl", "--batch", "b")
        launchpad = open_launchpad(again)
        rows = land_folders(launchpad, [campaign.runs_dir])
        assert [row["result"] for row in rows] == ["late", "late", "late", "done"]
        assert Candidate.objects.get().state is CandidateState.VERIFIED
        assert Entry.objects.get().energy_eV_per_atom == energy
        assert [row["result"] for row in land_folders(launchpad, [campaign.runs_dir])][-1] == "known"
    finally:
        del os.environ["HULLWORKS_DATABASE__NAME"]
        launchpad.connection.drop_database(database.name)
        launchpad.connection.close()
        connect(campaign)


def add(launchpad: LaunchPad, script: str) -> None:
    """Put a workflow of one step on the LaunchPad, of a candidate of its own."""
    ids = {"candidate_id": "cand-1", "calculation_id": "calc-1"}
    row = {"row_id": "row-1", "batch": "b", "level_key": "l", "source_file": "f", "source_row": 1}
    Candidate(**ids, **row, state=CandidateState.SUBMITTED).save(force_insert=True)
    firework = Firework([ScriptTask.from_str(script, {"fizzle_bad_rc": True})], name="step", spec=ids)
    add_workflow(launchpad, Workflow([firework], metadata=ids))


def wait_for(what: Callable[[], object]) -> None:
    """Wait until something is true on the cluster."""
    end = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


@pytest.fixture
def launcher(
    mongod: Settings, slurm: dict[str, str], compiled: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., SlurmLauncher]]:
    """Make launchers of the project, on the cluster."""
    for name, value in {**compiled, "SLURM_CONF": slurm["SLURM_CONF"]}.items():
        monkeypatch.setenv(name, value)
    yield lambda **asked: SlurmLauncher(mongod, load_site(mongod, "devcluster", asked))
    subprocess.run(["scancel", "--me"], check=True)


def test_what_slurm_ends_is_run_again(
    launcher: Callable[..., SlurmLauncher], launchpad: LaunchPad, tmp_path: Path
) -> None:
    """The worker gives its run back within seconds; the next job does it; both ends are in the books."""
    begun = tmp_path / "begun"
    add(launchpad, f"[ -e {begun} ] || {{ touch {begun}; exec sleep 600; }}")
    assert launcher().run_once()["jobs submitted"] == 1
    wait_for(begun.exists)
    assert launcher().run_once()["jobs submitted"] == 0, "nothing is left to do"
    job = QueueJob.objects.get()
    subprocess.run(["scancel", f"--name={job.name}"], check=True)
    told = time.monotonic()
    wait_for(lambda: launchpad.fireworks.find_one()["state"] == "READY")
    assert time.monotonic() - told < 15
    wait_for(lambda: launcher().run_once()["jobs submitted"] == 1)
    wait_for(lambda: launchpad.fireworks.find_one()["state"] == "COMPLETED")
    assert Run.objects.order_by("ended_at").first().cause is Cause.CANCELLED
    wait_for(
        lambda: launcher().run_once() is not None and QueueJob.objects.get(name=job.name).state is QueueJobState.ENDED
    )
    first = QueueJob.objects.get(name=job.name)
    assert (first.end, first.cause) == ("CANCELLED", Cause.CANCELLED)


def test_a_refusal_is_said(launcher: Callable[..., SlurmLauncher], launchpad: LaunchPad) -> None:
    """In SLURM's words; the run waits for a better request."""
    add(launchpad, "true")
    said: list[str] = []
    wrong = launcher(partition="nowhere")
    wrong.on_tick = said.append
    assert wrong.run_once()["jobs rejected"] == 1
    assert "Invalid partition name" in said[-1]
    assert launchpad.fireworks.find_one()["state"] == "READY"
    assert QueueJob.objects.get().state is QueueJobState.REJECTED


def test_the_commands(launcher: Callable[..., SlurmLauncher], launchpad: LaunchPad, mongod: Settings) -> None:
    """``launch slurm`` takes its options over the site's, and looks once; ``land`` refuses what holds no run."""
    add(launchpad, "true")
    app = typer.Typer()
    app.command("slurm")(work.launch_slurm)
    app.command("land")(work.land)
    said = CliRunner().invoke(app, ["slurm", "--site", "devcluster", "--mode", "array", "--once", "--json"])
    assert json.loads(said.stdout)["done"]["jobs submitted"] == 1
    job = QueueJob.objects.get()
    assert (job.mode, job.n_tasks) == ("array", 1)
    wait_for(lambda: launchpad.fireworks.find_one()["state"] == "COMPLETED")
    wait_for(lambda: launcher().run_once() is not None and QueueJob.objects.get().state is QueueJobState.ENDED)
    refused = CliRunner().invoke(app, ["land", str(mongod.config_dir)])
    assert isinstance(refused.exception, InputError)
