"""Reading files of candidates row by row: nothing in a file stops the rows that follow."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Final

from hullworks.workflows.intake import cif, csv_rows, extxyz, json_rows, poscar
from hullworks.workflows.intake.files import Format, broken, checked_paths, files_of, format_of, opened
from hullworks.workflows.intake.limits import Limits, default_limits
from hullworks.workflows.intake.pieces import BROKEN_STREAM, Piece
from hullworks.workflows.intake.rows import CandidateInput, IntakeRow, Problem, ProblemCode, RowProblemError, snippet

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path
    from typing import BinaryIO

    Splitter = Callable[[BinaryIO, Limits], Iterator[Piece]]
    Parser = Callable[[Piece, str, Limits], tuple[CandidateInput, tuple[str, ...]]]

_READERS: Final[dict[Format, tuple[Splitter, Parser]]] = {
    Format.JSONL: (json_rows.split_lines, json_rows.parse),
    Format.JSON: (json_rows.split_document, json_rows.parse),
    Format.CIF: (cif.split, cif.parse),
    Format.POSCAR: (poscar.split, poscar.parse),
    Format.EXTXYZ: (extxyz.split, extxyz.parse),
    Format.CSV: (csv_rows.split, csv_rows.parse),
}
"""How each format is cut into rows, and how a row is read."""

_GENERIC_STEMS: Final = ("POSCAR", "CONTCAR")
"""Files that are named after their folder instead."""


def read_rows(
    paths: Iterable[str | os.PathLike[str]] | str | os.PathLike[str], limits: Limits | None = None
) -> Iterator[IntakeRow]:
    """Yield every row of some files and folders, in order, as a candidate or as the problem that it has.

    JSONL, JSON, CIF (several blocks too), POSCAR, extended XYZ and CSV with a ``cif`` or ``structure`` column, each
    also compressed with gzip; the format is told by the name, else by the content. Rows stream: memory holds one row,
    one file for JSON lists and POSCARs, and 16 bytes of hash per row.

    >>> rows = list(read_rows("batch.jsonl"))                       # doctest: +SKIP
    >>> [(row.where, row.problem.reason) for row in rows if row.problem]  # doctest: +SKIP
    [('batch.jsonl, line 3', 'site 2 has a coordinate that is NaN, infinite or absurd')]

    Args:
        paths: Files and folders; folders are read with their subfolders, without hidden files.
        limits: What to refuse unread; by default `default_limits`.

    Raises:
        InputError: At once, before the first row: no path is given, or one does not exist.
    """
    return _rows(checked_paths(paths), limits or default_limits())


def _rows(paths: list[Path], limits: Limits) -> Iterator[IntakeRow]:
    seen: Counter[bytes] = Counter()
    for path in (file for named in paths for file in files_of(named)):
        for piece, content, remarks in _file(path, limits):
            key = bytes.fromhex(piece.sha256)[:16]
            yield IntakeRow(path, piece.unit, piece.number, piece.sha256, seen[key], content, remarks)
            seen[key] += 1


def _file(path: Path, limits: Limits) -> Iterator[tuple[Piece, CandidateInput | Problem, tuple[str, ...]]]:
    """Yield the rows of one file; when it breaks, the rows before that, and then the reason."""
    try:
        with opened(path) as stream:
            splitter, parser = _READERS[format_of(path, stream)]
            for piece in _at_least_one(splitter(stream, limits)):
                yield piece, *_content(piece, parser, path, limits)
    except RowProblemError as error:
        yield _about_file(path, error)
    except BROKEN_STREAM as error:
        yield _about_file(path, broken(error))


def _at_least_one(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """Yield the rows, and complain when there is none."""
    first = next(pieces, None)
    if first is None:
        raise RowProblemError(ProblemCode.EMPTY, "the file holds no row")
    yield first
    yield from pieces


def _content(
    piece: Piece, parser: Parser, path: Path, limits: Limits
) -> tuple[CandidateInput | Problem, tuple[str, ...]]:
    try:
        if piece.fault is not None:
            raise piece.fault
        return parser(piece, _default_name(path, piece), limits)
    except RowProblemError as error:
        return Problem(error.code, error.what, snippet(piece.raw)), ()


def _default_name(path: Path, piece: Piece) -> str:
    """Return a name for a row that has none: its file, and its place unless it is the file's first block."""
    name = path.name.removesuffix(".gz")
    stem = path.parent.name if name.upper().startswith(_GENERIC_STEMS) and path.parent.name else name.rsplit(".", 1)[0]
    stem = "".join(character for character in stem if character.isprintable()) or "unnamed"
    alone = piece.unit == "file" or (piece.unit == "block" and piece.number == 1)
    return stem if alone else f"{stem}-{piece.number}"


def _about_file(path: Path, error: RowProblemError) -> tuple[Piece, Problem, tuple[str, ...]]:
    """Return a row that stands for a whole file, identified by its path, since its content is out of reach."""
    digest = hashlib.sha256(str(path).encode("utf-8", "backslashreplace")).hexdigest()
    return Piece("file", 1, b"", digest), Problem(error.code, error.what), ()
