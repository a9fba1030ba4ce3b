"""The settings that pw.x itself reports, held against the level; on real runs of both versions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from pymatgen.core import Lattice, Structure

from hullworks.workflows.qe.as_ran import AsRan, differences
from hullworks.workflows.qe.executable import PwCommand
from hullworks.workflows.qe.inputs import Override, build_pw_input
from hullworks.workflows.qe.protocols import level_of_theory, load_protocol
from hullworks.workflows.qe.pseudos import load_family
from hullworks.workflows.qe.run import run_pw

if TYPE_CHECKING:
    from pathlib import Path

    from hullworks.workflows.qe.results import QeRun

FAST = load_protocol("fast")
FAMILY = load_family("gth-pbe")
LEVEL = level_of_theory(FAST, FAMILY)
SI = Structure(
    Lattice([[0, 2.73, 2.73], [2.73, 0, 2.73], [2.73, 2.73, 0]]), ["Si", "Si"], [[0.0, 0.0, 0.0], [0.25, 0.25, 0.25]]
)


def calculate(command: list[str], folder: Path, *overrides: Override) -> QeRun:
    """Return a static run of silicon at the level, with settings of one's own."""
    asked = build_pw_input("scf", SI, FAST, FAMILY, overrides)
    return run_pw(folder, asked, family=FAMILY, command=PwCommand(tuple(command), "given")).run


@pytest.mark.parametrize("code", ["qe", "system_qe"])
def test_a_run_by_the_protocol_is_what_its_level_says(
    code: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Functional, cutoffs, smearing, k-points and files come back from pw.x as the level has them."""
    run = calculate(request.getfixturevalue(code), tmp_path)
    assert differences(run, LEVEL, FAST, FAMILY) == []
    ran = AsRan.of(run)
    assert (ran.functional, ran.smearing, ran.degauss_Ry, ran.spin) == ("PBE", "gaussian", FAST.degauss_Ry, False)
    name, md5 = ran.pseudos["Si"]
    assert name == FAMILY.pseudo("Si").filename
    assert len(md5) == 32
    assert ran.code_version


def test_settings_of_ones_own_show(qe: list[str], tmp_path: Path) -> None:
    """Each one that makes the energy another level's is named with what it was and what it should be."""
    others = (
        Override("SYSTEM", "ecutwfc", 20.0),
        Override("SYSTEM", "ecutrho", 80.0),
        Override("SYSTEM", "smearing", "mv"),
        Override("SYSTEM", "degauss", 0.01),
    )
    found = differences(calculate(qe, tmp_path, *others), LEVEL, FAST, FAMILY)
    assert [line.partition(" was ")[0] for line in found] == [
        "the cutoff of the wavefunctions",
        "the cutoff of the density",
        "the smearing",
    ]
    assert "marzari-vanderbilt, 0.01 Ry wide, not gaussian" in found[-1]


def test_fixed_occupations_show(qe: list[str], tmp_path: Path) -> None:
    """An insulator converges with them, to an energy that is not the level's."""
    fixed = (
        Override("SYSTEM", "occupations", "fixed"),
        Override("SYSTEM", "smearing", None),
        Override("SYSTEM", "degauss", None),
    )
    (found,) = differences(calculate(qe, tmp_path, *fixed), LEVEL, FAST, FAMILY)
    assert found.startswith("the smearing was none")


def test_another_level_shows_in_the_same_run(qe: list[str], tmp_path: Path) -> None:
    """The run of one level is no run of another: functional, k-points, pseudopotential and spin are looked at too."""
    run = calculate(qe, tmp_path)
    (functional,) = differences(run, replace(LEVEL, functional="PBEsol"), FAST, FAMILY)
    assert functional == "the functional was PBE, not PBEsol"
    (mesh,) = differences(run, LEVEL, replace(FAST, kpoints_distance=0.3), FAMILY)
    assert mesh.startswith("the k-points were [6, 6, 6")
    other = replace(run, pseudos_read=tuple(replace(item, md5="0" * 32) for item in run.pseudos_read))
    (pseudo,) = differences(other, LEVEL, FAST, FAMILY)
    assert pseudo.startswith(f"the pseudopotential of Si was {FAMILY.pseudo('Si').filename} {'0' * 32}, not ")
    (spin,) = differences(replace(run, absolute_magnetization=0.0), LEVEL, FAST, FAMILY)
    assert spin.startswith("the spins were free")


def test_what_pw_x_does_not_tell_is_no_proof(qe: list[str], tmp_path: Path) -> None:
    """A number that is missing counts as another one: the entry stays out."""
    run = replace(calculate(qe, tmp_path), ecutwfc_Ry=None, k_grid=None, pseudos_read=())
    found = differences(run, LEVEL, FAST, FAMILY)
    assert [line.split(" was")[0].split(" were")[0] for line in found] == [
        "the cutoff of the wavefunctions",
        "the k-points",
        "the pseudopotential of Si",
    ]
