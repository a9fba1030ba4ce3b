"""Batch scripts as text: what an allocation asks for, and the worker that it becomes."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hullworks.settings import JOB_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from hullworks.settings import SlurmSettings

WORKER = "hullworks.launchers.slurm.allocation"
SECONDS_PER_MINUTE = 60


@dataclass(frozen=True)
class Allocation:
    """One allocation to be asked for.

    Attributes:
        name: Unique name of the job, made before its submission.
        project_dir: The project's folder, seen by all nodes.
        log_dir: Where the job's output goes; must exist when the job starts.
        variables: What the worker needs to find the project's database, as paths: the environment of
            `hullworks.launchers.configuration.write_configuration`.
        n_tasks: Tasks of a job array, 0 for a job that is none.
        fw_id: The one FireWork that it is for; none when it works through what is ready.
        max_runs: After so many runs it ends; 0 for no limit.
        walltime_s: Time, s; none takes the site's.
        memory_MB: Memory of one run, MB; none takes the site's.
        exclude: Nodes to stay away from, besides the site's.
    """

    name: str
    project_dir: Path
    log_dir: Path
    variables: Mapping[str, str]
    n_tasks: int = 0
    fw_id: int | None = None
    max_runs: int = 0
    walltime_s: int | None = None
    memory_MB: int | None = None
    exclude: tuple[str, ...] = ()

    @property
    def slots_limit(self) -> int | None:
        """Most runs side by side that make sense; none when the site decides."""
        return 1 if self.fw_id is not None or self.max_runs == 1 else None


def job_script(site: SlurmSettings, asked: Allocation) -> str:
    """Return the batch script of an allocation.

    Nothing of the shell is left when the worker runs: it gets SLURM's signals itself, and its end is that of the job.
    Name, comment and array are not in it: they are those of the request.

    Args:
        site: How the cluster is asked.
        asked: The allocation.
    """
    lines = ["#!/bin/bash -l", *(f"#SBATCH {option}" for option in options(site, asked)), ""]
    lines += [f"module load {shlex.quote(module)}" for module in site.modules]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in _variables(site, asked).items()]
    lines += [*site.setup, *_scratch(site), f"cd {shlex.quote(str(asked.project_dir))} || exit 1"]
    return "\n".join([*lines, f"exec {shlex.join(worker_command(site, asked))}", ""])


def options(site: SlurmSettings, asked: Allocation) -> Iterator[str]:
    """Yield the options of ``sbatch``, without name, comment and array."""
    slots = slots_of(site, asked)
    log = "%A_%a" if asked.n_tasks else "%j"
    exclude = [*site.exclude, *(node for node in asked.exclude if node not in site.exclude)]
    given = {
        "partition": site.partition,
        "account": site.account,
        "qos": site.qos,
        "constraint": site.constraint,
        "reservation": site.reservation,
        "exclude": ",".join(exclude),
        "nodes": site.nodes,
        "ntasks": site.ranks * slots,
        "cpus-per-task": site.threads,
        "time": minutes(asked.walltime_s or site.walltime_s),
        "output": f"{asked.log_dir}/{log}.log",
    }
    yield from (f"--{name}={_quoted(str(value))}" for name, value in given.items() if value)
    yield from _per_node(site, asked, slots)
    if site.lead_s:
        # To the worker alone; what it runs is told by it.
        yield f"--signal=B:USR1@{site.lead_s}"
    if site.exclusive:
        yield "--exclusive"
    # Who submits decides what is run again, and knows why; SLURM would start the same job once more.
    yield "--no-requeue"
    yield from site.extra


def _per_node(site: SlurmSettings, asked: Allocation, slots: int) -> Iterator[str]:
    memory = asked.memory_MB or site.memory_MB
    if memory:
        yield f"--mem={-(-memory * slots // site.nodes)}M"
    if site.gpus:
        yield f"--gpus-per-node={-(-site.gpus * slots // site.nodes)}"


def slots_of(site: SlurmSettings, asked: Allocation) -> int:
    """Return how many runs an allocation does side by side."""
    if site.nodes > 1:
        return 1
    return min(site.slots, asked.slots_limit or site.slots)


def worker_command(site: SlurmSettings, asked: Allocation) -> list[str]:
    """Return the command line of the worker that the job becomes."""
    command = [site.python or sys.executable, "-m", WORKER, "--slots", str(slots_of(site, asked))]
    command += ["--lead", str(site.lead_s), "--idle", f"{site.idle_s:g}"]
    if asked.fw_id is not None:
        command += ["--fw-id", str(asked.fw_id)]
    if asked.max_runs:
        command += ["--max-runs", str(asked.max_runs)]
    return command


def minutes(seconds: int) -> int:
    """Return a time as ``sbatch --time`` takes it: whole minutes, at least one, never more than asked for."""
    return max(seconds // SECONDS_PER_MINUTE, 1)


def _variables(site: SlurmSettings, asked: Allocation) -> dict[str, str]:
    return {**site.environment, **asked.variables, JOB_VARIABLE: asked.name}


def _scratch(site: SlurmSettings) -> Iterator[str]:
    """Yield the lines that make a folder for temporary files; the shell fills in its own variables there."""
    if site.scratch:
        folder = site.scratch.replace('"', "")
        yield f'export TMPDIR="{folder}" && mkdir -p "$TMPDIR"'


def _quoted(value: str) -> str:
    """Return a value as ``#SBATCH`` lines take it; they know quotes, but no variables."""
    return f'"{value}"' if any(mark.isspace() for mark in value) else value
