"""Tests of clusters: how they are asked for and guarded, and that what works here works the same on one."""

from __future__ import annotations

import importlib
import os
import pickle
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest
from pymongo import MongoClient

from hullworks.analysis.clusters import QUEUE_ADAPTER, open_cluster, read_queue_adapter, slurm_arguments
from hullworks.analysis.compositions import CompositionArrays
from hullworks.analysis.convex_hull import ConvexHull
from hullworks.analysis.ensembles import BLOCK, HullMember, p_stable, solve_members
from hullworks.analysis.parallel import map_chunks
from hullworks.analysis.partitions import Partition, parse_partitions
from hullworks.analysis.uncertainty import EnergyErrors
from hullworks.database import database_uri
from hullworks.errors import InputError, MissingPartError
from hullworks.launchers import configuration

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType

    from hullworks.analysis.clusters import OpenCluster
    from hullworks.settings import Settings

PATIENCE_S = 60.0
FORMULAS = ["Mg", "Si", "Mg2Si", "MgSi", "Mg3Si"]
ENERGIES = np.array([0.0, 0.0, -0.02, -0.01, -0.01])
ENDLESS = """
import time
from pathlib import Path
from hullworks.analysis.parallel import map_chunks

def wait(path):
    Path(path).touch()
    time.sleep(1000)

if __name__ == "__main__":
    map_chunks(wait, [{path!r}], "local:1")
"""


@pytest.fixture(scope="module")
def cluster(dask: None) -> Iterator[OpenCluster]:
    """Two processes of this machine."""
    del dask  # it says whether Dask is there
    with open_cluster("local:2") as opened:
        yield opened


@pytest.mark.parametrize("name", ["", "cloud", "local:", "local:0", "local:-1", "local:two", "slurm:1:2"])
def test_what_is_no_cluster_is_refused(name: str) -> None:
    """The message lists what there is."""
    with pytest.raises(InputError, match="local, local:N, slurm or slurm:N"), open_cluster(name):
        pass


def test_local_processes_listen_on_this_machine_alone_and_encrypted(cluster: OpenCluster) -> None:
    """Whatever port they open is on 127.0.0.1, and what is sent there is encrypted."""
    information: dict[str, Any] = cluster.client.scheduler_info(n_workers=-1)
    addresses = [information["address"], *information["workers"]]
    assert len(addresses) == 3
    assert all(address.startswith("tls://127.0.0.1:") for address in addresses)
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    listening = {c.laddr.ip for p in family for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    assert listening <= {"127.0.0.1"}


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Dask the message says how to get it."""
    found = importlib.import_module

    def without_dask(name: str) -> ModuleType:
        if name.startswith("dask"):
            raise ModuleNotFoundError(name=name)
        return found(name)

    monkeypatch.setattr(importlib, "import_module", without_dask)
    with pytest.raises(MissingPartError, match=r"dask\.config is not installed.*\[dask\]"), open_cluster("local"):
        pass


@pytest.mark.usefixtures("project", "cluster")
def test_a_machine_without_slurm_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where there is no sbatch, no cluster is tried."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingPartError, match="sbatch"), open_cluster("slurm"):
        pass


def test_jobs_are_asked_for_as_the_site_asks_for_runs(tmp_path: Path) -> None:
    """Partition, account, time, processors, memory, further directives and modules come from the queue adapter."""
    adapter = {
        "nodes": 2, "ntasks": 16, "cpus_per_task": 4, "walltime": "02:00:00", "queue": "cpu", "account": "mat",
        "qos": "long", "mem_per_cpu": "2G", "job_name": "hw", "pre_rocket": "module load a\nexport B=1\n",
    }  # fmt: skip
    arguments = slurm_arguments(adapter, tmp_path)
    assert (arguments["queue"], arguments["account"], arguments["walltime"]) == ("cpu", "mat", "02:00:00")
    assert arguments["cores"] == arguments["processes"] == 32
    assert arguments["job_extra_directives"] == ["--qos=long", "--mem-per-cpu=2G"]
    assert arguments["job_script_prologue"][:2] == ["module load a", "export B=1"]
    assert arguments["job_directives_skip"] == ["--mem="]
    assert slurm_arguments({**adapter, "mem": "64G"}, tmp_path)["memory"] == "64G"


def test_the_adapter_is_the_one_that_qlaunch_reads(tmp_path: Path) -> None:
    """It is the project's own file where there is one, else the template; empty fields count as left out."""
    assert configuration.QUEUE_ADAPTER == QUEUE_ADAPTER
    assert read_queue_adapter(tmp_path)["walltime"] == "24:00:00"
    assert "account" not in read_queue_adapter(tmp_path)
    (tmp_path / QUEUE_ADAPTER).write_text("queue: mine\naccount:\n")
    assert read_queue_adapter(tmp_path) == {"queue": "mine"}


@pytest.mark.parametrize("chunk_size", [1, 3, 100])
def test_a_cluster_gives_the_same_bytes_in_the_same_order(cluster: OpenCluster, chunk_size: int) -> None:
    """Results and failures do not depend on processes, nor on how items are put together."""
    alone = map_chunks(lambda x: (1 / x) ** 0.5, range(12))
    together = map_chunks(lambda x: (1 / x) ** 0.5, range(12), cluster, chunk_size=chunk_size)
    assert pickle.dumps(together.results) == pickle.dumps(alone.results)
    one, other = ([(f.index, f.item, f.error) for f in found.failures] for found in (alone, together))
    assert one == other == [(0, "0", "ZeroDivisionError: division by zero")]


def test_a_result_that_cannot_travel_is_an_error_of_its_item(cluster: OpenCluster) -> None:
    """A generator lives in its process; the other results come back."""
    for place in (None, cluster):
        found = map_chunks(lambda x: iter_of(x) if x == 1 else x, [0, 1, 2], place)
        assert found.results == (0, None, 2)
        assert "generator" in found.failures[0].error


def iter_of(x: int) -> Any:  # noqa: ANN401 - a generator, which no pickle holds
    """Return a generator."""
    return (y for y in range(x))


def test_an_item_that_kills_its_process_is_reported_and_the_rest_is_finished(cluster: OpenCluster) -> None:
    """A process that dies over and over, as by lack of memory, takes neither its chunk nor the others with it."""
    found = map_chunks(lambda x: os._exit(1) if x == 3 else x, range(8), cluster, chunk_size=4)
    assert found.results == (0, 1, 2, None, 4, 5, 6, 7)
    assert [(f.index, f.error) for f in found.failures] == [(3, "the process died each time it worked on the item")]


def test_progress_counts_the_items_that_are_done(cluster: OpenCluster) -> None:
    """The last call says that all are done."""
    counts: list[int] = []
    map_chunks(str, range(10), cluster, chunk_size=3, progress=counts.append)
    assert counts == sorted(counts)
    assert counts[-1] == 10
    assert len(counts) == 4


def test_a_connection_to_the_database_is_not_sent_to_another_process(cluster: OpenCluster, mongod: Settings) -> None:
    """Neither in the function nor in an item; the message says what to do."""
    client: MongoClient[dict[str, Any]] = MongoClient(database_uri(mongod))
    with client:
        with pytest.raises(InputError, match=r"the function cannot be sent .*in the function"):
            map_chunks(lambda _: client.address, [1], cluster)
        with pytest.raises(InputError, match="item 1 cannot be sent"):
            map_chunks(str, [1, client], cluster)


def test_no_items_are_no_work(cluster: OpenCluster) -> None:
    """An empty sequence gives an empty one."""
    assert map_chunks(str, [], cluster).results == ()


def test_ensembles_on_a_cluster_give_the_same_bytes(cluster: OpenCluster) -> None:
    """Two processes give bit for bit what this process gives, the last block being a short one."""
    hull = ConvexHull.from_entries(FORMULAS, ENERGIES)
    errors = EnergyErrors.from_parts([{"own:c": 0.01, "shared": 0.005 * i} for i in range(5)])
    alone = p_stable(hull, errors, 3 * BLOCK + 1, 5)
    together = p_stable(hull, errors, 3 * BLOCK + 1, 5, cluster=cluster)
    assert pickle.dumps(together) == pickle.dumps(alone)


def test_members_on_a_cluster_give_the_same_bytes_and_report_the_same_failures(cluster: OpenCluster) -> None:
    """Hulls of several corrections are solved in order, and one without sense does not stop the others."""
    compositions = CompositionArrays.from_compositions(FORMULAS)
    energies = [ENERGIES, np.full(5, np.nan), ENERGIES * 2]
    members = [HullMember(str(i), compositions, e) for i, e in enumerate(energies)]
    here, there = solve_members(members), solve_members(members, cluster)
    assert [failure.index for failure in here.failures] == [failure.index for failure in there.failures] == [1]
    assert pickle.dumps(here.results) == pickle.dumps(there.results)


def test_a_cluster_parses_the_same(tmp_path: Path, cluster: OpenCluster) -> None:
    """Files keep their order, and a partition that cannot be parsed does not stop the others."""
    paths = [tmp_path / f"{name}.jsonl" for name in "ba"]
    paths[0].write_text("".join(f'{{"n": {i}}}\n' for i in range(50)))
    paths[1].write_text("no json\n")

    def parse(part: Partition) -> list[tuple[int, int]]:
        import json

        return [(number, json.loads(line)["n"]) for number, line in part.lines()]

    alone = parse_partitions(paths, parse, partition_bytes=100)
    together = parse_partitions(paths, parse, cluster, partition_bytes=100)
    assert pickle.dumps(alone.results) == pickle.dumps(together.results)
    assert [row for part in alone.results if part for row in part] == [(i + 1, i) for i in range(50)]
    (failure,) = together.failures
    assert failure.index == len(alone.results) - 1
    assert "a.jsonl" in failure.item


@pytest.mark.usefixtures("cluster")
def test_ctrl_c_ends_the_cluster(tmp_path: Path) -> None:
    """An interrupted program leaves no process behind, and ends as Python does: dask_jobqueue would hide it."""
    started = tmp_path / "started"
    script = tmp_path / "endless.py"
    script.write_text(ENDLESS.format(path=str(started)))
    with subprocess.Popen([sys.executable, script], stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + PATIENCE_S
        while not started.exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        family = psutil.Process(process.pid).children(recursive=True)
        assert family
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in errors
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive
