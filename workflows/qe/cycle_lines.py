"""Reads the self-consistent cycles of an output, and the energies, forces, stresses and geometries between them."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import numpy as np

from hullworks.units import UNITS
from hullworks.workflows.qe.outcomes import QeOutcome
from hullworks.workflows.qe.quantities import ScfCycle
from hullworks.workflows.qe.reading import AXES, Reading, count_after
from hullworks.workflows.qe.stdout import Cycle, number_after, numbers, values

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

_TERM: Final = " Ry"


class CycleLines(Reading):
    """The lines of the self-consistent cycles and of what is calculated after each."""

    def __init__(self) -> None:
        super().__init__()
        self._unit_A = 1.0
        self._crystal = False
        self._iterations = 0
        self._reached = False
        self._moments: list[float] = []

    # ------------------------------------------------------------------------------------------------------- cycle

    def iteration(self, text: str) -> None:
        """Note that an iteration of a self-consistent cycle began, after a blank where it is the tenth or later."""
        if not text.startswith("iteration #"):
            return
        # More than 999 iterations do not fit into the three digits that pw.x prints.
        number = count_after(text.partition("ecut")[0], "#") or self._iterations + 1
        if number <= self._iterations:
            self._end_cycle(None)
        if number == 1:
            self.scan.accuracies_Ry = []
        self.scan.scf_started, self.scan.charge = True, None
        self._iterations, self._moments = number, []

    def accuracy(self, text: str) -> None:
        """Take the estimated error of the energy after an iteration."""
        value = number_after(text, "<")
        if text.startswith("estimated scf accuracy") and value is not None:
            self.scan.accuracies_Ry.append(value)

    def charge(self, text: str) -> None:
        """Take the electrons that were counted and those that there are, where pw.x warns of a difference."""
        found = numbers(text) if text.startswith("WARNING: integrated charge") else []
        if len(found) == 2:  # noqa: PLR2004 - counted and expected
            self.scan.charge = (found[0], found[1])

    def moments(self, text: str) -> None:
        """Open the table of the moments in spheres around the atoms."""
        if text.startswith("Magnetic moment per site"):
            self._moments, self._block = [], self._moment_row

    def _moment_row(self, text: str) -> bool:
        """Take ``atom:    1    charge:    6.3655    magn:    2.1427`` (6.7) or ``... magn=  2.0357`` (7.2)."""
        found = numbers(text.partition("magn")[2])
        if not (text.startswith("atom") and found):
            return False
        self._moments.append(found[0])
        return True

    def total_energy(self, text: str) -> None:
        """Open a cycle: ``!    total energy              =     -15.53054396 Ry``.

        Where one more step follows, BFGS did not give up, whatever it said about its history.
        """
        scan = self.scan
        energy = number_after(text, "=")
        if scan.notices and not scan.relaxation_ended:
            gave_up = QeOutcome.BFGS_GAVE_UP
            scan.notices = [entry for entry in scan.notices if entry[0].outcome is not gave_up]
        if energy is None:
            return
        scan.cycles.append(Cycle(self._line, energy, self._geometry, scan.relaxation_ended, scan.charge))
        self._reached = True
        scan.energy_terms_Ry, scan.magnetic_moments = {}, tuple(self._moments)

    def convergence(self, text: str) -> None:
        """Take how many iterations a cycle took, or that it did not converge."""
        if text.startswith("convergence has been achieved"):
            self._iterations = count_after(text, "in") or self._iterations
            self._end_cycle(converged=True)
        elif text.startswith("convergence NOT achieved"):
            self._end_cycle(converged=False)

    def _end_cycle(self, converged: bool | None) -> None:  # noqa: FBT001 - a third value says that it was cut
        if not self._iterations:
            return
        scan = self.scan
        accuracy = scan.accuracies_Ry[-1] if scan.accuracies_Ry else None
        step = None if scan.relaxation_ended else len(scan.cycles) - self._reached
        # The energy is printed once the electrons have converged, the number of iterations a little later.
        ended = True if converged is None and self._reached else converged
        scan.scf_cycles.append(ScfCycle(step, self._iterations, accuracy, ended))
        self._iterations, self._reached = 0, False

    # ------------------------------------------------------------------------------------------------ after a cycle

    def smearing(self, text: str) -> None:
        """Take the smearing's part of the energy."""
        if text.startswith("smearing contrib") and self.scan.cycles:
            self.scan.cycles[-1].smearing_Ry = number_after(text, "=")

    def energy_terms(self, text: str) -> None:
        """Open the terms of the energy: ``xc contribution           =     -52.94581452 Ry``."""
        if text.endswith("sum of the following terms:"):
            self._block = self._energy_term

    def _energy_term(self, text: str) -> bool:
        name, mark, rest = text.partition("=")
        found = values(rest.removesuffix(_TERM)) if mark and text.endswith(_TERM) else []
        if len(found) != 1:
            return False
        # Arrows mark the parts of a term that is printed before them.
        if not name.startswith("->"):
            self.scan.energy_terms_Ry[name.strip()] = found[0]
        return True

    def absolute_magnetization(self, text: str) -> None:
        """Take the absolute magnetization, which is printed after the energy."""
        # Those of later iterations belong to the next cycle, which has no energy yet.
        cycles = self.scan.cycles
        if cycles and cycles[-1].absolute_magnetization is None:
            cycles[-1].absolute_magnetization = number_after(text, "=")

    def fermi_energy(self, text: str) -> None:
        """Take the Fermi energy."""
        if text.startswith("the Fermi energy is"):
            self.scan.fermi_eV = number_after(text, "is")

    def band_edges(self, text: str) -> None:
        """Take the highest occupied level and, where bands above it were calculated, the lowest unoccupied one."""
        found = numbers(text.partition("):")[2])
        self.scan.fermi_eV = found[0] if found else None
        self.scan.lowest_unoccupied_eV = found[1] if len(found) > 1 and "lowest unoccupied" in text else None

    def total_line(self, text: str) -> None:
        """Sort out lines that begin with "total": magnetization and stress."""
        cycles = self.scan.cycles
        if text.startswith("total   stress"):
            self._rows, self._block = [], self._stress_row
        elif text.startswith("total magnetization") and cycles and cycles[-1].total_magnetization is None:
            cycles[-1].total_magnetization = length(numbers(text.partition("=")[2]))

    def forces(self, text: str) -> None:
        """Open the table of forces; its parts, which 7.2 prints after it, begin with other words."""
        if text.startswith("Forces acting on atoms"):
            self._rows, self._block = [], self._force_row

    def _force_row(self, text: str) -> bool:
        row = values(text.partition("force =")[2])
        if not (text.startswith("atom ") and len(row) == AXES):
            return False
        self._rows.append(row)
        if len(self._rows) == self.scan.n_atoms:
            factor = UNITS.rydberg_per_bohr_to_eV_per_angstrom
            if self.scan.cycles:
                self.scan.cycles[-1].forces_eV_per_A = np.array(self._rows) * factor
            self._block = None
        return True

    def _stress_row(self, text: str) -> bool:
        row = values(text)
        if len(row) != 2 * AXES:
            return False
        # The columns in Ry/bohr^3 carry more digits than those in kbar.
        self._rows.append(row[:AXES])
        if len(self._rows) == AXES:
            if self.scan.cycles:
                factor = UNITS.hartree_per_cubic_bohr_to_kbar / 2.0
                self.scan.cycles[-1].stress_kbar = np.array(self._rows) * factor
            self._block = None
        return True

    # ------------------------------------------------------------------------------------------------ next geometry

    def restart(self, text: str) -> None:
        """Note a restart; the geometry that it starts from is not printed, so the input's does not count any more."""
        if "read from directory" in text or "restarted from" in text or "from file used" in text:
            self.scan.restarted = True
            self._geometry = None

    def cell_parameters(self, text: str) -> None:
        """Open the cell vectors of the next step: ``CELL_PARAMETERS (angstrom)``, bohr or ``(alat= 7.65)``."""
        self._rows, self._unit_A, self._block = [], self._unit_of(text), self._cell_row

    def _cell_row(self, text: str) -> bool:
        row = values(text)
        if len(row) != AXES:
            return False
        self._rows.append(row)
        if len(self._rows) == AXES:
            self._cell, self._block = np.array(self._rows) * self._unit_A, None
        return True

    def atomic_positions(self, text: str) -> None:
        """Open the positions of the next step, in crystal coordinates, Angstrom, bohr or alat."""
        self._rows, self._texts, self._block = [], [], self._position_row
        self._unit_A, self._crystal = self._unit_of(text), "crystal" in text

    def _position_row(self, text: str) -> bool:
        label, _, rest = text.partition(" ")
        row = values(rest)[:AXES]
        if len(row) != AXES:
            return False
        self._rows.append(row)
        self._texts.append(label)
        if len(self._rows) == self.scan.n_atoms:
            self._geometry, self._block = self._complete(self._cartesian()), None
        return True

    def _unit_of(self, text: str) -> float:
        if "angstrom" in text:
            return 1.0
        if "bohr" in text:
            return UNITS.bohr_to_angstrom
        own = number_after(text, "alat=")
        return self._alat_A if own is None else own * UNITS.bohr_to_angstrom

    def _cartesian(self) -> NDArray[np.float64] | None:
        rows = np.array(self._rows)
        if not self._crystal:
            return rows * self._unit_A
        return None if self._cell is None else rows @ self._cell

    # ------------------------------------------------------------------------------------------------- optimisation

    def bfgs_reset(self, text: str) -> None:
        """Count how often BFGS throws its history away."""
        self.scan.bfgs_resets += text.endswith("resetting bfgs history")

    def end_of_relaxation(self, text: str) -> None:
        """Note the end of the relaxation."""
        self.scan.relaxation_ended = self.scan.relaxation_ended or text.startswith(("End of BFGS", "End of damped"))


def length(vector: list[float]) -> float | None:
    """Return the length of three components, one number as it is, and None for anything else."""
    if len(vector) == AXES:
        return float(np.linalg.norm(vector))
    return vector[0] if len(vector) == 1 else None


WORDS: Final[Mapping[str, Callable[[CycleLines, str], None]]] = MappingProxyType(
    {
        "iteration #": CycleLines.iteration,
        "estimated scf accuracy": CycleLines.accuracy,
        "WARNING: integrated charge": CycleLines.charge,
        "Magnetic moment per site": CycleLines.moments,
        "convergence": CycleLines.convergence,
        "!    total energy": CycleLines.total_energy,
        "!!   total energy": CycleLines.total_energy,
        "smearing contrib": CycleLines.smearing,
        "The total energy is": CycleLines.energy_terms,
        "absolute magnetization": CycleLines.absolute_magnetization,
        "the Fermi energy": CycleLines.fermi_energy,
        "highest occupied": CycleLines.band_edges,
        "total   stress": CycleLines.total_line,
        "total magnetization": CycleLines.total_line,
        "Forces acting": CycleLines.forces,
        "Atomic positions": CycleLines.restart,
        "Calculation restarted": CycleLines.restart,
        "CELL_PARAMETERS": CycleLines.cell_parameters,
        "ATOMIC_POSITIONS": CycleLines.atomic_positions,
        "small trust_radius": CycleLines.bfgs_reset,
        "resetting bfgs history": CycleLines.bfgs_reset,
        "End of BFGS": CycleLines.end_of_relaxation,
        "End of damped": CycleLines.end_of_relaxation,
    }
)
"""From the beginning of a line to what reads it."""
