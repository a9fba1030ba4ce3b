"""A crystal as pw.x prints it, kept as plain arrays until somebody asks for a pymatgen structure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from hullworks.elements import ELEMENTS_AND_ISOTOPES

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pymatgen.core import Structure

_FLAT: Final = 1e-6
"""Cell vectors that span less than this part of their box lie in a plane as far as double precision can tell."""
_SYMBOL = re.compile(r"([A-Za-z]{1,2})(?![A-Za-z])")


def element_of(label: str) -> str | None:
    """Return the chemical symbol in an atom's label (``Fe1``, ``fe_up``, ``O-2``), or None where there is none."""
    found = _SYMBOL.match(label)
    symbol = found[1].capitalize() if found else ""
    return symbol if symbol in ELEMENTS_AND_ISOTOPES else None


@dataclass(frozen=True, eq=False, slots=True)
class Geometry:
    """Cell and atoms.

    Args:
        cell: Cell vectors in Angstrom, one per row, shape (3, 3).
        labels: Atomic labels as in the input, length n.
        positions: Cartesian coordinates in Angstrom, shape (n, 3).
    """

    cell: NDArray[np.float64]
    labels: tuple[str, ...]
    positions: NDArray[np.float64]

    @property
    def usable(self) -> bool:
        """Whether cell and positions are finite, of matching shape, and the cell has a volume."""
        shapes = self.cell.shape == (3, 3) and self.positions.shape == (len(self.labels), 3) and bool(self.labels)
        if not (shapes and np.isfinite(self.cell).all() and np.isfinite(self.positions).all()):
            return False
        lengths = np.linalg.norm(self.cell, axis=1)
        return bool(abs(np.linalg.det(self.cell)) > _FLAT * float(np.prod(lengths)) > 0.0)

    def structure(self) -> Structure | None:
        """Return it as a pymatgen structure, or None where the numbers or labels are not those of a crystal."""
        from pymatgen.core import Lattice, Structure

        symbols = [element_of(label) for label in self.labels]
        if not self.usable or None in symbols:
            return None
        species = [symbol for symbol in symbols if symbol is not None]
        return Structure(Lattice(self.cell), species, self.positions, coords_are_cartesian=True)


def closest_pair(geometry: Geometry) -> tuple[int, int, float] | None:
    """Return the two atoms closest to each other under periodic images, counted from 1, and their distance in Angstrom.

    Returns None where the geometry is not usable. An atom's own images count too.
    """
    if not geometry.usable:
        return None
    shifts = np.array([(i, j, k) for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)]) @ geometry.cell
    fractional = geometry.positions @ np.linalg.inv(geometry.cell)
    wrapped = (fractional - np.floor(fractional)) @ geometry.cell
    best = (1, 1, float(np.linalg.norm(shifts, axis=1)[np.any(shifts != 0.0, axis=1)].min()))
    for i, here in enumerate(wrapped[:-1]):
        distances = np.linalg.norm(wrapped[i + 1 :, None, :] + shifts[None] - here, axis=2).min(axis=1)
        nearest = int(distances.argmin())
        if distances[nearest] < best[2]:
            best = (i + 1, i + 2 + nearest, float(distances[nearest]))
    return best
