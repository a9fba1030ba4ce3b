"""Cutting a stream into rows within bounded memory, before anything is parsed."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from hullworks.workflows.intake.rows import SNIPPET_LENGTH, ProblemCode, RowProblemError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

BROKEN_STREAM: Final = (OSError, EOFError, zlib.error, gzip.BadGzipFile)
"""What reading a damaged file or archive raises."""

_CHUNK: Final = 1 << 16
"""Bytes read at once where a row is skipped."""


@dataclass(frozen=True)
class Piece:
    """One row of a file, cut out and not yet parsed."""

    unit: str
    """``line``, ``item``, ``block``, ``frame`` or ``file``."""
    number: int
    """Place in the file, counted from 1."""
    raw: bytes
    """The row, or its start when it was skipped or is kept in ``payload``."""
    sha256: str
    """Hash of the whole row."""
    payload: Any = None
    """What the splitter already knows of it."""
    fault: RowProblemError | None = None
    """Why it was skipped."""


def piece(unit: str, number: int, raw: bytes, payload: Any = None, fault: RowProblemError | None = None) -> Piece:  # noqa: ANN401 - see `Piece`
    """Return a piece of which all bytes are at hand."""
    return Piece(unit, number, raw, hashlib.sha256(raw).hexdigest(), payload, fault)


def lines(stream: BinaryIO, limit: int) -> Iterator[Piece]:
    """Yield the lines of a stream without their ends; a line beyond the limit is hashed in passing and not kept."""
    number = 0
    while raw := stream.readline(limit + 1):
        number += 1
        if len(raw) > limit and not raw.endswith(b"\n"):
            yield _skipped("line", number, raw, _rest_of_line(stream, limit), limit)
        else:
            yield piece("line", number, raw.rstrip(b"\r\n"))


def groups(found: Iterable[tuple[bool, Piece]], unit: str, limit: int) -> Iterator[Piece]:
    """Join lines to rows of several lines.

    Args:
        found: Lines, each with whether it starts a row.
        unit: Name of the rows.
        limit: Bytes beyond which a row is skipped.
    """
    number, held = 0, _Group(unit, limit)
    for starts, line in found:
        if starts and held.lines:
            number += 1
            yield held.close(number)
            held = _Group(unit, limit)
        held.add(line)
    if held.lines:
        yield held.close(number + 1)


def whole(stream: BinaryIO, limit: int) -> bytes:
    """Return all bytes of a stream.

    Raises:
        RowProblemError: There are more than the limit.
    """
    raw = stream.read(limit + 1)
    if len(raw) > limit:
        raise RowProblemError(ProblemCode.TOO_LONG, f"the file has more than {limit} bytes and must be read whole")
    return raw


def text_of(raw: bytes) -> str:
    """Return UTF-8 bytes as text, without a byte-order mark.

    Raises:
        RowProblemError: They are not UTF-8, or hold NUL bytes.
    """
    if b"\0" in raw:
        raise RowProblemError(ProblemCode.NOT_TEXT, f"NUL byte at position {raw.index(0) + 1}")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RowProblemError(ProblemCode.NOT_TEXT, f"byte {error.start + 1} is not UTF-8") from error


class _Group:
    """Lines gathered for one row, up to the limit; beyond it only their hash goes on."""

    def __init__(self, unit: str, limit: int) -> None:
        self.unit, self.limit = unit, limit
        self.lines: list[bytes] = []
        self.digest = hashlib.sha256()
        self.size = 0

    def add(self, line: Piece) -> None:
        self.size += len(line.raw) + 1 if line.fault is None else self.limit + 1
        self.digest.update((line.raw if line.fault is None else line.sha256.encode()) + b"\n")
        if self.size <= self.limit or not self.lines:
            self.lines.append(line.raw)

    def close(self, number: int) -> Piece:
        fault = None if self.size <= self.limit else _too_long(self.limit)
        return Piece(self.unit, number, b"\n".join(self.lines), self.digest.hexdigest(), fault=fault)


def _rest_of_line(stream: BinaryIO, limit: int) -> Iterator[bytes]:
    while chunk := stream.readline(min(limit, _CHUNK)):
        yield chunk
        if chunk.endswith(b"\n"):
            return


def _skipped(unit: str, number: int, head: bytes, rest: Iterable[bytes], limit: int) -> Piece:
    digest = hashlib.sha256(head)
    for chunk in rest:
        digest.update(chunk)
    return Piece(unit, number, head[:SNIPPET_LENGTH], digest.hexdigest(), fault=_too_long(limit))


def _too_long(limit: int) -> RowProblemError:
    return RowProblemError(ProblemCode.TOO_LONG, f"the row has more than {limit} bytes")
