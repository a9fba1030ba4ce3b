"""What doctor finds: one part of a machine, its state, and how to get it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class PartState(StrEnum):
    """How a part of this machine is.

    WORKS: it was seen to work, or the detail says why it was not tried.
    BROKEN: it is here, or is asked for by the settings, and does not work.
    MISSING: it is not here, and HullWorks cannot do its work without it.
    OPTIONAL_MISSING: it is not here, and only some of HullWorks needs it.
    """

    WORKS = "works"
    BROKEN = "broken"
    MISSING = "missing"
    OPTIONAL_MISSING = "optional-missing"


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of a machine, as doctor found it.

    Attributes:
        name: Its name.
        state: Its state.
        version: Its version, empty when it has none or does not tell.
        where: Its file, folder or address, without anything secret.
        detail: What more there is to say, as a sentence.
        how_to_get: A command or sentence that gets or repairs it; empty when there is nothing to do.
    """

    name: str
    state: PartState
    version: str = ""
    where: str = ""
    detail: str = ""
    how_to_get: str = ""

    def as_dict(self) -> dict[str, str]:
        """Return the part as a plain dictionary for JSON output."""
        return asdict(self)


@dataclass(frozen=True)
class Answer:
    """What a program answered.

    Attributes:
        status: Its exit status; none when it could not be started or did not end in time.
        output: What it printed, or why it did not.
    """

    status: int | None
    output: str

    @property
    def first_line(self) -> str:
        """First line of the output that is not empty."""
        return next((line.strip() for line in self.output.splitlines() if line.strip()), "")


def ask(
    command: Sequence[str], wait_s: float, *, environment: Mapping[str, str] | None = None, folder: str | None = None
) -> Answer:
    """Run a program that only answers a question, and never wait long for it.

    Args:
        command: Program and arguments.
        wait_s: Longest time, s; then it is killed.
        environment: Its environment; by default this process's.
        folder: Its working folder; by default this process's.
    """
    try:
        with subprocess.Popen(
            list(command),
            cwd=folder,
            env=dict(os.environ if environment is None else environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that its children end with it
        ) as process:
            return _answer(process, wait_s)
    except OSError as error:
        return Answer(None, f"it cannot be started ({error.strerror})")


def _answer(process: subprocess.Popen[bytes], wait_s: float) -> Answer:
    try:
        output, _ = process.communicate(timeout=wait_s)
    except subprocess.TimeoutExpired:
        return Answer(None, f"it did not answer within {wait_s:.0f} s")
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
    return Answer(process.returncode, output.decode(errors="replace"))


def found_version(pattern: str, answer: Answer) -> str:
    """Return what the first group of ``pattern`` matches in an answer, empty when nothing does.

    Not simply the first line: start scripts complain before the program speaks.
    """
    match = re.search(pattern, answer.output, re.MULTILINE)
    return match[1] if match else ""
