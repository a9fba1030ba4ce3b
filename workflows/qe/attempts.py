"""The folder of one run: its attempts, each in a fresh folder of its own, and what is planned next."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from hullworks.errors import RunError
from hullworks.workflows.qe.diagnosis import Evidence
from hullworks.workflows.qe.inputs import OUTDIR, PREFIX, write_pw_input
from hullworks.workflows.qe.outcomes import QeOutcome
from hullworks.workflows.qe.parser import parse_run
from hullworks.workflows.qe.protocols import run_rule
from hullworks.workflows.qe.restarts import Choice, RestartKind, carry, choose
from hullworks.workflows.qe.thresholds import thresholds

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from pymatgen.core import Structure

    from hullworks.workflows.qe.checkpoints import Resumed
    from hullworks.workflows.qe.handlers.base import Remedy
    from hullworks.workflows.qe.inputs import PwInput
    from hullworks.workflows.qe.parser import QeRun

INPUT_NAME = "pw.in"
OUTPUT_NAME = "pw.out"
STDERR_NAME = "pw.err"
PSEUDO_FOLDER = "pseudo"
STRUCTURE_ACTION = "structure: "
"""How the action of a cure begins that changes the structure."""
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

    @property
    def outdir(self) -> Path:
        """Where pw.x keeps its densities and wavefunctions, in the attempt's folder unless the disk was full."""
        return self.folder / str(self.pw_input.setting("CONTROL", "outdir"))

    def as_dict(self) -> dict[str, Any]:
        """Return the attempt as plain JSON types."""
        return {
            "number": self.number,
            "folder": self.folder.name,
            "input_sha256": self.pw_input.sha256,
            "restart": self.pw_input.restart.value,
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
        self.pools: int | None = None
        self.scratch: Path | None = None
        self.start: Structure | None = None
        self.pieces: tuple[dict[str, Any], ...] = ()
        self._carried: Path | None = None
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

    @property
    def runs(self) -> list[QeRun]:
        """The attempts that have ended, as their files tell them."""
        return [attempt.run for attempt in self.attempts if attempt.run is not None]

    def resume(self, resumed: Resumed) -> None:
        """Let the first attempt go on where earlier launches of the same step ended."""
        self.start, self.pieces = resumed.structure, resumed.pieces
        self._planned, self._carried = resumed.pw_input, resumed.outdir

    @property
    def running(self) -> bool:
        """Whether pw.x is at work."""
        process = self.attempts[-1].process if self.attempts else None
        return process is not None and process.poll() is None

    def rename_end(self, outcome: QeOutcome, evidence: Evidence) -> None:
        """Name the end of an attempt that was ended from here, which its own files call an interruption."""
        run = self.latest
        if run is not None and not run.succeeded:
            self.attempts[-1].run = replace(run, outcome=outcome, evidence=(evidence,))

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
        if self.scratch is not None:
            asked = asked.with_setting("CONTROL", "outdir", str(self.scratch / folder.name))
        attempt = Attempt(number, folder, asked)
        # A scratch folder of that name is left over likewise.
        shutil.rmtree(attempt.outdir, ignore_errors=True)
        attempt.outdir.mkdir(parents=True)
        (folder / INPUT_NAME).write_text(write_pw_input(attempt.pw_input), encoding="utf-8")
        self._take_over(attempt)
        self._planned = None
        self.attempts.append(attempt)
        return attempt

    def _take_over(self, attempt: Attempt) -> None:
        """Bring what a new attempt goes on from into its outdir, and drop the rest of the one before."""
        before = self.attempts[-1] if self.attempts else None
        source = self._carried if before is None else before.outdir
        if source is not None:
            carry(attempt.pw_input.restart, source, attempt.outdir)
        if before is not None:
            drop_scratch(before.folder, before.outdir)

    def with_progress(self, run: QeRun) -> QeRun:
        """Return a failed run with the last structure that this run or one before it calculated, for what follows."""
        if run.structure is not None or run.succeeded:
            return run
        known = [earlier.structure for earlier in self.runs if earlier.structure is not None]
        return replace(run, structure=known[-1] if known else self.start)

    def plan(self, remedy: Remedy, handler: str, wanted: RestartKind) -> Correction:
        """Plan another attempt.

        Args:
            remedy: What it is asked.
            handler: Name of the cure.
            wanted: What it takes over where the files are whole.
        """
        asked, before = remedy.pw_input, self.current
        choice, actions = self._choice(wanted, same_start=asked.structure == before.structure), remedy.actions
        if choice.kind is RestartKind.FULL:
            # pw.x takes the structure from its files; the input's cell is the one that its basis belongs to.
            asked = asked.with_structure(before.structure)
            actions = tuple(action for action in actions if not action.startswith(STRUCTURE_ACTION))
        self._planned = replace(asked, restart=choice.kind)
        self.pools = remedy.pools or self.pools
        self.scratch = remedy.scratch or self.scratch
        return self.note(handler, (*actions, *choice.actions))

    def allows(self, kind: RestartKind) -> bool:
        """Return whether the last attempt left whole files for a kind of restart from the same structure."""
        return self._choice(kind, same_start=True).kind is kind

    def _choice(self, wanted: RestartKind, *, same_start: bool) -> Choice:
        run = self.latest
        if run is None:
            return Choice(RestartKind.SCRATCH, ("nothing has ended yet",))
        return choose(wanted, self.attempts[-1].outdir, run, same_start=same_start)

    def close(self) -> None:
        """Drop the densities and wavefunctions of the last attempt, whose end is known."""
        if self.attempts:
            drop_scratch(self.attempts[-1].folder, self.attempts[-1].outdir)
        if self.scratch is not None:
            shutil.rmtree(self.scratch, ignore_errors=True)

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
        """Read an attempt that has ended; its densities and wavefunctions stay until the next has begun."""
        attempt.exit_status = exit_status
        attempt.seconds = time.time() - attempt.started
        attempt.run = _looked_into(parse_run(attempt.folder, exit_status=exit_status), attempt)
        if attempt.run.outcome is QeOutcome.DISK_FULL:
            # Of no use to anybody, and the logs need the room.
            shutil.rmtree(attempt.outdir, ignore_errors=True)
        elif attempt.run.succeeded:
            drop_scratch(attempt.folder, attempt.outdir)


def _looked_into(run: QeRun, attempt: Attempt) -> QeRun:
    """Return a run by what its own files do not tell, but its input and its disk do."""
    if run.succeeded:
        return _on_fixed_occupations(run, attempt.pw_input)
    return run if run.outcome.fatal else _on_full_disk(run, attempt.outdir)


def _on_fixed_occupations(run: QeRun, asked: PwInput) -> QeRun:
    """Return a run that filled the lowest bands alike at every k-point with what that hides: a metal.

    pw.x says nothing of it, and its energy is wrong. A gap shows that there is none; it takes an empty band, which is
    not calculated by default. Recorded runs: Mg and MgSi, 6.7 and 7.2, all with exit status 0.
    """
    if asked.setting("SYSTEM", "occupations") not in {None, "fixed"} or (run.gap_eV or 0.0) > 0.0:
        return run
    if run.gap_eV is None:
        hidden = Evidence("", None, "fixed occupations without an empty band hide whether this is a metal")
        return replace(run, outcome=QeOutcome.HIGHEST_BAND_OCCUPIED, evidence=(hidden,))
    crossing = Evidence("", None, "fixed occupations, but the occupied bands and the empty ones overlap: a metal")
    return replace(run, outcome=QeOutcome.SMEARING_NEEDED, evidence=(crossing,))


def _on_full_disk(run: QeRun, outdir: Path) -> QeRun:
    """Return a failed run with the reason for it, if there was no room left: a full disk shows as many other errors."""
    free = shutil.disk_usage(outdir if outdir.is_dir() else run.directory).free
    if free >= thresholds()["full_disk_bytes"]:
        return run
    evidence = Evidence("", None, f"{free} bytes are left on the disk of {outdir}")
    return replace(run, outcome=QeOutcome.DISK_FULL, evidence=(evidence, *run.evidence))


def drop_scratch(folder: Path, outdir: Path | None = None) -> None:
    """Delete the outdir of an attempt except for pw.x's XML file, which is moved beside the output.

    Args:
        folder: The attempt's folder.
        outdir: Its outdir, where it is not the usual one.
    """
    scratch = outdir or folder / OUTDIR
    for name in XML_NAMES:
        source = scratch / name
        if source.is_file():
            shutil.move(source, folder / source.name)
            break
    shutil.rmtree(scratch, ignore_errors=True)
