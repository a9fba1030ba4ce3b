"""K-point meshes."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice

from hullworks.errors import InputError
from hullworks.workflows.qe.kpoints import (
    KMesh,
    lattice_rotations,
    mesh_from_distance,
    mesh_is_symmetric,
    unresolved_length,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def fcc(a: float) -> Lattice:
    """Return the primitive face-centred cubic lattice."""
    return Lattice([[0, a / 2, a / 2], [a / 2, 0, a / 2], [a / 2, a / 2, 0]])


def bcc(a: float) -> Lattice:
    """Return the primitive body-centred cubic lattice."""
    return Lattice([[-a / 2, a / 2, a / 2], [a / 2, -a / 2, a / 2], [a / 2, a / 2, -a / 2]])


TRICLINIC = Lattice.from_parameters(3.0, 4.0, 5.0, 80, 95, 103)


@pytest.mark.parametrize(
    ("lattice", "distance", "divisions", "shift"),
    [
        pytest.param(fcc(5.46), 0.25, (6, 6, 6), (1, 1, 1), id="fcc Si"),
        pytest.param(fcc(4.04), 0.25, (8, 8, 8), (1, 1, 1), id="fcc Al"),
        pytest.param(bcc(3.0), 0.30, (10, 10, 10), (1, 1, 1), id="bcc"),
        pytest.param(Lattice.cubic(3.2), 0.30, (7, 7, 7), (1, 1, 1), id="sc"),
        pytest.param(Lattice.hexagonal(3.2, 5.2), 0.25, (10, 10, 5), (0, 0, 0), id="hcp Mg"),
        pytest.param(Lattice.hexagonal(2.46, 25.0), 0.30, (10, 10, 1), (0, 0, 0), id="hexagonal layer"),
        pytest.param(Lattice.tetragonal(3.0, 25.0), 0.30, (7, 7, 1), (1, 1, 0), id="tetragonal layer"),
        pytest.param(Lattice.cubic(30.0), 0.30, (1, 1, 1), (0, 0, 0), id="molecule in a box"),
        pytest.param(TRICLINIC, 0.30, (8, 6, 5), (1, 1, 1), id="triclinic"),
    ],
)
def test_known_lattices_get_their_mesh(
    lattice: Lattice, distance: float, divisions: tuple[int, int, int], shift: tuple[int, int, int]
) -> None:
    """Divisions follow the distance; cubic lattices are shifted, hexagonal ones hold Gamma, thin directions too."""
    assert mesh_from_distance(lattice, distance) == KMesh(divisions, shift)


def test_a_body_centred_tetragonal_mesh_keeps_the_fourfold_axis() -> None:
    """Primitive vectors that the symmetry mixes share the largest number, though their lengths differ."""
    lattice = Lattice([[-2, 2, 5], [2, -2, 5], [2, 2, -5]])
    mesh = mesh_from_distance(lattice, 0.30)
    assert len(set(mesh.divisions)) == 1
    assert len(set(np.round(lattice.reciprocal_lattice.abc, 6))) == 2
    assert mesh_is_symmetric(mesh, lattice_rotations(lattice))


@pytest.mark.parametrize("distance", [0.15, 0.2, 0.25, 0.3, 0.4])
def test_a_face_centred_mesh_leaves_vectors_as_long_as_a_centred_one_of_the_nominal_density(distance: float) -> None:
    """The shift's cancellation pays for the fewer divisions: the shortest missed vector is not shorter."""
    lattice = fcc(5.0)
    rotations = lattice_rotations(lattice)
    mesh = mesh_from_distance(lattice, distance)
    nominal = KMesh((int(np.ceil(lattice.reciprocal_lattice.a / distance - 1e-9)),) * 3)
    assert mesh.divisions < nominal.divisions
    assert unresolved_length(mesh, lattice, rotations) >= 0.99 * np.sqrt(1.5) * 2 * np.pi / distance


def test_noise_in_the_cell_does_not_change_the_mesh() -> None:
    """A cell that is symmetric up to rounding has the mesh of the exact one."""
    exact = Lattice.hexagonal(3.2, 5.2)
    noisy = Lattice(exact.matrix + 1e-5 * np.array([[1, -1, 0], [0, 1, 1], [-1, 0, 1]]))
    assert mesh_from_distance(noisy, 0.25) == mesh_from_distance(exact, 0.25)


def test_a_larger_cell_needs_no_more_points() -> None:
    """`denser_than` is true along the direction that has more divisions."""
    small, large = mesh_from_distance(Lattice.cubic(3.0), 0.3), mesh_from_distance(Lattice.cubic(3.8), 0.3)
    assert small.denser_than(large)
    assert not large.denser_than(small)
    assert KMesh((2, 4, 2)).denser_than(KMesh((4, 2, 4)))


def test_a_mesh_survives_its_dictionary() -> None:
    """as_dict and from_dict are inverse."""
    mesh = KMesh((3, 4, 5), (1, 1, 0))
    assert KMesh.from_dict(mesh.as_dict()) == mesh


def test_a_distance_that_is_not_positive_is_refused() -> None:
    """Zero would need infinitely many points."""
    with pytest.raises(InputError, match="positive"):
        mesh_from_distance(Lattice.cubic(3.0), 0.0)


BRAVAIS: dict[str, Callable[[float, float, float, float], Lattice]] = {
    "cP": lambda a, _b, _c, _x: Lattice.cubic(a),
    "cF": lambda a, _b, _c, _x: fcc(a),
    "cI": lambda a, _b, _c, _x: bcc(a),
    "tP": lambda a, _b, c, _x: Lattice.tetragonal(a, c),
    "tI": lambda a, _b, c, _x: Lattice(bcc(2.0).matrix @ np.diag([a / 2, a / 2, c / 2])),
    "oP": lambda a, b, c, _x: Lattice.orthorhombic(a, b, c),
    "oF": lambda a, b, c, _x: Lattice(fcc(2.0).matrix @ np.diag([a / 2, b / 2, c / 2])),
    "oI": lambda a, b, c, _x: Lattice(bcc(2.0).matrix @ np.diag([a / 2, b / 2, c / 2])),
    "oC": lambda a, b, c, _x: Lattice([[a / 2, b / 2, 0], [-a / 2, b / 2, 0], [0, 0, c]]),
    "hP": lambda a, _b, c, _x: Lattice.hexagonal(a, c),
    "hR": lambda a, _b, _c, x: Lattice.rhombohedral(a, x - 20.0),
    "mP": Lattice.monoclinic,
    "aP": lambda a, b, c, x: Lattice.from_parameters(a, b, c, x, 95.0, 103.0),
}
"""Makes a primitive cell of each Bravais lattice from three lengths (A) and an angle between 70 and 115 degrees."""


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(sorted(BRAVAIS)),
    lengths=st.tuples(*[st.floats(2.0, 30.0)] * 3),
    angle=st.floats(70.0, 115.0),
    skew=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 2), st.sampled_from([-1, 1])), max_size=3),
    distance=st.floats(0.1, 0.6),
)
def test_no_mesh_is_sparser_than_asked(
    kind: str,
    lengths: tuple[float, float, float],
    angle: float,
    skew: list[tuple[int, int, int]],
    distance: float,
) -> None:
    """In any primitive cell of any lattice the first harmonic that is missed is that of the distance or shorter waves.

    That is what a distance means. Without a shift the points are as near as asked along every reciprocal vector too;
    axes that a symmetry makes equal have equal divisions, and a single division has no shift.
    """
    lattice = skewed(BRAVAIS[kind](*lengths, angle), skew)
    mesh, rotations = mesh_from_distance(lattice, distance), lattice_rotations(lattice)
    assert unresolved_length(mesh, lattice, rotations) >= 0.998 * 2.0 * np.pi / distance
    if mesh.shift == (0, 0, 0):
        assert np.all(np.asarray(lattice.reciprocal_lattice.abc) / mesh.divisions <= distance * 1.002)
    for rotation in np.abs(rotations):
        for i, j in zip(*np.nonzero(rotation), strict=True):
            assert mesh.divisions[i] == mesh.divisions[j]
    assert all(not shift for shift, count in zip(mesh.shift, mesh.divisions, strict=True) if count == 1)


def skewed(lattice: Lattice, steps: list[tuple[int, int, int]]) -> Lattice:
    """Return the same lattice with vectors added to others: step (i, d, s) adds s times vector i + d to vector i."""
    vectors = lattice.matrix.copy()
    for i, offset, sign in steps:
        vectors[i] += sign * vectors[(i + offset) % 3]
    return Lattice(vectors)


@pytest.mark.parametrize("a", [1000.0, 15.5, 14.9])
def test_a_large_face_centred_cell_keeps_what_the_shift_gives(a: float) -> None:
    """Lowered to one division there is no shift and no gain: two shifted divisions stay where one is too few."""
    lattice = fcc(a * np.sqrt(2.0))
    mesh = mesh_from_distance(lattice, 0.4)
    assert unresolved_length(mesh, lattice, lattice_rotations(lattice)) >= 2.0 * np.pi / 0.4
    assert mesh.divisions in {(1, 1, 1), (2, 2, 2)}


@pytest.mark.parametrize("angle", [33.0, 54.2, 57.1, 85.0, 100.0])
def test_a_rhombohedral_mesh_has_the_threefold_axis(angle: float) -> None:
    """The three vectors are equal, so the shift along all of them breaks no symmetry; in the hexagonal setting it is
    left out.
    """
    lattice = Lattice.rhombohedral(4.5, angle)
    mesh = mesh_from_distance(lattice, 0.25)
    assert len(set(mesh.divisions)) == len(set(mesh.shift)) == 1
    assert mesh_is_symmetric(mesh, lattice_rotations(lattice))


@pytest.mark.parametrize("ratio", [0.05, 0.5, 2.0, 40.0])
def test_a_hexagonal_mesh_holds_gamma_whatever_its_shape(ratio: float) -> None:
    """Layers, rods and ordinary cells: no shift, equal divisions in the plane."""
    mesh = mesh_from_distance(Lattice.hexagonal(4.0, 4.0 * ratio), 0.25)
    assert mesh.shift == (0, 0, 0)
    assert mesh.divisions[0] == mesh.divisions[1] == 8


def test_needles_and_slabs_have_one_point_along_their_long_axes() -> None:
    """A reciprocal vector far shorter than the distance has one division, at Gamma."""
    assert mesh_from_distance(Lattice.orthorhombic(3.0, 300.0, 400.0), 0.25).divisions[1:] == (1, 1)
    assert mesh_from_distance(Lattice.from_parameters(3.0, 3.1, 60.0, 88, 92, 97), 0.25).shift[2] == 0


def test_a_shifted_mesh_that_is_called_symmetric_is_mapped_onto_itself_point_by_point() -> None:
    """The algebra agrees with turning every point of the mesh."""
    for lattice, divisions in itertools.product((fcc(4.0), bcc(4.0), Lattice.hexagonal(3, 5)), (2, 3, 4)):
        mesh = KMesh((divisions,) * 3, (1, 1, 1))
        rotations = lattice_rotations(lattice)
        points = (np.array(list(itertools.product(range(divisions), repeat=3))) + 0.5) / divisions
        turned = np.einsum("nji,pj->npi", rotations, points)
        steps = turned * divisions - 0.5
        assert mesh_is_symmetric(mesh, rotations) == bool(np.allclose(steps, np.round(steps)))
