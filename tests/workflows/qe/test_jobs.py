"""Steps of the graph: when a relaxation repeats itself, and what is checked before a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from jobflow import Job
from monty.json import MontyDecoder, jsanitize
from pymatgen.core import Lattice, Structure

from hullworks.errors import LevelError, PseudopotentialError
from hullworks.workflows.qe.attempts import Attempt, RunFolder
from hullworks.workflows.qe.code import read_result
from hullworks.workflows.qe.evaluations import IonicStep
from hullworks.workflows.qe.inputs import build_pw_input
from hullworks.workflows.qe.jobs import (
    QeRelaxMaker,
    QeStaticMaker,
    another_round,
    energy_change,
    initial_relax_maker,
    level_family,
)
from hullworks.workflows.qe.kpoints import KMesh
from hullworks.workflows.qe.outcomes import QeOutcome
from hullworks.workflows.qe.parser import QeRun
from hullworks.workflows.qe.protocols import level_of_theory, load_protocol
from hullworks.workflows.qe.pseudos import load_family
from hullworks.workflows.qe.run import FinishedRun
from hullworks.workflows.qe.task_document import QeTaskDoc, Round

if TYPE_CHECKING:
    from hullworks.levels import LevelOfTheory
    from hullworks.settings import Settings

FAST = load_protocol("fast")


@pytest.fixture
def si_fd3m() -> Structure:
    """Primitive silicon."""
    return Structure(
        Lattice([[0, 2.73, 2.73], [2.73, 0, 2.73], [2.73, 2.73, 0]]),
        ["Si", "Si"],
        [[0.0, 0.0, 0.0], [0.25, 0.25, 0.25]],
    )


@pytest.fixture
def level() -> LevelOfTheory:
    """The fast level with the embedded pseudopotentials."""
    return level_of_theory(FAST, load_family("gth-pbe"))


def finished(
    structure: Structure, *, pressure: float = 0.0, force: float = 0.0, mesh: KMesh | None = None
) -> FinishedRun:
    """Return a relaxation that ended with this pressure in kbar, largest force in eV/Angstrom and mesh."""
    asked = build_pw_input("vc-relax", structure, FAST, load_family("gth-pbe"))
    asked = asked if mesh is None else replace(asked, mesh=mesh)
    run = QeRun(
        directory=Path(),
        outcome=QeOutcome.CONVERGED,
        structure=structure,
        energy_eV=-214.0,
        smearing_energy_eV=-0.004,
        forces_eV_per_A=np.array([[force, 0, 0], [-force, 0, 0]]),
        stress_kbar=pressure * np.eye(3),
        ionic_steps=(IonicStep(-213.9),),
    )
    folder = RunFolder(Path(), asked)
    folder.attempts.append(Attempt(1, Path(), asked, run=run))
    record = {"host": "here", "input_sha256": asked.sha256, "attempts": [{}], "corrections": [], "timings": {}}
    return FinishedRun(run, folder, record)


def test_a_settled_relaxation_is_not_repeated(si_fd3m: Structure) -> None:
    """Small forces, little stress and enough k-points end the rounds."""
    assert another_round(finished(si_fd3m, pressure=0.5), FAST) == ""


@pytest.mark.parametrize("pressure", [-0.6, 0.6, 20.0])
def test_stress_in_the_final_basis_asks_for_another_round(si_fd3m: Structure, pressure: float) -> None:
    """The reason names the stress that is left over, of either sign."""
    assert "stress left over" in another_round(finished(si_fd3m, pressure=pressure), FAST)


def test_a_force_in_the_final_basis_asks_for_another_round(si_fd3m: Structure) -> None:
    """0.1 eV/Angstrom is above the protocol's threshold."""
    assert "largest force" in another_round(finished(si_fd3m, force=0.1), FAST)


def test_a_cell_that_shrank_below_its_mesh_asks_for_another_round(si_fd3m: Structure) -> None:
    """The mesh that the distance gives for the final cell is denser than the one used."""
    reason = another_round(finished(si_fd3m, mesh=KMesh((5, 5, 5), (1, 1, 1))), FAST)
    assert reason == "the final cell needs (6, 6, 6) k-points instead of (5, 5, 5)"
    assert another_round(finished(si_fd3m, mesh=KMesh((7, 7, 7), (1, 1, 1))), FAST) == ""


def test_the_change_of_the_energy_takes_two_rounds() -> None:
    """With one round nothing is known of the convergence."""
    one = _round(-1.0)
    assert energy_change([one]) is None
    assert energy_change([one, _round(-1.25)]) == -0.25


def test_the_energy_is_taken_to_zero_smearing(si_fd3m: Structure, level: LevelOfTheory) -> None:
    """Half of -TS is taken off the free energy."""
    document = QeTaskDoc.from_run(finished(si_fd3m), "static", level.as_dict())
    assert document.free_energy_eV_per_atom == pytest.approx(-107.0)
    assert document.smearing_eV_per_atom == pytest.approx(-0.002)
    assert document.energy_eV_per_atom == pytest.approx(-106.999)


def test_a_document_survives_the_job_store(si_fd3m: Structure, level: LevelOfTheory) -> None:
    """Through monty's JSON it comes back equal, with its structure as an object."""
    document = QeTaskDoc.from_run(finished(si_fd3m), "relax", level.as_dict())
    stored = jsanitize(document, strict=True, enum_values=True, allow_bson=True)
    again = MontyDecoder().process_decoded(stored)
    assert isinstance(again, QeTaskDoc)
    assert isinstance(again.structure, Structure)
    assert again.energy_eV_per_atom == document.energy_eV_per_atom
    assert [frame["energy_eV"] for frame in again.trajectory] == [-213.9]


def test_a_job_holds_data_alone(si_fd3m: Structure, level: LevelOfTheory) -> None:
    """A job is JSON without settings, stores or secrets, and comes back as the same Maker."""
    job = QeRelaxMaker(level=level.as_dict()).make(si_fd3m)
    text = str(job.as_dict())
    assert "uri" not in text
    assert "JobStore" not in text
    again = MontyDecoder().process_decoded(jsanitize(job.as_dict(), strict=True))
    assert isinstance(again, Job)
    assert again.maker == job.maker


def test_the_first_relaxation_is_loose_and_not_repeated(level: LevelOfTheory) -> None:
    """It takes the protocol's initial stage."""
    maker = initial_relax_maker(level.as_dict())
    assert not maker.repeat
    assert maker.protocol == load_protocol("fast", "initial_relax")
    assert QeStaticMaker(level=level.as_dict()).protocol == FAST


def test_a_level_whose_protocol_has_other_numbers_is_refused(level: LevelOfTheory) -> None:
    """A worker with another version never computes under a foreign name."""
    other = replace(level, protocol_hash="0" * 64)
    with pytest.raises(LevelError, match="other numbers"):
        _ = QeStaticMaker(level=other.as_dict()).protocol


def test_pseudopotentials_that_are_not_the_levels_are_refused(project: Settings, level: LevelOfTheory) -> None:
    """Hashes decide, for the elements that are used."""
    assert project.qe.command is None
    hashes = tuple((element, "0" * 64 if element == "Si" else digest) for element, digest in level.pseudo_hashes)
    other = replace(level, pseudo_hashes=hashes)
    assert level_family(other, {"Mg"}).name == "gth-pbe"
    with pytest.raises(PseudopotentialError, match="Si are not those of the level"):
        level_family(other, {"Mg", "Si"})


def test_cutoffs_that_are_not_the_levels_are_refused(project: Settings, level: LevelOfTheory) -> None:
    """A worker with another table would compute other energies under the same key."""
    assert project.qe.command is None
    with pytest.raises(PseudopotentialError, match=r"cutoffs are .* those of the level"):
        level_family(replace(level, cutoff_rule="largest of the elements in table gth-pbe 0"), {"Mg"})


def test_a_level_with_a_hubbard_scheme_has_no_graph(level: LevelOfTheory) -> None:
    """The U values of VASP's sets are not those of pw.x."""
    with pytest.raises(LevelError, match="no Hubbard U"):
        _ = QeStaticMaker(level=replace(level, hubbard="mp2020").as_dict()).protocol


def _round(energy: float) -> Round:
    return Round(
        energy_eV_per_atom=energy, pressure_kbar=0.0, max_force_eV_per_A=0.0, mesh={}, reason="", run_dir="run"
    )


def test_the_convergence_error_of_an_entry_is_a_size(si_fd3m: Structure, level: LevelOfTheory) -> None:
    """Whether the energy fell or rose between the last two rounds, the error bar is as wide; flags come along."""
    document = QeTaskDoc.from_run(finished(si_fd3m), "relax", level.as_dict())
    document.convergence_error_eV_per_atom = -0.003
    document.flags = ["magnetic_collapse"]
    result = read_result(document.model_dump(), document.model_dump())
    assert result.convergence_error_eV_per_atom == 0.003
    assert [flag.value for flag in result.flags] == ["magnetic_collapse"]
