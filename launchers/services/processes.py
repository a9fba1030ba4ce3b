"""Processes that outlive their starter, told apart from others that got their number later, and locks between them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import platform
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hullworks.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Iterator

PROC = Path("/proc")
POLL_S = 0.02
"""Pause between two looks at a process or a lock, s."""


@dataclass(frozen=True)
class ProcessMark:
    """One process of one machine, which no later process can be mistaken for.

    Attributes:
        pid: Its number.
        started: Clock ticks from the machine's start to the process's own.
        boot_id: The kernel's name for this run of the machine.
        host: The machine.
    """

    pid: int
    started: int
    boot_id: str
    host: str

    @classmethod
    def of(cls, pid: int) -> ProcessMark | None:
        """Return the mark of a living process of this machine, none when there is no such process."""
        started = start_ticks(pid)
        return None if started is None else cls(pid, started, boot_id(), platform.node())

    @property
    def is_alive(self) -> bool:
        """Whether this very process still runs here."""
        return self.boot_id == boot_id() and start_ticks(self.pid) == self.started

    @property
    def is_elsewhere(self) -> bool:
        """Whether it was started on another machine, where it may still run."""
        return self.boot_id != boot_id() and self.host != platform.node()

    @property
    def is_ending(self) -> bool:
        """Whether it has ended but still holds files and ports, as a process of many threads does for a moment."""
        fields = _stat(self.pid)
        return self.is_alive and fields is not None and fields[0] == "Z"

    def to_json(self) -> str:
        """Return the mark as JSON text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ProcessMark | None:
        """Read what `to_json` wrote; none when the text is cut or foreign."""
        try:
            record = json.loads(text)
            return cls(int(record["pid"]), int(record["started"]), str(record["boot_id"]), str(record["host"]))
        except (ValueError, KeyError, TypeError):
            return None

    def end(self, grace_s: float, kill_wait_s: float = 10.0) -> bool:
        """Ask the process to end, and kill it when it has not done so after ``grace_s``.

        Returns:
            Whether it is gone.
        """
        return self._signal_and_wait(signal.SIGTERM, grace_s) or self._signal_and_wait(signal.SIGKILL, kill_wait_s)

    def _signal_and_wait(self, number: signal.Signals, wait_s: float) -> bool:
        if self.is_alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)
        return self.wait(wait_s)

    def wait(self, wait_s: float) -> bool:
        """Wait until the process is gone, with its files and ports.

        Returns:
            Whether it is.
        """
        deadline = time.monotonic() + wait_s
        while self.is_alive:
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_S)
        return True


def start_ticks(pid: int) -> int | None:
    """Return when a process started (clock ticks since the machine's start), none when it is gone or a zombie."""
    fields = _stat(pid)
    return None if fields is None else int(fields[19])


def _stat(pid: int) -> list[str] | None:
    """Return the fields of a living process from its state on; none when it is gone or a zombie."""
    try:
        text = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The second field is the name in parentheses, which may itself hold blanks and parentheses.
    fields = text[text.rindex(")") + 1 :].split()
    # A zombie with more than one thread is still ending: its files and ports are not free yet.
    gone = fields[0] in {"X", "x"} or (fields[0] == "Z" and int(fields[17]) <= 1)
    return None if gone else fields


def boot_id() -> str:
    """Return the kernel's name for this run of the machine; start ticks mean nothing outside it."""
    return (PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def find_process(arguments: tuple[str, ...]) -> ProcessMark | None:
    """Return a process of this user whose command line holds ``arguments`` in a row.

    Of a process and its child, which bears the same command line until it starts another program, it is the child.
    """
    wanted = b"\0" + b"\0".join(os.fsencode(argument) for argument in arguments) + b"\0"
    found = [
        int(folder.name) for folder in PROC.iterdir() if folder.name.isdigit() and wanted in _own_command_line(folder)
    ]
    parents = {int(fields[1]) for fields in map(_stat, found) if fields is not None}
    marks = (ProcessMark.of(pid) for pid in found if pid not in parents)
    return next((mark for mark in marks if mark is not None), None)


def _own_command_line(folder: Path) -> bytes:
    try:
        return (folder / "cmdline").read_bytes() if folder.stat().st_uid == os.geteuid() else b""
    except OSError:  # it ended meanwhile
        return b""


@contextlib.contextmanager
def file_lock(path: Path, wait_s: float, purpose: str) -> Iterator[None]:
    """Hold a lock that the kernel frees when its holder dies, so that it never goes stale.

    Args:
        path: The lock's file; it stays.
        wait_s: How long to wait for another holder, s.
        purpose: What the holder does, for the error's text.

    Raises:
        ServiceError: Another process holds the lock for longer than that.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _acquire(descriptor, path, time.monotonic() + wait_s, purpose)
        yield
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, path: Path, deadline: float, purpose: str) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in {errno.EAGAIN, errno.EACCES, errno.EINTR}:
                raise
        else:
            return
        if time.monotonic() > deadline:
            raise ServiceError(f"another process is still at it: {purpose}", str(path), "Wait, then try again.")
        time.sleep(POLL_S)


def write_private(path: Path, text: str) -> None:
    """Write a file that its owner alone can read, whole or not at all; the caller holds a lock on its folder."""
    # The same name each time, so that a writer that was killed leaves one draft at most, until the next.
    draft = path.with_name(f".{path.name}.draft")
    draft.unlink(missing_ok=True)
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
