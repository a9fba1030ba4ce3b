"""The page about recovery says what the code does."""

from __future__ import annotations

from pathlib import Path

from hullworks.workflows.qe.handlers import CURES, load_repairs
from hullworks.workflows.qe.handlers.table import recovery_table
from hullworks.workflows.qe.outcomes import QeOutcome
from hullworks.workflows.qe.restarts import RestartKind
from hullworks.workflows.qe.thresholds import thresholds

PAGE = (Path(__file__).parents[3] / "docs" / "qe_recovery.md").read_text(encoding="utf-8")


def test_the_table_on_the_page_is_that_of_the_code() -> None:
    """Print it anew after a change: python -m hullworks.workflows.qe.handlers.table."""
    assert PAGE.partition("<!-- table -->\n")[2].partition("<!-- end of table -->")[0] == recovery_table()


def test_every_outcome_but_success_and_every_cure_is_in_the_table() -> None:
    """An outcome without a cure says so."""
    table = recovery_table()
    assert all(f"`{outcome.value}`" in table for outcome in QeOutcome if outcome is not QeOutcome.CONVERGED)
    assert all(f"`{name}`" in table for name in CURES)


def test_the_numbers_on_the_page_are_those_in_use() -> None:
    """Limits that the page names."""
    assert f"{load_repairs().max_corrections} corrections are spent" in PAGE
    assert f"within {thresholds()['stuck_iterations']:.0f} iterations" in PAGE
    assert f"more than {thresholds()['highest_occupation']} of an electron" in PAGE
    assert f"less than {thresholds()['full_disk_bytes'] / 1024:.0f} kB left" in PAGE
    assert all(f"| {kind.value.replace('_', ' ')} |" in PAGE for kind in RestartKind)
