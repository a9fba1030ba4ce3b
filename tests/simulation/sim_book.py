"""The documents in memory: every method one step, every move by compare-and-set, every wrong record noticed."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from hullworks.errors import StateError
from hullworks.launchers.bookkeeping.records import Case, EndedRun, Job, Move, Resources, WorkerMark
from hullworks.states import CandidateState, Cause, check_move

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from hullworks.states import QueueJobState

S = CandidateState


@dataclass
class SimBook:
    """`hullworks.launchers.bookkeeping.stores.Book` in memory.

    Args:
        step: Called before each single operation.
        now: The time.
        on_record: Called with each ended run that is newly stored.
        on_move: Called with each move that is about to be made.
    """

    step: Callable[[str], None]
    now: Callable[[], datetime]
    on_record: Callable[[EndedRun], None] = lambda _run: None
    on_move: Callable[[Move], None] = lambda _move: None
    candidates: dict[str, Case] = field(default_factory=dict)
    history: dict[str, list[tuple[S, str]]] = field(default_factory=dict)
    causes: dict[str, Cause] = field(default_factory=dict)
    attempts: Counter[str] = field(default_factory=Counter)
    workflow_ids: dict[str, int] = field(default_factory=dict)
    entries: dict[str, bool] = field(default_factory=dict)
    runs: dict[int, EndedRun] = field(default_factory=dict)
    remedies: dict[str, list[str]] = field(default_factory=dict)
    workers_: dict[str, WorkerMark] = field(default_factory=dict)
    queue_jobs: dict[str, Job] = field(default_factory=dict)
    leases: dict[str, tuple[object, datetime]] = field(default_factory=dict)
    doubts_: tuple[datetime | None, dict[str, datetime]] = (None, {})

    def cases(self, states: Collection[CandidateState], *, batch: str | None = None, limit: int = 0) -> list[Case]:
        """As the port says."""
        self.step("cases")
        found = [c for c in self.candidates.values() if c.state in states and batch in {None, c.batch}]
        return found[: limit or None]

    def cases_of(self, candidate_ids: Collection[str]) -> dict[str, Case]:
        """As the port says."""
        self.step("cases of")
        return {name: self.candidates[name] for name in sorted(candidate_ids) if name in self.candidates}

    def count(self, states: Collection[CandidateState]) -> int:
        """As the port says."""
        self.step("count")
        return sum(case.state in states for case in self.candidates.values())

    def move(self, moves: Sequence[Move]) -> int:
        """As the port says."""
        return len(self.moved(moves))

    def moved(self, moves: Sequence[Move]) -> set[str]:
        """As the port says."""
        for move in moves:
            check_move(move.case.state, move.new, move.case.candidate_id)
        if not moves:
            return set()
        self.step("move")
        return {move.case.candidate_id for move in moves if self._move(move)}

    def _move(self, move: Move) -> bool:
        name = move.case.candidate_id
        present = self.candidates[name]
        if (present.state, present.since) != (move.case.state, move.case.since):
            return False
        self.on_move(move)
        budget = self.now() if move.fresh_budget else present.budget_since
        self.candidates[name] = replace(present, state=move.new, since=self.now(), budget_since=budget)
        self.history.setdefault(name, []).append((move.new, move.why))
        if move.cause is not None:
            self.causes[name] = move.cause
        self.attempts[name] += move.counts
        return True

    def note_workflows(self, workflows: Sequence[tuple[Case, int]]) -> None:
        """As the port says."""
        for case, workflow_id in workflows:
            self.step("note workflow")
            self.workflow_ids[case.candidate_id] = workflow_id

    def entered(self, calculation_ids: Collection[str]) -> set[str]:
        """As the port says."""
        self.step("entered")
        return {name for name in calculation_ids if name in self.entries}

    def settle(self, calculation_id: str) -> bool:
        """As the port says; what landing does after it has stored an entry."""
        self.step("settle: entry")
        if calculation_id not in self.entries:
            return False
        new = S.LANDED if self.entries[calculation_id] else S.FAILED
        case = next(c for c in self.candidates.values() if c.calculation_id == calculation_id)
        self.step("settle: move")
        case = self.candidates[case.candidate_id]
        try:
            check_move(case.state, new)
        except StateError:
            return False
        return self._move(Move(case, new, "its entry", cause=Cause.CONVERGED))

    def store_entry(self, calculation_id: str, *, valid: bool) -> None:
        """What landing does: an entry once, then its candidate."""
        self.step("store entry")
        self.entries.setdefault(calculation_id, valid)
        self.settle(calculation_id)

    def record(self, run: EndedRun) -> None:
        """As the port says."""
        self.step("record")
        if run.launch_id not in self.runs:
            self.runs[run.launch_id] = run
            self.on_record(run)

    def recorded(self, launch_ids: Collection[int]) -> dict[int, tuple[Cause, str, tuple[str, ...]]]:
        """As the port says."""
        self.step("recorded")
        found = [self.runs[name] for name in launch_ids if name in self.runs]
        return {run.launch_id: (run.cause, run.outcome, run.evidence) for run in found}

    def failures(self, candidate_id: str, step: str, since: datetime | None) -> Counter[Cause]:
        """As the port says."""
        self.step("failures")
        return Counter(
            run.cause
            for run in self.runs.values()
            if (run.candidate_id, run.step) == (candidate_id, step) and (since is None or run.ended_at >= since)
        )

    def remedy(self, run: EndedRun, resources: Resources, why: str) -> None:  # noqa: ARG002 - the port's
        """As the port says."""
        self.step("remedy")
        noted = self.remedies.setdefault(run.candidate_id, [])
        if run.run_id not in noted and run.candidate_id in self.candidates:
            noted.append(run.run_id)
            self.candidates[run.candidate_id] = replace(self.candidates[run.candidate_id], resources=resources)

    def workers(self, worker_ids: Collection[str]) -> dict[str, WorkerMark]:
        """As the port says."""
        if not worker_ids:
            return {}
        self.step("workers")
        return {name: self.workers_[name] for name in sorted(worker_ids) if name in self.workers_}

    def plan(self, job: Job) -> None:
        """As the port says."""
        self.step("plan")
        self.queue_jobs[job.name] = job

    def jobs(self, states: Collection[QueueJobState]) -> list[Job]:
        """As the port says."""
        self.step("jobs")
        return [job for job in self.queue_jobs.values() if job.state in states]

    def jobs_of(self, names: Collection[str]) -> dict[str, Job]:
        """As the port says."""
        if not names:
            return {}
        self.step("jobs of")
        return {name: self.queue_jobs[name] for name in sorted(names) if name in self.queue_jobs}

    def note_job(self, job: Job, **changes: object) -> bool:
        """As the port says."""
        self.step("note job")
        present = self.queue_jobs[job.name]
        if present.state is not job.state:
            return False
        self.queue_jobs[job.name] = replace(present, **changes)  # type: ignore[arg-type]
        return True

    def planned_since(self, account_key: str, moment: datetime) -> int:
        """As the port says."""
        self.step("planned since")
        jobs = self.queue_jobs.values()
        return sum(job.account_key == account_key and job.planned_at >= moment for job in jobs)

    def node_failures(self, moment: datetime) -> Counter[str]:
        """As the port says."""
        self.step("node failures")
        failed = [job for job in self.queue_jobs.values() if job.end in {"NODE_FAIL", "BOOT_FAIL"}]
        return Counter(n for job in failed if job.ended_at and job.ended_at >= moment for n in job.ran_on)

    def doubts(self) -> tuple[datetime | None, dict[str, datetime]]:
        """As the port says."""
        self.step("doubts")
        return self.doubts_[0], dict(self.doubts_[1])

    def keep_doubts(self, at: datetime, doubts: Mapping[str, datetime]) -> None:
        """As the port says."""
        self.step("keep doubts")
        self.doubts_ = (at, dict(doubts))

    @contextmanager
    def lease(self, name: str, seconds: float) -> Iterator[object]:
        """As the port says; a killed holder gives nothing back."""
        self.step("lease")
        mine = object()
        _, expires = self.leases.get(name, (None, self.now()))
        held = expires <= self.now()
        if held:
            self.leases[name] = (mine, self.now() + timedelta(seconds=seconds))
        try:
            yield held
        finally:
            if held:
                self.step("give lease up")
                if self.leases.get(name, (None, None))[0] is mine:
                    del self.leases[name]
