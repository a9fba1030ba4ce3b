"""Crystals in CIF files, one row per data block that describes a structure."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from pymatgen.core.structure import StructureError
from pymatgen.io.cif import CifFile, CifParser

from hullworks.workflows.intake.crystal import lattice_from_parameters, normalised
from hullworks.workflows.intake.fields import candidate
from hullworks.workflows.intake.pieces import Line, Piece, bounded_lines, groups
from hullworks.workflows.intake.rows import ProblemCode, RowProblemError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

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
    StructureError,
    re.error,
)
"""What pymatgen's readers raise, undocumented, on text that is not of their format; some raise warnings as errors."""

_STRUCTURAL: Final = re.compile(rb"^[ \t]*_(cell|atom_site|symmetry|space_group)", re.IGNORECASE | re.MULTILINE)
_TEXT: Final = re.compile(r"^;.*?^;", re.MULTILINE | re.DOTALL)
_NUMBER: Final = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?(\(\d*\)?)?")
_NO_ATOM: Final = re.compile(r"[^A-Za-z]|wat|Wat|OH|O-H|NO3")
"""Site symbols that pymatgen drops or turns into one atom of a group: unknown, or a molecule."""

_OPERATIONS: Final = (
    "_symmetry_equiv_pos_as_xyz",
    "_symmetry_equiv_pos_as_xyz_",
    "_space_group_symop_operation_xyz",
    "_space_group_symop_operation_xyz_",
)
"""Under which pymatgen looks for symmetry operations."""

_MISMATCHES: Final = ("Missing elements", "Incorrect stoichiometry")
"""How pymatgen's remarks begin that the sites do not add up to the formula."""

_CELL: Final = tuple(f"_cell_{key}" for key in ("length_a", "length_b", "length_c"))
_ANGLES: Final = tuple(f"_cell_angle_{key}" for key in ("alpha", "beta", "gamma"))
_FRACTIONS: Final = tuple(f"_atom_site_fract_{axis}" for axis in "xyz")
_NAME: Final = re.compile(r"^[ \t]*data_(\S*)", re.IGNORECASE | re.MULTILINE)


def split(stream: BinaryIO, limits: Limits) -> Iterator[Piece]:
    """Yield the blocks that describe a structure; a file without one yields its first block, to say so."""
    first, structural = None, 0
    for block in groups(_starts(bounded_lines(stream, limits.max_row_bytes)), "block", limits.max_row_bytes):
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
    text = _TEXT.sub("?", text)  # prose, of which pymatgen would take some lines for data
    text = "\n".join(line for line in text.splitlines() if line.strip())  # its patterns are slow on blank lines
    if len(text) > limits.max_cif_length:
        raise RowProblemError(ProblemCode.TOO_LONG, f"the CIF has {len(text)} characters beside its prose")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            for block in CifFile.from_str(text).data.values():
                _check_values(block.data, limits)
            structures = CifParser.from_str(text).parse_structures(primitive=False, on_error="raise")
        except RowProblemError:
            raise
        except PARSER_FAILURES as error:
            raise _reason(text, error) from error
    remarks = tuple(dict.fromkeys(" ".join(str(item.message).split()) for item in caught))
    for remark in remarks:
        if remark.startswith(_MISMATCHES):
            raise RowProblemError(ProblemCode.FORMULA_MISMATCH, f"sites and formula disagree: {remark[:200]}")
    if not structures:
        raise RowProblemError(ProblemCode.NO_STRUCTURE, "the block describes no structure")
    return normalised(structures[0], limits), remarks


def _starts(found: Iterable[Line]) -> Iterator[tuple[bool, Line]]:
    """Yield lines with whether each starts a block: ``data_`` at its head, outside of a text between semicolons.

    The first block starts with the file, since comments stand before it.
    """
    quoted = begun = False
    for line in found:
        quoted ^= line[0].startswith(b";")
        heads = not quoted and line[0].lstrip()[:5].lower() == b"data_"
        yield heads and begun, line
        begun |= heads


def _check_values(data: Mapping[str, Any], limits: Limits) -> None:
    """Refuse what pymatgen would quietly repair, or take hours over."""
    if all(key in data for key in (*_CELL, *_ANGLES)):
        lattice_from_parameters([_number(str(data[key]), key) for key in (*_CELL, *_ANGLES)])
    symbols = _column(data, "_atom_site_type_symbol") or _column(data, "_atom_site_label")
    if len(symbols) > limits.max_atoms:
        raise RowProblemError(ProblemCode.TOO_MANY_ATOMS, f"the block lists {len(symbols)} sites")
    if max(len(_column(data, key)) for key in _OPERATIONS) > limits.max_symmetry_operations:
        raise RowProblemError(ProblemCode.SYNTAX, "the block lists more symmetry operations than any space group has")
    for number, symbol in enumerate(symbols, start=1):
        if _NO_ATOM.match(symbol):
            raise RowProblemError(ProblemCode.UNKNOWN_ELEMENT, f"site {number} is {symbol[:20]!r}, not an element")
    for key in _FRACTIONS:
        for number, value in enumerate(_column(data, key), start=1):
            _number(value, f"{key} of site {number}")
    for number, value in enumerate(_column(data, "_atom_site_occupancy"), start=1):
        if value not in {"?", "."} and _number(value, f"the occupancy of site {number}") <= 0.0:
            raise RowProblemError(ProblemCode.DISORDERED, f"site {number} has the occupancy {value[:20]}")


def _column(data: Mapping[str, Any], key: str) -> list[str]:
    """Return a loop's column, or the one value that stands outside of a loop."""
    value = data.get(key) or []
    return [value] if isinstance(value, str) else value


def _number(text: str, what: str) -> float:
    """Return a CIF number, which may end in its uncertainty in brackets; NaN or unknown is refused."""
    if _NUMBER.fullmatch(text) is None:
        raise RowProblemError(ProblemCode.NOT_FINITE, f"{what} is {text[:20]!r}, not a number")
    return float(text.partition("(")[0])


def _reason(text: str, error: Exception) -> RowProblemError:
    """Return the problem behind a reader's error, named by what is missing where that can be told."""
    said = " ".join(str(error).split())[:300]
    if not re.search(r"^[ \t]*_cell_length_a\s", text, re.IGNORECASE | re.MULTILINE):
        return RowProblemError(ProblemCode.NO_STRUCTURE, "the block has no _cell_length_a")
    if not re.search(r"^[ \t]*_atom_site_fract_x\s", text, re.IGNORECASE | re.MULTILINE):
        return RowProblemError(ProblemCode.NO_STRUCTURE, "the block has no _atom_site_fract_x")
    return RowProblemError(ProblemCode.SYNTAX, f"the CIF cannot be read: {said or type(error).__name__}")
