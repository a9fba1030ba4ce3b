"""A real SLURM of several pretended nodes on this machine."""

from __future__ import annotations

import os
import runpy
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEVCLUSTER = Path(__file__).resolve().parents[2] / "slurm" / "devcluster"
EXIT_MISSING = 5


@pytest.fixture(scope="session")
def devcluster() -> dict[str, Any]:
    """What the tool that starts the cluster is made of."""
    return runpy.run_path(str(DEVCLUSTER), run_name="devcluster")


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory, give_up: Callable[[str], NoReturn]) -> Iterator[dict[str, str]]:
    """The environment in which the commands of SLURM use a cluster of four nodes with four processors each."""
    folder = tmp_path_factory.mktemp("slurm")
    started = subprocess.run([DEVCLUSTER, "start", folder], capture_output=True, text=True, check=False)
    if started.returncode == EXIT_MISSING:
        give_up(f"SLURM is missing: {started.stderr}")
    assert started.returncode == 0, started.stderr
    yield {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    subprocess.run([DEVCLUSTER, "stop", folder], check=True)


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables with which the workers of the session compile the libraries once, whatever the tests run under."""
    return {"PYTHONPYCACHEPREFIX": str(tmp_path_factory.mktemp("compiled")), "PYTHONDONTWRITEBYTECODE": ""}
