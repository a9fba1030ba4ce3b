"""Rows in JSON: one object per line, a list of objects, or objects one after the other."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from hullworks.workflows.intake.cif import crystal_from_cif
from hullworks.workflows.intake.crystal import crystal_from_dict
from hullworks.workflows.intake.fields import candidate
from hullworks.workflows.intake.pieces import Piece, lines, piece, text_of, whole
from hullworks.workflows.intake.rows import ProblemCode, RowProblemError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pymatgen.core.structure import Structure

    from hullworks.workflows.intake.limits import Limits
    from hullworks.workflows.intake.rows import CandidateInput

_MAX_DIGITS: Final = 400
"""Digits of a JSON integer that are still converted; Python itself refuses from 4300 on, slowly before that."""

_SPACE: Final = re.compile(r"[ \t\r\n]*")
_SEPARATOR: Final = re.compile(r"[ \t\r\n,]*")


def split_lines(stream: BinaryIO, limits: Limits) -> Iterator[Piece]:
    """Yield the lines that are not blank."""
    return (line for line in lines(stream, limits.max_row_bytes) if line.raw.strip())


def split_document(stream: BinaryIO, limits: Limits) -> Iterator[Piece]:
    """Yield the items of a list, or objects that stand one after the other; then, if it ends early, the reason."""
    text = text_of(whole(stream, limits.max_document_bytes))
    position = _SPACE.match(text).end()  # type: ignore[union-attr] # an empty match is a match
    listed = text.startswith("[", position)
    number, position = 1, position + listed
    while (position := _SEPARATOR.match(text, position).end()) < len(text):  # type: ignore[union-attr]
        if listed and text[position] == "]":
            return
        try:
            value, end = _raw_decode(text, position)
        except RowProblemError as error:
            yield piece("item", number, text[position:].encode("utf-8", "replace"), fault=error)
            return
        yield piece("item", number, text[position:end].encode("utf-8", "replace"), payload=value)
        number, position = number + 1, end
    if listed:
        cut_off = RowProblemError(ProblemCode.SYNTAX, "the list is cut off: no ] at its end")
        yield piece("item", number, b"", fault=cut_off)


def parse(row: Piece, default_name: str, limits: Limits) -> tuple[CandidateInput, tuple[str, ...]]:
    """Return the candidate of one JSON value, and remarks.

    A value is a row (``structure`` or ``cif`` with other fields), a bare pymatgen ``Structure`` dictionary, or a
    ``ComputedStructureEntry`` dictionary, whose energy counts as predicted.

    Raises:
        RowProblemError: It is none of these, or holds no crystal.
    """
    value = row.payload if row.payload is not None else decode(row.raw)
    if not isinstance(value, dict):
        raise RowProblemError(ProblemCode.WRONG_SHAPE, f"a row is an object, not a {type(value).__name__}")
    if "lattice" in value and "sites" in value:
        return candidate(crystal_from_dict(value, limits), {}, default_name, limits)
    structure, remarks = structure_of(value, limits)
    fields = _entry_fields(value, structure) if "energy" in value and _is_entry(value) else value
    built, more = candidate(structure, fields, default_name, limits)
    return built, remarks + more


def structure_of(fields: Mapping[str, Any], limits: Limits) -> tuple[Structure, tuple[str, ...]]:
    """Return the crystal in the ``structure`` or ``cif`` field of a row, and remarks.

    Raises:
        RowProblemError: There is none.
    """
    if isinstance(data := fields.get("structure"), dict):
        return crystal_from_dict(data, limits), ()
    text = fields.get("cif") or data
    if isinstance(text, str) and text.strip():
        return crystal_from_cif(text, limits)
    held = "only a formula" if "formula" in fields or "composition" in fields else "no structure"
    raise RowProblemError(ProblemCode.NO_STRUCTURE, f"the row holds {held}")


def decode(raw: bytes) -> Any:  # noqa: ANN401 - any JSON value
    """Return the one JSON value in some bytes.

    Raises:
        RowProblemError: They are not UTF-8 or not JSON, a key stands twice, or the nesting exhausts the stack.
    """
    text = text_of(raw)
    value, end = _raw_decode(text, _SPACE.match(text).end())  # type: ignore[union-attr]
    if (rest := _SPACE.match(text, end).end()) != len(text):  # type: ignore[union-attr]
        raise RowProblemError(ProblemCode.SYNTAX, f"more text after the JSON value, at character {rest + 1}")
    return value


def _raw_decode(text: str, position: int) -> tuple[Any, int]:
    try:
        return _DECODER.raw_decode(text, position)
    except json.JSONDecodeError as error:
        cut = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string")
        what = "cut off" if cut else "broken"
        raise RowProblemError(ProblemCode.SYNTAX, f"JSON {what} at character {error.pos + 1}: {error.msg}") from error
    except RecursionError as error:
        raise RowProblemError(ProblemCode.SYNTAX, "JSON nested too deeply to be read") from error


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise RowProblemError(ProblemCode.WRONG_SHAPE, f"an integer has {len(digits)} digits")
    return int(digits)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    built = dict(pairs)
    if len(built) != len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise RowProblemError(ProblemCode.SYNTAX, f"key {twice[:40]!r} stands twice in one object")
    return built


_DECODER: Final = json.JSONDecoder(parse_int=_integer, object_pairs_hook=_unique)


def _is_entry(value: Mapping[str, Any]) -> bool:
    return str(value.get("@class", "")).endswith("StructureEntry") or "entry_id" in value


def _entry_fields(value: Mapping[str, Any], structure: Structure) -> dict[str, Any]:
    """Return a ComputedStructureEntry as the fields of a row."""
    fields = {key: item for key, item in value.items() if not key.startswith("@") and key != "composition"}
    fields.setdefault("name", fields.pop("entry_id", None))
    energy = fields.pop("energy")
    if isinstance(energy, int | float):
        fields.setdefault("prediction", {"energy_per_atom": energy / len(structure)})
    return fields
