"""Which files there are to read, and in which format each is."""

from __future__ import annotations

import gzip
import os
import re
import stat
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from hullworks.errors import InputError
from hullworks.workflows.intake.pieces import BROKEN_STREAM
from hullworks.workflows.intake.rows import ProblemCode, RowProblemError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Format(StrEnum):
    """How rows are written.

    JSONL: one JSON object per line.
    JSON: a list of objects, one object, or objects one after the other.
    CIF: one structure per data block.
    POSCAR: one structure per file.
    EXTXYZ: one structure per frame.
    CSV: one structure per record, in a column.
    """

    JSONL = "jsonl"
    JSON = "json"
    CIF = "cif"
    POSCAR = "poscar"
    EXTXYZ = "extxyz"
    CSV = "csv"


SUFFIXES: Final = {
    ".jsonl": Format.JSONL,
    ".ndjson": Format.JSONL,
    ".json": Format.JSON,
    ".cif": Format.CIF,
    ".mcif": Format.CIF,
    ".vasp": Format.POSCAR,
    ".poscar": Format.POSCAR,
    ".extxyz": Format.EXTXYZ,
    ".xyz": Format.EXTXYZ,
    ".csv": Format.CSV,
}
"""Format by the end of a file's name, in lower case and without ``.gz``."""

_HEAD: Final = 8192
"""Bytes at a file's start from which its format is told."""

_GZIP: Final = b"\x1f\x8b"
_WIDE: Final = (b"\xff\xfe", b"\xfe\xff")
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0e-\x1f]")
_BINARY_SHARE: Final = 0.05
"""Share of control bytes from which undecodable bytes are no text: random bytes have 0.10, text has none."""
_NUL_SHARE: Final = 0.3
"""Share of control bytes from which even valid UTF-8 is no text: UTF-16 has 0.5 NULs."""

_SNIFFED: Final = (
    (re.compile(rb"\A\s*\[\s*[\[{\]]"), Format.JSON),
    (re.compile(rb"\A\s*\{[ \t]*\r?\n"), Format.JSON),
    (re.compile(rb"\A\s*\{"), Format.JSONL),
    (re.compile(rb"\A[ \t]*\d+[ \t]*\r?\n[^\n]*(Lattice|Properties)\s*="), Format.EXTXYZ),
    (re.compile(rb"\A([^\n]*,)?\"?(cif|structure)\"?(,|\r?\n)"), Format.CSV),
    (re.compile(rb"(?im)^[ \t]*data_\S*[ \t]*\r?$"), Format.CIF),
)
"""What a file's start looks like, tried in this order."""


def checked_paths(paths: Iterable[str | os.PathLike[str]] | str | os.PathLike[str]) -> list[Path]:
    """Return what the user named, as paths that exist.

    Raises:
        InputError: Nothing is named, or something that does not exist.
    """
    named = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    found = [Path(path).expanduser() for path in named]
    if not found:
        raise InputError("no file is given", "", "Name a file or folder with candidates.")
    for path in found:
        if not _exists(path):
            raise InputError("no such file or folder", str(path), "Check the name; nothing was submitted.")
    return found


def files_of(path: Path) -> Iterator[Path]:
    """Yield the files of a folder and its subfolders in order of name, or the file itself.

    Hidden files and folders are left out. Links are followed, each folder once, so loops of links end.
    """
    if _is_folder(path):
        yield from _walk(path, set())
    else:
        yield path


def opened(path: Path) -> BinaryIO:
    """Return a file as a stream of decompressed bytes, to be closed by the caller.

    Raises:
        RowProblemError: It is no ordinary file, may not be read, or is not compressed as its name says.
    """
    try:
        _check_kind(path)
        with path.open("rb") as probe:
            head = probe.read(len(_GZIP))
        stream = path.open("rb")
    except OSError as error:
        raise RowProblemError(ProblemCode.UNREADABLE, f"the file cannot be read: {error.strerror or error}") from error
    if head == _GZIP:
        return cast("BinaryIO", _Archive(stream))
    if path.suffix.lower() == ".gz" and head:
        stream.close()
        raise RowProblemError(ProblemCode.BAD_COMPRESSION, "the name ends in .gz, the content is not gzip")
    return stream


def format_of(path: Path, stream: BinaryIO) -> Format:
    """Return the format of a file from its name, or from the start of its content; rewinds the stream.

    Raises:
        RowProblemError: It is empty, is not text, does not decompress, or is of no known format.
    """
    try:
        head = stream.read(_HEAD)
        stream.seek(0)
    except BROKEN_STREAM as error:
        raise broken(error) from error
    if not head.strip() and len(head) < _HEAD:
        raise RowProblemError(ProblemCode.EMPTY, "the file is empty")
    _check_text(head)
    named = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    if named.name.upper().startswith(("POSCAR", "CONTCAR")):
        return Format.POSCAR
    if (known := SUFFIXES.get(named.suffix.lower())) is not None:
        return known
    return _sniffed(head.removeprefix(b"\xef\xbb\xbf"))


def broken(error: Exception) -> RowProblemError:
    """Return the problem of a file that broke while it was read."""
    compressed = not isinstance(error, OSError) or isinstance(error, gzip.BadGzipFile)
    code = ProblemCode.BAD_COMPRESSION if compressed else ProblemCode.UNREADABLE
    return RowProblemError(code, f"the file cannot be read to its end: {error}")


class _Archive(gzip.GzipFile):
    """A gzip stream that closes its file with it."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(fileobj=stream, mode="rb")
        self._stream = stream

    def close(self) -> None:
        super().close()
        if hasattr(self, "_stream"):
            self._stream.close()


def _check_kind(path: Path) -> None:
    """Refuse what would block (a pipe) and folders, which come here only when they cannot be listed or are empty."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        next(path.iterdir(), None)  # raises when the folder may not be listed
        raise RowProblemError(ProblemCode.EMPTY, "the folder holds no file")
    if not stat.S_ISREG(mode):
        raise RowProblemError(ProblemCode.UNREADABLE, "it is not an ordinary file")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return True  # it is there and cannot be looked at, which reading will report
    except ValueError:
        return False  # a NUL in the name


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False  # opening it will tell why


def _walk(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    """Yield the files below a folder; the folder itself when it holds none or cannot be listed."""
    try:
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            return
        seen.add((status.st_dev, status.st_ino))
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError:
        yield folder
        return
    if not entries:
        yield folder
    for entry in entries:
        if _is_folder(entry):
            yield from _walk(entry, seen)
        else:
            yield entry


def _check_text(head: bytes) -> None:
    share = len(_CONTROL.findall(head)) / len(head)
    undecodable = "\ufffd" in head[: _HEAD - 4].decode("utf-8", "replace")
    if head.startswith(_WIDE) or share > _NUL_SHARE or (undecodable and share > _BINARY_SHARE):
        raise RowProblemError(ProblemCode.NOT_TEXT, "the file is not UTF-8 text")


def _sniffed(head: bytes) -> Format:
    for pattern, kind in _SNIFFED:
        if pattern.search(head):
            return kind
    if _is_lattice(head.splitlines()[2:5]):
        return Format.POSCAR
    raise RowProblemError(ProblemCode.UNKNOWN_FORMAT, "neither name nor content tells the format")


def _is_lattice(lines: list[bytes]) -> bool:
    """Return whether some lines are three lattice vectors."""
    try:
        return [len([float(word) for word in line.split()]) for line in lines] == [3, 3, 3]
    except ValueError:
        return False
