"""One worker process: checks runs out of the LaunchPad, one after another, until it is told to stop.

Started by ``hullworks launch local`` as ``python -m hullworks.launchers.worker``. Its name on the LaunchPad is its own,
and its process is on record: when it dies, whoever looks next knows at once that its run is lost. A database error ends
the process on purpose, for the same reason: a fresh worker is cheaper than a half-known state.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import sys
import time
import uuid
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from hullworks.errors import HullWorksError, MissingPartError

if TYPE_CHECKING:
    from types import FrameType

    from fireworks import LaunchPad

IDLE_SLEEP_S = 0.5
EXIT_STOPPED = 143
EXIT_DATABASE = 75
_PR_SET_PDEATHSIG = 1


def main(arguments: list[str] | None = None) -> int:
    """Work until stopped; return the exit status."""
    options = _parser().parse_args(arguments)
    _die_with_parent(options.parent)
    signal.signal(signal.SIGTERM, _stop_now)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; the parent decides

    import pymongo.errors

    try:
        _work(options.stop_file, options.parent)
    except pymongo.errors.PyMongoError as error:
        sys.stderr.write(f"worker ends: the database failed ({type(error).__name__})\n")
        return EXIT_DATABASE
    except HullWorksError as error:
        sys.stderr.write(f"worker ends: {error}\n")
        return error.exit_code
    return 0


def _work(stop_file: Path, parent: int) -> None:
    from fireworks import FWorker

    from hullworks.database import connect
    from hullworks.launchers.launchpad import open_launchpad
    from hullworks.settings import get_settings

    settings = get_settings()
    wait_s = settings.database.wait_s
    connect(settings, wait_s=wait_s, create=False)
    launchpad = open_launchpad(settings, wait_s=wait_s)
    name = register()
    worker = FWorker(name=name)
    Thread(target=_watch, args=(launchpad, name, settings.launch.heartbeat_s), daemon=True).start()
    settings.runs_dir.mkdir(parents=True, exist_ok=True)
    while not stop_file.exists() and os.getppid() == parent:
        if not _run_next(launchpad, worker, settings.runs_dir):
            time.sleep(IDLE_SLEEP_S)


def _run_next(launchpad: LaunchPad, worker: object, runs_dir: Path) -> bool:
    """Run the next ready firework in a folder of its own; return whether there was one."""
    from fireworks.core.rocket_launcher import launch_rocket

    if not launchpad.run_exists(worker):
        return False
    folder = runs_dir / time.strftime("%Y-%m-%d") / f"run-{uuid.uuid4().hex[:12]}"
    folder.mkdir(parents=True)
    os.chdir(folder)
    try:
        return bool(launch_rocket(launchpad, worker, strm_lvl="WARNING"))
    finally:
        os.chdir(runs_dir)
        if not any(folder.iterdir()):
            folder.rmdir()


def _watch(launchpad: LaunchPad, name: str, every_s: float) -> None:
    """Stop this worker when its user holds back, or gives up, the candidate whose run it has in hand.

    The run stops in order, as at any end of the worker; whoever reconciles next puts it where its user wants it, and
    the launcher starts another worker.
    """
    from pymongo.errors import PyMongoError

    from hullworks.documents import Candidate
    from hullworks.states import CandidateState

    held = [CandidateState.PAUSED, CandidateState.CANCELLED]
    while True:
        time.sleep(every_s)
        try:
            launch = launchpad.launches.find_one({"fworker.name": name, "state": "RUNNING"}, {"fw_id": 1})
            run = launchpad.fireworks.find_one({"fw_id": launch["fw_id"]}, {"spec.candidate_id": 1}) if launch else None
            candidate = run["spec"].get("candidate_id") if run else None
            if candidate and Candidate.objects(candidate_id=candidate, state__in=held).count():
                os.kill(os.getpid(), signal.SIGTERM)
        except PyMongoError:
            continue  # it is away; so is whoever would hold something back


def register(job: str | None = None, job_id: str | None = None) -> str:
    """Put this process on record and return its name.

    Args:
        job: Name of the queue job that it runs in.
        job_id: The queue's number of that job.

    Raises:
        MissingPartError: This machine does not tell processes apart.
    """
    from hullworks.documents import Worker
    from hullworks.launchers.services.processes import ProcessMark

    me = ProcessMark.of(os.getpid())
    if me is None:
        raise MissingPartError("a process cannot be told apart from later ones", "/proc", "Mount /proc.")
    name = f"{me.host}-{me.pid}-{uuid.uuid4().hex[:8]}"
    process = {"host": me.host, "boot_id": me.boot_id, "pid": me.pid, "process_started": me.started}
    Worker(worker_id=name, job=job, job_id=job_id, **process).save(force_insert=True)
    return name


def _stop_now(_signal: int, _frame: FrameType | None) -> None:
    # The children (pw.x) die with this process; the run is given back by whoever reconciles next. Nothing may run here
    # that could wait: no exception handler of FireWorks may call this a failure of the run.
    os._exit(EXIT_STOPPED)


def _die_with_parent(parent: int) -> None:
    """Ask the kernel for SIGTERM when the launching process dies, and notice if it is dead already."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(EXIT_STOPPED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hullworks worker")
    parser.add_argument("--parent", type=int, required=True, help="process id of the launcher")
    parser.add_argument("--stop-file", type=Path, required=True, help="stop after the present run when this exists")
    return parser


if __name__ == "__main__":
    sys.exit(main())
