"""What one run of pw.x tells, as `parse_run` puts it together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hullworks.workflows.qe.outcomes import QeOutcome
from hullworks.workflows.qe.quantities import CodeFeatures

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from pymatgen.core import Structure

    from hullworks.workflows.qe.diagnosis import Evidence
    from hullworks.workflows.qe.evaluations import IonicStep
    from hullworks.workflows.qe.quantities import EnergyTerms, MemoryEstimate, ScfCycle, Smearing, Timing
    from hullworks.workflows.qe.stdout import PseudoRead


@dataclass(frozen=True, eq=False)
class QeRun:
    """One run of pw.x as far as its files tell; a value that they do not tell is None.

    >>> run = parse_run("runs/si")
    >>> run.outcome, run.succeeded
    (<QeOutcome.CONVERGED: 'converged'>, True)
    >>> run.energy_per_atom_eV, run.structure.composition.reduced_formula
    (-107.01, 'Si')

    Energies, forces, stress and structure belong together: they are those of the geometry that was evaluated last.
    That is the final SCF's of a vc-relax that ended regularly, and never the next geometry that a relaxation
    proposed but did not calculate.

    Args:
        directory: The run's folder.
        outcome: How it ended.
        evidence: The lines and findings that led to the outcome.
        code_version: Version of pw.x, such as ``6.7MaX``.
        calculation: ``scf``, ``relax``, ``vc-relax``, ...
        initial_structure: The structure of the input.
        structure: The structure that was evaluated last.
        energy_eV: Total energy of the cell (with smearing the free energy), eV.
        smearing_energy_eV: The smearing's contribution -TS that ``energy_eV`` holds, eV.
        energy_terms: What ``energy_eV`` is the sum of; None without an energy.
        forces_eV_per_A: Forces, shape (n, 3), eV/Angstrom.
        stress_kbar: Stress with the sign of pw.x, shape (3, 3), kbar: positive diagonal for a compressed cell.
        scf_converged: Whether the last self-consistent cycle converged.
        opt_converged: Whether the relaxation converged; None for a run without one.
        ionic_steps: Every evaluated geometry in order, without the final SCF of a vc-relax.
        final_scf: Whether the last evaluation is the final SCF of a vc-relax.
        relaxation_ended: Whether the optimiser printed its end, converged or not. A vc-relax that was cut off after it
            was cut in its final SCF, and a restart there loses charge.
        scf: Every self-consistent cycle: which step it belongs to, iterations, accuracy reached, converged or not.
        bfgs_resets: How often BFGS threw its history away.
        fermi_eV: Fermi energy or highest occupied level.
        gap_eV: Gap on the k points of the run, 0 for a metal; None when no empty bands were calculated.
        total_magnetization: Bohr magnetons per cell, the length of the vector where spins are not collinear; None
            without spin.
        absolute_magnetization: Integral of the spin density's absolute value, Bohr magnetons per cell; None without
            spin.
        magnetic_moments: Moment in a sphere around each atom, Bohr magnetons, with spins up and down; None where it
            was not printed.
        n_k_points: Number of symmetry-inequivalent k points.
        n_bands: Number of bands calculated.
        absolute_magnetizations: Of each converged cycle, Bohr magnetons per cell; empty without spin.
        n_symmetry_operations: Number of symmetry operations that pw.x found in the start.
        smearing: Kind and width of the smearing as pw.x understood them; None without.
        k_grid: Monkhorst-Pack divisions and shifts, six numbers.
        ecutwfc_Ry: Cutoff of the wavefunctions.
        ecutrho_Ry: Cutoff of the density.
        functional: Name of the functional.
        pseudo_files: From atomic label to the file that the input names.
        pseudos_read: The files that pw.x says it read, with their MD5 sums, in the order of the species.
        features: How the program was built, and on how many processes, threads and pools it ran.
        memory: What pw.x expected to need.
        timings: From the name of a clock of pw.x (``init_run``, ``electrons``, ``forces``, ``stress``, ``c_bands``,
            ...) to what it measured.
        cpu_seconds: Processor time of the run by its own clock, of one process.
        wall_seconds: Wall time of the run by its own clock.
        job_done: Whether the end mark was printed.
        xml_closed: Whether a whole XML file of this very run exists.
        restarted: Whether the run went on from the files of an earlier one.
        exit_status: As handed in.
        output_file: The output's path, None where there is none.
    """

    directory: Path
    outcome: QeOutcome
    evidence: tuple[Evidence, ...] = ()
    code_version: str | None = None
    calculation: str | None = None
    initial_structure: Structure | None = None
    structure: Structure | None = None
    energy_eV: float | None = None
    smearing_energy_eV: float | None = None
    energy_terms: EnergyTerms | None = None
    forces_eV_per_A: NDArray[np.float64] | None = None
    stress_kbar: NDArray[np.float64] | None = None
    scf_converged: bool | None = None
    opt_converged: bool | None = None
    ionic_steps: tuple[IonicStep, ...] = ()
    final_scf: bool = False
    relaxation_ended: bool = False
    scf: tuple[ScfCycle, ...] = ()
    bfgs_resets: int = 0
    fermi_eV: float | None = None
    gap_eV: float | None = None
    total_magnetization: float | None = None
    absolute_magnetization: float | None = None
    magnetic_moments: tuple[float, ...] | None = None
    n_k_points: int | None = None
    n_bands: int | None = None
    absolute_magnetizations: tuple[float, ...] = ()
    n_symmetry_operations: int | None = None
    smearing: Smearing | None = None
    k_grid: tuple[int, ...] | None = None
    ecutwfc_Ry: float | None = None
    ecutrho_Ry: float | None = None
    functional: str | None = None
    pseudo_files: dict[str, str] = field(default_factory=dict)
    pseudos_read: tuple[PseudoRead, ...] = ()
    features: CodeFeatures = field(default_factory=CodeFeatures)
    memory: MemoryEstimate | None = None
    timings: Mapping[str, Timing] = field(default_factory=dict)
    cpu_seconds: float | None = None
    wall_seconds: float | None = None
    job_done: bool = False
    xml_closed: bool = False
    restarted: bool = False
    exit_status: int | None = None
    output_file: Path | None = None

    @property
    def succeeded(self) -> bool:
        """Whether everything that the input asked for converged; thresholds of one's own: `check_convergence`."""
        return self.outcome is QeOutcome.CONVERGED

    @property
    def energy_per_atom_eV(self) -> float | None:
        """Total energy per atom, eV."""
        if self.energy_eV is None or self.structure is None:
            return None
        return self.energy_eV / len(self.structure)

    @property
    def pressure_kbar(self) -> float | None:
        """A third of the stress's trace, kbar; positive for a compressed cell."""
        return None if self.stress_kbar is None else float(np.trace(self.stress_kbar)) / 3.0

    @property
    def max_force_eV_per_A(self) -> float | None:
        """Length of the largest force on an atom, eV/Angstrom."""
        if self.forces_eV_per_A is None or not self.forces_eV_per_A.size:
            return None
        return float(np.linalg.norm(self.forces_eV_per_A, axis=1).max())

    @property
    def n_ionic_steps(self) -> int:
        """Number of evaluated geometries, without the final SCF of a vc-relax."""
        return len(self.ionic_steps)

    @property
    def scf_iterations(self) -> tuple[int, ...]:
        """Iterations of each self-consistent cycle that converged."""
        return tuple(cycle.iterations for cycle in self.scf if cycle.converged)

    @property
    def scf_cycles(self) -> int:
        """Number of self-consistent cycles that converged."""
        return len(self.scf_iterations)

    def summary(self) -> dict[str, Any]:
        """Return what a log or a listing shows, as plain JSON values."""
        return {
            "outcome": self.outcome.value,
            "band": self.outcome.band.value,
            "evidence": [str(evidence) for evidence in self.evidence],
            "code_version": self.code_version,
            "calculation": self.calculation,
            "energy_eV": self.energy_eV,
            "energy_per_atom_eV": self.energy_per_atom_eV,
            "max_force_eV_per_A": self.max_force_eV_per_A,
            "pressure_kbar": self.pressure_kbar,
            "n_ionic_steps": self.n_ionic_steps,
            "scf_cycles": self.scf_cycles,
            "bfgs_resets": self.bfgs_resets,
            "wall_seconds": self.wall_seconds,
            "exit_status": self.exit_status,
        }
