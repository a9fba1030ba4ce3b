"""What can be found in the standard output of pw.x, and how its numbers, times and error boxes read."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hullworks.workflows.qe.geometry import Geometry
    from hullworks.workflows.qe.outcomes import Recogniser

NUMBER: Final = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eEdD][-+]?\d+)?")
_ERROR_HEAD = re.compile(r"(?:Error in routine|from)\s+(\S+)\s*(?:: error #\s*)?\(?\s*(-?\d+)?")
_WALL = re.compile(r"CPU\s+(?:(\d+)d)?\s*(?:(\d+)h)?\s*(?:(\d+)m)?\s*(?:([\d.]+)s)?\s*WALL")
TAIL_LINES: Final = 40
"""So many lines of the beginning and of the end are kept as they are."""


@dataclass(frozen=True)
class Message:
    """Words of pw.x (without leading and trailing blanks) and the number of their line, counted from 1."""

    line: int
    text: str


@dataclass(frozen=True, eq=False)
class Cycle:
    """One self-consistent cycle that reached a total energy.

    Args:
        line: Number of the line with the energy.
        energy_Ry: Total energy (with smearing the free energy), Ry.
        geometry: The cell and atoms that it belongs to, where they were printed.
        final: Whether it came after the end of the relaxation, in the basis of the final cell.
        smearing_Ry: The smearing's contribution to the energy, Ry.
        forces_eV_per_A: Forces, shape (n, 3), eV/Angstrom.
        stress_kbar: Stress with the sign of pw.x (positive: the cell wants to grow), shape (3, 3), kbar.
        pressure_kbar: Pressure as printed.
        charge: Electrons counted and expected, where they differ so much that pw.x warns.
        absolute_magnetization: Bohr magnetons per cell; None without spin.
    """

    line: int
    energy_Ry: float
    geometry: Geometry | None
    final: bool
    smearing_Ry: float | None = None
    forces_eV_per_A: NDArray[np.float64] | None = None
    stress_kbar: NDArray[np.float64] | None = None
    pressure_kbar: float | None = None
    charge: tuple[float, float] | None = None
    absolute_magnetization: float | None = None


@dataclass(frozen=True)
class PseudoRead:
    """A pseudopotential that pw.x says it has read.

    Args:
        element: The element that the file itself names.
        path: The path that was opened.
        md5: Checksum printed by pw.x, empty where it was not.
    """

    element: str
    path: str = ""
    md5: str = ""


@dataclass
class Scan:
    """Everything found in one output; None or empty where it was not printed.

    ``accuracies_Ry`` and ``charge`` are of the cycle, and the iteration, that was printed last.
    """

    version: str | None = None
    started: datetime | None = None
    ended: datetime | None = None
    initial: Geometry | None = None
    cycles: list[Cycle] = field(default_factory=list)
    scf_iterations: list[int] = field(default_factory=list)
    notices: list[tuple[Recogniser, Message]] = field(default_factory=list)
    errors: list[Message] = field(default_factory=list)
    pseudos: list[PseudoRead] = field(default_factory=list)
    n_atoms: int | None = None
    n_k_points: int | None = None
    n_bands: int | None = None
    accuracies_Ry: list[float] = field(default_factory=list)
    charge: tuple[float, float] | None = None
    ecutwfc_Ry: float | None = None
    ecutrho_Ry: float | None = None
    functional: str | None = None
    fermi_eV: float | None = None
    lowest_unoccupied_eV: float | None = None
    total_magnetization: float | None = None
    wall_seconds: float | None = None
    bfgs_resets: int = 0
    relaxation_ended: bool = False
    restarted: bool = False
    scf_started: bool = False
    input_name: str | None = None
    job_done: Message | None = None
    head: list[tuple[int, str]] = field(default_factory=list)
    tail: deque[tuple[int, str]] = field(default_factory=lambda: deque(maxlen=TAIL_LINES))

    @property
    def calculated(self) -> bool:
        """Whether at least one self-consistent cycle was begun."""
        return self.scf_started or bool(self.cycles)


def numbers(text: str) -> list[float]:
    """Return the numbers in ``text``, in order; Fortran's ``D`` exponents too, rows of asterisks left out."""
    return [float(match.replace("d", "e").replace("D", "e")) for match in NUMBER.findall(text)]


def number_after(text: str, mark: str) -> float | None:
    """Return the first number after ``mark`` in ``text``."""
    found = numbers(text.partition(mark)[2])
    return found[0] if found else None


def timestamp(day: str, clock: str) -> datetime | None:
    """Return the local time that pw.x prints as ``20Nov2026`` (or ``20 Nov 2026``) and ``6:50: 3``."""
    try:
        return datetime.strptime(f"{day}{clock}".replace(" ", ""), "%d%b%Y%H:%M:%S")  # noqa: DTZ007 - local everywhere
    except ValueError:
        return None


def error_of(box: list[str]) -> str:
    """Return ``routine (code): text`` from the lines inside a box of per cent signs, as in an output or CRASH."""
    lines = [line.strip() for line in box if line.strip() and not line.strip().startswith("task #")]
    if not lines:
        return ""
    head = _ERROR_HEAD.match(lines[0])
    if head is None:
        return " ".join(lines)
    return f"{head[1]} ({head[2] or '?'}): {' '.join(lines[1:])}"


def wall_seconds(text: str) -> float | None:
    """Return the seconds of wall time in a line of pw.x's clock, such as ``1m 2.05s CPU   1h 3m WALL``."""
    found = _WALL.search(text)
    if found is None:
        return None
    factors = (86400.0, 3600.0, 60.0, 1.0)
    return sum(
        factor * float(part) for factor, part in zip(factors, found.groups(), strict=True) if numbers(part or "")
    )
