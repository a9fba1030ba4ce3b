"""The conformance matrix: how each recorded run ended, and what is tried next, as a person expects it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from hullworks.workflows.qe import diagnosis
from hullworks.workflows.qe.handlers import CURES
from hullworks.workflows.qe.handlers.table import treatments
from hullworks.workflows.qe.outcomes import RECOGNISERS, QeOutcome
from hullworks.workflows.qe.parser import _gather
from hullworks.workflows.qe.run_files import find_files
from tests.fixtures.qe.cases import CASES, text_of
from tests.fixtures.qe.conformance import VERSIONS, Plan, Recording, by_outcome, plan, recordings, unprovoked
from tests.fixtures.qe.table import DATA, healed

if TYPE_CHECKING:
    from pathlib import Path

RECORDINGS = recordings()
IDS = [recording.folder.name for recording in RECORDINGS]
TREATED = [recording for recording in RECORDINGS if "cure" in recording.expected]
LEFT_ALONE = [recording for recording in RECORDINGS if "cure" not in recording.expected]


def names(chosen: list[Recording]) -> list[str]:
    """Return what tests are called after."""
    return [recording.folder.name for recording in chosen]


def expected_plan(expected: dict[str, Any], files: str) -> Plan:
    """Return what a person expects to be planned, with the files whole or lost."""
    taken, outcome = expected[files], expected.get("supervised", expected["outcome"])
    if taken is None:
        return Plan(outcome, "NoCure", {}, None, None, None, scratch=False)
    return Plan(
        outcome=outcome,
        handler=expected["cure"],
        changes={key: value if value is None else pytest.approx(value) for key, value in expected["changes"].items()},
        restart=taken["restart"],
        start=taken["start"],
        pools=expected.get("pools"),
        scratch="scratch" in expected,
    )


@pytest.mark.parametrize("recording", RECORDINGS, ids=IDS)
def test_a_recorded_run_ended_as_a_person_says(recording: Recording) -> None:
    """The outcome is that of the folder and of ``expected.yaml``, and there is evidence for it."""
    assert recording.expected["outcome"] == recording.outcome
    assert recording.judged().value == recording.outcome
    assert recording.run().evidence


@pytest.mark.parametrize("files", ["files_whole", "files_lost"])
@pytest.mark.parametrize("recording", TREATED, ids=names(TREATED))
def test_what_is_planned_next_is_what_a_person_expects(
    recording: Recording, files: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cure, the edited input, the structure to start from and the restart kind, with the run's files and without.

    Where the site names a folder for scratch files, as here, a full disk is left for it.
    """
    monkeypatch.setenv("ESPRESSO_TMPDIR", str(tmp_path))
    planned = plan(recording, tmp_path / "run", whole=files == "files_whole")
    assert planned == expected_plan(recording.expected, files)


@pytest.mark.parametrize("recording", LEFT_ALONE, ids=names(LEFT_ALONE))
def test_a_run_without_a_cure_is_left_alone(recording: Recording, tmp_path: Path) -> None:
    """It ends with its cause, for a reason that a person gives."""
    assert recording.expected["no_cure"]
    planned = plan(recording, tmp_path, whole=True)
    assert planned.handler in {"none", "NoCure"}
    assert planned.restart is None


def test_a_full_disk_without_another_has_no_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The site names no folder for scratch files."""
    monkeypatch.delenv("ESPRESSO_TMPDIR", raising=False)
    for recording in (item for item in RECORDINGS if item.outcome == "disk_full"):
        assert plan(recording, tmp_path / recording.version, whole=False).handler == "NoCure"


@pytest.mark.parametrize(("outcome", "found"), list(by_outcome()), ids=[outcome.value for outcome in QeOutcome])
def test_every_outcome_is_recorded_with_every_version_or_cannot_be(outcome: QeOutcome, found: list[Recording]) -> None:
    """What could not be provoked is listed with a reason, and only that."""
    missing = set(VERSIONS) - {recording.version for recording in found}
    reason = unprovoked()["outcomes"].get(outcome.value, {"versions": []})
    assert missing == set(reason["versions"])
    assert not missing or (reason["why"] and reason["words"])


def test_every_cure_has_healed_a_real_run() -> None:
    """Runs of the cures' own cases, which fail without them, and of the campaign; the monitor's too."""
    assert {cure for (_, cure), number in healed().converged.items() if number} == {*CURES, "StuckMonitor"}


def test_every_cure_has_healed_every_outcome_of_its_or_cannot_be_made_to() -> None:
    """What no run here needed is listed with a reason."""
    used = {f"{cure} for {outcome}" for (outcome, cure), number in healed().converged.items() if number}
    every = {f"{item.cure} for {item.outcome.value}" for item in treatments() if item.cure}
    excused = unprovoked()["treatments"]
    assert every - used <= set(excused) <= every
    assert all(excused.values())


def test_words_name_the_versions_that_they_were_recorded_with() -> None:
    """Each recogniser's ``seen_in`` is what the recorded runs show, no more and no less."""
    seen: dict[int, set[str]] = {}
    for recording in RECORDINGS:
        facts = _gather(find_files(recording.folder), recording.status["exit_status"])
        for entry, _ in diagnosis._words(facts):
            if entry is not None:
                seen.setdefault(RECOGNISERS.index(entry), set()).add(recording.version)
    found = {entry.words: tuple(sorted(seen.get(number, set()))) for number, entry in enumerate(RECOGNISERS)}
    assert found == {entry.words: entry.seen_in for entry in RECOGNISERS}


@pytest.mark.parametrize("recording", RECORDINGS, ids=IDS)
def test_a_recorded_run_can_be_made_anew(recording: Recording) -> None:
    """Its input is that of the case of its name, and the case is meant for its version and outcome."""
    case = CASES[recording.name]
    assert (recording.folder / "pw.in").read_text(encoding="utf-8") == text_of(case)
    assert case.outcome == recording.outcome
    assert recording.version in case.versions


def test_every_case_is_recorded_with_every_version_that_ends_so() -> None:
    """No recording is forgotten, and none has lost its case."""
    cases = {(name, version) for name, case in CASES.items() for version in case.versions}
    assert {(recording.name, recording.version) for recording in RECORDINGS} == cases


def test_the_cures_cases_fail_without_cures() -> None:
    """Each ended with the outcome that it is made for; what cures do not heal ends with it too."""
    rows = json.loads((DATA / "qe_cures.json").read_text(encoding="utf-8"))["rows"]
    assert {row["version"] for row in rows} == set(VERSIONS)
    for row in rows:
        assert row["without"]["outcome"] == row["outcome"] != "converged"
        assert row["with"]["outcome"] == ("converged" if row["with"]["healed"] else row["outcome"])
