"""Batch scripts, as text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hullworks.launchers.slurm.scripts import Allocation, job_script, minutes
from hullworks.settings import SlurmSettings

ASKED = Allocation(
    name="hw-17",
    project_dir=Path("/data/my campaign"),
    log_dir=Path("/data/my campaign/logs"),
    variables={"HULLWORKS_PROJECT_DIR": "/data/my campaign", "FW_CONFIG_FILE": "/data/my campaign/FW_config.yaml"},
)
SITE = SlurmSettings(
    partition="standard",
    account="mat-1",
    qos="normal",
    constraint="icelake",
    exclude=["cn13"],
    slots=4,
    ranks=4,
    threads=2,
    memory_MB=8000,
    walltime_s=86400,
    lead_s=180,
    extra=["--mail-type=FAIL"],
    modules=["qe/7.2"],
    environment={"OMP_NUM_THREADS": "2"},
    setup=["ulimit -s unlimited"],
    scratch="/scratch/$USER",
    python="/opt/hw/bin/python",
)


def test_an_allocation_of_many_runs() -> None:
    """The whole text: what is asked for, what is set up, and the worker that takes the place of the shell."""
    assert job_script(SITE, replace(ASKED, exclude=("cn13", "cn14"))) == (
        "#!/bin/bash -l\n"
        "#SBATCH --partition=standard\n"
        "#SBATCH --account=mat-1\n"
        "#SBATCH --qos=normal\n"
        "#SBATCH --constraint=icelake\n"
        "#SBATCH --exclude=cn13,cn14\n"
        "#SBATCH --nodes=1\n"
        "#SBATCH --ntasks=16\n"
        "#SBATCH --cpus-per-task=2\n"
        "#SBATCH --time=1440\n"
        '#SBATCH --output="/data/my campaign/logs/%j.log"\n'
        "#SBATCH --mem=32000M\n"
        "#SBATCH --signal=B:USR1@180\n"
        "#SBATCH --no-requeue\n"
        "#SBATCH --mail-type=FAIL\n"
        "\n"
        "module load qe/7.2\n"
        "export OMP_NUM_THREADS=2\n"
        "export HULLWORKS_PROJECT_DIR='/data/my campaign'\n"
        "export FW_CONFIG_FILE='/data/my campaign/FW_config.yaml'\n"
        "export HULLWORKS_JOB=hw-17\n"
        "ulimit -s unlimited\n"
        'export TMPDIR="/scratch/$USER" && mkdir -p "$TMPDIR"\n'
        "cd '/data/my campaign' || exit 1\n"
        "exec /opt/hw/bin/python -m hullworks.launchers.slurm.allocation --slots 4 --lead 180 --idle 120\n"
    )


def lines(site: SlurmSettings, asked: Allocation) -> list[str]:
    """Return the lines of a script."""
    return job_script(site, asked).splitlines()


def test_what_a_site_leaves_out_is_not_asked_for() -> None:
    """A site that says nothing gets what its cluster gives."""
    asked = [line for line in lines(SlurmSettings(), ASKED) if line.startswith("#SBATCH")]
    assert [line.removeprefix("#SBATCH --").partition("=")[0] for line in asked] == [
        *("nodes", "ntasks", "cpus-per-task", "time", "output", "signal", "no-requeue"),
    ]


def test_a_job_for_one_run() -> None:
    """It asks for the one run's share alone, and for what experience says that this run needs."""
    found = lines(SITE, replace(ASKED, fw_id=7, walltime_s=7200, memory_MB=16000))
    assert {"#SBATCH --ntasks=4", "#SBATCH --mem=16000M", "#SBATCH --time=120"} <= set(found)
    assert found[-1].endswith("--slots 1 --lead 180 --idle 120 --fw-id 7")


def test_a_run_on_many_nodes_has_them_alone() -> None:
    """Whatever the slots: memory and GPUs are per node."""
    site = SlurmSettings(nodes=4, slots=3, ranks=512, gpus=16, memory_MB=100001, exclusive=True, lead_s=0)
    found = lines(site, ASKED)
    wanted = {"--nodes=4", "--ntasks=512", "--mem=25001M", "--gpus-per-node=4", "--exclusive"}
    assert {f"#SBATCH {option}" for option in wanted} <= set(found)
    assert not [line for line in found if "signal" in line]
    assert "--slots 1" in found[-1]


def test_the_tasks_of_an_array_write_apart() -> None:
    """Each has a log of its own, and does one run."""
    found = lines(SITE, replace(ASKED, n_tasks=5, max_runs=1))
    assert '#SBATCH --output="/data/my campaign/logs/%A_%a.log"' in found
    assert found[-1].endswith("--max-runs 1")


@pytest.mark.parametrize(("seconds", "asked"), [(1, 1), (60, 1), (119, 1), (3600, 60)])
def test_no_more_time_than_asked_for(seconds: int, asked: int) -> None:
    """SLURM counts minutes."""
    assert minutes(seconds) == asked
