"""The recorded cutoffs and the name of their table."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

from hullworks.workflows.qe.protocols import level_of_theory, load_protocol
from hullworks.workflows.qe.pseudos import load_family
from hullworks.workflows.qe.pseudos.cutoffs import CUTOFFS_NAME, RecordedCutoffs, packaged_json, release


def table(**low: float | None) -> dict[str, Any]:
    """Return a released table with these cutoffs at low."""
    elements: dict[str, Any] = {name: {"ecutwfc_Ry": {"low": cutoff}} for name, cutoff in low.items()}
    return release({"version": 3, "elements": elements})


def test_the_packaged_table_is_released() -> None:
    """What ships holds no cutoff that its version does not name, so that all installations have the same levels."""
    for stringency in ("low", "normal", "high"):
        assert RecordedCutoffs.load(stringency).name == str(packaged_json(CUTOFFS_NAME)["version"])
    assert load_family("gth-pbe").cutoff_rule == "largest of the elements in table gth-pbe 1"


def test_version_1_has_these_cutoffs() -> None:
    """A released cutoff changes with the version only: entries of one level rest on them."""
    released = packaged_json(CUTOFFS_NAME)["elements"]
    known = {"Mg-q2": (30, 30, 30), "Si-q4": (30, 35, 45), "Ge-q4": (60, 80, 80), "Al-q3": (30, 40, 60)}
    known |= {"Li-q3": (200, 280, 280), "S-q6": (70, 100, 100), "Cl-q7": (90, 120, 140), "Sn-q4": (35, 45, 45)}
    assert {name: tuple(released[name]["released_Ry"].values()) for name in known} == known


def test_an_added_element_keeps_the_name() -> None:
    """A release with more elements has the version of the one before, and so the same levels."""
    grown = table(Mg=30.0)
    grown["elements"]["K"] = {"ecutwfc_Ry": {"low": 90.0}}
    assert release(grown)["version"] == 3
    assert RecordedCutoffs.from_data(release(grown), "low").name == "3"


def test_a_proof_that_was_missing_keeps_the_name() -> None:
    """An element that had no cutoff gets one: nothing was calculated with it before."""
    grown = table(Mg=30.0, K=None)
    grown["elements"]["K"]["ecutwfc_Ry"]["low"] = 90.0
    assert release(grown)["version"] == 3


def test_a_changed_cutoff_is_another_version() -> None:
    """Energies at another cutoff are of another level."""
    for other in (35.0, None):
        changed = table(Mg=30.0)
        changed["elements"]["Mg"]["ecutwfc_Ry"] = {"low": other}
        assert RecordedCutoffs.from_data(changed, "low").name.startswith("3 with ")
        assert release(changed)["version"] == 4


def test_what_somebody_records_on_top_is_named_by_its_content() -> None:
    """Two that find unlike cutoffs for an element have unlike tables, and the stringencies do not mix."""
    names = set()
    for cutoff in (90.0, 100.0):
        own = deepcopy(table(Mg=30.0))
        own["elements"]["K"] = {"ecutwfc_Ry": {"low": cutoff}}
        names.add(RecordedCutoffs.from_data(own, "low").name)
        assert RecordedCutoffs.from_data(own, "high").name == "3"
    assert len(names) == 2


def test_a_table_without_a_name_is_named_by_its_content() -> None:
    """A user's family has another rule after any change of a cutoff, the embedded one at all stringencies the same."""
    families = [load_family("gth-pbe", stringency=stringency) for stringency in ("low", "high")]
    assert len({family.cutoff_rule for family in families}) == 1
    assert len({replace(family, cutoff_table="").cutoff_rule for family in families}) == 2


def test_a_level_keeps_its_key_when_an_element_is_added_to_the_released_table() -> None:
    """The cutoff of an element that nobody used yet is no part of the key; the name of the table is."""
    family, protocol = load_family("gth-pbe", stringency="low"), load_protocol("fast")
    more = [replace(p, ecutwfc_Ry=99.0, ecutrho_Ry=396.0) if p.element == "U" else p for p in family.pseudos]
    grown = replace(family, pseudos=tuple(more))
    assert level_of_theory(protocol, grown).key == level_of_theory(protocol, family).key
    revised = replace(family, cutoff_table="gth-pbe 2")
    assert level_of_theory(protocol, revised).key != level_of_theory(protocol, family).key
