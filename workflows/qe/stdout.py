"""What can be found in the standard output of pw.x, and how its numbers, times and error boxes read."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final

from hullworks.workflows.qe.quantities import CodeFeatures, MemoryEstimate, ScfCycle, Smearing, Timing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hullworks.workflows.qe.geometry import Geometry
    from hullworks.workflows.qe.outcomes import Recogniser

NUMBER: Final = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eEdD][-+]?\d+)?")
_ERROR_HEAD = re.compile(r"(?:Error in routine|from)\s+(\S+)\s*(?:: error #\s*)?\(?\s*(-?\d+)?")
_CLOCK = re.compile(r"([^:]+(?::\S+)?)\s*:\s(.*)CPU(.*)WALL(?:\s*\(\s*(\d+) calls)?")
_SPAN = re.compile(r"(?:(\d+)d)?\s*(?:(\d+)h)?\s*(?:(\d+)m)?\s*(?:(\d*\.?\d*)s)?")
_LARGEST: Final = 1e30
"""Whatever pw.x prints in its units is smaller; what is larger comes of damage, and would overflow further on."""
TAIL_LINES: Final = 40
"""So many lines of the beginning and of the end are kept as they are."""


@dataclass(frozen=True)
class Message:
    """Words of pw.x (without leading and trailing blanks) and the number of their line, counted from 1."""

    line: int
    text: str


@dataclass(slots=True, eq=False)
class Cycle:
    """One self-consistent cycle that reached a total energy; filled while the lines after its energy are read.

    Args:
        line: Number of the line with the energy.
        energy_Ry: Total energy (with smearing the free energy), Ry.
        geometry: The cell and atoms that it belongs to, where they were printed.
        final: Whether it came after the end of the relaxation, in the basis of the final cell.
        charge: Electrons counted and expected, where they differ so much that pw.x warns.
        smearing_Ry: The smearing's contribution to the energy, Ry.
        forces_eV_per_A: Forces, shape (n, 3), eV/Angstrom.
        stress_kbar: Stress with the sign of pw.x (positive: the cell wants to grow), shape (3, 3), kbar.
        total_magnetization: Bohr magnetons per cell, without collinear spins the length of the vector; None without
            spin.
        absolute_magnetization: Bohr magnetons per cell; None without spin.
    """

    line: int
    energy_Ry: float
    geometry: Geometry | None
    final: bool
    charge: tuple[float, float] | None = None
    smearing_Ry: float | None = None
    forces_eV_per_A: NDArray[np.float64] | None = None
    stress_kbar: NDArray[np.float64] | None = None
    total_magnetization: float | None = None
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

    Args:
        scf_cycles: Every self-consistent cycle that was begun.
        accuracies_Ry: Estimated error of the energy after each iteration of the cycle that was printed last, Ry.
        charge: Electrons counted and expected of its last iteration, where pw.x warned.
        energy_terms_Ry: The terms of the last total energy by the names that pw.x prints, Ry.
        magnetic_moments: Moment in a sphere around each atom, Bohr magnetons, of the last cycle that converged.
        timings: From the name of a clock to what it measured.
        head: The first lines that are not blank, with their numbers.
        tail: The last ones.
    """

    version: str | None = None
    started: datetime | None = None
    ended: datetime | None = None
    features: CodeFeatures = field(default_factory=CodeFeatures)
    memory: MemoryEstimate | None = None
    n_symmetry_operations: int | None = None
    smearing: Smearing | None = None
    initial: Geometry | None = None
    cycles: list[Cycle] = field(default_factory=list)
    scf_cycles: list[ScfCycle] = field(default_factory=list)
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
    energy_terms_Ry: dict[str, float] = field(default_factory=dict)
    fermi_eV: float | None = None
    lowest_unoccupied_eV: float | None = None
    magnetic_moments: tuple[float, ...] = ()
    timings: dict[str, Timing] = field(default_factory=dict)
    cpu_seconds: float | None = None
    wall_seconds: float | None = None
    bfgs_resets: int = 0
    relaxation_ended: bool = False
    restarted: bool = False
    scf_started: bool = False
    input_name: str | None = None
    job_done: Message | None = None
    head: list[tuple[int, str]] = field(default_factory=list)
    tail: list[tuple[int, str]] = field(default_factory=list)

    @property
    def calculated(self) -> bool:
        """Whether at least one self-consistent cycle was begun."""
        return self.scf_started or bool(self.cycles)


def numbers(text: str) -> list[float]:
    """Return the numbers in ``text``, in order; Fortran's ``D`` exponents too, rows of asterisks left out."""
    found = (float(match.replace("d", "e").replace("D", "e")) for match in NUMBER.findall(text))
    return [value for value in found if -_LARGEST < value < _LARGEST]


def values(text: str) -> list[float]:
    """Return the same as `numbers`, faster where the text holds nothing else."""
    try:
        found = [float(word) for word in text.split()]
    except ValueError:
        return numbers(text)
    # False where one is infinite or not a number, too.
    return found if math.hypot(*found) < _LARGEST else numbers(text)


def number_after(text: str, mark: str) -> float | None:
    """Return the first number after ``mark`` in ``text``."""
    rest = text.partition(mark)[2]
    word = rest.split(maxsplit=1)
    found = (values(word[0]) if word else []) or numbers(rest)
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


def clock_of(text: str) -> tuple[str, Timing] | None:
    """Return name and times of a line of pw.x's clocks, such as ``forces  :  2.05s CPU   1h 3m WALL (  3 calls)``."""
    found = _CLOCK.match(text)
    if found is None:
        return None
    calls = None if found[4] is None else int(found[4])
    return found[1].strip(), Timing(_seconds(found[2]), _seconds(found[3]), calls)


def _seconds(text: str) -> float:
    """Return the seconds in ``1d 2h``, ``1h 3m`` or ``1m 2.05s``."""
    found = _SPAN.match(text.strip())
    parts = found.groups() if found else ()
    factors = (86400.0, 3600.0, 60.0, 1.0)
    return sum(factor * sum(numbers(part or "")) for factor, part in zip(factors, parts, strict=False))
