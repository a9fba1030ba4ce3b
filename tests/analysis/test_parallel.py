"""Tests of one function over many items, in this process; `test_clusters` has them on a cluster."""

from __future__ import annotations

import doctest
import sys
from typing import Any

import pytest

from hullworks.analysis import ensembles, parallel, uncertainty
from hullworks.analysis.parallel import map_chunks
from hullworks.errors import RunError


def test_an_error_is_reported_with_its_item_and_the_rest_is_finished() -> None:
    """The item, the error and where it came from are named; all the other results are there."""
    found = map_chunks(lambda x: 1 / x, [1, 0, 4])
    assert found.results == (1.0, None, 0.25)
    (failure,) = found.failures
    assert (failure.index, failure.item) == (1, "0")
    assert failure.error == "ZeroDivisionError: division by zero"
    assert "test_parallel.py" in failure.trace
    with pytest.raises(RunError, match="item 1, 0: 1 of 3 items failed, first ZeroDivisionError"):
        found.all()
    assert map_chunks(lambda x: 1 / x, [1, 4]).all() == [1.0, 0.25]


def test_an_item_that_wants_to_end_the_process_is_an_error_of_that_item() -> None:
    """A parser that calls exit() ends neither the worker nor the caller."""
    found = map_chunks(lambda x: sys.exit(3) if x == 1 else x, [0, 1, 2])
    assert found.results == (0, None, 2)
    assert found.failures[0].error == "SystemExit: 3"


def test_ctrl_c_is_no_error_of_an_item() -> None:
    """Who interrupts wants the whole to end."""

    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        map_chunks(interrupted, [1, 2])


def test_long_items_are_cut_in_reports() -> None:
    """A failed item of a million characters does not fill the screen."""
    failure = map_chunks(int, ["x" * 1_000_000]).failures[0]
    assert len(failure.item) < 300


def test_progress_is_told_after_each_item() -> None:
    """In this process an item is done at a time."""
    counts: list[int] = []
    map_chunks(str, range(3), progress=counts.append)
    assert counts == [1, 2, 3]


def test_no_items_are_no_work() -> None:
    """An empty sequence gives an empty one."""
    assert map_chunks(str, []).results == ()


@pytest.mark.parametrize("module", [parallel, ensembles, uncertainty])
def test_examples_in_docstrings_are_right(module: Any) -> None:  # noqa: ANN401 - a module
    """What the docstrings print is what comes out."""
    failed, attempted = doctest.testmod(module)
    assert failed == 0
    assert attempted > 0
