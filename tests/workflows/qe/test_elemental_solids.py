"""Elemental solids: the page about them, and real runs."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hullworks.errors import PseudopotentialError
from hullworks.workflows.qe.executable import PwCommand
from hullworks.workflows.qe.pseudos import EMBEDDED_FAMILY, load_family

if TYPE_CHECKING:
    from pymatgen.core import Structure

ROOT = Path(__file__).parents[3]
ROWS = json.loads((ROOT / "docs" / "data" / "qe_elements.json").read_text(encoding="utf-8"))
DEMONSTRATION = {"Mg", "Si", "Ge"}
SECONDS_OF_A_TEST = 5.0
"""Longer runs are left to the script: together they take a quarter of an hour."""

pytestmark = [
    # pymatgen asks spglib, and complains about noble gases.
    pytest.mark.filterwarnings("ignore:Set OLD_ERROR_HANDLING:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:No Pauling electronegativity:UserWarning"),
]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: ANN401 - a script, imported by its path
    """The script that runs the elements."""
    monkeypatch.syspath_prepend(ROOT / "scripts" / "pseudopotentials")
    return importlib.import_module("run_elements")


@pytest.fixture
def recipe(script: Any) -> dict[str, Any]:  # noqa: ANN401
    """The structures."""
    content: dict[str, Any] = script.yaml.safe_load(script.RECIPE.read_text(encoding="utf-8"))
    return content


def again() -> list[Any]:
    """Return the runs to repeat, one per element."""
    best = {row["element"]: row for row in ROWS if row["outcome"] == "converged" and row["protocol"] == "fast"}
    return [pytest.param(row, id=element) for element, row in best.items() if row["cpu_seconds"] <= SECONDS_OF_A_TEST]


@pytest.mark.parametrize("row", again())
def test_the_solid_runs_again(
    row: dict[str, Any],
    qe: list[str],
    script: Any,  # noqa: ANN401
    recipe: dict[str, Any],
    tmp_path: Path,
) -> None:
    """The embedded pw.x converges to the recorded energy, and finds the same metals and insulators."""
    command = PwCommand(tuple(qe), "embedded")
    found = script.run_element(row["element"], recipe, command, tmp_path / "run", row["protocol"])
    assert found["outcome"] == "converged", found["message"]
    assert found["energy_eV_per_atom"] == pytest.approx(row["energy_eV_per_atom"], abs=1e-3)
    assert found["pressure_kbar"] == pytest.approx(row["pressure_kbar"], abs=1.0)
    assert found["gap_eV"] == pytest.approx(row["gap_eV"], abs=0.02)


def test_thirty_elements_beyond_the_demonstration_have_run() -> None:
    """Each with a converged run at the loosest protocol."""
    good = {row["element"] for row in ROWS if row["outcome"] == "converged" and row["protocol"] == "fast"}
    assert len(good - DEMONSTRATION) >= 30
    assert good >= DEMONSTRATION


def test_the_page_shows_the_recorded_runs(script: Any, recipe: dict[str, Any]) -> None:  # noqa: ANN401
    """Write it anew after a change: python scripts/pseudopotentials/run_elements.py --document."""
    page = script.PAGE.read_text(encoding="utf-8")
    assert script.with_tables(page, script.load(script.DATA), recipe) == page


def test_the_runs_were_those_of_the_present_input_set(script: Any, recipe: dict[str, Any]) -> None:  # noqa: ANN401
    """Cutoff, mesh and number of atoms are what the protocol and the cutoff table give today."""
    for row in ROWS:
        pw_input = script.element_input(row["element"], recipe, row["protocol"])
        today = (pw_input.ecutwfc_Ry, list(pw_input.mesh.divisions), len(pw_input.structure))
        assert today == (row["ecutwfc_Ry"], row["mesh"], row["atoms"]), row["element"]


def test_every_element_stands_once_in_the_periodic_table(script: Any) -> None:  # noqa: ANN401
    """All elements up to lawrencium, and all of the family's among them."""
    assert len(set(script.PERIODIC_ORDER)) == len(script.PERIODIC_ORDER) == 103
    assert set(load_family(EMBEDDED_FAMILY).elements) <= set(script.PERIODIC_ORDER)


@pytest.mark.parametrize(
    ("element", "atoms", "bond_A"),
    [("Al", 1, 2.864), ("Tl", 2, 3.407), ("As", 2, 2.517), ("Te", 3, 2.835), ("P", 4, 2.224), ("I", 4, 2.715)],
)
def test_the_structures_have_the_published_bonds(
    script: Any,  # noqa: ANN401
    recipe: dict[str, Any],
    element: str,
    atoms: int,
    bond_A: float,
) -> None:
    """Primitive cells, with the shortest distance that the literature gives."""
    solid: Structure = script.elemental_solid(element, recipe)
    assert len(solid) == atoms
    assert min(near.nn_distance for near in solid.get_neighbors(solid[0], 5.0)) == pytest.approx(bond_A, abs=0.002)


def test_an_element_without_a_cutoff_is_refused_before_a_run(script: Any, recipe: dict[str, Any]) -> None:  # noqa: ANN401
    """The input set says so, as it does for a candidate."""
    recipe["elements"]["U"] = recipe["elements"]["Al"]
    with pytest.raises(PseudopotentialError, match="no cutoff is recorded for U"):
        script.element_input("U", recipe, "fast")


def test_a_row_replaces_that_of_the_same_run(script: Any, tmp_path: Path) -> None:  # noqa: ANN401
    """One row per element, protocol and code, in the order of the periodic table."""
    path = tmp_path / "data.json"
    for element, seconds in (("Si", 5.0), ("Mg", 2.0), ("Si", 7.0)):
        row = {"element": element, "protocol": "fast", "code": "pw.x 7.2", "cpu_seconds": seconds}
        script.record(path, row)
    assert [(row["element"], row["cpu_seconds"]) for row in script.load(path)] == [("Mg", 2.0), ("Si", 7.0)]
