"""The errors that entries carry into an ensemble of hulls; on a real MongoDB."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hullworks.analysis.client import StabilityDB
from hullworks.analysis.entry_errors import carried_errors
from hullworks.analysis.hull_view import load_view
from hullworks.analysis.stability import update_all
from hullworks.documents import Entry
from hullworks.errors import HullError, InputError

if TYPE_CHECKING:
    from hullworks.settings import Settings
    from tests.analysis.conftest import Lab


def test_errors_are_those_of_the_entries_by_their_index(lab: Lab) -> None:
    """A correction's is shared, a calculation's own is not; the others get what is assumed."""
    lab.enter_all()
    Entry.objects(name="MgSi").update(set__uncertainty_parts_eV_per_atom={"oxide": 0.003, "own:convergence": 0.004})
    Entry.objects(name="Mg2Si").update(set__uncertainty_parts_eV_per_atom={"oxide": 0.002})
    update_all()
    view = load_view(lab.key, ["Mg", "Si"])
    carried = carried_errors(view, 0.01)
    sigma = dict(zip([row.name for row in view.entries], carried.errors.sigma.tolist(), strict=True))
    assert sigma == pytest.approx({"Mg": 0.01, "Si": 0.01, "Mg2Si": 0.002, "MgSi": 0.005, "Mg3Si": 0.01})
    assert (carried.n_carrying, carried.shared) == (2, ("oxide",))
    covariance = (carried.errors.coefficients @ carried.errors.coefficients.T).toarray()
    names = [row.name for row in view.entries]
    assert covariance[names.index("MgSi"), names.index("Mg2Si")] == pytest.approx(0.003 * 0.002)
    assert covariance[names.index("Mg"), names.index("Si")] == 0
    assert carried_errors(view).errors.sigma[names.index("Mg")] == 0


def test_a_hull_tells_how_often_its_entries_are_stable(lab: Lab, mongod: Settings) -> None:
    """From the errors of its own entries: far from the hull never, an element always, by the same draws each time."""
    lab.enter_all()
    update_all()
    hull = StabilityDB(mongod).hull("Mg-Si", level=lab.key)
    found = hull.p_stable(200, seed=3, assumed_eV=0.01)
    p = dict(zip([row.name for row in hull.view.entries], found.p_stable.tolist(), strict=True))
    assert (p["Mg"], p["Mg2Si"], p["MgSi"]) == (1.0, 1.0, 0.0)
    assert hull.p_stable(200, seed=3, assumed_eV=0.01).n_stable.tolist() == found.n_stable.tolist()


def test_without_any_error_there_is_nothing_to_draw(lab: Lab) -> None:
    """It says what to do; an assumed error must be one."""
    lab.enter_all()
    update_all()
    view = load_view(lab.key, ["Mg", "Si"])
    with pytest.raises(HullError, match="no entry carries an uncertainty"):
        carried_errors(view)
    for wrong in (-0.1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="not below 0"):
            carried_errors(view, wrong)
