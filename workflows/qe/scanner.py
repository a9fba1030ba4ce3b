"""The standard output of pw.x, read in one pass, line by line.

An output may be cut anywhere, hold rows of asterisks or bytes that are no text: what cannot be read is left out, and
nothing is raised. Lines are sorted out by their first eight characters, so that long outputs cost little.
"""

from __future__ import annotations

import re
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from hullworks.units import UNITS
from hullworks.workflows.qe.geometry import Geometry
from hullworks.workflows.qe.outcomes import RECOGNISERS, QeOutcome, Source
from hullworks.workflows.qe.stdout import (
    TAIL_LINES,
    Cycle,
    Message,
    PseudoRead,
    Scan,
    error_of,
    number_after,
    numbers,
    timestamp,
    wall_seconds,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray

_HEADER = re.compile(r"PWSCF v\.\s*(\S+)(?:.*? starts on\s+(\d{1,2}[A-Za-z]{3}\d{4}) at\s+([\d: ]+))?")
_SITE = re.compile(r"\d+\s+(\S+)\s+tau\(.*?=\s*\((.*)")
_KEY: Final = 8
_BOX: Final = "%" * _KEY
_LONGEST_BOX: Final = 30
_AXES: Final = 3
_LARGEST_COUNT: Final = 10**9
_NOTICES: Final = tuple(entry for entry in RECOGNISERS if entry.source is Source.NOTICE)

Block: TypeAlias = "Callable[[str], bool]"
"""Takes a line of a block that spans several; False when the line is not of the block any more."""


class Scanner:
    """Reads the lines of one output into a `Scan`."""

    def __init__(self) -> None:
        self.scan = Scan()
        self._line = 0
        self._block: Block | None = None
        self._rows: list[list[float]] = []
        self._texts: list[str] = []
        self._alat_bohr: float | None = None
        self._unit_A = 1.0
        self._crystal = False
        self._cell: NDArray[np.float64] | None = None
        self._geometry: Geometry | None = None

    def read(self, lines: Iterable[str]) -> Scan:
        """Read all lines and return what they say."""
        tail, handlers = self.scan.tail, HANDLERS
        for number, line in enumerate(lines, 1):
            text = line.strip()
            if not text:
                continue
            self._line = number
            tail.append((number, text))
            if number <= TAIL_LINES:
                self.scan.head.append((number, text))
            if self._block is not None:
                if self._block(text):
                    continue
                self._block = None
            handler = handlers.get(text[:_KEY])
            if handler is not None:
                handler(self, text)
        return self.scan

    # ------------------------------------------------------------------------------------------------- single lines

    def header(self, text: str) -> None:
        """Take version and start: ``Program PWSCF v.7.2 starts on 20Nov2026 at  8:18:17``, or a notice to stop."""
        found = _HEADER.search(text)
        if found is None:
            self.notice(text)
            return
        self.scan.version = found[1]
        self.scan.started = timestamp(found[2] or "", found[3] or "")

    def notice(self, text: str) -> None:
        """Keep a line by which an outcome may show."""
        for recogniser in _NOTICES:
            if recogniser.matches(text):
                self.scan.notices.append((recogniser, Message(self._line, text)))
                return

    def input_read(self, text: str) -> None:
        """Take the name of the input file; pw.x prints no name when it reads the standard input."""
        if text.startswith("Reading input from") and "standard" not in text:
            self.scan.input_name = text.removeprefix("Reading input from").strip()

    def counts(self, text: str) -> None:
        """Take the numbers of atoms, k points and bands."""
        value = number_after(text, "=")
        if value is None or value > _LARGEST_COUNT:
            return
        if text.startswith("number of atoms/cell"):
            self.scan.n_atoms = int(value)
        elif text.startswith("number of k points"):
            self.scan.n_k_points = int(value)
        elif text.startswith("number of Kohn-Sham states"):
            self.scan.n_bands = int(value)

    def wavefunction_cutoff(self, text: str) -> None:
        """Take the kinetic-energy cutoff."""
        self.scan.ecutwfc_Ry = number_after(text, "=")

    def density_cutoff(self, text: str) -> None:
        """Take the charge density cutoff."""
        if text.startswith("charge density cutoff"):
            self.scan.ecutrho_Ry = number_after(text, "=")

    def exchange_correlation(self, text: str) -> None:
        """Take the functional's name: one word in 6.7 (``PBE``), its four parts in 7.2 (``SLA PW PBE PBE``)."""
        self.scan.functional = " ".join(text.partition("=")[2].split()) or None

    def lattice_parameter(self, text: str) -> None:
        """Take alat; ``celldm(1)`` comes later and with more digits."""
        if "alat" in text or text.startswith("celldm(1)"):
            value = number_after(text, "=")
            self._alat_bohr = value or self._alat_bohr

    def iteration(self, text: str) -> None:
        """Note that an iteration of a self-consistent cycle began, after a blank where it is the tenth or later."""
        if not text.startswith("iteration #"):
            return
        self.scan.scf_started, self.scan.charge = True, None
        if number_after(text, "#") == 1.0:
            self.scan.accuracies_Ry = []

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

    def absolute_magnetization(self, text: str) -> None:
        """Take the absolute magnetization, which is printed after the energy."""
        # Those of later iterations belong to the next cycle, which has no energy yet.
        if self.scan.cycles and self.scan.cycles[-1].absolute_magnetization is None:
            self._amend(absolute_magnetization=number_after(text, "="))

    def restart(self, text: str) -> None:
        """Note a restart; the geometry that it starts from is not printed, so the input's does not count any more."""
        if "read from directory" in text or "restarted from" in text or "from file used" in text:
            self.scan.restarted = True
            self._geometry = None

    def total_energy(self, text: str) -> None:
        """Open a cycle: ``!    total energy              =     -15.53054396 Ry``.

        Where one more step follows, BFGS did not give up, whatever it said about its history.
        """
        energy = number_after(text, "=")
        if not self.scan.relaxation_ended:
            gave_up = QeOutcome.BFGS_GAVE_UP
            self.scan.notices = [entry for entry in self.scan.notices if entry[0].outcome is not gave_up]
        if energy is not None:
            ended = self.scan.relaxation_ended
            self.scan.cycles.append(Cycle(self._line, energy, self._geometry, ended, charge=self.scan.charge))

    def convergence(self, text: str) -> None:
        """Take how many iterations a cycle took, or that it did not converge."""
        if text.startswith("convergence has been achieved"):
            found = numbers(text)
            self.scan.scf_iterations.append(int(found[0]) if found and found[0] < _LARGEST_COUNT else 0)
        else:
            self.notice(text)

    def smearing(self, text: str) -> None:
        """Take the smearing's part of the energy."""
        if text.startswith("smearing contrib"):
            self._amend(smearing_Ry=number_after(text, "="))

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
        if text.startswith("total magnetization"):
            self.scan.total_magnetization = number_after(text, "=")
        elif text.startswith("total   stress"):
            self._amend(pressure_kbar=number_after(text, "P="))
            self._rows, self._block = [], self._stress_row

    def bfgs_reset(self, text: str) -> None:
        """Count how often BFGS throws its history away."""
        self.scan.bfgs_resets += text.endswith("resetting bfgs history")

    def end_of_relaxation(self, text: str) -> None:
        """Note the end of the relaxation."""
        self.scan.relaxation_ended = self.scan.relaxation_ended or text.startswith(("End of BFGS", "End of damped"))

    def clock(self, text: str) -> None:
        """Take the wall time of the whole run."""
        self.scan.wall_seconds = wall_seconds(text)

    def terminated(self, text: str) -> None:
        """Take the time of the end: ``This run was terminated on:   8:18:33  20Nov2026``."""
        words = text.partition("terminated on:")[2].rpartition("  ")
        self.scan.ended = timestamp(words[2], words[0])

    def job_done(self, text: str) -> None:
        """Note the end mark."""
        if text == "JOB DONE.":
            self.scan.job_done = Message(self._line, text)

    # ------------------------------------------------------------------------------------------------------- blocks

    def pseudopotential(self, text: str) -> None:
        """Open the block ``PseudoPot. # 1 for Si read from file:``, path, checksum; a final SCF prints it again."""
        words = text.split()
        if text.endswith("read from file:") and "for" in words and not self.scan.relaxation_ended:
            self.scan.pseudos.append(PseudoRead(words[words.index("for") + 1]))
            self._block = self._pseudopotential_line

    def _pseudopotential_line(self, text: str) -> bool:
        last = self.scan.pseudos[-1]
        if text.startswith("MD5 check sum:"):
            self.scan.pseudos[-1] = replace(last, md5=text.rsplit(maxsplit=1)[-1])
            return True
        if last.path:
            return False
        self.scan.pseudos[-1] = replace(last, path=text)
        return True

    def error_box(self, text: str) -> None:
        """Open a box of per cent signs."""
        if text.strip("%") == "":
            self._texts, self._block = [], self._error_line
            self.scan.errors.append(Message(self._line, ""))

    def _error_line(self, text: str) -> bool:
        if not text.startswith(_BOX):
            self._texts.append(text)
            self.scan.errors[-1] = replace(self.scan.errors[-1], text=error_of(self._texts))
            return len(self._texts) < _LONGEST_BOX
        self._block = None
        return bool(self._texts)

    def forces(self, text: str) -> None:
        """Open the table of forces; its parts, which 7.2 prints after it, begin with other words."""
        if text.startswith("Forces acting on atoms"):
            self._rows, self._block = [], self._force_row

    def _force_row(self, text: str) -> bool:
        row = numbers(text.partition("force =")[2])
        if not (text.startswith("atom ") and len(row) == _AXES):
            return False
        self._rows.append(row)
        if len(self._rows) == self.scan.n_atoms:
            factor = UNITS.rydberg_per_bohr_to_eV_per_angstrom
            self._amend(forces_eV_per_A=np.array(self._rows) * factor)
            self._block = None
        return True

    def _stress_row(self, text: str) -> bool:
        row = numbers(text)
        if len(row) != 2 * _AXES:
            return False
        # The columns in Ry/bohr^3 carry more digits than those in kbar.
        self._rows.append(row[:_AXES])
        if len(self._rows) == _AXES:
            self._amend(stress_kbar=np.array(self._rows) * UNITS.hartree_per_cubic_bohr_to_kbar / 2.0)
            self._block = None
        return True

    def crystal_axes(self, text: str) -> None:
        """Open the three cell vectors of the header, in units of alat."""
        if text.startswith("crystal axes") and self.scan.initial is None:
            self._rows, self._block = [], self._axis_row

    def _axis_row(self, text: str) -> bool:
        row = numbers(text.partition("=")[2])
        if not (text.startswith("a(") and len(row) == _AXES):
            return False
        self._rows.append(row)
        if len(self._rows) == _AXES:
            self._cell, self._block = np.array(self._rows) * self._alat_A, None
        return True

    def sites(self, text: str) -> None:
        """Open the positions of the header, in units of alat."""
        if "(alat units)" in text and self.scan.initial is None:
            self._rows, self._texts, self._block = [], [], self._site_row

    def _site_row(self, text: str) -> bool:
        found = _SITE.match(text)
        row = numbers(found[2]) if found else []
        if found is None or len(row) != _AXES:
            return False
        self._rows.append(row)
        self._texts.append(found[1])
        if len(self._rows) == self.scan.n_atoms:
            self._geometry = self._complete(np.array(self._rows) * self._alat_A)
            self.scan.initial, self._block = self._geometry, None
        return True

    def cell_parameters(self, text: str) -> None:
        """Open the cell vectors of the next step: ``CELL_PARAMETERS (angstrom)``, bohr or ``(alat= 7.65)``."""
        self._rows, self._unit_A, self._block = [], self._unit_of(text), self._cell_row

    def _cell_row(self, text: str) -> bool:
        row = numbers(text)
        if len(row) != _AXES:
            return False
        self._rows.append(row)
        if len(self._rows) == _AXES:
            self._cell, self._block = np.array(self._rows) * self._unit_A, None
        return True

    def atomic_positions(self, text: str) -> None:
        """Open the positions of the next step, in crystal coordinates, Angstrom, bohr or alat."""
        self._rows, self._texts, self._block = [], [], self._position_row
        self._unit_A, self._crystal = self._unit_of(text), "crystal" in text

    def _position_row(self, text: str) -> bool:
        label, _, rest = text.partition(" ")
        row = numbers(rest)[:_AXES]
        if len(row) != _AXES:
            return False
        self._rows.append(row)
        self._texts.append(label)
        if len(self._rows) == self.scan.n_atoms:
            self._geometry, self._block = self._complete(self._cartesian()), None
        return True

    # ------------------------------------------------------------------------------------------------------ helpers

    @property
    def _alat_A(self) -> float:
        return (self._alat_bohr or np.nan) * UNITS.bohr_to_angstrom

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

    def _complete(self, positions: NDArray[np.float64] | None) -> Geometry | None:
        if positions is None or self._cell is None:
            return None
        return Geometry(self._cell, tuple(self._texts), positions)

    def _amend(self, **values: float | NDArray[np.float64] | None) -> None:
        """Add to the newest cycle what was printed after its energy."""
        if self.scan.cycles:
            self.scan.cycles[-1] = replace(self.scan.cycles[-1], **values)  # type: ignore[arg-type]


Handler: TypeAlias = "Callable[[Scanner, str], None]"

_WORDS: Final[Mapping[str, Handler]] = MappingProxyType(
    {
        "Program PWSCF": Scanner.header,
        "Reading input from": Scanner.input_read,
        "number of": Scanner.counts,
        "kinetic-energy cutoff": Scanner.wavefunction_cutoff,
        "charge density cutoff": Scanner.density_cutoff,
        "Exchange-correlation": Scanner.exchange_correlation,
        "lattice parameter": Scanner.lattice_parameter,
        "celldm(1)": Scanner.lattice_parameter,
        "crystal axes": Scanner.crystal_axes,
        "site n. ": Scanner.sites,
        "PseudoPot.": Scanner.pseudopotential,
        "iteration #": Scanner.iteration,
        "estimated scf accuracy": Scanner.accuracy,
        "WARNING: integrated charge": Scanner.charge,
        "absolute magnetization": Scanner.absolute_magnetization,
        "Atomic positions": Scanner.restart,
        "Calculation restarted": Scanner.restart,
        "!    total energy": Scanner.total_energy,
        "!!   total energy": Scanner.total_energy,
        "convergence": Scanner.convergence,
        "smearing contrib": Scanner.smearing,
        "the Fermi energy": Scanner.fermi_energy,
        "highest occupied": Scanner.band_edges,
        "total   stress": Scanner.total_line,
        "total magnetization": Scanner.total_line,
        "Forces acting": Scanner.forces,
        "CELL_PARAMETERS": Scanner.cell_parameters,
        "ATOMIC_POSITIONS": Scanner.atomic_positions,
        "small trust_radius": Scanner.bfgs_reset,
        "resetting bfgs history": Scanner.bfgs_reset,
        "End of BFGS": Scanner.end_of_relaxation,
        "End of damped": Scanner.end_of_relaxation,
        "PWSCF   ": Scanner.clock,
        "This run was terminated": Scanner.terminated,
        "JOB DONE.": Scanner.job_done,
        _BOX: Scanner.error_box,
    }
)

HANDLERS: Final[Mapping[str, Handler]] = MappingProxyType(
    {entry.words[:_KEY]: Scanner.notice for entry in _NOTICES}
    | {words[:_KEY]: handler for words, handler in _WORDS.items()}
)
"""From the first eight characters of a line to what reads it. "Program " and "converge" begin headers and notices
alike; their readers pass on what they do not know."""


def scan_lines(lines: Iterable[str]) -> Scan:
    """Read the lines of an output."""
    return Scanner().read(lines)
