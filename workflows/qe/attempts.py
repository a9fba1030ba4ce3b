"""The folder of one run: its attempts, each in a fresh folder of its own, and what is planned next."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from hullworks.errors import RunError
from hullworks.workflows.qe.inputs import OUTDIR, PREFIX, write_pw_input
from hullworks.workflows.qe.parser import parse_run
from hullworks.workflows.qe.protocols import run_rule

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from hullworks.workflows.qe.inputs import PwInput
    from hullworks.workflows.qe.outcomes import QeOutcome
    from hullworks.workflows.qe.parser import QeRun

INPUT_NAME = "pw.in"
OUTPUT_NAME = "pw.out"
STDERR_NAME = "pw.err"
PSEUDO_FOLDER = "pseudo"
XML_NAMES = (f"{PREFIX}.xml", f"{PREFIX}.save/data-file-schema.xml")


@dataclass(frozen=True)
class Correction:
    """One thing that a handler found wrong, and what it changed.

    Attributes:
        attempt: Number of the attempt that ended so, from 1.
        handler: Name of the handler.
        outcome: How the attempt ended.
        evidence: The lines that say so.
        actions: What was changed; empty when nothing can be done.
    """

    attempt: int
    handler: str
    outcome: QeOutcome
    evidence: tuple[str, ...]
    actions: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the correction as plain JSON types."""
        return {
            "attempt": self.attempt,
            "handler": self.handler,
            "errors": [self.outcome.value],
            "evidence": list(self.evidence),
            "actions": list(self.actions),
        }


@dataclass
class Attempt:
    """One start of pw.x.

    Attributes:
        number: From 1.
        folder: Where it ran.
        pw_input: What it was asked.
        started: Time of the start, seconds since the epoch.
        seconds: How long it took, s.
        exit_status: Its exit status, negative for a signal; none while it runs.
        run: What its files say; none while it runs.
        process: The process, once it is started.
    """

    number: int
    folder: Path
    pw_input: PwInput
    started: float = field(default_factory=time.time)
    seconds: float | None = None
    exit_status: int | None = None
    run: QeRun | None = None
    process: subprocess.Popen[bytes] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the attempt as plain JSON types."""
        return {
            "number": self.number,
            "folder": self.folder.name,
            "input_sha256": self.pw_input.sha256,
            "started": self.started,
            "seconds": self.seconds,
            "exit_status": self.exit_status,
            **({} if self.run is None else self.run.summary()),
        }


class RunFolder:
    """Everything that is known of a run while it is driven.

    Args:
        directory: The folder of the run.
        pw_input: What is asked for.
        deadline: When the allocation ends, seconds since the epoch; none when it does not.
    """

    def __init__(self, directory: Path, pw_input: PwInput, deadline: float | None = None) -> None:
        self.directory = directory
        self.asked = pw_input
        self.deadline = deadline
        self.attempts: list[Attempt] = []
        self.corrections: list[Correction] = []
        self._planned: PwInput | None = pw_input

    @property
    def planned(self) -> bool:
        """Whether a next attempt is planned."""
        return self._planned is not None

    @property
    def current(self) -> PwInput:
        """What the last attempt was asked, or what the first will be."""
        return self.attempts[-1].pw_input if self.attempts else self.asked

    @property
    def latest(self) -> QeRun | None:
        """The last attempt as its files tell it, read once it has ended; none before."""
        if not self.attempts:
            return None
        attempt = self.attempts[-1]
        if attempt.run is None and attempt.process is not None and attempt.process.poll() is not None:
            self._finish(attempt, attempt.process.returncode)
        return attempt.run

    def seconds_left(self) -> float | None:
        """Return the time that pw.x may still use, s; none when nothing ends it."""
        if self.deadline is None:
            return None
        rule = run_rule()
        return max(0.0, (self.deadline - time.time() - rule.reserve_s) * rule.walltime_share)

    def time_for_another(self) -> bool:
        """Return whether enough time is left for another attempt."""
        left = self.seconds_left()
        return left is None or left >= run_rule().min_attempt_s

    def begin(self) -> Attempt:
        """Make the folder and the input of the planned attempt.

        Raises:
            RunError: None is planned; the handlers forgot to say what is to be done.
        """
        if self._planned is None:
            raise RunError("no further attempt is planned", str(self.directory))
        number = len(self.attempts) + 1
        folder = self.directory / f"attempt-{number}"
        # A folder of that name is left over from a worker that was killed here.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        asked = replace(self._planned, max_seconds=self.seconds_left())
        (folder / INPUT_NAME).write_text(write_pw_input(asked), encoding="utf-8")
        self._planned = None
        self.attempts.append(Attempt(number, folder, asked))
        return self.attempts[-1]

    def plan(self, pw_input: PwInput, handler: str, actions: tuple[str, ...]) -> Correction:
        """Plan another attempt."""
        self._planned = pw_input
        return self.note(handler, actions)

    def note(self, handler: str, actions: tuple[str, ...] = ()) -> Correction:
        """Record what a handler found in the last attempt, and did.

        Raises:
            RunError: There is no attempt that has ended.
        """
        run = self.latest
        if run is None:
            raise RunError("no attempt has ended", str(self.directory))
        evidence = tuple(str(item) for item in run.evidence)
        self.corrections.append(Correction(len(self.attempts), handler, run.outcome, evidence, actions))
        return self.corrections[-1]

    @staticmethod
    def _finish(attempt: Attempt, exit_status: int) -> None:
        """Read an attempt that has ended, and drop its wavefunctions and densities."""
        attempt.exit_status = exit_status
        attempt.seconds = time.time() - attempt.started
        attempt.run = parse_run(attempt.folder, exit_status=exit_status)
        drop_scratch(attempt.folder)


def drop_scratch(folder: Path) -> None:
    """Delete the outdir of an attempt except for pw.x's XML file, which is moved beside the output.

    Every attempt starts from scratch: continuing from files of a stopped run ends in "charge is wrong" for two of three
    runs that were stopped in the final calculation of a relaxation.
    """
    outdir = folder / OUTDIR
    for name in XML_NAMES:
        source = outdir / name
        if source.is_file():
            source.replace(folder / source.name)
            break
    shutil.rmtree(outdir, ignore_errors=True)
