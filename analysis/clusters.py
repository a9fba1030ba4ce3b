"""Dask clusters on this machine and on SLURM, opened for the time of one piece of work."""

from __future__ import annotations

import importlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from hullworks.errors import InputError, MissingPartError, ServiceError
from hullworks.settings import SETTINGS_FILE, get_settings
from hullworks.sites import as_queue_adapter, load_site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from distributed import Client

    from hullworks.settings import Settings

QUEUE_ADAPTER: Final = "my_qadapter.yaml"
"""The file in the project's configuration in which a site says how its queue takes jobs; `qlaunch` reads it too."""
FURTHER_DIRECTIVES: Final = {
    "qos": "--qos",
    "constraint": "--constraint",
    "exclude_nodes": "--exclude",
    "license": "--licenses",
    "mem_per_cpu": "--mem-per-cpu",
    "core_spec": "--core-spec",
}
"""Fields of the queue adapter that become a directive of the batch script as they are."""
QUIET: Final = logging.CRITICAL
"""What a lost worker means is said with the items; Dask would tell the same in pages."""
LOOK_EVERY_S: Final = 5.0
"""Pause between two looks at the queue, s; a controller of thousands of jobs bears no more."""
LOST_PER_JOB: Final = 5
"""So many times each job may end before anything was done until one gives up."""
NO_DASHBOARD: Final = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
"""Pages that ask for no password would show what is computed; what is left of their server stays on this machine."""
NO_PAGES_IN_JOBS: Final = "export DASK_DISTRIBUTED__WORKER__HTTP__ROUTES='[]'"
"""The same for the workers in jobs, which do not inherit the options below."""
DASK_OPTIONS: Final = {
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    # What was held by two processes that died is handed back: three rounds of `map_chunks` make that six chances.
    "distributed.scheduler.allowed-failures": 1,
    # One task carries the common data, once; that is meant so.
    "distributed.admin.large-graph-warning-threshold": "4 GiB",
}
FORGET_LOST_JOBS: Final = {"distributed.deploy.lost-worker-timeout": "1s"}
"""A job whose worker is gone is to be forgotten before its successor, which has the same name, is in the queue."""


@dataclass(eq=False)
class OpenCluster:
    """A running cluster, which several calls may share.

    client: Dask's client of it.
    tend: To be called now and then while one waits, with how much was done since; replaces what was lost.
    """

    client: Client
    tend: Callable[[int], None]


@contextmanager
def open_cluster(cluster: str) -> Iterator[OpenCluster]:
    """Start a cluster, and end it with its jobs whatever happens, Ctrl-C included.

    What travels between its processes is encrypted, and only they are let in: keys are made for each cluster.

    Args:
        cluster: ``local`` or ``local:N``, N processes of this machine that listen on 127.0.0.1 (by default one per
            processor); ``slurm`` or ``slurm:N``, N jobs of the size that the project's queue adapter names (by default
            one). A script that uses ``local`` has to guard its own start with ``if __name__ == "__main__":``.

    Raises:
        InputError: The cluster is none of these.
        MissingPartError: Dask, or SLURM, is not installed.
        ServiceError: SLURM would not take the jobs.
    """
    kind, colon, count = cluster.partition(":")
    start: Callable[[int], AbstractContextManager[Any]] | None = {"local": _local, "slurm": _slurm}.get(kind)
    if start is None or (colon and not (count.isdecimal() and int(count))):
        raise InputError(f"{cluster!r} is no cluster", next_step="Say local, local:N, slurm or slurm:N.")
    configuration, distributed = dask_part("dask.config"), dask_part("distributed")
    with (
        configuration.set(DASK_OPTIONS),
        start(int(count or 0)) as (started, tend),
        distributed.Client(started) as client,
    ):
        yield OpenCluster(client, tend)


def dask_part(module: str) -> Any:  # noqa: ANN401 - Dask's own calls are not annotated
    """Return a module that comes with the extra ``dask``.

    Raises:
        MissingPartError: It is not installed.
    """
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingPartError(f"{error.name} is not installed", next_step="pip install 'hullworks[dask]'") from None
    finally:
        # dask_jobqueue makes Ctrl-C a silent end with exit status 0 when it is imported.
        if signal.getsignal(signal.SIGINT) is not on_interrupt:
            signal.signal(signal.SIGINT, on_interrupt)


@contextmanager
def _local(n: int) -> Iterator[tuple[Any, Callable[[int], None]]]:
    workers = n or os.cpu_count() or 1
    with dask_part("distributed").LocalCluster(
        n_workers=workers, threads_per_worker=1, processes=True, host="127.0.0.1", protocol="tls://",
        security=_fresh_keys(), scheduler_kwargs=NO_DASHBOARD, silence_logs=QUIET,
    ) as cluster:  # fmt: skip
        yield cluster, _Workers(cluster, workers).tend


@contextmanager
def _slurm(n: int) -> Iterator[tuple[Any, Callable[[int], None]]]:
    jobqueue, settings = dask_part("dask_jobqueue"), get_settings()
    sbatch = shutil.which("sbatch")
    if sbatch is None:
        raise MissingPartError("there is no sbatch on the path", next_step="Run it where SLURM jobs are submitted.")
    folder = settings.data_dir / "dask"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    adapter, said_in = _adapter(settings)
    arguments = slurm_arguments(adapter, folder, load_site(settings).scheduler_address)
    with (
        dask_part("dask.config").set(FORGET_LOST_JOBS),
        _keys_in(folder) as keys,
        jobqueue.SLURMCluster(**arguments, security=keys) as cluster,
    ):
        _refuse_what_slurm_refuses(sbatch, cluster.job_script(), said_in)
        jobs = _Jobs(cluster, max(n, 1), folder)
        jobs.fill_up()
        yield cluster, jobs.tend


@dataclass(eq=False)
class _Workers:
    """Keeps as many workers as were asked for: Dask gives up one that stays away for long."""

    cluster: Any
    n: int
    looked_at: float = field(default_factory=time.monotonic, init=False)

    def fill_up(self) -> None:
        self.cluster.scale(self.n)

    def tend(self, done: int) -> None:
        """Look, now and then, and replace what was lost; ``done`` says how much was done since."""
        self.heed(done)
        if time.monotonic() - self.looked_at >= LOOK_EVERY_S:
            self.looked_at = time.monotonic()
            self.drop_lost()
            self.fill_up()

    def heed(self, done: int) -> None:
        """Take note of progress."""

    def drop_lost(self) -> None:
        """Take those out of the cluster's books that are gone; of its own processes it knows it itself."""


@dataclass(eq=False)
class _Jobs(_Workers):
    """Keeps as many jobs in the queue as were asked for: dask-jobqueue does not replace what SLURM ends.

    folder: Where the jobs write; lost: jobs that ended since something was done.
    """

    folder: Path
    lost: int = field(default=0, init=False)

    def fill_up(self) -> None:
        self.cluster.scale(jobs=self.n)

    def heed(self, done: int) -> None:
        self.lost = 0 if done else self.lost

    def drop_lost(self) -> None:
        """Take the jobs out of the books that are no longer in the queue.

        Raises:
            ServiceError: Jobs end again and again before they have done anything.
        """
        numbers = {name: job.job_id for name, job in list(self.cluster.workers.items()) if job.job_id}
        there = _queued(numbers.values())
        gone = [name for name, number in numbers.items() if there is not None and number not in there]
        self.lost += len(gone)
        if self.lost > LOST_PER_JOB * self.n:
            what = f"{self.lost} jobs of Dask ended before one had done anything"
            raise ServiceError(what, next_step=f"Their output is in {self.folder}.")
        for name in gone:
            self.cluster.workers.pop(name, None)


def _queued(numbers: Iterable[str]) -> set[str] | None:
    """Return which of some jobs SLURM still has in its queue; None when it does not answer."""
    command = [shutil.which("squeue") or "squeue", "--noheader", "--me", "--format=%A"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    return None if asked.returncode else set(numbers) & set(asked.stdout.split())


def _fresh_keys() -> Any:  # noqa: ANN401 - a distributed.security.Security
    return dask_part("distributed.security").Security.temporary()


@contextmanager
def _keys_in(folder: Path) -> Iterator[Any]:
    """Hand out fresh keys, those of the workers as files that only their owner can read, for the time of a cluster."""
    keys = _fresh_keys()
    with TemporaryDirectory(prefix="keys-", dir=folder) as closed:
        for name in ("tls_ca_file", "tls_worker_key", "tls_worker_cert"):
            path = Path(closed) / name
            path.touch(mode=0o600)
            path.write_text(getattr(keys, name), encoding="ascii")
            setattr(keys, name, str(path))
        yield keys


def _adapter(settings: Settings) -> tuple[dict[str, Any], Path]:
    """Return how this project asks for jobs, by its site, else by FireWorks' queue adapter; and the file to edit."""
    if settings.slurm.model_fields_set:
        return as_queue_adapter(load_site(settings)), settings.project_dir / SETTINGS_FILE
    return read_queue_adapter(settings.config_dir), settings.config_dir / QUEUE_ADAPTER


def read_queue_adapter(config_dir: Path) -> dict[str, Any]:
    """Return the project's queue adapter, or the template's where the project has none yet."""
    import yaml

    own = config_dir / QUEUE_ADAPTER
    source = own if own.is_file() else files("hullworks.slurm").joinpath(QUEUE_ADAPTER)
    return {key: value for key, value in yaml.safe_load(source.read_text(encoding="utf-8")).items() if value}


def slurm_arguments(adapter: Mapping[str, Any], folder: Path, address: str | None = None) -> dict[str, Any]:
    """Return how dask-jobqueue has to be called so that a worker's job is asked for as a run's is.

    Each processor of a job runs one process with one thread.

    Args:
        adapter: Fields of the queue adapter.
        folder: For logs, spilled data and the keys of the workers; seen by all nodes, closed to other users.
        address: Of this machine, as the nodes reach it; none lets Dask choose.
    """
    cores = adapter.get("ntasks", 1) * adapter.get("cpus_per_task", 1) // adapter.get("nodes", 1)
    further = [f"{option}={adapter[field]}" for field, option in FURTHER_DIRECTIVES.items() if field in adapter]
    return {
        "queue": adapter.get("queue"),
        "account": adapter.get("account"),
        "walltime": str(adapter.get("walltime", "01:00:00")),
        "job_name": f"{adapter.get('job_name', 'hullworks')}-dask",
        "cores": max(cores, 1),
        "processes": max(cores, 1),
        "memory": adapter.get("mem", "1GB"),
        # Without a wish of the site's own, a job gets what its partition gives.
        "job_directives_skip": [] if "mem" in adapter else ["--mem="],
        "worker_extra_args": ["--no-dashboard", *([] if "mem" in adapter else ["--memory-limit", "0"])],
        "job_extra_directives": further,
        "job_script_prologue": [*adapter.get("pre_rocket", "").splitlines(), NO_PAGES_IN_JOBS],
        "python": sys.executable,
        "log_directory": str(folder),
        "local_directory": str(folder),
        "scheduler_options": {**NO_DASHBOARD, **({"host": address} if address else {})},
        "silence_logs": QUIET,
    }


def _refuse_what_slurm_refuses(sbatch: str, script: str, said_in: Path) -> None:
    """Ask SLURM whether it would take the job: dask-jobqueue only logs a refusal, and waits for ever."""
    asked = subprocess.run([sbatch, "--test-only"], input=script, capture_output=True, text=True, check=False)
    if asked.returncode:
        raise ServiceError(f"SLURM would not take the job: {asked.stderr.strip()}", next_step=f"Edit {said_in}.")
