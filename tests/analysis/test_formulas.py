"""Formulas read at once mean what pymatgen's Composition says that they mean."""

from __future__ import annotations

import csv
import gzip
import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pymatgen.core import Composition, Element

from hullworks.analysis.compositions import CompositionArrays
from hullworks.analysis.formulas import CHUNK, parse_formulas, read_amounts, read_formulas
from hullworks.elements import SYMBOLS
from hullworks.errors import HullError

if TYPE_CHECKING:
    from pathlib import Path

AMOUNTS = st.one_of(
    st.just(""),
    st.integers(1, 10**15 - 1).map(str),
    st.integers(1, 300).map(str),
    st.tuples(st.integers(0, 999), st.integers(1, 9999)).map(lambda pair: f"{pair[0]}.{pair[1]}"),
)
PLAIN = st.lists(st.tuples(st.sampled_from(SYMBOLS), AMOUNTS), min_size=1, max_size=9, unique_by=lambda pair: pair[0])
FORMULAS = PLAIN.map(lambda pairs: "".join(symbol + amount for symbol, amount in pairs))
ODD = st.text(st.sampled_from("CaHONSFeDTXx()[]{} .0129+-@*e\n٣"), max_size=12)


def by_pymatgen(formula: str) -> dict[str, float] | None:
    """Return atomic fractions by pymatgen's own parser; None where it names no elements."""
    try:
        amounts = Composition(formula).get_el_amt_dict()
    except ValueError:
        return None
    if not amounts or not all(Element.is_valid_symbol(symbol) for symbol in amounts):
        return None
    total = sum(amounts[symbol] for symbol in sorted(amounts))
    return {symbol: amount / total for symbol, amount in amounts.items()}


def rows(arrays: CompositionArrays) -> list[dict[str, float]]:
    """Return the compositions as mappings of element to fraction."""
    return [dict(zip(system, fractions.tolist(), strict=True)) for system, fractions in arrays]


def test_the_elements_are_those_of_the_periodic_table() -> None:
    """All of them in alphabetical order; deuterium and tritium are isotopes of one."""
    assert sorted({element.symbol for element in Element} - {"D", "T"}) == list(SYMBOLS)


@given(st.lists(FORMULAS, max_size=20))
def test_plain_formulas_mean_what_pymatgen_says(formulas: list[str]) -> None:
    """Symbols with integer or decimal amounts, to the last bit of nearly every fraction."""
    expected = [by_pymatgen(formula) for formula in formulas]
    assert rows(parse_formulas(formulas)) == [pytest.approx(row, rel=4e-16) for row in expected]


@settings(max_examples=300)
@given(st.lists(st.one_of(ODD, FORMULAS), max_size=12))
@example(
    [
        "",
        "Fe0",
        "Fe0O",
        "Fe1e-9O",
        "2Fe",
        "Fe.",
        "Fe.5",
        "Fe2.",
        "Fe1.5.2",
        "mgO",
        "Nan",
        "NaN",
        "\n",
        "Fe\nO",
        "\ud800",
    ]
)
@example(
    ["D2O", "T2O", "HDO", "CH3CH2OH", "Ca(OH)2", "Li3Fe2(PO4)3", "[Fe(CN)6]3", "Y3N@C80", "Fe 2 O 3", "Fe٣", "X2", "Qn"]
)
@example(["H1234567890123456", "H0.00000000000000001O", "O" * 40, "Fe2+", "(Fe", "Uuo", "Fee2", "FeO2x"])
def test_any_text_is_read_or_refused_as_by_pymatgen(formulas: list[str]) -> None:
    """Parentheses, repeated elements, isotopes, spaces; what pymatgen cannot read is named by its row."""
    expected = [by_pymatgen(formula) for formula in formulas]
    read = read_formulas(formulas)
    assert sorted(read.faults) == [i for i, row in enumerate(expected) if row is None]
    assert read.rows.tolist() == [i for i, row in enumerate(expected) if row is not None]
    assert rows(read.compositions) == [pytest.approx(row, rel=1e-15) for row in expected if row is not None]


def test_what_cannot_be_read_is_named_with_its_row() -> None:
    """The first one; nothing is left out silently."""
    for formula in ("Mg2Xx", "Mg--", "", "Qn", "Mg0"):
        with pytest.raises(HullError, match="row 1"):
            parse_formulas(["MgO", formula, "??"])


@given(st.lists(st.integers(1, 60), min_size=1, max_size=6), st.integers(1, 9))
def test_equal_ratios_are_equal_to_the_last_bit(counts: list[int], factor: int) -> None:
    """However often the formula unit is repeated, and however it is written."""
    once = "".join(f"{symbol}{n}" for symbol, n in zip(SYMBOLS, counts, strict=False))
    often = "".join(f"{symbol}{n * factor}" for symbol, n in zip(SYMBOLS, counts, strict=False))
    arrays = parse_formulas([once, often, f"({once}){factor}"])
    again = CompositionArrays.from_amounts([dict(zip(SYMBOLS, [n * factor for n in counts], strict=False))])
    first, *others = (fractions.tolist() for _, fractions in (*arrays, *again))
    assert all(other == first for other in others)


def test_many_rows_are_read_in_parts_without_a_seam() -> None:
    """Row numbers go on from part to part, also those of odd rows and faults."""
    formulas = list(itertools.islice(itertools.cycle(["Mg2Si", "O2", "Fe0.5O0.5"]), CHUNK + 7))
    formulas[CHUNK + 1], formulas[CHUNK + 2], formulas[3] = "Ca(OH)2", "no formula", "H H"
    read = read_formulas(formulas)
    assert list(read.faults) == [CHUNK + 2]
    assert len(read.compositions) == len(formulas) - 1
    assert rows(read.compositions.take(np.array([0, 3, CHUNK + 1]))) == [
        by_pymatgen(formula) for formula in ("Mg2Si", "H2", "Ca(OH)2")
    ]


def test_amounts_are_kept_as_written() -> None:
    """They are not reduced, and an unreadable one is empty."""
    amounts, faults = read_amounts(["Mg4Si2", "nothing", "Ca(OH)2", "O0.5"])
    assert amounts == [{"Mg": 4.0, "Si": 2.0}, {}, {"Ca": 1.0, "O": 2.0, "H": 2.0}, {"O": 0.5}]
    assert list(faults) == [1]


def test_strings_and_compositions_may_be_mixed() -> None:
    """In their order; oxidation states are ignored."""
    mixed: list[str | Composition] = ["MgO", Composition("Fe2O3"), "Ca(OH)2", Composition({"Fe3+": 2, "O2-": 3})]
    arrays = CompositionArrays.from_compositions(mixed)
    assert rows(arrays) == [by_pymatgen(formula) for formula in ("MgO", "Fe2O3", "Ca(OH)2", "Fe2O3")]
    with pytest.raises(HullError, match="X"):
        CompositionArrays.from_compositions([Composition("X2")])


def test_the_real_formulas_are_read_as_by_pymatgen(shared: Path) -> None:
    """A sample of the Materials Project's, and no warning or odd row in all of them."""
    with gzip.open(shared / "hull_data" / "mp_e_form.csv.gz", "rt", encoding="utf-8") as file:
        formulas = [row["formula"] for row in csv.DictReader(file)]
    arrays = parse_formulas(formulas)
    assert len(arrays) == len(formulas)
    sample = np.random.default_rng(1).choice(len(formulas), 2000, replace=False)
    assert rows(arrays.take(sample)) == [by_pymatgen(formulas[i]) for i in sample]
