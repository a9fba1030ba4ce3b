"""Elements: their symbols, and chemical systems written with them."""

from __future__ import annotations

import pytest
from pymatgen.core import Element

from hullworks.elements import ELEMENTS, ELEMENTS_AND_ISOTOPES, ISOTOPES, SYMBOLS, elements_of
from hullworks.errors import InputError


def test_the_elements_are_those_of_the_periodic_table() -> None:
    """All 118 in alphabetical order."""
    assert sorted(Element.from_Z(number).symbol for number in range(1, 119)) == list(SYMBOLS)
    assert set(SYMBOLS) == ELEMENTS


def test_with_the_isotopes_they_are_all_that_pymatgen_knows() -> None:
    """Deuterium and tritium have symbols of their own, and are hydrogen."""
    assert set(Element.__members__) == ELEMENTS_AND_ISOTOPES
    assert {name: Element(name).symbol for name in ISOTOPES} == ISOTOPES


@pytest.mark.parametrize("chemsys", ["Mg-Si-Ge", "Si-Ge-Mg", " Ge - Mg -Si", "Mg-Mg-Si-Ge"])
def test_a_chemical_system_is_sorted_and_has_each_element_once(chemsys: str) -> None:
    """However it is written."""
    assert elements_of(chemsys) == ("Ge", "Mg", "Si")


@pytest.mark.parametrize(
    ("chemsys", "what"),
    [
        ("Mg-Xx", "Xx is not an element"),
        ("Yy-Mg-Xx", "Xx, Yy is not an element"),
        ("mg-Si", "mg is not an element"),
        ("MgSi", "MgSi is not an element"),
        ("D-O", "D is not an element"),
        ("", "nothing is not an element"),
    ],
)
def test_what_is_no_element_is_named(chemsys: str, what: str) -> None:
    """With an example of how a system is written."""
    with pytest.raises(InputError) as caught:
        elements_of(chemsys)
    assert (caught.value.what, caught.value.where) == (what, chemsys)
    assert caught.value.next_step == "Write it like Mg-Si-Ge."
