"""Where pw.x is, and the environment in which it runs."""

from __future__ import annotations

import os
import shlex
import shutil
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from hullworks.errors import MissingPartError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from hullworks.settings import Settings

EMBEDDED_FOLDER = "qe-7.2"
"""Folder of the embedded Quantum ESPRESSO below ``parts_dir``: a Python environment of its own."""


@dataclass(frozen=True)
class PwCommand:
    """How to start pw.x.

    Attributes:
        argv: Program and arguments, without the input file.
        source: Where it was found: ``settings``, ``embedded`` or ``path``.
    """

    argv: tuple[str, ...]
    source: str

    def with_input(self, filename: str) -> list[str]:
        """Return the whole command line for an input file."""
        return [*self.argv, "-i", filename]


POOL_OPTIONS = ("-nk", "-npool", "-npools", "-nkpools")
"""Names of pw.x's option for the number of pools, each also with two dashes."""


def pools_of(argv: Sequence[str]) -> int | None:
    """Return the number of pools that a command line asks for; none when it says nothing."""
    for option, value in pairwise(argv):
        if f"-{option.lstrip('-')}" in POOL_OPTIONS and value.isdigit():
            return int(value)
    return None


def with_pools(argv: Sequence[str], pools: int) -> list[str]:
    """Return a command line with another number of pools; one that says nothing of them stays as it is."""
    result = list(argv)
    for index, option in enumerate(result[:-1]):
        if f"-{option.lstrip('-')}" in POOL_OPTIONS and result[index + 1].isdigit():
            result[index + 1] = str(pools)
    return result


def pw_command(settings: Settings) -> PwCommand:
    """Return how to start pw.x: as the settings say, else the embedded one, else the one on the path.

    Args:
        settings: The settings of the project.

    Raises:
        SettingsError: ``qe.command`` cannot be read as a command, or its program is not there.
        MissingPartError: There is no pw.x at all.
    """
    if settings.qe.command:
        return _from_settings(settings.qe.command)
    embedded = embedded_python(settings.parts_dir)
    if embedded.is_file():
        return PwCommand((str(embedded), "-m", "qepy", "--pw.x"), "embedded")
    found = shutil.which("pw.x")
    if found:
        return PwCommand((found,), "path")
    raise MissingPartError(
        "Quantum ESPRESSO's pw.x is not installed",
        "",
        "Run `hullworks doctor --fetch` to get the embedded one, or set `command` in [qe] of hullworks.toml.",
    )


def embedded_python(parts_dir: Path) -> Path:
    """Return the Python interpreter of the embedded Quantum ESPRESSO, whether it is there or not."""
    return parts_dir / EMBEDDED_FOLDER / "bin" / "python"


def pw_environment(
    environ: Mapping[str, str] | None = None, *, threads: int = 1, root: bool | None = None
) -> dict[str, str]:
    """Return the environment for pw.x.

    Args:
        environ: The environment to start from; by default that of this process.
        threads: OpenMP threads, unless the environment already says so.
        root: Whether root runs it; by default whether this process does.
    """
    result = dict(os.environ if environ is None else environ)
    result.setdefault("OMP_NUM_THREADS", str(threads))
    # Without it the last lines, which hold the reason, are lost when MPI_ABORT ends a run.
    result["GFORTRAN_UNBUFFERED_ALL"] = "1"
    if os.geteuid() == 0 if root is None else root:
        # Open MPI refuses root, which is the only user there is in many containers.
        result["OMPI_ALLOW_RUN_AS_ROOT"] = "1"
        result["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] = "1"
    return result


def _from_settings(command: str) -> PwCommand:
    where = "setting qe.command"
    try:
        argv = tuple(shlex.split(command))
    except ValueError as error:
        raise SettingsError(f"not a command ({error})", where) from None
    if not argv or shutil.which(argv[0]) is None:
        raise SettingsError(f"there is no program '{argv[0] if argv else ''}'", where, "Give a full path, or load it.")
    return PwCommand(argv, "settings")
