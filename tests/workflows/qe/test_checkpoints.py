"""Launches of the same step that go on where the one before was cut short."""

from __future__ import annotations

import json
import multiprocessing
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from pymatgen.core import Lattice, Structure

from hullworks.errors import RunError
from hullworks.workflows.qe.checkpoints import STATE_NAME, checkpoint_folder, resume
from hullworks.workflows.qe.executable import PwCommand
from hullworks.workflows.qe.handlers import load_repairs
from hullworks.workflows.qe.inputs import PwInput, build_pw_input
from hullworks.workflows.qe.kpoints import KMesh
from hullworks.workflows.qe.protocols import load_protocol
from hullworks.workflows.qe.pseudos import Family, load_family
from hullworks.workflows.qe.restarts import RestartKind
from hullworks.workflows.qe.run import run_pw
from hullworks.workflows.qe.run_record import read_record

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="module")
def family() -> Family:
    """The embedded pseudopotentials."""
    return load_family("gth-pbe")


@pytest.fixture
def relaxation(family: Family) -> PwInput:
    """A relaxation of silicon with some steps; its numbers mean nothing."""
    structure = Structure(
        Lattice([[0, 2.6, 2.6], [2.6, 0, 2.6], [2.6, 2.6, 0]]), ["Si", "Si"], [[0.0, 0.0, 0.0], [0.27, 0.25, 0.25]]
    )
    asked = build_pw_input("vc-relax", structure, load_protocol("fast", "initial_relax"), family)
    return replace(asked, mesh=KMesh((3, 3, 3), (1, 1, 1)), ecutwfc_Ry=16.0, ecutrho_Ry=64.0)


def command(argv: list[str], around: str = 'exec "$@"') -> PwCommand:
    """Return the command of a fixture, in a shell that may do something around it."""
    return PwCommand(("sh", "-c", around, "sh", "nice", "-n", "10", *argv), "test")


def _wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def killed_after_steps(
    argv: list[str], folder: Path, asked: PwInput, family: Family, checkpoint: Path, *, politely: bool
) -> None:
    """Launch a relaxation, and end its worker when two steps are there."""
    context = multiprocessing.get_context("forkserver")
    settings = {"family": family, "command": command(argv), "checkpoint": checkpoint}
    worker = context.Process(target=run_pw, args=(folder, asked), kwargs=settings)
    worker.start()
    output = folder / "attempt-1" / "pw.out"
    assert _wait_for(lambda: output.is_file() and output.read_bytes().count(b"!    total energy") >= 3, 90.0)
    (worker.terminate if politely else worker.kill)()
    worker.join()


@pytest.mark.slow
@pytest.mark.parametrize("politely", [True, False])
def test_a_launch_goes_on_where_a_killed_one_got_to(
    politely: bool, qe: list[str], tmp_path: Path, relaxation: PwInput, family: Family
) -> None:
    """After SIGTERM as after SIGKILL the next launch starts from the last structure, and its record shows the piece."""
    checkpoint = tmp_path / "checkpoint"
    killed_after_steps(qe, tmp_path / "first", relaxation, family, checkpoint, politely=politely)
    resumed = resume(checkpoint, relaxation)
    assert resumed.structure is not None
    assert resumed.pw_input.structure != relaxation.structure
    finished = run_pw(tmp_path / "second", relaxation, family=family, command=command(qe), checkpoint=checkpoint)
    (piece,) = finished.record["pieces"]
    assert piece["run_dir"] == str(tmp_path / "first")
    assert finished.record["input_sha256"] == relaxation.sha256
    first_input = (tmp_path / "second" / "attempt-1" / "pw.in").read_text(encoding="utf-8")
    assert first_input != (tmp_path / "first" / "attempt-1" / "pw.in").read_text(encoding="utf-8")
    assert not checkpoint.exists()


def test_a_launch_goes_on_in_the_middle_of_a_stopped_cycle(
    qe: list[str], tmp_path: Path, relaxation: PwInput, family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that pw.x left when its clock ran out are whole, and taken over in full by another folder."""
    heavy = replace(relaxation, calculation="scf", mesh=KMesh((5, 5, 5), (1, 1, 1)), ecutwfc_Ry=24.0, ecutrho_Ry=96.0)
    checkpoint = tmp_path / "checkpoint"
    none = replace(load_repairs(), rules=())
    clock = 'echo >> pw.in; sed -i "s/^&CONTROL/\\&CONTROL\\n  max_seconds = 1/" pw.in; exec "$@"'
    with monkeypatch.context() as without:
        without.setattr("hullworks.workflows.qe.handlers.load_repairs", lambda: none)
        with pytest.raises(RunError, match="walltime_stop"):
            run_pw(tmp_path / "a", heavy, family=family, command=command(qe, clock), checkpoint=checkpoint)
    assert json.loads((checkpoint / STATE_NAME).read_text(encoding="utf-8"))["kind"] == "full"
    finished = run_pw(tmp_path / "b", heavy, family=family, command=command(qe), checkpoint=checkpoint)
    assert finished.run.restarted
    assert [item["restart"] for item in read_record(tmp_path / "b")["attempts"]] == ["full"]
    whole = run_pw(tmp_path / "c", heavy, family=family, command=command(qe))
    assert finished.run.energy_eV == pytest.approx(whole.run.energy_eV, abs=1e-5)
    assert not checkpoint.exists()


def test_a_run_that_fails_for_a_reason_leaves_no_checkpoint(
    qe: list[str], tmp_path: Path, relaxation: PwInput, family: Family
) -> None:
    """Only what was cut short is worth going on with."""
    asked = relaxation.with_setting("CONTROL", "no_such_setting", 1)
    with pytest.raises(RunError, match="bad_input"):
        run_pw(tmp_path / "run", asked, family=family, command=command(qe), checkpoint=tmp_path / "checkpoint")
    assert not (tmp_path / "checkpoint").exists()


def test_a_step_without_a_checkpoint_starts_at_its_beginning(tmp_path: Path, relaxation: PwInput) -> None:
    """So does one whose checkpoint cannot be read."""
    assert resume(tmp_path, relaxation).pw_input is relaxation
    (tmp_path / STATE_NAME).write_text("{", encoding="utf-8")
    resumed = resume(tmp_path, relaxation)
    assert (resumed.pw_input, resumed.pieces, resumed.outdir) == (relaxation, (), None)
    assert resumed.pw_input.restart is RestartKind.SCRATCH


def test_a_checkpoint_is_named_after_what_is_calculated(tmp_path: Path, relaxation: PwInput) -> None:
    """Input and pseudopotentials make the name; the time that is left does not."""
    one = checkpoint_folder(tmp_path, relaxation, ["a", "b"])
    assert one == checkpoint_folder(tmp_path, replace(relaxation, max_seconds=10.0), ["b", "a"])
    assert one != checkpoint_folder(tmp_path, relaxation, ["a", "c"])
    assert one != checkpoint_folder(tmp_path, replace(relaxation, calculation="relax"), ["a", "b"])
