"""Marks of processes, locks between them, and private files."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from hullworks.errors import ServiceError
from hullworks.launchers.services.processes import (
    ProcessMark,
    boot_id,
    file_lock,
    find_process,
    start_ticks,
    write_private,
)

if TYPE_CHECKING:
    from pathlib import Path

LOCK_SCRIPT = """
import sys, time
from pathlib import Path
from hullworks.launchers.services.processes import file_lock
with file_lock(Path(sys.argv[1]), 1.0, "testing"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_mark_of_this_process() -> None:
    """A living process's mark is alive, here, and survives being written and read."""
    mark = ProcessMark.of(os.getpid())
    assert mark is not None
    assert mark.is_alive
    assert not mark.is_elsewhere
    assert ProcessMark.from_json(mark.to_json()) == mark


def test_other_process_with_same_number() -> None:
    """A process that started at another time, or before the machine's last start, is not the marked one."""
    mark = ProcessMark.of(os.getpid())
    assert mark is not None
    assert not ProcessMark(mark.pid, mark.started + 1, mark.boot_id, mark.host).is_alive
    rebooted = ProcessMark(mark.pid, mark.started, "other-boot", mark.host)
    assert not rebooted.is_alive
    assert not rebooted.is_elsewhere


def test_name_with_parentheses(tmp_path: Path) -> None:
    """A program's name may hold blanks and parentheses, and its start is read right all the same."""
    program = tmp_path / "a) Z 1 (b"
    shutil.copy(shutil.which("sleep") or "/bin/sleep", program)
    here = start_ticks(os.getpid())
    with subprocess.Popen([program, "60"]) as process:
        started = start_ticks(process.pid)
        process.kill()
    assert started is not None
    assert here is not None
    assert started >= here


def test_zombie_is_dead() -> None:
    """A process that has ended but was not waited for counts as gone."""
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert ProcessMark.of(process.pid) is None


def test_zombie_with_threads_is_not_dead() -> None:
    """A process whose first thread has ended lives as long as another thread does: it still holds its files."""
    script = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(60,)).start()
print("up", flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        mark = ProcessMark.of(process.pid)
        assert mark is not None
        deadline = time.monotonic() + 5.0
        while not mark.is_ending and time.monotonic() < deadline:
            time.sleep(0.01)
        assert mark.is_ending
        assert mark.is_alive
        assert not mark.wait(0.05)
        process.kill()
        assert mark.wait(5.0)


def test_end_escalates() -> None:
    """A process that ignores the polite signal is killed after the grace time."""
    script = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        mark = ProcessMark.of(process.pid)
        assert mark is not None
        assert mark.end(grace_s=0.1)
        assert process.wait() == -signal.SIGKILL


def test_found_by_arguments() -> None:
    """A process is found by its arguments, whole ones in a row only, and none is found after its end."""
    with subprocess.Popen(["sleep", "61.25", "0.125"]) as process:
        deadline = time.monotonic() + 5.0
        while (mark := find_process(("61.25", "0.125"))) is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert mark is not None
        assert mark.pid == process.pid
        assert find_process(("61.2", "0.125")) is None
        process.kill()
    assert find_process(("61.25", "0.125")) is None


@pytest.mark.parametrize("text", ["", "1", "[]", "{", '{"pid": 1}'])
def test_foreign_record(text: str) -> None:
    """Text that is no mark gives none."""
    assert ProcessMark.from_json(text) is None


def test_boot_id_is_stable() -> None:
    """The machine's run has one name."""
    assert boot_id() == boot_id() != ""


def test_lock_excludes(tmp_path: Path) -> None:
    """A second holder waits, and then gives up with the purpose in its error."""
    path = tmp_path / "lock"
    with (
        file_lock(path, 1.0, "first"),
        pytest.raises(ServiceError, match="brewing coffee"),
        file_lock(path, 0.1, "brewing coffee"),
    ):
        pass


def test_lock_is_handed_over(tmp_path: Path) -> None:
    """Holders follow one another, never two at a time."""
    inside: list[int] = []
    most: list[int] = []

    def hold(number: int) -> None:
        with file_lock(tmp_path / "lock", 10.0, "testing"):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.01)
            inside.remove(number)

    threads = [threading.Thread(target=hold, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 8


def test_lock_dies_with_its_holder(tmp_path: Path) -> None:
    """The lock of a holder that was killed is free at once."""
    path = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", LOCK_SCRIPT, str(path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(ServiceError), file_lock(path, 0.05, "testing"):
            pass
        holder.kill()
    with file_lock(path, 1.0, "testing"):
        pass


def test_private_file(tmp_path: Path) -> None:
    """A private file replaces an open one, is its owner's alone, and leaves no draft."""
    path = tmp_path / "secret"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, "new ü")
    assert path.read_text(encoding="utf-8") == "new ü"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
