"""What the commands show: rows of candidates, hulls, and what happened to an entry; on a real MongoDB."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pymatgen.core import Composition

from hullworks.analysis.client import StabilityDB
from hullworks.analysis.stability import recorrect, retract, update_all
from hullworks.documents import Batch, Candidate, Entry, Level
from hullworks.errors import InputError
from hullworks.launchers import listings
from hullworks.levels import LevelOfTheory
from hullworks.states import CandidateState, Role

if TYPE_CHECKING:
    from hullworks.settings import Settings

LEVEL = LevelOfTheory("qe", "PBE", "fast")
ENERGIES = {"Mg": -1.0, "Si": -4.0, "MgSi": -2.6}
"""eV/atom; the tie line from Mg to Si passes MgSi at -2.5."""


def _enter(formula: str, energy: float) -> None:
    role = Role.CANDIDATE if formula == "Mg2Si" else Role.REFERENCE
    composition = Composition(formula)
    amounts = composition.get_el_amt_dict()
    Entry(
        entry_id=f"entry-{formula}",
        calculation_id=f"calc-{formula}",
        candidate_id=f"cand-{formula}",
        level_key=LEVEL.key,
        name=formula,
        role=role,
        formula=formula,
        reduced_formula=formula,
        chemsys=composition.chemical_system,
        elements=sorted(amounts),
        composition=amounts,
        n_atoms=int(composition.num_atoms),
        uncorrected_energy_eV_per_atom=energy,
        energy_eV_per_atom=energy,
        valid=True,
    ).save(force_insert=True)
    Candidate(
        candidate_id=f"cand-{formula}",
        row_id=f"row-{formula}",
        batch="b",
        level_key=LEVEL.key,
        source_file="f",
        source_row=len(formula),
        name=formula,
        role=role,
        reduced_formula=formula,
        chemsys=composition.chemical_system,
        state=CandidateState.LANDED,
        entry_id=f"entry-{formula}",
    ).save(force_insert=True)
    update_all()


@pytest.fixture
def told(mongod: Settings) -> Settings:
    """MgSi on the hull; then Mg2Si comes, dethrones it, is re-corrected upwards, and is taken back."""
    Level(key=LEVEL.key, slug=LEVEL.slug, data=LEVEL.as_dict()).save()
    Batch(name="b", level_key=LEVEL.key).save()
    for formula, energy in ENERGIES.items():
        _enter(formula, energy)
    _enter("Mg2Si", -2.2)
    recorrect("entry-Mg2Si", -1.5, {}, "another scheme")
    retract("entry-Mg2Si", "it was another crystal")
    return mongod


def _told(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(row["sequence"], row["what"], row["because_of"], row["reasons"]) for row in rows]


def test_a_history_says_what_happened_and_because_of_what(told: Settings) -> None:
    """To the entry itself, and to one that others moved; where two versions say nothing new, there is no line."""
    assert told is not None
    assert _told(listings.history("entry-MgSi")) == [
        (4, "added, on the hull", "entry-MgSi", []),
        (5, "left the hull", "entry-Mg2Si", []),
        (6, "came onto the hull", "entry-Mg2Si", ["another scheme"]),
    ]
    assert [row["change"] for row in listings.history("entry-MgSi")[1:]] == pytest.approx([0.05, -0.05])
    assert _told(listings.history("entry-Mg2Si")) == [
        (5, "added, on the hull", "entry-Mg2Si", []),
        (6, "re-corrected, above the hull", "entry-Mg2Si", ["another scheme"]),
        (7, "retracted", "entry-Mg2Si", ["it was another crystal"]),
    ]
    assert listings.history("entry-Mg2Si")[2]["after"]["verdict"] is None
    with pytest.raises(InputError, match="no such entry"):
        listings.history("entry-x")


def test_levels_tell_the_published_version(told: Settings) -> None:
    """And how many entries count: those that were not taken back."""
    assert told is not None
    (row,) = listings.levels()
    assert (row["hull_version"], row["entries"], row["candidates"]) == (7, 3, 4)


def test_a_candidate_row_is_the_same_everywhere(told: Settings) -> None:
    """In the listing of the commands and in the table of the client."""
    rows = {row["name"]: row for row in listings.candidates(batch="b")}
    assert (rows["MgSi"]["verdict"], rows["MgSi"]["hull_version"], rows["MgSi"]["read_at"]) == ("stable", 6, 7)
    assert (rows["Mg2Si"]["state"], rows["Mg2Si"]["verdict"]) == ("failed", None)
    assert rows["Mg2Si"]["note"] == "it was another crystal"
    table = {row["name"]: row for row in StabilityDB(told).candidates("b").to_dict("records")}
    assert table.keys() == rows.keys()
    assert set(table["MgSi"]) == set(rows["MgSi"])
    assert table["MgSi"]["decomposition"] == rows["MgSi"]["decomposition"] == ["1.000 MgSi"]


def test_stable_entries_and_hulls_are_those_of_one_version(told: Settings) -> None:
    """Within a chemical system if one is named; a hull of the past shows its own verdicts."""
    names = {row["name"] for row in listings.stable(LEVEL.key, None)}
    assert names == {"Mg", "Si", "MgSi"}
    assert [row["name"] for row in listings.stable(LEVEL.key, "Mg-Ge")] == ["Mg"]
    db = StabilityDB(told)
    now = listings.hull_rows(db.hull("Mg-Si", level=LEVEL.key))
    assert {row["name"]: row["verdict"] for row in now} == {"Mg": "stable", "Si": "stable", "MgSi": "stable"}
    then = listings.hull_rows(db.hull("Mg-Si", level=LEVEL.key, as_of=5))
    assert {row["name"]: row["hull_version"] for row in then} == dict.fromkeys(("Mg", "Si", "MgSi", "Mg2Si"), 5)
    assert [row["verdict"] for row in then if row["name"] == "MgSi"] == ["metastable"]
