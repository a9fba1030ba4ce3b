"""The FireWorks LaunchPad of a project: opened, prepared, and guarded against adding a calculation twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fireworks import LaunchPad
from pymongo.errors import BulkWriteError

from hullworks.database import QUICK_WAIT_S, client_options
from hullworks.errors import StateError
from hullworks.launchers.configuration import OUTPUTS_COLLECTION, uri_with_database

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fireworks import Workflow

    from hullworks.settings import Settings

CALCULATION_FIELD = "metadata.calculation_id"
DUPLICATE_KEY: Final = 11000
"""MongoDB's code for a value that a unique index has already."""
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
    (first,) = add_workflows(launchpad, [workflow])
    if first is None:
        calculation = str(workflow.metadata.get("calculation_id"))
        raise StateError("its workflow is already on the LaunchPad", calculation)
    return first


def add_workflows(launchpad: LaunchPad, workflows: Sequence[Workflow]) -> list[int | None]:
    """Store workflows that carry ``calculation_id`` in their metadata, each calculation once.

    The workflow documents go in before their fireworks, so that nothing can be checked out of half a workflow, and a
    second workflow of the same calculation is refused by the database itself.

    Returns:
        The id of each one's first firework; None where a workflow of its calculation was already there.
    """
    if not workflows:
        return []
    first = launchpad.get_new_fw_id(quantity=sum(len(workflow.fws) for workflow in workflows))
    firsts: list[int | None] = []
    for workflow in workflows:
        firsts.append(first)
        _renumber(workflow, first)
        first += len(workflow.fws)
    try:
        launchpad.workflows.insert_many([workflow.to_db_dict() for workflow in workflows], ordered=False)
    except BulkWriteError as error:
        for problem in error.details["writeErrors"]:
            if problem["code"] != DUPLICATE_KEY:
                raise
            firsts[problem["index"]] = None
    stored = [workflow for workflow, kept in zip(workflows, firsts, strict=True) if kept is not None]
    if stored:
        launchpad.fireworks.insert_many(firework.to_db_dict() for workflow in stored for firework in workflow.fws)
    return firsts


def _renumber(workflow: Workflow, first: int) -> None:
    """Give a new workflow its numbers on the LaunchPad, and let its first fireworks be ready."""
    renumbered = {old: first + number for number, old in enumerate(sorted(workflow.id_fw, reverse=True))}
    for firework in workflow.fws:
        firework.fw_id = renumbered[firework.fw_id]
    workflow._reassign_ids(renumbered)  # noqa: SLF001 - what FireWorks' own bulk_add_wfs does
    for fw_id in workflow.root_fw_ids:
        workflow.id_fw[fw_id].state = "READY"
        workflow.fw_states[fw_id] = "READY"
