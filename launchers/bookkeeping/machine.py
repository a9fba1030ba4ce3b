"""The ports of time, files and processes, on the real ones."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hullworks.documents import now
from hullworks.launchers.services.processes import ProcessMark

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from hullworks.launchers.bookkeeping.records import WorkerMark

RUN_REPORT = "hullworks_run.json"
"""Written by every run into its own folder: how it ended, with the evidence."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the time, to the millisecond that MongoDB keeps."""
        return now()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


class ThisMachine:
    """`hullworks.launchers.bookkeeping.stores.Site` on the files and processes that can be seen from here."""

    def report(self, directory: str) -> Mapping[str, Any]:
        """Return what a run wrote about its own end; empty when it wrote nothing that can be read."""
        try:
            report = json.loads((Path(directory) / RUN_REPORT).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return report if isinstance(report, dict) else {}

    def lives(self, worker: WorkerMark) -> bool | None:
        """Return whether a worker's process lives; none when it is on another machine."""
        if worker.process is None:
            return None
        pid, started, boot_id, host = worker.process
        mark = ProcessMark(pid, started, boot_id, host)
        return None if mark.is_elsewhere else mark.is_alive
