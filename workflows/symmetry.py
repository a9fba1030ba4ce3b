"""The questions that are put to spglib, with one answer for "there is none"."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import spglib

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

Cell = tuple[list[list[float]], list[list[float]], list[int]]


def lattice_point_group(vectors: ArrayLike, tolerance_A: float) -> NDArray[np.int64] | None:
    """Return the point group of a lattice as integer matrices on fractional coordinates, shape (n, 3, 3), or None.

    Args:
        vectors: Cell vectors, one per row, Angstrom.
        tolerance_A: Distance within which lattice points count as the same, Angstrom.
    """
    cell: Cell = (np.asarray(vectors).tolist(), [[0.0, 0.0, 0.0]], [1])
    found = None
    with _spglib_of_any_version():
        found = spglib.get_symmetry(cell, symprec=tolerance_A)
    return None if found is None else np.unique(found["rotations"], axis=0).astype(np.int64)


def standard_primitive(
    vectors: ArrayLike, positions: ArrayLike, kinds: Sequence[int], tolerance_A: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], list[int]] | None:
    """Return the primitive cell of a crystal in spglib's standard setting, made exactly symmetric, or None.

    Args:
        vectors: Cell vectors, one per row, Angstrom.
        positions: Fractional positions, shape (n, 3).
        kinds: A number for each kind of atom, length n.
        tolerance_A: Distance within which sites count as symmetric, Angstrom.

    Returns:
        Cell vectors, fractional positions and kinds.
    """
    cell: Cell = (np.asarray(vectors).tolist(), np.asarray(positions).tolist(), list(kinds))
    found = None
    with _spglib_of_any_version():
        found = spglib.standardize_cell(cell, to_primitive=True, no_idealize=False, symprec=tolerance_A)
    return None if found is None else (np.asarray(found[0]), np.asarray(found[1]), [int(kind) for kind in found[2]])


def space_group(
    vectors: ArrayLike, positions: ArrayLike, kinds: Sequence[int], tolerance_A: float
) -> tuple[str, int] | None:
    """Return the space group of a crystal, as its international symbol and its number, or None.

    Args:
        vectors: Cell vectors, one per row, Angstrom.
        positions: Fractional positions, shape (n, 3).
        kinds: A number for each kind of atom, length n.
        tolerance_A: Distance within which sites count as symmetric, Angstrom.
    """
    cell: Cell = (np.asarray(vectors).tolist(), np.asarray(positions).tolist(), list(kinds))
    found = None
    with _spglib_of_any_version():
        found = spglib.get_symmetry_dataset(cell, symprec=tolerance_A)
    return None if found is None else (str(found.international), int(found.number))


@contextmanager
def _spglib_of_any_version() -> Iterator[None]:
    """Spglib returns None and warns up to 2.8, and raises later, when it finds nothing."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Set OLD_ERROR_HANDLING", category=DeprecationWarning)
        try:
            yield
        except spglib.SpglibError:
            return
