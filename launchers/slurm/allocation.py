"""The worker of a SLURM allocation: imports once, then works through many runs, several side by side.

A batch script becomes it: ``python -m hullworks.launchers.slurm.allocation``. It alone has a connection to the
database; each run is a process without one, started by a fork (see `seats`), which leaves its result in its folder (see
`handover`). Its end is orderly whatever asks for it: the runs are told to stop and save, and those without a result are
ready again.
"""

from __future__ import annotations

import argparse
import os
import selectors
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final

from hullworks.errors import HullWorksError
from hullworks.launchers.slurm.seats import EXIT_STOPPED, Seat, open_seats, places_for

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType

    from hullworks.launchers.slurm.runs import Runs

EXIT_DATABASE: Final = 75
LONGEST_PAUSE_S: Final = 10.0
"""Between two looks for work while there is none; a thousand allocations may wait at once."""
SHORTEST_PAUSE_S: Final = 0.05
KILL_WAIT_S: Final = 600.0
"""How long runs that were told to stop may take; SLURM ends them long before if it is in a hurry."""
ANSWER_S: Final = 10.0


class StopAskedError(BaseException):
    """SLURM asks this process to end; no handler of errors on the way may take it for one."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@dataclass
class Allocation:
    """Works through the LaunchPad until the time is over, nothing is left, or SLURM asks for the end.

    Attributes:
        runs: Where the runs come from and what becomes of them.
        seats: Places for them.
        ends_at: When the allocation is over, less what it takes to end, seconds since the epoch; none for never.
        idle_s: How long it waits for work, s.
        max_runs: After so many runs it ends; 0 for no limit.
        fw_id: The one FireWork that it is for.
    """

    runs: Runs
    seats: list[Seat]
    ends_at: float | None
    idle_s: float
    max_runs: int = 0
    fw_id: int | None = None
    begun: int = 0
    _pause_s: float = SHORTEST_PAUSE_S
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)

    def work(self) -> None:
        """Work until there is nothing more to do here."""
        for seat in self.seats:
            self._selector.register(seat, selectors.EVENT_READ, seat)
        idle_since = time.monotonic()
        while True:
            self._fill()
            if self._busy():
                idle_since = time.monotonic()
            elif not self._may_begin() or time.monotonic() - idle_since >= self.idle_s:
                return
            for key, _ in self._selector.select(self._wait_s()):
                self.runs.finish(key.data)
                self._pause_s = SHORTEST_PAUSE_S
            self.runs.look_after(self.seats)

    def stop(self, why: str) -> None:
        """Tell the runs to end, and give back each that ends without a result; waits for a database that is away."""
        self.runs.stopping = why
        for seat in self._busy():
            seat.signal(signal.SIGTERM)
        self.runs.settle()
        deadline = time.monotonic() + KILL_WAIT_S
        while self._busy():
            for key, _ in self._selector.select(max(deadline - time.monotonic(), 0.0)):
                self.runs.finish(key.data)
            if time.monotonic() > deadline:
                for seat in self._busy():
                    seat.signal(signal.SIGKILL)
                deadline = time.monotonic() + KILL_WAIT_S

    def _fill(self) -> None:
        """Begin a run on each free seat, as long as there is one that fits."""
        for seat in self.seats:
            if seat.run is None and self._may_begin():
                if not self.runs.begin(seat, self._left_s(), self.fw_id):
                    return
                self.begun += 1
                self._pause_s = SHORTEST_PAUSE_S

    def _may_begin(self) -> bool:
        limit = 1 if self.fw_id is not None else self.max_runs
        left = self._left_s()
        return (not limit or self.begun < limit) and (left is None or left > 0.0)

    def _left_s(self) -> float | None:
        return None if self.ends_at is None else self.ends_at - time.time()

    def _busy(self) -> list[Seat]:
        return [seat for seat in self.seats if seat.run is not None]

    def _wait_s(self) -> float:
        """Return how long to wait for the end of a run before looking for work again, ever longer."""
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)
        return self._pause_s


def main(arguments: list[str] | None = None) -> int:
    """Work until nothing is left to do here; return the exit status."""
    options = _parser().parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, _ask)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return _work(options)
    except StopAskedError:  # before there was anything to stop
        return EXIT_STOPPED
    except HullWorksError as error:
        sys.stderr.write(f"worker ends: {error}\n")
        return error.exit_code


def _work(options: argparse.Namespace) -> int:
    import pymongo.errors

    from hullworks.launchers.slurm import handover, runs

    runs.import_all()
    ends_at = allocation_end(os.environ)
    places = places_for(options.slots, sorted(os.sched_getaffinity(0)), granted_cpus(os.environ))
    # Before the first thread and the first connection.
    seats = open_seats(places, handover.run_in_folder)
    last = None if ends_at is None else ends_at - options.lead
    try:
        found = runs.Runs.open(last, os.environ)
        allocation = Allocation(found, seats, last, options.idle, options.max_runs, options.fw_id)
        return _until_asked(allocation)
    except pymongo.errors.PyMongoError as error:
        sys.stderr.write(f"worker ends: the database failed ({type(error).__name__})\n")
        return EXIT_DATABASE
    finally:
        for seat in seats:
            # Only after an error has it a run; results and checkpoints are in the runs' folders.
            seat.signal(signal.SIGTERM)
        for seat in seats:
            seat.close()


def _until_asked(allocation: Allocation) -> int:
    try:
        allocation.work()
    except StopAskedError as asked:
        name = signal.Signals(asked.number).name
        over = asked.number == signal.SIGUSR1
        allocation.stop("the allocation's time is over" if over else f"the allocation was ended ({name})")
        allocation.runs.close()
        return 0 if over else EXIT_STOPPED
    allocation.runs.close()
    return 0


def _ask(number: int, _frame: FrameType | None) -> None:
    # Once is enough: SLURM signals twice.
    for each in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(each, signal.SIG_IGN)
    raise StopAskedError(number)


def allocation_end(environ: Mapping[str, str]) -> float | None:
    """Return when this allocation ends, seconds since the epoch; none when nothing ends it, or nobody says so.

    Args:
        environ: The environment of a job; newer SLURMs write it there, the others are asked.
    """
    told = environ.get("SLURM_JOB_END_TIME", "")
    if told.isdecimal():
        return float(told)
    job = environ.get("SLURM_JOB_ID", "")
    if not job:
        return None
    command = ["squeue", "--noheader", f"--jobs={job}", "--format=%e"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=ANSWER_S)
        return datetime.fromisoformat(done.stdout.strip()).timestamp()
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None


def granted_cpus(environ: Mapping[str, str]) -> int | None:
    """Return how many processors the allocation has on this node; none outside of SLURM."""
    text = environ.get("SLURM_CPUS_ON_NODE", "")
    return int(text) if text.isdecimal() else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hullworks allocation")
    parser.add_argument("--slots", type=int, default=1, help="runs side by side")
    parser.add_argument("--lead", type=float, default=0.0, help="end so long before the allocation does, s")
    parser.add_argument("--idle", type=float, default=120.0, help="wait so long for work, s")
    parser.add_argument("--max-runs", type=int, default=0, help="end after so many runs")
    parser.add_argument("--fw-id", type=int, help="do this FireWork, and end")
    return parser


if __name__ == "__main__":
    sys.exit(main())
