"""Facts about extended XYZ files: each frame is a row of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from hullworks.workflows.intake import CandidateInput, IntakeRow, ProblemCode, read_rows

if TYPE_CHECKING:
    from pathlib import Path

INFO = 'Lattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3'
SOUND = f"2\n{INFO}\nCs 0 0 0\nCl 2 2 2\n"


def read(tmp_path: Path, content: str) -> list[IntakeRow]:
    """Return the rows of an extended XYZ file with some content."""
    path = tmp_path / "file.extxyz"
    path.write_text(content)
    return list(read_rows(path))


def only(tmp_path: Path, content: str) -> CandidateInput:
    """Return the one candidate of a file."""
    (row,) = read(tmp_path, content)
    assert row.candidate is not None
    return row.candidate


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (SOUND.replace("2\n", "3\n", 1), ProblemCode.SYNTAX),
        (SOUND.replace("Cl 2 2 2\n", ""), ProblemCode.SYNTAX),
        (SOUND.replace("Cl 2 2 2", "Cl 2 2"), ProblemCode.SYNTAX),
        (SOUND.replace("Cl 2 2 2", "Cl 2 two 2"), ProblemCode.SYNTAX),
        (SOUND.replace("pos:R:3", "pos:R"), ProblemCode.SYNTAX),
        ("0\n\n", ProblemCode.NOT_PERIODIC),
        (f"0\n{INFO}\n", ProblemCode.NO_STRUCTURE),
        (SOUND.replace("species:S:1", "labels:S:1"), ProblemCode.WRONG_SHAPE),
        (SOUND.replace('"4 0 0 0 4 0 0 0 4"', '"4 0 0 0 4"'), ProblemCode.WRONG_SHAPE),
        (SOUND.replace("4 0 0 0 4", "nan 0 0 0 4"), ProblemCode.NOT_FINITE),
        (SOUND.replace("4 0 0 0 4", "4 0 0 4 0"), ProblemCode.NO_VOLUME),
        (SOUND.replace("Cl 2 2 2", "Cl 2 inf 2"), ProblemCode.NOT_FINITE),
        (SOUND.replace("Cl 2 2 2", "Cl 0 0 0.1"), ProblemCode.OVERLAP),
        (SOUND.replace("Cl 2 2 2", "Q 2 2 2"), ProblemCode.UNKNOWN_ELEMENT),
        (SOUND.replace(INFO, INFO + ' pbc="T T F"'), ProblemCode.NOT_PERIODIC),
        (SOUND.replace(INFO, "water"), ProblemCode.NOT_PERIODIC),
        (SOUND.replace(INFO, INFO + " uncertainty=-1"), ProblemCode.BAD_PREDICTION),
    ],
)
def test_a_broken_frame_does_not_stop_the_next(tmp_path: Path, text: str, code: ProblemCode) -> None:
    """Between two sound frames a broken one is named, and both others are read."""
    rows = read(tmp_path, SOUND + text + SOUND)
    assert [row.problem and row.problem.code for row in rows] == [None, code, None]
    assert [row.number for row in rows] == [1, 2, 3]


def test_junk_before_the_first_frame_is_a_problem_of_its_own(tmp_path: Path) -> None:
    """Lines that belong to no frame are quarantined together."""
    rows = read(tmp_path, "hello\nworld\n" + SOUND)
    assert [row.problem and row.problem.code for row in rows] == [ProblemCode.SYNTAX, None]


def test_the_comment_line_carries_labels_and_predictions(tmp_path: Path) -> None:
    """Known keys become fields and predictions, the total energy is divided by the atoms, the rest is kept."""
    info = INFO + " name='cs cl' energy=-7.0 e_above_hull=0.05 uncertainty=0.01 role=reference config={a b} flag"
    candidate = only(tmp_path, SOUND.replace(INFO, info))
    assert (candidate.name, candidate.role, candidate.extra) == ("cs cl", "reference", {"config": "a b"})
    assert candidate.prediction.as_dict() == {"e_above_hull": 0.05, "uncertainty": 0.01, "energy_per_atom": -3.5}


def test_columns_are_found_by_their_names(tmp_path: Path) -> None:
    """Atomic numbers, columns in another order and magnetic moments are understood."""
    text = '2\nLattice="4 0 0 0 4 0 0 0 4" Properties=pos:R:3:Z:I:1:magmoms:R:1\n0 0 0 26 2.2\n2 2 -2 8 0.1\n'
    structure = only(tmp_path, text).structure
    assert structure.reduced_formula == "FeO"
    assert structure.site_properties["magmom"] == [2.2, 0.1]
    assert np.allclose(structure.frac_coords, [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]])
