"""Tests of parsing by partition: every line once, whole, with its number, wherever it is parsed."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hullworks.analysis.partitions import parse_partitions, partitions

if TYPE_CHECKING:
    from pathlib import Path


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text("ab,\r\u00e9", max_size=9), max_size=20), st.integers(1, 30), st.booleans())
def test_every_line_stands_in_one_partition(tmp_path: Path, rows: list[str], size: int, last_end: bool) -> None:
    """Wherever a large file is cut, its lines come whole, in order, with their numbers; the last may lack its end."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes("\n".join([*rows, ""] if last_end else rows).encode())
    parts = partitions([path], size)
    lines = path.read_bytes().split(b"\n")
    whole = [line.rstrip(b"\r") for line in (lines if lines[-1] else lines[:-1])]
    assert [row for part in parts for row in part.lines()] == list(enumerate(whole, 1))
    assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])]
    assert parts[-1].stop == path.stat().st_size


def test_what_cannot_be_cut_is_one_partition(tmp_path: Path) -> None:
    """A CSV has one header and quoted ends of lines; what is compressed has no middle; both are read whole."""
    csv, packed = tmp_path / "rows.csv", tmp_path / "rows.jsonl.gz"
    csv.write_bytes(b"a,b\r\n1,2\r\n3,4\r\n")
    packed.write_bytes(gzip.compress(b"x\n" * 100))
    first, second = partitions([csv, packed], 4)
    assert list(first.lines()) == [(1, b"a,b"), (2, b"1,2"), (3, b"3,4")]
    assert list(second.lines()) == [(i, b"x") for i in range(1, 101)]


def test_a_file_that_is_not_there_is_an_error_at_once(tmp_path: Path) -> None:
    """Nothing is parsed of a list with a mistake in it."""
    with pytest.raises(FileNotFoundError):
        parse_partitions([tmp_path / "none.jsonl"], str)
