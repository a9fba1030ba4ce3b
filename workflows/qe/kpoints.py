"""K-point meshes: one rule for every cell, so that energies of different phases carry comparable errors.

A mesh with N divisions integrates every lattice harmonic exactly but those of the vectors ``R = sum m_i N_i a_i``. The
shortest of them decide the error, so meshes of equal density give comparable errors: ``N_i = ceil(|b_i| / distance)``.
Directions that the symmetry of the lattice mixes get the same number, the largest of them; otherwise the mesh would
have less symmetry than the crystal (body-centred tetragonal cells are the common case).

Half a division of shift gives each R the sign ``(-1)^sum(m_i)``, and the symmetry of the crystal averages the signs
over a star of vectors. That leaves three cases:

- the signs of the shortest star cancel (face-centred lattices): the leading error is gone, shift. The mesh and its
  symmetric images then are together finer than the mesh, and the divisions are lowered until the shortest vector that
  is left is as long as without the shift. Silicon errs by 1.4 meV/atom with 4x4x4 shifted (10 points), and by 1.9 with
  8x8x8 centred (29 points);
- the shifted mesh has all symmetry of the lattice (primitive and body-centred lattices): the error is as large as
  without, and fewer points are left to calculate, shift;
- neither (hexagonal lattices): the shift would break the symmetry and lose points for little, stay at Gamma.

Along a direction with a single division the point stays at Gamma, the centre of a layer or a molecule in a long cell.
Whatever the case, the shortest vector that is missed is at least ``2 pi / distance`` long, as with a centred mesh whose
points are nowhere further apart than asked. Rhombohedral lattices count as the others: along all three of its equal
vectors the shift keeps the threefold axis, in the hexagonal setting of the same lattice it would not.
The lattice alone decides, not the atoms in it: phases that share a lattice share the kind of mesh.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hullworks.errors import InputError
from hullworks.workflows.symmetry import lattice_point_group

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from pymatgen.core import Lattice

LENGTH_TOLERANCE = 1e-3
"""Relative tolerance on lengths: a lattice within 0.1 % of a symmetric one counts as symmetric. Noise then never
changes the kind of mesh, and |b| / distance = 4.003 needs 4 divisions, not 5."""

_STEPS = np.array([step for step in itertools.product((-2, -1, 0, 1, 2), repeat=3) if any(step)])
"""Candidates for the shortest lattice vectors, in units of the cell vectors; shape (124, 3)."""


@dataclass(frozen=True)
class KMesh:
    """A regular k-point mesh in QE's words.

    Attributes:
        divisions: Number of points along each reciprocal vector.
        shift: 1 where the mesh is displaced by half a division, else 0.
    """

    divisions: tuple[int, int, int]
    shift: tuple[int, int, int] = (0, 0, 0)

    def denser_than(self, other: KMesh) -> bool:
        """Return whether this mesh has more divisions than another along any direction."""
        return any(mine > theirs for mine, theirs in zip(self.divisions, other.divisions, strict=True))

    def as_dict(self) -> dict[str, list[int]]:
        """Return the mesh as plain JSON types."""
        return {"divisions": list(self.divisions), "shift": list(self.shift)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Sequence[int]]) -> KMesh:
        """Build a mesh from `as_dict` output."""
        return cls(_triple(data["divisions"]), _triple(data["shift"]))


def mesh_from_distance(lattice: Lattice, distance: float) -> KMesh:
    """Return the k-point mesh of a cell.

    Args:
        lattice: The direct lattice.
        distance: Largest distance between neighbouring points, 1/Angstrom with the factor 2 pi.

    Raises:
        InputError: The distance is not positive.
    """
    if not distance > 0.0:
        raise InputError("the distance between k-points must be positive", str(distance))
    rotations = lattice_rotations(lattice)
    centred = KMesh(_divisions(lattice, rotations, distance))
    shifted = _shifted(centred)
    gain = unresolved_length(shifted, lattice, rotations) / unresolved_length(centred, lattice, rotations)
    if gain > 1.0 + LENGTH_TOLERANCE:
        lowered = _shifted(KMesh(_divisions(lattice, rotations, distance * gain)))
        # Down to a single division, where no shift is left, the gain is lost.
        kept = unresolved_length(lowered, lattice, rotations) >= 2.0 * math.pi / distance * (1.0 - LENGTH_TOLERANCE)
        return lowered if kept else shifted
    return shifted if mesh_is_symmetric(shifted, rotations) else centred


def lattice_rotations(lattice: Lattice) -> NDArray[np.int64]:
    """Return the point group of a lattice as integer matrices on fractional coordinates, shape (n, 3, 3).

    Raises:
        InputError: No symmetry can be found, as with a singular cell.
    """
    tolerance = LENGTH_TOLERANCE * min(lattice.abc)
    found = lattice_point_group(lattice.matrix, tolerance)
    if found is None:
        raise InputError("no symmetry can be found for this cell", f"a, b, c = {lattice.abc}", "Check the cell.")
    return found


def mesh_is_symmetric(mesh: KMesh, rotations: NDArray[np.int64]) -> bool:
    """Return whether every rotation maps a mesh onto itself.

    With k = (n + s/2) / N a rotation W sends n to M n + (M - 1) s/2, where M = N W^T / N; both must be integers.

    Args:
        mesh: The mesh.
        rotations: Rotations of fractional coordinates, shape (n, 3, 3).
    """
    divisions = np.asarray(mesh.divisions)
    # x -> W x in direct space is k -> W^-T k in reciprocal space; over a group that is the set of transposes.
    numerators = divisions[:, None] * rotations.transpose(0, 2, 1)
    if np.any(numerators % divisions):
        return False
    moved = (numerators // divisions - np.eye(3, dtype=np.int64)) @ np.asarray(mesh.shift)
    return not np.any(moved % 2)


def unresolved_length(mesh: KMesh, lattice: Lattice, rotations: NDArray[np.int64]) -> float:
    """Return the length of the shortest lattice vector whose harmonic the mesh and its images miss, Angstrom.

    Args:
        mesh: The mesh.
        lattice: The direct lattice.
        rotations: Rotations of fractional coordinates, shape (n, 3, 3).
    """
    divisions, shift = np.asarray(mesh.divisions), np.asarray(mesh.shift)
    vectors = _STEPS * divisions
    stars = np.einsum("nij,vj->vni", rotations, vectors) / divisions
    missed = np.abs(np.cos(np.pi * (stars @ shift)).mean(axis=1)) > LENGTH_TOLERANCE
    lengths = np.linalg.norm(vectors @ lattice.matrix, axis=1)
    return float(lengths[missed].min())


def _shifted(mesh: KMesh) -> KMesh:
    return KMesh(mesh.divisions, _triple([int(count > 1) for count in mesh.divisions]))


def _divisions(lattice: Lattice, rotations: NDArray[np.int64], distance: float) -> tuple[int, int, int]:
    lengths = np.asarray(lattice.reciprocal_lattice.abc)
    wanted = [max(1, math.ceil(length / distance * (1.0 - LENGTH_TOLERANCE))) for length in lengths]
    return _share_largest(wanted, rotations)


def _share_largest(divisions: Sequence[int], rotations: NDArray[np.int64]) -> tuple[int, int, int]:
    """Give directions that a rotation mixes the largest number of divisions among them."""
    mixed = np.any(rotations != 0, axis=0)
    # A path among three directions has at most two steps.
    together = np.linalg.matrix_power((mixed | mixed.T).astype(int), 2) > 0
    return _triple([max(np.asarray(divisions)[row]) for row in together])


def _triple(values: Sequence[int]) -> tuple[int, int, int]:
    first, second, third = (int(value) for value in values)
    return first, second, third
