"""Reads a finished, failed or half-written run of pw.x from its folder.

The exit status of pw.x is not trusted: 6.7 ends with 0 after BFGS gave up and with 2 after three different things.
What counts is in the files: the end mark, a whole XML file of this very run, its flags of convergence, and the words
of the output.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hullworks.errors import InputError
from hullworks.workflows.qe.diagnosis import Evidence, Facts, Finding, diagnose, is_stale
from hullworks.workflows.qe.evaluations import IonicStep, ionic_steps, last_evaluation, same_energy
from hullworks.workflows.qe.outcomes import QeOutcome
from hullworks.workflows.qe.run_files import RunFiles, find_files, read_lines, read_xml_bytes
from hullworks.workflows.qe.scanner import scan_lines
from hullworks.workflows.qe.stdout import Scan
from hullworks.workflows.qe.xml_output import XmlRun, read_xml

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pymatgen.core import Structure

    from hullworks.workflows.qe.geometry import Geometry
    from hullworks.workflows.qe.stdout import PseudoRead

_RELAXATIONS = frozenset({"relax", "vc-relax"})


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
        forces_eV_per_A: Forces, shape (n, 3), eV/Angstrom.
        stress_kbar: Stress with the sign of pw.x, shape (3, 3), kbar: positive diagonal for a compressed cell.
        scf_converged: Whether the last self-consistent cycle converged.
        opt_converged: Whether the relaxation converged; None for a run without one.
        ionic_steps: Every evaluated geometry in order, without the final SCF of a vc-relax.
        final_scf: Whether the last evaluation is the final SCF of a vc-relax.
        relaxation_ended: Whether the optimiser printed its end, converged or not. A vc-relax that was cut off after it
            was cut in its final SCF, and a restart there loses charge.
        scf_iterations: Iterations of each self-consistent cycle that converged.
        bfgs_resets: How often BFGS threw its history away.
        fermi_eV: Fermi energy or highest occupied level.
        gap_eV: Gap on the k points of the run, 0 for a metal; None when no empty bands were calculated.
        total_magnetization: Bohr magnetons per cell.
        n_k_points: Number of symmetry-inequivalent k points.
        n_bands: Number of bands calculated.
        absolute_magnetizations: Of each converged cycle, Bohr magnetons per cell; empty without spin.
        k_grid: Monkhorst-Pack divisions and shifts, six numbers.
        ecutwfc_Ry: Cutoff of the wavefunctions.
        ecutrho_Ry: Cutoff of the density.
        functional: Name of the functional.
        pseudo_files: From atomic label to the file that the input names.
        pseudos_read: The files that pw.x says it read, in the order of the species.
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
    forces_eV_per_A: NDArray[np.float64] | None = None
    stress_kbar: NDArray[np.float64] | None = None
    scf_converged: bool | None = None
    opt_converged: bool | None = None
    ionic_steps: tuple[IonicStep, ...] = ()
    final_scf: bool = False
    relaxation_ended: bool = False
    scf_iterations: tuple[int, ...] = ()
    bfgs_resets: int = 0
    fermi_eV: float | None = None
    gap_eV: float | None = None
    total_magnetization: float | None = None
    n_k_points: int | None = None
    n_bands: int | None = None
    absolute_magnetizations: tuple[float, ...] = ()
    k_grid: tuple[int, ...] | None = None
    ecutwfc_Ry: float | None = None
    ecutrho_Ry: float | None = None
    functional: str | None = None
    pseudo_files: dict[str, str] = field(default_factory=dict)
    pseudos_read: tuple[PseudoRead, ...] = ()
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


def parse_run(directory: Path | str, *, exit_status: int | None = None) -> QeRun:
    """Read a run from its folder.

    Output, standard error, CRASH, input and XML are found by content, packed with gzip or not; XML also in the
    input's outdir and its ``*.save``. When the folder holds several outputs, the one that started last counts.

    Args:
        directory: The run's folder.
        exit_status: Exit status of pw.x where somebody saw it, negative for a signal; heard only where the files say
            nothing.

    Raises:
        InputError: There is no such folder. Nothing inside a folder is an error.
    """
    folder = Path(directory)
    if not folder.is_dir():
        raise InputError("is not a folder with a run of pw.x", str(folder), "Hand in the folder that pw.x ran in.")
    files = find_files(folder)
    facts = _gather(files, exit_status)
    return _assemble(facts, diagnose(facts))


def check_convergence(
    run: QeRun, max_force_eV_per_A: float, max_pressure_kbar: float | None = None, target_pressure_kbar: float = 0.0
) -> Finding:
    """Judge a run by thresholds of one's own: a converged run may have forces or, in its final basis, stress left.

    Args:
        run: The run; one that did not converge keeps its outcome.
        max_force_eV_per_A: Largest allowed length of a force.
        max_pressure_kbar: Largest allowed deviation of any component of the stress; None leaves the stress out, as
            for a fixed cell.
        target_pressure_kbar: The pressure that the cell was relaxed at.

    Returns:
        CONVERGED, FORCES_LEFT_OVER, FINAL_SCF_INCONSISTENT, or the run's own outcome.
    """
    if not run.succeeded:
        return Finding(run.outcome, run.evidence)
    force = run.max_force_eV_per_A
    if force is None or not force <= max_force_eV_per_A:
        text = f"largest force {force} eV/Angstrom, allowed {max_force_eV_per_A}"
        return Finding(QeOutcome.FORCES_LEFT_OVER, (Evidence("", None, text),))
    if max_pressure_kbar is None:
        return Finding(QeOutcome.CONVERGED, run.evidence)
    excess = None if run.stress_kbar is None else float(abs(run.stress_kbar - target_pressure_kbar * np.eye(3)).max())
    if excess is None or not excess <= max_pressure_kbar:
        text = f"stress left over {excess} kbar, allowed {max_pressure_kbar}"
        return Finding(QeOutcome.FINAL_SCF_INCONSISTENT, (Evidence("", None, text),))
    return Finding(QeOutcome.CONVERGED, run.evidence)


def _gather(files: RunFiles, exit_status: int | None) -> Facts:
    scan = None if files.output is None else scan_lines(read_lines(files.output))
    read = {files.name(path): read_xml(read_xml_bytes(path)) for path in files.xmls}
    whole = {name: xml for name, xml in read.items() if xml is not None and xml.closed}
    fresh = {name: xml for name, xml in whole.items() if not is_stale(xml, scan)}
    # The latest; of two of the same second the shorter path, which is prefix.xml, written at the end alone.
    name = max(fresh, key=lambda key: (str(fresh[key].created or ""), -len(key)), default="")
    xml = fresh.get(name)
    calculation = (xml.calculation if xml else None) or files.parsed_input.keywords.get("calculation", "scf")
    return Facts(
        files=files,
        scan=scan,
        xml=xml,
        xml_name=name,
        cut_xmls=tuple(key for key in read if key not in whole),
        stale_xmls=tuple(key for key in whole if key not in fresh),
        calculation=calculation,
        initial=_initial(files, scan, xml),
        exit_status=exit_status,
    )


def _initial(files: RunFiles, scan: Scan | None, xml: XmlRun | None) -> Geometry | None:
    candidates = (xml.initial if xml else None, files.parsed_input.geometry(), scan.initial if scan else None)
    return next((geometry for geometry in candidates if geometry is not None), None)


def _assemble(facts: Facts, finding: Finding) -> QeRun:
    scan, xml, parsed = facts.scan or Scan(), facts.xml, facts.files.parsed_input
    steps = ionic_steps(scan, xml, facts.initial)
    last = last_evaluation(scan, xml, steps, relaxes=facts.calculation in _RELAXATIONS)
    # Bands and magnetization of a cycle that was cut off in the middle mean nothing.
    bands = xml if xml is not None and scan.cycles and same_energy(scan.cycles[-1], xml.last) else None
    return QeRun(
        directory=facts.files.directory,
        outcome=finding.outcome,
        evidence=finding.evidence,
        code_version=scan.version or (xml.version if xml else None),
        calculation=facts.calculation,
        initial_structure=None if facts.initial is None else facts.initial.structure(),
        structure=None if last is None else last.structure,
        energy_eV=None if last is None else last.energy_eV,
        smearing_energy_eV=None if last is None else last.smearing_energy_eV,
        forces_eV_per_A=None if last is None else last.forces_eV_per_A,
        stress_kbar=None if last is None else last.stress_kbar,
        scf_converged=_scf_converged(scan, xml),
        opt_converged=_opt_converged(facts, scan),
        ionic_steps=steps,
        final_scf=bool(scan.cycles) and scan.cycles[-1].final,
        relaxation_ended=scan.relaxation_ended,
        scf_iterations=tuple(scan.scf_iterations),
        bfgs_resets=scan.bfgs_resets,
        fermi_eV=_first(bands.fermi_eV if bands else None, scan.fermi_eV),
        gap_eV=_first(bands.gap_eV if bands else None, _printed_gap(scan)),
        total_magnetization=_first(bands.total_magnetization if bands else None, scan.total_magnetization),
        n_k_points=(xml.n_k_points if xml else None) or scan.n_k_points,
        n_bands=scan.n_bands,
        absolute_magnetizations=_absolute_magnetizations(scan),
        k_grid=(xml.k_grid if xml else None) or parsed.k_grid,
        ecutwfc_Ry=(xml.ecutwfc_Ry if xml else None) or scan.ecutwfc_Ry,
        ecutrho_Ry=(xml.ecutrho_Ry if xml else None) or scan.ecutrho_Ry,
        functional=(xml.functional if xml else None) or scan.functional,
        pseudo_files=(xml.pseudo_files if xml else None) or parsed.pseudo_files,
        pseudos_read=tuple(scan.pseudos),
        wall_seconds=_first(scan.wall_seconds, xml.wall_seconds if xml else None),
        job_done=scan.job_done is not None,
        xml_closed=xml is not None and not facts.cut_xmls,
        restarted=scan.restarted,
        exit_status=facts.exit_status,
        output_file=facts.files.output,
    )


def _scf_converged(scan: Scan, xml: XmlRun | None) -> bool | None:
    if any(entry.outcome is QeOutcome.SCF_NOT_CONVERGED for entry, _ in scan.notices):
        return False
    return None if xml is None else xml.last.scf_converged and not xml.claims_too_much


def _opt_converged(facts: Facts, scan: Scan) -> bool | None:
    if facts.calculation not in _RELAXATIONS:
        return None
    gave_up = {QeOutcome.BFGS_GAVE_UP, QeOutcome.NSTEP_EXHAUSTED}
    if any(entry.outcome in gave_up for entry, _ in scan.notices):
        return False
    return None if facts.xml is None else facts.xml.opt_converged


def _absolute_magnetizations(scan: Scan) -> tuple[float, ...]:
    values = [cycle.absolute_magnetization for cycle in scan.cycles]
    return tuple(value for value in values if value is not None)


def _printed_gap(scan: Scan) -> float | None:
    if scan.lowest_unoccupied_eV is None or scan.fermi_eV is None:
        return None
    return max(0.0, scan.lowest_unoccupied_eV - scan.fermi_eV)


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)
