"""Reading files of reference entries row by row: nothing in a file stops the rows that follow."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from hullworks.workflows.intake import csv_rows, json_rows
from hullworks.workflows.intake.files import Format, broken, format_of, opened
from hullworks.workflows.intake.limits import Limits, default_limits
from hullworks.workflows.intake.pieces import BROKEN_STREAM, Piece, text_of
from hullworks.workflows.intake.rows import ProblemCode, RowProblemError
from hullworks.workflows.references.rows import Place, RefusalCode, RowRefusedError
from hullworks.workflows.references.shapes import row_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path
    from typing import BinaryIO

    from hullworks.analysis.partitions import Partition
    from hullworks.workflows.references.rows import ReferenceRow
    from hullworks.workflows.references.rules import Rules
    from hullworks.workflows.references.shapes import Columns

ReadRow: TypeAlias = "tuple[Place, ReferenceRow | RowRefusedError]"

_SPLITTERS: Final[dict[Format, Callable[[BinaryIO, Limits], Iterator[Piece]]]] = {
    Format.JSONL: json_rows.split_lines,
    Format.JSON: json_rows.split_document,
    Format.CSV: csv_rows.split,
}
"""How the formats that carry entries are cut into rows."""

_RESPONSE: Final = "data"
"""Member of a response of a web API that holds the rows."""

_BLOCK: Final = 1 << 20
"""Bytes hashed at once."""


def file_sha256(path: Path) -> str:
    """Return the hash of a file's bytes as they lie on disk, hexadecimal; empty when it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
    except OSError:
        return ""  # reading the rows will tell why
    return digest.hexdigest()


def read_file(path: Path, columns: Columns, rules: Rules) -> Iterator[ReadRow]:
    """Yield every row of a file, in order; when the file breaks, the rows before that, and then the reason.

    Args:
        path: JSON list, JSONL or CSV, also compressed with gzip.
        columns: Where flat rows keep what.
        rules: Limits of size.
    """
    limits = _limits(rules)
    try:
        with opened(path) as stream:
            for piece in _pieces(path, stream, limits):
                yield Place(str(path), piece.unit, piece.number), _row(piece, columns, limits)
    except RowProblemError as error:
        yield Place(str(path), "file", 1), RowRefusedError(RefusalCode.UNREADABLE, error.what)
    except BROKEN_STREAM as error:
        yield Place(str(path), "file", 1), RowRefusedError(RefusalCode.UNREADABLE, broken(error).what)


def read_partition(part: Partition, names: Mapping[Path, str], columns: Columns, rules: Rules) -> list[ReadRow]:
    """Return every row of a file, or of some lines of it, as `read_file` does.

    Args:
        part: The file and the lines.
        names: What the files are called in the places of their rows, by path.
        columns: Where flat rows keep what.
        rules: Limits of size.
    """
    name = names[part.path]
    if part.start == 0 and part.stop == part.path.stat().st_size:
        return [(replace(place, file=name), row) for place, row in read_file(part.path, columns, rules)]
    limits = _limits(rules)
    with part.path.open("rb") as stream:
        stream.seek(part.start)
        pieces = json_rows.split_lines(BytesIO(stream.read(part.stop - part.start)), limits)
        before = part.first_line - 1
        return [(Place(name, piece.unit, before + piece.number), _row(piece, columns, limits)) for piece in pieces]


def _limits(rules: Rules) -> Limits:
    sizes = {"max_row_bytes": rules.max_row_bytes, "max_document_bytes": rules.max_document_bytes}
    return default_limits().model_copy(update=sizes)


def _pieces(path: Path, stream: BinaryIO, limits: Limits) -> Iterator[Piece]:
    found = format_of(path, stream)
    if found not in _SPLITTERS:
        text = f"{found} files hold structures, not energies; give JSON, JSONL or CSV"
        raise RowProblemError(ProblemCode.UNKNOWN_FORMAT, text)
    for piece in _SPLITTERS[found](stream, limits):
        held = piece.payload.get(_RESPONSE) if isinstance(piece.payload, dict) else None
        if isinstance(held, list):
            yield from (Piece("item", number, b"", "", item) for number, item in enumerate(held, start=1))
        else:
            yield piece


def _row(piece: Piece, columns: Columns, limits: Limits) -> ReferenceRow | RowRefusedError:
    if len(piece.raw) > limits.max_row_bytes:
        return RowRefusedError(RefusalCode.UNREADABLE, f"the row has more than {limits.max_row_bytes} bytes")
    try:
        if piece.fault is not None:
            raise piece.fault
        return row_of(piece.payload if piece.payload is not None else _decoded(piece.raw), columns)
    except RowProblemError as error:
        return RowRefusedError(RefusalCode.UNREADABLE, error.what)
    except RowRefusedError as error:
        return error


def _decoded(raw: bytes) -> Any:  # noqa: ANN401 - any JSON value
    """Return the JSON value of a line; the careful decoder, which is slower, finds the words for a broken one."""
    try:
        return json.loads(text_of(raw))
    except (ValueError, RecursionError):
        return json_rows.decode(raw)
