"""Facts about CIF files: each block is a row of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hullworks.workflows.intake import IntakeRow, ProblemCode, read_rows

if TYPE_CHECKING:
    from pathlib import Path

CELL = """data_{name}
_cell_length_a 3.4
_cell_length_b 3.4
_cell_length_c 3.4
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Na1 {first} 0 0 0 {occupancy}
Cl1 Cl 0.5 0.5 {z} 1
"""


def block(name: str = "x", first: str = "Na", occupancy: str = "1", z: str = "0.5") -> str:
    """Return a block of the caesium chloride type, or a variant of it."""
    return CELL.format(name=name, first=first, occupancy=occupancy, z=z)


def read(tmp_path: Path, content: str, encoding: str = "utf-8") -> list[IntakeRow]:
    """Return the rows of a CIF file with some content."""
    path = tmp_path / "file.cif"
    path.write_text(content, encoding=encoding)
    return list(read_rows(path))


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (block(first="Xx"), ProblemCode.UNKNOWN_ELEMENT),
        (block(first="?"), ProblemCode.UNKNOWN_ELEMENT),
        (block(first="Wat"), ProblemCode.UNKNOWN_ELEMENT),
        (block(z="."), ProblemCode.NOT_FINITE),
        (block(occupancy="-1"), ProblemCode.DISORDERED),
        (block(occupancy="0.5"), ProblemCode.DISORDERED),
        (block(z="nan"), ProblemCode.NOT_FINITE),
        (block(z="0.02").replace("0.5 0.5", "0 0"), ProblemCode.OVERLAP),
        (block().replace("_cell_length_b 3.4", "_cell_length_b 0"), ProblemCode.NO_VOLUME),
        (block().replace("_cell_angle_gamma 90", "_cell_angle_gamma 200"), ProblemCode.NO_VOLUME),
        (block()[:60], ProblemCode.NO_STRUCTURE),
        (block().split("loop_")[0], ProblemCode.NO_STRUCTURE),
        (block().replace("Cl1 Cl 0.5 0.5 0.5 1", "Cl1 Cl 0.5"), ProblemCode.SYNTAX),
        (block(z="0.5\0"), ProblemCode.NOT_TEXT),
    ],
)
def test_a_broken_block_does_not_stop_the_next(tmp_path: Path, text: str, code: ProblemCode) -> None:
    """Between two sound blocks, a broken one is named, with its number, and both others are read."""
    before, broken, after = read(tmp_path, block("first") + text + "\n" + block("last"))
    assert before.candidate is not None
    assert after.candidate is not None
    assert broken.problem is not None
    assert (broken.problem.code, broken.unit, broken.number) == (code, "block", 2)
    assert (before.candidate.name, after.candidate.name) == ("file", "last")


def test_blocks_without_a_structure_are_passed_over(tmp_path: Path) -> None:
    """The publication's block of a journal CIF is no row, unless there is nothing else."""
    journal = "# from a journal\ndata_global\n_journal_year 2020\n"
    assert [row.problem for row in read(tmp_path, journal + block())] == [None]
    only = read(tmp_path, journal)
    assert [row.problem and row.problem.code for row in only] == [ProblemCode.NO_STRUCTURE]


def test_text_between_semicolons_starts_no_block(tmp_path: Path) -> None:
    """A line ``data_`` inside a quoted text belongs to the text."""
    rows = read(tmp_path, block() + "_publ_section_comment\n;\ndata_ was collected at night\n;\n")
    assert len(rows) == 1
    assert rows[0].candidate is not None


def test_accents_in_old_encodings_do_not_matter(tmp_path: Path) -> None:
    """A CIF in Latin-1 is read: only comments and names of authors hold such characters."""
    rows = read(tmp_path, block() + "_publ_author_name 'Müller'\n", encoding="latin-1")
    assert rows[0].candidate is not None


def test_sites_that_do_not_add_up_to_the_formula_are_refused(tmp_path: Path) -> None:
    """A structure without the hydrogens that its formula counts is another compound."""
    for formula in ("Na2 Cl", "Na Cl H2"):
        (row,) = read(tmp_path, block().replace("data_x", f"data_x\n_chemical_formula_sum '{formula}'"))
        assert row.problem is not None
        assert row.problem.code is ProblemCode.FORMULA_MISMATCH


def test_oxidation_states_are_dropped_and_remarks_kept(tmp_path: Path) -> None:
    """Ions become atoms, and what pymatgen warns of stands in the row instead of on the screen."""
    rows = read(tmp_path, block(first="Na+", z="0.5000(3)"))
    assert rows[0].candidate is not None
    assert [str(species) for species in rows[0].candidate.structure.species] == ["Na", "Cl"]
    assert any("P1" in remark for remark in rows[0].warnings)
