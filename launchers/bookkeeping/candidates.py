"""Candidates and their workflows brought together, in bulk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hullworks.launchers.bookkeeping.records import STOPPED, UNFINISHED, Move, Why
from hullworks.launchers.bookkeeping.runs import HELD, failed_workers, settle_failed
from hullworks.states import IN_FLIGHT, CandidateState, Cause

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hullworks.launchers.bookkeeping.look import Look
    from hullworks.launchers.bookkeeping.records import Case, PadRun, PadWorkflow
    from hullworks.launchers.bookkeeping.runs import Hands

S = CandidateState


def check_cases(look: Look, hands: Hands) -> None:
    """Bring every candidate in flight to where its workflow is."""
    cases = look.ports.book.cases(IN_FLIGHT)
    workflows = look.ports.pad.workflows([case.calculation_id for case in cases])
    moves: list[Move] = []
    completed: list[Case] = []
    failed: list[tuple[Case, PadWorkflow]] = []
    for case in cases:
        workflow = workflows.get(case.calculation_id)
        if workflow is None or not workflow.is_whole:
            _check_half(look, case, workflow)
        elif workflow.is_completed:
            completed.append(case)
        elif set(workflow.states.values()) & STOPPED:
            failed.append((case, workflow))
        elif workflow.is_stalled:
            _mend(look, case, workflow)
        elif workflow.has_started and case.state is S.SUBMITTED:
            moves.append(Move(case, S.RUNNING, "a worker started its graph"))
    look.done["started"] += look.ports.book.move(moves)
    _settle_completed(look, completed)
    _check_failed(look, failed, hands)


def _check_half(look: Look, case: Case, workflow: PadWorkflow | None) -> None:
    """Queue a candidate again whose feeder was killed before its whole workflow was stored."""
    if not look.is_older(case.since, look.ports.patience.grace_s):
        return
    if workflow is None or look.ports.pad.remove_half(case.calculation_id):
        look.done["requeued"] += look.ports.book.move([Move(case, S.QUEUED, "its workflow was never stored")])


def _mend(look: Look, case: Case, workflow: PadWorkflow) -> None:
    """Let go what waits after whoever should have done so was killed."""
    touched = bool(look.locked & set(workflow.states))
    states = sorted(workflow.states.items())
    if not touched and look.doubt(f"stalled: {case.calculation_id} {states}", look.ports.patience.grace_s):
        look.ports.pad.mend(case.calculation_id)
        look.done["mended"] += 1


def _settle_completed(look: Look, cases: Sequence[Case]) -> None:
    """Bring candidates along whose graph has ended and whose entry is stored, but that were not told."""
    book = look.ports.book
    entered = book.entered([case.calculation_id for case in cases]) if cases else set()
    for case in cases:
        if case.calculation_id in entered:
            look.done["settled"] += book.settle(case.calculation_id)
        elif look.doubt(f"no entry: {case.calculation_id}", look.ports.patience.grace_s):
            reason = Why("no_entry", "its graph ended, and there is no entry of it")
            move = Move(case, S.FAILED, reason.text, cause=Cause.INVALID, reason=reason)
            look.done["failed"] += book.move([move])


def _check_failed(look: Look, failed: Sequence[tuple[Case, PadWorkflow]], hands: Hands) -> None:
    """Start again what failed and has a remedy; fail the candidates of the rest, with the cause."""
    wanted = [fw_id for _, workflow in failed for fw_id in workflow.among(frozenset({"FIZZLED"}))]
    runs = look.ports.pad.runs_of(wanted) if wanted else []
    failed_workers(look, hands, runs)
    fizzled = {run.calculation_id: run for run in runs if run.fw_id not in look.locked}
    for case, workflow in failed:
        run = fizzled.get(case.calculation_id)
        if run is not None:
            _fail_run(look, case, run, hands)
        elif workflow.among(frozenset({"DEFUSED"})):
            move = Move(case, S.FAILED, "its graph was defused", cause=Cause.CANCELLED)
            look.done["failed"] += look.ports.book.move([move])
        elif workflow.among(frozenset({"PAUSED"})) and look.doubt(
            f"paused: {case.calculation_id}", look.ports.patience.grace_s
        ):
            # Its user resumed it while somebody was still pausing it.
            look.ports.pad.revive(case.calculation_id)


def _fail_run(look: Look, case: Case, run: PadRun, hands: Hands) -> None:
    """Fail a candidate whose run failed for good, with the cause that its folder and the queue tell."""
    if run.launch is None:
        text = f"{run.step}: FireWorks could not read it"
        move = Move(case, S.FAILED, text, cause=Cause.CODE_ERROR, reason=Why("unreadable", text))
        look.done["failed"] += look.ports.book.move([move])
        return
    end = settle_failed(look, run, case, hands)
    if end is None:
        return
    verdict, remedy = end
    text = f"{run.step}: {remedy.why}"
    reason = Why(
        code=remedy.code or verdict.outcome,
        text=verdict.evidence[0] if verdict.evidence and not remedy.code else text,
        next_step=f"Look into {run.launch.directory}",
    )
    look.done["failed"] += look.ports.book.move([Move(case, S.FAILED, text, cause=verdict.cause, reason=reason)])


def check_unfinished(look: Look, hands: Hands) -> None:
    """Bring what could run, or does, to what its candidate's user wants; and find what has no candidate or workflow."""
    pad, book = look.ports.pad, look.ports.book
    runs = [run for run in (*pad.runs({"READY"}), *hands.runs) if run.candidate_id]
    cases = book.cases_of({run.candidate_id for run in runs}) if runs else {}
    hold: dict[str, list[str]] = {}
    queued: dict[int, Case] = {}
    for run in runs:
        case = cases.get(run.candidate_id)
        if case is None:
            if look.doubt(f"no candidate: {run.fw_id}", look.ports.patience.grace_s):
                hold.setdefault("DEFUSED", []).append(run.calculation_id)
        elif case.state in HELD:
            hold.setdefault(HELD[case.state], []).append(run.calculation_id)
        elif case.state is S.QUEUED:
            queued[run.fw_id] = case
    for state, calculations in hold.items():
        look.done["held"] += pad.hold(sorted(set(calculations)), state)
    _adopt(look, queued)
    _check_strays(look, runs)


def _adopt(look: Look, queued: Mapping[int, Case]) -> None:
    """Take queued candidates for submitted whose workflow goes on.

    The fireworks are looked at again, after their candidates: what has ended in the meantime may have been failed, and
    queued again by its user, who wants it tried again.
    """
    runs = look.ports.pad.runs_of(list(queued)) if queued else []
    cases = {queued[run.fw_id] for run in runs if run.state in UNFINISHED}
    moves = [Move(case, S.SUBMITTED, "its workflow is on the LaunchPad") for case in sorted(cases, key=_name)]
    look.done["adopted"] += look.ports.book.move(moves)


def _name(case: Case) -> str:
    return case.candidate_id


def _check_strays(look: Look, runs: Sequence[PadRun]) -> None:
    """Archive what a killed FireWorks left outside any workflow: what it wanted to let a workflow grow by."""
    pad = look.ports.pad
    free = [run.fw_id for run in runs if run.state == "READY"]
    for fw_id in pad.strays(free) if free else ():
        if look.doubt(f"stray: {fw_id}", look.ports.patience.grace_s):
            look.done["strays"] += pad.discard(fw_id)


def check_locks(look: Look) -> None:
    """Find the workflows that are held for writing, and free those whose holder was killed."""
    for lock in look.ports.pad.locked():
        left = look.doubt(f"locked: {min(lock.nodes)} {lock.version}", look.ports.patience.grace_s)
        if left and look.ports.pad.unlock(lock):
            look.done["unlocked"] += 1
        else:
            look.locked |= set(lock.nodes)
