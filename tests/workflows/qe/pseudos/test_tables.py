"""Cutoff tables of published families."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from hullworks.errors import PseudopotentialError
from hullworks.workflows.qe.pseudos.tables import TableEntry, find_table, read_table

if TYPE_CHECKING:
    from pathlib import Path


def written(folder: Path, name: str, content: object) -> Path:
    """Write a JSON file and return its path."""
    path = folder / name
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_sssp_gives_cutoffs_names_and_digests(tmp_path: Path) -> None:
    """SSSP's JSON gives both cutoffs in Ry, the file's name and its MD5."""
    row = {"filename": "Si.UPF", "md5": "ab", "pseudopotential": "SG15", "cutoff_wfc": 30.0, "cutoff_rho": 240.0}
    table = read_table(written(tmp_path, "SSSP.json", {"Si": row}))
    assert table == {"Si": TableEntry(30.0, 240.0, "Si.UPF", "ab")}


@pytest.mark.parametrize(("stringency", "ecut"), [("low", 28.0), ("normal", 36.0), ("high", 48.0)])
@pytest.mark.parametrize("shape", ["hints", "metadata", "site", "report"])
def test_pseudodojo_gives_hartree(tmp_path: Path, shape: str, stringency: str, ecut: float) -> None:
    """PseudoDojo's hints are in hartree and come in three stringencies; its psp8 names and digests are not used."""
    hints = {"low": {"ecut": 14.0}, "normal": {"ecut": 18.0}, "high": {"ecut": 24.0}}
    row = {"basename": "Si.psp8", "md5": "00", "hints": hints}
    content: dict[str, object] = {
        "hints": {"Si": row},
        "metadata": {"dojo_info": {"xc_name": "PBE"}, "pseudos_metadata": {"Si": row}},
        "site": {"Si": {"hl": 14.0, "hn": "18.0", "hh": 24.0}},
        "report": row | {"symbol": "Si"},
    }
    table = read_table(written(tmp_path, "t.json", content[shape]), stringency)
    assert table == {"Si": TableEntry(ecut)}


def test_an_element_without_hints_has_no_cutoff(tmp_path: Path) -> None:
    """PseudoDojo's "na" is no cutoff, and no error."""
    assert read_table(written(tmp_path, "t.json", {"Po": {"hn": "na"}})) == {"Po": TableEntry()}


def test_a_folders_table_is_found(tmp_path: Path) -> None:
    """The table in a folder is found, other JSON files are passed over, and single reports are collected."""
    written(tmp_path, "notes.json", ["nothing"])
    assert find_table(tmp_path) == {}
    written(tmp_path, "Si.djrepo", {"symbol": "Si", "hints": {"normal": {"ecut": 18.0}}})
    written(tmp_path, "Mg.djrepo", {"symbol": "Mg", "hints": {"normal": {"ecut": 20.0}}})
    assert find_table(tmp_path) == {"Mg": TableEntry(40.0), "Si": TableEntry(36.0)}


def test_two_tables_are_refused(tmp_path: Path) -> None:
    """Nobody guesses which of two tables is meant."""
    written(tmp_path, "efficiency.json", {"Si": {"cutoff_wfc": 30}})
    written(tmp_path, "precision.json", {"Si": {"cutoff_wfc": 60}})
    with pytest.raises(PseudopotentialError, match=r"efficiency\.json, precision\.json"):
        find_table(tmp_path)


@pytest.mark.parametrize("cutoff", [0, -30, "thirty", True, [30]])
def test_a_cutoff_is_a_positive_number(tmp_path: Path, cutoff: object) -> None:
    """Zero, negative cutoffs and text are refused."""
    with pytest.raises(PseudopotentialError, match="positive number"):
        read_table(written(tmp_path, "t.json", {"Si": {"cutoff_wfc": cutoff}}))


def test_broken_json_is_refused(tmp_path: Path) -> None:
    """A table that is cut in the middle is an error, not the absence of a table."""
    (tmp_path / "SSSP.json").write_text('{"Si": {"cutoff_wfc"', encoding="utf-8")
    with pytest.raises(PseudopotentialError, match="cannot be read"):
        find_table(tmp_path)


def test_an_unknown_stringency_is_refused(tmp_path: Path) -> None:
    """The message names the known ones."""
    with pytest.raises(PseudopotentialError, match="low, normal, high"):
        read_table(written(tmp_path, "t.json", {}), "medium")
