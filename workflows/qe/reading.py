"""What the readers of an output's lines share: where they are, and the block of lines that they are in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from hullworks.units import UNITS
from hullworks.workflows.qe.geometry import Geometry
from hullworks.workflows.qe.stdout import Message, Scan, number_after

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

AXES: Final = 3
LARGEST_COUNT: Final = 10**9

Block: TypeAlias = "Callable[[str], bool]"
"""Takes a line of a block that spans several; False when the line is not of the block any more."""


class Reading:
    """The state of a pass over one output; the readers of its parts derive from it."""

    def __init__(self) -> None:
        self.scan = Scan()
        self._line = 0
        self._block: Block | None = None
        self._rows: list[list[float]] = []
        self._texts: list[str] = []
        self._alat_bohr: float | None = None
        self._cell: NDArray[np.float64] | None = None
        self._geometry: Geometry | None = None

    def _message(self, text: str) -> Message:
        return Message(self._line, text)

    @property
    def _alat_A(self) -> float:
        return (self._alat_bohr or np.nan) * UNITS.bohr_to_angstrom

    def _complete(self, positions: NDArray[np.float64] | None) -> Geometry | None:
        if positions is None or self._cell is None:
            return None
        return Geometry(self._cell, tuple(self._texts), positions)


def count_after(text: str, mark: str) -> int | None:
    """Return the first number after ``mark`` as a count; None where there is none, or none that can be true."""
    value = number_after(text, mark)
    return int(value) if value is not None and 0.0 <= value <= LARGEST_COUNT else None
