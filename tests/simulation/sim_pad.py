"""A LaunchPad in memory: the port's steps on FireWorks' documents.

`tests/launchers/bookkeeping/test_conformance.py` compares it with the real one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hullworks.launchers.bookkeeping.records import STOPPED, TAKEN, Locked, PadRun, PadWorkflow
from tests.simulation.sim_fireworks import Firework, SimFireworks, Workflow

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from hullworks.launchers.bookkeeping.stores import Graph


@dataclass(frozen=True)
class SimGraph:
    """A workflow that is built but not stored: the names of its steps, one after the other."""

    calculation_id: str
    candidate_id: str
    steps: tuple[str, ...]


class SimPad(SimFireworks):
    """`hullworks.launchers.bookkeeping.stores.Pad` in memory."""

    # ------------------------------------------------------------------------------------------------ whole workflows
    def add(self, graph: Graph) -> int:
        """As the port says."""
        assert isinstance(graph, SimGraph)
        first = self.last_fw + 1
        self.last_fw += len(graph.steps)
        nodes = tuple(range(first, self.last_fw + 1))
        self.last_key += 1
        key = self.last_key
        self.step("add: workflow")
        if graph.calculation_id in self.workflows_:
            return min(self.workflows_[graph.calculation_id].nodes)
        states = dict.fromkeys(nodes, "WAITING") | {first: "READY"}
        self.workflows_[graph.calculation_id] = Workflow(graph.calculation_id, nodes, states, adding=key)
        for fw_id, step in zip(nodes, graph.steps, strict=True):
            self.step("add: firework")
            self.fireworks[fw_id] = Firework(
                fw_id, step, "WAITING", graph.candidate_id, graph.calculation_id, self.now()
            )
        self.step("add: whole")
        present = self.workflows_.get(graph.calculation_id)
        if present is None or present.adding != key:
            self.step("add: remove own")
            for fw_id in nodes:
                self.fireworks.pop(fw_id, None)
            return 0 if present is None else min(present.nodes)
        self.workflows_[graph.calculation_id] = replace(present, adding=0)
        self.step("add: ready")
        root = self.fireworks.get(first)
        if root is not None and root.state == "WAITING":
            self.fireworks[first] = replace(root, state="READY")
        return first

    def add_all(self, graphs: Sequence[Graph]) -> list[int]:
        """As the port says."""
        return [self.add(graph) for graph in graphs]

    def remove_half(self, calculation_id: str) -> bool:
        """As the port says."""
        self.step("remove: look")
        seen = self.workflows_.get(calculation_id)
        if seen is None:
            return True
        if not seen.adding and any(self.fireworks[f].launches for f in seen.nodes if f in self.fireworks):
            return False
        self.step("remove: workflow")
        present = self.workflows_.get(calculation_id)
        if present is None or present.adding != seen.adding or present.nodes != seen.nodes:
            return False
        del self.workflows_[calculation_id]
        self.step("remove: fireworks")
        for fw_id in seen.nodes:
            self.fireworks.pop(fw_id, None)
        return True

    def workflows(self, calculation_ids: Collection[str]) -> dict[str, PadWorkflow]:
        """As the port says."""
        self.step("workflows: look")
        found = [self.workflows_[name] for name in calculation_ids if name in self.workflows_]
        if not found:
            return {}
        self.step("workflows: states")
        return {workflow.calculation_id: self._view(workflow) for workflow in found}

    def _view(self, workflow: Workflow) -> PadWorkflow:
        states = {f: self.fireworks[f].state for f in workflow.nodes if f in self.fireworks}
        behind = frozenset(f for f, s in states.items() if s == "COMPLETED" and workflow.states.get(f) != "COMPLETED")
        return PadWorkflow(workflow.calculation_id, states, len(workflow.nodes), bool(workflow.adding), behind)

    def mend(self, calculation_id: str) -> None:
        """As the port says."""
        self.step("mend: look")
        workflow = self.workflows_.get(calculation_id)
        if workflow is None or workflow.adding:
            return
        with self.lock(workflow.nodes[0]):
            self.step("mend: run again")
            view = self._view(self.workflows_[calculation_id])
            for fw_id in view.behind:
                self.put(fw_id, "RUNNING")
        for fw_id in sorted(view.behind):
            self.refresh(fw_id)
        self._let_go(workflow.nodes)

    def _free(self, nodes: tuple[int, ...]) -> list[int]:
        """Waiting fireworks whose parents have all ended well."""
        states = [self.fireworks[f].state if f in self.fireworks else "" for f in nodes]
        return [f for i, f in enumerate(nodes) if states[i] == "WAITING" and (i == 0 or states[i - 1] == "COMPLETED")]

    def _let_go(self, nodes: tuple[int, ...]) -> None:
        self.step("let go: look")
        for fw_id in self._free(nodes):
            self.step("let go: firework")
            firework = self.fireworks.get(fw_id)
            if firework is not None and firework.state == "WAITING" and not firework.launches:
                self.put(fw_id, "READY")
                self._note_state(fw_id, "READY")
            else:
                self.refresh(fw_id)

    def _note_state(self, fw_id: int, state: str) -> None:
        self.step("note state")
        workflow = self.workflow_of(fw_id)
        if workflow is not None:
            noted = {**workflow.states, fw_id: state}
            self.workflows_[workflow.calculation_id] = replace(workflow, states=noted)

    def revive(self, calculation_id: str) -> None:
        """As the port says."""
        self.step("revive: fireworks")
        workflow = self.workflows_.get(calculation_id)
        if workflow is None or workflow.adding:
            return
        for fw_id in workflow.nodes:
            firework = self.fireworks.get(fw_id)
            if firework is not None and firework.state in STOPPED:
                self.fireworks[fw_id] = self._put_away(firework, "WAITING")
        self.step("revive: workflow")
        self._note_states(calculation_id, STOPPED, "WAITING")
        self._let_go(workflow.nodes)

    def hold(self, calculation_ids: Collection[str], state: str) -> int:
        """As the port says."""
        self.step("hold: fireworks")
        count = 0
        names = [name for name in calculation_ids if name in self.workflows_]
        for name in names:
            for fw_id in self.workflows_[name].nodes:
                if fw_id in self.fireworks and self.fireworks[fw_id].state in {"WAITING", "READY"}:
                    self.put(fw_id, state)
                    count += 1
        self.step("hold: workflows")
        for name in names:
            self._note_states(name, {"WAITING", "READY"}, state)
        return count

    def _note_states(self, calculation_id: str, old: Collection[str], new: str) -> None:
        workflow = self.workflows_.get(calculation_id)
        if workflow is not None:
            states = {f: new if s in old else s for f, s in workflow.states.items()}
            self.workflows_[calculation_id] = replace(workflow, states=states)

    # ------------------------------------------------------------------------------------------------- single fireworks
    def runs(self, states: Collection[str]) -> list[PadRun]:
        """As the port says."""
        self.step("runs: look")
        found = [firework for firework in self.fireworks.values() if firework.state in states]
        return self._with_launches(found, launched=bool(set(states) - {"READY", "WAITING"}))

    def runs_of(self, fw_ids: Collection[int]) -> list[PadRun]:
        """As the port says."""
        self.step("runs: look")
        return self._with_launches([self.fireworks[f] for f in fw_ids if f in self.fireworks], launched=True)

    def _with_launches(self, found: list[Firework], *, launched: bool) -> list[PadRun]:
        if launched and found:
            self.step("runs: launches")
        newest = {f.fw_id: self.launches.get(max(f.launches)) for f in found if launched and f.launches}
        return [
            PadRun(f.fw_id, f.step, f.state, f.candidate_id, f.calculation_id, f.updated_at, newest.get(f.fw_id))
            for f in sorted(found, key=lambda f: f.fw_id)
        ]

    def count_ready(self) -> int:
        """As the port says."""
        self.step("count ready")
        return sum(firework.state == "READY" for firework in self.fireworks.values())

    def strays(self, fw_ids: Collection[int]) -> set[int]:
        """As the port says."""
        self.step("strays")
        return set(fw_ids) - {f for workflow in self.workflows_.values() for f in workflow.nodes}

    def discard(self, fw_id: int) -> bool:
        """As the port says."""
        self.step("discard")
        return self._swap(fw_id, {"READY"}, "ARCHIVED")

    def finished(self) -> list[PadRun]:
        """As the port says."""
        self.step("finished: launches")
        fresh = [x for x in self.launches.values() if x.state == "COMPLETED" and x.launch_id not in self.recorded]
        if fresh:
            self.step("finished: fireworks")
        owned = [(self.fireworks.get(self.launch_fw[launch.launch_id]), launch) for launch in fresh]
        return [
            PadRun(f.fw_id, f.step, f.state, f.candidate_id, f.calculation_id, f.updated_at, launch)
            for f, launch in owned
            if f is not None
        ]

    def note_recorded(self, launch_ids: Collection[int]) -> None:
        """As the port says."""
        self.step("note recorded")
        self.recorded |= set(launch_ids)

    def reserve(self, fw_id: int, job: str) -> bool:
        """As the port says."""
        return self.check_out(job, "", fw_id=fw_id, state="RESERVED", only_ready=True) is not None

    def reserved_for(self, fw_id: int) -> str:
        """As the port says."""
        launch = next((run.launch for run in self.runs_of([fw_id]) if run.state == "RESERVED"), None)
        return launch.worker_id if launch is not None and launch.state == "RESERVED" else ""

    def take_up(self, run: PadRun) -> bool:  # noqa: ARG002 - the port's
        """As the port says; a simulated worker leaves nothing behind."""
        self.step("take up: folder")
        return False

    def give_back(self, run: PadRun, to: str = "READY") -> bool:
        """As the port says."""
        self.step("give back: firework")
        present = self.fireworks.get(run.fw_id)
        if present is None or not self.is_as_seen(present, run):
            return False
        self.fireworks[run.fw_id] = self._put_away(present, to)
        if run.launch is not None:
            self.step("give back: launch")
            self._end_launch(run.launch.launch_id, "ARCHIVED")
        self._note_state(run.fw_id, to)
        return True

    def is_as_seen(self, present: Firework, run: PadRun) -> bool:
        """Whether a firework is as it was seen."""
        if present.state != run.state:
            return False
        if run.launch is None:
            return not present.launches and present.updated_at == run.updated_at
        return bool(present.launches) and max(present.launches) == run.launch.launch_id

    def fizzle(self, run: PadRun) -> bool:
        """As the port says."""
        self.step("fizzle: launch")
        if run.launch is None or not self._end_launch(run.launch.launch_id, "FIZZLED"):
            return False
        self.refresh(run.fw_id)
        return True

    def _end_launch(self, launch_id: int, state: str) -> bool:
        launch = self.launches.get(launch_id)
        if launch is None or launch.state not in TAKEN:
            return False
        self.launches[launch_id] = replace(launch, state=state)
        return True

    def _put_away(self, firework: Firework, state: str) -> Firework:
        archived = tuple(sorted({*firework.archived, *firework.launches}))
        return replace(firework, state=state, launches=(), archived=archived, updated_at=self.now())

    def _swap(self, fw_id: int, old: Collection[str], new: str) -> bool:
        if fw_id not in self.fireworks or self.fireworks[fw_id].state not in old:
            return False
        self.put(fw_id, new)
        return True

    # ------------------------------------------------------------------------------------------------------------ locks
    def locked(self) -> list[Locked]:
        """As the port says."""
        self.step("locked")
        return [Locked(w.nodes, str(w.version)) for w in self.workflows_.values() if w.locked]

    def unlock(self, lock: Locked) -> bool:
        """As the port says."""
        self.step("unlock: look")
        found = self.workflow_of(lock.nodes[0])
        if found is None or str(found.version) != lock.version:
            return False
        self.step("unlock")
        present = self.workflow_of(lock.nodes[0])
        if present is None or present.version != found.version or not present.locked:
            return False
        self.workflows_[present.calculation_id] = replace(present, locked=False)
        return True
