"""LaunchPad and candidates brought together, at any time, any number of times, by several processes.

FireWorks' state is the truth about runs. What this module adds is whether the process behind a run still lives, and
what the run's own folder says about how it ended.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hullworks.documents import SCHEMA_VERSION, Candidate, Entry, Reason, Run, Worker, now
from hullworks.errors import StateError
from hullworks.launchers.launchpad import RECORDED
from hullworks.launchers.services.processes import ProcessMark
from hullworks.leases import lease
from hullworks.states import IN_FLIGHT, CandidateState, Cause
from hullworks.workflows.landing import settle_candidate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fireworks import LaunchPad

RUN_REPORT = "hullworks_run.json"
"""Written by every run into its own folder: how it ended, with the evidence."""

_RAISED: Final = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt)\b")
"""The line of a trace that names the exception."""

LEASE_S: Final = 30.0
"""One pass takes seconds; a killed one holds up the next for so long."""

MAX_LOSSES: Final = 5
"""How often a run of one step may be lost before its candidate fails: one that kills its workers must not go on."""

_PLAIN_SUCCESS: Final = (Cause.CONVERGED, "completed", ())
"""A step that runs no code, such as landing."""

CHECKOUT_GRACE = timedelta(seconds=30)
"""Between taking a run and noting its launch FireWorks needs milliseconds; after so long it was killed there."""


def reconcile(launchpad: LaunchPad, *, lost_after_s: float) -> Counter[str]:
    """Bring runs and candidates together.

    Args:
        launchpad: The project's LaunchPad.
        lost_after_s: Silence after which a run of another machine, or of a stock worker, is lost, s.

    Returns:
        How many of what were put right; empty when nothing was to do, or another process is at it.
    """
    with lease("reconcile", LEASE_S) as held:
        # Two at once could give a run back twice, the second time under the worker that has just taken it.
        return _reconcile(launchpad, lost_after_s) if held else Counter()


def _reconcile(launchpad: LaunchPad, lost_after_s: float) -> Counter[str]:
    done = record_finished(launchpad)
    for firework in _running_fireworks(launchpad):
        done += _check_running(launchpad, firework, lost_after_s)
    for candidate in Candidate.objects(state__in=list(IN_FLIGHT)).only("candidate_id", "calculation_id", "state"):
        done += _check_candidate(launchpad, candidate)
    return done


def record_finished(launchpad: LaunchPad) -> Counter[str]:
    """Store the runs that ended well since the last time; return how many."""
    done: Counter[str] = Counter()
    fresh = launchpad.launches.find({"state": "COMPLETED", RECORDED: None}).limit(1000)
    for launch in list(fresh):
        firework = launchpad.fireworks.find_one({"fw_id": launch["fw_id"]}, {"fw_id": 1, "name": 1, "spec": 1})
        if firework is not None and "calculation_id" in firework["spec"]:
            cause, outcome, evidence = explain(launch) if read_report(Path(launch["launch_dir"])) else _PLAIN_SUCCESS
            record_run(firework, launch, cause, outcome, evidence)
            done["runs"] += 1
        launchpad.launches.update_one({"launch_id": launch["launch_id"]}, {"$set": {RECORDED: True}})
    return done


def _running_fireworks(launchpad: LaunchPad) -> Iterator[dict[str, Any]]:
    fields = {"fw_id": 1, "launches": 1, "updated_on": 1, "name": 1, "spec.candidate_id": 1, "spec.calculation_id": 1}
    return iter(list(launchpad.fireworks.find({"state": "RUNNING"}, fields)))


def _check_running(launchpad: LaunchPad, firework: Mapping[str, Any], lost_after_s: float) -> Counter[str]:
    """Look whether the process behind a running firework lives; give the run back when it does not."""
    launches = list(launchpad.launches.find({"launch_id": {"$in": firework["launches"]}}).sort("launch_id", -1))
    if not launches:
        return _rerun_unlaunched(launchpad, firework)
    launch = launches[0]
    if launch["state"] != "RUNNING":
        # Killed between the end of the launch and the refresh of its workflow: the result is there, only not noted.
        try:
            launchpad._refresh_wf(firework["fw_id"])  # noqa: SLF001 - what `lpad detect_lostruns --refresh` does
        except RuntimeError:
            return Counter(unreadable=1)  # FireWorks has marked it as failed, and says why in its log
        return Counter(refreshed=1)
    if not _is_lost(launch, lost_after_s):
        return Counter()
    return _give_back(launchpad, firework, launch)


def _rerun_unlaunched(launchpad: LaunchPad, firework: Mapping[str, Any]) -> Counter[str]:
    updated = datetime.fromisoformat(str(firework["updated_on"])).replace(tzinfo=UTC)
    if now() - updated < CHECKOUT_GRACE:
        return Counter()
    launchpad.rerun_fw(firework["fw_id"])
    return Counter(lost=1)


def _is_lost(launch: Mapping[str, Any], lost_after_s: float) -> bool:
    """Whether a launch that is said to run has no living process behind it."""
    worker = Worker.objects(worker_id=launch["fworker"]["name"]).first()
    if worker is not None:
        process = ProcessMark(worker.pid, worker.process_started, worker.boot_id, worker.host)
        if not process.is_elsewhere:
            return not process.is_alive
    last_sign = max(str(step.get("updated_on") or step["created_on"]) for step in launch["state_history"])
    return now() - datetime.fromisoformat(last_sign).replace(tzinfo=UTC) > timedelta(seconds=lost_after_s)


def _give_back(launchpad: LaunchPad, firework: Mapping[str, Any], launch: Mapping[str, Any]) -> Counter[str]:
    """Record a lost launch and make its run ready again, or fail its candidate after too many losses."""
    cause, outcome, evidence = explain(launch)
    if cause is not Cause.CANCELLED:  # a run that was told to stop has said so itself
        cause, outcome, evidence = Cause.LOST, "lost", ("its worker process is gone",)
    record_run(firework, launch, cause, outcome, evidence)
    step = {"candidate_id": firework["spec"].get("candidate_id"), "step": firework["name"]}
    if Run.objects(**step, cause=Cause.LOST).count() > MAX_LOSSES:
        launchpad.defuse_fw(firework["fw_id"])
        return Counter(given_up=1)
    launchpad.rerun_fw(firework["fw_id"])
    return Counter(lost=1)


def _check_candidate(launchpad: LaunchPad, candidate: Candidate) -> Counter[str]:
    """Bring one candidate in flight to where its workflow is."""
    workflow = launchpad.workflows.find_one(
        {"metadata.calculation_id": candidate.calculation_id}, {"state": 1, "nodes": 1}
    )
    if workflow is None or not _is_whole(launchpad, workflow):
        return _back_to_queue(launchpad, candidate, workflow)
    if workflow["state"] == "COMPLETED":
        return _settle(candidate)
    if workflow["state"] in {"FIZZLED", "DEFUSED"}:
        return _fail(launchpad, candidate, workflow)
    if workflow["state"] == "RUNNING" and candidate.state is CandidateState.SUBMITTED:
        return _try_move(candidate, CandidateState.RUNNING, "a worker started its graph", "started")
    return Counter()


def _is_whole(launchpad: LaunchPad, workflow: Mapping[str, Any]) -> bool:
    """Whether a workflow was stored to its end: it has all its fireworks, or has begun to run and grows by itself."""
    own = {"fw_id": {"$in": workflow["nodes"]}}
    if launchpad.fireworks.count_documents({**own, "launches": {"$ne": []}}):
        return True
    return bool(launchpad.fireworks.count_documents(own) == len(workflow["nodes"]))


def _settle(candidate: Candidate) -> Counter[str]:
    """Bring a candidate along whose graph has ended and whose entry is stored, but that was not told."""
    entry = Entry.objects(calculation_id=candidate.calculation_id).first()
    return Counter(settled=int(settle_candidate(entry))) if entry is not None else Counter()


def _back_to_queue(launchpad: LaunchPad, candidate: Candidate, workflow: Mapping[str, Any] | None) -> Counter[str]:
    """Queue a candidate again whose feeder was killed before its whole workflow was stored."""
    current = Candidate.objects(candidate_id=candidate.candidate_id).only("state", "state_since").first()
    if current.state not in IN_FLIGHT or now() - current.state_since < CHECKOUT_GRACE:
        return Counter()
    if workflow is not None:
        launchpad.workflows.delete_one({"_id": workflow["_id"]})
        launchpad.fireworks.delete_many({"fw_id": {"$in": workflow["nodes"]}})
    return _try_move(candidate, CandidateState.QUEUED, "its workflow was never stored", "requeued")


def _fail(launchpad: LaunchPad, candidate: Candidate, workflow: Mapping[str, Any]) -> Counter[str]:
    """Fail a candidate whose graph ended, with the cause that its run's folder tells."""
    query = {"fw_id": {"$in": workflow["nodes"]}, "state": {"$in": ["FIZZLED", "DEFUSED"]}}
    firework = launchpad.fireworks.find_one(query)
    launch = launchpad.launches.find_one({"launch_id": {"$in": firework["launches"]}}, sort=[("launch_id", -1)])
    if launch is None:  # defusing a firework puts its launches away
        return _fail_defused(candidate)
    cause, outcome, evidence = explain(launch)
    record_run(firework, launch, cause, outcome, evidence)
    text = f"{firework['name']}: {outcome}"
    reason = Reason(code=outcome, text=evidence[0] if evidence else text, next_step=f"Look into {launch['launch_dir']}")
    return _try_move(candidate, CandidateState.FAILED, text, "failed", cause=cause, reason=reason)


def _fail_defused(candidate: Candidate) -> Counter[str]:
    """Fail a candidate whose graph was stopped: by `_give_back`, or by a user with ``lpad defuse``."""
    lost = Run.objects(candidate_id=candidate.candidate_id, cause=Cause.LOST).order_by("-ended_at").first()
    if lost is None or Run.objects(candidate_id=candidate.candidate_id, cause=Cause.LOST).count() <= MAX_LOSSES:
        return _try_move(candidate, CandidateState.FAILED, "its graph was defused", "failed", cause=Cause.CANCELLED)
    text = f"{lost.step}: its worker died {MAX_LOSSES + 1} times"
    reason = Reason(code="lost", text=text, next_step=f"Look into {lost.directory}")
    return _try_move(candidate, CandidateState.FAILED, text, "failed", cause=Cause.LOST, reason=reason)


def _try_move(candidate: Candidate, new: CandidateState, why: str, what: str, **fields: Any) -> Counter[str]:
    try:
        Candidate.move(candidate.candidate_id, new, why, **fields)
    except StateError:
        return Counter()  # somebody else was faster, and knew more
    return Counter({what: 1})


def explain(launch: Mapping[str, Any]) -> tuple[Cause, str, tuple[str, ...]]:
    """Return cause, outcome and evidence of an ended launch, from its folder, else from FireWorks' record."""
    report = read_report(Path(launch["launch_dir"]))
    if report:
        cause = Cause(report.get("cause", Cause.CODE_ERROR))
        return cause, str(report.get("outcome", "unknown")), tuple(str(line) for line in report.get("evidence", ()))
    stored = (launch.get("action") or {}).get("stored_data") or {}
    trace = str((stored.get("_exception") or {}).get("_stacktrace", "")).strip().splitlines()
    raised = [line for line in trace if _RAISED.match(line)]
    return Cause.CODE_ERROR, "exception", (*raised[-1:], *trace[-3:])


def read_report(folder: Path) -> dict[str, Any]:
    """Return what a run wrote about its own end; empty when it wrote nothing that can be read."""
    try:
        report = json.loads((folder / RUN_REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return report if isinstance(report, dict) else {}


def record_run(
    firework: Mapping[str, Any], launch: Mapping[str, Any], cause: Cause, outcome: str, evidence: tuple[str, ...]
) -> None:
    """Store one ended launch, once."""
    spec, report = firework["spec"], read_report(Path(launch["launch_dir"]))
    timings = report.get("timings") or {}
    fields = {
        "candidate_id": spec.get("candidate_id", "unknown"),
        "calculation_id": spec.get("calculation_id", "unknown"),
        "step": firework["name"],
        "fw_id": firework["fw_id"],
        "launch_id": launch["launch_id"],
        "worker_id": launch["fworker"]["name"],
        "host": launch["host"],
        "directory": launch["launch_dir"],
        "started_at": _moment(timings.get("started")),
        "ended_at": _moment(timings.get("ended")) or now(),
        "wall_s": timings["ended"] - timings["started"] if {"ended", "started"} <= set(timings) else None,
        "code_version": (report.get("code") or {}).get("version"),
        "corrections": list(report.get("corrections", ())),
        "cause": cause,
        "outcome": outcome,
        "evidence": list(evidence)[:20],
        "schema_version": SCHEMA_VERSION,
    }
    Run.objects(run_id=f"run-{launch['launch_id']}").update_one(
        upsert=True, **{f"set_on_insert__{name}": value for name, value in fields.items()}
    )


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
