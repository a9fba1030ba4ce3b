"""Places for runs: processes that have imported everything, and fork a child for each run.

The worker of an allocation opens them before it has any thread or connection. So each run starts within milliseconds,
has a working folder, signals and processors of its own, may die in any way, and has no connection to the database.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias

from hullworks.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Work: TypeAlias = "Callable[[dict[str, Any]], None]"
"""Does a run, in its own process, as an order says."""

_PR_SET_PDEATHSIG: Final = 1
_SIGNALS: Final = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)
EXIT_STOPPED: Final = 143
EXIT_FAILED: Final = 70


@dataclass
class Seat:
    """One place for a run.

    Attributes:
        cpus: Processors that its runs are bound to; empty when they are not.
        process: Number of the process that forks.
        channel: How orders and reports travel.
        run: Number of the run's own process, which leads a group; none when it is free.
    """

    cpus: tuple[int, ...]
    process: int
    channel: socket.socket
    run: int | None = None
    _received: bytes = field(default=b"", repr=False)

    def fileno(self) -> int:
        """Return the descriptor that can be read when there is a report."""
        return self.channel.fileno()

    def start(self, order: dict[str, Any]) -> None:
        """Start a run.

        Raises:
            ServiceError: The seat is gone.
        """
        try:
            self.channel.sendall(json.dumps(order).encode() + b"\n")
            self.run = int(self._line()["pid"])
        except OSError:
            raise ServiceError("a place for runs is gone", f"process {self.process}") from None

    def report(self) -> int:
        """Wait for the end of the run, and return its exit status; negative for the signal that ended it.

        Raises:
            ServiceError: The seat is gone.
        """
        status = int(self._line()["status"])
        self.run = None
        return status

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the run and what it started, if it still lives."""
        if self.run is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.run, number)

    def close(self) -> None:
        """End the process that forks; a run of it would end too."""
        self.channel.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.process, 0)

    def _line(self) -> dict[str, Any]:
        while b"\n" not in self._received:
            more = self.channel.recv(4096)
            if not more:
                raise ServiceError("a place for runs is gone", f"process {self.process}")
            self._received += more
        line, _, self._received = self._received.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found


def open_seats(places: Sequence[tuple[int, ...]], work: Work) -> list[Seat]:
    """Open a seat for each place; call it before there is any thread or connection.

    Args:
        places: Processors of each seat; empty for all.
        work: Does a run; called in its own process with the order.
    """
    seats: list[Seat] = []
    for cpus in places:
        ours, theirs = socket.socketpair()
        parent, process = os.getpid(), os.fork()
        if process == 0:
            for each in (ours, *(seat.channel for seat in seats)):
                each.close()
            _serve(parent, theirs, cpus, work)
        theirs.close()
        seats.append(Seat(cpus, process, ours))
    return seats


def _serve(parent: int, channel: socket.socket, cpus: tuple[int, ...], work: Work) -> NoReturn:
    """Fork a child for each order, and report its end; the end of the orders is the end."""
    die_with_parent(parent, signal.SIGKILL)
    for number in _SIGNALS:  # SLURM sends them to all; the worker decides what they mean
        signal.signal(number, signal.SIG_IGN)
    with channel, channel.makefile("rb") as orders:
        for line in orders:
            here, run = os.getpid(), os.fork()
            if run == 0:
                channel.close()
                _run(here, cpus, work, json.loads(line))
            with contextlib.suppress(PermissionError, ProcessLookupError):
                os.setpgid(run, run)  # here too: whoever hears of the run may signal its group at once
            with contextlib.suppress(BrokenPipeError):
                channel.sendall(json.dumps({"pid": run}).encode() + b"\n")
                _, status = os.waitpid(run, 0)
                channel.sendall(json.dumps({"status": os.waitstatus_to_exitcode(status)}).encode() + b"\n")
    os._exit(0)


def _run(parent: int, cpus: tuple[int, ...], work: Work, order: dict[str, Any]) -> NoReturn:
    """Be the process of one run."""
    status = EXIT_FAILED
    try:
        os.setpgid(0, 0)
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, _stop_now)
        die_with_parent(parent, signal.SIGTERM)
        if cpus:
            os.sched_setaffinity(0, cpus)
        os.environ.update(order.get("environment", {}))
        work(order)
        status = 0
    finally:
        # Whatever happened, this copy of the worker must not go on as one; threads that were left wait for nobody.
        _tell_error()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _tell_error() -> None:
    kind, error, _ = sys.exc_info()
    if kind is not None:
        sys.stderr.write(f"run ends: {kind.__name__}: {error}\n")


def _stop_now(_signal: int, _frame: object) -> None:
    # No handler of FireWorks may call this a failure of the run. What it started, and leads, ends with it.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(0, signal.SIGTERM)
    os._exit(EXIT_STOPPED)


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Let signals wait until the end of the block: what it does is done whole."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def die_with_parent(parent: int, number: signal.Signals) -> None:
    """Ask the kernel for a signal when the parent dies, and end at once if it is dead already."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(EXIT_STOPPED)


def places_for(slots: int, available: Sequence[int], granted: int | None) -> list[tuple[int, ...]]:
    """Return the processors of each slot.

    Args:
        slots: Runs side by side.
        available: Processors that this process may use.
        granted: How many the allocation has; none when that is not known. When more are available, the cluster does
            not confine its jobs, ours are not known, and nothing is bound.
    """
    each = len(available) // slots
    if each == 0 or (granted is not None and granted != len(available)):
        return [()] * slots
    cpus = sorted(available)
    return [tuple(cpus[number * each : (number + 1) * each]) for number in range(slots)]
