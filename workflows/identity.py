"""Who is who: content ids of crystals, candidates, calculations and rows, and the test for near-duplicates."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np
from pymatgen.core.lattice import Lattice
from scipy.spatial import cKDTree

from hullworks.errors import CandidateError

if TYPE_CHECKING:
    import numpy.typing as npt
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.core.structure import Structure

    FloatArray = npt.NDArray[np.float64]

SCHEME: Final = "hw1"
"""Version of the recipe below; it is hashed into every structure id, since a change of any number changes all ids."""

NEIGHBOURS: Final = 100
"""Nearest neighbours of each element around each atom: the k = 100 of Widdowson and Kurlin's duplicate searches."""

QUANTUM: Final = 1e-3
"""Width of a bin of the quantised invariants, Angstrom: a thousand times the noise of coordinates written with six to
eight decimals, and ten times below the differences between two relaxations of one crystal, which are different inputs
and are compared by `same_crystal` instead."""

_PROJECTIONS: Final = (5, 7, 11, 13)
"""Each prime gives one projection; its square root drives that projection's quasi-random weights."""

_MAX_IMAGES: Final = 4_000_000
"""Atoms in a cloud of periodic images beyond which a cell is degenerate: about 100 MB of coordinates."""

_RADIUS_MARGIN: Final = 1.25
"""Over the radius of a sphere that holds the wanted number of atoms on average; a guess, corrected when too small."""

_HEX_DIGITS: Final = 16
"""64 bits: at four million structures the odds of one accidental collision are 4 in 10 million."""


@dataclass(frozen=True)
class MatchTolerances:
    """Tolerances of `same_crystal`; the defaults are those of the Materials Project for its own duplicates."""

    length: float = 0.2
    """Relative tolerance of cell lengths (``ltol``)."""
    site: float = 0.3
    """Tolerance of sites, in units of (volume per atom)^(1/3) (``stol``)."""
    angle: float = 5.0
    """Tolerance of cell angles, degrees (``angle_tol``)."""


MATERIALS_PROJECT: Final = MatchTolerances()


def structure_id(structure: Structure) -> str:
    """Return the content id of a crystal, ``struct-`` and 16 hexadecimal digits.

    It depends on the crystal alone: not on the choice of cell (primitive, conventional, reduced, any supercell), the
    order of atoms, a translation, a rotation or a mirror image, oxidation states or site properties. It does depend on
    the scale: the same arrangement with another lattice constant is another input.

    The id hashes the reduced formula and eight numbers, quantised to `QUANTUM`. For each atom the sorted distances to
    its `NEIGHBOURS` nearest atoms of each element form a row; four fixed quasi-random projections turn a row into four
    numbers; the mean and the standard deviation of each over the atoms, and the volume per atom, enter. All are
    continuous invariants of the crystal: sorted distances have no shells to count. Quantising a few projections, rather
    than hundreds of distances, keeps the odds that noise moves one of them across the edge of a bin below 1 % for
    coordinates with six decimals, and irrational weights keep the nice numbers of ideal crystals away from edges.

    Args:
        structure: An ordered crystal, periodic in three directions.

    Raises:
        CandidateError: The structure is empty, disordered, without volume, or its cell is degenerate.

    References:
        Widdowson et al., MATCH Commun. Math. Comput. Chem. 87, 529 (2022), average minimum distances; Widdowson and
        Kurlin, NeurIPS 35, 24625 (2022), pointwise distance distributions, of which these are resolved by element.
    """
    numbers = np.rint(invariants(structure) / QUANTUM).astype(np.int64)
    return _hashed("struct", SCHEME, _reduced_formula(structure), *map(str, numbers.tolist()))


def invariants(structure: Structure) -> FloatArray:
    """Return the eight continuous isometry invariants behind `structure_id`: four means, four deviations.

    Returns:
        Array of shape (8,), Angstrom; crystals that differ by small displacements differ by about as much here.

    Raises:
        CandidateError: As for `structure_id`.
    """
    symbols = _symbols(structure)
    matrix = np.asarray(structure.lattice.matrix, dtype=np.float64)
    if not abs(np.linalg.det(matrix)) > 0.0:
        raise CandidateError("the cell has no volume", structure.formula, "Give three independent lattice vectors.")
    z_of = np.array([site.specie.Z for site in structure], dtype=np.float64)
    elements = sorted(set(symbols), key=lambda symbol: z_of[symbols.index(symbol)])
    fractional, reduced = _in_reduced_cell(structure)
    per_atom = np.zeros((len(symbols), len(_PROJECTIONS)))
    for element in elements:
        members = np.array([symbol == element for symbol in symbols])
        rows = _sorted_distances(fractional, members, reduced)
        per_atom += np.einsum("akm,ak->am", _weights(z_of, float(z_of[members][0])), rows)
    per_atom /= math.sqrt(NEIGHBOURS * len(elements) / 2.0)
    length = math.cbrt(abs(np.linalg.det(matrix)) / len(symbols))
    return np.concatenate([per_atom.mean(axis=0) + length * _length_weights(), per_atom.std(axis=0)])


def same_crystal(a: Structure, b: Structure, tolerances: MatchTolerances = MATERIALS_PROJECT) -> bool:
    """Return whether two structures are the same crystal within tolerances, whatever their volume and cell.

    For the near-duplicates that `structure_id` does not join: other relaxations, roundings or starting volumes of one
    crystal. Costs milliseconds, so the caller compares within one reduced formula only.

    References:
        pymatgen's ``StructureMatcher``, with the tolerances of the Materials Project.
    """
    return bool(_matcher(tolerances, reduce_cells=True).fit(a, b))


def reduced_for_matching(structure: Structure) -> Structure:
    """Return the Niggli-reduced primitive cell that `same_reduced_crystal` compares; compute it once per structure."""
    return structure.get_reduced_structure().get_primitive_structure()


def same_reduced_crystal(a: Structure, b: Structure, tolerances: MatchTolerances = MATERIALS_PROJECT) -> bool:
    """Do what `same_crystal` does, for structures that `reduced_for_matching` has prepared."""
    return len(a) == len(b) and bool(_matcher(tolerances, reduce_cells=False).fit(a, b))


def candidate_id(structure_id: str, level_key: str) -> str:
    """Return the id of a proposed crystal at a level of theory: submitting it twice adds nothing."""
    return _hashed("cand", structure_id, level_key)


def calculation_id(structure_id: str, level_key: str, graph_version: str) -> str:
    """Return the id of one calculation of one crystal at one level: it is computed at most once, whoever asks."""
    return _hashed("calc", structure_id, level_key, graph_version)


def entry_id(calculation_id: str) -> str:
    """Return the id of the only entry that a calculation can have."""
    return "entry-" + hashlib.sha256(calculation_id.encode()).hexdigest()[:16]


def row_id(batch: str, raw_sha256: str, occurrence: int) -> str:
    """Return the id of one row of a batch, readable as a crystal or not.

    Args:
        batch: Name of the batch.
        raw_sha256: Hash of the row's raw bytes.
        occurrence: 0 for the first of identical rows, 1 for the second, and so on.
    """
    return _hashed("row", batch, raw_sha256, str(occurrence))


@dataclass(frozen=True)
class Duplicate:
    """The crystal that another one repeats."""

    key: str
    """The key under which it was added."""
    exact: bool
    """Whether the structure ids agree; else they are near-duplicates within the tolerances."""


@dataclass
class _Known:
    key: str
    structure: Structure
    reduced: Structure | None = None

    def prepared(self) -> Structure:
        """Return the reduced primitive cell, made when first asked for."""
        self.reduced = self.reduced or reduced_for_matching(self.structure)
        return self.reduced


class DuplicateIndex:
    """Crystals seen so far: first by structure id, then by tolerant matching within one reduced formula.

    Seed it from a database with `add`, for the reduced formulas of a batch alone; the cost of a look-up is that of the
    matcher times the crystals of one formula.

    Args:
        tolerances: For near-duplicates; None: exact duplicates only.

    >>> index = DuplicateIndex()
    >>> index.add("cand-1", silicon), index.add("cand-2", silicon_supercell)  # doctest: +SKIP
    (None, Duplicate(key='cand-1', exact=True))
    """

    def __init__(self, tolerances: MatchTolerances | None = MATERIALS_PROJECT) -> None:
        self._tolerances = tolerances
        self._by_id: dict[str, str] = {}
        self._by_formula: defaultdict[str, list[_Known]] = defaultdict(list)

    def __len__(self) -> int:
        return len(self._by_id)

    def find(self, structure: Structure, identity: str | None = None) -> Duplicate | None:
        """Return the crystal that this one repeats, or None.

        Args:
            structure: The crystal.
            identity: Its `structure_id`, when already computed.
        """
        if (key := self._by_id.get(identity or structure_id(structure))) is not None:
            return Duplicate(key, exact=True)
        known = self._by_formula.get(_reduced_formula(structure), ())
        if not known or (tolerances := self._tolerances) is None:
            return None
        prepared = reduced_for_matching(structure)
        near = (other.key for other in known if same_reduced_crystal(prepared, other.prepared(), tolerances))
        return next((Duplicate(key, exact=False) for key in near), None)

    def add(self, key: str, structure: Structure, identity: str | None = None) -> Duplicate | None:
        """Add a crystal unless it repeats one, and return that one."""
        identity = identity or structure_id(structure)
        if (duplicate := self.find(structure, identity)) is None:
            self.add_known(key, structure, identity)
        return duplicate

    def add_known(self, key: str, structure: Structure, identity: str | None = None) -> None:
        """Add a crystal without a look-up: it comes from where duplicates were already dealt with."""
        self._by_id.setdefault(identity or structure_id(structure), key)
        self._by_formula[_reduced_formula(structure)].append(_Known(key, structure))


def image_cloud(fractional: FloatArray, matrix: FloatArray, radius: float) -> FloatArray:
    """Return the periodic images of sites that may lie within a radius of any point of the home cell.

    Args:
        fractional: Fractional coordinates in [0, 1), shape (n, 3).
        matrix: Lattice vectors as rows, Angstrom, shape (3, 3).
        radius: Angstrom.

    Returns:
        Cartesian coordinates, Angstrom, shape (n_images, 3); complete within the radius, with some atoms beyond.

    Raises:
        CandidateError: The cell is so flat that millions of images would be needed.
    """
    per_angstrom = np.linalg.norm(np.linalg.inv(matrix), axis=0)
    reach = np.floor(radius * per_angstrom + 1.0)
    if float(np.prod(2.0 * reach + 1.0)) * len(fractional) > _MAX_IMAGES:
        raise CandidateError("the cell is degenerate: almost flat, or a needle", "", "Check the lattice vectors.")
    axes = [np.arange(-n, n + 1.0) for n in reach]
    shifts = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 1, 3)
    near = np.all((shifts + fractional > -radius * per_angstrom) & (shifts + fractional < 1 + radius * per_angstrom), 2)
    cloud: FloatArray = (shifts + fractional)[near] @ matrix
    return cloud


def _sorted_distances(fractional: FloatArray, members: npt.NDArray[np.bool_], matrix: FloatArray) -> FloatArray:
    """Return each atom's distances to its nearest members, ascending, Angstrom, shape (n_atoms, NEIGHBOURS)."""
    centres, wanted = fractional @ matrix, NEIGHBOURS + 1
    density = int(members.sum()) / abs(float(np.linalg.det(matrix)))
    radius = _RADIUS_MARGIN * math.cbrt(3.0 * wanted / (4.0 * math.pi * density))
    while True:
        cloud = image_cloud(fractional[members], matrix, radius)
        if len(cloud) >= wanted:
            distances, _ = cKDTree(cloud).query(centres, k=wanted)
            if (farthest := float(distances.max())) <= radius:
                break
            radius = farthest * (1.0 + 1e-9)  # an upper bound of the true distance, so one more pass is exact
        else:
            radius *= 2.0
    others: FloatArray = np.where(members[:, None], distances[:, 1:], distances[:, :-1])  # an atom is not its neighbour
    return others


def _in_reduced_cell(structure: Structure) -> tuple[FloatArray, FloatArray]:
    """Return fractional coordinates in [0, 1), shape (n, 3), and the LLL-reduced, hence compact, cell they refer to."""
    reduced = np.asarray(Lattice(structure.lattice.matrix).get_lll_reduced_lattice().matrix, dtype=np.float64)
    fractional = np.linalg.solve(reduced.T, np.asarray(structure.cart_coords, dtype=np.float64).T).T
    return np.asarray(fractional - np.floor(fractional), dtype=np.float64), reduced


def _weights(z_centres: FloatArray, z_neighbour: float) -> FloatArray:
    """Return the projections' weights, shape (n_atoms, NEIGHBOURS, 4), each within [-1, 1]."""
    phases = z_centres * math.sqrt(2.0) + z_neighbour * math.sqrt(3.0)
    weights: FloatArray = np.cos(2.0 * math.pi * (phases[:, None, None] + _rank_phases()))
    return weights


@cache
def _rank_phases() -> FloatArray:
    """Return a phase for each rank and projection, shape (NEIGHBOURS, 4): Weyl's equidistributed k^2 sqrt(p)."""
    ranks = np.arange(1.0, NEIGHBOURS + 1.0)
    return np.stack([np.mod(ranks**2 * math.sqrt(prime), 1.0) for prime in _PROJECTIONS], axis=1)


@cache
def _length_weights() -> FloatArray:
    """Return the weights with which (volume per atom)^(1/3) enters the means, shape (4,)."""
    return np.array([math.sqrt(prime) / 2.0 for prime in _PROJECTIONS])


def _symbols(structure: Structure) -> list[str]:
    """Return the element of each site, without oxidation states."""
    if len(structure) == 0:
        raise CandidateError("the structure has no atoms")
    if not structure.is_ordered:
        raise CandidateError("the structure has partial occupancies", structure.formula, "Give an ordered structure.")
    return [site.specie.symbol for site in structure]


def _reduced_formula(structure: Structure) -> str:
    """Return the formula in its smallest whole numbers, elements in alphabetical order."""
    counts = Counter(_symbols(structure))
    divisor = math.gcd(*counts.values())
    return " ".join(f"{symbol}{count // divisor}" for symbol, count in sorted(counts.items()))


@cache
def _matcher(tolerances: MatchTolerances, *, reduce_cells: bool) -> StructureMatcher:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    return StructureMatcher(
        ltol=tolerances.length, stol=tolerances.site, angle_tol=tolerances.angle, primitive_cell=reduce_cells
    )


def _hashed(prefix: str, *parts: str) -> str:
    """Return ``prefix-`` and a hash of the parts, with their lengths, so that no two lists of parts read the same."""
    text = "".join(f"{len(part)}:{part}," for part in parts)
    return f"{prefix}-{hashlib.sha256(text.encode()).hexdigest()[:_HEX_DIGITS]}"
