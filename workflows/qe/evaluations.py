"""Puts the evaluated geometries of a run together from its output and its XML file.

The XML file has all digits but is written from time to time; the output is complete but rounded, and may be the only
one to know the last steps of a run that was cut short. Where the output was cut or lost instead, the XML file is the
only one. Steps are matched by their energies.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hullworks.units import UNITS
from hullworks.workflows.qe.quantities import ScfCycle
from hullworks.workflows.qe.thresholds import thresholds

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from pymatgen.core import Structure

    from hullworks.workflows.qe.geometry import Geometry
    from hullworks.workflows.qe.stdout import Cycle, Scan
    from hullworks.workflows.qe.xml_output import XmlRun, XmlStep


@dataclass(frozen=True, eq=False, slots=True)
class IonicStep:
    """One evaluated geometry.

    Args:
        energy_eV: Total energy of the cell, eV.
        geometry: Cell and atoms, None where they were not printed.
        forces_eV_per_A: Forces, shape (n, 3), eV/Angstrom.
        stress_kbar: Stress with the sign of pw.x, shape (3, 3), kbar.
        smearing_energy_eV: The smearing's contribution -TS to the energy, eV.
    """

    energy_eV: float
    geometry: Geometry | None = None
    forces_eV_per_A: NDArray[np.float64] | None = None
    stress_kbar: NDArray[np.float64] | None = None
    smearing_energy_eV: float | None = None

    @property
    def structure(self) -> Structure | None:
        """The structure, built anew each time; None where it was not printed or is not a crystal."""
        return None if self.geometry is None else self.geometry.structure()


def ionic_steps(scan: Scan, xml: XmlRun | None, initial: Geometry | None, *, relaxes: bool) -> tuple[IonicStep, ...]:
    """Return every evaluated geometry in order, without the final SCF of a vc-relax."""
    cycles = [cycle for cycle in scan.cycles if not cycle.final]
    written = _evaluated(xml, relaxes=relaxes)
    known = written if _agree(cycles, written) else ()
    first = None if scan.restarted else initial
    steps = [_combined(cycle, step) for cycle, step in zip(cycles, known, strict=False)]
    for number, cycle in enumerate(cycles[len(steps) :], len(steps)):
        steps.append(_combined(cycle, None, first if number == 0 else None))
    after = (_from_xml(step) for step in _unprinted(scan, xml, relaxes=relaxes))
    return (*steps, *(step for step in after if step is not None))


def _evaluated(xml: XmlRun | None, *, relaxes: bool) -> Sequence[XmlStep]:
    """Return the geometries that the XML file says were evaluated, without the final SCF of a vc-relax."""
    if xml is None:
        return ()
    return [step for step in (xml.steps if relaxes else (xml.last,)) if step.scf_converged]


def _unprinted(scan: Scan, xml: XmlRun | None, *, relaxes: bool) -> Sequence[XmlStep]:
    """Return the evaluations of the XML file that come after the last one in the output, which was cut."""
    written = _evaluated(xml, relaxes=relaxes)
    cycles = [cycle for cycle in scan.cycles if not cycle.final]
    complete = len(cycles) < len(scan.cycles)
    if xml is None or complete or not _agree(cycles, written):
        return ()
    return written[len(cycles) :] if cycles or _written_by(scan, xml) else ()


def _written_by(scan: Scan, xml: XmlRun) -> bool:
    """Whether the XML file is of the run of an output without any energy, and did not come with a restart."""
    nothing_printed = not scan.head
    return nothing_printed or (scan.started is not None and xml.created is not None and xml.created > scan.started)


def last_evaluation(scan: Scan, xml: XmlRun | None, steps: tuple[IonicStep, ...], *, relaxes: bool) -> IonicStep | None:
    """Return the evaluation that the run's energy, forces, stress and structure are taken from.

    The XML file's end of a relaxation is evaluated only when it converged; else it is a step ahead.
    """
    printed = sum(not cycle.final for cycle in scan.cycles)
    if len(steps) > printed:
        at_end = xml is not None and (xml.opt_converged or not relaxes)
        return (_from_xml(xml.last) if xml is not None and at_end else None) or steps[-1]
    if not scan.cycles:
        return None
    cycle = scan.cycles[-1]
    ends_alike = xml is not None and same_energy(cycle, xml.last)
    if xml is not None and ends_alike and (xml.opt_converged or not relaxes):
        return _combined(cycle, xml.last)
    if cycle.final or not steps:
        return _combined(cycle, None)
    if xml is not None and ends_alike and steps[-1].stress_kbar is None:
        return replace(steps[-1], stress_kbar=xml.last.stress_kbar)
    return steps[-1]


def scf_cycles(scan: Scan, xml: XmlRun | None, *, relaxes: bool) -> tuple[ScfCycle, ...]:
    """Return every self-consistent cycle, those after the end of a cut output as the XML file has them."""
    after = _unprinted(scan, xml, relaxes=relaxes)
    if not after:
        return tuple(scan.scf_cycles)
    printed = [cycle for cycle in scan.scf_cycles if cycle.converged is not None]
    return (*printed, *(_scf_cycle(number, step) for number, step in enumerate(after, len(scan.cycles))))


def _scf_cycle(number: int, step: XmlStep) -> ScfCycle:
    error = None if step.scf_error_Ha is None else 2.0 * step.scf_error_Ha
    return ScfCycle(number, step.scf_iterations or 0, error, step.scf_converged)


def same_energy(cycle: Cycle, step: XmlStep) -> bool:
    """Return whether output and XML file speak of the same evaluation."""
    return energies_agree(cycle.energy_Ry * UNITS.rydberg_to_eV, step.energy_eV)


def energies_agree(one_eV: float | None, other_eV: float | None) -> bool:
    """Return whether two total energies are of the same evaluation, as far as printed digits tell."""
    return one_eV is not None and other_eV is not None and abs(one_eV - other_eV) < thresholds()["energy_agreement_eV"]


def _agree(cycles: list[Cycle], steps: Sequence[XmlStep]) -> bool:
    """Whether the XML file's leading steps are those that the output shows."""
    return all(same_energy(*pair) for pair in zip(cycles, steps, strict=False))


def _from_xml(step: XmlStep) -> IonicStep | None:
    if step.energy_eV is None:
        return None
    return IonicStep(step.energy_eV, step.geometry, step.forces_eV_per_A, step.stress_kbar, step.smearing_eV)


def _combined(cycle: Cycle, step: XmlStep | None, start: Geometry | None = None) -> IonicStep:
    """Return one evaluation, each value from the XML file where it is there, else from the output.

    ``start`` is the geometry of the first one, with more digits than the output has.
    """
    smearing = None if cycle.smearing_Ry is None else cycle.smearing_Ry * UNITS.rydberg_to_eV
    geometry, energy = start or cycle.geometry, cycle.energy_Ry * UNITS.rydberg_to_eV
    forces, stress = cycle.forces_eV_per_A, cycle.stress_kbar
    if step is not None:
        geometry = geometry if step.geometry is None else step.geometry
        energy = energy if step.energy_eV is None else step.energy_eV
        forces = forces if step.forces_eV_per_A is None else step.forces_eV_per_A
        stress = stress if step.stress_kbar is None else step.stress_kbar
        smearing = smearing if step.smearing_eV is None else step.smearing_eV
    n_atoms = len(geometry.labels) if geometry is not None else None
    fits = forces is not None and (n_atoms is None or len(forces) == n_atoms)
    return IonicStep(energy, geometry, forces if fits else None, stress, smearing)
