"""The LaunchPad's port, on FireWorks' own collections."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from hullworks.documents import now
from hullworks.launchers.bookkeeping.adding import ADDING, add_whole, ensure_indexes
from hullworks.launchers.bookkeeping.records import STOPPED, TAKEN, Launch, Locked, PadRun, PadWorkflow
from hullworks.launchers.launchpad import CALCULATION_FIELD, RECORDED

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from fireworks import LaunchPad, Workflow

    from hullworks.launchers.bookkeeping.stores import Graph

FINISHED_AT_A_TIME: Final = 500
_TRACE_LINES: Final = 3

_RUN_FIELDS: Final = {
    "_id": 0,
    "fw_id": 1,
    "name": 1,
    "state": 1,
    "launches": 1,
    "updated_on": 1,
    "spec.candidate_id": 1,
    "spec.calculation_id": 1,
}
_LAUNCH_FIELDS: Final = {
    "_id": 0,
    "launch_id": 1,
    "fw_id": 1,
    "state": 1,
    "fworker.name": 1,
    "host": 1,
    "launch_dir": 1,
    "state_history.created_on": 1,
    "state_history.updated_on": 1,
    "action.stored_data._exception": 1,
}
_PUT_AWAY: Final = {
    "archived_launches": {"$setUnion": [{"$ifNull": ["$archived_launches", []]}, {"$ifNull": ["$launches", []]}]},
    "launches": [],
}
"""What FireWorks does with the launches of a firework that is to run again."""


@dataclass(frozen=True)
class FireworksGraph:
    """A FireWorks workflow that is built but not stored."""

    workflow: Workflow

    @property
    def calculation_id(self) -> str:
        """The calculation that it is for."""
        return str(self.workflow.metadata["calculation_id"])


class LaunchPadPad:
    """`hullworks.launchers.bookkeeping.stores.Pad` on a LaunchPad.

    Args:
        launchpad: The project's LaunchPad.
    """

    def __init__(self, launchpad: LaunchPad) -> None:
        self._pad = launchpad
        ensure_indexes(launchpad)

    # ------------------------------------------------------------------------------------------------ whole workflows
    def add(self, graph: Graph) -> int:
        """Store a workflow once."""
        return self.add_all([graph])[0]

    def add_all(self, graphs: Sequence[Graph]) -> list[int]:
        """Store workflows, each once."""
        built = [graph for graph in graphs if isinstance(graph, FireworksGraph)]
        if len(built) < len(graphs):
            raise TypeError("a LaunchPad takes graphs of the kind FireworksGraph")
        firsts = add_whole(self._pad, [graph.workflow for graph in built])
        return [
            self._first_of(graph.calculation_id) if first is None else first
            for graph, first in zip(built, firsts, strict=True)
        ]

    def _first_of(self, calculation_id: str) -> int:
        present = self._workflow(calculation_id)
        return 0 if present is None else int(min(present["nodes"]))

    def remove_half(self, calculation_id: str) -> bool:
        """Remove a workflow that was never whole."""
        found = self._workflow(calculation_id)
        if found is None:
            return True
        begun = {"fw_id": {"$in": found["nodes"]}, "launches": {"$ne": []}}
        if not found.get(ADDING) and self._pad.fireworks.count_documents(begun, limit=1):
            return False
        same = {"_id": found["_id"], ADDING: found.get(ADDING)}
        if not self._pad.workflows.delete_one(same).deleted_count:
            return False
        self._pad.fireworks.delete_many({"fw_id": {"$in": found["nodes"]}})
        return True

    def workflows(self, calculation_ids: Collection[str]) -> dict[str, PadWorkflow]:
        """Return workflows by calculation, in two queries."""
        fields = {"metadata.calculation_id": 1, "nodes": 1, "fw_states": 1, ADDING: 1}
        found = list(self._pad.workflows.find({CALCULATION_FIELD: {"$in": list(calculation_ids)}}, fields))
        nodes = [fw_id for workflow in found for fw_id in workflow["nodes"]]
        states = self._states(nodes)
        return {workflow["metadata"]["calculation_id"]: _pad_workflow(workflow, states) for workflow in found}

    def _states(self, fw_ids: Collection[int]) -> dict[int, str]:
        fields = {"_id": 0, "fw_id": 1, "state": 1}
        found = self._pad.fireworks.find({"fw_id": {"$in": list(fw_ids)}}, fields)
        return {item["fw_id"]: item["state"] for item in found}

    def _workflow(self, calculation_id: str) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self._pad.workflows.find_one({CALCULATION_FIELD: calculation_id})
        return found

    def mend(self, calculation_id: str) -> None:
        """Let go what waits in a stalled workflow."""
        from fireworks.core.launchpad import WFLock

        found = self._workflow(calculation_id)
        if found is None or found.get(ADDING):
            return
        with WFLock(self._pad, min(found["nodes"])):
            # Looked at again under the lock: nobody else is at it, and what the workflow has noted was done.
            found = self._workflow(calculation_id) or found
            workflow = _pad_workflow(found, self._states(found["nodes"]))
            redo = {"fw_id": {"$in": list(workflow.behind)}, "state": "COMPLETED"}
            self._pad.fireworks.update_many(redo, {"$set": {"state": "RUNNING"}})
        for fw_id in sorted(workflow.behind):
            self.refresh(fw_id)
        self._let_go(found)

    def revive(self, calculation_id: str) -> None:
        """Make what is stopped in a workflow wait again, or ready."""
        found = self._workflow(calculation_id)
        if found is None or found.get(ADDING):
            return
        stopped = {"fw_id": {"$in": found["nodes"]}, "state": {"$in": sorted(STOPPED)}}
        self._pad.fireworks.update_many(stopped, [{"$set": {"state": "WAITING", **_PUT_AWAY, "updated_on": _stamp()}}])
        self._pad.workflows.update_one({"_id": found["_id"]}, _states_from(STOPPED, "WAITING"))
        self._let_go(found)

    def _let_go(self, found: Mapping[str, Any]) -> None:
        """Make ready what waits for nothing any more.

        Not by FireWorks' refresh: it takes a firework without a launch for ready, also one that a worker is just
        checking out, and would let a second worker have it.
        """
        for fw_id in _free(found, _pad_workflow(found, self._states(found["nodes"]))):
            waits = {"fw_id": fw_id, "state": "WAITING", "launches": []}
            ready = {"$set": {"state": "READY", "updated_on": _stamp()}}
            if self._pad.fireworks.update_one(waits, ready).modified_count:
                self._note_state(fw_id, "READY")
            else:
                self.refresh(fw_id)

    def _note_state(self, fw_id: int, state: str) -> None:
        """Let a workflow take note of the state of one of its fireworks."""
        self._pad.workflows.update_one({"nodes": fw_id}, {"$set": {f"fw_states.{fw_id}": state}})

    def hold(self, calculation_ids: Collection[str], state: str) -> int:
        """Pause or defuse what waits or is ready in workflows, in three commands for all of them."""
        which = {CALCULATION_FIELD: {"$in": list(calculation_ids)}}
        nodes = [fw_id for item in self._pad.workflows.find(which, {"nodes": 1}) for fw_id in item["nodes"]]
        free = {"fw_id": {"$in": nodes}, "state": {"$in": ["WAITING", "READY"]}}
        done = self._pad.fireworks.update_many(free, {"$set": {"state": state, "updated_on": _stamp()}})
        self._pad.workflows.update_many(which, _states_from({"WAITING", "READY"}, state))
        return int(done.modified_count)

    # ------------------------------------------------------------------------------------------------- single fireworks
    def runs(self, states: Collection[str]) -> list[PadRun]:
        """Return fireworks by state, in at most two queries."""
        found = list(self._pad.fireworks.find({"state": {"$in": list(states)}}, _RUN_FIELDS).sort("fw_id", 1))
        return self._with_launches(found, launched=bool(set(states) - {"READY", "WAITING"}))

    def runs_of(self, fw_ids: Collection[int]) -> list[PadRun]:
        """Return fireworks by number, in two queries."""
        found = self._pad.fireworks.find({"fw_id": {"$in": list(fw_ids)}}, _RUN_FIELDS).sort("fw_id", 1)
        return self._with_launches(list(found), launched=True)

    def _with_launches(self, found: Iterable[Mapping[str, Any]], *, launched: bool) -> list[PadRun]:
        newest = {item["fw_id"]: max(item["launches"]) for item in found if item.get("launches")} if launched else {}
        launches = self._pad.launches.find({"launch_id": {"$in": list(newest.values())}}, _LAUNCH_FIELDS)
        by_id = {item["launch_id"]: _launch(item) for item in launches} if newest else {}
        return [_pad_run(item, by_id.get(newest.get(item["fw_id"], -1))) for item in found]

    def count_ready(self) -> int:
        """Return how many fireworks are ready."""
        return int(self._pad.fireworks.count_documents({"state": "READY"}))

    def strays(self, fw_ids: Collection[int]) -> set[int]:
        """Return the fireworks that no workflow has."""
        found = self._pad.workflows.find({"nodes": {"$in": list(fw_ids)}}, {"nodes": 1})
        return set(fw_ids) - {fw_id for item in found for fw_id in item["nodes"]}

    def discard(self, fw_id: int) -> bool:
        """Archive a ready stray."""
        done = self._pad.fireworks.update_one({"fw_id": fw_id, "state": "READY"}, {"$set": {"state": "ARCHIVED"}})
        return bool(done.modified_count)

    def finished(self) -> list[PadRun]:
        """Return what ended well and is not noted as recorded."""
        fresh = self._pad.launches.find({"state": "COMPLETED", RECORDED: None}, _LAUNCH_FIELDS)
        launches = [(item["fw_id"], _launch(item)) for item in fresh.limit(FINISHED_AT_A_TIME)]
        if not launches:
            return []
        owners = {"fw_id": {"$in": [fw_id for fw_id, _ in launches]}}
        found = {item["fw_id"]: item for item in self._pad.fireworks.find(owners, _RUN_FIELDS)}
        gone: dict[str, Any] = {"state": "", "name": "", "updated_on": now(), "spec": {}}
        return [_pad_run(found.get(fw_id, {"fw_id": fw_id, **gone}), launch) for fw_id, launch in launches]

    def note_recorded(self, launch_ids: Collection[int]) -> None:
        """Note launches as recorded."""
        self._pad.launches.update_many({"launch_id": {"$in": list(launch_ids)}}, {"$set": {RECORDED: True}})

    def reserve(self, fw_id: int, job: str) -> bool:
        """Reserve a ready firework for a queue job."""
        from fireworks import FWorker

        firework, _launch_id = self._pad.reserve_fw(FWorker(name=job, query={"fw_id": fw_id}), ".")
        return firework is not None

    def reserved_for(self, fw_id: int) -> str:
        """Return the name of the queue job that a firework is reserved for."""
        launch = next((run.launch for run in self.runs_of([fw_id]) if run.state == "RESERVED"), None)
        return launch.worker_id if launch is not None and launch.state == "RESERVED" else ""

    def take_up(self, run: PadRun) -> bool:  # noqa: ARG002 - the port's
        """Do nothing: the stock workers of FireWorks leave no result behind."""
        return False

    def give_back(self, run: PadRun, to: str = "READY") -> bool:
        """Make a firework ready again, or hold it, if it is as it was seen."""
        away = [{"$set": {"state": to, **_PUT_AWAY, "updated_on": _stamp()}}]
        if not self._pad.fireworks.update_one(self._as_seen(run), away).modified_count:
            return False
        if run.launch is not None:
            self._end_launch(run.launch, "ARCHIVED")
        self._note_state(run.fw_id, to)
        return True

    def _as_seen(self, run: PadRun) -> dict[str, Any]:
        """Return the query that matches a firework only as it was seen."""
        seen: dict[str, Any] = {"fw_id": run.fw_id, "state": run.state}
        if run.launch is not None:
            return {**seen, "$expr": {"$eq": [{"$max": "$launches"}, run.launch.launch_id]}}
        present = self._pad.fireworks.find_one({"fw_id": run.fw_id}, {"updated_on": 1}) or {}
        written = present.get("updated_on")
        same = written is not None and _moment(written) == run.updated_at
        return {**seen, "launches": [], "updated_on": written if same else "was written since"}

    def _end_launch(self, launch: Launch, state: str) -> bool:
        alive = {"launch_id": launch.launch_id, "state": {"$in": sorted(TAKEN)}}
        return bool(self._pad.launches.update_one(alive, {"$set": {"state": state}}).modified_count)

    def fizzle(self, run: PadRun) -> bool:
        """Fail a firework whose launch is lost."""
        if run.launch is None or not self._end_launch(run.launch, "FIZZLED"):
            return False
        self.refresh(run.fw_id)
        return True

    def refresh(self, fw_id: int) -> bool:
        """Derive a firework's state from its launch; FireWorks marks it as failed when it cannot, and logs why."""
        try:
            self._pad._refresh_wf(fw_id)  # noqa: SLF001 - what `lpad detect_lostruns --refresh` does
        except RuntimeError:
            return False
        return True

    # ------------------------------------------------------------------------------------------------------------ locks
    def locked(self) -> list[Locked]:
        """Return the workflows that are held for writing."""
        found = self._pad.workflows.find({"locked": {"$exists": True}}, {"nodes": 1, "updated_on": 1})
        return [Locked(tuple(sorted(item["nodes"])), str(item["updated_on"])) for item in found]

    def unlock(self, lock: Locked) -> bool:
        """Take away a lock whose workflow is as it was seen."""
        found = self._pad.workflows.find_one({"nodes": lock.nodes[0]}, {"updated_on": 1})
        if found is None or str(found["updated_on"]) != lock.version:
            return False
        done = self._pad.workflows.update_one(found, {"$unset": {"locked": ""}})
        return bool(done.modified_count)


def _pad_workflow(found: Mapping[str, Any], states: Mapping[int, str]) -> PadWorkflow:
    noted = {int(fw_id): state for fw_id, state in found["fw_states"].items()}
    own = {fw_id: states[fw_id] for fw_id in found["nodes"] if fw_id in states}
    return PadWorkflow(
        calculation_id=found["metadata"]["calculation_id"],
        states=own,
        n_nodes=len(found["nodes"]),
        adding=bool(found.get(ADDING)),
        behind=frozenset(
            fw_id for fw_id, state in own.items() if state == "COMPLETED" and noted.get(fw_id) != "COMPLETED"
        ),
    )


def _free(found: Mapping[str, Any], workflow: PadWorkflow) -> list[int]:
    """Return the waiting fireworks of a workflow whose parents have all ended well."""
    held = {
        child
        for parent, children in found["links"].items()
        if workflow.states.get(int(parent)) != "COMPLETED"
        for child in children
    }
    return sorted(set(workflow.among(frozenset({"WAITING"}))) - held)


def _states_from(old: Collection[str], new: str) -> list[dict[str, Any]]:
    """Return the update that brings what a workflow notes of its fireworks from some states to another."""
    step = {"k": "$$this.k", "v": {"$cond": [{"$in": ["$$this.v", sorted(old)]}, new, "$$this.v"]}}
    states = {"$arrayToObject": {"$map": {"input": {"$objectToArray": "$fw_states"}, "in": step}}}
    return [{"$set": {"fw_states": states, "state": new}}]


def _pad_run(item: Mapping[str, Any], launch: Launch | None) -> PadRun:
    spec = item.get("spec") or {}
    return PadRun(
        fw_id=item["fw_id"],
        step=item["name"],
        state=item["state"],
        candidate_id=str(spec.get("candidate_id", "")),
        calculation_id=str(spec.get("calculation_id", "")),
        updated_at=_moment(item["updated_on"]),
        launch=launch,
    )


def _launch(item: Mapping[str, Any]) -> Launch:
    signs = [_moment(step.get("updated_on") or step["created_on"]) for step in item["state_history"]]
    return Launch(
        launch_id=item["launch_id"],
        state=item["state"],
        worker_id=item["fworker"]["name"],
        host=item["host"],
        directory=item["launch_dir"],
        last_sign=max(signs),
        trace=_raised(item.get("action") or {}),
    )


def _raised(action: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the last lines of what a launch raised, that which names the exception first."""
    import re

    stored = action.get("stored_data") or {}
    trace = str((stored.get("_exception") or {}).get("_stacktrace", "")).strip().splitlines()
    raised = [line for line in trace if re.match(r"[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt)\b", line)]
    return (*raised[-1:], *trace[-_TRACE_LINES:])


def _stamp() -> str:
    """Return the present time as FireWorks writes it."""
    return datetime.now(UTC).isoformat()


def _moment(value: datetime | str) -> datetime:
    """Return a time that FireWorks wrote, as text or as a date, with its zone."""
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
