"""The commands that hold back, give up and take up again, as users meet them; on a real MongoDB and LaunchPad."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from hullworks.documents import Batch, Candidate, now
from hullworks.launchers.cli.app import run
from hullworks.states import CandidateState

if TYPE_CHECKING:
    from collections.abc import Callable

    from hullworks.settings import Settings

S = CandidateState


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Runs a command; returns what it prints, read where it is JSON, or the error of one that ends otherwise."""

    def call(*arguments: str, status: int = 0) -> Any:  # noqa: ANN401 - any JSON value
        assert run(list(arguments)) == status, capsys.readouterr()
        out, err = capsys.readouterr()
        return json.loads(out) if "--json" in arguments and out else out or err

    return call


@pytest.fixture(autouse=True)
def _two_batches(mongod: Settings) -> None:
    """Batches of two candidates each."""
    assert mongod.level
    for batch in ("b1", "b2"):
        Batch(name=batch, level_key="l").save(force_insert=True)
        for number in (1, 2):
            Candidate(
                candidate_id=f"{batch}-{number}",
                row_id=f"{batch}-{number}",
                batch=batch,
                level_key="l",
                source_file="f",
                source_row=number,
                state=S.QUEUED,
                state_since=now(),
                calculation_id=f"calc-{batch}-{number}",
            ).save(force_insert=True)


def _states() -> dict[str, S]:
    return {candidate.candidate_id: candidate.state for candidate in Candidate.objects}


def test_a_batch_and_a_candidate_of_another_are_held_back_and_go_on(cli: Callable[..., Any]) -> None:
    """What is named together is done together; done twice, nothing is left to do."""
    assert cli("pause", "b1", "b2-1", "--json") == {"done": {"candidates": 3}}
    assert _states() == {"b1-1": S.PAUSED, "b1-2": S.PAUSED, "b2-1": S.PAUSED, "b2-2": S.QUEUED}
    assert cli("pause", "b1") == "nothing was left to do\n"
    assert cli("resume", "b1-1") == "1 candidates\n"
    assert _states()["b1-1"] is S.QUEUED
    assert Candidate.objects.get(candidate_id="b1-1").history[-1].reason == "its user's resume"


def test_what_is_given_up_can_be_tried_again(cli: Callable[..., Any]) -> None:
    """With a fresh budget."""
    cli("cancel", "b2")
    assert [_states()[name] for name in ("b2-1", "b2-2")] == [S.CANCELLED] * 2
    assert cli("retry", "b2", "--json") == {"done": {"candidates": 2}}
    assert _states()["b2-1"] is S.QUEUED
    assert Candidate.objects.get(candidate_id="b2-1").budget_since is not None


def test_a_name_that_nobody_knows_is_said_and_nothing_is_done(cli: Callable[..., Any]) -> None:
    """Not even to those that are known."""
    assert "neither a batch nor a candidate" in cli("cancel", "b1", "nobody", status=2)
    assert set(_states().values()) == {S.QUEUED}


def test_reconcile_says_what_it_did(cli: Callable[..., Any]) -> None:
    """A candidate whose workflow was never stored is queued again."""
    assert cli("reconcile") == "all is in order\n"
    Candidate.objects(candidate_id="b1-1").update(set__state=S.SUBMITTED, set__state_since=now().replace(year=2020))
    assert cli("reconcile", "--json") == {"done": {"requeued": 1}, "in_doubt": 0, "waits": []}
    assert cli("reconcile", "--settle") == "all is in order\n"
