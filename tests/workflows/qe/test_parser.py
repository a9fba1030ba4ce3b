"""The parser on real runs of pw.x 6.7 and 7.2, whole, failed, cut and damaged."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import yaml

from hullworks.errors import InputError
from hullworks.units import UNITS
from hullworks.workflows import qe
from hullworks.workflows.qe import QeOutcome, parse_run
from hullworks.workflows.qe.parser import check_convergence
from tests.fixtures.qe.conformance import HERE as FIXTURES
from tests.fixtures.qe.conformance import NOT_OF_THE_RUN, folder_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hullworks.workflows.qe.evaluations import IonicStep
    from hullworks.workflows.qe.parser import QeRun

VERSIONS = ("6.7", "7.2")
SHARED = Path(__file__).resolve().parents[4] / "shared" / "qe_failures"
O = QeOutcome  # noqa: E741 - short, since every test names one

_TABLES = yaml.safe_load((FIXTURES / "outcomes.yaml").read_text(encoding="utf-8"))
OUTCOMES = {name: QeOutcome(value) for name, value in _TABLES["recorded"].items()}
SHARED_OUTCOMES = {name: QeOutcome(value) for name, value in _TABLES["collection"].items()}


def recorded(version: str, name: str) -> QeRun:
    """Parse one recorded run."""
    return parse_run(folder_of(version, name))


def unpacked(version: str, name: str, folder: Path) -> Path:
    """Lay a recorded run out as pw.x leaves it."""
    source, target = folder_of(version, name), folder / version / name
    for path in source.rglob("*"):
        if path.is_file() and path.name not in NOT_OF_THE_RUN:
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".gz":
                place.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
            else:
                shutil.copy(path, place)
    return target


def evaluations(run: QeRun) -> list[QeRun | IonicStep]:
    """Return the steps of a run and its end, which have the same numbers."""
    return [*run.ionic_steps, run]


# ------------------------------------------------------------------------------------------------------------ outcomes


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", OUTCOMES)
def test_recorded_run_has_its_outcome(name: str, version: str) -> None:
    """Each way to fail is recognised in both versions, with evidence, without the exit status."""
    run = recorded(version, name)
    assert run.outcome is OUTCOMES[name]
    assert run.succeeded is (OUTCOMES[name] is O.CONVERGED)
    assert run.evidence
    assert run.code_version == {"6.7": "6.7MaX", "7.2": "7.2"}[version]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", OUTCOMES)
@pytest.mark.parametrize("status", [0, 1, 2, 3, 255])
def test_exit_status_is_not_trusted(name: str, version: str, status: int) -> None:
    """The exit status of pw.x, whatever it is, does not change what the files say."""
    assert parse_run(folder_of(version, name), exit_status=status).outcome is OUTCOMES[name]


def test_recorded_runs_lie_in_the_folder_of_their_outcome() -> None:
    """Where a run lies and what the table says of it agree."""
    for version in VERSIONS:
        assert {name: folder_of(version, name).parent.name for name in OUTCOMES} == OUTCOMES


def test_exit_codes_differ_between_versions() -> None:
    """7.2 ends with 255 after a stop and 3 after BFGS gave up, where 6.7 ends with 2 and 0."""
    status = {
        (version, name): json.loads((folder_of(version, name) / "status.json").read_text())["exit_status"]
        for version in VERSIONS
        for name in ("max_seconds", "exit_file", "bfgs_gave_up", "scf_not_converged", "nstep_exhausted")
    }
    assert [status["6.7", name] for name in ("max_seconds", "exit_file", "bfgs_gave_up")] == [2, 2, 0]
    assert [status["7.2", name] for name in ("max_seconds", "exit_file", "bfgs_gave_up")] == [255, 255, 3]
    assert all(status[version, "scf_not_converged"] == 2 for version in VERSIONS)
    assert all(status[version, "nstep_exhausted"] == 3 for version in VERSIONS)


def test_evidence_names_file_and_line() -> None:
    """The evidence can be looked up: file, line number counted from 1, and the words there."""
    run = recorded("6.7", "too_few_bands")
    evidence = run.evidence[0]
    assert evidence.file == "pw.out.gz"
    assert evidence.text == "setup (1): too few bands"
    assert evidence.line is not None
    lines = gzip.decompress((run.directory / evidence.file).read_bytes()).decode().splitlines()
    assert set(lines[evidence.line - 1].strip()) == {"%"}
    assert "Error in routine setup" in lines[evidence.line]
    assert str(evidence) == f"pw.out.gz:{evidence.line}: setup (1): too few bands"


def shared_runs() -> Iterator[tuple[str, Path, str]]:
    """Name, folder and suffix of every run of the shared collection; a folder may hold several."""
    for folder in sorted(SHARED.iterdir()) if SHARED.is_dir() else []:
        suffixes = {re.sub(r"^pw|\.out$", "", path.name) for path in folder.glob("pw*.out")} if folder.is_dir() else ()
        yield from ((folder.name + suffix, folder, suffix) for suffix in sorted(suffixes))


def laid_out(folder: Path, suffix: str, target: Path) -> Path:
    """Lay one run of a shared folder out as pw.x leaves it."""
    places = {
        f"pw{suffix}.out": "pw.out",
        f"pw{suffix}.in": "pw.in",
        f"pw{suffix}.err": "pw.err",
        f"CRASH{suffix}": "CRASH",
        f"pwscf.xml{suffix}": "tmp/pwscf.xml",
        f"data-file-schema.xml{suffix}": "tmp/pwscf.save/data-file-schema.xml",
    }
    (target / "tmp" / "pwscf.save").mkdir(parents=True)
    for name, place in places.items():
        if (folder / name).exists():
            shutil.copyfile(folder / name, target / place)
    return target


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared collection of failed runs is not on this machine")
def test_every_shared_run_has_its_outcome(tmp_path: Path) -> None:
    """All runs of the shared collection, retries included, end as their notes say."""
    found = {
        name: parse_run(laid_out(folder, suffix, tmp_path / name)).outcome for name, folder, suffix in shared_runs()
    }
    assert found == SHARED_OUTCOMES


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared collection of failed runs is not on this machine")
def test_a_folder_with_several_runs_is_parsed() -> None:
    """Where a folder holds several outputs, the one that started last counts."""
    for folder in sorted(path for path in SHARED.iterdir() if path.is_dir()):
        parse_run(folder)
    assert parse_run(SHARED / "scf_not_converged").output_file == SHARED / "scf_not_converged" / "pw_retry.out"


# ------------------------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize("version", VERSIONS)
def test_scf_values(version: str) -> None:
    """Energies, cutoffs, k points and gap of silicon come out in our units."""
    run = recorded(version, "scf")
    assert run.calculation == "scf"
    assert run.energy_eV == pytest.approx(-15.53898822 * UNITS.rydberg_to_eV, abs=1e-6)
    assert run.energy_per_atom_eV == pytest.approx((run.energy_eV or 0.0) / 2)
    assert run.structure is not None
    assert run.structure.composition.formula == "Si2"
    assert run.structure.lattice.a == pytest.approx(5.4 / 2**0.5, abs=1e-6)
    assert run.structure == run.initial_structure
    assert run.ecutwfc_Ry == pytest.approx(16)
    assert run.ecutrho_Ry == pytest.approx(64)
    assert (run.n_k_points, run.k_grid) == (3, (2, 2, 2, 0, 0, 0))
    assert run.functional == "PBE"
    assert run.pseudo_files == {"Si": "Si.UPF"}
    assert [(read.element, read.path) for read in run.pseudos_read] == [("Si", "./pseudo/Si.UPF")]
    assert len(run.pseudos_read[0].md5) == 32
    assert run.gap_eV == pytest.approx(7.3310 - 6.7335, abs=2e-4)
    assert run.fermi_eV == pytest.approx(6.7335, abs=1e-4)
    assert run.scf_converged is True
    assert run.opt_converged is None
    assert (run.n_ionic_steps, run.scf_cycles, run.final_scf) == (1, 1, False)
    assert run.job_done
    assert run.xml_closed
    assert run.wall_seconds is not None
    assert 0 < run.wall_seconds < 60
    assert run.smearing_energy_eV is None


@pytest.mark.parametrize("version", VERSIONS)
def test_stress_is_positive_for_a_compressed_cell(version: str) -> None:
    """The stress keeps the sign that pw.x prints: P=83.06 kbar for compressed silicon."""
    run = recorded(version, "scf")
    assert run.pressure_kbar == pytest.approx(83.06, abs=0.01)
    assert run.stress_kbar is not None
    assert run.stress_kbar == pytest.approx(83.06 * np.eye(3), abs=0.01)


def test_stress_and_forces_are_the_slope_of_the_energy() -> None:
    """Units and signs fit: energies of neighbouring recorded steps fall along the forces."""
    for version in VERSIONS:
        steps = recorded(version, "relax").ionic_steps
        before, after = steps[0], steps[1]
        assert before.structure is not None
        assert after.structure is not None
        assert before.forces_eV_per_A is not None
        assert after.forces_eV_per_A is not None
        moved = after.structure.cart_coords - before.structure.cart_coords
        work = float(np.sum(moved * (before.forces_eV_per_A + after.forces_eV_per_A) / 2))
        assert before.energy_eV - after.energy_eV == pytest.approx(work, rel=0.05)


@pytest.mark.parametrize("version", VERSIONS)
def test_metal_has_no_gap_and_a_smearing_energy(version: str) -> None:
    """With cold smearing the energy holds -TS, and bands that cross the Fermi level leave no gap."""
    run = recorded(version, "metal")
    assert run.gap_eV == 0.0
    assert run.smearing_energy_eV is not None
    assert -0.1 < run.smearing_energy_eV < 0.0
    assert run.pseudo_files == {"Mg": "Mg.UPF"}


@pytest.mark.parametrize("version", VERSIONS)
def test_spin_polarised_run_has_its_magnetization(version: str) -> None:
    """Iron is magnetic and metallic."""
    run = recorded(version, "spin")
    assert run.total_magnetization == pytest.approx(2.1, abs=0.3)
    assert run.gap_eV == 0.0


@pytest.mark.parametrize("version", VERSIONS)
def test_vc_relax_ends_with_the_final_scf(version: str) -> None:
    """Energy and stress are those of the final SCF in the final cell's own basis, the structure is the same cell."""
    run = recorded(version, "vc_relax")
    last = run.ionic_steps[-1]
    assert run.final_scf
    assert (run.n_ionic_steps, run.scf_cycles) == (6, 7)
    assert run.opt_converged is True
    assert run.energy_eV != pytest.approx(last.energy_eV, abs=1e-3)
    assert run.structure is not None
    assert last.structure is not None
    assert run.structure.lattice.matrix == pytest.approx(last.structure.lattice.matrix, abs=1e-9)
    assert last.stress_kbar is not None
    assert abs(np.trace(last.stress_kbar) / 3) < 0.5
    assert run.pressure_kbar == pytest.approx(9.01, abs=0.05)


@pytest.mark.parametrize("version", VERSIONS)
def test_structure_is_the_last_one_evaluated(version: str) -> None:
    """After nstep the files end with a cell that was never calculated; the run ends with the one before."""
    run = recorded(version, "nstep_exhausted")
    text = gzip.decompress((run.directory / "pw.out.gz").read_bytes()).decode()
    proposed = [float(value) for value in re.findall(r"new unit-cell volume =.*\( *([\d.]+) Ang", text)]
    assert len(proposed) == run.n_ionic_steps == 2
    assert run.structure is not None
    assert run.structure.volume == pytest.approx(proposed[0], rel=1e-4)
    assert run.structure.volume != pytest.approx(proposed[1], rel=1e-2)
    energies = [float(value) for value in re.findall(r"^! +total energy += +(\S+)", text, re.MULTILINE)]
    assert run.energy_eV == pytest.approx(energies[-1] * UNITS.rydberg_to_eV, abs=1e-6)
    assert run.opt_converged is False


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", ["max_seconds", "exit_file", "sigkill"])
def test_interrupted_run_keeps_its_last_step(name: str, version: str) -> None:
    """A run that was cut off has the structure, energy and forces to go on from, and no bands of a half cycle."""
    run = recorded(version, name)
    assert run.structure is not None
    assert run.energy_per_atom_eV == pytest.approx(-107.0, abs=0.2)
    assert run.n_ionic_steps >= 1
    assert run.ionic_steps[0].forces_eV_per_A is not None
    assert run.ionic_steps[0].forces_eV_per_A.shape == (2, 3)
    assert run.gap_eV is None
    assert not run.final_scf


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", ["relax", "vc_relax", "vc_relax_far", "nstep_exhausted"])
def test_output_alone_tells_the_same_as_with_the_xml(name: str, version: str, tmp_path: Path) -> None:
    """Without the XML the steps are the same to the printed digits, but the run is no success."""
    whole = recorded(version, name)
    folder = unpacked(version, name, tmp_path)
    shutil.rmtree(folder / "out")
    alone = parse_run(folder)
    assert not alone.succeeded
    assert alone.n_ionic_steps == whole.n_ionic_steps
    for mine, theirs in zip(evaluations(alone), evaluations(whole), strict=True):
        assert mine.energy_eV == pytest.approx(theirs.energy_eV, abs=1e-6)
        assert mine.structure is not None
        assert theirs.structure is not None
        assert mine.structure.lattice.matrix == pytest.approx(theirs.structure.lattice.matrix, abs=1e-5)
        assert mine.structure.cart_coords == pytest.approx(theirs.structure.cart_coords, abs=1e-5)
        assert mine.forces_eV_per_A == pytest.approx(theirs.forces_eV_per_A, abs=1e-5)
        assert mine.stress_kbar is not None
        if theirs.stress_kbar is not None:
            assert mine.stress_kbar == pytest.approx(theirs.stress_kbar, abs=2e-3)


def test_restart_does_not_take_the_input_for_its_start() -> None:
    """A restarted relaxation starts from the saved geometry, not from the one in its input."""
    for version in VERSIONS:
        run = recorded(version, "restart")
        first, given = run.ionic_steps[0].structure, run.initial_structure
        assert run.restarted
        assert first is not None
        assert given is not None
        assert first.volume > 1.1 * given.volume


def test_summary_is_json() -> None:
    """The summary of any run can be written as JSON."""
    for name, outcome in OUTCOMES.items():
        assert json.loads(json.dumps(recorded("7.2", name).summary()))["outcome"] == outcome


# -------------------------------------------------------------------------------------------------------- success rule


def test_thresholds_of_the_caller_judge_what_is_left_over() -> None:
    """A vc-relax from far away converges with 34 kbar left in its final basis: no success for who looks."""
    run = recorded("7.2", "vc_relax_far")
    assert run.succeeded
    assert check_convergence(run, 0.05, 50.0).outcome is O.CONVERGED
    left = check_convergence(run, 0.05, 1.0)
    assert left.outcome is O.FINAL_SCF_INCONSISTENT
    assert "34." in left.evidence[0].text
    assert check_convergence(run, 0.05, 1.0, target_pressure_kbar=run.pressure_kbar or 0.0).outcome is O.CONVERGED
    assert check_convergence(run, 0.05).outcome is O.CONVERGED


def test_forces_of_the_caller_judge_a_relaxation() -> None:
    """Forces above the threshold are left over; a failed run keeps its own outcome."""
    run = recorded("6.7", "vc_relax")
    assert check_convergence(run, 0.05).outcome is O.CONVERGED
    assert check_convergence(run, 1e-5).outcome is O.FORCES_LEFT_OVER
    assert check_convergence(recorded("6.7", "nstep_exhausted"), 10.0).outcome is O.NSTEP_EXHAUSTED


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("size", [0, 1, 100, 3000])
def test_cut_xml_is_no_success(version: str, size: int, tmp_path: Path) -> None:
    """A disk that fills up at the end leaves JOB DONE and exit status 0, but a cut XML file."""
    folder = unpacked(version, "scf", tmp_path)
    path = folder / "out" / "pwscf.xml"
    path.write_bytes(path.read_bytes()[:size])
    assert parse_run(folder, exit_status=0).outcome is O.XML_TRUNCATED


def test_whole_save_does_not_excuse_a_cut_xml(tmp_path: Path) -> None:
    """When one of the two XML files is cut, the other is not believed either."""
    folder = unpacked("7.2", "scf", tmp_path)
    (folder / "out" / "pwscf.save").mkdir()
    shutil.copy(folder / "out" / "pwscf.xml", folder / "out" / "pwscf.save" / "data-file-schema.xml")
    assert parse_run(folder).succeeded
    (folder / "out" / "pwscf.xml").write_bytes(b"")
    assert parse_run(folder).outcome is O.XML_TRUNCATED


@pytest.mark.parametrize("version", VERSIONS)
def test_xml_of_another_run_is_no_success(version: str, tmp_path: Path) -> None:
    """The XML file must be of this very run: an older file and a newer one of another run are refused."""
    folder = unpacked(version, "scf", tmp_path)
    xml, output = folder / "out" / "pwscf.xml", folder / "pw.out"
    shutil.copy(unpacked(version, "relax", tmp_path) / "out" / "pwscf.xml", xml)
    assert parse_run(folder).outcome is O.XML_MISSING
    output.write_text(re.sub(r"starts on +\d+", "starts on 30", output.read_text()))
    stale = parse_run(folder)
    assert stale.outcome is O.XML_MISSING
    assert "earlier run" in stale.evidence[0].text
    assert not stale.xml_closed


def test_clock_set_back_does_not_refuse_a_good_run(tmp_path: Path) -> None:
    """When local time jumps back during a run its XML looks older than the run, but holds the same energy."""
    folder = unpacked("7.2", "scf", tmp_path)
    output = folder / "pw.out"
    output.write_text(re.sub(r"starts on +\d+", "starts on 30", output.read_text()))
    assert parse_run(folder).succeeded


def test_missing_end_mark_is_no_success(tmp_path: Path) -> None:
    """Without JOB DONE the run was cut off, however good the XML is."""
    folder = unpacked("7.2", "scf", tmp_path)
    output = folder / "pw.out"
    output.write_text(output.read_text().replace("JOB DONE.", ""))
    assert parse_run(folder).outcome is O.INTERRUPTED
    assert parse_run(folder, exit_status=-11).outcome is O.SEGMENTATION_FAULT
    assert parse_run(folder, exit_status=139).outcome is O.SEGMENTATION_FAULT
    assert parse_run(folder, exit_status=137).outcome is O.INTERRUPTED


@pytest.mark.parametrize("flag", ["scf_conv", "opt_conv"])
def test_flags_of_the_xml_are_heard(flag: str, tmp_path: Path) -> None:
    """A flag of convergence that is false in the XML makes any run a failure."""
    folder = unpacked("6.7", "vc_relax", tmp_path)
    path = folder / "out" / "pwscf.xml"
    head, _, tail = path.read_text().partition("<convergence_info>")
    tail = re.sub(rf"(<{flag}>\s*<convergence_achieved>)true", r"\g<1>false", tail)
    path.write_text(f"{head}<convergence_info>{tail}")
    assert parse_run(folder).outcome is {"scf_conv": O.SCF_NOT_CONVERGED, "opt_conv": O.NSTEP_EXHAUSTED}[flag]


def test_bfgs_that_goes_on_after_a_reset_has_not_given_up(tmp_path: Path) -> None:
    """The same words stand in the middle of runs that go on; only the last step's words are the end."""
    folder = unpacked("7.2", "relax", tmp_path)
    output = folder / "pw.out"
    words = "     Message from routine bfgs:\n     history already reset at previous step: stopping\n"
    head, mark, tail = output.read_text().partition("     NEW-OLD atomic charge density")
    output.write_text(head + words + mark + tail)
    assert parse_run(folder).succeeded


# --------------------------------------------------------------------------------------------------------------- files


def test_files_are_found_by_content(tmp_path: Path) -> None:
    """Names do not matter, packed or not, and foreign files do not disturb."""
    folder = unpacked("6.7", "scf", tmp_path)
    (folder / "pw.out").rename(folder / "slurm-17.log")
    (folder / "pw.in").rename(folder / "input")
    (folder / "notes.txt").write_text("JOB DONE. Error in routine setup (1): too few bands\n")
    (folder / "wfc1.dat").write_bytes(bytes(range(256)) * 100)
    run = parse_run(str(folder))
    assert run.succeeded
    assert run.output_file == folder / "slurm-17.log"


def test_merged_streams_are_read(tmp_path: Path) -> None:
    """With standard error in the output, its words count as well."""
    folder = unpacked("7.2", "pseudo_truncated", tmp_path)
    (folder / "pw.out").write_text((folder / "pw.out").read_text() + (folder / "pw.err").read_text())
    (folder / "pw.err").unlink()
    assert parse_run(folder).outcome is O.PSEUDO_UNREADABLE


def test_crash_file_speaks_when_the_output_lost_the_message(tmp_path: Path) -> None:
    """What a lost buffer took from the output stands in CRASH; the newest of several errors there counts."""
    folder = unpacked("6.7", "too_few_bands", tmp_path)
    older = unpacked("6.7", "pseudo_missing", tmp_path) / "CRASH"
    output = folder / "pw.out"
    output.write_text(output.read_text().partition(" %%%%")[0])
    crash = folder / "CRASH"
    crash.write_text(older.read_text() + crash.read_text())
    run = parse_run(folder)
    assert run.outcome is O.TOO_FEW_BANDS
    assert run.evidence[0].file == "CRASH"


@pytest.mark.parametrize(
    "words",
    [
        "/opt/qe/bin/pw.x: No such file or directory",
        "There are not enough slots available in the system to satisfy the 64",
        "bash: pw.x: command not found",
    ],
)
def test_a_launcher_that_fails_with_one_line_is_heard(words: str, tmp_path: Path) -> None:
    """Though its standard error holds nothing else, the run is not one that nobody started."""
    (tmp_path / "pw.err").write_text(words + "\n", encoding="utf-8")
    assert parse_run(tmp_path).outcome is QeOutcome.LAUNCH_FAILED


def test_unknown_error_is_kept_as_unknown(tmp_path: Path) -> None:
    """An error that the vocabulary lacks is reported with its words."""
    folder = unpacked("7.2", "too_few_bands", tmp_path)
    output = folder / "pw.out"
    output.write_text(output.read_text().replace("setup", "frobnicate").replace("too few bands", "lost my marbles"))
    run = parse_run(folder)
    assert run.outcome is O.UNKNOWN
    assert run.evidence[0].text == "frobnicate (1): lost my marbles"


def test_empty_folder_is_a_run_that_never_started(tmp_path: Path) -> None:
    """Nothing there is an outcome, not an error."""
    run = parse_run(tmp_path)
    assert run.outcome is O.NOT_STARTED
    assert run.structure is None
    assert run.summary()["band"] == "continue"


def test_missing_folder_is_an_error(tmp_path: Path) -> None:
    """Only a folder that does not exist is refused."""
    with pytest.raises(InputError, match="is not a folder"):
        parse_run(tmp_path / "nowhere")


def test_package_exports_the_parser() -> None:
    """The names that others build upon are exported."""
    assert qe.parse_run is parse_run
    assert qe.QeOutcome is QeOutcome
    with pytest.raises(AttributeError):
        _ = qe.parse_walk


# ---------------------------------------------------------------------------------------------------------------- size


def test_long_output_is_read_whole(tmp_path: Path) -> None:
    """Of 10 MB of relaxation every step is there; `tests/benchmarks` measures how long it takes."""
    text = gzip.decompress((folder_of("6.7", "vc_relax") / "pw.out.gz").read_bytes()).decode()
    head, mark, tail = text.partition("     NEW-OLD atomic charge density")
    step, end, tail = (mark + tail).partition("     bfgs converged")
    (tmp_path / "pw.out").write_text(head + step * (10 * 2**20 // len(step)) + end + tail)
    assert parse_run(tmp_path).n_ionic_steps > 1000
