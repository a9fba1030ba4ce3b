"""Energy terms, cycles, memory, clocks and features, on whole outputs of 6.7 and 7.2."""

from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hullworks.units import UNITS
from hullworks.workflows.qe import QeOutcome, parse_run
from hullworks.workflows.qe.quantities import CodeFeatures, EnergyTerms, MemoryEstimate, ScfCycle, Smearing, completed
from tests.fixtures.qe.conformance import folder_of

if TYPE_CHECKING:
    from hullworks.workflows.qe.results import QeRun

UNABRIDGED = Path(__file__).parent / "unabridged"
VERSIONS = ("6.7", "7.2")
RUNS = ("magnetic", "variable_cell", "all_terms", "noncollinear")
MD5 = "3cae1d5f116da51a7024c0f8e103d580"


def whole(version: str, name: str) -> QeRun:
    """Parse one run."""
    return parse_run(UNABRIDGED / version / name)


def alone(version: str, name: str, folder: Path) -> QeRun:
    """Parse its output without the XML file."""
    shutil.copytree(UNABRIDGED / version / name, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("out"))
    return parse_run(folder)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", RUNS)
def test_terms_sum_up_to_the_energy(name: str, version: str) -> None:
    """All terms are found: their sum is the total energy, with PAW, a Hubbard U and dispersion too."""
    run = whole(version, name)
    assert run.outcome is QeOutcome.CONVERGED
    assert run.energy_terms is not None
    assert run.energy_terms.total_eV == pytest.approx(run.energy_eV, abs=1e-6)


@pytest.mark.parametrize("version", VERSIONS)
def test_terms_have_the_names_that_are_printed(version: str) -> None:
    """Terms that only some runs have keep pw.x's names; the four that all have are fields."""
    terms = whole(version, "all_terms").energy_terms
    assert terms is not None
    assert set(terms.others_eV) == {"Dispersion Correction", "Hubbard energy", "one-center paw contrib."}
    assert terms.others_eV["Dispersion Correction"] == pytest.approx(-0.03374096 * UNITS.rydberg_to_eV)
    assert terms.ewald_eV == pytest.approx(-68.92626496 * UNITS.rydberg_to_eV)
    assert terms.smearing_eV == pytest.approx(-0.00769 * UNITS.rydberg_to_eV, abs=1e-4)
    plain = whole(version, "variable_cell").energy_terms
    assert plain is not None
    assert plain.smearing_eV is None
    assert plain.others_eV == {}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", ["magnetic", "noncollinear", "variable_cell"])
def test_terms_of_a_cut_output_are_those_of_the_xml(name: str, version: str, tmp_path: Path) -> None:
    """Where the terms are not printed the XML file's fill in; the one-electron term is what the others leave."""
    shutil.copytree(UNABRIDGED / version / name, tmp_path, dirs_exist_ok=True)
    lines = parse_lines(tmp_path)
    (tmp_path / "pw.out").write_text("".join(line for line in lines if " contribution " not in line))
    mine, theirs = parse_run(tmp_path).energy_terms, whole(version, name).energy_terms
    assert mine is not None
    assert theirs is not None
    for term in ("one_electron_eV", "hartree_eV", "xc_eV", "ewald_eV", "smearing_eV"):
        assert getattr(mine, term) == pytest.approx(getattr(theirs, term), abs=1e-6)


def parse_lines(folder: Path) -> list[str]:
    """Unpack the output of a run and return its lines."""
    packed = folder / "pw.out.gz"
    text = gzip.decompress(packed.read_bytes()).decode()
    packed.unlink()
    return text.splitlines(keepends=True)


def test_cycles_tell_step_iterations_and_accuracy() -> None:
    """Each cycle is there, the final SCF's without a step."""
    run = whole("6.7", "variable_cell")
    assert run.scf[0] == ScfCycle(ionic_step=0, iterations=5, accuracy_Ry=3e-8, converged=True)
    assert [cycle.ionic_step for cycle in run.scf] == [0, 1, 2, 3, 4, 5, None]
    assert [cycle.iterations for cycle in run.scf] == [5, 7, 10, 7, 6, 4, 7] == list(run.scf_iterations)
    assert run.final_scf
    assert all(cycle.accuracy_Ry is not None and cycle.accuracy_Ry < 1e-6 for cycle in run.scf)


@pytest.mark.parametrize("version", VERSIONS)
def test_cycle_that_did_not_converge_says_so(version: str) -> None:
    """A cycle that spent its iterations is not converged, and its accuracy tells by how much."""
    (failed,) = parse_run(folder_of(version, "scf_not_converged")).scf
    assert failed.converged is False
    assert failed.ionic_step == 0
    assert failed.accuracy_Ry is not None
    assert failed.accuracy_Ry > 1e-8


@pytest.mark.parametrize("version", VERSIONS)
def test_cycle_that_was_cut_off_is_neither_converged_nor_failed(version: str, tmp_path: Path) -> None:
    """The last cycle of a killed run has the iterations that were done, and belongs to the step that was to come."""
    lines = parse_lines(shutil.copytree(UNABRIDGED / version / "magnetic", tmp_path / "whole"))
    energies = [number for number, line in enumerate(lines) if line.startswith("!")]
    cut = next(number for number in range(energies[0], len(lines)) if "iteration #  3" in lines[number])
    folder = tmp_path / "cut"
    folder.mkdir()
    (folder / "pw.out").write_text("".join(lines[: cut + 1]))
    run = parse_run(folder)
    assert run.n_ionic_steps == 1
    assert [(cycle.ionic_step, cycle.converged) for cycle in run.scf] == [(0, True), (1, None)]
    assert run.scf[1].iterations == 3
    assert run.total_magnetization is not None


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", ["magnetic", "variable_cell"])
def test_xml_goes_on_where_the_output_was_cut(name: str, version: str, tmp_path: Path) -> None:
    """Steps that were lost with the output's end are told by the whole XML file of the same run."""
    folder = shutil.copytree(UNABRIDGED / version / name, tmp_path / "run")
    lines, theirs = parse_lines(folder), whole(version, name)
    energies = [number for number, line in enumerate(lines) if line.startswith("!")]
    (folder / "pw.out").write_text("".join(lines[: energies[1] + 3]))
    mine = parse_run(folder)
    assert mine.outcome is QeOutcome.INTERRUPTED
    assert [step.energy_eV for step in mine.ionic_steps] == [step.energy_eV for step in theirs.ionic_steps]
    assert mine.energy_eV == theirs.energy_eV
    assert mine.structure == theirs.structure
    printed = [(cycle.ionic_step, cycle.iterations, cycle.converged) for cycle in mine.scf]
    assert printed == [
        (cycle.ionic_step, cycle.iterations, cycle.converged) for cycle in theirs.scf if cycle.ionic_step is not None
    ]


@pytest.mark.parametrize("version", VERSIONS)
def test_xml_that_came_with_a_restart_tells_nothing(version: str, tmp_path: Path) -> None:
    """A run that was killed at once, or never began, has no results, whatever lay in its outdir before."""
    folder = shutil.copytree(UNABRIDGED / version / "magnetic", tmp_path / "run")
    lines = parse_lines(folder)
    text = "".join(lines[:60]).replace("starts on 20Nov2026", "starts on 30Nov2026")
    (folder / "pw.out").write_text(text)
    begun = parse_run(folder)
    (folder / "pw.out").unlink()
    created = (folder / "pw.in").stat().st_mtime
    os.utime(folder / "pw.in", (created, created + 10 * 365 * 86400.0))
    for run in (begun, parse_run(folder)):
        assert run.energy_eV is None
        assert run.ionic_steps == ()
        assert run.scf == ()


@pytest.mark.parametrize("version", VERSIONS)
def test_symmetry_smearing_and_checksums_are_told(version: str) -> None:
    """What pw.x made of the input: operations, smearing, files with their MD5 sums."""
    run = whole(version, "magnetic")
    assert run.n_symmetry_operations == 8
    assert run.smearing == Smearing("marzari-vanderbilt", 0.02)
    assert [read.md5 for read in run.pseudos_read] == [MD5, MD5]
    assert whole(version, "variable_cell").smearing is None
    assert whole(version, "all_terms").smearing == Smearing("gaussian", 0.02)
    assert whole(version, "noncollinear").smearing == Smearing("methfessel-paxton", 0.03)


@pytest.mark.parametrize("version", VERSIONS)
def test_magnetization_is_total_absolute_and_of_each_atom(version: str) -> None:
    """The moments of an antiferromagnet cancel in the total, not in the absolute one."""
    run = whole(version, "magnetic")
    assert run.total_magnetization == pytest.approx(0.0, abs=0.7)
    assert run.absolute_magnetization == pytest.approx(4.6, abs=0.1)
    assert run.magnetic_moments is not None
    up, down = run.magnetic_moments
    assert up == pytest.approx(2.1, abs=0.2)
    assert down == pytest.approx(-2.2, abs=0.1)
    assert len(run.absolute_magnetizations) == 3


@pytest.mark.parametrize("version", VERSIONS)
def test_magnetization_without_direction_is_a_length(version: str) -> None:
    """Spins that are not collinear have a vector; its length is told, in 6.7 from the output alone."""
    run = whole(version, "noncollinear")
    assert run.total_magnetization == pytest.approx(0.48 * 2**0.5, abs=0.01)
    assert run.absolute_magnetization == pytest.approx(0.68, abs=0.01)
    assert run.magnetic_moments is None


@pytest.mark.parametrize("version", VERSIONS)
def test_without_spin_there_is_no_magnetization(version: str) -> None:
    """Zeros that only mean that nothing was asked are not told."""
    run = whole(version, "variable_cell")
    assert (run.total_magnetization, run.absolute_magnetization, run.magnetic_moments) == (None, None, None)


def test_features_of_a_parallel_run() -> None:
    """Processes, pools and the groups that share the plane waves are those of the command line."""
    run = whole("6.7", "magnetic")
    assert run.features == CodeFeatures(
        mpi=True, openmp=False, gpu=False, processes=2, threads=1, nodes=1, pools=2, band_groups=1,
        diagonalization_processes=1,
    )  # fmt: skip
    assert run.memory == MemoryEstimate(per_process_MB=15.51, total_MB=31.01)
    assert whole("6.7", "variable_cell").features.pools == 1


def test_features_of_a_serial_build() -> None:
    """Without MPI everything is done by one process."""
    run = whole("7.2", "magnetic")
    assert run.features == CodeFeatures(
        mpi=False, openmp=False, gpu=False, processes=1, threads=1, nodes=1, pools=1, band_groups=1,
        diagonalization_processes=1,
    )  # fmt: skip
    assert run.memory == MemoryEstimate(per_process_MB=23.5, total_MB=None)


@pytest.mark.parametrize("version", VERSIONS)
def test_clocks_are_told(version: str) -> None:
    """Every clock of the table at the end is there with processor time, wall time and calls."""
    run = whole(version, "magnetic")
    for name in ("init_run", "electrons", "forces", "stress", "c_bands", "sum_band", "h_psi:calbec", "fftw"):
        assert run.timings[name].calls
    assert "PWSCF" not in run.timings
    assert run.cpu_seconds is not None
    assert run.wall_seconds is not None
    assert run.timings["electrons"].wall_seconds < run.wall_seconds
    assert 0.5 * run.wall_seconds < run.cpu_seconds <= run.wall_seconds


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", RUNS)
def test_output_alone_tells_the_same(name: str, version: str, tmp_path: Path) -> None:
    """Without the XML file all of it is told to the printed digits."""
    mine, theirs = alone(version, name, tmp_path), whole(version, name)
    assert mine.outcome is QeOutcome.XML_MISSING
    assert mine.scf == theirs.scf
    for value in ("features", "memory", "n_symmetry_operations", "smearing", "pseudos_read", "n_k_points"):
        assert getattr(mine, value) == getattr(theirs, value)
    for value in ("total_magnetization", "absolute_magnetization", "fermi_eV"):
        assert getattr(mine, value) == pytest.approx(getattr(theirs, value), abs=6e-3)
    assert (mine.magnetic_moments is None) == (theirs.magnetic_moments is None)
    assert mine.magnetic_moments is None or mine.magnetic_moments == pytest.approx(theirs.magnetic_moments, abs=1e-3)
    assert mine.energy_terms is not None
    assert mine.energy_terms.total_eV == pytest.approx(theirs.energy_eV, abs=1e-6)
    assert mine.timings["electrons"] == theirs.timings["electrons"]
    assert mine.wall_seconds == theirs.wall_seconds


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", RUNS)
def test_xml_alone_tells_the_same(name: str, version: str, tmp_path: Path) -> None:
    """Without the output the XML file has energies, forces, structure and cycles; the run is no success."""
    shutil.copytree(UNABRIDGED / version / name / "out", tmp_path / "out")
    mine, theirs = parse_run(tmp_path), whole(version, name)
    assert mine.outcome is QeOutcome.NOT_STARTED
    assert mine.energy_eV == theirs.energy_eV
    assert mine.structure == theirs.structure
    assert mine.forces_eV_per_A == pytest.approx(theirs.forces_eV_per_A, abs=1e-12)
    assert mine.stress_kbar == pytest.approx(theirs.stress_kbar, abs=1e-9)
    assert mine.n_ionic_steps == theirs.n_ionic_steps
    assert mine.scf_iterations == theirs.scf_iterations[: mine.n_ionic_steps]
    assert mine.n_symmetry_operations == theirs.n_symmetry_operations
    assert mine.smearing == theirs.smearing
    assert mine.gap_eV == theirs.gap_eV
    assert mine.features.processes == theirs.features.processes
    assert mine.absolute_magnetization == theirs.absolute_magnetization


def test_completed_takes_only_what_is_missing() -> None:
    """What is known stays; zero and False are known."""
    mine = EnergyTerms(one_electron_eV=0.0, hartree_eV=None)
    other = EnergyTerms(one_electron_eV=5.0, hartree_eV=2.0, xc_eV=1.0)
    assert completed(mine, other) == EnergyTerms(one_electron_eV=0.0, hartree_eV=2.0, xc_eV=1.0)
    assert completed(CodeFeatures(mpi=False), CodeFeatures(mpi=True, pools=2)) == CodeFeatures(mpi=False, pools=2)
    assert completed(mine, None) is mine
    assert mine.total_eV is None
