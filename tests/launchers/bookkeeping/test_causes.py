"""Causes and remedies: accounting joined with the code's own words, and what follows, by the table."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from hullworks.launchers.bookkeeping.causes import (
    Verdict,
    cause_of,
    excluded_nodes,
    had_resources,
    load_rules,
    remedy_for,
)
from hullworks.launchers.bookkeeping.ports import EndedJob, JobEnd
from hullworks.launchers.bookkeeping.records import Job, Launch, Resources
from hullworks.states import Cause

if TYPE_CHECKING:
    from hullworks.launchers.bookkeeping.records import Mode

NOW = datetime(2030, 1, 1, tzinfo=UTC)
GONE = "its queue job has ended"


def _launch(state: str = "RUNNING", trace: tuple[str, ...] = ()) -> Launch:
    return Launch(1, state, "w", "h", "/d", NOW, trace)


def _end(end: JobEnd) -> EndedJob:
    return EndedJob("17", "job-1", NOW, end, nodes=("n1",), signal=9, source="sacct")


@pytest.mark.parametrize(
    ("end", "cause"),
    [
        (JobEnd.TIMEOUT, Cause.WALLTIME),
        (JobEnd.DEADLINE, Cause.WALLTIME),
        (JobEnd.OUT_OF_MEMORY, Cause.OUT_OF_MEMORY),
        (JobEnd.NODE_FAIL, Cause.NODE_FAILURE),
        (JobEnd.BOOT_FAIL, Cause.NODE_FAILURE),
        (JobEnd.PREEMPTED, Cause.PREEMPTED),
        (JobEnd.CANCELLED, Cause.CANCELLED),
        (JobEnd.REVOKED, Cause.CANCELLED),
        (JobEnd.FAILED, Cause.LOST),
        (JobEnd.COMPLETED, Cause.LOST),
        (JobEnd.GONE, Cause.LOST),
    ],
)
def test_the_queue_says_why_a_run_ended_that_could_not(end: JobEnd, cause: Cause) -> None:
    """Its end is the evidence, with job, node and who says so."""
    verdict = cause_of(_launch(), {}, _end(end), GONE)
    assert verdict.cause is cause
    assert "job 17 (job-1)" in verdict.evidence[0]
    assert "n1" in verdict.evidence[0]
    assert "sacct" in verdict.evidence[0]


@pytest.mark.parametrize("end", [None, *JobEnd])
def test_a_code_that_names_its_error_is_believed_first(end: JobEnd | None) -> None:
    """It failed before its job ended, whatever ended that."""
    report = {"cause": "code_error", "outcome": "scf_stuck", "evidence": ["pw.out:7: no convergence"]}
    for launch, lost in ((_launch("FIZZLED"), ""), (_launch(), GONE)):
        verdict = cause_of(launch, report, None if end is None else _end(end), lost)
        assert verdict == Verdict(Cause.CODE_ERROR, "scf_stuck", ("pw.out:7: no convergence",))


@pytest.mark.parametrize("outcome", sorted(load_rules().ended_from_outside))
def test_a_code_that_was_ended_from_outside_is_explained_by_the_queue(outcome: str) -> None:
    """What it says is kept as further evidence."""
    report = {"cause": "code_error", "outcome": outcome, "evidence": ["pw.out ends in the middle"]}
    verdict = cause_of(_launch("FIZZLED"), report, _end(JobEnd.OUT_OF_MEMORY))
    assert (verdict.cause, verdict.outcome) == (Cause.OUT_OF_MEMORY, "out_of_memory")
    assert verdict.evidence[1] == "pw.out ends in the middle"
    assert cause_of(_launch("FIZZLED"), report, None).outcome == outcome


def test_without_any_word_a_run_is_lost() -> None:
    """No job, no report, no exception."""
    assert cause_of(_launch(), {}, None, "it was silent") == Verdict(Cause.LOST, "lost", ("it was silent",))


def test_a_run_that_was_told_to_stop_is_cancelled() -> None:
    """It has said so itself; without a job nobody knows better."""
    report = {"cause": "cancelled", "outcome": "user_stop"}
    assert cause_of(_launch(), report, None, "its worker process is gone").cause is Cause.CANCELLED


def test_an_exception_is_the_evidence_of_a_run_that_wrote_nothing() -> None:
    """FireWorks keeps its last lines."""
    verdict = cause_of(_launch("FIZZLED", ("ValueError: no such thing",)), {}, None)
    assert verdict == Verdict(Cause.CODE_ERROR, "exception", ("ValueError: no such thing",))


def _job(mode: Mode, **fields: Any) -> Job:
    return Job("job-1", mode, NOW, 3600.0, **fields)


@pytest.mark.parametrize("cause", list(Cause))
def test_every_cause_has_a_rule_and_every_retry_an_end(cause: Cause) -> None:
    """The table is complete; after so many the candidate fails."""
    rule = load_rules().causes[cause]
    known, had = Resources(), had_resources(_job("single"))
    for count in range(1, rule.again + 1):
        remedy = remedy_for(Verdict(cause, "o"), Counter({cause: count}), had, known)
        assert remedy.again
        assert f"{count} of at most {rule.again}" in remedy.why
    last = remedy_for(Verdict(cause, "o"), Counter({cause: rule.again + 1}), had, known)
    assert not last.again


def test_memory_and_walltime_grow_within_their_limits() -> None:
    """Twice as much each time, never beyond what a node or a partition has, never less than was known."""
    rules = load_rules()
    seen = []
    had = had_resources(_job("single", memory_MB=100_000.0))
    known = Resources()
    for count in range(1, 4):
        verdict = Verdict(Cause.OUT_OF_MEMORY, "out_of_memory")
        remedy = remedy_for(verdict, Counter({Cause.OUT_OF_MEMORY: count}), had, known)
        known = remedy.resources
        had = Resources(had.walltime_s, known.memory_MB)
        seen.append(known.memory_MB)
    assert seen == [200_000.0, 400_000.0, rules.limits.memory_MB]
    longer = remedy_for(Verdict(Cause.WALLTIME, "timeout"), Counter({Cause.WALLTIME: 1}), had, Resources())
    assert longer.resources == Resources(7200.0)
    assert "walltime_s 7200" in longer.why


def test_a_shared_allocation_says_nothing_about_the_time_of_one_run() -> None:
    """A run that its end cut short goes on; it is not taken for longer than others."""
    remedy = remedy_for(
        Verdict(Cause.WALLTIME, "timeout"), Counter({Cause.WALLTIME: 1}), had_resources(_job("packed")), Resources()
    )
    assert remedy.again
    assert remedy.resources == Resources()
    assert had_resources(None) == Resources()
    assert had_resources(_job("single")).memory_MB == load_rules().site_memory_MB


def test_a_candidate_that_kills_nodes_is_quarantined() -> None:
    """It fails with that as its reason."""
    most = load_rules().causes[Cause.NODE_FAILURE].again
    counts = Counter({Cause.NODE_FAILURE: most + 1})
    remedy = remedy_for(Verdict(Cause.NODE_FAILURE, "node_fail"), counts, Resources(), Resources())
    assert (remedy.again, remedy.code) == (False, "kills_nodes")


def test_a_node_that_kills_runs_is_excluded() -> None:
    """From a number of failures on."""
    most = load_rules().node_failures
    assert excluded_nodes(Counter({"n1": most, "n2": most - 1, "n0": most + 5})) == ("n0", "n1")
