"""Finds the files of a pw.x run by what is in them, whatever they are called."""

from __future__ import annotations

import gzip
import io
import re
import stat
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from hullworks.workflows.qe.input_file import InputFile, read_input
from hullworks.workflows.qe.outcomes import Source, recognise
from hullworks.workflows.qe.stdout import timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from pathlib import Path

_SNIFF_BYTES: Final = 16384
_FEW_LINES: Final = 200
"""Of a standard error; a process that dies says it at once."""
_SMALL_BYTES: Final = 4 * 2**20
_XML_BYTES: Final = 2**30
_ROOT_BYTES: Final = 512
"""The root element of an XML file of pw.x has begun by then."""
_GZIP: Final = b"\x1f\x8b"
_STARTED = re.compile(rb"Program PWSCF.*starts on\s+(\d{1,2}[A-Za-z]{3}\d{4}) at\s+([\d: ]+)")
_INPUT = re.compile(rb"^\s*&(control|system)\b", re.IGNORECASE | re.MULTILINE)
_BOX = re.compile(rb"^ %{20,}\s*\n\s*task #", re.MULTILINE)
_DEATHS = re.compile(
    rb"^(STOP \S|Note: The following floating-point|At line \d+ of file|Program (aborted|received)|forrtl:|\*\*\* )"
    rb"|Fortran runtime error|MPI_ABORT|ORTE_ERROR_LOG|OPAL ERROR|mpirun|\bsrun: |slurmstepd|PMIX|oom.?kill|memory"
    rb"|Segmentation fault|Killed|Terminated|No space left|command not found|Traceback|error while loading",
    re.IGNORECASE | re.MULTILINE,
)
_XML_NAME = re.compile(r"\.xml(\.gz)?$")


@dataclass(frozen=True)
class RunFiles:
    """The files of one run, as far as they exist.

    Args:
        directory: The run's folder.
        output: Standard output.
        input: The input file's path.
        parsed_input: What it says.
        crashes: CRASH files.
        stderr: What else the run left in words: standard error, messages of the launcher.
        xmls: XML files of pw.x in the folder, its outdir and the ``*.save`` folders, whole or cut.
    """

    directory: Path
    output: Path | None = None
    input: Path | None = None
    parsed_input: InputFile = field(default_factory=InputFile)
    crashes: tuple[Path, ...] = ()
    stderr: tuple[Path, ...] = ()
    xmls: tuple[Path, ...] = ()

    def name(self, path: Path) -> str:
        """Return a path as the run's folder sees it."""
        return str(path.relative_to(self.directory)) if path.is_relative_to(self.directory) else str(path)


def open_bytes(path: Path) -> BinaryIO:
    """Open a file, unpacking gzip."""
    with path.open("rb") as raw:
        packed = raw.read(len(_GZIP)) == _GZIP
    return cast("BinaryIO", gzip.open(path)) if packed else path.open("rb")


def read_bytes(path: Path, limit: int = _SMALL_BYTES) -> bytes:
    """Return the first ``limit`` bytes of a file; fewer where it cannot be read or its packing is damaged."""
    chunks = io.BytesIO()
    try:
        with open_bytes(path) as stream:
            while chunks.tell() < limit and (chunk := stream.read(min(2**20, limit - chunks.tell()))):
                chunks.write(chunk)
    except (OSError, EOFError, zlib.error):
        pass
    return chunks.getvalue()


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a file as text, bytes that are no text replaced; ends early where it cannot be read."""
    try:
        with io.TextIOWrapper(open_bytes(path), encoding="utf-8", errors="replace") as lines:
            yield from lines
    except (OSError, EOFError, zlib.error):
        return


def read_xml_bytes(path: Path) -> bytes:
    """Return the whole of an XML file."""
    return read_bytes(path, _XML_BYTES)


def find_files(directory: Path) -> RunFiles:
    """Sort the files of a run's folder by their content."""
    heads = {path: read_bytes(path, _SNIFF_BYTES) for path in _entries(directory) if _is(path, stat.S_ISREG)}
    outputs = [path for path, head in heads.items() if b"Program PWSCF" in head]
    inputs = [path for path, head in heads.items() if path not in outputs and len(set(_INPUT.findall(head))) > 1]
    crashes = [path for path, head in heads.items() if path not in outputs and _is_crash(path, head)]
    taken = {*outputs, *inputs, *crashes}
    others = [path for path, head in heads.items() if path not in taken and _speaks_of_death(path, head)]
    output = max(outputs, key=lambda path: _start_and_name(path, heads[path]), default=None)
    input_path = _companion(inputs, output)
    parsed = InputFile() if input_path is None else read_input(read_bytes(input_path).decode(errors="replace"))
    return RunFiles(
        directory=directory,
        output=output,
        input=input_path,
        parsed_input=parsed,
        crashes=tuple(crashes),
        stderr=tuple([path for path in others if output is None or path.stem == output.stem] or others),
        xmls=_xmls(directory, parsed),
    )


def _is_crash(path: Path, head: bytes) -> bool:
    return path.name.startswith("CRASH") or _BOX.search(head) is not None


def _speaks_of_death(path: Path, head: bytes) -> bool:
    document = path.suffix.lower() in {".json", ".yaml", ".md", ".upf", ".xml", ".py", ".html"}
    if document or b"\0" in head:
        return False
    # What an outcome is recognised by must not be overlooked here.
    lines = head.decode(errors="replace").splitlines()[:_FEW_LINES]
    return _DEATHS.search(head) is not None or any(recognise(line, Source.STDERR) for line in lines)


def _start_and_name(path: Path, head: bytes) -> tuple[float, bool, float]:
    found = _STARTED.search(head)
    started: datetime | None = timestamp(found[1].decode(), found[2].decode()) if found else None
    return (started.timestamp() if started else 0.0, path.name.startswith("pw.out"), modified(path))


def _companion(paths: list[Path], output: Path | None) -> Path | None:
    """Return the path whose name goes with the output's, else the newest."""
    if output is not None:
        same = [path for path in paths if path.name.partition(".")[0] == output.name.partition(".")[0]]
        paths = same or paths
    return max(paths, key=modified, default=None)


def _xmls(directory: Path, parsed: InputFile) -> tuple[Path, ...]:
    """Return the XML files in the folder and in its outdir, or in any folder below where the outdir is not known.

    An outdir elsewhere may be shared by many runs; there only the input's own prefix counts.
    """
    named = parsed.keywords.get("outdir")
    outdir = directory / named if named else directory
    inside = outdir.resolve().is_relative_to(directory.resolve())
    known = named is not None and _is(outdir, stat.S_ISDIR)
    below = [] if known else [path for path in _entries(directory) if _is(path, stat.S_ISDIR)]
    folders = {path.resolve(): path for path in (directory, *below, *([outdir] if inside else []))}
    found = {path.resolve(): path for folder in folders.values() for path in _xmls_under(folder)}
    if not inside:
        prefix = parsed.keywords.get("prefix", "pwscf")
        own = (outdir / f"{prefix}.xml", outdir / f"{prefix}.save" / "data-file-schema.xml")
        found |= {path.resolve(): path for path in own if _is_xml(path)}
    return tuple(found.values())


def _xmls_under(folder: Path) -> list[Path]:
    entries = _entries(folder)
    saved = [path for save in entries if save.name.endswith(".save") for path in _entries(save)]
    return [path for path in (*entries, *saved) if _is_xml(path)]


def modified(path: Path) -> float:
    """Return the time of the last change; 0 where the file went away meanwhile."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _is(path: Path, kind: Callable[[int], bool]) -> bool:
    """Whether a path is of a kind; False where it went away, or may not be looked at."""
    try:
        return kind(path.stat().st_mode)
    except OSError:
        return False


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _is_xml(path: Path) -> bool:
    """Whether pw.x began this file; one with the right name that ends before its root element counts as cut."""
    if not (_XML_NAME.search(path.name) and _is(path, stat.S_ISREG)):
        return False
    head = read_bytes(path, _SNIFF_BYTES)
    return b"quantum-espresso" in head or len(head) < _ROOT_BYTES
