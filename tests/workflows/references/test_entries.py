"""The stored form of an entry, made without an object per row."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymatgen.core import Composition

from hullworks.elements import SYMBOLS
from hullworks.workflows.references.entries import (
    calculation_id,
    energies_of,
    formula_of,
    no_word_of_electronegativity,
    reduced_formula,
)
from hullworks.workflows.references.rows import ReferenceRow, RefusalCode, RowRefusedError
from hullworks.workflows.references.rules import load_rules

AMOUNTS = st.dictionaries(
    st.sampled_from(SYMBOLS), st.one_of(st.integers(1, 40).map(float), st.floats(0.01, 9.0)), min_size=1, max_size=5
)
RULES = load_rules()
WINDOW = RULES.window("vasp", formation=False)


@given(AMOUNTS)
def test_formulas_are_written_as_pymatgen_does(amounts: dict[str, float]) -> None:
    """Elements in order of electronegativity, also those that have none; polyanions in brackets."""
    with no_word_of_electronegativity():
        composition = Composition(amounts)
        assert formula_of(amounts) == composition.formula.replace(" ", "")
        assert reduced_formula(amounts) == composition.reduced_formula


@pytest.mark.parametrize("formula", ["O2", "N4", "Cl1", "LiO", "H2O2", "CsO", "NaO", "KO", "RbO", "Ca3(PO4)2", "HgCl"])
def test_molecular_formulas_stay_whole(formula: str) -> None:
    """Those that pymatgen does not reduce to the end."""
    composition = Composition(formula)
    assert reduced_formula(composition.get_el_amt_dict()) == composition.reduced_formula


def test_the_warning_of_pymatgen_is_kept_away_only_there() -> None:
    """Other warnings, and those elsewhere, are heard."""
    with pytest.warns(UserWarning, match="heard"), no_word_of_electronegativity():
        warnings.warn("heard", UserWarning, stacklevel=1)


def test_ids_follow_from_level_and_source() -> None:
    """The same for everybody, another one at another level; no separator can be faked."""
    assert calculation_id("a", "b") == calculation_id("a", "b")
    assert (
        len({calculation_id("a", "b"), calculation_id("b", "b"), calculation_id("ab", ""), calculation_id("", "ab")})
        == 4
    )


def test_energies_are_divided_by_the_atoms_of_the_cell() -> None:
    """Corrections and uncertainties, too; names are made safe for the database."""
    row = ReferenceRow("x", -40.0, {"a.b": -4.0, "$c": 1.0}, {"a.b": 0.2}, is_total=True, stated_total=-43.0)
    energies = energies_of(row, 4.0, WINDOW, RULES)
    assert (energies.uncorrected, energies.corrected) == (-10.0, -10.75)
    assert (energies.parts, energies.sigmas) == ({"a_b": -1.0, "x$c": 0.25}, {"a_b": 0.05})


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"uncorrected": -51.0}, RefusalCode.ABSURD),
        ({"uncorrected": 51.0}, RefusalCode.ABSURD),
        ({"uncorrected": -49.0, "parts": {"a": -2.0}}, RefusalCode.ABSURD),
        ({"uncorrected": -5.0, "parts": {"a": -0.1}, "stated_total": -20.0}, RefusalCode.INCONSISTENT),
        ({"uncorrected": -5.0, "stated_per_atom": -5.1}, RefusalCode.INCONSISTENT),
    ],
)
def test_absurd_and_inconsistent_energies_are_refused(fields: dict[str, Any], code: RefusalCode) -> None:
    """With the numbers."""
    with pytest.raises(RowRefusedError) as refused:
        energies_of(ReferenceRow("x", **fields), 4.0, WINDOW, RULES)
    assert refused.value.code is code


def test_windows_depend_on_the_code_and_the_kind() -> None:
    """All-electron and pseudopotential energies reach deeper than VASP's; formation energies are small."""
    deep = RULES.window("qe", formation=False)
    assert deep[0] < -1000 < WINDOW[0]
    assert RULES.window("vasp", formation=True) == (-10.0, 10.0)
