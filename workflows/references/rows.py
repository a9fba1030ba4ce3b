"""What the formats have in common: one row that may become a reference, or the reason why it does not."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from hullworks.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping


class RefusalCode(StrEnum):
    """Why a row is quarantined.

    UNREADABLE: the file or the row breaks the grammar of its format.
    WRONG_SHAPE: a field is missing or of the wrong type.
    NO_COMPOSITION: no composition, or one that names no elements.
    NOT_FINITE: an energy or uncertainty is NaN or infinite.
    ABSURD: an energy lies outside what its code can give.
    INCONSISTENT: two of its own numbers contradict each other.
    OTHER_LEVEL: its parameters say that it was computed at another level of theory.
    OTHER_SETTINGS: its pseudopotential, U or correction scheme is not that of the level's other rows.
    CONFLICT: its id is known with another content.
    """

    UNREADABLE = "unreadable"
    WRONG_SHAPE = "wrong_shape"
    NO_COMPOSITION = "no_composition"
    NOT_FINITE = "not_finite"
    ABSURD = "absurd"
    INCONSISTENT = "inconsistent"
    OTHER_LEVEL = "other_level"
    OTHER_SETTINGS = "other_settings"
    CONFLICT = "conflict"


_C = RefusalCode

NEXT_STEPS: Final[Mapping[RefusalCode, str]] = MappingProxyType(
    {
        _C.UNREADABLE: "Write the row again with the program that made it.",
        _C.WRONG_SHAPE: "Compare the row with the formats in the documentation of `hullworks references import`.",
        _C.NO_COMPOSITION: "Give a formula of elements of the periodic table.",
        _C.NOT_FINITE: "Leave the row out, or compute it again.",
        _C.ABSURD: "Check the unit (eV per atom), and whether the energy is of a whole cell.",
        _C.INCONSISTENT: "Find out which of the two is right, and write the row again.",
        _C.OTHER_LEVEL: "Import it into a level of its own, or take the entry of this level.",
        _C.OTHER_SETTINGS: "Import it into a level of its own, or compute it again with the level's settings.",
        _C.CONFLICT: "Find out which of the two is right; a known entry changes by retraction or re-correction alone.",
    }
)
"""What the user can do about each."""


class RowRefusedError(InputError):
    """A row cannot become a reference, for a reason that `RefusalCode` names; the import turns it into a `Refusal`."""

    def __init__(self, code: RefusalCode, what: str, where: str = "") -> None:
        super().__init__(what, where, NEXT_STEPS[code])
        self.args = (code, what, where)
        self.code = code


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row stands."""

    file: str
    unit: str
    """``line``, ``item`` or ``file``."""
    number: int
    """Counted from 1."""

    def __str__(self) -> str:
        return self.file if self.unit == "file" else f"{self.file}, {self.unit} {self.number}"


@dataclass(frozen=True, slots=True)
class ReferenceRow:
    """One row, as its format gives it; nothing is judged yet but types.

    Attributes:
        composition: A formula, or atoms per element or species.
        uncorrected: Energy before corrections, eV/atom, or eV per formula as ``is_total`` says.
        parts: Corrections by name, in the same unit.
        sigmas: 1 sigma of each independent source of error by name, in the same unit; without the unknown ones.
        is_total: Energies are of the composition as written, not per atom.
        stated_total: Corrected energy as the row itself adds it up, eV per composition.
        stated_per_atom: The same, eV/atom.
        source_id: The row's own id; empty when it has none.
        parameters: What the row says of how it was computed.
        structure: Structure dictionary, not looked into.
        data: The row's other facts, plain values only.
    """

    composition: str | Mapping[str, float]
    uncorrected: float
    parts: dict[str, float] = field(default_factory=dict)
    sigmas: dict[str, float] = field(default_factory=dict)
    is_total: bool = False
    stated_total: float | None = None
    stated_per_atom: float | None = None
    source_id: str = ""
    name: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    structure: dict[str, Any] | None = None
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A quarantined row."""

    place: Place
    code: RefusalCode
    reason: str
    source_id: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON types."""
        return {
            **asdict(self.place),
            "source_id": self.source_id,
            "code": self.code.value,
            "reason": self.reason,
            "next_step": NEXT_STEPS[self.code],
        }
