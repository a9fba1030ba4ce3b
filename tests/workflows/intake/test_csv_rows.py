"""Facts about CSV tables with structures in a column."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING

from pymatgen.core.lattice import Lattice
from pymatgen.core.structure import Structure

from hullworks.workflows.intake import IntakeRow, ProblemCode, read_rows

if TYPE_CHECKING:
    from pathlib import Path

SALT = Structure(Lattice.cubic(3.4), ["Na", "Cl"], [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]])
HEADER = ["name", "structure", "e_above_hull", "prediction", "gap"]


def read(tmp_path: Path, text: str) -> list[IntakeRow]:
    """Return the rows of a table with some text."""
    path = tmp_path / "table.csv"
    path.write_text(text)
    return list(read_rows(path))


def table(*records: list[str]) -> str:
    """Return the text of a table."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([HEADER, *records])
    return text.getvalue()


def test_cells_become_fields_and_predictions(tmp_path: Path) -> None:
    """A structure as JSON or CIF, flat predictions or a JSON column, other columns kept, empty cells missing."""
    one = ["a", json.dumps(SALT.as_dict()), "0.25", "", "1.5"]
    two = ["b", SALT.to(fmt="cif"), "", '{"e_above_hull": 0.5}', ""]
    first, second = read(tmp_path, table(one, two))
    assert first.candidate is not None
    assert second.candidate is not None
    assert (first.candidate.name, first.candidate.prediction.e_above_hull) == ("a", 0.25)
    assert first.candidate.extra == {"gap": "1.5"}
    assert (second.candidate.prediction.e_above_hull, second.candidate.extra) == (0.5, {})
    assert second.number > 3


def test_a_broken_record_does_not_stop_the_next(tmp_path: Path) -> None:
    """Records of wrong length, without a structure, with broken JSON or with NUL bytes are named one by one."""
    good = ["a", json.dumps(SALT.as_dict()), "", "", ""]
    bad = [["short"], ["a", "", "", "", ""], ["a", '{"lattice"', "", "", ""], [*good[:2], "low", "", ""]]
    text = table(good, *bad, good)
    lines = text.splitlines(keepends=True)
    rows = read(tmp_path, "".join([*lines[:-1], "a,\0,,,\n", lines[-1]]))
    expected = [ProblemCode.SYNTAX, ProblemCode.NO_STRUCTURE, ProblemCode.SYNTAX, ProblemCode.BAD_PREDICTION]
    assert [row.problem and row.problem.code for row in rows] == [None, *expected, ProblemCode.NOT_TEXT, None]
