"""The configuration with which FireWorks, jobflow and their stock commands work on a project."""

from __future__ import annotations

import os
import shlex
import sysconfig
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from hullworks.database import client_options, database_uri
from hullworks.launchers.services.processes import write_private

if TYPE_CHECKING:
    from hullworks.settings import Settings

OUTPUTS_COLLECTION = "outputs"
BLOBS_COLLECTION = "outputs_blobs"
QUEUE_ADAPTER = "my_qadapter.yaml"
"""Copied from the template once; from then on it is the user's."""


def uri_with_database(settings: Settings) -> str:
    """Return the project's MongoDB address with the database name in its path, as FireWorks wants it (secret)."""
    uri, name = database_uri(settings), settings.database.name
    from pymongo.uri_parser import parse_uri

    if parse_uri(uri)["database"]:
        # The user the address names is known to that database unless it says otherwise; ours is chosen by settings.
        head, _, tail = uri.partition("://")
        hosts, _, rest = tail.partition("/")
        _, mark, options = rest.partition("?")
        return f"{head}://{hosts}/{name}{mark}{options}"
    head, mark, options = uri.partition("?")
    return f"{head.rstrip('/')}/{name}{mark}{options}"


def job_store_spec(settings: Settings, *, wait_s: float) -> dict[str, Any]:
    """Return jobflow's description of the project's JobStore (secret: it holds the address)."""
    common = {
        "type": "MongoStore",
        "uri": database_uri(settings),
        "database": settings.database.name,
        "mongoclient_kwargs": client_options(wait_s),
    }
    blobs = {
        "type": "GridFSStore",
        "uri": database_uri(settings),
        "database": settings.database.name,
        "collection_name": BLOBS_COLLECTION,
        "mongoclient_kwargs": client_options(wait_s),
    }
    return {"docs_store": {**common, "collection_name": OUTPUTS_COLLECTION}, "additional_stores": {"data": blobs}}


def use_configuration(settings: Settings) -> dict[str, str]:
    """Write the configuration and make this process use it; return the environment.

    FireWorks and jobflow read theirs when they are first imported: call this before.
    """
    environment = write_configuration(settings)
    os.environ.update(environment)
    return environment


def write_configuration(settings: Settings) -> dict[str, str]:
    """Write the files that ``lpad``, ``rlaunch``, ``qlaunch`` and jobflow read, and return the environment for them.

    The files hold the database password; they are readable by their owner alone.

    Returns:
        Variables to set: ``FW_CONFIG_FILE``, ``JOBFLOW_CONFIG_FILE`` and ``HULLWORKS_PROJECT_DIR``.
    """
    folder = settings.config_dir
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    settings.runs_dir.mkdir(parents=True, exist_ok=True)  # `qlaunch --launch_dir` wants it to be there
    wait_s = settings.database.wait_s
    files: dict[str, dict[str, Any]] = {
        "my_launchpad.yaml": {
            "host": uri_with_database(settings),
            "name": settings.database.name,
            "uri_mode": True,
            "strm_lvl": "WARNING",
            "mongoclient_kwargs": client_options(wait_s),
        },
        "my_fworker.yaml": {"name": "hullworks", "category": "", "query": "{}"},
        "FW_config.yaml": fireworks_config(settings),
        "jobflow.yaml": {"JOB_STORE": job_store_spec(settings, wait_s=wait_s)},
    }
    for name, content in files.items():
        write_private(folder / name, yaml.safe_dump(content, sort_keys=True))
    if not (folder / QUEUE_ADAPTER).exists():
        template = resources.files("hullworks.slurm").joinpath(QUEUE_ADAPTER).read_text(encoding="utf-8")
        write_private(folder / QUEUE_ADAPTER, queue_adapter(template, Path(sysconfig.get_path("scripts"))))
    return {
        "FW_CONFIG_FILE": str(folder / "FW_config.yaml"),
        "JOBFLOW_CONFIG_FILE": str(folder / "jobflow.yaml"),
        "HULLWORKS_PROJECT_DIR": str(settings.project_dir),
    }


def queue_adapter(template: str, programs: Path) -> str:
    """Return the text of ``my_qadapter.yaml``, with the whole path of ``rlaunch``.

    Args:
        template: The text as it ships.
        programs: Folder of the programs of this environment.
    """
    return template.replace("exec rlaunch ", f"exec {shlex.quote(str(programs / 'rlaunch'))} ")


def fireworks_config(settings: Settings) -> dict[str, Any]:
    """Return the content of ``FW_config.yaml``.

    FireWorks' defaults call a run lost after four hours, start the newest first, and stop a worker at a workflow that
    a killed process left locked; these are the values that let a campaign go on.
    """
    folder = settings.config_dir
    return {
        "LAUNCHPAD_LOC": str(folder / "my_launchpad.yaml"),
        "FWORKER_LOC": str(folder / "my_fworker.yaml"),
        "QUEUEADAPTER_LOC": str(folder / QUEUE_ADAPTER),
        "PING_TIME_SECS": settings.launch.heartbeat_s,
        "RUN_EXPIRATION_SECS": settings.launch.lost_after_s,
        "WFLOCK_EXPIRATION_SECS": 30,
        "WFLOCK_EXPIRATION_KILL": True,
        "SORT_FWS": "FIFO",
        "QUEUE_UPDATE_INTERVAL": 0,
    }
