"""What it costs to begin and end a run: FireWorks' own launchers and the worker of an allocation, on trivial jobs.

    python tests/benchmarks/launch_overhead.py [--runs 100] [--json FILE]

Each way is measured with few and with many runs of ``true``, on a private MongoDB: the difference is the cost of one
more run, what is left is the start. CPU is that of the launcher and all that it starts, without MongoDB.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fireworks import Firework, ScriptTask, Workflow

from hullworks.database import connect
from hullworks.launchers.configuration import write_configuration
from hullworks.launchers.launchpad import add_workflow, open_launchpad
from hullworks.launchers.services import mongod
from hullworks.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

FEW = 10
HOUR_S = 3600.0
WORKER = [sys.executable, "-m", "hullworks.launchers.slurm.allocation", "--idle", "0"]
RLAUNCH = [str(Path(sys.executable).parent / "rlaunch")]
WAYS = {
    "rlaunch singleshot": [*RLAUNCH, "singleshot"],
    "rlaunch rapidfire": [*RLAUNCH, "rapidfire"],
    "HullWorks, packed, 1 slot": [*WORKER, "--slots", "1"],
    "HullWorks, packed, 2 slots": [*WORKER, "--slots", "2"],
}
ONE_EACH = "rlaunch singleshot"
"""The way that starts a process for each run."""


@dataclass(frozen=True)
class Cost:
    """What a way costs; wall and CPU in s.

    Attributes:
        way: The way.
        start_wall_s: The first run, with the start.
        start_cpu_s: The same.
        run_wall_s: Each further run.
        run_cpu_s: The same.
    """

    way: str
    start_wall_s: float
    start_cpu_s: float
    run_wall_s: float
    run_cpu_s: float

    @property
    def share_of_an_hour(self) -> float:
        """Part of a run of an hour that is lost to it."""
        return self.run_wall_s / HOUR_S


def fill(settings: Settings, runs: int) -> None:
    """Put trivial runs on an empty LaunchPad."""
    launchpad = open_launchpad(settings)
    for collection in (launchpad.fireworks, launchpad.workflows, launchpad.launches):
        collection.delete_many({})
    for number in range(runs):
        firework = Firework([ScriptTask.from_str("true")], name="true")
        add_workflow(launchpad, Workflow([firework], metadata={"calculation_id": f"calc-{number}"}))
    launchpad.connection.close()


def timed(command: list[str], times: int, folder: Path, variables: Mapping[str, str]) -> tuple[float, float]:
    """Run a command some times; return wall and CPU time, s."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    for _ in range(times):
        subprocess.run(command, cwd=folder, env=dict(variables), capture_output=True, check=True)
    wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def check_done(settings: Settings, runs: int) -> None:
    """Fail when not all runs were done."""
    launchpad = open_launchpad(settings)
    done = launchpad.fireworks.count_documents({"state": "COMPLETED"})
    launchpad.connection.close()
    if done != runs:
        message = f"{done} of {runs} runs were done"
        raise RuntimeError(message)


def measure(way: str, settings: Settings, runs: int, variables: Mapping[str, str]) -> Cost:
    """Measure one way."""
    if way == ONE_EACH:
        fill(settings, FEW)
        wall, cpu = (spent / FEW for spent in timed(WAYS[way], FEW, settings.runs_dir, variables))
        check_done(settings, FEW)
        return Cost(way, wall, cpu, wall, cpu)
    found = []
    for number in (FEW, runs):
        fill(settings, number)
        found.append(timed(WAYS[way], 1, settings.runs_dir, variables))
        check_done(settings, number)
    wall, cpu = ((many - few) / (runs - FEW) for few, many in zip(*found, strict=True))
    return Cost(way, found[0][0] - (FEW - 1) * wall, found[0][1] - (FEW - 1) * cpu, wall, cpu)


def main() -> None:
    """Measure all ways and print a table."""
    parser = argparse.ArgumentParser(description="Cost of launching.")
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = load_settings(Path(folder))
        mongod.start(settings)
        try:
            connect(settings)
            variables = {**os.environ, **write_configuration(settings)}
            costs = [measure(way, settings, options.runs, variables) for way in WAYS]
        finally:
            mongod.stop(settings)
    for cost in costs:
        sys.stdout.write(
            f"{cost.way:28s} first {cost.start_wall_s:6.2f} s ({cost.start_cpu_s:5.2f} CPU)   each further "
            f"{1000 * cost.run_wall_s:6.0f} ms ({1000 * cost.run_cpu_s:5.0f} CPU)  {cost.share_of_an_hour:.4%} of 1 h\n"
        )
    if options.json:
        options.json.write_text(json.dumps([asdict(cost) for cost in costs], indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
