"""Why a run ended, and what follows: accounting and the code's own words joined, by pure functions over a table."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from hullworks.launchers.bookkeeping.ports import JobEnd
from hullworks.launchers.bookkeeping.records import Resources
from hullworks.shipped import shipped_yaml
from hullworks.states import Cause

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Mapping

    from hullworks.launchers.bookkeeping.ports import EndedJob
    from hullworks.launchers.bookkeeping.records import Job, Launch

END_CAUSES: Final[Mapping[JobEnd, Cause]] = MappingProxyType(
    {
        JobEnd.TIMEOUT: Cause.WALLTIME,
        JobEnd.DEADLINE: Cause.WALLTIME,
        JobEnd.OUT_OF_MEMORY: Cause.OUT_OF_MEMORY,
        JobEnd.NODE_FAIL: Cause.NODE_FAILURE,
        JobEnd.BOOT_FAIL: Cause.NODE_FAILURE,
        JobEnd.PREEMPTED: Cause.PREEMPTED,
        JobEnd.CANCELLED: Cause.CANCELLED,
        JobEnd.REVOKED: Cause.CANCELLED,
    }
)
"""What the end of a job means for what ran in it; the other ends say nothing about it."""

MOST_EVIDENCE: Final = 20


@dataclass(frozen=True)
class Verdict:
    """Why a run ended.

    Attributes:
        cause: In the words that all codes share.
        outcome: In the code's or the queue's own.
        evidence: What shows it, most telling first.
    """

    cause: Cause
    outcome: str
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rule:
    """What follows from one cause.

    Attributes:
        again: How often the step is started again.
        walltime_factor: By how much its walltime then grows.
        memory_factor: By how much its memory then grows.
        quarantine: Whether a candidate that meets it too often is a danger to the machines.
    """

    again: int
    walltime_factor: float = 1.0
    memory_factor: float = 1.0
    quarantine: bool = False


@dataclass(frozen=True)
class Rules:
    """The numbers of ``remedies.yaml``, which gives the reason of each."""

    causes: Mapping[Cause, Rule]
    limits: Resources
    site_memory_MB: float
    node_failures: int
    node_window: timedelta
    ended_from_outside: frozenset[str]


@cache
def load_rules() -> Rules:
    """Return the rules that HullWorks ships."""
    data: dict[str, Any] = shipped_yaml("hullworks.launchers.bookkeeping", "remedies.yaml")
    limits = data["limits"]
    return Rules(
        causes=MappingProxyType({Cause(name): Rule(**rule) for name, rule in data["causes"].items()}),
        limits=Resources(limits["walltime_s"], limits["memory_MB"]),
        site_memory_MB=limits["site_memory_MB"],
        node_failures=data["nodes"]["failures"],
        node_window=timedelta(seconds=data["nodes"]["window_s"]),
        ended_from_outside=frozenset(data["ended_from_outside"]),
    )


def cause_of(
    launch: Launch, report: Mapping[str, Any], end: EndedJob | None, lost: str = "", rules: Rules | None = None
) -> Verdict:
    """Return why a run ended.

    What the code says of itself comes first, unless it only says that it was ended from outside; then the queue, which
    knows why; then what is left: that its worker is gone.

    Args:
        launch: The run.
        report: What it wrote about its own end; empty when it wrote nothing.
        end: How the queue job ended that it ran in, none when there was none or it still runs.
        lost: Why its worker is taken for gone; empty when the worker itself said that the run failed.
        rules: Which outcomes say nothing; by default those that HullWorks ships.
    """
    own = _own_words(launch, report)
    outside = (rules or load_rules()).ended_from_outside
    says_why = own is not None and own.outcome not in outside and own.cause not in {Cause.CANCELLED, Cause.CONVERGED}
    if own is not None and (says_why or (not lost and end is None)):
        return own
    by_queue = None if end is None else _queue_words(end)
    if by_queue is not None:
        return Verdict(by_queue.cause, by_queue.outcome, _joined(by_queue, own))
    if own is not None and (not lost or own.cause is Cause.CANCELLED):
        return own  # a run that was told to stop has said so itself
    told = "" if end is None else f"; {_sentence(end)}"
    return Verdict(Cause.LOST, "lost", (f"{lost or 'its worker process is gone'}{told}",))


def _own_words(launch: Launch, report: Mapping[str, Any]) -> Verdict | None:
    """Return what the run says of its own end."""
    if report:
        evidence = tuple(str(line) for line in report.get("evidence", ()))
        cause = Cause(str(report.get("cause", Cause.CODE_ERROR)))
        return Verdict(cause, str(report.get("outcome", "unknown")), evidence[:MOST_EVIDENCE])
    if launch.state == "FIZZLED" or launch.trace:
        return Verdict(Cause.CODE_ERROR, "exception", launch.trace)
    return None


def _queue_words(end: EndedJob) -> Verdict | None:
    cause = END_CAUSES.get(end.end)
    return None if cause is None else Verdict(cause, end.end.value.lower(), (_sentence(end),))


def _sentence(end: EndedJob) -> str:
    """Return how a job ended, for a person."""
    status = f", signal {end.signal}" if end.signal else f", exit {end.exit_code}" if end.exit_code else ""
    where = f" on {','.join(end.nodes)}" if end.nodes else ""
    return f"job {end.job_id} ({end.name}) ended {end.end.value}{status}{where}, says {end.source or 'the queue'}"


def _joined(queue: Verdict, own: Verdict | None) -> tuple[str, ...]:
    return (*queue.evidence, *(own.evidence if own is not None else ()))[:MOST_EVIDENCE]


@dataclass(frozen=True)
class Remedy:
    """What follows from a run's end.

    Attributes:
        again: Whether its step is started again; else its candidate fails.
        why: In words.
        resources: What its runs need from now on.
        code: Short, for the reason that is stored with a failed candidate; empty to take the outcome.
    """

    again: bool
    why: str
    resources: Resources
    code: str = ""


def remedy_for(
    verdict: Verdict, failures: Counter[Cause], had: Resources, known: Resources, rules: Rules | None = None
) -> Remedy:
    """Return what follows from a run's end.

    Args:
        verdict: Why it ended.
        failures: How often each cause ended a run of this step, this run included.
        had: What the run had, as far as its job says.
        known: What is known of the needs of this candidate's runs.
        rules: The table; by default the one that HullWorks ships.
    """
    rules = rules or load_rules()
    rule = rules.causes[verdict.cause]
    count = max(1, failures[verdict.cause])
    if count > rule.again:
        code = "kills_nodes" if rule.quarantine else ""
        times = f"{count} times" if count > 1 else "once"
        return Remedy(again=False, why=f"{verdict.outcome}, {times}", resources=known, code=code)
    grown = _grown(rule, had, known, rules)
    change = ", ".join(f"{name} {value:.0f}" for name, value in grown.as_dict().items() if grown != known)
    why = f"{verdict.outcome}: again, {count} of at most {rule.again}" + (f", with {change}" if change else "")
    return Remedy(again=True, why=why, resources=grown)


def _grown(rule: Rule, had: Resources, known: Resources, rules: Rules) -> Resources:
    """Return the resources of the next try, within the limits."""
    return Resources(
        _more(rule.walltime_factor, had.walltime_s, known.walltime_s, rules.limits.walltime_s),
        _more(rule.memory_factor, had.memory_MB, known.memory_MB, rules.limits.memory_MB),
    )


def _more(factor: float, had: float | None, known: float | None, limit: float | None) -> float | None:
    """Return a grown resource; what is known of it when it is not to grow, or was not this job's to give."""
    if factor <= 1.0 or had is None:
        return known
    return max(known or 0.0, min(had * factor, limit or had))


def had_resources(job: Job | None, rules: Rules | None = None) -> Resources:
    """Return what a run in a job had; nothing outside a queue, where nothing can be asked for.

    The walltime of an allocation that many runs share says nothing about the time that one of them had.
    """
    if job is None:
        return Resources()
    walltime_s = None if job.mode == "packed" else job.walltime_s
    return Resources(walltime_s, job.memory_MB or (rules or load_rules()).site_memory_MB)


def excluded_nodes(failures: Counter[str], rules: Rules | None = None) -> tuple[str, ...]:
    """Return the nodes that new jobs must avoid, given how many jobs failed with each of late."""
    most = (rules or load_rules()).node_failures
    return tuple(sorted(node for node, count in failures.items() if count >= most))
