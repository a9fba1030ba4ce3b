"""Parameters of Goedecker-Teter-Hutter pseudopotentials, read from the table beside this module."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import yaml

from hullworks.errors import PseudopotentialError

TABLE_NAME = "gth_pbe.yaml"


@dataclass(frozen=True)
class GthChannel:
    """The separable projectors of one angular momentum.

    Attributes:
        angular_momentum: The quantum number l.
        radius_bohr: The radius r_l.
        h_hartree: Upper triangle of the symmetric matrix h_ij, row by row, in hartree.
    """

    angular_momentum: int
    radius_bohr: float
    h_hartree: tuple[float, ...]

    @property
    def size(self) -> int:
        """Number of projectors n, from the n (n + 1) / 2 entries of the triangle."""
        size = 0
        while size * (size + 1) // 2 < len(self.h_hartree):
            size += 1
        return size

    def matrix(self) -> tuple[tuple[float, ...], ...]:
        """Return the full symmetric matrix h_ij in hartree, shape (size, size)."""
        n = self.size
        upper = iter(self.h_hartree)
        h = [[0.0] * n for _ in range(n)]
        for i in range(n):
            for j in range(i, n):
                h[i][j] = h[j][i] = next(upper)
        return tuple(tuple(row) for row in h)


@dataclass(frozen=True)
class GthParameters:
    """One published pseudopotential.

    Attributes:
        element: Chemical symbol.
        atomic_number: Charge of the bare nucleus.
        electrons: Numbers of s, p, d, f valence electrons.
        local_radius_bohr: The radius r_loc.
        local_hartree: Coefficients C1..C4 of the local part, in hartree.
        channels: The projectors, one entry per angular momentum that has any.
    """

    element: str
    atomic_number: int
    electrons: tuple[int, ...]
    local_radius_bohr: float
    local_hartree: tuple[float, ...]
    channels: tuple[GthChannel, ...]

    @property
    def valence(self) -> int:
        """Number of valence electrons, q."""
        return sum(self.electrons)

    @property
    def name(self) -> str:
        """The usual name, such as ``Mg-q2``."""
        return f"{self.element}-q{self.valence}"


@lru_cache(maxsize=1)
def _table() -> dict[str, Any]:
    text = files(__package__).joinpath(TABLE_NAME).read_text(encoding="utf-8")
    table: dict[str, Any] = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both safe
    return table


def gth_elements() -> tuple[str, ...]:
    """Return the symbols of all elements in the table, by atomic number."""
    return tuple(_table())


def gth_valences(element: str) -> tuple[int, ...]:
    """Return the valences q that the table holds for an element, smallest first.

    Raises:
        PseudopotentialError: The table does not know the element.
    """
    return tuple(key for key in _element(element) if isinstance(key, int))


def gth_parameters(element: str, valence: int | None = None) -> GthParameters:
    """Return the parameters of one element.

    Args:
        element: Chemical symbol.
        valence: Number of valence electrons; None takes the table's default.

    Raises:
        PseudopotentialError: The table does not know the element or the valence.
    """
    entry = _element(element)
    q = entry["default"] if valence is None else valence
    if q not in gth_valences(element):
        known = ", ".join(map(str, gth_valences(element)))
        what = f"no GTH-PBE parameters for {element} with {q} valence electrons"
        raise PseudopotentialError(what, TABLE_NAME, f"Known valences: {known}")
    return _parameters(element, entry["atomic_number"], entry[q])


def _element(element: str) -> dict[Any, Any]:
    try:
        entry: dict[Any, Any] = _table()[element]
    except KeyError:
        what = f"no GTH-PBE parameters for {element}"
        raise PseudopotentialError(what, TABLE_NAME, "Use a family of UPF files that has it") from None
    return entry


def _parameters(element: str, atomic_number: int, raw: dict[str, Any]) -> GthParameters:
    rows = enumerate(raw["projectors"])
    channels = (GthChannel(momentum, float(r), tuple(map(float, h))) for momentum, (r, *h) in rows if h)
    return GthParameters(
        element=element,
        atomic_number=atomic_number,
        electrons=tuple(raw["electrons"]),
        local_radius_bohr=float(raw["local"][0]),
        local_hartree=tuple(map(float, raw["local"][1:])),
        channels=tuple(channels),
    )
