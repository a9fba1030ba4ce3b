"""Workflows put on the LaunchPad so that nothing can run out of half of one, wherever its adder is killed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pymongo.errors import DuplicateKeyError

if TYPE_CHECKING:
    from fireworks import LaunchPad, Workflow

ADDING: Final = "hullworks_adding"
"""Field of FireWorks' workflows that are not whole yet."""


def ensure_indexes(launchpad: LaunchPad) -> None:
    """Create the indexes that answer what the bookkeeping asks at every look without reading the documents."""
    launchpad.fireworks.create_index([("fw_id", 1), ("state", 1)])
    launchpad.workflows.create_index("locked", sparse=True)


def add_whole(launchpad: LaunchPad, workflow: Workflow) -> int | None:
    """Store a workflow that carries ``calculation_id`` in its metadata, once.

    The workflow document goes in first, so that the database itself refuses a second one of the same calculation. Its
    fireworks wait until all are stored and it is still there: nothing can be checked out of half a workflow, nor out
    of one that was taken for half and removed.

    Returns:
        The number of its first firework; none when a workflow of its calculation is there, or it was removed.
    """
    first = int(launchpad.get_new_fw_id(quantity=len(workflow.fws)))
    numbers = {old: first + number for number, old in enumerate(sorted(workflow.id_fw, reverse=True))}
    for firework in workflow.fws:
        firework.fw_id = numbers[firework.fw_id]
    workflow._reassign_ids(numbers)  # noqa: SLF001 - what FireWorks' own bulk_add_wfs does
    roots = list(workflow.root_fw_ids)
    for fw_id in roots:
        workflow.fw_states[fw_id] = "READY"
    try:
        key = launchpad.workflows.insert_one({**workflow.to_db_dict(), ADDING: True}).inserted_id
    except DuplicateKeyError:
        return None
    launchpad.fireworks.insert_many(firework.to_db_dict() for firework in workflow.fws)
    return first if _release(launchpad, key, list(numbers.values()), roots) else None


def _release(launchpad: LaunchPad, key: object, fw_ids: list[int], roots: list[int]) -> bool:
    """Let a workflow start whose parts are all stored; return False when it was removed meanwhile."""
    kept = launchpad.workflows.update_one({"_id": key, ADDING: True}, {"$unset": {ADDING: ""}})
    if not kept.modified_count:
        launchpad.fireworks.delete_many({"fw_id": {"$in": fw_ids}})
        return False
    launchpad.fireworks.update_many({"fw_id": {"$in": roots}, "state": "WAITING"}, {"$set": {"state": "READY"}})
    return True
