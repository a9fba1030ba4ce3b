"""The tables that are shipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from hullworks.shipped import shipped_yaml

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("package", "name", "place"),
    [
        ("hullworks.analysis", "verdicts.yaml", "analysis/verdicts.yaml"),
        ("hullworks.launchers.bookkeeping", "remedies.yaml", "launchers/bookkeeping/remedies.yaml"),
    ],
)
def test_a_table_is_read_from_its_package(package: str, name: str, place: str) -> None:
    """The file beside the code is what is read."""
    table = shipped_yaml(package, name)
    text = (ROOT / place).read_text(encoding="utf-8")
    assert table
    assert all(f"{key}:" in text for key in table)


def test_a_table_that_is_not_there_is_an_error() -> None:
    """A package without its files is broken, and says which."""
    with pytest.raises(FileNotFoundError, match=r"no\.yaml"):
        shipped_yaml("hullworks.analysis", "no.yaml")
