"""The recorded convergence runs, and the cutoffs that follow from them."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from hullworks.workflows.qe.pseudos import gth_parameters

SCRIPTS = Path(__file__).parents[4] / "scripts" / "pseudopotentials"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: ANN401 - a script, imported by its path
    """The script that records the runs."""
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("converge_cutoffs")


@pytest.fixture
def recipe(script: Any) -> dict[str, Any]:  # noqa: ANN401
    """The script's settings."""
    content: dict[str, Any] = script.yaml.safe_load(script.SETTINGS.read_text(encoding="utf-8"))
    return content


def runs(*points: tuple[float, float, float]) -> list[list[float]]:
    """Runs at two volumes from (cutoff, total error in meV, pressure), the smaller volume 1 Ry higher."""
    to_Ry = 1.0 / 13605.693
    return [row for c, error, p in points for row in ([c, 4.0, error * to_Ry, p], [c, 3.8, 1.0 + error * to_Ry, p])]


def test_every_recorded_cutoff_follows_from_its_runs(script: Any, recipe: dict[str, Any]) -> None:  # noqa: ANN401
    """The data file has the settings and criteria of the script, and deriving again changes no cutoff."""
    data = json.loads(script.DATA.read_text(encoding="utf-8"))
    assert data["settings"] == recipe["settings"]
    assert data["criteria"] == recipe["criteria"]
    for name, record in data["elements"].items():
        assert script.derive(record["runs"], record["atoms"], recipe) == record["ecutwfc_Ry"], name
        assert record["code"].startswith("pw.x ")


def test_the_page_shows_the_recorded_cutoffs(script: Any) -> None:  # noqa: ANN401
    """Print the table anew after a change: converge_cutoffs.py --table."""
    page = (SCRIPTS.parents[1] / "docs" / "pseudopotentials.md").read_text(encoding="utf-8")
    shown = page.partition("<!-- cutoffs -->\n")[2].partition("<!-- end of cutoffs -->")[0]
    assert shown == script.markdown_table(json.loads(script.DATA.read_text(encoding="utf-8"))["elements"])


def test_an_element_is_done_at_the_stringency_that_is_asked_for(script: Any, recipe: dict[str, Any]) -> None:  # noqa: ANN401
    """An element that has its normal cutoff is left alone unless the high one is wanted."""
    recipe["cells"] = {"Mg": ["fcc", 4.52], "Ca": ["fcc", 5.53]}
    recorded = {"Mg-q2": {"ecutwfc_Ry": {"low": 30.0, "normal": 30.0, "high": None}}}
    assert script.unfinished(recipe, recorded, "normal") == ["Ca"]
    assert script.unfinished(recipe, recorded, "high") == ["Mg", "Ca"]


def test_a_run_that_fails_ends_the_ladder_and_keeps_what_there_is(script: Any, recipe: dict[str, Any]) -> None:  # noqa: ANN401
    """A command that cannot calculate leaves the recorded runs and no cutoff."""
    known = {"cell": ["fcc", 4.52], "runs": runs((12.0, 0.0, 1.0)), "seconds": 5, "code": "pw.x 6.7MaX"}
    recipe["cells"] = {"Mg": known["cell"]}
    record = script.climb(gth_parameters("Mg"), recipe, ["false"], known, 60.0, "low")
    assert record["runs"] == known["runs"]
    assert (record["code"], record["ecutwfc_Ry"]["low"]) == ("pw.x 6.7MaX", None)


def test_the_ladder_starts_where_the_smallest_radius_allows(script: Any, recipe: dict[str, Any]) -> None:  # noqa: ANN401
    """A hard element starts at a higher cutoff than a soft one, and no ladder is empty."""
    first = [script.ladder(gth_parameters(element), recipe)[0] for element in ("Mg", "Si", "O", "Na")]
    assert first == sorted(first)
    assert first[0] < first[-1]


def test_a_cutoff_needs_a_plateau(script: Any, recipe: dict[str, Any]) -> None:  # noqa: ANN401
    """A cutoff is recommended only when the highest run is 1.5 times as high, and never below the floor."""
    converged = runs((40.0, 0.0, 1.0), (50.0, 0.0, 1.0))
    assert set(script.derive(converged, 1, recipe).values()) == {None}
    assert set(script.derive([*converged, *runs((60.0, 0.0, 1.0))], 1, recipe).values()) == {40.0}
    assert set(script.derive(runs((20.0, 0.0, 1.0), (30.0, 0.0, 1.0)), 1, recipe).values()) == {30.0}


def test_a_total_energy_that_still_falls_counts_for_the_higher_stringencies(
    script: Any,  # noqa: ANN401
    recipe: dict[str, Any],
) -> None:
    """Energy differences may be right long before total energies are: each stringency allows its own rest."""
    slow = runs((30.0, 20.0, 1.0), (40.0, 8.0, 1.0), (50.0, 3.0, 1.0), (60.0, 0.5, 1.0), (90.0, 0.0, 1.0))
    assert script.derive(slow, 1, recipe) == {"low": 40.0, "normal": 50.0, "high": 60.0}
