"""The commands on references, as users and scripts meet them; on a real MongoDB."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from hullworks.documents import Entry, HullEvent, Level
from hullworks.launchers.cli.app import run

pytestmark = pytest.mark.usefixtures("mongod")

ROWS = "formula,e,who\nMg,-1.5,a\nSi,-5.0,b\nMg2Si,-3.0,c\nMgSi,nan,d\n"
LEVEL = "{code: vasp, functional: PBE, protocol: table}"
OPTIONS = ("--energy-column", "e", "--id-column", "who")


@pytest.fixture
def given(tmp_path: Path) -> dict[str, str]:
    """A table with a bad row, and the file that declares its level."""
    (tmp_path / "table.csv").write_text(ROWS, encoding="utf-8")
    (tmp_path / "level.yaml").write_text(LEVEL, encoding="utf-8")
    return {"table": str(tmp_path / "table.csv"), "level": str(tmp_path / "level.yaml")}


def call(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    """Return what a command prints."""
    assert run(["references", *arguments]) == status, capsys.readouterr()
    return capsys.readouterr().out


def test_an_import_updates_the_hull_and_says_so(given: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """A first import declares the level; a second one names it and adds nothing."""
    arguments = ("import", given["table"], *OPTIONS, "--json")
    first: dict[str, Any] = json.loads(call(capsys, *arguments, "--define", given["level"]))
    assert (first["added"], first["quarantined"], first["reasons"]) == (3, 1, {"not_finite": 1})
    assert first["hull"]["events"] >= 3
    assert HullEvent.objects(kind="entry_added").count() == 3
    assert json.loads(Path(first["quarantine_file"]).read_text(encoding="utf-8"))["source_id"] == "d"
    again = json.loads(call(capsys, *arguments, "--level", "vasp-pbe-table", "--strict", status=10))
    assert (again["added"], again["known"]) == (0, 3)


def test_people_read_a_table(given: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """The quarantined rows, then the counts and what became of the hull."""
    text = call(capsys, "import", given["table"], *OPTIONS, "--define", given["level"])
    assert "not_finite" in text
    assert "4 rows: 3 added, 0 known, 1 quarantined" in text
    assert re.search(r"hull: .*\d events", text)
    shown = call(capsys, "status")
    assert "vasp-pbe-table" in shown


def test_a_dry_run_leaves_no_trace(given: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """No level, no entry, no hull."""
    text = call(capsys, "import", given["table"], *OPTIONS, "--define", given["level"], "--dry-run")
    assert "dry run, nothing stored" in text
    assert Level.objects.count() == Entry.objects.count() == 0


def test_the_status_lists_every_level(given: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Or the one that is named."""
    call(capsys, "import", given["table"], *OPTIONS, "--define", given["level"])
    [row] = json.loads(call(capsys, "status", "--level", "vasp-pbe-table", "--json"))
    assert (row["references"], row["elements"], row["missing_elements"], row["owed"]) == (3, ["Mg", "Si"], [], [])
    assert json.loads(call(capsys, "status", "--json")) == [row]


def test_a_level_must_be_named_once_and_exist(given: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """The errors say what to do."""
    assert run(["references", "import", given["table"], "--level", "vasp-pbe-table"]) == 4
    assert "no such level" in capsys.readouterr().err
    assert run(["references", "import", given["table"], "--level", "x", "--define", given["level"]]) == 2
    assert "Give one of them" in capsys.readouterr().err
