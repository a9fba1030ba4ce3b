"""How the hull benchmark measures: medians of processor and wall time, peak memory, what it ran on."""

from __future__ import annotations

import gc
import os
import platform
import resource
import statistics
import time
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

PACKAGES: Final = ("numpy", "numba", "pymatgen", "scipy")


@dataclass(frozen=True)
class Timing:
    """What some runs took, in seconds: medians, and the fastest and slowest by wall time."""

    cpu_s: float
    wall_s: float
    fastest_s: float
    slowest_s: float
    runs: int


def timed(task: Callable[..., Any], ready: Callable[[], Any] | None = None, *, runs: int, spend_s: float) -> Timing:
    """Run a task several times; return what it took.

    Args:
        task: What is measured; it is given what ``ready`` returns.
        ready: Makes something fresh before each run, off the clock; without it the task takes nothing.
        runs: At most so many runs.
        spend_s: No further run begins once so many seconds are spent.
    """
    cpu: list[float] = []
    wall: list[float] = []
    begin = time.perf_counter()
    while not wall or (len(wall) < runs and time.perf_counter() - begin < spend_s):
        given = () if ready is None else (ready(),)
        gc.collect()
        start = time.perf_counter(), time.process_time()
        kept = task(*given)
        wall.append(time.perf_counter() - start[0])
        cpu.append(time.process_time() - start[1])
        del kept, given
    return Timing(statistics.median(cpu), statistics.median(wall), min(wall), max(wall), len(wall))


def figures(timing: Timing) -> dict[str, Any]:
    """Return a timing as JSON has it."""
    return asdict(timing)


def peak_MB() -> float:
    """Return the largest resident memory of this process so far, in megabytes of 2**20 bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def conditions() -> dict[str, Any]:
    """Return what the figures depend on: versions, processor, cores, and what else kept the machine busy."""
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    """Return the name of the processor where the system tells it."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text(encoding="utf-8").splitlines() if told.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
