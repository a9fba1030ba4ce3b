"""Run folders at rest: scratch gone, text compressed, everything under a checksum."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import zlib
from typing import TYPE_CHECKING

from hullworks.errors import RunError
from hullworks.workflows.qe.attempts import PSEUDO_FOLDER, drop_scratch
from hullworks.workflows.qe.run_record import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

CHECKSUMS_NAME = "SHA256SUMS"
"""In the format of ``sha256sum``; ``sha256sum -c SHA256SUMS`` verifies a folder."""
COMPRESSED = ("pw.out", "pwscf.xml", "data-file-schema.xml")
"""Texts of an attempt that are worth compressing; inputs stay readable as they are."""


def archive_run(directory: Path) -> Path:
    """Bring a run folder that has ended to rest; a second time changes nothing.

    Scratch and pseudopotentials go (their hashes are part of the level, their names of the inputs), the long texts of
    all attempts are compressed in place, and every file of the run is written down with its SHA-256.

    Args:
        directory: The run folder.

    Returns:
        The file of checksums.

    Raises:
        RunError: A file that was archived before has changed since.
    """
    verify_archive(directory)
    shutil.rmtree(directory / PSEUDO_FOLDER, ignore_errors=True)
    for folder in attempt_folders(directory):
        drop_scratch(folder)
        for name in COMPRESSED:
            _compress(folder / name)
    lines = [f"{_sha256(path)}  {path.relative_to(directory)}" for path in _archived_files(directory)]
    target = directory / CHECKSUMS_NAME
    text = "\n".join(lines) + "\n"
    if not target.is_file() or target.read_text(encoding="utf-8") != text:
        write_atomically(target, text)
    return target


def verify_archive(directory: Path) -> None:
    """Compare a run folder with its checksums; a folder without them has nothing to compare.

    Raises:
        RunError: A file is missing or has changed.
    """
    listing = directory / CHECKSUMS_NAME
    if not listing.is_file():
        return
    for line in listing.read_text(encoding="utf-8").splitlines():
        digest, name = line.split("  ", 1)
        path = directory / name
        if not path.is_file() or _sha256(path) != digest:
            what = "the file has changed since the run was archived" if path.is_file() else "the file is missing"
            raise RunError(what, str(path), "Restore it from a backup, or run the calculation again.")


def attempt_folders(directory: Path) -> list[Path]:
    """Return the folders of all attempts, in order."""
    folders = [path for path in directory.glob("attempt-*") if path.is_dir()]
    return sorted(folders, key=lambda path: (len(path.name), path.name))


def _archived_files(directory: Path) -> list[Path]:
    """Return the run's own files; others in the folder belong to whoever launched it and may still change."""
    record = [path for path in (directory / "custodian.json", directory / "hullworks_run.json") if path.is_file()]
    attempts = [path for folder in attempt_folders(directory) for path in sorted(folder.rglob("*")) if path.is_file()]
    return record + attempts


def _compress(path: Path) -> None:
    """Replace a file by its compressed self: the same bytes for the same content, and never none of the two."""
    if not path.is_file():
        return
    target = path.with_name(path.name + ".gz")
    temporary = path.with_name(f".{path.name}.gz")
    with (
        path.open("rb") as source,
        temporary.open("wb") as raw,
        gzip.GzipFile("", "wb", zlib.Z_BEST_COMPRESSION, raw, mtime=0) as packed,
    ):
        shutil.copyfileobj(source, packed)
    temporary.replace(target)
    path.unlink()


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
