"""One step of the hull benchmark in a process of its own; `hull.py` starts it: ``hull_step.py JSON``."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from hull_clock import peak_MB
from hull_data import settings
from hull_peers import run_step
from hull_sets import EntrySet, Folder
from hull_tasks import run_task


def run(asked: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of a step; see `hull_run.Step`."""
    folder = Folder(Path(asked["folder"]))
    if asked["kind"] == "prepare":
        start = time.perf_counter()
        entries = EntrySet.named(asked["entry_set"]).made(asked["table"])
        made = {"made_s": time.perf_counter() - start, "made_peak_MB": peak_MB()}
        return folder.write(entries) | made
    if asked["kind"] == "peer":
        return run_step(asked["name"], folder)
    measured = settings()["measured"]
    limits = {"runs": asked["runs"] or measured["runs"], "spend_s": measured["spend_s"]}
    return run_task(asked["name"], folder, asked["mode"], limits)


def main() -> None:
    """Run the step and write its figures where it is told to."""
    asked = json.loads(sys.argv[1])
    Path(asked["result"]).write_text(json.dumps(run(asked), indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
