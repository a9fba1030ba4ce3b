"""Small groups of numbers that a run of pw.x tells: energy terms, self-consistent cycles, memory, clocks, features."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Self, TypeVar

from hullworks.units import UNITS

if TYPE_CHECKING:
    from collections.abc import Mapping

_FOUR = {
    "one-electron contribution": "one_electron_eV",
    "hartree contribution": "hartree_eV",
    "xc contribution": "xc_eV",
    "ewald contribution": "ewald_eV",
}
"""The terms that every run has, by the names that pw.x prints."""


@dataclass(frozen=True)
class EnergyTerms:
    """What the total energy of a cell is the sum of, eV; a term that the files do not tell is None.

    With smearing the total energy is the free energy F = E - TS: `smearing_eV` is -TS, the other terms sum up to E.

    Args:
        one_electron_eV: Kinetic energy and the electrons' energy in the potential of the ions.
        hartree_eV: Hartree energy.
        xc_eV: Exchange and correlation.
        ewald_eV: The ions' energy in each other's field.
        smearing_eV: The smearing's contribution -TS; None without smearing.
        others_eV: Every other term by the name that pw.x prints: ``one-center paw contrib.``, ``Hubbard energy``,
            ``DFT-D3 Dispersion``, ...
    """

    one_electron_eV: float | None = None
    hartree_eV: float | None = None
    xc_eV: float | None = None
    ewald_eV: float | None = None
    smearing_eV: float | None = None
    others_eV: Mapping[str, float] = field(default_factory=dict)

    @property
    def total_eV(self) -> float | None:
        """The sum, eV; None while one of the four terms that every run has is unknown."""
        four = (self.one_electron_eV, self.hartree_eV, self.xc_eV, self.ewald_eV)
        if None in four:
            return None
        return sum(value or 0.0 for value in (*four, self.smearing_eV)) + sum(self.others_eV.values())

    @classmethod
    def from_rydberg(cls, printed: Mapping[str, float], smearing_Ry: float | None) -> Self:
        """Return the terms that pw.x printed by their names, Ry."""
        values = {name: value * UNITS.rydberg_to_eV for name, value in printed.items()}
        smearing = None if smearing_Ry is None else smearing_Ry * UNITS.rydberg_to_eV
        others = {name: value for name, value in values.items() if name not in _FOUR}
        known = {field_name: values.get(name) for name, field_name in _FOUR.items()}
        return cls(**known, smearing_eV=smearing, others_eV=others)


@dataclass(frozen=True, slots=True)
class ScfCycle:
    """One self-consistent cycle.

    Args:
        ionic_step: Which of the run's `ionic_steps` it belongs to, counted from 0; None for the final SCF of a
            vc-relax. That of a cycle that did not converge is the step that it would have given.
        iterations: Iterations done.
        accuracy_Ry: Estimated error of the energy after the last of them, Ry.
        converged: Whether it converged; None where it was cut off.
    """

    ionic_step: int | None
    iterations: int
    accuracy_Ry: float | None
    converged: bool | None


@dataclass(frozen=True)
class MemoryEstimate:
    """What pw.x expects to need at its peak, MB (1024^2 bytes); a lower bound by its own words.

    Args:
        per_process_MB: Of the process that needs most.
        total_MB: Of all processes; None where there is one.
    """

    per_process_MB: float | None = None
    total_MB: float | None = None


@dataclass(frozen=True, slots=True)
class Timing:
    """What one clock of pw.x measured: seconds of processor time and of wall time, and how often it was started."""

    cpu_seconds: float
    wall_seconds: float
    calls: int | None = None


@dataclass(frozen=True)
class Smearing:
    """Smearing as pw.x understood the input.

    Args:
        kind: ``gaussian``, ``methfessel-paxton``, ``marzari-vanderbilt`` or ``fermi-dirac``.
        width_Ry: Its width, Ry.
    """

    kind: str
    width_Ry: float


@dataclass(frozen=True)
class CodeFeatures:
    """How the program was built and how it ran; what the files do not tell is None.

    Args:
        mpi: Whether it was built with MPI.
        openmp: Whether it was built with OpenMP.
        gpu: Whether it computed on graphics processors.
        processes: MPI processes.
        threads: OpenMP threads of each process.
        nodes: Nodes that the processes ran on.
        pools: Groups of processes that share the k points.
        band_groups: Groups of processes that share the bands.
        diagonalization_processes: Processes of the subspace diagonalization, 1 for a serial one.
    """

    mpi: bool | None = None
    openmp: bool | None = None
    gpu: bool | None = None
    processes: int | None = None
    threads: int | None = None
    nodes: int | None = None
    pools: int | None = None
    band_groups: int | None = None
    diagonalization_processes: int | None = None


Group = TypeVar("Group", EnergyTerms, CodeFeatures)


def completed(group: Group, other: Group | None) -> Group:
    """Return a group of numbers with what is None in it taken from ``other``, which is of the same evaluation."""
    if other is None:
        return group
    missing = [item.name for item in fields(group) if getattr(group, item.name) is None]
    return replace(group, **{name: getattr(other, name) for name in missing})
