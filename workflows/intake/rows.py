"""What intake yields: one `IntakeRow` per row of the input, with a candidate or with the problem that it has."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Self

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from hullworks.errors import CandidateError
from hullworks.states import Role

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pymatgen.core.structure import Structure

SNIPPET_LENGTH: Final = 200
"""Characters of a raw row that a problem shows: enough to recognise the row, little enough for a table."""


class ProblemCode(StrEnum):
    """Why a row cannot be read as a crystal.

    UNREADABLE: the file cannot be opened or read to its end.
    EMPTY: the file, folder or row holds nothing.
    NOT_TEXT: the bytes are not UTF-8 text.
    BAD_COMPRESSION: the file says that it is compressed and does not decompress.
    UNKNOWN_FORMAT: neither the name nor the content tells the format.
    TOO_LONG: the row or file is beyond the limit of bytes; it was skipped, not read.
    SYNTAX: the text breaks the grammar of its format.
    WRONG_SHAPE: the grammar is right, a field is missing, unknown or of the wrong type.
    NO_STRUCTURE: there is no crystal structure in it.
    NOT_PERIODIC: the structure is not periodic in three directions.
    NOT_FINITE: a lattice vector or coordinate is NaN, infinite or absurdly large.
    NO_VOLUME: the lattice vectors span no volume.
    UNKNOWN_ELEMENT: a site holds no element of the periodic table.
    DISORDERED: a site is partially or multiply occupied.
    OVERLAP: two atoms share one place.
    FORMULA_MISMATCH: the sites do not add up to the formula beside them; often hydrogens are missing.
    TOO_MANY_ATOMS: the cell is beyond the limit of atoms.
    BAD_PREDICTION: the prediction is not a set of finite numbers, or its uncertainty is negative.
    """

    UNREADABLE = "unreadable"
    EMPTY = "empty"
    NOT_TEXT = "not_text"
    BAD_COMPRESSION = "bad_compression"
    UNKNOWN_FORMAT = "unknown_format"
    TOO_LONG = "too_long"
    SYNTAX = "syntax"
    WRONG_SHAPE = "wrong_shape"
    NO_STRUCTURE = "no_structure"
    NOT_PERIODIC = "not_periodic"
    NOT_FINITE = "not_finite"
    NO_VOLUME = "no_volume"
    UNKNOWN_ELEMENT = "unknown_element"
    DISORDERED = "disordered"
    OVERLAP = "overlap"
    FORMULA_MISMATCH = "formula_mismatch"
    TOO_MANY_ATOMS = "too_many_atoms"
    BAD_PREDICTION = "bad_prediction"


_C = ProblemCode

NEXT_STEPS: Final[Mapping[ProblemCode, str]] = MappingProxyType(
    {
        _C.UNREADABLE: "Check that the file is an ordinary file that you may read, and submit it again.",
        _C.EMPTY: "Give a file with at least one structure.",
        _C.NOT_TEXT: "Save the file as UTF-8 text.",
        _C.BAD_COMPRESSION: "Compress the file again with gzip, or give it uncompressed.",
        _C.UNKNOWN_FORMAT: "Name the file .jsonl, .json, .cif, .vasp, .extxyz or .csv (with .gz if compressed).",
        _C.TOO_LONG: "Check for rows glued together; write one structure per row, without trajectories or arrays.",
        _C.SYNTAX: "Write the row again with the program that made it.",
        _C.WRONG_SHAPE: "Compare the row with the example in the documentation of submit.",
        _C.NO_STRUCTURE: "Give a structure; bare formulas are not expanded.",
        _C.NOT_PERIODIC: "Give a crystal with three lattice vectors.",
        _C.NOT_FINITE: "Write the structure again; its source holds numbers that failed.",
        _C.NO_VOLUME: "Give three independent lattice vectors, in Angstrom.",
        _C.UNKNOWN_ELEMENT: "Name each site by an element of the periodic table.",
        _C.DISORDERED: "Give an ordered structure, for instance one of its ordered approximants.",
        _C.OVERLAP: "Remove doubled sites, and check the unit of the coordinates.",
        _C.FORMULA_MISMATCH: "Add the missing sites (hydrogens?), or correct the formula.",
        _C.TOO_MANY_ATOMS: "Give the primitive cell, or a smaller approximant.",
        _C.BAD_PREDICTION: "Give finite numbers in eV/atom and an uncertainty that is not negative, or leave them out.",
    }
)
"""What the user can do about each problem."""


class RowProblemError(CandidateError):
    """A row cannot be used, for a reason that `ProblemCode` names; intake turns it into a `Problem`."""

    def __init__(self, code: ProblemCode, what: str, where: str = "") -> None:
        super().__init__(what, where, NEXT_STEPS[code])
        self.args = (code, what, where)
        self.code = code


@dataclass(frozen=True)
class Problem:
    """Why a row was quarantined."""

    code: ProblemCode
    reason: str
    """One clause, with the numbers concerned."""
    snippet: str = ""
    """The start of the raw row, at most `SNIPPET_LENGTH` printable characters."""

    @property
    def next_step(self) -> str:
        """What the user can do about it."""
        return NEXT_STEPS[self.code]


class Prediction(BaseModel):
    """What a model predicted for a crystal; every field may be missing, and unknown fields are kept.

    >>> Prediction(e_above_hull=0.021, uncertainty=0.03, uncertainty_kind="std", model="chgnet").uncertainty
    0.03
    """

    model_config = ConfigDict(
        extra="allow", frozen=True, allow_inf_nan=False, populate_by_name=True, protected_namespaces=()
    )

    e_above_hull: float | None = Field(
        None, validation_alias=AliasChoices("e_above_hull", "e_above_hull_eV_per_atom", "predicted_e_hull")
    )
    """Predicted energy above the hull that the model was judged against, eV/atom; negative: below it."""
    formation_energy: float | None = Field(
        None, validation_alias=AliasChoices("formation_energy", "e_form_eV_per_atom", "predicted_e_form")
    )
    """Predicted formation energy, eV/atom."""
    energy_per_atom: float | None = None
    """Predicted total energy in the model's own zero, eV/atom."""
    uncertainty: float | None = Field(
        None, ge=0.0, validation_alias=AliasChoices("uncertainty", "uncertainty_eV_per_atom")
    )
    """Of the predicted energy, eV/atom."""
    uncertainty_kind: str | None = Field(None, pattern="^(std|iqr)$")
    """``std`` (standard deviation) or ``iqr`` (interquartile range)."""
    ensemble: tuple[float, ...] | None = None
    """The members' predictions, eV/atom."""
    model: str | None = Field(None, validation_alias=AliasChoices("model", "model_id"))
    """Which model."""
    model_version: str | None = None
    """Which version of it."""
    hull: str | None = Field(None, validation_alias=AliasChoices("hull", "hull_id"))
    """Which hull ``e_above_hull`` refers to."""

    @model_validator(mode="after")
    def _extra_numbers_are_finite(self) -> Self:
        for name, value in (self.model_extra or {}).items():
            if isinstance(value, float) and not math.isfinite(value):
                msg = f"{name} is not a finite number"
                raise ValueError(msg)
        return self

    def as_dict(self) -> dict[str, Any]:
        """Return what is known, without the missing fields."""
        return self.model_dump(exclude_none=True)


@dataclass(frozen=True)
class CandidateInput:
    """One readable row: a crystal and what came with it."""

    structure: Structure
    """Ordered, periodic, without oxidation states; ``magmom`` is the only site property kept."""
    name: str
    """The row's own name, or one made from its file and place; not necessarily unique."""
    role: Role = Role.CANDIDATE
    prediction: Prediction = field(default_factory=Prediction)
    source: str = ""
    """How it was proposed: substitution, SAPS, AIRSS, generative, ..."""
    parent: str = ""
    """The structure that it was derived from."""
    licence: str = ""
    """Licence of the structure and its prediction."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """The row's other fields, as plain JSON values."""


@dataclass(frozen=True)
class IntakeRow:
    """One row of the input, whatever became of it."""

    path: Path
    """The file (or folder, when it is empty) that the row stands in."""
    unit: str
    """What a row is in this file: ``line``, ``item``, ``block``, ``frame`` or ``file``."""
    number: int
    """Place in the file, counted from 1; 1 for the unit ``file``."""
    raw_sha256: str
    """Hash of the row's raw bytes, 64 hexadecimal digits."""
    occurrence: int
    """How many rows with the same raw bytes came before this one."""
    content: CandidateInput | Problem
    warnings: tuple[str, ...] = ()
    """What the readers remarked."""

    @property
    def candidate(self) -> CandidateInput | None:
        """The candidate, or None when the row was quarantined."""
        return self.content if isinstance(self.content, CandidateInput) else None

    @property
    def problem(self) -> Problem | None:
        """The problem, or None when the row was read."""
        return self.content if isinstance(self.content, Problem) else None

    @property
    def where(self) -> str:
        """The place in words, such as ``batch.jsonl, line 7``."""
        return str(self.path) if self.unit == "file" else f"{self.path}, {self.unit} {self.number}"


def snippet(raw: bytes) -> str:
    """Return the start of a raw row as printable characters, others escaped, at most `SNIPPET_LENGTH` long."""
    text = raw[:SNIPPET_LENGTH].decode("utf-8", "backslashreplace")
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    return shown if len(shown) <= SNIPPET_LENGTH else shown[: SNIPPET_LENGTH - 1] + "…"
