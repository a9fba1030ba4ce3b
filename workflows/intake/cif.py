"""Crystals in CIF files, one row per data block that describes a structure."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, BinaryIO, Final

from pymatgen.io.cif import CifParser

from hullworks.workflows.intake.crystal import normalised
from hullworks.workflows.intake.fields import candidate
from hullworks.workflows.intake.pieces import Piece, groups, lines
from hullworks.workflows.intake.rows import ProblemCode, RowProblemError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pymatgen.core.structure import Structure

    from hullworks.workflows.intake.limits import Limits
    from hullworks.workflows.intake.rows import CandidateInput

PARSER_FAILURES: Final = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    Warning,
    re.error,
)
"""What pymatgen's readers raise on text that is not of their format; none of them is documented."""

_BLOCK: Final = re.compile(rb"data_", re.IGNORECASE)
_STRUCTURAL: Final = re.compile(rb"^\s*_(cell|atom_site|symmetry|space_group)", re.IGNORECASE | re.MULTILINE)
_NAME: Final = re.compile(r"^\s*data_(\S*)", re.IGNORECASE | re.MULTILINE)


def split(stream: BinaryIO, limits: Limits) -> Iterator[Piece]:
    """Yield the blocks that describe a structure; a file without one yields its first block, to say so."""
    first, structural = None, 0
    for block in groups(_starts(lines(stream, limits.max_row_bytes)), "block", limits.max_row_bytes):
        first = first or block
        if block.fault is not None or _STRUCTURAL.search(block.raw):
            structural += 1
            yield block
    if first is not None and not structural:
        yield first


def parse(row: Piece, default_name: str, limits: Limits) -> tuple[CandidateInput, tuple[str, ...]]:
    """Return the candidate of one block, named after its file and block, and the reader's remarks.

    Raises:
        RowProblemError: The block holds no crystal.
    """
    if b"\0" in row.raw:
        raise RowProblemError(ProblemCode.NOT_TEXT, "the block holds NUL bytes")
    text = row.raw.decode("utf-8-sig", "replace")  # databases write the accents of authors in old encodings
    structure, remarks = crystal_from_cif(text, limits)
    block = _NAME.search(text)
    name = block[1] if row.number > 1 and block is not None and block[1].isprintable() else ""
    return candidate(structure, {"name": name[: limits.max_label_length] or None}, default_name, limits)[0], remarks


def crystal_from_cif(text: str, limits: Limits) -> tuple[Structure, tuple[str, ...]]:
    """Return the first crystal in a CIF text, and what pymatgen remarked while it read.

    Raises:
        RowProblemError: There is none.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            structures = CifParser.from_str(text).parse_structures(primitive=False, on_error="raise")
        except PARSER_FAILURES as error:
            raise _reason(text, error) from error
    if not structures:
        raise RowProblemError(ProblemCode.NO_STRUCTURE, "the block describes no structure")
    return normalised(structures[0], limits), tuple(dict.fromkeys(str(item.message) for item in caught))


def _starts(found: Iterable[Piece]) -> Iterator[tuple[bool, Piece]]:
    """Yield lines with whether each starts a block: ``data_`` at its head, outside of a text between semicolons."""
    quoted = False
    for line in found:
        quoted ^= line.raw.startswith(b";")
        yield not quoted and _BLOCK.match(line.raw.lstrip()) is not None, line


def _reason(text: str, error: Exception) -> RowProblemError:
    """Return the problem behind a reader's error, named by what is missing where that can be told."""
    said = " ".join(str(error).split())[:300]
    if not re.search(r"^\s*_cell_length_a\s", text, re.IGNORECASE | re.MULTILINE):
        return RowProblemError(ProblemCode.NO_STRUCTURE, "the block has no _cell_length_a")
    if not re.search(r"^\s*_atom_site_fract_x\s", text, re.IGNORECASE | re.MULTILINE):
        return RowProblemError(ProblemCode.NO_STRUCTURE, "the block has no _atom_site_fract_x")
    return RowProblemError(ProblemCode.SYNTAX, f"the CIF cannot be read: {said or type(error).__name__}")
