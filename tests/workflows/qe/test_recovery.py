"""Every cure on a real run of pw.x: it fails without the cure, and converges with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from pymatgen.core import Lattice, Structure

from hullworks.errors import RunError
from hullworks.workflows.qe.executable import PwCommand
from hullworks.workflows.qe.handlers import CURES, load_repairs
from hullworks.workflows.qe.inputs import PwInput, build_pw_input
from hullworks.workflows.qe.kpoints import KMesh
from hullworks.workflows.qe.protocols import load_protocol
from hullworks.workflows.qe.pseudos import Family, load_family
from hullworks.workflows.qe.restarts import DENSITY, Choice, RestartKind
from hullworks.workflows.qe.run import FinishedRun, run_pw
from hullworks.workflows.qe.run_record import read_record

SI = Structure(
    Lattice([[0, 2.73, 2.73], [2.73, 0, 2.73], [2.73, 2.73, 0]]), ["Si", "Si"], [[0.0, 0.0, 0.0], [0.25, 0.25, 0.25]]
)
MOVED = Structure(SI.lattice, ["Si", "Si"], [[0.0, 0.0, 0.0], [0.27, 0.25, 0.25]])
STRAINED = Structure(
    Lattice([[0, 2.7, 2.7], [2.7, 0, 2.7], [2.7, 2.7, 0]]), ["Si", "Si"], [[0.0, 0.0, 0.0], [0.26, 0.25, 0.245]]
)
STRETCHED = Structure(Lattice(SI.lattice.matrix * 3.75 / 2.73), ["Si", "Si"], SI.frac_coords)
AL = Structure(Lattice([[0, 2.02, 2.02], [2.02, 0, 2.02], [2.02, 2.02, 0]]), ["Al"], [[0.0, 0.0, 0.0]])
MG2SI = Structure(
    Lattice([[0, 3.19, 3.19], [3.19, 0, 3.19], [3.19, 3.19, 0]]),
    ["Mg", "Mg", "Si"],
    [[0.25] * 3, [0.75] * 3, [0.0] * 3],
)
MGSI = Structure(Lattice.cubic(3.3), ["Mg", "Si"], [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]])
SLAB = Structure(
    Lattice.tetragonal(2.86, 30.0),
    ["Al"] * 5,
    [[0.0, 0.0, 0.0], [0.5, 0.5, 0.0673], [0.0, 0.0, 0.1347], [0.5, 0.5, 0.202], [0.0, 0.0, 0.2767]],
)
SI8 = Structure.from_spacegroup("Fd-3m", Lattice.cubic(5.2), ["Si"], [[0.125] * 3])
FIRST_ATTEMPT_ONLY = 'case "$PWD" in *attempt-1) ;; *) sed -i /max_seconds/d pw.in ;; esac; exec "$@"'
"""A clock that stops the first attempt; the next ones have all the time that they need."""
CUT_DENSITY = 'case "$PWD" in *attempt-2) : > out/pwscf.save/charge-density.dat ;; esac; ' + FIRST_ATTEMPT_ONLY
KILLED_ONCE = 'case "$PWD" in *attempt-1) "$@" & sleep 1.5; kill -9 $! 2>/dev/null; wait $! ;; *) exec "$@" ;; esac'
ABSENT_ONCE = 'case "$PWD" in *attempt-1) exit 1 ;; *) exec "$@" ;; esac'


@dataclass(frozen=True)
class Case:
    """A run that fails, and what heals it.

    Attributes:
        outcome: How it ends without cures.
        cure: What heals it.
        restart: What the last attempt takes over; empty where that depends on the moment.
        structure: The crystal.
        calculation: What is calculated.
        settings: Settings of pw.x that make it fail, by ``namelist__key``.
        mesh: Divisions of the k-point mesh.
        ecut_Ry: Cutoff, Ry.
        around: What a shell does around pw.x, which it knows as "$@".
        arguments: Further arguments of pw.x.
        parallel: Whether it takes the system's pw.x, which has MPI and less around it.
    """

    outcome: str
    cure: str
    restart: str = "scratch"
    structure: Structure = field(default_factory=lambda: SI)
    calculation: str = "scf"
    settings: dict[str, Any] = field(default_factory=dict)
    mesh: tuple[int, int, int] = (2, 2, 2)
    ecut_Ry: float = 12.0
    around: str = ""
    arguments: tuple[str, ...] = ()
    parallel: bool = False

    def pw_input(self, family: Family) -> PwInput:
        """Return the input."""
        protocol = load_protocol("fast", "initial_relax")
        asked = build_pw_input(self.calculation, self.structure, protocol, family)  # type: ignore[arg-type]
        asked = replace(asked, mesh=KMesh(self.mesh, (1, 1, 1)), ecutwfc_Ry=self.ecut_Ry, ecutrho_Ry=4.0 * self.ecut_Ry)
        for name, value in self.settings.items():
            namelist, key = name.split("__")
            asked = asked.with_setting(namelist, key, value)
        return asked

    def command(self, argv: list[str]) -> PwCommand:
        """Return the command."""
        shell = ["sh", "-c", self.around, "sh"] if self.around else []
        return PwCommand((*shell, "nice", "-n", "10", *argv, *self.arguments), "test")


FIXED = {"SYSTEM__occupations": "fixed", "SYSTEM__smearing": None, "SYSTEM__degauss": None}

QUICK = {
    "iterations": Case(
        "scf_not_converged", "MoreIterations", "wavefunctions", settings={"ELECTRONS__electron_maxstep": 3}
    ),
    "bands": Case("too_few_bands", "PlainBands", settings={"SYSTEM__nbnd": 3}),
    "occupations": Case(
        "smearing_needed",
        "SmearOccupations",
        structure=AL,
        settings=FIXED,
    ),
    "full highest band": Case(
        "highest_band_occupied",
        "MoreBands",
        "charge_density",
        AL,
        settings={"SYSTEM__nbnd": 2, "SYSTEM__degauss": 0.1},
        mesh=(3, 3, 3),
        ecut_Ry=15.0,
    ),
    "a metal that is taken for an insulator": Case(
        "highest_band_occupied", "SmearOccupations", structure=MGSI, settings=FIXED, mesh=(3, 3, 3)
    ),
    "an insulator without an empty band": Case("highest_band_occupied", "MoreBands", "charge_density", settings=FIXED),
    "pools": Case("too_many_pools", "FewerPools", arguments=("-nk", "2"), parallel=True),
    "clock": Case(
        "walltime_stop",
        "GoOn",
        "full",
        settings={"CONTROL__max_seconds": 1},
        mesh=(5, 5, 5),
        ecut_Ry=24.0,
        around=FIRST_ATTEMPT_ONLY,
    ),
    "nothing started": Case("not_started", "OnceMore", around=ABSENT_ONCE),
    # 7.2 counts a wrong charge afterwards, and needs further cures.
    "eigensolver": Case(
        "diagonalization_failed",
        "OtherSolver",
        settings={"SYSTEM__nbnd": 10, "ELECTRONS__diago_thr_init": 1e-17},
        parallel=True,
    ),
    "one free axis": Case(
        "symmetry_failed", "NewSymmetry", "", SI8, "vc-relax", {"CELL__cell_dofree": "x"}, mesh=(1, 1, 1)
    ),
    "no band above": Case(
        "fermi_not_found", "PlainBands", settings={"SYSTEM__nbnd": 4, "SYSTEM__smearing": "fd", "SYSTEM__degauss": 0.05}
    ),
}
SLOW = {
    "steps": Case(
        "nstep_exhausted",
        "MoreSteps",
        "charge_density",
        MOVED,
        "vc-relax",
        {"CONTROL__nstep": 5},
    ),
    "kill": Case("interrupted", "GoOn", "", MOVED, "vc-relax", around=KILLED_ONCE),
    "sloshing": Case(
        "scf_stuck",
        "GentlerMixing",
        structure=SLAB,
        settings={"ELECTRONS__mixing_beta": 0.9, "ELECTRONS__mixing_ndim": 2},
        mesh=(2, 2, 1),
    ),
    "memory": Case(
        "out_of_memory",
        "LessMemory",
        structure=Structure.from_spacegroup("Fd-3m", Lattice.cubic(5.46), ["Si"], [[0.125] * 3]),
        settings={"SYSTEM__nbnd": 100, "ELECTRONS__diago_david_ndim": 12, "ELECTRONS__conv_thr": 0.5},
        mesh=(1, 1, 1),
        ecut_Ry=36.0,
        around='ulimit -v 440000; exec "$@"',
        parallel=True,
    ),
    "radial tables": Case(
        "volume_change",
        "WiderCell",
        structure=STRETCHED,
        calculation="vc-relax",
        settings={"CELL__cell_factor": 1.05},
        ecut_Ry=16.0,
    ),
    "inhomogeneous": Case(
        "scf_stuck",
        "LocalScreening",
        structure=SLAB,
        settings={
            "ELECTRONS__mixing_beta": 1.6,
            "ELECTRONS__mixing_ndim": 2,
            "ELECTRONS__electron_maxstep": 60,
        },
        mesh=(2, 2, 1),
    ),
    "flat minimum": Case(
        "bfgs_gave_up",
        "TightTrustRadius",
        "charge_density",
        STRAINED,
        "relax",
        {
            "ELECTRONS__conv_thr": 1e-4,
            "ELECTRONS__mixing_beta": 0.7,
            "SYSTEM__occupations": "fixed",
            "SYSTEM__smearing": None,
            "SYSTEM__degauss": None,
            "IONS__upscale": None,
            "CONTROL__etot_conv_thr": 1e-8,
            "CONTROL__forc_conv_thr": 1e-4,
            "CONTROL__nstep": 80,
        },
    ),
    "noisy forces": Case(
        "nstep_exhausted",
        "DampedDynamics",
        "charge_density",
        STRAINED,
        "relax",
        {
            "ELECTRONS__conv_thr": 1e-4,
            "CONTROL__etot_conv_thr": 1e-8,
            "CONTROL__forc_conv_thr": 1e-6,
            "CONTROL__nstep": 18,
        },
    ),
}
CHARGE = Case(
    "charge_wrong",
    "ProtocolSmearing",
    structure=MG2SI,
    settings={"SYSTEM__smearing": "mv", "SYSTEM__degauss": 0.03, "ELECTRONS__conv_thr": 0.3},
    ecut_Ry=20.0,
)
"""Cold smearing wider than the gap, stopped where pw.x still warns of the charge, with exit status 0; 7.2 alone."""


@pytest.fixture(scope="module")
def family() -> Family:
    """The embedded pseudopotentials."""
    return load_family("gth-pbe")


def run(case: Case, argv: list[str], folder: Path, family: Family) -> FinishedRun:
    """Run a case."""
    return run_pw(folder, case.pw_input(family), family=family, command=case.command(argv))


def check(case: Case, argv: list[str], folder: Path, family: Family) -> FinishedRun:
    """Run a case without cures, then with them."""
    with pytest.MonkeyPatch.context() as without:
        none = replace(load_repairs(), rules=())
        without.setattr("hullworks.workflows.qe.handlers.load_repairs", lambda: none)
        with pytest.raises(RunError, match=case.outcome):
            run(case, argv, folder / "without", family)
    finished = run(case, argv, folder / "with", family)
    assert finished.run.succeeded
    corrections = finished.record["corrections"]
    assert corrections[0]["errors"] == [case.outcome]
    assert corrections[-1]["handler"] == case.cure
    assert case.restart in {"", finished.record["attempts"][-1]["restart"]}
    assert not list(folder.rglob("charge-density*"))
    return finished


@pytest.mark.parametrize("name", QUICK)
def test_a_failed_run_is_healed(
    name: str, qe: list[str], request: pytest.FixtureRequest, tmp_path: Path, family: Family
) -> None:
    """The run ends with its outcome when nothing is repaired, and converges by the cure that is for it."""
    case = QUICK[name]
    argv = request.getfixturevalue("system_qe") if case.parallel else qe
    check(case, argv, tmp_path, family)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_a_failed_run_of_some_length_is_healed(
    name: str, qe: list[str], request: pytest.FixtureRequest, tmp_path: Path, family: Family
) -> None:
    """As above, for runs of more than a few seconds."""
    case = SLOW[name]
    argv = request.getfixturevalue("system_qe") if case.parallel else qe
    check(case, argv, tmp_path, family)


def test_a_wrong_charge_is_noticed_though_pw_x_ends_well(qe: list[str], tmp_path: Path, family: Family) -> None:
    """pw.x 7.2 warns, ends with 0, and converges with the protocol's smearing."""
    finished = check(CHARGE, qe, tmp_path, family)
    assert finished.record["attempts"][0]["exit_status"] == 0


def test_a_full_restart_ends_where_a_run_without_a_stop_ends(qe: list[str], tmp_path: Path, family: Family) -> None:
    """The energies of a run in two pieces and of one in a single piece agree."""
    case = QUICK["clock"]
    pieces = run(case, qe, tmp_path / "pieces", family)
    whole = run(replace(case, settings={}, around=""), qe, tmp_path / "whole", family)
    assert pieces.run.restarted
    assert pieces.run.energy_eV == pytest.approx(whole.run.energy_eV, abs=1e-5)


def test_files_that_are_cut_are_not_used(qe: list[str], tmp_path: Path, family: Family) -> None:
    """A density that lost its end is found before pw.x reads it; the run starts from scratch and says so."""
    case = QUICK["full highest band"]
    cut = f'"$@"; r=$?; f=out/{DENSITY}; case "$PWD" in *attempt-1) truncate -s -100 $f ;; esac; exit $r'
    finished = run(replace(case, around=cut), qe, tmp_path, family)
    assert finished.record["attempts"][-1]["restart"] == "scratch"
    assert finished.record["corrections"][0]["actions"][-2:] == [
        "restart: scratch",
        "not charge_density: the density is cut",
    ]


def test_a_corrupt_file_that_no_check_finds_costs_one_attempt(qe: list[str], tmp_path: Path, family: Family) -> None:
    """Files may break after the check: pw.x then ends over them, and FreshStart begins in an empty folder."""
    finished = run(replace(QUICK["clock"], around=CUT_DENSITY), qe, tmp_path, family)
    assert [item["handler"] for item in finished.record["corrections"]] == ["GoOn", "FreshStart"]
    assert [item["restart"] for item in finished.record["attempts"]] == ["scratch", "full", "scratch"]
    assert finished.record["attempts"][1]["outcome"] == "corrupt_save"


@pytest.mark.slow
def test_a_cycle_that_gets_nowhere_is_stopped_while_it_runs(
    qe: list[str], tmp_path: Path, family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a thousand iterations that were allowed most are spared, and the next attempt mixes gently."""
    often = replace(load_repairs(), watch_s=0.4)
    monkeypatch.setattr("hullworks.workflows.qe.run.load_repairs", lambda: often)
    case = SLOW["sloshing"]
    patient = replace(case, settings={**case.settings, "ELECTRONS__electron_maxstep": 1000})
    finished = run(patient, qe, tmp_path, family)
    assert [item["handler"] for item in finished.record["corrections"]][:2] == ["StuckMonitor", "GentlerMixing"]
    assert finished.record["attempts"][0]["outcome"] == "scf_stuck"
    assert finished.record["attempts"][0]["exit_status"] < 0


FULL_DISK = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from test_recovery import Case, run
from hullworks.workflows.qe.pseudos import load_family
try:
    run(Case("", "", mesh=(5, 5, 5)), {argv!r}, Path({folder!r}) / "run", load_family("gth-pbe"))
finally:
    import shutil
    shutil.copy(Path({folder!r}) / "run" / "hullworks_run.json", {record!r})
"""


def _on_small_disk(argv: list[str], tmp_path: Path, **environment: str) -> dict[str, Any]:
    """Run silicon in a folder on a file system of its own that is too small, and return the record."""
    small, record = tmp_path / "small", tmp_path / "record.json"
    small.mkdir()
    script = FULL_DISK.format(here=str(Path(__file__).parent), argv=argv, folder=str(small), record=str(record))
    mount = f'mount -t tmpfs -o size=290k none {small} && exec "$@"'
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", mount, "sh", sys.executable, "-c", script],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if not record.is_file() and "unshare" in done.stderr:
        pytest.skip(f"a file system of one's own needs user namespaces: {done.stderr.strip()}")
    result: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
    return result


def test_a_full_disk_is_left_for_the_sites_other_one(qe: list[str], tmp_path: Path) -> None:
    """Where the site names a folder for scratch files, the run converges there and leaves nothing behind."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    record = _on_small_disk(qe, tmp_path, ESPRESSO_TMPDIR=str(scratch))
    assert record["attempts"][0]["outcome"] == "disk_full"
    assert [item["handler"] for item in record["corrections"]] == ["OtherScratch"]
    assert record["succeeded"] is True
    assert not list(scratch.iterdir())


def test_a_full_disk_without_another_ends_the_run_by_its_cause(qe: list[str], tmp_path: Path) -> None:
    """The record, which needs room too, is whole and says so."""
    record = _on_small_disk(qe, tmp_path, ESPRESSO_TMPDIR="")
    assert (record["outcome"], record["band"], record["succeeded"]) == ("disk_full", "resources", False)
    assert len(record["attempts"]) == 1


def test_every_cure_has_a_real_run() -> None:
    """No cure is without one; pairs of outcome and cure that have none stand in `unprovoked.yaml`."""
    healed = {case.cure for case in (*QUICK.values(), *SLOW.values(), CHARGE)}
    elsewhere = {"FreshStart", "OtherScratch"}
    assert healed | elsewhere == set(CURES)


def test_a_choice_tells_what_it_is() -> None:
    """The restart kind and the faults are for people."""
    assert Choice(RestartKind.SCRATCH, ("not full: x",)).actions == ("restart: scratch", "not full: x")


def test_the_record_can_be_read_back(qe: list[str], tmp_path: Path, family: Family) -> None:
    """Corrections and restart kinds are in the record on the disk."""
    run(QUICK["bands"], qe, tmp_path, family)
    assert [item["restart"] for item in read_record(tmp_path)["attempts"]] == ["scratch", "scratch"]
