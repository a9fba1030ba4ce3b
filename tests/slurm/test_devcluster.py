"""Tests of the SLURM on one machine: its configuration as text, and the cluster itself."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEVCLUSTER = Path(__file__).resolve().parents[2] / "slurm" / "devcluster"
PATIENCE_S = 30.0


class Cluster:
    """A cluster of two nodes for one test, which may do harm to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.variables = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}

    def do(self, command: str, *options: str) -> str:
        """Start, stop, ... it; return what that prints."""
        return run(str(DEVCLUSTER), command, str(self.folder), *options)

    def ask(self, *command: str) -> str:
        """Run a command of SLURM on it."""
        return run(*command, env=self.variables)

    def sleeper(self) -> int:
        """Submit a job that sleeps, and return its process once it runs."""
        note = self.folder / "sleeper"
        script = f"echo $$ > {note}.draft; mv {note}.draft {note}; exec sleep 600"
        self.ask("sbatch", "--output=/dev/null", f"--wrap={script}")
        wait_for(note.exists)
        return int(note.read_text())

    def pids(self) -> dict[str, int]:
        """Return the number of each daemon."""
        return {path.stem: int(path.read_text()) for path in (self.folder / "run").glob("*.pid")}

    def processes(self) -> list[str]:
        """Return what runs of it: daemons, those who watch over jobs, and jobs."""
        found = []
        for process in psutil.process_iter():
            try:
                words = [*process.cmdline(), process.environ().get("SLURM_CONF", "")]
                if process.status() != psutil.STATUS_ZOMBIE and str(self.folder) in " ".join(words):
                    found.append(" ".join(words))
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found


def run(*command: str, **options: Any) -> str:
    """Run a command that must succeed; return what it prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S * 4, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


def wait_for(what: Callable[[], object]) -> None:
    """Wait until something is true."""
    end = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture
def cluster(slurm: dict[str, str], tmp_path: Path) -> Iterator[Cluster]:
    """A running cluster of its own; what stops it is part of the test."""
    del slurm  # it says whether SLURM is there
    own = Cluster(tmp_path / "own")
    own.do("start", "--nodes", "2", "--cpus", "2")
    yield own
    own.do("stop")


def conf(devcluster: dict[str, Any], **changes: Any) -> str:
    """Return a configuration as text."""
    values = {"host": "here", "user": "me", "controller_port": 7000, "node_ports": [7001, 7002], "cpus": 8, **changes}
    text: str = devcluster["slurm_conf"](Path("/some/folder"), **values)
    return text


def test_the_configuration_names_its_nodes(devcluster: dict[str, Any]) -> None:
    """Each port gives a node of this machine with the processors asked for, and all are in one partition."""
    text = conf(devcluster)
    assert "NodeName=n2 NodeAddr=127.0.0.1 NodeHostname=here Port=7002 CPUs=8 RealMemory=4000\n" in text
    assert text.count("NodeName=") == 2
    assert "PartitionName=main Nodes=ALL Default=YES" in text
    assert "SlurmUser=me\nSlurmdUser=me\n" in text


def test_the_configuration_stays_in_its_folder(devcluster: dict[str, Any]) -> None:
    """No file outside the cluster's folder is named, and the controller listens on this machine alone."""
    text = conf(devcluster)
    paths = set(re.findall(r"(?<![\w/])/[\w./%-]+", text)) - {"/bin/true"}
    assert len(paths) >= 8
    assert all(path.startswith("/some/folder/") for path in paths)
    assert "SlurmctldHost=here(127.0.0.1)" in text


def test_nodes_are_pretended(slurm: dict[str, str]) -> None:
    """Four nodes of four processors each take sixteen tasks at once, however small the machine is."""
    assert run("sinfo", "-h", "-N", "-o", "%N %c %T", env=slurm).splitlines() == [f"n{i} 4 idle" for i in (1, 2, 3, 4)]
    done = run("srun", "--ntasks=16", "--nodes=4", "printenv", "SLURMD_NODENAME", env=slurm)
    assert sorted(done.split()) == [f"n{i}" for i in (1, 2, 3, 4) for _ in range(4)]


def test_nothing_happens_twice(cluster: Cluster) -> None:
    """Starting what runs changes nothing, keeps edits, and prints the same line as ``env``."""
    before = cluster.pids()
    with (cluster.folder / "slurm.conf").open("a") as file:
        file.write("# mine\n")
    assert cluster.do("start", "--nodes", "7") == cluster.do("env")
    assert cluster.do("env") == f"export SLURM_CONF={cluster.folder}/slurm.conf\n"
    assert cluster.pids() == before
    assert set(before) == {"munged", "slurmctld", "slurmd-n1", "slurmd-n2"}
    assert (cluster.folder / "slurm.conf").read_text().endswith("# mine\n")


@pytest.mark.parametrize("killed", ["slurmd-n1", "slurmctld", "munged"])
def test_what_was_killed_is_started_again(cluster: Cluster, killed: str) -> None:
    """After the kill of a daemon a start brings back that one alone, and the cluster takes jobs."""
    before = cluster.pids()
    os.kill(before[killed], signal.SIGKILL)
    cluster.do("start")
    after = cluster.pids()
    assert [name for name in before if before[name] != after[name]] == [killed]
    assert cluster.ask("srun", "--nodelist=n1", "printenv", "SLURMD_NODENAME") == "n1\n"


def test_a_job_outlives_the_daemon_of_its_node(cluster: Cluster) -> None:
    """A job does not notice that the daemon that started it was killed and started again."""
    job = cluster.sleeper()
    os.kill(cluster.pids()["slurmd-n1"], signal.SIGKILL)
    cluster.do("start")
    assert psutil.pid_exists(job)
    assert cluster.ask("squeue", "--noheader", "--format=%T %N") == "RUNNING n1\n"


@pytest.mark.parametrize("killed", [(), ("slurmctld",), ("slurmctld", "slurmd-n1", "slurmd-n2", "munged")])
def test_stopping_leaves_nothing_behind(cluster: Cluster, killed: tuple[str, ...]) -> None:
    """No daemon and no job survives a stop, even when the controller was killed and knew nothing any more."""
    cluster.sleeper()
    assert len(cluster.processes()) >= 5
    for name in killed:
        os.kill(cluster.pids()[name], signal.SIGKILL)
    cluster.do("stop")
    assert cluster.processes() == []
    cluster.do("stop")


def test_an_ordinary_user_may_have_one(slurm: dict[str, str]) -> None:
    """Without root the same tool starts a cluster that runs jobs as its owner."""
    del slurm  # it says whether SLURM is there
    folder = Path(tempfile.mkdtemp())
    tool = str(shutil.copy(DEVCLUSTER, folder / "devcluster"))
    who: dict[str, Any] = {"env": {"PATH": "/usr/bin:/bin"}, "cwd": "/"}
    if os.geteuid() == 0:
        who |= {"user": "nobody", "group": "nogroup", "extra_groups": []}
        shutil.chown(folder, "nobody")
    try:
        run(tool, "start", str(folder / "own"), "--nodes", "1", **who)
        variables = {**who["env"], "SLURM_CONF": str(folder / "own" / "slurm.conf")}
        uid = int(run("srun", "id", "-u", **{**who, "env": variables}))
        assert uid == (folder / "own").stat().st_uid != 0
    finally:
        run(tool, "stop", str(folder / "own"), **who)
        shutil.rmtree(folder)


def test_missing_programs_are_named(
    devcluster: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without SLURM the tool says which packages to install, with an exit status of its own, and makes no folder."""
    main = devcluster["main"]
    monkeypatch.setitem(main.__globals__, "SYSTEM_PATH", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["start", str(tmp_path / "c")]) == devcluster["EXIT_MISSING"]
    assert "slurmctld" in (said := capsys.readouterr().err)
    assert "apt-get install slurm-wlm munge" in said
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["env", "{}/none"], "there is no cluster"), (["start", "{}/" + "deep/" * 30], "too long")],
)
def test_errors_are_one_line(arguments: list[str], said: str, slurm: dict[str, str], tmp_path: Path) -> None:
    """What cannot be done is said in one line, without a trace."""
    del slurm
    done = subprocess.run(
        [DEVCLUSTER, *(argument.format(tmp_path) for argument in arguments)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
