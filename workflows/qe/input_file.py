"""What the parser needs of a pw.x input file: its keywords, its k points, and its geometry."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from hullworks.units import UNITS
from hullworks.workflows.qe.geometry import Geometry
from hullworks.workflows.qe.stdout import numbers

_KEYWORD = re.compile(r"([A-Za-z]\w*(?:\(\d+\))?)\s*=\s*('[^']*'|\"[^\"]*\"|[^,\s!]+)")
_CARDS: Final = ("ATOMIC_SPECIES", "ATOMIC_POSITIONS", "CELL_PARAMETERS", "K_POINTS")
_AXES: Final = 3
_GRID: Final = 6


@dataclass(frozen=True)
class InputFile:
    """Keywords of all namelists, with lower-case names and unquoted values, and the cards' lines.

    Args:
        keywords: From name to value, as text.
        cards: From card to its lines, the first of them the card's own.
    """

    keywords: dict[str, str] = field(default_factory=dict)
    cards: dict[str, list[str]] = field(default_factory=dict)

    @property
    def k_grid(self) -> tuple[int, ...] | None:
        """Monkhorst-Pack divisions and shifts, six numbers; None for any other choice of k points."""
        lines = self.cards.get("K_POINTS", [])
        values = numbers(lines[1]) if len(lines) > 1 and "automatic" in lines[0].lower() else []
        return tuple(int(value) for value in values[:_GRID]) if len(values) >= _GRID else None

    @property
    def pseudo_files(self) -> dict[str, str]:
        """From atomic label to file name."""
        rows = [line.split() for line in self.cards.get("ATOMIC_SPECIES", [])[1:]]
        return {row[0]: row[2] for row in rows if len(row) >= _AXES}

    def geometry(self) -> Geometry | None:
        """Return the input's geometry when the cell is written out (``ibrav=0``), else None."""
        cell = self._matrix("CELL_PARAMETERS")
        rows = [line.split() for line in self.cards.get("ATOMIC_POSITIONS", [])[1:]]
        rows = [row for row in rows if len(row) > _AXES]
        positions = [numbers(" ".join(row[1 : 1 + _AXES])) for row in rows]
        if cell is None or not rows or any(len(position) != _AXES for position in positions):
            return None
        unit = self.cards["ATOMIC_POSITIONS"][0].lower()
        values = np.array(positions)
        cartesian = values @ cell if "crystal" in unit else values * self._unit_A(unit, default="alat")
        return Geometry(cell, tuple(row[0] for row in rows), cartesian)

    def _matrix(self, card: str) -> np.ndarray[tuple[int, int], np.dtype[np.float64]] | None:
        lines = self.cards.get(card, [])
        rows = [numbers(line) for line in lines[1 : 1 + _AXES]]
        if len(rows) != _AXES or any(len(row) != _AXES for row in rows):
            return None
        scaled: np.ndarray[tuple[int, int], np.dtype[np.float64]] = np.array(rows) * self._unit_A(lines[0].lower())
        return scaled

    def _unit_A(self, header: str, default: str = "bohr") -> float:
        unit = next((name for name in ("angstrom", "bohr", "alat") if name in header), default)
        alat_bohr = numbers(self.keywords.get("celldm(1)", ""))
        alat_A = numbers(self.keywords.get("a", ""))
        alat = alat_A[0] if alat_A else (alat_bohr[0] if alat_bohr else np.nan) * UNITS.bohr_to_angstrom
        return {"angstrom": 1.0, "bohr": UNITS.bohr_to_angstrom, "alat": alat}[unit]


def read_input(text: str) -> InputFile:
    """Read an input file; what cannot be read is left out."""
    found = InputFile()
    card = ""
    for line in (raw.partition("!")[0].strip() for raw in text.splitlines()):
        first = line.split(maxsplit=1)[0].upper().rstrip("{(") if line else ""
        if first.startswith("&"):
            card = ""
        elif first in _CARDS:
            card = first
        if card and line and not line.startswith("#"):
            found.cards.setdefault(card, []).append(line)
        elif not card:
            found.keywords.update((name.lower(), value.strip("'\"")) for name, value in _KEYWORD.findall(line))
    return found
