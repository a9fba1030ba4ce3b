"""FireWorks' own documents and writes in memory: what its workers do to a LaunchPad, one step at a time.

Where FireWorks reads a document, thinks, and later replaces it whole, so does this: what others wrote in between is
lost here too.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from hullworks.launchers.bookkeeping.records import Launch, PadRun

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from datetime import datetime

RANKS: Final = {
    "ARCHIVED": -2,
    "FIZZLED": -1,
    "DEFUSED": 0,
    "PAUSED": 0,
    "WAITING": 1,
    "READY": 2,
    "RESERVED": 3,
    "RUNNING": 4,
    "COMPLETED": 5,
}
"""FireWorks' order of states; of several launches the highest counts."""
LOCK_WAIT_S: Final = 30.0
"""Until FireWorks takes a lock by force (`WFLOCK_EXPIRATION_SECS` of our configuration)."""
TAKEN_ID: Final = frozenset({"READY", "RESERVED"})
"""States from which FireWorks checks a firework out that is asked for by number."""


@dataclass(frozen=True)
class Firework:
    """A document of FireWorks' `fireworks`."""

    fw_id: int
    step: str
    state: str
    candidate_id: str
    calculation_id: str
    updated_at: datetime
    launches: tuple[int, ...] = ()
    archived: tuple[int, ...] = ()


@dataclass(frozen=True)
class Workflow:
    """A document of FireWorks' `workflows`; its steps stand in a line."""

    calculation_id: str
    nodes: tuple[int, ...]
    states: dict[int, str]
    adding: int = 0
    locked: bool = False
    version: int = 0


@dataclass
class SimFireworks:
    """The collections of a LaunchPad, and what FireWorks does to them.

    Args:
        step: Called before each single operation; others may act in it, or the caller be killed.
        now: The time.
        sleep: Wait.
        delicate: Called with +1 and -1 around sequences of FireWorks that no process is held up in for long.
    """

    step: Callable[[str], None]
    now: Callable[[], datetime]
    sleep: Callable[[float], None]
    delicate: Callable[[int], None] = lambda _change: None
    fireworks: dict[int, Firework] = field(default_factory=dict)
    launches: dict[int, Launch] = field(default_factory=dict)
    launch_fw: dict[int, int] = field(default_factory=dict)
    workflows_: dict[str, Workflow] = field(default_factory=dict)
    recorded: set[int] = field(default_factory=set)
    last_fw: int = 0
    last_launch: int = 0
    last_key: int = 0

    def put(self, fw_id: int, state: str) -> None:
        """Write a firework's state."""
        self.fireworks[fw_id] = replace(self.fireworks[fw_id], state=state, updated_at=self.now())

    def workflow_of(self, fw_id: int) -> Workflow | None:
        """Return the workflow that has a firework."""
        return next((w for w in self.workflows_.values() if fw_id in w.nodes), None)

    @contextmanager
    def lock(self, fw_id: int) -> Iterator[None]:
        """FireWorks' lock: waited for, then taken by force; taken off even when the work in it fails."""
        self.delicate(1)
        waited = 0.0
        while True:
            self.step("lock")
            found = self.workflow_of(fw_id)
            if found is None or not found.locked or waited > LOCK_WAIT_S:
                break
            self.sleep(5.0)
            waited += 5.0
        if found is not None:
            self.workflows_[found.calculation_id] = replace(found, locked=True)
        try:
            yield
        finally:
            self.step("unlock")
            present = self.workflow_of(fw_id)
            if present is not None:
                self.workflows_[present.calculation_id] = replace(present, locked=False)
            self.delicate(-1)

    # ------------------------------------------------------------------------------------ what FireWorks' own code does
    def refresh(self, fw_id: int) -> bool:
        """As the port says; what FireWorks does after every change of a launch."""
        if self.workflow_of(fw_id) is None:
            self.step("refresh: no workflow")
            return False
        with self.lock(fw_id):
            self.step("refresh: read")
            workflow = self.workflow_of(fw_id)
            if workflow is None:
                return False
            read = {f: self.fireworks[f] for f in workflow.nodes if f in self.fireworks}
            states = dict(workflow.states)
            changed = self._refreshed(fw_id, workflow.nodes, read, states)
            for changed_id in sorted(changed):
                self.step("refresh: firework")
                self.fireworks[changed_id] = read[changed_id]
            self.step("refresh: workflow")
            if workflow.calculation_id in self.workflows_:
                self.workflows_[workflow.calculation_id] = replace(
                    workflow, states=states, version=workflow.version + 1, locked=True, adding=0
                )
        return True

    def _refreshed(
        self, fw_id: int, nodes: tuple[int, ...], read: dict[int, Firework], states: dict[int, str]
    ) -> set[int]:
        """FireWorks' `Workflow.refresh` for steps in a line."""
        firework = read[fw_id]
        if firework.state in {"DEFUSED", "ARCHIVED", "PAUSED"}:
            states[fw_id] = firework.state
            return set()
        place = nodes.index(fw_id)
        if place and states[nodes[place - 1]] != "COMPLETED":
            new = "WAITING"
        else:
            found = [self.launches[x].state for x in firework.launches if x in self.launches]
            new = max(found, key=lambda state: RANKS[state], default="READY")
            new = "READY" if new == "ARCHIVED" else new
        states[fw_id] = new
        if new == firework.state:
            return set()
        read[fw_id] = replace(firework, state=new, updated_at=self.now())
        children = nodes[place + 1 : place + 2] if new in {"COMPLETED", "FIZZLED"} else ()
        return {fw_id}.union(*(self._refreshed(child, nodes, read, states) for child in children))

    def check_out(
        self, worker: str, directory: str, *, fw_id: int = 0, state: str = "RUNNING", only_ready: bool = False
    ) -> PadRun | None:
        """FireWorks' `checkout_fw`: the firework reserved, its launch stored, the firework replaced, all refreshed."""
        self.delicate(1)
        try:
            return self._check_out(worker, directory, fw_id, state, {"READY"} if only_ready or not fw_id else TAKEN_ID)
        finally:
            self.delicate(-1)

    def _check_out(self, worker: str, directory: str, fw_id: int, state: str, free: Collection[str]) -> PadRun | None:
        self.step("check out: reserve")
        found = [f for f in self.fireworks.values() if f.state in free and fw_id in {0, f.fw_id}]
        if not found:
            return None
        seen = min(found, key=lambda f: f.fw_id)
        self.put(seen.fw_id, "RESERVED")
        seen = self.fireworks[seen.fw_id]
        reserved = [x for x in seen.launches if self.launches[x].state == "RESERVED"]
        launch_id = reserved[0] if reserved else self.last_launch + 1
        self.last_launch = max(self.last_launch, launch_id)
        self.step("check out: launch")
        launch = Launch(launch_id, state, worker, worker, directory or f"run-{launch_id}", self.now())
        self.launches[launch_id], self.launch_fw[launch_id] = launch, seen.fw_id
        self.step("check out: firework")
        launches = seen.launches if reserved else (*seen.launches, launch_id)
        self.fireworks[seen.fw_id] = replace(seen, state=state, launches=launches, updated_at=self.now())
        self.refresh(seen.fw_id)
        return PadRun(seen.fw_id, seen.step, state, seen.candidate_id, seen.calculation_id, self.now(), launch)

    def complete(self, launch_id: int, state: str, trace: tuple[str, ...] = ()) -> None:
        """FireWorks' `complete_launch`: the launch replaced whole, whatever it has become; its fireworks refreshed."""
        self.step("complete: launch")
        self.launches[launch_id] = replace(self.launches[launch_id], state=state, trace=trace, last_sign=self.now())
        self.step("complete: look")
        owners = [f.fw_id for f in self.fireworks.values() if launch_id in f.launches]
        for fw_id in owners:
            self.refresh(fw_id)

    def ping(self, launch_id: int) -> None:
        """FireWorks' `ping_launch`."""
        self.step("ping")
        launch = self.launches[launch_id]
        if launch.state == "RUNNING":
            self.launches[launch_id] = replace(launch, last_sign=self.now())
