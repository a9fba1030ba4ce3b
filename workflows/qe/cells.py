"""Cells before a run: what pw.x cannot calculate is refused here, and noise that hides a symmetry is removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pymatgen.analysis.molecule_structure_comparator import CovalentRadius
from pymatgen.core import Lattice, Structure

from hullworks.elements import ELEMENTS_AND_ISOTOPES
from hullworks.errors import InputError
from hullworks.workflows.qe.protocols import CellRule, cell_rule
from hullworks.workflows.symmetry import standard_primitive

if TYPE_CHECKING:
    from numpy.typing import NDArray

_RADII_A: dict[str, float] = CovalentRadius.radius


def check_structure(structure: Structure, rule: CellRule | None = None) -> None:
    """Refuse a structure that pw.x cannot calculate, or calculates without a word though it makes no sense.

    Args:
        structure: The structure.
        rule: Limits; by default those of ``protocols.yaml``.

    Raises:
        InputError: No atoms, sites that are not one whole atom, a number that is not finite, a cell that is singular or
            too small for its atoms, or atoms that overlap.
    """
    limits = rule or cell_rule()
    where = structure.composition.reduced_formula if len(structure) else "empty structure"
    _check_sites(structure, where)
    _check_cell(structure, where, limits)
    _check_distances(structure, where, limits)


def right_handed(structure: Structure) -> Structure:
    """Return the same crystal with right-handed cell vectors: all of them, and all positions, inverted if need be."""
    if np.linalg.det(structure.lattice.matrix) > 0.0:
        return structure
    return Structure(Lattice(-structure.lattice.matrix), structure.species, -structure.frac_coords)


def primitive_cell(structure: Structure, tolerance_A: float | None = None) -> Structure:
    """Return the primitive cell with its symmetry exact, in spglib's standard setting.

    Coordinates with five decimals keep 8 of the 24 symmetries of a hexagonal close-packed metal and cost twice the
    k-points, and a relaxation does not find the others again. Nothing moves further than the tolerance.

    Args:
        structure: An ordered structure.
        tolerance_A: Distance within which sites count as symmetric, Angstrom; by default that of ``protocols.yaml``.

    Returns:
        A new structure without site properties; the given one when no symmetry is found.
    """
    tolerance = cell_rule().symmetry_tolerance_A if tolerance_A is None else tolerance_A
    symbols = sorted({site.specie.symbol for site in structure})
    kinds = [symbols.index(site.specie.symbol) for site in structure]
    found = standard_primitive(structure.lattice.matrix, structure.frac_coords, kinds, tolerance)
    if found is None:
        return structure
    matrix, positions, numbers = found
    return Structure(Lattice(matrix), [symbols[number] for number in numbers], positions)


def fractional(structure: Structure, decimals: int) -> NDArray[np.float64]:
    """Return fractional positions in [0, 1), rounded, shape (n_atoms, 3); neither -0 nor 1 occurs."""
    inside: NDArray[np.float64] = np.round(np.asarray(structure.frac_coords, dtype=float) % 1.0, decimals) % 1.0
    return inside + 0.0


def _check_sites(structure: Structure, where: str) -> None:
    if not len(structure):
        raise InputError("the structure has no atoms", where)
    if not structure.is_ordered:
        raise InputError("a site is shared or partly occupied", where, "Give an ordered structure.")
    unknown = sorted({site.specie.symbol for site in structure if site.specie.symbol not in ELEMENTS_AND_ISOTOPES})
    if unknown:
        raise InputError(f"not an element: {', '.join(unknown)}", where)
    if not (np.all(np.isfinite(structure.lattice.matrix)) and np.all(np.isfinite(structure.frac_coords))):
        raise InputError("a cell vector or a position is not a finite number", where)


def _check_cell(structure: Structure, where: str, limits: CellRule) -> None:
    volume = structure.volume / len(structure)
    if volume < limits.min_volume_per_atom_A3:
        what = f"the cell has {volume:.3g} A^3 per atom; it is singular or far too small"
        raise InputError(what, where, "Check the cell vectors.")


def _check_distances(structure: Structure, where: str, limits: CellRule) -> None:
    symbols = [site.specie.symbol for site in structure]
    largest = max(_RADII_A.get(symbol, 0.0) for symbol in symbols)
    reach = max(2.0 * largest * limits.min_distance_share, limits.min_distance_A)
    first, second, _, distances = structure.get_neighbor_list(reach, exclude_self=True)
    for i, j, distance in zip(first, second, distances, strict=True):
        least = _least_distance(symbols[i], symbols[j], limits)
        if distance < least:
            pair = f"atoms {i + 1} ({symbols[i]}) and {j + 1} ({symbols[j]})"
            what = f"{pair} are {distance:.2f} A apart, less than {least:.2f} A"
            raise InputError(what, where, "They overlap; correct the positions or drop the structure.")


def _least_distance(one: str, other: str, limits: CellRule) -> float:
    """Return the least distance of two elements, Angstrom."""
    if one not in _RADII_A or other not in _RADII_A:
        return limits.min_distance_A
    return limits.min_distance_share * (_RADII_A[one] + _RADII_A[other])
