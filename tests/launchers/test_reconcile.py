"""Reconciliation: what a kill at any moment leaves behind is put right; real MongoDB, FireWorks and processes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from fireworks import Firework, FWAction, FWorker, ScriptTask, Workflow

from hullworks.documents import Candidate, Entry, Run, Worker, now
from hullworks.launchers.bookkeeping.causes import load_rules
from hullworks.launchers.bookkeeping.machine import RUN_REPORT
from hullworks.launchers.bookkeeping.patience import load_patience
from hullworks.launchers.launchpad import add_workflow
from hullworks.launchers.reconcile import reconcile
from hullworks.launchers.services.processes import ProcessMark
from hullworks.states import CandidateState, Cause

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fireworks import LaunchPad

S = CandidateState
MAX_LOSSES = load_rules().causes[Cause.LOST].again
IMPATIENT = replace(load_patience(), grace_s=0.0)


def _candidate(state: CandidateState = S.SUBMITTED, *, minutes_ago: int = 0) -> Candidate:
    candidate = Candidate(
        candidate_id="cand-1",
        row_id="row-1",
        batch="b",
        level_key="l",
        source_file="f",
        source_row=1,
        state=state,
        state_since=now() - timedelta(minutes=minutes_ago),
        calculation_id="calc-1",
    )
    candidate.save(force_insert=True)
    return candidate


def _submit(launchpad: LaunchPad, script: str = "true") -> None:
    spec = {"candidate_id": "cand-1", "calculation_id": "calc-1"}
    firework = Firework([ScriptTask.from_str(script, {"fizzle_bad_rc": True})], name="relax 1", spec=spec)
    add_workflow(launchpad, Workflow([firework], metadata={"calculation_id": "calc-1", "candidate_id": "cand-1"}))


def _check_out(launchpad: LaunchPad, worker: str, folder: Path) -> None:
    firework, _launch = launchpad.checkout_fw(FWorker(name=worker), str(folder))
    assert firework is not None


def _worker(name: str, process: subprocess.Popen[bytes]) -> None:
    mark = ProcessMark.of(process.pid)
    assert mark is not None
    Worker(worker_id=name, host=mark.host, boot_id=mark.boot_id, pid=mark.pid, process_started=mark.started).save(
        force_insert=True
    )


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until it is killed."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        yield process
        process.kill()


def _states(launchpad: LaunchPad) -> set[str]:
    return {doc["state"] for doc in launchpad.fireworks.find()}


def test_a_run_whose_worker_was_killed_is_given_back_at_once(
    launchpad: LaunchPad, tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    """Not after four hours; a run whose worker lives is left alone."""
    _candidate()
    _submit(launchpad)
    _worker("w", sleeper)
    _check_out(launchpad, "w", tmp_path)
    assert reconcile(launchpad, lost_after_s=600) == Counter(started=1)
    assert reconcile(launchpad, lost_after_s=600) == Counter()
    sleeper.kill()
    sleeper.wait()
    assert reconcile(launchpad, lost_after_s=600) == Counter(lost=1)
    assert _states(launchpad) == {"READY"}
    run = Run.objects.get()
    assert (run.cause, run.step, run.worker_id) == (Cause.LOST, "relax 1", "w")
    assert reconcile(launchpad, lost_after_s=600) == Counter()


def test_a_stock_worker_is_lost_after_its_silence(launchpad: LaunchPad, tmp_path: Path) -> None:
    """`rlaunch` leaves no process on record: its pings are all there is."""
    _candidate(S.RUNNING)
    _submit(launchpad)
    _check_out(launchpad, "stock", tmp_path)
    assert reconcile(launchpad, lost_after_s=600) == Counter()
    assert reconcile(launchpad, lost_after_s=-1) == Counter(lost=1)


def test_a_candidate_that_kills_its_workers_is_given_up(launchpad: LaunchPad, tmp_path: Path) -> None:
    """After a bounded number of losses it fails with the cause `lost`, and its run is not tried again."""
    _candidate(S.RUNNING)
    _submit(launchpad)
    total: Counter[str] = Counter()
    for _ in range(MAX_LOSSES + 1):
        _check_out(launchpad, "stock", tmp_path)
        total += reconcile(launchpad, lost_after_s=-1)
    assert total == Counter({"lost": MAX_LOSSES, "given up": 1, "failed": 1})
    candidate = Candidate.objects.get()
    assert (candidate.state, candidate.cause) == (S.FAILED, Cause.LOST)
    assert _states(launchpad) == {"FIZZLED"}
    assert [note.run_id for note in candidate.remedies] == [f"run-{number}" for number in range(1, MAX_LOSSES + 1)]


def test_a_run_taken_but_never_launched_is_freed(launchpad: LaunchPad) -> None:
    """Killed between the two writes of a check-out: what stays so for a grace time, seen and seen again, is freed."""
    _candidate(S.RUNNING)
    _submit(launchpad)
    launchpad.fireworks.update_one({}, {"$set": {"state": "RUNNING", "updated_on": "2020-01-01T00:00:00"}})
    assert reconcile(launchpad, lost_after_s=600) == Counter()
    assert _states(launchpad) == {"RUNNING"}, "an old stamp alone may be that of an outage"
    assert reconcile(launchpad, lost_after_s=600, patience=IMPATIENT) == Counter(lost=1)
    assert _states(launchpad) == {"READY"}


def test_a_finished_launch_whose_workflow_was_not_refreshed_is_completed(launchpad: LaunchPad, tmp_path: Path) -> None:
    """The result is kept, not computed again."""
    _candidate(S.RUNNING)
    _submit(launchpad)
    _check_out(launchpad, "stock", tmp_path)
    launchpad.launches.update_one({}, {"$set": {"state": "COMPLETED", "action": FWAction().to_dict()}})
    assert reconcile(launchpad, lost_after_s=600)["refreshed"] == 1
    assert _states(launchpad) == {"COMPLETED"}


def _fizzle(launchpad: LaunchPad, folder: Path, report: dict[str, Any] | None) -> None:
    _submit(launchpad)
    _check_out(launchpad, "stock", folder)
    if report is not None:
        (folder / RUN_REPORT).write_text(json.dumps(report))
    launch = launchpad.launches.find_one()
    trace = "Traceback\n  line\nValueError: no such thing"
    launchpad.complete_launch(
        launch["launch_id"], FWAction(stored_data={"_exception": {"_stacktrace": trace}}), "FIZZLED"
    )


def test_a_failed_run_s_own_report_tells_the_cause(launchpad: LaunchPad, tmp_path: Path) -> None:
    """Cause, outcome and evidence reach candidate and run."""
    _candidate(S.RUNNING)
    report = {"cause": "code_error", "outcome": "too_few_bands", "evidence": ["pw.out:7: too few bands"]}
    _fizzle(launchpad, tmp_path, report)
    assert reconcile(launchpad, lost_after_s=600)["failed"] == 1
    candidate, run = Candidate.objects.get(), Run.objects.get()
    assert (candidate.state, candidate.cause, candidate.reason.code) == (S.FAILED, Cause.CODE_ERROR, "too_few_bands")
    assert run.evidence == report["evidence"]
    assert str(tmp_path) in candidate.reason.next_step


def test_without_a_report_the_exception_is_the_evidence(launchpad: LaunchPad, tmp_path: Path) -> None:
    """A run that failed in Python still has a cause."""
    _candidate(S.RUNNING)
    _fizzle(launchpad, tmp_path, None)
    reconcile(launchpad, lost_after_s=600)
    candidate = Candidate.objects.get()
    assert (candidate.cause, candidate.reason.code) == (Cause.CODE_ERROR, "exception")
    assert candidate.reason.text == "ValueError: no such thing"


def test_a_candidate_that_was_not_told_of_its_entry_is_settled(launchpad: LaunchPad, tmp_path: Path) -> None:
    """Killed after its entry was stored, or queued again over a finished workflow: it lands, nothing runs again."""
    _candidate(S.RUNNING)
    _submit(launchpad)
    _check_out(launchpad, "stock", tmp_path)
    launchpad.complete_launch(launchpad.launches.find_one()["launch_id"], FWAction(), "COMPLETED")
    assert reconcile(launchpad, lost_after_s=600)["settled"] == 0, "without an entry there is nothing to settle"
    Entry(
        entry_id="entry-1",
        calculation_id="calc-1",
        candidate_id="cand-1",
        level_key="l",
        formula="Si",
        reduced_formula="Si",
        chemsys="Si",
        elements=["Si"],
        composition={"Si": 1.0},
        n_atoms=1,
        uncorrected_energy_eV_per_atom=-1.0,
        energy_eV_per_atom=-1.0,
        structure={"made": "for this test"},
        structure_id="s",
        initial_structure_id="s",
        valid=True,
    ).save(force_insert=True)
    assert reconcile(launchpad, lost_after_s=600)["settled"] == 1
    assert Candidate.state_of("cand-1") is S.LANDED


@pytest.mark.parametrize("left", ["nothing", "workflow without fireworks"])
def test_a_candidate_whose_feeder_was_killed_is_queued_again(launchpad: LaunchPad, left: str) -> None:
    """Submitted, but with no or half a workflow: back to the queue after a grace time, without leftovers."""
    candidate = _candidate()
    if left != "nothing":
        _submit(launchpad)
        launchpad.fireworks.delete_many({})
    assert reconcile(launchpad, lost_after_s=600) == Counter()
    Candidate.objects.update(set__state_since=now() - timedelta(minutes=5))
    assert reconcile(launchpad, lost_after_s=600) == Counter(requeued=1)
    assert Candidate.state_of(candidate.candidate_id) is S.QUEUED
    assert launchpad.workflows.count_documents({}) == 0
