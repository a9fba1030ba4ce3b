"""Keys, tables and grouped rows of the hull's engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hullworks.analysis.engine.choice import Choice
from hullworks.analysis.engine.groups import Groups
from hullworks.analysis.engine.keys import (
    CODED_SYMBOLS,
    KeyTable,
    Table,
    composition_keys,
    fraction_steps,
    spans,
    union,
    unique_keys,
)
from hullworks.analysis.engine.store import Rows, Store, keys_of_rows

if TYPE_CHECKING:
    from hullworks.analysis.engine.keys import Array, Keys

keys_of_any_kind = st.one_of(st.integers(0, 40), st.integers(0, 2**64 - 1))
"""Small keys meet in the same slots of a table."""


@settings(deadline=None)  # the first table loads the compiled code
@given(st.lists(st.lists(keys_of_any_kind, max_size=60), max_size=4), st.lists(keys_of_any_kind, max_size=60))
def test_a_table_is_a_dictionary(parts: list[list[int]], asked: list[int]) -> None:
    """Whatever is added, in however many steps, is found, and nothing else is."""
    table, known = KeyTable(), dict[int, int]()
    for part in parts:
        new = [key for key in dict.fromkeys(part) if key not in known]
        numbers = np.arange(len(known), len(known) + len(new))
        table.add(np.array(new, dtype=np.uint64), numbers)
        known |= dict(zip(new, numbers.tolist(), strict=True))
    every = [*known, *asked]
    found = table.find(np.array(every, dtype=np.uint64))
    assert found.tolist() == [known.get(key, -1) for key in every]
    assert len(table) == len(known)


@given(st.lists(st.integers(0, 9), max_size=40))
def test_distinct_keys_are_those_of_numpy(values: list[int]) -> None:
    """Distinct keys, and which of them each is, equal those of ``np.unique``; the heads are places of each."""
    keys = np.array(values, dtype=np.uint64)
    distinct, heads, which = unique_keys(keys)
    expected, inverse = np.unique(keys, return_inverse=True)
    assert distinct.tolist() == expected.tolist()
    assert which.tolist() == inverse.tolist()
    assert keys[heads].tolist() == distinct.tolist()
    assert union([keys.astype(np.int64), np.array([3])]).tolist() == sorted({*values, 3})


def test_spans_of_nothing_are_empty() -> None:
    """No rows, or rows without length, have no positions."""
    none = np.zeros(0, dtype=np.int64)
    assert spans(none, none).tolist() == []
    assert spans(np.array([5, 7, 9]), np.array([0, 2, 0], dtype=np.uint8)).tolist() == [7, 8]


@given(st.lists(st.lists(st.integers(0, 6), max_size=30), min_size=1, max_size=5))
def test_grouped_rows_are_found_while_they_grow(parts: list[list[int]]) -> None:
    """After each growth the rows of a label are those that have it."""
    groups, labels = Groups(), np.zeros(0, dtype=np.int64)
    for round_number, part in enumerate(parts):
        labels = np.concatenate([labels, np.array(part, dtype=np.int64)])
        if round_number == 1:  # what is sorted for good, and what is not yet
            groups._rows = np.argsort(labels, kind="stable").astype(np.int32)
            groups._indptr = np.concatenate([[0], np.cumsum(np.bincount(labels, minlength=7))])
        wanted = np.array([4, 0, 6])
        rows, place = groups.of(wanted, labels, 7)
        for position, label in enumerate(wanted):
            assert sorted(rows[place == position].tolist()) == np.flatnonzero(labels == label).tolist()


def test_a_table_fills_what_it_is_not_given_with_zero() -> None:
    """Columns grow together, also those without values."""
    table = Table(a=np.int32, b=np.float64)
    for n in range(1, 40):
        table.extend(n, a=n)
    assert len(table) == 780
    assert table["a"].sum() == sum(n * n for n in range(1, 40))
    assert not table["b"].any()


def test_element_codes_are_ordered_as_symbols_are() -> None:
    """A chemical system in increasing codes is one in alphabetical order, and codes fit a mask of 128 bits."""
    assert list(CODED_SYMBOLS) == sorted(CODED_SYMBOLS)
    assert len(CODED_SYMBOLS) <= 128
    assert {"H", "D", "U", "Og"} <= set(CODED_SYMBOLS)


def test_fractions_that_differ_by_round_off_are_the_same_composition() -> None:
    """0.1 + 0.2 and 0.3 are the same; a thousandth of an atom in a thousand is not."""
    one, same, other = fraction_steps(np.array([0.1 + 0.2, 0.3, 0.3 + 1e-6]))
    assert one == same
    assert one != other


def test_compositions_whose_keys_collide_are_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two compositions with one key make the store take other keys, and both are found again."""

    def colliding(codes: Array, steps: Keys, indptr: Array, salt: int) -> Keys:
        keys = composition_keys(codes, steps, indptr, salt)
        return keys % np.uint64(2) if salt < 2 else keys

    monkeypatch.setattr(Choice, "compiled", False)
    monkeypatch.setattr("hullworks.analysis.engine.store.composition_keys", colliding)
    store = Store()
    two = Rows(np.array([0, 1, 3]), np.array([5, 5, 7], dtype=np.uint8), np.array([1.0, 0.25, 0.75]))
    more = Rows(np.array([0, 2, 4]), np.array([5, 7, 5, 7], dtype=np.uint8), np.array([0.5, 0.5, 0.25, 0.75]))
    store.register(two, np.zeros(2))
    store.register(more, np.zeros(2))
    assert store.salt == 2
    comps = store.entries["comp"].tolist()
    assert len(set(comps)) == 3
    assert comps[1] == comps[3]
    again = store.register(more, np.zeros(2))
    assert store.entries["comp"][again].tolist() == comps[2:]


def test_compiled_keys_are_those_of_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a pickled hull goes on with or without numba."""
    pytest.importorskip("numba")
    rng = np.random.default_rng(4)
    sizes = rng.integers(1, 6, 300)
    indptr = np.concatenate([[0], np.cumsum(sizes)])
    codes = np.concatenate([np.sort(rng.choice(120, n, replace=False)) for n in sizes]).astype(np.uint8)
    rows = Rows(indptr, codes, rng.uniform(0.01, 1, len(codes)))
    compiled = keys_of_rows(rows, 3)
    monkeypatch.setattr(Choice, "compiled", False)
    for with_numba, without in zip(compiled, keys_of_rows(rows, 3), strict=True):
        assert with_numba.tolist() == without.tolist()
