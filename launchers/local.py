"""``hullworks launch local``: workers on this machine, fed, watched and replaced until the work is done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import pymongo.errors

from hullworks.analysis.stability import update_all
from hullworks.documents import Candidate
from hullworks.errors import ServiceError
from hullworks.launchers.configuration import write_configuration
from hullworks.launchers.feeder import feed
from hullworks.launchers.launchpad import open_launchpad
from hullworks.launchers.reconcile import reconcile
from hullworks.launchers.services import mongod

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import FrameType

    from fireworks import LaunchPad

    from hullworks.settings import Settings

TICK_S: Final = 1.0
EARLY_DEATH_S: Final = 20.0
MAX_EARLY_DEATHS: Final = 5
STOP_WAIT_S: Final = 10.0


def _leave(_number: int, _frame: FrameType | None) -> None:
    """Leave on SIGTERM as on Ctrl-C, once: workers stopped, their runs given back."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(128 + signal.SIGTERM)


@dataclass
class _Slot:
    """A place for one worker process."""

    number: int
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    early_deaths: int = 0


@dataclass
class LocalLauncher:
    """Runs the work of a project on this machine.

    Args:
        settings: The project's settings; the documents must be connected.
        workers: Number of worker processes; each runs one calculation at a time.
        batch: Only wait for this batch; all batches otherwise.
        forever: Go on when the work is done, for what may be submitted later.
        on_tick: Called about once a second, for a progress display.
    """

    settings: Settings
    workers: int = 1
    batch: str | None = None
    forever: bool = False
    on_tick: Callable[[str], None] = lambda _message: None
    done: Counter[str] = field(default_factory=Counter)

    def run(self) -> Counter[str]:
        """Work until nothing is left to do; return how many of what were done.

        Raises:
            ServiceError: The workers keep dying at their start; nothing is lost, and another launch continues.
        """
        signal.signal(signal.SIGTERM, _leave)
        environment = {**os.environ, **write_configuration(self.settings)}
        launchpad = open_launchpad(self.settings, wait_s=TICK_S * 5)
        slots = [_Slot(number) for number in range(self.workers)]
        stop_file = self.settings.config_dir / f"stop-{uuid.uuid4().hex}"
        try:
            while self._tick(launchpad, slots, environment, stop_file):
                time.sleep(TICK_S)
        finally:
            stop_file.touch()
            self._stop(slots)
            self._settle(launchpad)
            launchpad.connection.close()
            stop_file.unlink()
        return self.done

    def run_once(self) -> Counter[str]:
        """Feed and keep the books once, without workers; return how many of what were done."""
        write_configuration(self.settings)
        launchpad = open_launchpad(self.settings)
        try:
            self._keep_books(launchpad)
        finally:
            launchpad.connection.close()
        return self.done

    def _tick(self, launchpad: LaunchPad, slots: list[_Slot], environment: dict[str, str], stop_file: Path) -> bool:
        """Do one round of the loop; return whether there is more to do."""
        try:
            self._keep_books(launchpad)
            more = self.forever or Candidate.count_open(self.batch) > 0
            if more:
                for slot in slots:
                    self._keep_alive(slot, environment, stop_file)
            self.on_tick("working" if more else "done")  # the display reads the database too
        except pymongo.errors.PyMongoError as error:
            self.on_tick(f"waiting for the database ({type(error).__name__})")
            if self.settings.embedded_database:
                mongod.ensure(self.settings)
            return True
        return more

    def _keep_books(self, launchpad: LaunchPad) -> None:
        self.done += reconcile(launchpad, lost_after_s=self.settings.launch.lost_after_s)
        self.done += feed(launchpad, self.settings)
        self.done += update_all()

    def _keep_alive(self, slot: _Slot, environment: dict[str, str], stop_file: Path) -> None:
        """Start a slot's worker, or a fresh one when it has died."""
        if slot.process is not None and slot.process.poll() is None:
            return
        if slot.process is not None:
            self.done["workers replaced"] += 1
            early = time.monotonic() - slot.started < EARLY_DEATH_S
            slot.early_deaths = slot.early_deaths + 1 if early else 0
        log = self.settings.data_dir / "logs" / f"worker-{slot.number}.log"
        if slot.early_deaths >= MAX_EARLY_DEATHS:
            raise ServiceError("the workers keep dying at their start", str(log), "Its last lines say why.")
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "hullworks.launchers.worker"]
        command += ["--parent", str(os.getpid()), "--stop-file", str(stop_file)]
        with log.open("ab") as stream:
            slot.process = subprocess.Popen(
                command,
                env=environment,
                cwd=self.settings.project_dir,
                stdout=stream,
                stderr=stream,
                stdin=subprocess.DEVNULL,
            )
        slot.started = time.monotonic()

    def _stop(self, slots: list[_Slot]) -> None:
        """End the workers: at once, since what they run is given back and continued later."""
        for slot in slots:
            if slot.process is not None and slot.process.poll() is None:
                slot.process.terminate()
        for slot in slots:
            if slot.process is not None:
                try:
                    slot.process.wait(STOP_WAIT_S)
                except subprocess.TimeoutExpired:
                    slot.process.kill()
                    slot.process.wait()

    def _settle(self, launchpad: LaunchPad) -> None:
        """Give back what the stopped workers had in hand."""
        try:
            self.done += reconcile(launchpad, lost_after_s=self.settings.launch.lost_after_s)
        except pymongo.errors.PyMongoError:
            # The next launch does the same before anything else.
            self.on_tick("the database is away; the next launch gives the stopped runs back")
