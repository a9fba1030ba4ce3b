"""The graph of one candidate, with a real pw.x."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jobflow import Flow, Job, JobStore, OutputReference, job, run_locally
from maggma.stores import MemoryStore
from pymatgen.core import Lattice, Structure

from hullworks.errors import InputError
from hullworks.levels import LevelOfTheory
from hullworks.settings import Settings, get_settings
from hullworks.workflows.qe.archive import verify_archive
from hullworks.workflows.qe.cells import primitive_cell
from hullworks.workflows.qe.flows import QeRelaxRelaxStaticMaker
from hullworks.workflows.qe.jobs import QeRelaxMaker
from hullworks.workflows.qe.protocols import level_of_theory, load_protocol
from hullworks.workflows.qe.pseudos import load_family
from hullworks.workflows.qe.run_record import read_record
from hullworks.workflows.qe.task_document import QeTaskDoc

# jobflow 0.4 changes folders in a way that monty announces to drop; pymatgen does so with spglib.
pytestmark = pytest.mark.filterwarnings(
    "ignore:cd is deprecated:FutureWarning", "ignore:Set OLD_ERROR_HANDLING:DeprecationWarning"
)

COARSE = [["SYSTEM", "ecutwfc", 14.0], ["SYSTEM", "ecutrho", 56.0]]
"""Cutoffs that make silicon a matter of seconds, and its stress depend on the basis, so that rounds repeat."""


@job
def land_here(static: dict[str, Any], relax: dict[str, Any]) -> dict[str, float]:
    """Stand in for the landing: it gets the whole documents."""
    last, relaxed = QeTaskDoc.model_validate(static), QeTaskDoc.model_validate(relax)
    return {"energy": last.energy_eV_per_atom, "relaxed": relaxed.energy_eV_per_atom}


def land(static: OutputReference, relax: OutputReference) -> Job:
    """Return the last job of a graph."""
    last: Job = land_here(static, relax)
    return last


@pytest.fixture
def level() -> LevelOfTheory:
    """The fast level with the embedded pseudopotentials."""
    return level_of_theory(load_protocol("fast"), load_family("gth-pbe"))


@pytest.fixture
def si_fd3m() -> Structure:
    """Conventional silicon, 2 % too large."""
    return Structure.from_spacegroup("Fd-3m", Lattice.cubic(5.57), ["Si"], [[0, 0, 0]])


@pytest.fixture
def ready(project: Settings, qe: list[str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose pw.x is the one of the tests."""
    monkeypatch.setenv("HULLWORKS_QE__COMMAND", shlex.join(qe))
    get_settings.cache_clear()
    return project.project_dir


def jobs_of(flow: Flow) -> list[Job]:
    """Return the jobs of a flat flow."""
    return [item for item in flow.jobs if isinstance(item, Job)]


def test_a_graph_is_flat_and_in_order(level: LevelOfTheory, si_fd3m: Structure) -> None:
    """relax, relax, static, land, each waiting for what it needs; metadata stands on all of them."""
    flow = QeRelaxRelaxStaticMaker.at(level).make(si_fd3m, metadata={"candidate_id": "cand-1"}, land=land)
    jobs = jobs_of(flow)
    assert [item.name for item in jobs] == ["relax 1", "relax 2", "static", "land_here"]
    assert [len(set(item.input_uuids)) for item in jobs] == [0, 1, 1, 2]
    assert all(item.metadata["candidate_id"] == "cand-1" for item in jobs)
    assert len(flow.jobs) == 4


def test_the_cell_is_reduced_to_its_primitive_one(level: LevelOfTheory, si_fd3m: Structure) -> None:
    """Eight atoms of silicon are two."""
    first = jobs_of(QeRelaxRelaxStaticMaker.at(level).make(si_fd3m))[0]
    assert len(first.function_args[0]) == 2


def test_overlapping_atoms_are_refused_before_there_is_a_graph(level: LevelOfTheory) -> None:
    """Nothing is submitted that pw.x could not calculate."""
    overlapping = Structure(Lattice.cubic(4.0), ["Si", "Si"], [[0.0, 0.0, 0.0], [0.05, 0.0, 0.0]])
    with pytest.raises(InputError, match="overlap"):
        QeRelaxRelaxStaticMaker.at(level).make(overlapping)


def test_silicon_goes_through_the_whole_graph(ready: Path, level: LevelOfTheory, si_fd3m: Structure) -> None:
    """Two relaxations, the second until cell and basis agree, a static calculation, landing; all of it on disk."""
    flow = QeRelaxRelaxStaticMaker.at(level, COARSE).make(si_fd3m, metadata={"candidate_id": "cand-1"}, land=land)
    store = JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
    first, second, static, last = (item.uuid for item in jobs_of(flow))
    outputs = run_locally(flow, store=store, create_folders=True, ensure_success=True, log=False)

    relaxed = outputs[second][max(outputs[second])].output
    final = outputs[static][1].output
    assert isinstance(final, QeTaskDoc)
    assert outputs[first][1].output.protocol["stage"] == "initial_relax"
    assert relaxed.rounds[-1].reason == ""
    assert abs(relaxed.pressure_kbar) <= load_protocol("fast").press_limit_kbar
    # 5.47 at a real cutoff.
    assert final.structure.lattice.a * 2**0.5 == pytest.approx(5.37, abs=0.03)
    assert final.initial_structure.lattice.a * 2**0.5 == pytest.approx(5.57)
    assert final.energy_eV_per_atom == pytest.approx(relaxed.energy_eV_per_atom, abs=1e-4)
    assert outputs[last][1].output["energy"] == final.energy_eV_per_atom
    assert LevelOfTheory.from_dict(final.level) == level
    # The coarse cutoffs are not the level's, whatever the graph was told: such an energy stays off the hull.
    assert [line.partition(" was ")[0] for line in final.unlike_level] == [
        "the cutoff of the wavefunctions",
        "the cutoff of the density",
    ]
    assert final.as_ran is not None
    assert final.as_ran.ecutwfc_Ry == pytest.approx(14.0)

    folder = Path(final.run_dir)
    assert folder.is_relative_to(ready)
    assert read_record(folder)["succeeded"] is True
    verify_archive(folder)
    stored = store.query_one({"uuid": second}, sort={"index": -1})
    assert stored is not None
    assert stored["metadata"]["candidate_id"] == "cand-1"


def test_a_relaxation_repeats_itself_until_basis_and_cell_agree(
    ready: Path, level: LevelOfTheory, si_fd3m: Structure
) -> None:
    """From far off, stress is left over in the final basis; each further round is a job that replaces the last."""
    squeezed = primitive_cell(si_fd3m)
    squeezed.scale_lattice(0.8 * squeezed.volume)
    relax = QeRelaxMaker(level=level.as_dict(), overrides=COARSE).make(squeezed)
    store = JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
    outputs = run_locally(relax, store=store, create_folders=True, ensure_success=True, log=False)[relax.uuid]

    last = outputs[max(outputs)].output
    assert len(last.rounds) == max(outputs) >= 2
    assert last.rounds[-1].reason == ""
    assert all(item.reason for item in last.rounds[:-1])
    assert abs(last.rounds[0].pressure_kbar) > load_protocol("fast").press_limit_kbar
    assert abs(last.pressure_kbar) <= load_protocol("fast").press_limit_kbar
    change = last.rounds[-1].energy_eV_per_atom - last.rounds[-2].energy_eV_per_atom
    assert last.convergence_error_eV_per_atom == change
    assert len({item.run_dir for item in last.rounds}) == len(last.rounds)
    assert last.initial_structure.volume == pytest.approx(squeezed.volume)
    assert all(Path(item.run_dir).is_relative_to(ready) for item in last.rounds)


@pytest.mark.slow
def test_a_sheared_cell_of_another_volume_arrives(ready: Path, level: LevelOfTheory, si_fd3m: Structure) -> None:
    """Ten per cent too large and sheared by five: the rounds end with the cell that the symmetric start ends with."""
    ends = []
    for strain in (np.eye(3), 1.1 ** (1 / 3) * (np.eye(3) + 0.05 * np.eye(3, k=1))):
        cell = primitive_cell(si_fd3m)
        start = Structure(Lattice(cell.lattice.matrix @ strain), cell.species, cell.frac_coords)
        relax = QeRelaxMaker(level=level.as_dict(), overrides=COARSE).make(start)
        store = JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
        outputs = run_locally(relax, store=store, create_folders=True, ensure_success=True, log=False)[relax.uuid]
        ends.append(outputs[max(outputs)].output)
        assert len(ends[-1].rounds) <= load_protocol("fast").max_rounds
    symmetric, sheared = ends
    assert sheared.structure.volume == pytest.approx(symmetric.structure.volume, rel=0.02)
    assert sheared.energy_eV_per_atom == pytest.approx(symmetric.energy_eV_per_atom, abs=0.005)
    assert not list(ready.rglob("checkpoints/*/state.json"))
