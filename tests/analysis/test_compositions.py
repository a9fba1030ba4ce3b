"""Compositions as arrays: what they refuse, and what building them keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hullworks.analysis.compositions import CompositionArrays
from hullworks.errors import HullError

ROWS = st.lists(
    st.dictionaries(
        st.sampled_from(["O", "Mg", "Si", "Ag", "Zr"]),
        st.one_of(st.integers(0, 40), st.floats(1e-3, 50.0)),
        min_size=1,
    ).filter(lambda row: any(row.values())),
    max_size=12,
)


@given(ROWS)
def test_amounts_become_fractions(rows: list[dict[str, float]]) -> None:
    """One division each; zeros are left out, elements are sorted."""
    arrays = CompositionArrays.from_amounts(rows)
    kept = [{symbol: n for symbol, n in sorted(row.items()) if n} for row in rows]
    assert arrays.elements == tuple(sorted({symbol for row in kept for symbol in row}))
    for (system, fractions), row in zip(arrays, kept, strict=True):
        assert system == tuple(row)
        assert fractions == pytest.approx([n / sum(row.values()) for n in row.values()], rel=1e-15)


@given(ROWS.filter(bool))
def test_rows_can_be_taken_and_joined(rows: list[dict[str, float]]) -> None:
    """In any order, any number of times."""
    arrays = CompositionArrays.from_amounts(rows)
    order = np.array([len(rows) - 1, 0, 0], dtype=np.int64)
    taken = arrays.take(order).followed_by(arrays)
    expected = [list(arrays)[i] for i in (*order, *range(len(rows)))]
    assert [(system, list(x)) for system, x in taken] == [(system, list(x)) for system, x in expected]


def test_compressed_rows_need_no_order() -> None:
    """Elements may be unsorted or unused, indices may stand in any order."""
    indptr, indices = np.array([0, 2, 3]), np.array([0, 2, 0])
    arrays = CompositionArrays.from_arrays(("Si", "He", "Mg"), indptr, indices, np.array([1.0, 2.0, 5.0]))
    assert arrays.elements == ("Mg", "Si")
    assert arrays.indices.tolist() == [0, 1, 1]
    assert arrays.fractions.tolist() == [2 / 3, 1 / 3, 1.0]


def test_no_rows_are_fine() -> None:
    """An empty set of compositions has no elements."""
    empty = CompositionArrays.from_amounts([])
    assert (len(empty), empty.elements) == (0, ())
    assert len(CompositionArrays.from_compositions([])) == 0


@pytest.mark.parametrize("row", [{}, {"O": 0}, {"O": -1.0}, {"O": float("nan")}, {"O": float("inf")}])
def test_rows_without_countable_atoms_are_refused(row: dict[str, float]) -> None:
    """With the number of the row."""
    with pytest.raises(HullError, match="row 1"):
        CompositionArrays.from_amounts([{"Mg": 1}, row, {"Si": 1}])


GOOD: dict[str, Any] = {
    "elements": ("Mg", "Si"),
    "indptr": np.array([0, 2, 3]),
    "indices": np.array([0, 1, 0]),
    "fractions": np.array([0.25, 0.75, 1.0]),
}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("elements", ("Si", "Mg")),
        ("elements", ("Mg", "Mg")),
        ("indptr", np.array([1, 2, 3])),
        ("indptr", np.array([0, 2, 2])),
        ("indptr", np.array([0, 3, 3])),
        ("indices", np.array([1, 0, 0])),
        ("indices", np.array([0, 0, 0])),
        ("indices", np.array([0, 2, 0])),
        ("indices", np.array([-1, 1, 0])),
        ("indices", np.array([0, 1])),
        ("fractions", np.array([0.25, 0.7, 1.0])),
        ("fractions", np.array([1.25, -0.25, 1.0])),
        ("fractions", np.array([0.25, np.nan, 1.0])),
    ],
)
def test_arrays_that_describe_no_compositions_are_refused(field: str, value: object) -> None:
    """Whatever is wrong with them."""
    assert len(CompositionArrays(**GOOD)) == 2
    with pytest.raises(HullError):
        CompositionArrays(**{**GOOD, field: value})
