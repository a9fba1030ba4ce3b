"""Feeding: the LaunchPad is topped up with the best-ranked candidates, within its window."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from hullworks.errors import HullWorksError
from hullworks.launchers.bookkeeping.records import STOPPED, Move, Why
from hullworks.states import IN_FLIGHT, CandidateState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hullworks.launchers.bookkeeping.records import Case, PadWorkflow
    from hullworks.launchers.bookkeeping.stores import Book, Build, Graph, Pad

LEASE_S: Final = 60.0
CHUNK: Final = 50
"""Candidates fed under one lease; a chunk takes seconds."""


def feed(book: Book, pad: Pad, build: Build, window: int) -> Counter[str]:
    """Put queued candidates on the LaunchPad until its window is full or none is left; at most `CHUNK` of them.

    Safe beside other feeders, and after one that was killed: a candidate is first moved by compare-and-set, and the
    LaunchPad refuses a second workflow of one calculation.

    Args:
        book: The documents.
        pad: The LaunchPad.
        build: Makes the workflows of candidates.
        window: Most candidates on the LaunchPad at a time.

    Returns:
        How many candidates were submitted, and how many could not be.
    """
    done: Counter[str] = Counter()
    with book.lease("feeder", LEASE_S) as held:
        room = window - book.count(IN_FLIGHT) if held else 0
        if room <= 0:
            return done
        cases = book.cases({CandidateState.QUEUED}, limit=min(room, CHUNK))
        present = pad.workflows([case.calculation_id for case in cases]) if cases else {}
        fresh = []
        for case in cases:
            workflow = present.get(case.calculation_id)
            if workflow is not None and workflow.is_whole:
                done[_go_on(book, pad, case, workflow)] += 1
            else:
                fresh.append(case)
        done += _submit(book, pad, build, fresh)
    return +done


def _go_on(book: Book, pad: Pad, case: Case, workflow: PadWorkflow) -> str:
    """Let a workflow go on that is already there; return what became of its candidate.

    It is woken before its candidate is moved: killed in between, the candidate is still queued, and nothing is taken
    for a failure that its user wanted tried again.
    """
    if workflow.is_completed and book.settle(case.calculation_id):
        return "settled"
    if set(workflow.states.values()) & STOPPED:
        pad.revive(case.calculation_id)
    if not book.move([Move(case, CandidateState.SUBMITTED, "its workflow on the LaunchPad goes on", counts=True)]):
        return "taken"
    book.note_workflows([(case, min(workflow.states))])
    return "submitted"


def _submit(book: Book, pad: Pad, build: Build, cases: Sequence[Case]) -> Counter[str]:
    """Submit candidates; return what became of them."""
    built = build([case.candidate_id for case in cases]) if cases else {}
    graphs: list[tuple[Case, Graph]] = []
    moves: list[Move] = []
    refused = 0
    for case in cases:
        graph = built.get(case.candidate_id)
        if isinstance(graph, HullWorksError):
            reason = Why(type(graph).__name__, graph.what, graph.next_step)
            refused += book.move([Move(case, CandidateState.REJECTED, str(graph), reason=reason)])
        elif graph is not None:
            graphs.append((case, graph))
            moves.append(Move(case, CandidateState.SUBMITTED, "fed to the LaunchPad", counts=True))
    moved = book.moved(moves) if moves else set()
    mine = [(case, graph) for case, graph in graphs if case.candidate_id in moved]
    numbers = pad.add_all([graph for _, graph in mine])
    book.note_workflows([(case, number) for (case, _), number in zip(mine, numbers, strict=True)])
    return Counter(submitted=len(mine), refused=refused, taken=len(cases) - len(mine) - refused)
