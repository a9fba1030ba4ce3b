"""Puts the evaluated geometries of a run together from its output and its XML file.

The XML file has all digits but is written from time to time; the output is complete but rounded, and may be the only
one to know the last steps of a run that was cut short. Steps are matched by their energies.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hullworks.units import UNITS
from hullworks.workflows.qe.thresholds import thresholds

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pymatgen.core import Structure

    from hullworks.workflows.qe.geometry import Geometry
    from hullworks.workflows.qe.stdout import Cycle, Scan
    from hullworks.workflows.qe.xml_output import XmlRun, XmlStep


@dataclass(frozen=True, eq=False)
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


def ionic_steps(scan: Scan, xml: XmlRun | None, initial: Geometry | None) -> tuple[IonicStep, ...]:
    """Return every evaluated geometry in order, without the final SCF of a vc-relax."""
    cycles = [cycle for cycle in scan.cycles if not cycle.final]
    written = _matching(cycles, [] if xml is None else [step for step in xml.steps if step.scf_converged])
    first = None if scan.restarted else initial
    steps = [_combined(cycle, step) for cycle, step in zip(cycles, written, strict=False)]
    for number, cycle in enumerate(cycles[len(steps) :], len(steps)):
        known = replace(cycle, geometry=first) if number == 0 and first is not None else cycle
        steps.append(_combined(known, None))
    return tuple(steps)


def last_evaluation(scan: Scan, xml: XmlRun | None, steps: tuple[IonicStep, ...], *, relaxes: bool) -> IonicStep | None:
    """Return the evaluation that the run's energy, forces, stress and structure are taken from.

    The XML file's end of a relaxation is evaluated only when it converged; else it is a step ahead.
    """
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


def same_energy(cycle: Cycle, step: XmlStep) -> bool:
    """Return whether output and XML file speak of the same evaluation."""
    printed = cycle.energy_Ry * UNITS.rydberg_to_eV
    return step.energy_eV is not None and abs(printed - step.energy_eV) < thresholds()["energy_agreement_eV"]


def _matching(cycles: list[Cycle], steps: list[XmlStep]) -> list[XmlStep]:
    """Return the leading steps of the XML file, none when one of them is not what the output shows."""
    pairs = list(zip(cycles, steps, strict=False))
    return [step for _, step in pairs] if all(same_energy(*pair) for pair in pairs) else []


def _combined(cycle: Cycle, step: XmlStep | None) -> IonicStep:
    """Return one evaluation, each value from the XML file where it is there, else from the output."""
    smearing = None if cycle.smearing_Ry is None else cycle.smearing_Ry * UNITS.rydberg_to_eV
    geometry, energy = cycle.geometry, cycle.energy_Ry * UNITS.rydberg_to_eV
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
