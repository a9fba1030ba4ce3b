"""What must hold in a simulated campaign: after every step, and when all is settled."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hullworks.states import MOVES, CandidateState, Cause
from tests.simulation.world import Violation

if TYPE_CHECKING:
    from hullworks.launchers.bookkeeping.causes import Rules
    from hullworks.launchers.bookkeeping.records import Case, EndedRun, Move
    from tests.simulation.sim_book import SimBook

S = CandidateState


@dataclass
class Truth:
    """What really happened to a launch."""

    fw_id: int
    worker: str
    causes: set[Cause] = field(default_factory=set)
    over: bool = False
    told: bool = False

    def end(self, cause: Cause) -> None:
        """Note why it ended, or why its worker did before FireWorks was told."""
        if not self.told:
            self.over = True
            self.causes |= {cause}


class Referee:
    """Knows what really happened, and compares.

    Args:
        book: The documents.
        table: The causes and their remedies.

    Attributes:
        truth: What really happened to each launch.
        nature: What each candidate is like.
    """

    def __init__(self, book: SimBook, table: Rules) -> None:
        self.book = book
        self.table = table
        self.truth: dict[int, Truth] = {}
        self.nature: dict[str, str] = {}
        book.on_record, book.on_move = self.record, self.move

    def dies(self, worker: str, cause: Cause) -> None:
        """Note why a worker ends, with what it has in hand."""
        for truth in self.truth.values():
            if truth.worker == worker:
                truth.end(cause)

    def record(self, run: EndedRun) -> None:
        """Nothing is recorded as ended that lives, and every cause is the true one."""
        truth = self.truth.get(run.launch_id)
        if truth is None:
            return  # killed while it was checked out: it never began
        if not truth.over:
            raise Violation(f"launch {run.launch_id} lives and is recorded as {run.cause}: {run.evidence}")
        if run.cause not in truth.causes:
            causes = ", ".join(sorted(truth.causes))
            raise Violation(f"launch {run.launch_id} ended by {causes}, recorded is {run.cause}: {run.evidence}")

    def move(self, move: Move) -> None:
        """A candidate that its user had tried again fails by what happened since, not by what was known before."""
        case = self.book.candidates[move.case.candidate_id]
        if move.new is not S.FAILED or case.budget_since is None or move.cause in {Cause.CANCELLED, Cause.INVALID}:
            return
        runs = [run for run in self.book.runs.values() if run.candidate_id == case.candidate_id]
        if not any(run.ended_at >= case.budget_since for run in runs):
            raise Violation(f"{case.candidate_id} fails by {move.cause}, known before its user's retry")

    def always(self) -> None:
        """What must hold after every step."""
        for name, moves in self.book.history.items():
            if len(moves) > 1 and moves[-1][0] not in MOVES[moves[-2][0]]:
                raise Violation(f"{name} went from {moves[-2][0]} to {moves[-1][0]}")

    def budgets(self) -> None:
        """No step was started more often than the table of remedies and its user allow."""
        for name in self.book.candidates:
            asked = sum(why.startswith("its user's") for _, why in self.book.history.get(name, ()))
            ends = Counter((run.step, run.cause) for run in self.book.runs.values() if run.candidate_id == name)
            for (step, cause), count in ends.items():
                allowed = (self.table.causes[cause].again + 1) * (1 + asked)
                if count > allowed and cause is not Cause.CONVERGED:
                    raise Violation(f"{step} of {name}: {count} times {cause}, {allowed} are allowed")

    def end(self) -> None:
        """What must hold when all is settled."""
        self.budgets()
        for name, case in self.book.candidates.items():
            if case.state in {S.LANDED, S.VERIFIED} and case.calculation_id not in self.book.entries:
                raise Violation(f"{name} has landed without an entry")
            entered = self.book.entries.get(case.calculation_id)
            if entered and case.state not in {S.LANDED, S.VERIFIED, S.CANCELLED, S.PAUSED}:
                raise Violation(f"{name} is {case.state} and has a good entry")
            self._fate(name, case)

    def _fate(self, name: str, case: Case) -> None:
        """Good candidates land; bad ones fail by their own cause."""
        cause, nature = self.book.causes.get(name), self.nature[name]
        if case.state is S.FAILED and nature == "good" and cause is Cause.CODE_ERROR:
            raise Violation(f"{name} is good, and failed by an error of the code")
        if case.state in {S.LANDED, S.VERIFIED} and nature == "fails":
            raise Violation(f"{name} fails, and has landed")
