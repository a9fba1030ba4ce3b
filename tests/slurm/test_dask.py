"""Ensembles on a real SLURM through dask-jobqueue: the same bytes, lost jobs replaced, nothing left in the queue."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from hullworks.analysis import clusters
from hullworks.analysis.clusters import open_cluster
from hullworks.analysis.convex_hull import ConvexHull
from hullworks.analysis.ensembles import p_stable
from hullworks.analysis.parallel import map_chunks
from hullworks.analysis.uncertainty import EnergyErrors
from hullworks.errors import ServiceError
from hullworks.settings import get_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from hullworks.analysis.clusters import OpenCluster
    from hullworks.settings import Settings

PATIENCE_S = 120.0
ENDLESS = """
import time
from hullworks.analysis.parallel import map_chunks
map_chunks(lambda x: time.sleep(1000), [1, 2], "slurm:1")
"""


@pytest.fixture
def on_slurm(dask: None, slurm: dict[str, str], project: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A project whose commands use the cluster."""
    del dask  # it says whether Dask is there
    monkeypatch.setenv("SLURM_CONF", slurm["SLURM_CONF"])
    return project


def jobs() -> list[str]:
    """Return the numbers of the jobs of Dask in the queue."""
    command = ["squeue", "--noheader", "--name", "hullworks-dask", "--format", "%i"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def tended(cluster: OpenCluster) -> bool:
    """Let the cluster look after its jobs, as a map that waits does."""
    cluster.tend(0)
    return True


@pytest.mark.usefixtures("on_slurm")
def test_two_jobs_give_the_same_bytes_and_a_cancelled_one_is_replaced() -> None:
    """An ensemble on two SLURM jobs, one of which is cancelled meanwhile, is bit for bit that of this process."""
    hull = ConvexHull.from_entries(["Mg", "Si", "Mg2Si", "MgSi"], [0.0, 0.0, -0.02, -0.01])
    errors = EnergyErrors.from_parts([{"own:c": 0.01, "shared": 0.005 * i} for i in range(4)])
    alone = p_stable(hull, errors, 100, 7)
    with open_cluster("slurm:2") as cluster:
        cluster.client.wait_for_workers(1, timeout=PATIENCE_S)
        (lost, *_) = jobs()
        subprocess.run(["scancel", lost], check=True)
        assert pickle.dumps(p_stable(hull, errors, 100, 7, cluster=cluster)) == pickle.dumps(alone)
        wait_for(lambda: tended(cluster) and lost not in jobs() and len(jobs()) == 2)
        cluster.client.wait_for_workers(2, timeout=PATIENCE_S)
        numbers = map_chunks(lambda _: os.environ["SLURM_JOB_ID"], range(50), cluster).all()
        assert set(numbers) <= set(jobs())
    wait_for(lambda: not jobs())


def test_a_job_that_slurm_would_not_take_is_an_error_and_not_an_endless_wait(on_slurm: Settings) -> None:
    """The message is SLURM's, and names the file to edit."""
    on_slurm.config_dir.mkdir(parents=True)
    (on_slurm.config_dir / "my_qadapter.yaml").write_text("queue: nowhere\n")
    with pytest.raises(ServiceError, match=r"invalid partition(.|\n)*my_qadapter\.yaml"):
        map_chunks(np.sqrt, [1.0], "slurm:1")
    assert not jobs()


def test_jobs_of_dask_are_asked_for_as_the_site_says(on_slurm: Settings) -> None:
    """The same settings as for runs; the scheduler listens where the site says; a refusal names the file to edit."""
    toml = on_slurm.project_dir / "hullworks.toml"
    text = toml.read_text()
    toml.write_text(text + '[slurm]\nsite = "devcluster"\nslots = 1\n')
    get_settings.cache_clear()
    with open_cluster("slurm:1") as cluster:
        assert str(cluster.client.scheduler_info()["address"]).startswith("tls://127.0.0.1:")
        assert map_chunks(np.sqrt, [4.0], cluster).all() == [2.0]
    toml.write_text(text + '[slurm]\nsite = "devcluster"\npartition = "nowhere"\n')
    get_settings.cache_clear()
    with pytest.raises(ServiceError, match=r"invalid partition(.|\n)*hullworks\.toml"):
        map_chunks(np.sqrt, [1.0], "slurm:1")


def test_jobs_that_end_again_and_again_are_given_up(on_slurm: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no worker ever comes to life, as with a module that is not there, one is told where to look."""
    monkeypatch.setattr(clusters, "LOOK_EVERY_S", 0.5)
    on_slurm.config_dir.mkdir(parents=True)
    (on_slurm.config_dir / "my_qadapter.yaml").write_text("pre_rocket: exit 1\n")
    with pytest.raises(ServiceError, match="ended before one had done anything"):
        map_chunks(np.sqrt, [1.0], "slurm:1")
    wait_for(lambda: not jobs())


def test_ctrl_c_cancels_the_jobs(on_slurm: Settings) -> None:
    """An interrupted program leaves nothing in the queue, and no keys in the project."""
    with subprocess.Popen([sys.executable, "-c", ENDLESS], cwd=on_slurm.project_dir) as process:
        wait_for(lambda: bool(jobs()))
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == -signal.SIGINT
    wait_for(lambda: not jobs())
    assert not list((on_slurm.data_dir / "dask").glob("keys-*"))
