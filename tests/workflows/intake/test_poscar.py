"""Facts about POSCAR files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hullworks.workflows.intake import ProblemCode, read_rows

if TYPE_CHECKING:
    from pathlib import Path

SOUND = "salt\n1.0\n3.4 0 0\n0 3.4 0\n0 0 3.4\nNa Cl\n1 1\nDirect\n0 0 0\n0.5 0.5 0.5\n"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (SOUND, None),
        (SOUND.replace("Na Cl\n", "Na_pv Cl\n"), None),
        (
            SOUND.replace("Direct\n0 0 0\n0.5 0.5 0.5", "Selective dynamics\nDirect\n0 0 0 T T T\n0.5 0.5 0.5 T T F"),
            None,
        ),
        (SOUND.replace("Direct\n0 0 0\n0.5 0.5 0.5", "Cartesian\n0 0 0\n1.7 1.7 1.7"), None),
        (SOUND.replace("1.0\n", "-39.304\n"), None),
        (SOUND.replace("Na Cl\n", "").replace("salt", "?"), ProblemCode.UNKNOWN_ELEMENT),
        (SOUND.replace("1 1\n", "1 2\n"), ProblemCode.SYNTAX),
        (SOUND.replace("1 1\n", "1 one\n"), ProblemCode.SYNTAX),
        (SOUND.replace("0.5 0.5 0.5", "0.5 nan 0.5"), ProblemCode.NOT_FINITE),
        (SOUND.replace("0 0 3.4", "0 0 0"), ProblemCode.NO_VOLUME),
        (SOUND.replace("1.0\n", "0\n"), ProblemCode.NO_VOLUME),
        (SOUND[:30], ProblemCode.SYNTAX),
    ],
)
def test_a_poscar_is_a_crystal_or_has_a_problem(tmp_path: Path, text: str, code: ProblemCode | None) -> None:
    """Both kinds of coordinates and scale, selective dynamics and potential names are read; faults are named."""
    path = tmp_path / "salt.vasp"
    path.write_text(text)
    (row,) = read_rows(path)
    assert (row.problem and row.problem.code) == code
    if row.candidate is not None:
        assert row.candidate.structure.reduced_formula == "NaCl"
        assert row.candidate.structure.volume == pytest.approx(39.304, abs=0.01)
