"""Drives one run of pw.x under custodian, from input to a usable result or a known cause of its end."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from custodian.custodian import Custodian, CustodianError, Job

from hullworks.errors import RunError
from hullworks.workflows.qe import checkpoints, supervise
from hullworks.workflows.qe.archive import CHECKSUMS_NAME, attempt_folders
from hullworks.workflows.qe.attempts import INPUT_NAME, OUTPUT_NAME, PSEUDO_FOLDER, STDERR_NAME, RunFolder
from hullworks.workflows.qe.diagnosis import Evidence, Finding
from hullworks.workflows.qe.executable import pools_of, pw_environment, with_pools
from hullworks.workflows.qe.handlers import build_handlers, load_repairs
from hullworks.workflows.qe.outcomes import QeOutcome
from hullworks.workflows.qe.protocols import run_rule
from hullworks.workflows.qe.run_record import RECORD_NAME, build_record, write_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType

    from hullworks.workflows.qe.executable import PwCommand
    from hullworks.workflows.qe.inputs import PwInput
    from hullworks.workflows.qe.parser import QeRun
    from hullworks.workflows.qe.pseudos import Family

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FinishedRun:
    """A run that succeeded.

    Attributes:
        run: Its last attempt.
        folder: All attempts and corrections.
        record: The content of ``hullworks_run.json``.
    """

    run: QeRun
    folder: RunFolder
    record: dict[str, Any]


class PwJob(Job):
    """pw.x as custodian drives it: each attempt runs in a fresh folder.

    Args:
        folder: The run.
        command: How to start pw.x.
        environment: Environment of pw.x.
        checkpoint: Where the next launch of the same step looks for this one.
    """

    def __init__(
        self, folder: RunFolder, command: PwCommand, environment: dict[str, str], checkpoint: Path | None = None
    ) -> None:
        self.folder = folder
        self.checkpoint = checkpoint
        self.command = command
        self.environment = environment

    def setup(self, directory: str = "./") -> None:
        """Do nothing: `run` writes the input of each attempt."""

    def run(self, directory: str = "./") -> subprocess.Popen[bytes]:  # noqa: ARG002 - custodian's interface
        """Start the planned attempt and return its process; custodian waits for it."""
        attempt = self.folder.begin()
        if self.checkpoint is not None:
            checkpoints.begin(self.checkpoint, self.folder)
        logger.info("pw.x attempt %d in %s", attempt.number, attempt.folder)
        with (attempt.folder / OUTPUT_NAME).open("wb") as out, (attempt.folder / STDERR_NAME).open("wb") as err:
            attempt.process = subprocess.Popen(
                self._command_line(),
                cwd=attempt.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
        return attempt.process

    def postprocess(self, directory: str = "./") -> None:
        """Do nothing: `run_pw` closes the folder, however the run ended."""

    def terminate(self, directory: str = "./") -> None:  # noqa: ARG002 - custodian's interface
        """End the running attempt and everything that it started."""
        process = self.folder.attempts[-1].process if self.folder.attempts else None
        if process is not None and process.poll() is None:
            process.terminate()
            process.wait()

    def as_dict(self) -> dict[str, Any]:
        """Return what custodian's log says of the job."""
        kind = type(self)
        return {"@module": kind.__module__, "@class": kind.__name__, "command": list(self.command.argv)}

    def _command_line(self) -> list[str]:
        rule, left = run_rule(), self.folder.seconds_left()
        # pw.x stops by itself before; the hard limit is for one that hangs.
        limit = 0.0 if left is None else left / rule.walltime_share
        guard = [sys.executable, "-I", "-S", supervise.__file__, str(os.getpid()), str(rule.grace_s), f"{limit:.0f}"]
        argv = self.command.with_input(INPUT_NAME)
        return [*guard, *(argv if self.folder.pools is None else with_pools(argv, self.folder.pools))]


def run_pw(
    directory: Path,
    pw_input: PwInput,
    *,
    family: Family,
    command: PwCommand,
    environment: dict[str, str] | None = None,
    deadline: float | None = None,
    checkpoint: Path | None = None,
) -> FinishedRun:
    """Run pw.x until it succeeds or no cure is left.

    The folder ends with ``hullworks_run.json`` in any case but a kill of this very process: how the run ended and by
    what evidence, all attempts, and every correction.

    Args:
        directory: The folder of the run; made when it is missing.
        pw_input: What to calculate.
        family: The pseudopotentials.
        command: How to start pw.x.
        environment: Environment of pw.x; by default that of `pw_environment`.
        deadline: When the allocation ends, seconds since the epoch; none when it does not.
        checkpoint: Folder of the step's checkpoint: the run goes on where an earlier launch of it was cut short, and
            leaves one when it is cut short itself.

    Returns:
        The run; its last attempt has `succeeded`.

    Raises:
        PseudopotentialError: A pseudopotential is missing or is not the one of the family.
        RunError: The run ended without a usable result; ``what`` names the outcome.
    """
    directory.mkdir(parents=True, exist_ok=True)
    resumed = None if checkpoint is None else checkpoints.resume(checkpoint, pw_input)
    _clear(directory)
    family.install([species.element for species in pw_input.species], directory / PSEUDO_FOLDER)
    folder = RunFolder(directory, pw_input, deadline)
    folder.pools = pools_of(command.argv)
    if resumed is not None:
        folder.resume(resumed)
    job = PwJob(folder, command, pw_environment() if environment is None else environment, checkpoint)
    with _stopping(job) as stop:
        if folder.time_for_another():
            _drive(folder, job)
    finding = _finding(folder, stop.name)
    if checkpoint is not None:
        checkpoints.finish(checkpoint, folder, finding.outcome)
    # Before anything is written: after a full disk this makes the room for it.
    folder.close()
    record = build_record(folder, finding, command, stop.name)
    write_record(directory, record)
    _stop_as_asked(stop)
    run = folder.latest
    if run is None or not run.succeeded:
        raise _failure(record, directory)
    return FinishedRun(run, folder, record)


def allocation_end(walltime_s: float | None = None, environ: dict[str, str] | None = None) -> float | None:
    """Return when the time of this process ends, seconds since the epoch; none when nothing ends it.

    Args:
        walltime_s: Longest time for a run, from now on, s.
        environ: The environment, by default that of this process; SLURM writes the end of a job there.
    """
    known = os.environ if environ is None else environ
    ends = [time.time() + walltime_s] if walltime_s else []
    slurm = known.get("SLURM_JOB_END_TIME", "")
    if slurm.isdigit():
        ends.append(float(slurm))
    return min(ends, default=None)


@dataclass
class _Stop:
    """A signal that asked this process to end while pw.x was running."""

    number: int | None = None
    before: Callable[[int, FrameType | None], Any] | int | None = signal.SIG_DFL
    """What the signal did before, and is to do again."""

    @property
    def name(self) -> str:
        return "" if self.number is None else signal.Signals(self.number).name


class _StopAskedError(BaseException):
    """Leaves custodian, which catches every Exception, when this process is asked to end."""


def _clear(directory: Path) -> None:
    """Remove what an earlier, killed run left in the folder, so that nothing of it is taken for ours."""
    for attempt in attempt_folders(directory):
        shutil.rmtree(attempt)
    for name in (RECORD_NAME, CHECKSUMS_NAME, Custodian.LOG_FILE):
        (directory / name).unlink(missing_ok=True)


def _drive(folder: RunFolder, job: PwJob) -> None:
    """Let custodian run and repair, until success or until no handler has a cure."""
    repairs = load_repairs()
    custodian = Custodian(
        build_handlers(folder),
        [job],
        max_errors=repairs.max_corrections + 1,
        polling_time_step=repairs.poll_s,
        monitor_freq=max(1, round(repairs.watch_s / repairs.poll_s)),
        terminate_on_nonzero_returncode=False,
        directory=str(folder.directory),
    )
    try:
        custodian.run()  # type: ignore[no-untyped-call]
    except CustodianError as error:
        # The record says how the run ended; custodian only says that it gave up.
        logger.info("custodian: %s", error)


@contextmanager
def _stopping(job: PwJob) -> Iterator[_Stop]:
    """End pw.x and leave the block early, without an error, when this process gets SIGTERM."""
    stop = _Stop()

    def ask(number: int, _frame: FrameType | None) -> None:
        # Once is enough: SLURM signals twice, and the kernel once for each thread of a parent that dies.
        signal.signal(number, signal.SIG_IGN)
        stop.number = number
        raise _StopAskedError

    if threading.current_thread() is not threading.main_thread():  # only the main thread may ask for signals
        yield stop
        return
    stop.before = signal.signal(signal.SIGTERM, ask)
    try:
        yield stop
    except _StopAskedError:
        job.terminate()
    finally:
        if stop.number is None:
            signal.signal(signal.SIGTERM, stop.before)


def _stop_as_asked(stop: _Stop) -> None:
    """Do what the signal would have done, now that the folder is in order."""
    if stop.number is not None:
        signal.signal(stop.number, stop.before)
        os.kill(os.getpid(), stop.number)


def _finding(folder: RunFolder, stopped_by: str) -> Finding:
    run = folder.latest
    if stopped_by:
        return Finding(QeOutcome.INTERRUPTED, (Evidence("", None, f"the worker got {stopped_by}"),))
    if run is None:
        text = "too little time was left in the allocation to start"
        return Finding(QeOutcome.WALLTIME_STOP, (Evidence("", None, text),))
    return Finding(run.outcome, run.evidence)


def _failure(record: dict[str, Any], directory: Path) -> RunError:
    tried = [correction["handler"] for correction in record["corrections"] if correction["actions"]]
    attempts = len(record["attempts"])
    what = f"pw.x ended with {record['outcome']} after {attempts} attempt{'' if attempts == 1 else 's'}"
    cures = f" (tried {', '.join(tried)})" if tried else ""
    evidence = f": {record['evidence'][0]}" if record["evidence"] else ""
    return RunError(what + cures + evidence, str(directory), f"{RECORD_NAME} there has all of it.")
