"""Crystals in POSCAR files, one per file."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, BinaryIO

from hullworks.workflows.intake.cif import PARSER_FAILURES
from hullworks.workflows.intake.crystal import normalised
from hullworks.workflows.intake.fields import candidate
from hullworks.workflows.intake.pieces import Piece, piece, text_of, whole
from hullworks.workflows.intake.rows import ProblemCode, RowProblemError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hullworks.workflows.intake.limits import Limits
    from hullworks.workflows.intake.rows import CandidateInput


def split(stream: BinaryIO, limits: Limits) -> Iterator[Piece]:
    """Yield the file as its one row."""
    yield piece("file", 1, whole(stream, limits.max_row_bytes))


def parse(row: Piece, default_name: str, limits: Limits) -> tuple[CandidateInput, tuple[str, ...]]:
    """Return the candidate of one POSCAR, and the reader's remarks.

    Raises:
        RowProblemError: The file holds no crystal, or does not name its elements.
    """
    from pymatgen.io.vasp.inputs import Poscar  # loads half of scipy, which no worker needs

    text = text_of(row.raw)
    _check_counts(text.splitlines())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            poscar = Poscar.from_str(text, read_velocities=False)
        except PARSER_FAILURES as error:
            said = " ".join(str(error).split())[:300] or type(error).__name__
            raise RowProblemError(ProblemCode.SYNTAX, f"the POSCAR cannot be read: {said}") from error
    if not poscar.true_names:
        raise RowProblemError(ProblemCode.UNKNOWN_ELEMENT, "the POSCAR does not name its elements")
    built, _ = candidate(normalised(poscar.structure, limits), {}, default_name, limits)
    return built, tuple(dict.fromkeys(str(item.message) for item in caught))


def _check_counts(lines: list[str]) -> None:
    """Refuse counts of atoms beyond the lines of the file, for which pymatgen would make room first."""
    for word in " ".join(lines[5:7]).split():
        try:
            count = int(word)
        except ValueError:
            continue
        if count > len(lines):
            raise RowProblemError(ProblemCode.SYNTAX, f"the POSCAR announces {count} atoms in {len(lines)} lines")
