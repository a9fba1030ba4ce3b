"""Units: one frozen table of conversion factors, named by direction.

Values are CODATA 2018 (https://physics.nist.gov/cuu/Constants/), the set that Quantum ESPRESSO 6.7 and 7.2 use.
Inside HullWorks energies are eV, lengths Angstrom, forces eV/Angstrom, pressures and stresses kbar, times seconds.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Units:
    """Multiply a value by ``a_to_b`` to turn unit a into unit b."""

    hartree_to_eV: float = 27.211386245988
    rydberg_to_eV: float = 27.211386245988 / 2.0
    bohr_to_angstrom: float = 0.529177210903
    hartree_per_bohr_to_eV_per_angstrom: float = 27.211386245988 / 0.529177210903
    rydberg_per_bohr_to_eV_per_angstrom: float = 27.211386245988 / 2.0 / 0.529177210903
    hartree_per_cubic_bohr_to_kbar: float = 294210.156970


UNITS = Units()
