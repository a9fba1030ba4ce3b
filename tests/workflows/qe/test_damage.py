"""The parser on recorded runs whose files were cut or changed: it never raises, and damage is never a success."""

from __future__ import annotations

import dataclasses
import gzip
import json
import math
import random
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hullworks.workflows.qe import QeOutcome, parse_run
from tests.fixtures.qe.conformance import NOT_OF_THE_RUN, VERSIONS, folder_of, told_by_files

if TYPE_CHECKING:
    from hullworks.workflows.qe.results import QeRun

HERE = Path(__file__).parent
FOLDERS = {f"recorded/{version}/{name}": folder_of(version, name) for version in VERSIONS for name in told_by_files()}
FOLDERS |= {path.relative_to(HERE).as_posix(): path for path in (HERE / "unabridged").glob("*/*") if path.is_dir()}
RUNS = sorted(FOLDERS)
CONVERGED = [name for name in RUNS if parse_run(FOLDERS[name]).succeeded]
STRIDE = 7
"""Every so many lines an output is cut; prime, so that the cuts fall on every kind of line."""
CHANGES = 8
"""So many times the files of each run are damaged."""


def unpacked(name: str, folder: Path) -> Path:
    """Lay a recorded run out as pw.x leaves it."""
    target = folder / "run"
    for path in FOLDERS[name].rglob("*"):
        if path.is_file() and path.name not in NOT_OF_THE_RUN:
            place = target / path.relative_to(FOLDERS[name])
            place.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".gz":
                place.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
            else:
                shutil.copy(path, place)
    return target


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Cut, flip or double bytes."""
    kind = rng.choice(("cut", "flip", "flip", "splice"))
    if kind == "cut":
        return content[: rng.randrange(len(content) + 1)]
    if kind == "splice":
        start = rng.randrange(len(content) + 1)
        return content[:start] + content[rng.randrange(len(content) + 1) :]
    changed = bytearray(content)
    for _ in range(rng.choice((1, 20, 500))):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def assert_sane(run: QeRun) -> None:
    """Look at every value of a run: each is of its kind, and can be written down."""
    assert json.dumps(run.summary())
    assert isinstance(run.outcome, QeOutcome)
    assert all(str(evidence) for evidence in run.evidence)
    for name in (item.name for item in dataclasses.fields(run) if item.name.startswith("n_")):
        assert getattr(run, name) is None or getattr(run, name) >= 0
    for cycle in run.scf:
        assert cycle.iterations > 0
        assert cycle.converged in {True, False, None}
        assert cycle.ionic_step is None or 0 <= cycle.ionic_step <= run.n_ionic_steps
    if run.energy_terms is not None:
        assert run.energy_terms.total_eV is None or isinstance(run.energy_terms.total_eV, float)
        assert all(isinstance(value, float) for value in run.energy_terms.others_eV.values())
    for timing in run.timings.values():
        assert timing.cpu_seconds >= 0.0
        assert timing.wall_seconds >= 0.0
    for count in dataclasses.astuple(run.features):
        assert count is None or count >= 0
    assert_numbers(run)


def assert_numbers(run: QeRun) -> None:
    """Numbers that stand alone are numbers or None, never something that is not a number."""
    groups: tuple[Any, ...] = (run.memory, run.smearing)
    inside = [value for group in groups if group is not None for value in dataclasses.astuple(group)]
    single = [
        run.total_magnetization, run.absolute_magnetization, run.fermi_eV, run.gap_eV, run.energy_eV, run.cpu_seconds,
        run.wall_seconds, run.ecutwfc_Ry, *(run.magnetic_moments or ()), *run.absolute_magnetizations,
    ]  # fmt: skip
    assert not any(isinstance(value, float) and math.isnan(value) for value in (*inside, *single))


def energies(run: QeRun) -> set[float]:
    """Return the energies of all evaluations, eV, to five digits."""
    values = [step.energy_eV for step in run.ionic_steps] + [run.energy_eV]
    return {round(value, 5) for value in values if value is not None}


def test_every_recorded_run_is_sane() -> None:
    """All recorded runs are fit for what follows, and some of them converged."""
    for name in RUNS:
        assert_sane(parse_run(FOLDERS[name]))
    assert len(CONVERGED) > 20


@pytest.mark.parametrize("name", RUNS)
def test_damaged_files_never_raise(name: str, tmp_path: Path) -> None:
    """Whatever happens to the bytes of a run, it is parsed; and damage does not make a success of a failure."""
    rng = random.Random(name)
    folder = unpacked(name, tmp_path)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    whole = parse_run(folder)
    for _ in range(CHANGES):
        path = rng.choice(files)
        content = path.read_bytes()
        path.write_bytes(damaged(content, rng))
        run = parse_run(folder, exit_status=rng.choice((None, 0, -9, 1)))
        assert_sane(run)
        assert whole.succeeded or not run.succeeded
        path.write_bytes(content)


@pytest.mark.parametrize("name", CONVERGED)
def test_output_cut_before_its_end_mark_is_never_a_success(name: str, tmp_path: Path) -> None:
    """A good run whose output was cut is no success, at whatever line, and its energies are real ones."""
    folder = unpacked(name, tmp_path)
    output, whole = folder / "pw.out", energies(parse_run(folder))
    lines = output.read_text().splitlines(keepends=True)
    end = next(number for number, line in enumerate(lines) if "JOB DONE" in line)
    for number in {*range(random.Random(name).randrange(STRIDE), end, STRIDE), end}:
        output.write_text("".join(lines[:number]))
        run = parse_run(folder)
        assert not run.succeeded
        assert_sane(run)
        assert energies(run) <= whole


@pytest.mark.parametrize("name", ["recorded/6.7/scf", "recorded/7.2/spin", "unabridged/7.2/magnetic"])
def test_output_cut_inside_its_end_mark_is_never_a_success(name: str, tmp_path: Path) -> None:
    """Half an end mark is none."""
    folder = unpacked(name, tmp_path)
    output = folder / "pw.out"
    text = output.read_text()
    end = text.index("JOB DONE.")
    for size in range(end - 20, end + len("JOB DONE.")):
        output.write_text(text[:size])
        assert not parse_run(folder).succeeded


@pytest.mark.parametrize("name", CONVERGED)
def test_cut_xml_is_never_a_success(name: str, tmp_path: Path) -> None:
    """A good run whose XML file was cut is no success, at whatever byte."""
    folder = unpacked(name, tmp_path)
    path = folder / "out" / "pwscf.xml"
    content = path.read_bytes().rstrip()
    for size in random.Random(name).sample(range(len(content)), CHANGES):
        path.write_bytes(content[:size])
        run = parse_run(folder)
        assert not run.succeeded
        assert_sane(run)


def test_packed_file_that_is_damaged_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    """A cut gzip file is a cut output."""
    shutil.copytree(FOLDERS["recorded/6.7/vc_relax"], tmp_path / "run")
    path = tmp_path / "run" / "pw.out.gz"
    path.write_bytes(path.read_bytes()[:4000])
    run = parse_run(tmp_path / "run")
    assert run.outcome is QeOutcome.INTERRUPTED
    assert run.n_ionic_steps >= 1
