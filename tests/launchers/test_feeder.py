"""The feeder: the best ranked go to the LaunchPad, each once, within its window; real MongoDB and FireWorks."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pymatgen.core import Lattice, Structure

from hullworks.database import database_uri
from hullworks.documents import Calculation, Candidate, Lease, Level, now
from hullworks.launchers import feeder
from hullworks.launchers.bookkeeping import feeding, launchpad_pad
from hullworks.launchers.feeder import build_workflow, feed
from hullworks.launchers.launchpad import open_launchpad
from hullworks.launchers.reconcile import reconcile
from hullworks.leases import lease
from hullworks.levels import LevelOfTheory
from hullworks.states import CandidateState
from hullworks.workflows.codes import build_level
from hullworks.workflows.screening import default_policy
from hullworks.workflows.submission import submit

if TYPE_CHECKING:
    from fireworks import LaunchPad

    from hullworks.settings import Settings

S = CandidateState


@pytest.fixture
def queued(mongod: Settings) -> list[str]:
    """Four queued candidates in another order than their ranks; their ids, best ranked first."""
    rows = []
    for above_hull, element in ((0.3, "Sn"), (0.1, "Ge"), (0.2, "Al"), (0.4, "Ga")):
        crystal = Structure(Lattice.cubic(3.6), ["Mg", element], [[0.0] * 3, [0.5] * 3])
        rows.append({"name": element, "structure": crystal.as_dict(), "prediction": {"e_above_hull": above_hull}})
    path = Path("batch.jsonl").absolute()
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    level = build_level("qe-pbe-fast", mongod)
    report = submit([path], level, mongod, batch="b", policy=default_policy())
    assert report.counts == Counter(queued=4)
    return [candidate.candidate_id for candidate in Candidate.objects.order_by("rank")]


def _overlap(candidate: Candidate) -> None:
    """Put a candidate's two atoms into one place."""
    candidate.structure["sites"][1]["abc"] = [0.0, 0.0, 0.01]


def _windowed(settings: Settings, window: int) -> Settings:
    return settings.model_copy(update={"launch": settings.launch.model_copy(update={"window": window})})


def _in_state(state: CandidateState) -> list[str]:
    return [candidate.candidate_id for candidate in Candidate.objects(state=state).order_by("rank")]


def _workflows(launchpad: LaunchPad) -> list[dict[str, Any]]:
    return list(launchpad.workflows.find().sort("nodes", 1))


def test_the_best_ranked_go_first_and_the_window_is_kept(
    launchpad: LaunchPad, mongod: Settings, queued: list[str]
) -> None:
    """Two places, two candidates; when one of them is done, one more."""
    settings = _windowed(mongod, 2)
    assert feed(launchpad, settings) == Counter(submitted=2)
    assert not feed(launchpad, settings)
    assert _in_state(S.SUBMITTED) == queued[:2]
    Candidate.move(queued[0], S.FAILED)
    assert feed(launchpad, settings) == Counter(submitted=1)
    assert _in_state(S.QUEUED) == queued[3:]
    assert [w["metadata"]["candidate_id"] for w in _workflows(launchpad)] == queued[:3]


def test_what_is_fed_can_be_found_again(launchpad: LaunchPad, mongod: Settings, queued: list[str]) -> None:
    """Candidate, calculation, workflow and each of its runs name one another; the first run is ready."""
    feed(launchpad, _windowed(mongod, 1))
    candidate = Candidate.objects.get(candidate_id=queued[0])
    (workflow,) = _workflows(launchpad)
    assert workflow["metadata"] == {
        "batch": "b",
        "candidate_id": candidate.candidate_id,
        "calculation_id": candidate.calculation_id,
    }
    calculation = Calculation.objects.get()
    assert (calculation.calculation_id, calculation.candidate_id) == (candidate.calculation_id, queued[0])
    assert (calculation.structure_id, calculation.level_key) == (candidate.structure_id, candidate.level_key)
    assert candidate.workflow_id == calculation.workflow_id == min(workflow["nodes"])
    assert candidate.attempts == 1
    runs = list(launchpad.fireworks.find({"fw_id": {"$in": workflow["nodes"]}}))
    states = {"relax 1": "READY", "relax 2": "WAITING", "static": "WAITING", "land": "WAITING"}
    assert {run["name"]: run["state"] for run in runs} == states
    assert {run["spec"]["calculation_id"] for run in runs} == {candidate.calculation_id}


@pytest.mark.parametrize("lease_s", [120.0, -1.0], ids=["lease held", "lease ran out"])
def test_two_feeders_at_once_submit_each_candidate_once(
    mongod: Settings, queued: list[str], monkeypatch: pytest.MonkeyPatch, lease_s: float
) -> None:
    """By the lease; and when it runs out under a slow feeder, by the candidate's state."""
    monkeypatch.setattr(feeding, "LEASE_S", lease_s)
    start = threading.Barrier(2)

    def one_feeder(_number: int) -> Counter[str]:
        launchpad = open_launchpad(mongod)
        start.wait()
        done = feed(launchpad, mongod)
        launchpad.connection.close()
        return done

    with ThreadPoolExecutor(2) as feeders:
        done = sum(feeders.map(one_feeder, range(2)), Counter[str]())
    assert done["submitted"] == 4
    assert _in_state(S.SUBMITTED) == queued
    launchpad = open_launchpad(mongod)
    assert len(_workflows(launchpad)) == 4
    assert launchpad.fireworks.count_documents({}) == 16
    assert {candidate.attempts for candidate in Candidate.objects} == {1}
    launchpad.connection.close()


def test_while_one_feeder_is_at_it_another_does_nothing(
    launchpad: LaunchPad, mongod: Settings, queued: list[str]
) -> None:
    """And the lease is given back in the end."""
    with lease("feeder", 60):
        assert not feed(launchpad, mongod)
    assert feed(launchpad, mongod) == Counter(submitted=len(queued))
    assert Lease.objects.count() == 0


@pytest.mark.parametrize("state", [S.CANCELLED, S.PAUSED, S.RUNNING])
@pytest.mark.parametrize("buildable", [True, False], ids=["sound", "refused"])
def test_a_candidate_that_moved_on_is_left_alone(
    launchpad: LaunchPad,
    mongod: Settings,
    queued: list[str],
    monkeypatch: pytest.MonkeyPatch,
    state: CandidateState,
    *,
    buildable: bool,
) -> None:
    """Its user, or another feeder, was faster while its graph was built; the feeder goes on with the next."""
    original = build_workflow

    def slow(candidate: Candidate, level: LevelOfTheory, settings: Settings) -> Any:  # noqa: ANN401 - a Workflow
        if candidate.candidate_id == queued[0]:
            Candidate.objects(candidate_id=queued[0]).update(set__state=state)
            if not buildable:
                _overlap(candidate)
        return original(candidate, level, settings)

    monkeypatch.setattr(feeder, "build_workflow", slow)
    assert feed(launchpad, mongod) == Counter(taken=1, submitted=3)
    assert Candidate.state_of(queued[0]) is state
    assert len(_workflows(launchpad)) == 3


def test_what_cannot_be_built_is_rejected_with_the_reason(
    launchpad: LaunchPad, mongod: Settings, queued: list[str]
) -> None:
    """And the others are fed."""
    broken = Candidate.objects.get(candidate_id=queued[0])
    _overlap(broken)
    broken.save()
    assert feed(launchpad, mongod) == Counter(refused=1, submitted=3)
    broken.reload()
    assert (broken.state, broken.reason.code) == (S.REJECTED, "InputError")
    assert broken.reason.text
    assert broken.reason.text in broken.history[-1].reason
    assert not feed(launchpad, mongod)


def test_a_level_that_changed_since_submission_is_refused(
    launchpad: LaunchPad, mongod: Settings, queued: list[str]
) -> None:
    """Other pseudopotentials than today's were stored: nothing is computed under their name."""
    present = build_level("qe-pbe-fast", mongod)
    stored = replace(present, pseudo_hashes=tuple((element, "0" * 64) for element, _ in present.pseudo_hashes))
    Level(key=stored.key, slug=stored.slug, data=stored.as_dict()).save(force_insert=True)
    Candidate.objects(candidate_id=queued[1]).update(set__level_key=stored.key)
    assert feed(launchpad, mongod) == Counter(submitted=3, refused=1)
    refused = Candidate.objects.get(candidate_id=queued[1])
    assert (refused.state, refused.reason.code) == (S.REJECTED, "LevelError")
    assert present.key in refused.reason.text
    assert "Submit the batch again" in refused.reason.next_step
    assert {LevelOfTheory.from_dict(level.data).key for level in Level.objects} == {present.key, stored.key}


def test_a_feeder_killed_between_move_and_add_is_healed(
    launchpad: LaunchPad, mongod: Settings, queued: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reconciling queues the candidates again, and each is fed once."""

    def dies(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(launchpad_pad, "add_whole", dies)
    with pytest.raises(KeyboardInterrupt):
        feed(launchpad, mongod)
    monkeypatch.undo()
    assert _in_state(S.SUBMITTED) == queued
    assert Lease.objects.count() == 0, "a kill that Python notices gives the lease back"
    Candidate.objects(state=S.SUBMITTED).update(set__state_since=now() - timedelta(minutes=5))
    assert reconcile(launchpad, lost_after_s=600) == Counter(requeued=4)
    assert feed(launchpad, mongod) == Counter(submitted=4)
    assert len(_workflows(launchpad)) == 4


def test_a_workflow_that_is_already_there_is_adopted(launchpad: LaunchPad, mongod: Settings, queued: list[str]) -> None:
    """Its candidate was queued again meanwhile: no second workflow, and the candidate names the first."""
    feed(launchpad, _windowed(mongod, 1))
    first = Candidate.objects.get(candidate_id=queued[0]).workflow_id
    Candidate.objects(candidate_id=queued[0]).update(set__state=S.QUEUED, unset__workflow_id=True)
    assert feed(launchpad, _windowed(mongod, 1)) == Counter(submitted=1)
    assert len(_workflows(launchpad)) == 1
    assert Candidate.objects.get(candidate_id=queued[0]).workflow_id == first


def test_nothing_secret_is_stored_in_a_workflow(launchpad: LaunchPad, mongod: Settings, queued: list[str]) -> None:
    """Neither address nor password of the database, when a user feeds with the project's configuration in force."""
    program = Path(sys.executable).with_name("hullworks")
    done = subprocess.run(
        [program, "launch", "feed", "--once", "--json"], capture_output=True, text=True, check=True, timeout=120
    )
    assert json.loads(done.stdout) == {"done": {"submitted": len(queued)}}
    stored = [*launchpad.workflows.find(), *launchpad.fireworks.find(), *launchpad.launches.find()]
    text = json.dumps(stored, default=str)
    address = database_uri(mongod)
    password = address.split("@")[0].rpartition(":")[2]
    assert len(password) > 8
    for secret in (password, "mongodb://", address.split("@")[1].split("/")[0]):
        assert secret not in text
        assert secret not in done.stdout + done.stderr
