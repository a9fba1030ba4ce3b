"""Facts about reading batches: every row is answered for, and none stops the rows after it."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import random
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymatgen.core.lattice import Lattice
from pymatgen.core.structure import Structure
from pymatgen.io.cif import CifWriter
from pymatgen.io.vasp.inputs import Poscar

from hullworks.errors import InputError
from hullworks.workflows.intake import IntakeRow, ProblemCode, RowProblemError, default_limits, read_rows
from hullworks.workflows.intake.rows import NEXT_STEPS

if TYPE_CHECKING:
    from collections.abc import Callable

SILICIDE = Structure.from_spacegroup("Fm-3m", Lattice.cubic(6.35), ["Si", "Mg"], [[0, 0, 0], [0.25, 0.25, 0.25]])
SYMMETRIC_CIF = """data_symmetric
_symmetry_space_group_name_H-M   'P -3 m 1'
_symmetry_Int_Tables_number   164
_cell_length_a 4.4
_cell_length_b 4.4
_cell_length_c 6.9
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 120
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Si1 Si 0 0 0 1
Mg1 Mg 0.3333 0.6667 0.25 1
"""
FRAME = '2\nLattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3 name=cscl\nCs 0 0 0\nCl 2 2 2\n'


def row(**changes: Any) -> dict[str, Any]:
    """Return a sound row with some fields changed."""
    prediction = {"e_above_hull": 0.01, "uncertainty": 0.03, "uncertainty_kind": "std", "model": "chgnet"}
    return {"name": "mg2si", "structure": SILICIDE.as_dict(), "prediction": prediction, "source": "test"} | changes


def bent(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Return a sound row after a change to a copy of its structure."""
    structure = json.loads(json.dumps(SILICIDE.as_dict()))
    change(structure)
    return row(structure=structure)


def codes(rows: list[IntakeRow]) -> list[ProblemCode | None]:
    """Return the problem of each row, None for a candidate."""
    return [item.problem.code if item.problem else None for item in rows]


def written(path: Path, content: str | bytes) -> Path:
    """Write a file and return its path."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def _set(*keys: Any, value: Any) -> Callable[[dict[str, Any]], None]:  # noqa: ANN401 - any JSON value
    def change(data: Any) -> None:  # noqa: ANN401 - any JSON value
        for key in keys[:-1]:
            data = data[key]
        data[keys[-1]] = value

    return change


C = ProblemCode
SPECIES = ("sites", 0, "species", 0)

BAD_STRUCTURES: dict[str, tuple[ProblemCode, Callable[[dict[str, Any]], object]]] = {
    "NaN coordinates": (C.NOT_FINITE, _set("sites", 1, "abc", 0, value=float("nan"))),
    "infinite coordinates": (C.NOT_FINITE, _set("sites", 1, "abc", 0, value=1e999)),
    "missing coordinates": (C.NOT_FINITE, _set("sites", 1, "abc", 0, value=None)),
    "NaN lattice": (C.NOT_FINITE, _set("lattice", "matrix", 0, 0, value=float("nan"))),
    "endless lattice": (C.NOT_FINITE, _set("lattice", "matrix", 0, 0, value=1e200)),
    "zero volume": (C.NO_VOLUME, _set("lattice", "matrix", 2, value=[0.0, 0.0, 0.0])),
    "overlapping atoms": (C.OVERLAP, _set("sites", 1, "abc", value=[0, 0, 0.02])),
    "atoms on one site": (C.OVERLAP, _set("sites", 1, "abc", value=[0, 0, 0])),
    "unknown element": (C.UNKNOWN_ELEMENT, _set(*SPECIES, "element", value="Xx")),
    "dummy species": (C.UNKNOWN_ELEMENT, _set(*SPECIES, "element", value="X0+")),
    "nameless element": (C.UNKNOWN_ELEMENT, _set(*SPECIES, "element", value=14)),
    "partial occupancy": (C.DISORDERED, _set(*SPECIES, "occu", value=0.5)),
    "two species on a site": (C.DISORDERED, lambda s: s["sites"][0]["species"].append({"element": "C", "occu": 0.5})),
    "no atoms": (C.NO_STRUCTURE, _set("sites", value=[])),
    "a slab": (C.NOT_PERIODIC, _set("lattice", "pbc", value=[True, True, False])),
    "too many atoms": (C.TOO_MANY_ATOMS, lambda s: s["sites"].extend(s["sites"] * 100)),
    "no lattice": (C.WRONG_SHAPE, lambda s: s.pop("lattice")),
    "sites that are text": (C.WRONG_SHAPE, _set("sites", value="Mg Si")),
    "a two-dimensional lattice": (C.WRONG_SHAPE, _set("lattice", "matrix", value=[[1, 0], [0, 1]])),
    "a huge integer in the lattice": (C.WRONG_SHAPE, _set("lattice", "matrix", 0, 0, value=10**350)),
}

BAD_FIELDS: dict[str, tuple[ProblemCode, dict[str, Any]]] = {
    "negative uncertainty": (C.BAD_PREDICTION, {"prediction": {"uncertainty": -0.1}}),
    "NaN prediction": (C.BAD_PREDICTION, {"prediction": {"e_above_hull": float("nan")}}),
    "infinity in an unknown field": (C.BAD_PREDICTION, {"prediction": {"gaps": [float("inf")]}}),
    "prediction in words": (C.BAD_PREDICTION, {"prediction": {"e_above_hull": "low"}}),
    "prediction that is a number": (C.BAD_PREDICTION, {"prediction": 0.02}),
    "unknown kind of uncertainty": (C.BAD_PREDICTION, {"prediction": {"uncertainty_kind": "sigma"}}),
    "unknown role": (C.WRONG_SHAPE, {"role": "boss"}),
    "a name with a terminal escape": (C.WRONG_SHAPE, {"name": "\x1b[31mred"}),
    "a very long name": (C.WRONG_SHAPE, {"name": "x" * 1000}),
    "half a surrogate": (C.WRONG_SHAPE, {"note": "\ud800"}),
    "an impossible key": (C.WRONG_SHAPE, {"a\0b": 1}),
    "an integer beyond 64 bits": (C.WRONG_SHAPE, {"count": 2**64}),
    "deeply nested fields": (C.WRONG_SHAPE, {"note": json.loads("[" * 50 + "]" * 50)}),
    "no structure": (C.NO_STRUCTURE, {"structure": None}),
    "a broken CIF": (C.NO_STRUCTURE, {"structure": None, "cif": "data_x\n_cell_length_a 5\n"}),
}

BAD_LINES: dict[str, tuple[ProblemCode, bytes]] = {
    "an integer of 5000 digits": (C.WRONG_SHAPE, b'{"x": ' + b"9" * 5000 + b"}"),
    "nesting beyond the stack": (C.SYNTAX, b"[" * 100_000 + b"]" * 100_000),
    "a duplicate key": (C.SYNTAX, b'{"name": "a", "name": "b"}'),
    "truncated JSON": (C.SYNTAX, json.dumps(row()).encode()[:-40]),
    "two objects on a line": (C.SYNTAX, json.dumps(row()).encode() * 2),
    "a list": (C.WRONG_SHAPE, json.dumps([row()]).encode()),
    "null": (C.WRONG_SHAPE, b"null"),
    "a formula": (C.NO_STRUCTURE, b'{"formula": "Mg2Si"}'),
    "an empty object": (C.NO_STRUCTURE, b"{}"),
    "NUL bytes": (C.NOT_TEXT, json.dumps(row()).encode()[:60] + b"\0" * 4),
    "Latin-1": (C.NOT_TEXT, '{"name": "Bj\u00f6rn"}'.encode("latin-1")),
    "a line of 10 MB": (C.TOO_LONG, b'{"name": "' + b"x" * 10_000_000 + b'"}'),
}

MALFORMED: dict[str, tuple[ProblemCode, bytes]] = {
    **{name: (code, json.dumps(bent(change)).encode()) for name, (code, change) in BAD_STRUCTURES.items()},
    **{name: (code, json.dumps(row(**fields)).encode()) for name, (code, fields) in BAD_FIELDS.items()},
    **BAD_LINES,
}


def test_each_malformed_row_is_quarantined_with_its_reason_and_the_rest_goes_on(tmp_path: Path) -> None:
    """Between sound rows every kind of malformed row is named by code, line, reason and next step."""
    good = json.dumps(row()).encode()
    batch = [good]
    for _, line in MALFORMED.values():
        batch += [line, good]
    rows = list(read_rows(written(tmp_path / "batch.jsonl", b"\n".join(batch) + b"\n")))
    assert codes(rows[0::2]) == [None] * (len(MALFORMED) + 1)
    assert dict(zip(MALFORMED, codes(rows[1::2]), strict=True)) == {name: code for name, (code, _) in MALFORMED.items()}
    for item in rows[1::2]:
        assert item.problem is not None
        assert item.problem.reason
        assert item.problem.next_step
        assert len(item.problem.snippet) <= 200
        assert item.problem.snippet.isprintable()
    assert [item.number for item in rows] == list(range(1, len(rows) + 1))
    assert rows[1].where == f"{tmp_path / 'batch.jsonl'}, line 2"


def test_a_row_keeps_everything_that_came_with_it(tmp_path: Path) -> None:
    """Name, role, prediction, unknown fields and magnetic moments arrive; oxidation states do not."""
    marked = SILICIDE.copy(site_properties={"magmom": [0.5] * 12})
    marked.add_oxidation_state_by_element({"Mg": 2, "Si": -4})
    prediction = {"e_above_hull": 0.02, "uncertainty": 0.01, "uncertainty_kind": "iqr", "model_id": "m", "seed": 7}
    fields = row(
        structure=marked.as_dict(), prediction=prediction, role="reference", licence="CC0", parent="p", gap=1.5
    )
    candidate = next(read_rows(written(tmp_path / "x.jsonl", json.dumps(fields)))).candidate
    assert candidate is not None
    assert (candidate.name, candidate.role, candidate.source) == ("mg2si", "reference", "test")
    assert (candidate.parent, candidate.licence, candidate.extra) == ("p", "CC0", {"gap": 1.5})
    assert candidate.prediction.as_dict() == {
        "e_above_hull": 0.02, "uncertainty": 0.01, "uncertainty_kind": "iqr", "model": "m", "seed": 7,
    }  # fmt: skip
    assert candidate.structure.site_properties["magmom"] == [0.5] * 12
    assert {str(specie) for specie in candidate.structure.species} == {"Mg", "Si"}
    assert candidate.structure.matches(SILICIDE)


def test_remarks_name_misspelt_fields_and_dropped_numbers(tmp_path: Path) -> None:
    """A field that resembles a known one is remarked on, and so is a NaN beside the prediction."""
    rows = list(read_rows(written(tmp_path / "x.jsonl", json.dumps(row(predicton={}, gap=float("nan"))))))
    assert rows[0].candidate is not None
    assert rows[0].candidate.extra["gap"] is None
    assert any("'prediction'" in remark for remark in rows[0].warnings)


def test_identical_rows_are_told_apart_by_occurrence(tmp_path: Path) -> None:
    """The same bytes three times give one hash and the occurrences 0, 1 and 2, across files too."""
    line = json.dumps(row()) + "\n"
    paths = [written(tmp_path / "a.jsonl", line * 2), written(tmp_path / "b.jsonl", line)]
    rows = list(read_rows(paths))
    assert len({item.raw_sha256 for item in rows}) == 1
    assert [item.occurrence for item in rows] == [0, 1, 2]


def as_entry() -> dict[str, Any]:
    """Return a ComputedStructureEntry dictionary as pymatgen writes it."""
    return {"@module": "pymatgen.entries.computed_entries", "@class": "ComputedStructureEntry", "energy": -36.0,
            "composition": {"Mg": 8.0, "Si": 4.0}, "entry_id": "mp-1367", "correction": 0.0,
            "structure": SILICIDE.as_dict(), "data": {"gap": 0.2}}  # fmt: skip


FILES: dict[str, str] = {
    "rows.jsonl": json.dumps(row()),
    "bare.jsonl": json.dumps(SILICIDE.as_dict()),
    "list.json": json.dumps([row(), SILICIDE.as_dict()], indent=1),
    "one.json": json.dumps(row(), indent=2),
    "entry.json": json.dumps(as_entry()),
    "lines.json": json.dumps(row()) + "\n" + json.dumps(row()),
    "mg2si.cif": str(CifWriter(SILICIDE)),
    "two.cif": str(CifWriter(SILICIDE)) + "\n" + SYMMETRIC_CIF,
    "POSCAR": Poscar(SILICIDE).get_str(),
    "mg2si.vasp": Poscar(SILICIDE).get_str(direct=False),
    "two.extxyz": FRAME * 2,
    "table.csv": 'name,cif,e_above_hull\na,"' + str(CifWriter(SILICIDE)).replace('"', '""') + '",0.02\n',
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("anonymous", [False, True])
def test_every_format_is_read_by_name_and_by_content(
    tmp_path: Path, name: str, *, compressed: bool, anonymous: bool
) -> None:
    """All formats give the same candidates with their suffix, without it, and compressed."""
    content = FILES[name].encode()
    path = tmp_path / (("file" if anonymous else name) + (".gz" if compressed else ""))
    rows = list(read_rows(written(path, gzip.compress(content) if compressed else content)))
    assert codes(rows) == [None] * (2 if name in {"list.json", "lines.json", "two.cif", "two.extxyz"} else 1)
    formulas = {item.candidate.structure.reduced_formula for item in rows if item.candidate}
    assert formulas == {"CsCl" if "xyz" in name else "Mg2Si"}


def test_an_entry_brings_its_energy_per_atom_and_id(tmp_path: Path) -> None:
    """A ComputedStructureEntry is named by its entry id, and its energy is divided by its atoms."""
    candidate = next(read_rows(written(tmp_path / "e.json", FILES["entry.json"]))).candidate
    assert candidate is not None
    assert (candidate.name, candidate.prediction.energy_per_atom) == ("mp-1367", -3.0)
    assert candidate.extra == {"correction": 0.0, "data": {"gap": 0.2}}


def test_rows_without_a_name_are_named_after_their_file(tmp_path: Path) -> None:
    """A file of one structure gives its own name, a POSCAR that of its folder, others their place too."""
    folder = tmp_path / "mp-1"
    folder.mkdir()
    paths = [written(tmp_path / "x.cif", FILES["mg2si.cif"]), written(folder / "POSCAR", FILES["POSCAR"]),
             written(tmp_path / "b.jsonl.gz", gzip.compress(FILES["bare.jsonl"].encode()))]  # fmt: skip
    assert [item.candidate and item.candidate.name for item in read_rows(paths)] == ["x", "mp-1", "b-1"]


def test_folders_are_read_in_order_without_hidden_files_and_without_end(tmp_path: Path) -> None:
    """Subfolders are read, hidden files are not, a loop of links ends, and a link to itself is a problem."""
    (tmp_path / "sub").mkdir()
    written(tmp_path / "b.cif", FILES["mg2si.cif"])
    written(tmp_path / "a.cif", FILES["mg2si.cif"])
    written(tmp_path / ".hidden.cif", "junk")
    written(tmp_path / "sub" / "c.cif", FILES["mg2si.cif"])
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    (tmp_path / "self.cif").symlink_to(tmp_path / "self.cif")
    rows = list(read_rows(tmp_path))
    assert [item.path.name for item in rows] == ["a.cif", "b.cif", "self.cif", "c.cif"]
    assert codes(rows) == [None, None, ProblemCode.UNREADABLE, None]


def test_whole_files_that_cannot_be_read_are_one_problem_each(tmp_path: Path) -> None:
    """Empty, binary, wide, wrongly compressed, cut-off, unknown and unreadable files do not stop the batch."""
    archive = gzip.compress(FILES["rows.jsonl"].encode())
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "empty").mkdir()
    expected = {
        written(tmp_path / "empty.jsonl", b""): ProblemCode.EMPTY,
        written(tmp_path / "blank.jsonl", b"\n \n"): ProblemCode.EMPTY,
        written(tmp_path / "header.csv", b"name,cif\n"): ProblemCode.EMPTY,
        written(tmp_path / "image.cif", bytes(range(256)) * 4): ProblemCode.NOT_TEXT,
        written(tmp_path / "wide.jsonl", FILES["rows.jsonl"].encode("utf-16")): ProblemCode.NOT_TEXT,
        written(tmp_path / "plain.jsonl.gz", FILES["rows.jsonl"]): ProblemCode.BAD_COMPRESSION,
        written(tmp_path / "cut.jsonl.gz", archive[:-30]): ProblemCode.BAD_COMPRESSION,
        written(tmp_path / "damaged.jsonl.gz", archive[:60] + b"junk" + archive[64:]): ProblemCode.BAD_COMPRESSION,
        written(tmp_path / "notes.txt", b"to do: compute everything\n"): ProblemCode.UNKNOWN_FORMAT,
        tmp_path / "pipe.jsonl": ProblemCode.UNREADABLE,
        tmp_path / "empty": ProblemCode.EMPTY,
        Path("/proc/self/mem"): ProblemCode.UNREADABLE,
    }
    good = written(tmp_path / "good.cif", FILES["mg2si.cif"])
    rows = list(read_rows([*expected, good]))
    assert dict(zip([item.path for item in rows], codes(rows), strict=True)) == expected | {good: None}
    assert len({(item.raw_sha256, item.occurrence) for item in rows}) == len(rows)


def test_an_unreadable_file_is_a_problem(tmp_path: Path) -> None:
    """A file or folder without permission is quarantined (root, who may read all, sees its content)."""
    path = written(tmp_path / "secret.jsonl", FILES["rows.jsonl"])
    (tmp_path / "closed").mkdir()
    path.chmod(0)
    (tmp_path / "closed").chmod(0)
    refused = ProblemCode.UNREADABLE if os.geteuid() else None
    closed = ProblemCode.UNREADABLE if os.geteuid() else ProblemCode.EMPTY
    assert codes(list(read_rows([path, tmp_path / "closed"]))) == [refused, closed]
    (tmp_path / "closed").chmod(0o700)


def test_rows_before_a_cut_in_an_archive_are_kept(tmp_path: Path) -> None:
    """A truncated archive yields what was readable, then its problem."""
    rng = random.Random(1)
    lines = [json.dumps(row(name=f"{rng.random()}" * 8)) for _ in range(200)]
    archive = gzip.compress("\n".join(lines).encode())
    rows = list(read_rows(written(tmp_path / "cut.jsonl.gz", archive[: len(archive) // 2])))
    assert len(rows) > 10
    assert codes(rows) == [None] * (len(rows) - 1) + [ProblemCode.BAD_COMPRESSION]


def test_a_list_that_is_cut_off_keeps_its_whole_items(tmp_path: Path) -> None:
    """Items before the cut are candidates; the cut item, or the missing bracket, is a problem."""
    text = json.dumps([row(), row()])
    assert codes(list(read_rows(written(tmp_path / "a.json", text[:-1])))) == [None, None, ProblemCode.SYNTAX]
    assert codes(list(read_rows(written(tmp_path / "b.json", text[:-50])))) == [None, ProblemCode.SYNTAX]


def test_memory_stays_bounded_on_endless_lines(tmp_path: Path) -> None:
    """A line far beyond the limit is skipped in pieces, in archives too, and the next row is read."""
    limits = default_limits().model_copy(update={"max_row_bytes": 100_000})
    archive = gzip.compress(b"{" + b" " * 50_000_000 + b"}\n" + FILES["rows.jsonl"].encode(), compresslevel=1)
    path = written(tmp_path / "bomb.jsonl.gz", archive)
    list(read_rows(written(tmp_path / "warm.jsonl", FILES["rows.jsonl"])))
    tracemalloc.start()
    rows = list(read_rows(path, limits))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert codes(rows) == [ProblemCode.TOO_LONG, None]
    assert peak < 5_000_000


HOSTILE: dict[str, tuple[ProblemCode, bytes]] = {
    "label.jsonl": (C.UNKNOWN_ELEMENT, json.dumps(bent(_set(*SPECIES, "element", value="Fe" + "1" * 10**6))).encode()),
    "keys.jsonl": (C.SYNTAX, b"{" + b",".join(b'"k%d":1' % i for i in range(10**5)) + b',"k99":1}'),
    "comment.extxyz": (C.TOO_LONG, b"1\n" + b"a" * 10**6 + b"\nNa 0 0 0\n"),
    "braces.extxyz": (C.NOT_PERIODIC, b"1\n" + b"k={ " * 10**4 + b"\nNa 0 0 0\n"),
    "blank.cif": (C.NO_STRUCTURE, b"data_x\n_cell_length_a 3" + b"\n" * 10**6),
    "words.cif": (C.TOO_LONG, b"data_x\n_cell_length_a 3\n" + b"_a 1\n" * 4 * 10**5),
    "sites.cif": (C.TOO_MANY_ATOMS, SYMMETRIC_CIF.encode() + b"Si1 Si 0 0 0 1\n" * 5000),
    "count.vasp": (C.SYNTAX, FILES["POSCAR"].replace("\n4 8\n", "\n4 +99_999_999_999\n").encode()),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_rows_take_neither_hours_nor_all_memory(tmp_path: Path, name: str) -> None:
    """Rows within the limit of bytes that would keep a parser busy or fill the memory are refused at once."""
    code, content = HOSTILE[name]
    assert codes(list(read_rows(written(tmp_path / name, content)))) == [code]


def test_a_document_beyond_the_limit_is_refused_unread(tmp_path: Path) -> None:
    """JSON lists and POSCARs are read whole, so their size is limited."""
    limits = default_limits().model_copy(update={"max_document_bytes": 1000, "max_row_bytes": 100})
    paths = [written(tmp_path / name, FILES[name]) for name in ("list.json", "POSCAR")]
    assert codes(list(read_rows(paths, limits))) == [ProblemCode.TOO_LONG] * 2


def test_a_missing_file_is_an_error_at_once(tmp_path: Path) -> None:
    """Before any row is read, a name that does not exist, or no name at all, raises `InputError`."""
    good = written(tmp_path / "a.jsonl", FILES["rows.jsonl"])
    for paths in ([good, tmp_path / "b.jsonl"], [], str(tmp_path / "c.cif"), ["a\0b"]):
        with pytest.raises(InputError):
            read_rows(paths)


def test_every_problem_has_a_next_step_and_survives_pickling() -> None:
    """Codes and next steps match one to one, and the error that carries them can cross processes."""
    assert set(NEXT_STEPS) == set(ProblemCode)
    error = RowProblemError(ProblemCode.OVERLAP, "two atoms", "a.cif")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert (copy.code, str(copy), copy.as_dict()) == (error.code, str(error), error.as_dict())


def _mutated(data: st.DataObject, content: bytes) -> bytes:
    """Return a file after a few cuts, insertions and replacements."""
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        end = data.draw(st.integers(start, min(len(content), start + 40)))
        tokens = [b"", b"\0", b"\n", b"'", b'"', b"nan", b"1e999", b"-1", b"loop_", b"data_", b"?", b";", b"{", b"]",
                  b"\xff", b"99999999", b"0", b"Xx", b"_cell_length_a", b"+", b"x,y", b":"]  # fmt: skip
        content = content[:start] + data.draw(st.sampled_from(tokens) | st.binary(max_size=4)) + content[end:]
    return content


@given(data=st.data(), name=st.sampled_from(sorted(FILES)))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_files_never_raise(tmp_path: Path, data: st.DataObject, name: str) -> None:
    """Whatever is cut from or put into a file of any format, every row is a candidate or has a problem."""
    rows = list(read_rows(written(tmp_path / name, _mutated(data, FILES[name].encode()))))
    assert rows
    assert all((item.candidate is None) != (item.problem is None) for item in rows)


@given(content=st.binary(max_size=300), name=st.sampled_from([*sorted(FILES), "file", "file.gz"]))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_never_raise(tmp_path: Path, content: bytes, name: str) -> None:
    """A file of any bytes under any name yields rows, and no exception."""
    assert list(read_rows(written(tmp_path / name, content)))
