"""The FireWorks LaunchPad of a project: opened, prepared, and guarded against adding a calculation twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fireworks import LaunchPad

from hullworks.database import QUICK_WAIT_S, client_options
from hullworks.errors import StateError
from hullworks.launchers.bookkeeping.adding import add_whole
from hullworks.launchers.configuration import OUTPUTS_COLLECTION, uri_with_database

if TYPE_CHECKING:
    from fireworks import Workflow

    from hullworks.settings import Settings

CALCULATION_FIELD = "metadata.calculation_id"
RECORDED = "hullworks_recorded"
"""Field of FireWorks' launches whose end is stored as a `Run`."""


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
    launchpad.launches.create_index([(RECORDED, 1), ("state", 1)])
    # jobflow makes none, and looks outputs up by these.
    launchpad.db[OUTPUTS_COLLECTION].create_index([("uuid", 1), ("index", -1)])


def add_workflow(launchpad: LaunchPad, workflow: Workflow) -> int:
    """Store a workflow that carries ``calculation_id`` in its metadata, once; return the id of its first firework.

    Raises:
        StateError: A workflow of this calculation is already there.
    """
    (first,) = add_whole(launchpad, [workflow])
    if first is None:
        raise StateError("its workflow is already on the LaunchPad", str(workflow.metadata.get("calculation_id")))
    return first
