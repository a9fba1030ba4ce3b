"""What one step of the graph leaves in the job store."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, Field
from pymatgen.core import Structure

from hullworks.errors import RunError
from hullworks.workflows.qe.as_ran import AsRan
from hullworks.workflows.qe.magnetism import find_flags

if TYPE_CHECKING:
    from hullworks.workflows.qe.attempts import RunFolder
    from hullworks.workflows.qe.run import FinishedRun

SMEARING_SHARE = 0.5
"""F = E - TS falls by half of TS below the energy at zero width, to leading order, with Gaussian smearing (De Vita and
Gillan, J. Phys.: Condens. Matter 3, 6225, 1991)."""


class Round(BaseModel):
    """One round of relaxation, as the next ones need it.

    Attributes:
        energy_eV_per_atom: Energy in the basis of the final cell, at zero smearing, eV/atom.
        pressure_kbar: Pressure in the basis of the final cell, kbar.
        max_force_eV_per_A: Largest force, eV/Angstrom.
        mesh: `KMesh.as_dict` of the k-points used.
        reason: Why another round was needed; empty for the last.
        run_dir: The folder of the run.
    """

    model_config = ConfigDict(extra="forbid")

    energy_eV_per_atom: float
    pressure_kbar: float | None
    max_force_eV_per_A: float | None
    mesh: dict[str, list[int]]
    reason: str
    run_dir: str


class QeTaskDoc(BaseModel):
    """Output of one step: results, how they came about, and what they are worth.

    Energies, forces and stress belong to ``structure``.

    Attributes:
        task: ``relax`` or ``static``.
        succeeded: Always true: a step that does not converge leaves no document but a failed run.
        outcome: How the last attempt ended.
        structure: The structure at the end of the step.
        initial_structure: The structure that the graph began with.
        energy_eV_per_atom: Total energy at zero smearing, eV/atom; the one that goes onto a hull.
        free_energy_eV_per_atom: Energy that forces and stress derive from, eV/atom.
        smearing_eV_per_atom: The smearing's contribution -TS to the free energy, eV/atom.
        forces_eV_per_A: Forces, one row per site, eV/Angstrom.
        stress_kbar: Stress, 3x3, kbar; positive diagonal for a compressed cell.
        pressure_kbar: A third of its trace, kbar.
        max_force_eV_per_A: Length of the largest force, eV/Angstrom.
        gap_eV: Gap on the k-points of the run; none when no empty band was calculated.
        total_magnetization_muB: Per cell, Bohr magnetons; none without spin.
        absolute_magnetization_muB: Integral of the spin density's absolute value, per cell, Bohr magnetons.
        mesh: `KMesh.as_dict` of the k-points.
        n_k_points: Number of inequivalent k-points.
        ecutwfc_Ry: Cutoff of the wavefunctions, Ry.
        ecutrho_Ry: Cutoff of the density, Ry.
        level: The level, as `LevelOfTheory.from_dict` reads it.
        protocol: Numbers of the protocol at this step.
        rounds: Rounds of relaxation, the last included; empty for a static step.
        convergence_error_eV_per_atom: Change of the energy between the last two rounds, eV/atom; none with one round.
        run_dir: The folder of the run, which holds ``hullworks_run.json``.
        host: Where it ran.
        code_version: Version of pw.x.
        input_sha256: Content hash of the first attempt's input.
        n_attempts: Starts of pw.x.
        n_ionic_steps: Geometries evaluated by the last attempt.
        corrections: What custodian's handlers found and changed.
        as_ran: The settings as pw.x itself reports them.
        unlike_level: In what these differ from the level; only looked at where the energy counts.
        flags: `VerdictFlag` values: what was noticed though the run converged.
        pieces: Earlier launches of the same step that this one went on from, oldest first.
        timings: Seconds and times of the run.
        trajectory: Ionic frames of all attempts: structure, energy_eV, forces_eV_per_A, stress_kbar.
    """

    model_config = ConfigDict(extra="forbid")

    task: str
    succeeded: bool = True
    outcome: str
    structure: Structure
    initial_structure: Structure
    energy_eV_per_atom: float
    free_energy_eV_per_atom: float
    smearing_eV_per_atom: float
    forces_eV_per_A: list[list[float]] | None
    stress_kbar: list[list[float]] | None
    pressure_kbar: float | None
    max_force_eV_per_A: float | None
    gap_eV: float | None
    total_magnetization_muB: float | None
    absolute_magnetization_muB: float | None = None
    mesh: dict[str, list[int]]
    n_k_points: int | None
    ecutwfc_Ry: float
    ecutrho_Ry: float
    level: dict[str, Any]
    protocol: dict[str, Any]
    rounds: list[Round] = Field(default_factory=list)
    convergence_error_eV_per_atom: float | None = None
    run_dir: str
    host: str
    code_version: str | None
    input_sha256: str
    n_attempts: int
    n_ionic_steps: int
    corrections: list[dict[str, Any]]
    as_ran: AsRan | None = None
    unlike_level: list[str] = Field(default_factory=list)
    flags: list[str] = Field(default_factory=list)
    pieces: list[dict[str, Any]] = Field(default_factory=list)
    timings: dict[str, float | None]
    trajectory: list[dict[str, Any]] = Field(default_factory=list)

    @classmethod
    @cache
    def model_json_schema(cls) -> dict[str, Any]:  # type: ignore[override]
        """Return the JSON schema, worked out once.

        jobflow asks for it at every reference to an output, which otherwise is most of the time to build a graph.
        """
        return super().model_json_schema()

    @classmethod
    def from_run(
        cls, finished: FinishedRun, task: str, level: dict[str, Any], initial_structure: Structure | None = None
    ) -> Self:
        """Return the document of a finished run.

        Raises:
            RunError: The run converged, but its energy or structure cannot be read.
        """
        run, record, asked = finished.run, finished.record, finished.folder.current
        if run.energy_eV is None or run.structure is None:
            raise RunError("the run has no energy or no structure", str(run.directory))
        n_atoms = len(run.structure)
        smearing = (run.smearing_energy_eV or 0.0) / n_atoms
        free = run.energy_eV / n_atoms
        return cls(
            task=task,
            outcome=run.outcome.value,
            structure=run.structure,
            initial_structure=initial_structure or finished.folder.asked.structure,
            energy_eV_per_atom=free - SMEARING_SHARE * smearing,
            free_energy_eV_per_atom=free,
            smearing_eV_per_atom=smearing,
            forces_eV_per_A=_rows(run.forces_eV_per_A),
            stress_kbar=_rows(run.stress_kbar),
            pressure_kbar=run.pressure_kbar,
            max_force_eV_per_A=run.max_force_eV_per_A,
            gap_eV=run.gap_eV,
            total_magnetization_muB=run.total_magnetization,
            absolute_magnetization_muB=run.absolute_magnetization,
            mesh=asked.mesh.as_dict(),
            n_k_points=run.n_k_points,
            ecutwfc_Ry=asked.ecutwfc_Ry,
            ecutrho_Ry=asked.ecutrho_Ry,
            level=level,
            protocol=asked.protocol.as_dict(),
            run_dir=str(finished.folder.directory),
            host=record["host"],
            code_version=run.code_version,
            input_sha256=record["input_sha256"],
            n_attempts=len(record["attempts"]),
            n_ionic_steps=run.n_ionic_steps,
            corrections=record["corrections"],
            as_ran=AsRan.of(run),
            flags=[flag.value for flag in find_flags(finished.folder.runs)],
            pieces=record.get("pieces", []),
            timings=record["timings"],
            trajectory=frames(finished.folder),
        )


def frames(folder: RunFolder) -> list[dict[str, Any]]:
    """Return every ionic frame of all attempts whose electrons converged."""
    steps = [step for run in folder.runs for step in run.ionic_steps]
    return [
        {
            "structure": None if step.structure is None else step.structure.as_dict(),
            "energy_eV": step.energy_eV,
            "forces_eV_per_A": _rows(step.forces_eV_per_A),
            "stress_kbar": _rows(step.stress_kbar),
        }
        for step in steps
    ]


def _rows(array: Any) -> list[list[float]] | None:  # noqa: ANN401 - a numpy array or none
    return None if array is None else array.tolist()
