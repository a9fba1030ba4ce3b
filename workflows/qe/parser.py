"""Reads a finished, failed or half-written run of pw.x from its folder.

The exit status of pw.x is not trusted: 6.7 ends with 0 after BFGS gave up and with 2 after three different things.
What counts is in the files: the end mark, a whole XML file of this very run, its flags of convergence, and the words
of the output.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hullworks.errors import InputError
from hullworks.units import UNITS
from hullworks.workflows.qe.diagnosis import Evidence, Facts, Finding, diagnose, is_stale
from hullworks.workflows.qe.evaluations import (
    energies_agree,
    ionic_steps,
    last_evaluation,
    scf_cycles,
)
from hullworks.workflows.qe.outcomes import QeOutcome
from hullworks.workflows.qe.quantities import EnergyTerms, completed
from hullworks.workflows.qe.results import QeRun
from hullworks.workflows.qe.run_files import RunFiles, find_files, modified, read_lines, read_xml_bytes
from hullworks.workflows.qe.scanner import scan_lines
from hullworks.workflows.qe.stdout import Scan
from hullworks.workflows.qe.xml_output import XmlRun, read_xml

if TYPE_CHECKING:
    from hullworks.workflows.qe.evaluations import IonicStep
    from hullworks.workflows.qe.geometry import Geometry

__all__ = ["QeRun", "check_convergence", "parse_run"]

_RELAXATIONS = frozenset({"relax", "vc-relax"})


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
    fresh = {name: xml for name, xml in whole.items() if not (is_stale(xml, scan) or _is_older(xml, scan, files))}
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


def _is_older(xml: XmlRun, scan: Scan | None, files: RunFiles) -> bool:
    """Whether an XML file without an output beside it was written before the input was: it came with a restart."""
    if scan is not None or files.input is None or xml.created is None:
        return False
    return xml.created.timestamp() <= modified(files.input)


def _initial(files: RunFiles, scan: Scan | None, xml: XmlRun | None) -> Geometry | None:
    candidates = (xml.initial if xml else None, files.parsed_input.geometry(), scan.initial if scan else None)
    return next((geometry for geometry in candidates if geometry is not None), None)


def _assemble(facts: Facts, finding: Finding) -> QeRun:
    scan, xml, parsed = facts.scan or Scan(), facts.xml, facts.files.parsed_input
    relaxes = facts.calculation in _RELAXATIONS
    steps = ionic_steps(scan, xml, facts.initial, relaxes=relaxes)
    last = last_evaluation(scan, xml, steps, relaxes=relaxes)
    # Bands and magnetization of a cycle that was cut off in the middle mean nothing.
    end = xml if xml is not None and last is not None and energies_agree(last.energy_eV, xml.last.energy_eV) else None
    cycle = scan.cycles[-1] if scan.cycles else None
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
        energy_terms=_energy_terms(scan, last, end),
        forces_eV_per_A=None if last is None else last.forces_eV_per_A,
        stress_kbar=None if last is None else last.stress_kbar,
        scf_converged=_scf_converged(scan, xml),
        opt_converged=_opt_converged(facts, scan),
        ionic_steps=steps,
        final_scf=cycle is not None and cycle.final,
        relaxation_ended=scan.relaxation_ended,
        scf=scf_cycles(scan, xml, relaxes=relaxes),
        bfgs_resets=scan.bfgs_resets,
        fermi_eV=_first(end.fermi_eV if end else None, scan.fermi_eV),
        gap_eV=_first(end.gap_eV if end else None, _printed_gap(scan)),
        total_magnetization=_first(
            end.total_magnetization if end else None, cycle.total_magnetization if cycle else None
        ),
        absolute_magnetization=_first(
            end.absolute_magnetization if end else None, cycle.absolute_magnetization if cycle else None
        ),
        magnetic_moments=(end.magnetic_moments if end else None) or scan.magnetic_moments or None,
        n_k_points=(xml.n_k_points if xml else None) or scan.n_k_points,
        n_bands=scan.n_bands,
        absolute_magnetizations=_absolute_magnetizations(scan),
        n_symmetry_operations=(xml.n_symmetry_operations if xml else None) or scan.n_symmetry_operations,
        smearing=(xml.smearing if xml else None) or scan.smearing,
        k_grid=(xml.k_grid if xml else None) or parsed.k_grid,
        ecutwfc_Ry=(xml.ecutwfc_Ry if xml else None) or scan.ecutwfc_Ry,
        ecutrho_Ry=(xml.ecutrho_Ry if xml else None) or scan.ecutrho_Ry,
        functional=(xml.functional if xml else None) or scan.functional,
        pseudo_files=(xml.pseudo_files if xml else None) or parsed.pseudo_files,
        pseudos_read=tuple(scan.pseudos),
        features=completed(scan.features, xml.features if xml else None),
        memory=scan.memory,
        timings={**(xml.timings if xml else {}), **scan.timings},
        cpu_seconds=_first(scan.cpu_seconds, xml.cpu_seconds if xml else None),
        wall_seconds=_first(scan.wall_seconds, xml.wall_seconds if xml else None),
        job_done=scan.job_done is not None,
        xml_closed=xml is not None and not facts.cut_xmls,
        restarted=scan.restarted,
        exit_status=facts.exit_status,
        output_file=facts.files.output,
    )


def _energy_terms(scan: Scan, last: IonicStep | None, end: XmlRun | None) -> EnergyTerms | None:
    """Return the terms as printed, which name more of them than the XML file does; what was cut off, from there."""
    if last is None:
        return None
    printed = bool(scan.cycles) and energies_agree(scan.cycles[-1].energy_Ry * UNITS.rydberg_to_eV, last.energy_eV)
    smearing = scan.cycles[-1].smearing_Ry if printed else None
    terms = EnergyTerms.from_rydberg(scan.energy_terms_Ry if printed else {}, smearing)
    return completed(terms, end.energy_terms if end else None)


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
