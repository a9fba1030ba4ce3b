"""What the bookkeeping needs of the LaunchPad, of the documents, and of the machines: ports of plain records.

Each method is one atomic step, or the sequence of steps that its docstring names. Between any two steps its process may
be killed, and any other process may do anything: whoever reconciles next takes it from there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Collection, Mapping, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime

    from hullworks.errors import HullWorksError
    from hullworks.launchers.bookkeeping.records import (
        Case,
        EndedRun,
        Job,
        Locked,
        Move,
        PadRun,
        PadWorkflow,
        Resources,
        WorkerMark,
    )
    from hullworks.states import CandidateState, Cause, QueueJobState


class Graph(Protocol):
    """A workflow that is built but not stored."""

    @property
    def calculation_id(self) -> str:
        """The calculation that it is for."""
        ...


class Build(Protocol):
    """Makes the workflows of candidates."""

    def __call__(self, candidate_ids: Sequence[str]) -> Mapping[str, Graph | HullWorksError]:
        """Return the workflow of each candidate, or the error that says why it cannot be built.

        The calculations of those that can be are noted.
        """
        ...


class Pad(Protocol):
    """The LaunchPad."""

    def add(self, graph: Graph) -> int:
        """Store a workflow, once, and return the number of its first firework, also when it was there before.

        Steps: the workflow, marked as being added; its fireworks, none of them ready; the mark taken off, unless
        somebody has removed the workflow meanwhile; the first firework made ready. Until the last nothing of it runs.
        """
        ...

    def add_all(self, graphs: Sequence[Graph]) -> list[int]:
        """Store workflows, each as `add` does, in a few round trips for all; return their numbers in order."""
        ...

    def remove_half(self, calculation_id: str) -> bool:
        """Remove a workflow that is still marked as being added, or of which nothing has run and a part is missing.

        Steps: the workflow, by compare-and-set; its fireworks.
        """
        ...

    def workflows(self, calculation_ids: Collection[str]) -> dict[str, PadWorkflow]:
        """Return the workflows of calculations, by calculation."""
        ...

    def runs(self, states: Collection[str]) -> list[PadRun]:
        """Return all fireworks in these states, oldest first; with their launches, but for those that are ready."""
        ...

    def runs_of(self, fw_ids: Collection[int]) -> list[PadRun]:
        """Return these fireworks with their newest launches."""
        ...

    def count_ready(self) -> int:
        """Return how many fireworks a worker could take now."""
        ...

    def strays(self, fw_ids: Collection[int]) -> set[int]:
        """Return those of these fireworks that no workflow has."""
        ...

    def discard(self, fw_id: int) -> bool:
        """Archive a stray firework that nobody runs."""
        ...

    def finished(self) -> list[PadRun]:
        """Return fireworks with a launch that ended well and is not noted as recorded; at most some hundreds."""
        ...

    def note_recorded(self, launch_ids: Collection[int]) -> None:
        """Note launches as recorded."""
        ...

    def reserve(self, fw_id: int, job: str) -> bool:
        """Reserve a ready firework for a queue job; return whether it was ready. Steps: those of FireWorks."""
        ...

    def reserved_for(self, fw_id: int) -> str:
        """Return the name of the queue job that a firework is reserved for, empty when it is not.

        FireWorks lets anybody check out a reserved firework who asks for it by its number, two at once as well. So a
        worker asks for it by number only when it is reserved for its own job; else it asks for it as a ready one, by a
        query, which one worker alone can win.
        """
        ...

    def take_up(self, run: PadRun) -> bool:
        """Store the result of a running firework that its worker left behind and could not tell, if there is one.

        Steps: its outputs, by their ids; its launch; what its workflow notes of it. Safe to repeat.
        """
        ...

    def give_back(self, run: PadRun, to: str = "READY") -> bool:
        """Make a firework ready again, if it still is as it was seen: in that state, with that launch as its newest.

        Steps: the firework, by compare-and-set; its launch; what its workflow notes of it.

        Args:
            run: The firework as it was seen.
            to: ``READY``, or ``PAUSED`` or ``DEFUSED`` when nobody is to take it.

        Returns:
            Whether it was as it was seen.
        """
        ...

    def fizzle(self, run: PadRun) -> bool:
        """Fail a firework whose launch is lost. Steps: the launch, by compare-and-set; firework and workflow."""
        ...

    def refresh(self, fw_id: int) -> bool:
        """Derive a firework's state from its launch, and its workflow's from it; return False when FireWorks cannot."""
        ...

    def mend(self, calculation_id: str) -> None:
        """Let go what waits in a stalled workflow, without doing twice what its completed steps ask for.

        Steps: each completed step of which the workflow took no note, as running again; its state from its launch, and
        those of the steps after it; each other step that waits for nothing, from its launch. A workflow that is being
        added is left alone.
        """
        ...

    def revive(self, calculation_id: str) -> None:
        """Make what is failed, defused or paused in a workflow wait again, or ready.

        Steps: the fireworks; the workflow; each that waits for nothing. A workflow that is being added is left alone.
        """
        ...

    def hold(self, calculation_ids: Collection[str], state: str) -> int:
        """Pause (``PAUSED``) or defuse (``DEFUSED``) what waits or is ready in workflows.

        Steps: the fireworks of all; the workflows. What somebody has in hand is left alone.

        Returns:
            How many fireworks were held.
        """
        ...

    def locked(self) -> list[Locked]:
        """Return the workflows that somebody holds for writing."""
        ...

    def unlock(self, lock: Locked) -> bool:
        """Take away a lock; return False when its workflow has been written to since it was seen."""
        ...


class Book(Protocol):
    """The documents of a project."""

    def cases(
        self,
        states: Collection[CandidateState],
        *,
        batch: str | None = None,
        limit: int = 0,
    ) -> list[Case]:
        """Return candidates in these states, best ranked first; all when the limit is 0."""
        ...

    def cases_of(self, candidate_ids: Collection[str]) -> dict[str, Case]:
        """Return candidates by their id; those that do not exist are left out."""
        ...

    def count(self, states: Collection[CandidateState]) -> int:
        """Return how many candidates are in these states."""
        ...

    def move(self, moves: Sequence[Move]) -> int:
        """Make moves, each by compare-and-set with state and time; return how many were made.

        Raises:
            StateError: The table of moves lacks one of them; nothing was changed.
        """
        ...

    def moved(self, moves: Sequence[Move]) -> set[str]:
        """Make moves as `move` does, and return the candidates that were moved by it."""
        ...

    def note_workflows(self, workflows: Sequence[tuple[Case, int]]) -> None:
        """Note the workflows of candidates, each by the number of its first firework."""
        ...

    def entered(self, calculation_ids: Collection[str]) -> set[str]:
        """Return those of these calculations that have an entry."""
        ...

    def settle(self, calculation_id: str) -> bool:
        """Bring a candidate to where its entry puts it; return whether it had to be moved."""
        ...

    def record(self, run: EndedRun) -> None:
        """Store an ended run, unless it is stored."""
        ...

    def recorded(self, launch_ids: Collection[int]) -> dict[int, tuple[Cause, str, tuple[str, ...]]]:
        """Return cause, outcome and evidence of the stored ones of these launches."""
        ...

    def failures(self, candidate_id: str, step: str, since: datetime | None) -> Counter[Cause]:
        """Return how often each cause ended a run of a step of a candidate, since a time."""
        ...

    def remedy(self, run: EndedRun, resources: Resources, why: str) -> None:
        """Note with its candidate that a run is started again, with other resources, once per run."""
        ...

    def workers(self, worker_ids: Collection[str]) -> dict[str, WorkerMark]:
        """Return workers by their name."""
        ...

    def plan(self, job: Job) -> None:
        """Store a queue job before it is submitted."""
        ...

    def jobs(self, states: Collection[QueueJobState]) -> list[Job]:
        """Return queue jobs in these states, oldest first."""
        ...

    def jobs_of(self, names: Collection[str]) -> dict[str, Job]:
        """Return queue jobs by their name."""
        ...

    def note_job(self, job: Job, **changes: object) -> bool:
        """Change fields of a queue job, if it is in the state it was seen in; return whether it was."""
        ...

    def planned_since(self, account_key: str, moment: datetime) -> int:
        """Return how many queue jobs of an account were planned since a time."""
        ...

    def node_failures(self, moment: datetime) -> Counter[str]:
        """Return how many queue jobs ended by a failure of each node since a time."""
        ...

    def doubts(self) -> tuple[datetime | None, dict[str, datetime]]:
        """Return when the last look was, and since when each doubt has been seen in every look."""
        ...

    def keep_doubts(self, at: datetime, doubts: Mapping[str, datetime]) -> None:
        """Store the doubts of this look in place of those of the last."""
        ...

    def lease(self, name: str, seconds: float) -> AbstractContextManager[object]:
        """Try to hold a lease for the length of a ``with`` block; what it yields is true when it is held."""
        ...


class Site(Protocol):
    """What only a machine's own files and processes tell."""

    def report(self, directory: str) -> Mapping[str, object]:
        """Return what a run wrote about its own end; empty when it wrote nothing that can be read."""
        ...

    def lives(self, worker: WorkerMark) -> bool | None:
        """Return whether a worker's process lives; none when that cannot be told from here."""
        ...
