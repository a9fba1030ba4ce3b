"""Doctor's look at the machine: Python and its packages, SLURM, Chromium, disk space."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import sys
from typing import TYPE_CHECKING, Final

from hullworks.launchers.services.findings import Part, PartState, ask, found_version

if TYPE_CHECKING:
    from pathlib import Path

    from hullworks.settings import Settings

PACKAGES: Final = ("hullworks", "FireWorks", "jobflow", "pymatgen")
CHROMIUM_NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
QUESTION_WAIT_S = 8.0
SLURM_WAIT_S = 12.0
"""Without its controller sinfo gives up after 9 s."""
LOW_SPACE_BYTES = 2 * 1024**3
"""A run folder of a small cell takes 10 MB before it is compressed; below this a batch would soon fill the disk."""


def check_python(_settings: Settings) -> list[Part]:
    """Say which Python runs HullWorks."""
    return [Part(name="Python", state=PartState.WORKS, version=platform.python_version(), where=sys.executable)]


def check_packages(_settings: Settings) -> list[Part]:
    """Say which versions of the packages are installed on which results depend."""
    return [_package(name) for name in PACKAGES]


def check_slurm(_settings: Settings) -> list[Part]:
    """Say whether SLURM is installed and its controller answers."""
    cure = "Batches also run on this machine alone; for a cluster, run HullWorks where `sinfo` works."
    path = shutil.which("sinfo")
    if path is None:
        return [Part(name="SLURM", state=PartState.OPTIONAL_MISSING, how_to_get=cure)]
    version = found_version(r"^slurm\S* (\S+)", ask([path, "--version"], QUESTION_WAIT_S))
    answer = ask([path, "--noheader", "--format=%R"], SLURM_WAIT_S)
    if answer.status == 0:
        partitions = ", ".join(sorted(set(answer.output.split())))
        detail = f"Partitions: {partitions}." if partitions else "It has no partition that you may use."
        return [Part(name="SLURM", state=PartState.WORKS, version=version, where=path, detail=detail)]
    detail = f"Its controller does not answer: {answer.first_line}"
    return [Part(name="SLURM", state=PartState.BROKEN, version=version, where=path, detail=detail, how_to_get=cure)]


def check_chromium(_settings: Settings) -> list[Part]:
    """Say whether there is a browser for pictures of interactive plots."""
    cure = "Install Chromium (Debian: apt install chromium)."
    path = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if path is None:
        return [Part(name="Chromium", state=PartState.OPTIONAL_MISSING, how_to_get=cure)]
    answer = ask([path, "--version"], QUESTION_WAIT_S)
    if answer.status != 0:
        detail = answer.first_line
        return [Part(name="Chromium", state=PartState.BROKEN, where=path, detail=detail, how_to_get=cure)]
    version = found_version(r"Chrom\D*(\d[\d.]+)", answer)
    return [Part(name="Chromium", state=PartState.WORKS, version=version, where=path)]


def check_disk(settings: Settings) -> list[Part]:
    """Say how much space there is for run folders and the private database."""
    folder = _nearest_folder(settings.data_dir)
    usage = shutil.disk_usage(folder)
    detail = f"{_gib(usage.free)} of {_gib(usage.total)} are free."
    if usage.free >= LOW_SPACE_BYTES:
        return [Part(name="disk", state=PartState.WORKS, where=str(folder), detail=detail)]
    cure = "Free some space, or set data_dir to another disk."
    return [Part(name="disk", state=PartState.BROKEN, where=str(folder), detail=detail, how_to_get=cure)]


def _package(name: str) -> Part:
    try:
        return Part(name=name, state=PartState.WORKS, version=importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Part(name=name, state=PartState.MISSING, how_to_get=f"pip install {name}")


def _nearest_folder(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def _gib(size: int) -> str:
    return f"{size / 1024**3:.1f} GiB"
