"""Facts about what makes parts a crystal."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from pymatgen.core.lattice import Lattice
from pymatgen.core.structure import Structure

from hullworks.workflows.intake import ProblemCode, RowProblemError, default_limits
from hullworks.workflows.intake.crystal import build_crystal, closest_contact, contact_distances, element_symbol

LIMITS = default_limits()


def test_contacts_are_the_shortest_over_all_images() -> None:
    """In a skewed cell all distances, an atom's own images included, equal those of a search over every image."""
    rng = np.random.default_rng(5)
    matrix = np.array([[1.0, 0.0, 0.0], [7.3, 2.0, 0.0], [-4.1, 5.2, 3.0]]) * 2
    structure = Structure(Lattice(matrix), ["Mg", "Si", "O"], rng.random((3, 3)))
    images = np.array(list(product(range(-15, 16), repeat=3))) @ matrix
    offsets = structure.cart_coords[None, :] - structure.cart_coords[:, None]
    every = np.linalg.norm(offsets[:, :, None] + images, axis=3)
    every[every < 1e-9] = np.inf
    assert np.allclose(contact_distances(structure), every.min(axis=2))


def test_a_thin_cell_makes_an_atom_overlap_itself() -> None:
    """The contact with an atom's own image counts."""
    with pytest.raises(RowProblemError) as caught:
        build_crystal(np.diag([1.0, 8.0, 8.0]), ["Mg"], np.zeros((1, 3)), LIMITS)
    assert caught.value.code is ProblemCode.OVERLAP


def test_real_short_contacts_are_no_overlap() -> None:
    """Molecular hydrogen, diamond and the uranyl bond stay well above the limit."""
    for first, second, distance in (("H", "H", 0.74), ("C", "C", 1.54), ("U", "O", 1.77), ("N", "N", 1.1)):
        pair = Structure(Lattice.cubic(10.0), [first, second], [[0.0, 0.0, 0.0], [distance / 10, 0.0, 0.0]])
        assert closest_contact(pair, LIMITS).fraction > LIMITS.overlap_fraction * 1.3


@pytest.mark.parametrize(
    ("label", "symbol"),
    [("Fe", "Fe"), ("Fe3+", "Fe"), ("O2-", "O"), ("D", "H"), ("Fe2.5+", "Fe"), ("Mn3+,spin=5", "Mn")],
)
def test_labels_name_their_element(label: str, symbol: str) -> None:
    """Charges and spins are dropped, and deuterium is hydrogen."""
    assert element_symbol(label) == symbol


@pytest.mark.parametrize("label", ["X", "Xx", "fe", "Fe1", "", "Fe Si", "Qq0+"])
def test_other_labels_are_refused(label: str) -> None:
    """Dummies, wrong case and numbered sites name no element."""
    with pytest.raises(RowProblemError):
        element_symbol(label)


def test_coordinates_are_wrapped_and_insane_moments_dropped() -> None:
    """Fractional coordinates end in [0, 1); moments stay only when all are believable."""
    structure = build_crystal(
        np.eye(3) * 5, ["Fe", "O"], np.array([[-0.25, 7.5, 0.0], [0.5, 0.5, 0.5]]), LIMITS, [1, 99]
    )
    assert np.allclose(structure.frac_coords[0], [0.75, 0.5, 0.0])
    assert "magmom" not in structure.site_properties


def test_every_stable_element_has_a_covalent_radius() -> None:
    """The table covers hydrogen to curium, within the range that radii have."""
    assert len(LIMITS.covalent_radii) == 96
    assert all(0.2 < radius < 2.7 for radius in LIMITS.covalent_radii.values())
    assert LIMITS.covalent_radius("N") == 0.71
    assert LIMITS.covalent_radius("No") == LIMITS.default_covalent_radius
