"""The notebook, every cell of it, and the page on the stability database, every command: on a real MongoDB."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from hullworks.documents import DOCUMENTS
from hullworks.launchers.cli.app import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hullworks.settings import Settings

DOCS = Path(__file__).resolve().parents[2] / "docs"
NOTEBOOK = json.loads((DOCS / "notebooks" / "stability.ipynb").read_text(encoding="utf-8"))
PAGE = (DOCS / "stability.md").read_text(encoding="utf-8")
OXIDE = "entry-48a2d3dd406298a1"
"""The lowest SrTiO3."""


@pytest.fixture
def given(mongod: Settings) -> Settings:
    """A project as page and notebook want it: two files, and a level in its settings."""
    for name in ("sr-ti-o.csv", "level.yaml"):
        shutil.copy(DOCS / "notebooks" / name, mongod.project_dir)
    settings = mongod.project_dir / "hullworks.toml"
    settings.write_text('level = "vasp-pbe-materials-project"\n' + settings.read_text(encoding="utf-8"), "utf-8")
    return mongod


def _commands(text: str) -> Iterator[tuple[list[str], list[str]]]:
    """Yield each command of a text that is shown with a prompt, and the lines that it is said to print."""
    for block in re.findall(r"```console\n(.*?)```", text.replace("\\\n", " "), re.DOTALL):
        for shown in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *lines = shown.splitlines()
            yield shlex.split(command), [line for line in lines if line.strip() not in {"", "…"}]


def _words(line: str) -> str:
    """Return a line without rules, spaces and times."""
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d|[─\s]+", " ", line).strip()


@pytest.mark.usefixtures("given")
def test_every_command_of_the_page_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    """One after the other, in a project that is empty at first; an ellipsis stands for lines left out."""
    found = list(_commands(PAGE))
    assert len(found) > 6
    for command, lines in found:
        assert command[0] == "hullworks"
        status = run(command[1:])
        printed = capsys.readouterr()
        assert status == 0, (command, printed.err)
        words = {_words(line) for line in printed.out.splitlines()}
        assert [line for line in lines if _words(line) not in words] == [], command


def _cells() -> list[str]:
    return ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_is_stored_without_outputs() -> None:
    """Nobody's results are in the repository, and changes can be read."""
    code = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
    assert [cell for cell in code if cell["outputs"] or cell["execution_count"] is not None] == []


def _state() -> dict[str, list[Any]]:
    return {kind.__name__: list(kind.collection().find().sort("_id", 1)) for kind in DOCUMENTS}


def test_every_cell_of_the_notebook_runs(given: Settings) -> None:
    """After the commands of its first cell; nothing in the database is changed by it."""
    (setup,) = re.findall(r"```\n(.*?)```", "".join(NOTEBOOK["cells"][0]["source"]).replace("\\\n", " "), re.DOTALL)
    commands = [shlex.split(line) for line in setup.splitlines()]
    assert [run(words[1:]) for words in commands if words[0] == "hullworks" and words[1] != "up"] == [0, 0]
    before = _state()
    names: dict[str, Any] = {}
    for cell in _cells():
        exec(compile(cell, "stability.ipynb", "exec"), names)  # noqa: S102 - what a notebook does
    assert _state() == before
    assert (given.project_dir / "sr-ti-o.pdf").stat().st_size > 1000
    assert np.isfinite(names["above"]).all()
    assert [change.entry_id for change in names["changed"].gone] == [OXIDE]
    assert names["diagram"].get_e_above_hull(names["oxide"]) == pytest.approx(0.0, abs=1e-8)
    assert names["sure"].groupby("formula")["P(stable)"].max()["SrO"] == 1.0
