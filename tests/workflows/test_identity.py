"""Facts about the ids of crystals, candidates, calculations and rows."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core.lattice import Lattice
from pymatgen.core.structure import Structure

from hullworks.errors import CandidateError
from hullworks.workflows.identity import (
    QUANTUM,
    DuplicateIndex,
    calculation_id,
    candidate_id,
    image_cloud,
    invariants,
    row_id,
    same_crystal,
    structure_id,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Change = Callable[[Structure, np.random.Generator], Structure]

SEEDS = st.integers(0, 2**32 - 1)


def random_crystal(rng: np.random.Generator) -> Structure:
    """Return a crystal of 1 to 8 atoms without symmetry, atoms at least 0.8 Angstrom apart as a rule."""
    n_atoms = int(rng.integers(1, 9))
    lattice = Lattice(rng.uniform(-1, 1, (3, 3)) + 3.0 * np.eye(3) + 0.2 * n_atoms * np.diag(rng.uniform(0, 1, 3)))
    return Structure(lattice, rng.choice(["Mg", "Si", "O"], n_atoms).tolist(), rng.random((n_atoms, 3)))


def unimodular(rng: np.random.Generator) -> np.ndarray:
    """Return an integer matrix of determinant 1 or -1, made of random shears and a swap."""
    matrix = np.eye(3, dtype=int)[rng.permutation(3)]
    for _ in range(4):
        i, j = rng.choice(3, 2, replace=False)
        matrix[i] += int(rng.integers(-2, 3)) * matrix[j]
    return matrix


def in_other_cell(structure: Structure, rng: np.random.Generator) -> Structure:
    """Return the same crystal in another cell of the same volume."""
    transform = unimodular(rng)
    lattice = Lattice(transform @ structure.lattice.matrix)
    return Structure(lattice, structure.species, structure.cart_coords, coords_are_cartesian=True)


def rotated(structure: Structure, rng: np.random.Generator) -> Structure:
    """Return the crystal after a random rotation or rotoinversion."""
    orthogonal, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return Structure(Lattice(structure.lattice.matrix @ orthogonal), structure.species, structure.frac_coords)


def translated(structure: Structure, rng: np.random.Generator) -> Structure:
    """Return the crystal with its origin elsewhere."""
    return Structure(structure.lattice, structure.species, structure.frac_coords + rng.uniform(-3, 3, 3))


def permuted(structure: Structure, rng: np.random.Generator) -> Structure:
    """Return the crystal with its atoms in another order."""
    order = rng.permutation(len(structure))
    return Structure(structure.lattice, [structure.species[i] for i in order], structure.frac_coords[order])


def enlarged(structure: Structure, rng: np.random.Generator) -> Structure:
    """Return a skew supercell of two to six cells."""
    diagonal = np.diag(rng.permutation([1, int(rng.integers(1, 3)), int(rng.integers(2, 4))]))
    return structure.make_supercell(unimodular(rng) @ diagonal, in_place=False)


@pytest.mark.parametrize("change", [in_other_cell, rotated, translated, permuted, enlarged])
@given(seed=SEEDS)
@settings(max_examples=25, deadline=None)
def test_id_belongs_to_the_crystal_not_to_its_description(change: Change, seed: int) -> None:
    """Another cell, orientation, origin, order of atoms or a supercell leaves the id as it is."""
    rng = np.random.default_rng(seed)
    structure = random_crystal(rng)
    assert structure_id(change(structure, rng)) == structure_id(structure)


@given(seed=SEEDS)
@settings(max_examples=25, deadline=None)
def test_id_follows_displacements_beyond_its_quantum(seed: int) -> None:
    """A structure of several atoms with one of them moved by 0.1 Angstrom has another id."""
    rng = np.random.default_rng(seed)
    structure = Structure(Lattice.cubic(5.0), ["Mg", "Si", "O", "O"], rng.random((4, 3)))
    moved = structure.copy()
    moved.translate_sites([0], [0.02, 0.0, 0.0])
    assert structure_id(moved) != structure_id(structure)


@given(seed=SEEDS)
@settings(max_examples=40, deadline=None)
def test_invariants_are_continuous(seed: int) -> None:
    """Noise of 1e-6 Angstrom on every coordinate moves no invariant by more than 1 % of a quantum."""
    rng = np.random.default_rng(seed)
    structure = random_crystal(rng)
    noisy = Structure(
        structure.lattice,
        structure.species,
        structure.cart_coords + rng.uniform(-1e-6, 1e-6, (len(structure), 3)),
        coords_are_cartesian=True,
    )
    assert np.abs(invariants(noisy) - invariants(structure)).max() < 0.01 * QUANTUM


def test_primitive_and_conventional_cells_share_an_id() -> None:
    """Rock salt, fcc and diamond have one id in the primitive and in the conventional cell."""
    for species, group in ((["Na", "Cl"], "Fm-3m"), (["Al"], "Fm-3m")):
        sites = [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]][: len(species)]
        conventional = Structure.from_spacegroup(group, Lattice.cubic(5.47), species, sites)
        assert structure_id(conventional.get_primitive_structure()) == structure_id(conventional)


def test_mirror_images_share_an_id() -> None:
    """Left and right quartz have the same energy, and one id."""
    left = Structure.from_spacegroup(
        "P3_221", Lattice.hexagonal(4.91, 5.4), ["Si", "O"], [[0.47, 0, 2 / 3], [0.41, 0.27, 0.785]]
    )
    right = Structure(Lattice(left.lattice.matrix * [1, 1, -1]), left.species, left.frac_coords)
    assert structure_id(left) == structure_id(right)


def test_oxidation_states_and_site_properties_do_not_enter() -> None:
    """Only elements and places make a crystal."""
    salt = Structure(Lattice.cubic(3.0), ["Cs", "Cl"], [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]])
    marked = salt.copy(site_properties={"magmom": [1.0, -1.0]})
    marked.add_oxidation_state_by_element({"Cs": 1, "Cl": -1})
    assert structure_id(marked) == structure_id(salt)


def stacking(steps: tuple[int, ...]) -> Structure:
    """Return the SiC polytype in which each bilayer is shifted by the given thirds of the cell's diagonal."""
    offsets = ((0.0, 0.0), (1 / 3, 2 / 3), (2 / 3, 1 / 3))
    n_layers, place, species, sites = len(steps), 0, [], []
    for layer, step in enumerate(steps):
        x, y = offsets[place % 3]
        species += ["Si", "C"]
        sites += [[x, y, layer / n_layers], [x, y, (layer + 0.75) / n_layers]]
        place += step
    return Structure(Lattice.hexagonal(3.08, 2.52 * n_layers), species, sites)


def equivalent(steps: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Yield the sequences that stand for the same polytype, each in its shortest period."""
    period = next(p for p in range(1, len(steps) + 1) if steps == steps[:p] * (len(steps) // p))
    for start in range(period):
        turned = (steps[start:] + steps[:start])[:period]
        yield from (form for base in (turned, turned[::-1]) for form in (base, tuple(3 - step for step in base)))


def test_every_polytype_has_its_own_id() -> None:
    """The stackings of SiC with up to nine bilayers have as many ids as there are different ones."""
    sequences = [steps for n in range(2, 10) for steps in product((1, 2), repeat=n) if sum(steps) % 3 == 0]
    different = {min(equivalent(steps)): steps for steps in sequences}
    assert len(different) > 20
    assert len({structure_id(stacking(steps)) for steps in different.values()}) == len(different)


def test_related_structures_have_different_ids() -> None:
    """Fcc and hcp, zincblende and wurtzite, swapped sites, and another lattice constant are different crystals."""
    a = 4.05
    fcc = Structure.from_spacegroup("Fm-3m", Lattice.cubic(a), ["Al"], [[0, 0, 0]])
    nearest = a / np.sqrt(2)
    hcp = Structure(
        Lattice.hexagonal(nearest, nearest * np.sqrt(8 / 3)), ["Al", "Al"], [[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]]
    )
    perovskite = Structure(
        Lattice.cubic(3.9),
        ["Sr", "Ti", *["O"] * 3],
        [[0.5, 0.5, 0.5], [0.0, 0.0, 0.0], [0.5, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 0.5]],
    )
    swapped = perovskite.copy()
    swapped.replace_species({"Sr": "Ti", "Ti": "Sr"})
    larger = fcc.copy()
    larger.scale_lattice(fcc.volume * 1.01)
    zincblende, wurtzite = stacking((1, 1, 1)), stacking((1, 2))
    crystals = [fcc, hcp, perovskite, swapped, larger, zincblende, wurtzite]
    assert len({structure_id(crystal) for crystal in crystals}) == len(crystals)


def test_neighbours_are_found_in_flat_long_and_skewed_cells() -> None:
    """A slab, a needle and a cell sheared a hundredfold have the invariants of a search over every image."""
    for matrix in (
        np.diag([2.5, 2.5, 30.0]),
        np.diag([2.0, 2.2, 60.0]),
        np.array([[3, 0, 0], [0, 3, 0], [300, 2, 3.0]]),
    ):
        structure = Structure(Lattice(matrix), ["Mg"], [[0.2, 0.3, 0.4]])
        supercell = structure.make_supercell((2, 1, 1), in_place=False)
        assert np.allclose(invariants(structure), invariants(supercell), atol=1e-9)


def test_image_cloud_is_complete() -> None:
    """Every image within the radius of the home cell is in the cloud."""
    rng = np.random.default_rng(3)
    matrix, fractional, radius = rng.uniform(-1, 1, (3, 3)) + 2 * np.eye(3), rng.random((3, 3)), 5.0
    shifts = np.array(list(product(range(-12, 13), repeat=3)))
    every = (shifts[:, None] + fractional).reshape(-1, 3) @ matrix
    near = every[np.linalg.norm(every[:, None] - fractional @ matrix, axis=2).min(axis=1) <= radius]
    cloud = {tuple(point) for point in image_cloud(fractional, matrix, radius).round(6) + 0.0}
    assert {tuple(point) for point in near.round(6) + 0.0} <= cloud


def test_what_is_no_crystal_has_no_id() -> None:
    """An empty, disordered or flat structure is refused with a `CandidateError`."""
    disordered = Structure(Lattice.cubic(4.0), [{"Mg": 0.5, "Si": 0.5}], [[0, 0, 0]])
    flat = Structure(Lattice([[3, 0, 0], [0, 3, 0], [3, 3, 0]]), ["Mg"], [[0, 0, 0]])
    degenerate = Structure(Lattice([[1e-7, 0, 0], [0, 1e-7, 0], [0, 0, 1e3]]), ["Mg"], [[0, 0, 0]])
    for structure in (disordered, flat, degenerate, Structure(Lattice.cubic(4.0), [], [])):
        with pytest.raises(CandidateError):
            structure_id(structure)


def test_ids_are_short_stable_and_apart() -> None:
    """Ids are a prefix and 16 hexadecimal digits, and lists of parts that join to one text have different ids."""
    assert candidate_id("struct-1", "qe-pbe-fast-0") == "cand-" + candidate_id("struct-1", "qe-pbe-fast-0")[5:]
    assert candidate_id("struct-1", "2") != candidate_id("struct-", "12")
    assert calculation_id("s", "l", "1") != calculation_id("s", "l", "2")
    assert row_id("b", "0" * 64, 0) != row_id("b", "0" * 64, 1)
    for identifier in (candidate_id("s", "l"), calculation_id("s", "l", "1"), row_id("b", "0" * 64, 0)):
        assert len(identifier.partition("-")[2]) == 16


def test_published_id_does_not_change() -> None:
    """Aluminium keeps its id from version to version; a change of the recipe must change `SCHEME` and this line."""
    aluminium = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.05), ["Al"], [[0, 0, 0]])
    assert structure_id(aluminium) == "struct-31fae84e18577ddb"


def test_same_crystal_joins_what_ids_keep_apart() -> None:
    """A swollen, slightly distorted supercell is the same crystal for the matcher; another prototype is not."""
    salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.6), ["Na", "Cl"], [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]])
    near = salt.make_supercell((1, 1, 2), in_place=False)
    near.scale_lattice(near.volume * 1.1)
    near.perturb(0.02)
    caesium_type = Structure(Lattice.cubic(3.4), ["Na", "Cl"], [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]])
    assert structure_id(near) != structure_id(salt)
    assert same_crystal(near, salt)
    assert not same_crystal(salt, caesium_type)


def test_duplicate_index_finds_exact_and_near_duplicates() -> None:
    """The first of its kind is added, a supercell is an exact duplicate, a swollen one a near-duplicate."""
    salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.6), ["Na", "Cl"], [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]])
    swollen = salt.copy()
    swollen.scale_lattice(salt.volume * 1.1)
    caesium_type = Structure(Lattice.cubic(3.4), ["Na", "Cl"], [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]])
    index = DuplicateIndex()
    assert index.add("a", salt) is None
    assert index.add("b", caesium_type) is None
    exact, near = index.add("c", salt.make_supercell((2, 1, 1), in_place=False)), index.add("d", swollen)
    assert exact is not None
    assert near is not None
    assert (exact.key, exact.exact, near.key, near.exact) == ("a", True, "a", False)
    assert len(index) == 2
    strict = DuplicateIndex(tolerances=None)
    strict.add_known("a", salt)
    assert strict.find(swollen) is None
