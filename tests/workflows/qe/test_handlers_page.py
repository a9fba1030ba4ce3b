"""The page about recovery says what the code does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hullworks.workflows.qe.handlers import CURES, load_repairs
from hullworks.workflows.qe.handlers.table import recovery_table
from hullworks.workflows.qe.outcomes import QeOutcome
from hullworks.workflows.qe.restarts import RestartKind
from hullworks.workflows.qe.thresholds import thresholds
from tests.fixtures.qe.table import conformance_table, healed, page

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE = (Path(__file__).parents[3] / "docs" / "qe_recovery.md").read_text(encoding="utf-8")


def test_the_tables_on_the_page_are_those_of_the_code_and_the_recorded_runs() -> None:
    """Write them anew after a change: python -m tests.fixtures.qe.table."""
    assert page() == PAGE


@pytest.mark.parametrize("made", [recovery_table, conformance_table])
def test_every_outcome_but_success_and_every_cure_is_in_the_table(made: Callable[[], str]) -> None:
    """An outcome without a cure says so."""
    table = made()
    assert all(f"`{outcome.value}`" in table for outcome in QeOutcome if outcome is not QeOutcome.CONVERGED)
    assert all(f"`{name}`" in table for name in CURES)


def test_the_numbers_on_the_page_are_those_in_use() -> None:
    """Limits that the page names."""
    assert f"{load_repairs().max_corrections} corrections are spent" in PAGE
    assert f"within {thresholds()['stuck_iterations']:.0f} iterations" in PAGE
    assert f"more than {thresholds()['highest_occupation']} of an electron" in PAGE
    assert f"less than {thresholds()['full_disk_bytes'] / 1024:.0f} kB left" in PAGE
    assert all(f"| {kind.value.replace('_', ' ')} |" in PAGE for kind in RestartKind)


def test_the_count_of_healed_runs_takes_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run counts once for each outcome and cure; a campaign's run that cannot converge says nothing of cures."""
    monkeypatch.setattr("tests.fixtures.qe.table.DATA", tmp_path)
    assert not healed().runs
    story = ["nstep_exhausted: MoreSteps", "another round", "nstep_exhausted: MoreSteps", "ended: nstep_exhausted"]
    arm = {"story": story, "verdict": "gave up"}
    cases = [
        {"right_end": "converged", "arms": {"hullworks": arm}},
        {"right_end": "converged", "arms": {"hullworks": {**arm, "verdict": "right"}}},
        {"right_end": ["disk_full"], "arms": {"hullworks": arm}},
        {"right_end": "converged", "arms": {"aiida": arm}},
    ]
    (tmp_path / "qe_campaign.json").write_text(json.dumps({"cases": cases}), encoding="utf-8")
    cured = {"met": ["disk_full"], "cures": ["OtherScratch"], "healed": True}
    (tmp_path / "qe_cures.json").write_text(json.dumps({"rows": [{"with": cured}]}), encoding="utf-8")
    found = healed()
    assert found.runs == {("nstep_exhausted", "MoreSteps"): 2, ("disk_full", "OtherScratch"): 1}
    assert found.converged == {("nstep_exhausted", "MoreSteps"): 1, ("disk_full", "OtherScratch"): 1}
