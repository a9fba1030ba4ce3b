"""From lattice, elements and coordinates to a structure that is a crystal, or to the reason why it is none."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from pymatgen.core.lattice import Lattice
from pymatgen.core.structure import Structure

from hullworks.elements import ELEMENTS_AND_ISOTOPES, ISOTOPES
from hullworks.workflows.intake.rows import ProblemCode, RowProblemError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from hullworks.workflows.intake.limits import Limits

    FloatArray = npt.NDArray[np.float64]

_ION: Final = re.compile(r"([A-Z][a-z]?)(?:\d*\.?\d*[+-])?(?:,spin=-?\d+\.?\d*)?")
_LONGEST_LABEL: Final = 20
"""Characters; ``Fe2.5+,spin=-4.5`` has 17."""

_PARAMETERS: Final = ("a", "b", "c", "alpha", "beta", "gamma")
_FLAT: Final = 180.0
_NO_VOLUME: Final = 1e-10
"""Squared volume of a cell with unit lengths that is zero but for rounding."""

_FULL: Final = 1e-3
"""How far an occupancy may be from 1: files round to three or four decimals."""

_MAX_MOMENT: Final = 20.0
"""Magnetic moments beyond this, Bohr magnetons per site, are no moments: the largest atomic one is 10.6 (Dy, Ho)."""

_SAME_BLOCK: Final = np.stack(np.meshgrid(*[np.arange(-1.0, 2.0)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
"""The 27 lattice translations that hold the shortest vector of a reduced cell; the zero vector is row 13."""


class Contact(NamedTuple):
    """The contact that is shortest in units of its covalent radii."""

    fraction: float
    """Distance over the sum of covalent radii."""
    distance: float
    """Angstrom."""
    first: int
    """Index of a site."""
    second: int
    """Index of the other site; the same when the contact is with a periodic image."""


def build_crystal(
    matrix: FloatArray,
    symbols: Sequence[str],
    fractional: FloatArray,
    limits: Limits,
    moments: Sequence[Any] | None = None,
) -> Structure:
    """Return the structure, or raise the first reason why the parts make no crystal.

    Args:
        matrix: Lattice vectors as rows, Angstrom, shape (3, 3).
        symbols: Elements, charges allowed (``Fe3+``) and dropped, isotopes of hydrogen as H.
        fractional: Fractional coordinates, shape (n, 3); wrapped into the cell.
        limits: What to refuse.
        moments: Magnetic moments of the sites, Bohr magnetons; kept when all are sane numbers.

    Raises:
        RowProblemError: Empty, too many atoms, not finite, no volume, unknown element, or overlapping atoms.
    """
    _check_numbers(matrix, fractional, limits)
    elements = [element_symbol(symbol) for symbol in symbols]
    properties = {"magmom": kept} if moments is not None and (kept := _sane_moments(moments)) else None
    structure = Structure(Lattice(matrix), elements, fractional - np.floor(fractional), site_properties=properties)
    contact = closest_contact(structure, limits)
    if contact.fraction < limits.overlap_fraction:
        first, second = elements[contact.first], elements[contact.second]
        raise RowProblemError(
            ProblemCode.OVERLAP,
            f"sites {contact.first + 1} ({first}) and {contact.second + 1} ({second}) are {contact.distance:.3f} A "
            f"apart, {contact.fraction:.2f} of the sum of their covalent radii (limit {limits.overlap_fraction})",
        )
    return structure


def normalised(structure: Structure, limits: Limits) -> Structure:
    """Return a structure that another reader made, checked and stripped as `build_crystal` does.

    Raises:
        RowProblemError: As `build_crystal`; also for partial occupancies.
    """
    for number, site in enumerate(structure, start=1):
        if len(site.species) != 1 or abs(site.species.num_atoms - 1.0) > _FULL:
            raise RowProblemError(ProblemCode.DISORDERED, f"site {number} is occupied by {site.species_string}")
    symbols = [next(iter(site.species)).symbol for site in structure]
    matrix = np.array(structure.lattice.matrix, dtype=np.float64)
    fractional = np.array(structure.frac_coords, dtype=np.float64).reshape(-1, 3)
    return build_crystal(matrix, symbols, fractional, limits, structure.site_properties.get("magmom"))


def crystal_from_dict(data: Mapping[str, Any], limits: Limits) -> Structure:
    """Return the crystal in a dictionary of the form that pymatgen's ``Structure.as_dict`` writes.

    Only lattice, species, coordinates and ``magmom`` are read: nothing in the row can name a class to be imported.

    Raises:
        RowProblemError: The dictionary has another form, or holds no crystal.
    """
    try:
        matrix, sites = _lattice(data["lattice"]), data["sites"]
        if len(sites) > limits.max_atoms:
            raise _too_many(len(sites), limits)
        symbols = [_only_species(site, number) for number, site in enumerate(sites, start=1)]
        coordinates = _coordinates(matrix, sites, limits)
        moments = [(site.get("properties") or {}).get("magmom") for site in sites]
    except RowProblemError:  # a ValueError too, and already with its reason
        raise
    except KeyError as error:
        raise RowProblemError(ProblemCode.WRONG_SHAPE, f"the structure has no {error}") from error
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        what = f"the structure is not as pymatgen writes it: {error}"
        raise RowProblemError(ProblemCode.WRONG_SHAPE, what) from error
    return build_crystal(matrix, symbols, coordinates, limits, moments)


def element_symbol(text: str) -> str:
    """Return the element that a site's label names, such as ``Fe`` for ``Fe3+``.

    Raises:
        RowProblemError: It names none.
    """
    match = _ION.fullmatch(text) if len(text) <= _LONGEST_LABEL else None
    if match is None or match[1] not in ELEMENTS_AND_ISOTOPES:
        raise RowProblemError(ProblemCode.UNKNOWN_ELEMENT, f"{text[:20]!r} is not an element")
    return ISOTOPES.get(match[1], match[1])


def closest_contact(structure: Structure, limits: Limits) -> Contact:
    """Return the shortest contact between atoms, periodic images included, relative to their covalent radii."""
    distances = contact_distances(structure)
    radii = np.array([limits.covalent_radius(site.specie.symbol) for site in structure])
    fractions = distances / (radii[:, None] + radii[None, :])
    first, second = np.unravel_index(int(fractions.argmin()), fractions.shape)
    return Contact(float(fractions[first, second]), float(distances[first, second]), int(first), int(second))


def contact_distances(structure: Structure) -> FloatArray:
    """Return the shortest distances between sites over all images, Angstrom, shape (n, n).

    The diagonal holds the distance of an atom to its own nearest image: the shortest lattice vector.
    """
    lattice = structure.lattice
    distances = np.array(lattice.get_all_distances(structure.frac_coords, structure.frac_coords), dtype=np.float64)
    lengths = np.linalg.norm(_SAME_BLOCK @ lattice.get_lll_reduced_lattice().matrix, axis=1)
    np.fill_diagonal(distances, np.delete(lengths, 13).min())
    return distances


def lattice_from_parameters(parameters: Sequence[float]) -> FloatArray:
    """Return the lattice vectors, Angstrom, shape (3, 3), of three lengths in Angstrom and three angles in degrees.

    Raises:
        RowProblemError: A parameter is not finite, or no cell with a volume has these parameters.
    """
    lengths, angles = np.array(parameters[:3], dtype=np.float64), np.array(parameters[3:], dtype=np.float64)
    if not (np.isfinite(lengths).all() and np.isfinite(angles).all()):
        raise RowProblemError(ProblemCode.NOT_FINITE, "a lattice parameter is not finite")
    cosines = np.cos(np.radians(angles))
    squared_volume = 1.0 - float((cosines**2).sum()) + 2.0 * float(cosines.prod())  # of the cell with unit lengths
    if (lengths <= 0.0).any() or (angles <= 0.0).any() or (angles >= _FLAT).any() or squared_volume <= _NO_VOLUME:
        raise RowProblemError(ProblemCode.NO_VOLUME, f"no cell has the parameters {', '.join(map(str, parameters))}")
    return np.array(Lattice.from_parameters(*lengths, *angles).matrix, dtype=np.float64)


def _check_numbers(matrix: FloatArray, fractional: FloatArray, limits: Limits) -> None:
    if len(fractional) == 0:
        raise RowProblemError(ProblemCode.NO_STRUCTURE, "the structure has no atoms")
    if len(fractional) > limits.max_atoms:
        raise _too_many(len(fractional), limits)
    _check_lattice(matrix, limits)
    bad = ~(np.abs(fractional) <= limits.max_fractional_coordinate).all(axis=1)
    if bad.any():
        raise RowProblemError(
            ProblemCode.NOT_FINITE, f"site {int(bad.argmax()) + 1} has a coordinate that is NaN, infinite or absurd"
        )
    volume = abs(float(np.linalg.det(matrix))) / len(fractional)
    if volume < limits.min_volume_per_atom:
        raise RowProblemError(
            ProblemCode.NO_VOLUME,
            f"the cell has {volume:.3g} cubic Angstrom per atom (limit {limits.min_volume_per_atom})",
        )


def _check_lattice(matrix: FloatArray, limits: Limits) -> None:
    if not (np.abs(matrix) <= limits.max_cell_length).all():
        what = f"a lattice vector is not finite, or beyond {limits.max_cell_length} A"
        raise RowProblemError(ProblemCode.NOT_FINITE, what)


def _too_many(n_atoms: int, limits: Limits) -> RowProblemError:
    return RowProblemError(ProblemCode.TOO_MANY_ATOMS, f"the cell has {n_atoms} atoms (limit {limits.max_atoms})")


def _lattice(data: Any) -> FloatArray:  # noqa: ANN401 - any JSON value
    if isinstance(data, dict):
        if not all(data.get("pbc") or (True,)):
            raise RowProblemError(ProblemCode.NOT_PERIODIC, f"pbc is {data['pbc']}")
        if "matrix" not in data:
            return lattice_from_parameters([float(data[key]) for key in _PARAMETERS])
        data = data["matrix"]
    return np.array(data, dtype=np.float64).reshape(3, 3)


def _only_species(site: Mapping[str, Any], number: int) -> str:
    species = site["species"]
    if len(species) != 1 or abs(float(species[0].get("occu", 1)) - 1.0) > _FULL:
        text = ", ".join(f"{item['element']}: {item.get('occu')}"[:40] for item in species[:5])
        raise RowProblemError(ProblemCode.DISORDERED, f"site {number} is occupied by {text or 'nothing'}")
    symbol = species[0]["element"]
    if not isinstance(symbol, str):
        raise RowProblemError(ProblemCode.UNKNOWN_ELEMENT, f"site {number} names no element")
    return symbol


def _coordinates(matrix: FloatArray, sites: Sequence[Mapping[str, Any]], limits: Limits) -> FloatArray:
    """Return fractional coordinates from ``abc``, or from ``xyz`` when a site has no ``abc``."""
    if all("abc" in site for site in sites):
        return np.array([site["abc"] for site in sites], dtype=np.float64).reshape(-1, 3)
    cartesian = np.array([site["xyz"] for site in sites], dtype=np.float64).reshape(-1, 3)
    return fractional_of(cartesian, matrix, limits)


def fractional_of(cartesian: FloatArray, matrix: FloatArray, limits: Limits) -> FloatArray:
    """Return fractional coordinates, shape (n, 3), of Cartesian ones in Angstrom.

    Raises:
        RowProblemError: The lattice is not finite, or has no volume.
    """
    _check_lattice(matrix, limits)
    if not abs(np.linalg.det(matrix)) > 0.0:
        raise RowProblemError(ProblemCode.NO_VOLUME, "the lattice vectors span no volume")
    return np.asarray(np.linalg.solve(matrix.T, cartesian.T).T, dtype=np.float64)


def _sane_moments(moments: Sequence[Any]) -> list[float] | None:
    """Return the moments when every site has a finite, believable one."""
    if all(isinstance(moment, int | float) and abs(moment) <= _MAX_MOMENT for moment in moments):
        return [float(moment) for moment in moments]
    return None
