"""The FireWorks LaunchPad of a project, and the configuration with which the stock commands work on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml
from fireworks import LaunchPad
from pymongo.errors import DuplicateKeyError
from pymongo.uri_parser import parse_uri

from hullworks.database import QUICK_WAIT_S, client_options, database_uri
from hullworks.errors import StateError
from hullworks.launchers.services.processes import write_private

if TYPE_CHECKING:
    from fireworks import Workflow

    from hullworks.settings import Settings

OUTPUTS_COLLECTION = "outputs"
BLOBS_COLLECTION = "outputs_blobs"
CALCULATION_FIELD = "metadata.calculation_id"


def uri_with_database(settings: Settings) -> str:
    """Return the project's MongoDB address with the database name in its path, as FireWorks wants it (secret)."""
    uri, name = database_uri(settings), settings.database.name
    if parse_uri(uri)["database"]:
        # The user the address names is known to that database unless it says otherwise; ours is chosen by settings.
        head, _, tail = uri.partition("://")
        hosts, _, rest = tail.partition("/")
        _, mark, options = rest.partition("?")
        return f"{head}://{hosts}/{name}{mark}{options}"
    head, mark, options = uri.partition("?")
    return f"{head.rstrip('/')}/{name}{mark}{options}"


def open_launchpad(settings: Settings, *, wait_s: float = QUICK_WAIT_S) -> LaunchPad:
    """Return the project's LaunchPad, with its indexes and counters in place.

    Args:
        settings: The project's settings.
        wait_s: How long each operation waits for a server that does not answer, s.
    """
    launchpad = LaunchPad(
        host=uri_with_database(settings),
        name=settings.database.name,
        uri_mode=True,
        strm_lvl="WARNING",
        mongoclient_kwargs=client_options(wait_s),
    )
    prepare(launchpad)
    return launchpad


def prepare(launchpad: LaunchPad) -> None:
    """Create what FireWorks creates only by wiping everything (``lpad reset``), and the guard against double adding."""
    launchpad.fw_id_assigner.update_one(
        {"_id": -1}, {"$setOnInsert": {"next_fw_id": 1, "next_launch_id": 1}}, upsert=True
    )
    launchpad.tuneup()
    launchpad.workflows.create_index(
        CALCULATION_FIELD, unique=True, partialFilterExpression={CALCULATION_FIELD: {"$exists": True}}
    )
    # jobflow makes none, and looks outputs up by these.
    launchpad.db[OUTPUTS_COLLECTION].create_index([("uuid", 1), ("index", -1)])


def add_workflow(launchpad: LaunchPad, workflow: Workflow) -> int:
    """Store a workflow that carries ``calculation_id`` in its metadata, once; return the id of its first firework.

    The workflow document goes in before its fireworks, so that nothing can be checked out of half a workflow, and a
    second workflow of the same calculation is refused by the database itself.

    Raises:
        StateError: A workflow of this calculation is already there.
    """
    first = launchpad.get_new_fw_id(quantity=len(workflow.fws))
    workflow._reassign_ids({old: first + number for number, old in enumerate(sorted(workflow.id_fw))})  # noqa: SLF001
    for fw_id in workflow.root_fw_ids:
        workflow.id_fw[fw_id].state = "READY"
        workflow.fw_states[fw_id] = "READY"
    try:
        launchpad.workflows.insert_one(workflow.to_db_dict())
    except DuplicateKeyError:
        calculation = str(workflow.metadata.get("calculation_id"))
        raise StateError("its workflow is already on the LaunchPad", calculation) from None
    launchpad.fireworks.insert_many(firework.to_db_dict() for firework in workflow.fws)
    return int(first)


def job_store_spec(settings: Settings, *, wait_s: float) -> dict[str, Any]:
    """Return jobflow's description of the project's JobStore (secret: it holds the address)."""
    common = {
        "type": "MongoURIStore",
        "uri": database_uri(settings),
        "database": settings.database.name,
        "mongoclient_kwargs": client_options(wait_s),
    }
    blobs = {
        "type": "GridFSURIStore",
        "uri": database_uri(settings),
        "database": settings.database.name,
        "collection_name": BLOBS_COLLECTION,
        "mongoclient_kwargs": client_options(wait_s),
    }
    return {"docs_store": {**common, "collection_name": OUTPUTS_COLLECTION}, "additional_stores": {"data": blobs}}


def write_configuration(settings: Settings) -> dict[str, str]:
    """Write the files that ``lpad``, ``rlaunch``, ``qlaunch`` and jobflow read, and return the environment for them.

    The files hold the database password; they are readable by their owner alone.

    Returns:
        Variables to set: ``FW_CONFIG_FILE``, ``JOBFLOW_CONFIG_FILE`` and ``HULLWORKS_PROJECT_DIR``.
    """
    folder = settings.config_dir
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
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
    return {
        "FW_CONFIG_FILE": str(folder / "FW_config.yaml"),
        "JOBFLOW_CONFIG_FILE": str(folder / "jobflow.yaml"),
        "HULLWORKS_PROJECT_DIR": str(settings.project_dir),
    }


def fireworks_config(settings: Settings) -> dict[str, Any]:
    """Return the content of ``FW_config.yaml``.

    FireWorks' defaults call a run lost after four hours, start the newest first, and stop a worker at a workflow that
    a killed process left locked; these are the values that let a campaign go on.
    """
    folder = settings.config_dir
    return {
        "LAUNCHPAD_LOC": str(folder / "my_launchpad.yaml"),
        "FWORKER_LOC": str(folder / "my_fworker.yaml"),
        "PING_TIME_SECS": settings.launch.heartbeat_s,
        "RUN_EXPIRATION_SECS": settings.launch.lost_after_s,
        "WFLOCK_EXPIRATION_SECS": 30,
        "WFLOCK_EXPIRATION_KILL": True,
        "SORT_FWS": "FIFO",
        "QUEUE_UPDATE_INTERVAL": 0,
    }
