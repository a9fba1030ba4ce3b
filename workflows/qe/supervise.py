"""Starts a program that dies with its starter; run as a script by its path, with the standard library alone.

A worker may be killed with SIGKILL at any time, and must leave no pw.x behind that goes on for hours beside its own
repetition. The kernel sends a signal to a process whose parent ends (PR_SET_PDEATHSIG), but to that process alone, not
to what it started in turn (mpirun's ranks). So this process stands in between: when its parent ends, or when it is told
to stop, it ends the whole process group of the program, and when itself is killed, the kernel ends the program.

    python supervise.py PARENT_PID GRACE_S LIMIT_S PROGRAM [ARGUMENT ...]

It ends as the program ended: with its exit status, or by the same signal.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import time

TYPE_CHECKING = False  # type checkers take it for typing's; the module itself costs as much as the interpreter's start
if TYPE_CHECKING:
    from types import FrameType

PR_SET_PDEATHSIG = 1
NOT_FOUND = 127
POLL_S = 0.05


class _StopError(Exception):
    """The program is to be ended."""


def main(arguments: list[str]) -> int:
    """Run the program and return its exit status; see the module's docstring for the arguments."""
    parent, grace_s, limit_s = int(arguments[0]), float(arguments[1]), float(arguments[2])
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _stop)
    # A core file of a code with gigabytes of arrays fills disks and helps nobody here.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    die_with_parent(signal.SIGTERM)
    if os.getppid() != parent:  # it ended before the kernel was asked
        return NOT_FOUND
    return _supervise(arguments[3:], grace_s, limit_s)


def die_with_parent(number: int) -> None:
    """Ask the kernel to send a signal to this process when its parent ends."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)


def _supervise(command: list[str], grace_s: float, limit_s: float) -> int:
    me = os.getpid()

    def prepare() -> None:
        # Safe here, between fork and exec: this process has a single thread.
        die_with_parent(signal.SIGKILL)
        if os.getppid() != me:
            os._exit(NOT_FOUND)

    try:
        child = subprocess.Popen(command, start_new_session=True, preexec_fn=prepare)  # noqa: PLW1509
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        return NOT_FOUND
    try:
        status = child.wait(limit_s if limit_s > 0.0 else None)
    except (_StopError, subprocess.TimeoutExpired):
        status = _end(child, grace_s)
    return _like(status)


def _end(child: subprocess.Popen[bytes], grace_s: float) -> int:
    """End a program and everything that it started, first politely."""
    _ignore_further()
    _signal_group(child.pid, signal.SIGTERM)
    end = time.monotonic() + grace_s
    while child.poll() is None and time.monotonic() < end:
        time.sleep(POLL_S)
    _signal_group(child.pid, signal.SIGKILL)
    return child.wait()


def _signal_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return


def _like(status: int) -> int:
    """Return a program's exit status; end by the same signal when a signal ended it."""
    if status >= 0:
        return status
    if -status not in {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
    return 128 - status


def _stop(_number: int, _frame: FrameType | None) -> None:
    _ignore_further()
    raise _StopError


def _ignore_further() -> None:
    """Take no second request: SLURM signals twice, and the kernel once for each thread of a parent that dies."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
