"""Cutting a stream into rows within bounded memory, before anything is parsed."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeAlias

from hullworks.workflows.intake.rows import SNIPPET_LENGTH, ProblemCode, RowProblemError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

BROKEN_STREAM: Final = (OSError, EOFError, zlib.error, gzip.BadGzipFile)
"""What reading a damaged file or archive raises."""

_CHUNK: Final = 1 << 16
"""Bytes read at once where a row is skipped."""


Line: TypeAlias = tuple[bytes, str | None]
"""A line, and its hash when it is too long to be kept."""


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
    """Yield the lines of a stream as rows, without their ends; one beyond the limit is hashed and not kept."""
    for number, (raw, digest) in enumerate(bounded_lines(stream, limit), start=1):
        if digest is None:
            yield piece("line", number, raw)
        else:
            yield Piece("line", number, raw, digest, fault=_too_long(limit))


def bounded_lines(stream: BinaryIO, limit: int) -> Iterator[Line]:
    """Yield each line of a stream without its end, and None; for a line beyond the limit its start and its hash."""
    while raw := stream.readline(limit + 1):
        if len(raw) > limit and not raw.endswith(b"\n"):
            yield raw[:SNIPPET_LENGTH], _hash_of_line(raw, stream)
        else:
            yield raw.rstrip(b"\r\n"), None


def groups(found: Iterable[tuple[bool, Line]], unit: str, limit: int) -> Iterator[Piece]:
    """Join lines to rows of several lines.

    Args:
        found: Lines as `bounded_lines` yields them, each with whether it starts a row.
        unit: Name of the rows.
        limit: Bytes beyond which a row is skipped.
    """
    number, held = 0, _Group(unit, limit)
    for starts, line in found:
        if starts and held.lines:
            number += 1
            yield held.close(number)
            held = _Group(unit, limit)
        held.add(*line)
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
        self.size = 0
        self.digest: hashlib._Hash | None = None

    def add(self, raw: bytes, long_hash: str | None) -> None:
        self.size += len(raw) + 1
        if self.digest is None and (self.size > self.limit or long_hash):
            self.digest = hashlib.sha256(b"\n".join(self.lines))
            self.lines[1:] = []
        if self.digest is None or not self.lines:
            self.lines.append(raw)
        if self.digest is not None:
            self.digest.update(b"\n" + (long_hash.encode() if long_hash else raw))

    def close(self, number: int) -> Piece:
        raw = b"\n".join(self.lines)
        if self.digest is None:
            return piece(self.unit, number, raw)
        return Piece(self.unit, number, raw, self.digest.hexdigest(), fault=_too_long(self.limit))


def _hash_of_line(head: bytes, stream: BinaryIO) -> str:
    """Return the hash of a line of which the start was read; reads the rest in small parts."""
    digest = hashlib.sha256(head)
    while chunk := stream.readline(_CHUNK):
        digest.update(chunk)
        if chunk.endswith(b"\n"):
            break
    return digest.hexdigest()


def _too_long(limit: int) -> RowProblemError:
    return RowProblemError(ProblemCode.TOO_LONG, f"the row has more than {limit} bytes")
