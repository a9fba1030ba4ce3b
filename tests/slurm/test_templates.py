"""Tests of the queue adapter's template: as text, and as SLURM reads it."""

from __future__ import annotations

import re
import shlex
import stat
import subprocess
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from pydantic import SecretStr

from hullworks.launchers.configuration import QUEUE_ADAPTER, queue_adapter, write_configuration

if TYPE_CHECKING:
    from fireworks.user_objects.queue_adapters.common_adapter import CommonAdapter

    from hullworks.settings import Settings

TEMPLATE = Path(__file__).resolve().parents[2] / "slurm" / QUEUE_ADAPTER


def adapter(text: str) -> CommonAdapter:
    """Return FireWorks' adapter of a template's text."""
    from fireworks.user_objects.queue_adapters.common_adapter import CommonAdapter

    return CommonAdapter.from_dict(yaml.safe_load(text))


@pytest.fixture
def script(tmp_path: Path) -> str:
    """The batch script that the template gives, for the partition ``main``."""
    text = queue_adapter(TEMPLATE.read_text(encoding="utf-8"), Path("/some venv/bin"))
    edited = text.replace("queue:          # partition", "queue: main")
    assert edited != text
    return str(adapter(edited).get_script_str(str(tmp_path)))


def test_the_script_starts_one_run(script: str, tmp_path: Path) -> None:
    """The script enters the run's folder and becomes ``rlaunch``, found without the path of a login shell."""
    lines = script.splitlines()
    assert lines[0] == "#!/bin/bash -l"
    assert f"cd {tmp_path}" in lines
    (start,) = (line for line in lines if "rlaunch" in line)
    assert shlex.split(start) == ["exec", "/some venv/bin/rlaunch", "singleshot"]
    assert [line for line in lines[lines.index(start) + 1 :] if line and not line.startswith("#")] == []


def test_what_a_site_leaves_empty_is_not_asked_for(script: str) -> None:
    """An empty value gives no line, and no placeholder is left over."""
    asked = set(re.findall(r"^#SBATCH --([\w-]+)=", script, flags=re.MULTILINE))
    assert {"partition", "time", "nodes", "ntasks", "cpus-per-task", "job-name"} <= asked
    assert "account" not in asked
    assert "$$" not in script


def test_the_script_tells_when_the_job_ends(script: str, slurm: dict[str, str]) -> None:
    """A job with a time limit knows the second of its end, also from a SLURM that does not say it."""
    (line,) = (line for line in script.splitlines() if "SLURM_JOB_END_TIME" in line)
    wrapped = f"{line}; echo $(( SLURM_JOB_END_TIME - $(date +%s) ))"
    command = ["srun", "--time=10", "bash", "-c", wrapped]
    done = subprocess.run(command, env=slurm, capture_output=True, text=True, check=True)
    assert 590 <= int(done.stdout) <= 600


def test_slurm_takes_the_script(script: str, slurm: dict[str, str], tmp_path: Path) -> None:
    """SLURM says when and where it would run the script, and refuses it for a partition that is not there."""
    for partition, status in (("main", 0), ("nowhere", 1)):
        path = tmp_path / "script"
        path.write_text(script.replace("--partition=main", f"--partition={partition}"))
        command = ["sbatch", "--test-only", str(path)]
        done = subprocess.run(command, env=slurm, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
        assert ("in partition main" in done.stderr) == (status == 0)


def test_the_configuration_of_a_project_is_private_and_keeps_edits(project: Settings) -> None:
    """The adapter in a project names the ``rlaunch`` of this environment, and is written once."""
    database = project.database.model_copy(update={"uri": SecretStr("mongodb://127.0.0.1:1/")})
    settings = project.model_copy(update={"database": database})
    write_configuration(settings)
    path = settings.config_dir / QUEUE_ADAPTER
    text = path.read_text(encoding="utf-8")
    assert f"exec {Path(sysconfig.get_path('scripts')) / 'rlaunch'} singleshot" in text
    assert settings.runs_dir.is_dir()
    path.write_text(text + "# mine\n")
    write_configuration(settings)
    assert path.read_text().endswith("# mine\n")
    assert {stat.S_IMODE(each.stat().st_mode) for each in settings.config_dir.iterdir() if each != path} == {0o600}
