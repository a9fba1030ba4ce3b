"""Workflows put on the LaunchPad so that nothing can run out of half of one, wherever its adder is killed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bson import ObjectId
from pymongo.errors import BulkWriteError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fireworks import LaunchPad, Workflow

ADDING: Final = "hullworks_adding"
"""Field of FireWorks' workflows that are not whole yet."""
DUPLICATE_KEY: Final = 11000
"""MongoDB's code for a value that a unique index has already."""


def ensure_indexes(launchpad: LaunchPad) -> None:
    """Create the indexes that answer what the bookkeeping asks at every look without reading the documents."""
    launchpad.fireworks.create_index([("fw_id", 1), ("state", 1)])
    launchpad.workflows.create_index("locked", sparse=True)


def add_whole(launchpad: LaunchPad, workflows: Sequence[Workflow]) -> list[int | None]:
    """Store workflows that carry ``calculation_id`` in their metadata, each once, in five round trips for all.

    The workflow documents go in first, so that the database itself refuses a second one of the same calculation. Their
    fireworks wait until all are stored and the workflow is still there: nothing can be checked out of half a workflow,
    nor out of one that was taken for half and removed.

    Args:
        launchpad: Where to.
        workflows: All are held in memory as documents, 40 kB each: hand in some hundreds at a time.

    Returns:
        The number of each one's first firework; none when a workflow of its calculation is there, or it was removed.
    """
    if not workflows:
        return []
    following = int(launchpad.get_new_fw_id(quantity=sum(len(workflow.fws) for workflow in workflows)))
    new: dict[int, _New] = {}
    for place, workflow in enumerate(workflows):
        new[place] = _numbered(workflow, following)
        following += len(workflow.fws)
    for place in _insert(launchpad, list(new.values())):
        del new[place]
    if not new:
        return [None] * len(workflows)
    fireworks = [firework.to_db_dict() for each in new.values() for firework in each.workflow.fws]
    launchpad.fireworks.insert_many(fireworks, ordered=False)
    kept = _release(launchpad, list(new.values()))
    return [new[place].first if place in new and new[place].key in kept else None for place in range(len(workflows))]


@dataclass(frozen=True)
class _New:
    """A workflow on its way: itself, its key, its numbers, and those that are ready first."""

    workflow: Workflow
    key: ObjectId
    fw_ids: list[int]
    roots: list[int]

    @property
    def first(self) -> int:
        return min(self.fw_ids)


def _numbered(workflow: Workflow, first: int) -> _New:
    """Give the fireworks of a workflow their numbers."""
    numbers = {old: first + number for number, old in enumerate(sorted(workflow.id_fw, reverse=True))}
    for firework in workflow.fws:
        firework.fw_id = numbers[firework.fw_id]
    workflow._reassign_ids(numbers)  # noqa: SLF001 - what FireWorks' own bulk_add_wfs does
    roots = list(workflow.root_fw_ids)
    for fw_id in roots:
        workflow.fw_states[fw_id] = "READY"
    return _New(workflow, ObjectId(), list(numbers.values()), roots)


def _insert(launchpad: LaunchPad, new: Sequence[_New]) -> set[int]:
    """Insert the workflow documents; return the places of those whose calculation is there already.

    Raises:
        BulkWriteError: The database refuses one for another reason.
    """
    documents = [{**each.workflow.to_db_dict(), "_id": each.key, ADDING: True} for each in new]
    try:
        launchpad.workflows.insert_many(documents, ordered=False)
    except BulkWriteError as error:
        failures = error.details["writeErrors"]
        if any(failure["code"] != DUPLICATE_KEY for failure in failures):
            raise
        return {int(failure["index"]) for failure in failures}
    return set()


def _release(launchpad: LaunchPad, new: Sequence[_New]) -> set[ObjectId]:
    """Let the workflows start whose parts are all stored; return the keys of those that nobody removed meanwhile."""
    mine = {"_id": {"$in": [each.key for each in new]}}
    launchpad.workflows.update_many({**mine, ADDING: True}, {"$unset": {ADDING: ""}})
    kept = {item["_id"] for item in launchpad.workflows.find(mine, {"_id": 1})}
    gone = [fw_id for each in new if each.key not in kept for fw_id in each.fw_ids]
    if gone:
        launchpad.fireworks.delete_many({"fw_id": {"$in": gone}})
    roots = [fw_id for each in new if each.key in kept for fw_id in each.roots]
    launchpad.fireworks.update_many({"fw_id": {"$in": roots}, "state": "WAITING"}, {"$set": {"state": "READY"}})
    return kept
