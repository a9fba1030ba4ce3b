"""Reference entries come in bulk, once, and only where they belong; on a real MongoDB."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from monty.json import MontyEncoder
from pymatgen.core import Lattice, Structure
from pymatgen.entries.computed_entries import CompositionEnergyAdjustment, ComputedEntry, ComputedStructureEntry

from hullworks.documents import Candidate, Entry, Level
from hullworks.errors import InputError, LevelError
from hullworks.levels import LevelOfTheory
from hullworks.states import CandidateState, Role
from hullworks.workflows.references import Columns, ImportReport, import_references, references_status

if TYPE_CHECKING:
    from hullworks.settings import Settings

pytestmark = pytest.mark.usefixtures("mongod")

LEVEL = LevelOfTheory("vasp", "PBE", "mp", hubbard="mp", correction="mp2020")
FORMATION = LevelOfTheory("vasp", "PBE", "formation-energies", hubbard="mp", correction="mp2020")
OXIDE = "MP2020 anion correction (oxide)"
GGA = {"run_type": "GGA", "potcar_symbols": ["PBE Mg_pv"]}


def entry(formula: str, energy: float, entry_id: str | None, **fields: Any) -> dict[str, Any]:
    """A computed entry as a file holds it; energy in eV per formula."""
    made = ComputedEntry(formula, energy, entry_id=entry_id, **{"parameters": GGA, **fields})
    plain: dict[str, Any] = json.loads(json.dumps(made, cls=MontyEncoder))
    return plain


MG, SI, MG2SI = entry("Mg2", -3.0, "mp-1"), entry("Si2", -10.0, "mp-2"), entry("Mg2Si", -9.0, "mp-3")
MGO = entry(
    "MgO",
    -12.0,
    "mp-4",
    energy_adjustments=[CompositionEnergyAdjustment(-0.687, 1, uncertainty_per_atom=0.002, name=OXIDE)],
)


def write(path: Path, rows: list[Any]) -> Path:
    """Write rows as JSONL, or as they are when they are text."""
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return path


def known() -> dict[str, float]:
    """Return the energies of all entries by source id, in the order in which they landed."""
    return {e.provenance["source_id"]: e.energy_eV_per_atom for e in Entry.objects.order_by("landed_at", "entry_id")}


def test_entries_come_with_all_that_they_say(tmp_path: Path) -> None:
    """Energies per atom with their parts and uncertainties, and where each comes from."""
    path = write(tmp_path / "a.jsonl", [MG, MGO])
    report = import_references(path, LEVEL)
    assert (report.read, report.added, report.known, report.refusals) == (2, 2, 0, [])
    stored = Entry.objects.get(candidate_id="imported:mp-4")
    stored.validate()
    assert stored.uncorrected_energy_eV_per_atom == pytest.approx(-6.0)
    assert stored.energy_eV_per_atom == pytest.approx(-6.3435)
    assert stored.correction_parts_eV_per_atom == pytest.approx({OXIDE: -0.3435})
    assert stored.uncertainty_parts_eV_per_atom == pytest.approx({OXIDE: 0.001})
    assert (stored.role, stored.valid, stored.hull_sequence) == (Role.REFERENCE, True, None)
    assert (stored.formula, stored.reduced_formula, stored.chemsys, stored.n_atoms) == ("Mg1O1", "MgO", "Mg-O", 2)
    assert (stored.elements, stored.composition) == (["Mg", "O"], {"Mg": 1.0, "O": 1.0})
    source = stored.provenance
    assert (source["source_file"], source["unit"], source["row"]) == (str(path), "line", 2)
    assert source["file_sha256"] == report.files[str(path)]
    assert source["settings"] == {"potcar Mg": "PBE Mg_pv"}
    assert Level.objects.get().key == LEVEL.key


def test_the_stored_form_is_that_of_an_entry(tmp_path: Path) -> None:
    """Written around mongoengine, read through it: the same members as one that was saved by it."""
    structure = Structure(Lattice.cubic(4.2), ["Mg", "O"], [[0.0] * 3, [0.5] * 3])
    given = json.loads(json.dumps(ComputedStructureEntry(structure, -12.0, entry_id="s"), cls=MontyEncoder))
    import_references(write(tmp_path / "a.jsonl", [given]), LEVEL)
    raw = Entry.collection().find_one() or {}
    read = Entry.objects.get()
    read.validate()
    assert read.structure == given["structure"]
    read.delete()
    read.save(force_insert=True)
    saved = Entry.collection().find_one() or {}
    shared = sorted(set(raw) & set(saved))
    assert {key: raw[key] for key in shared} == {key: saved[key] for key in shared}
    # what one of them leaves out is empty in the other
    assert not any(raw.get(key) or saved.get(key) for key in set(raw) ^ set(saved))


def test_importing_twice_adds_nothing(tmp_path: Path) -> None:
    """Not from the same file, nor from another format."""
    rows = [MG, SI, MG2SI, MGO]
    import_references(write(tmp_path / "a.jsonl", rows), LEVEL)
    before = [e.to_mongo() for e in Entry.objects.order_by("entry_id")]
    listed = tmp_path / "b.json"
    listed.write_text(json.dumps(rows), encoding="utf-8")
    packed = tmp_path / "c.json.gz"
    packed.write_bytes(gzip.compress(json.dumps({"data": rows}).encode()))
    for path in (tmp_path / "a.jsonl", listed, packed):
        report = import_references(path, LEVEL)
        assert (report.read, report.added, report.known, report.refusals) == (4, 0, 4, [])
    assert [e.to_mongo() for e in Entry.objects.order_by("entry_id")] == before


def test_entries_land_in_the_order_of_the_files(tmp_path: Path) -> None:
    """Also those of a later import, although a millisecond holds many rows."""
    first = write(tmp_path / "a.jsonl", [entry("Mg", -1.5 - i / 1e4, f"z-{999 - i}") for i in range(300)])
    import_references(first, LEVEL)
    import_references(write(tmp_path / "b.jsonl", [SI, MG]), LEVEL)
    assert list(known()) == [*(f"z-{999 - i}" for i in range(300)), "mp-2", "mp-1"]


def test_bad_rows_are_quarantined_and_the_rest_goes_on(tmp_path: Path) -> None:
    """With file, row, id and reason, in the report and in a file."""
    bad: list[tuple[Any, str]] = [
        ({**MG, "entry_id": "nan", "energy": float("nan")}, "not_finite"),
        ({**MG, "entry_id": "inf", "energy": float("-inf")}, "not_finite"),
        ({**MG, "entry_id": "deep", "energy": -3000.0, "correction": None}, "absurd"),
        ({**MG, "entry_id": "who", "composition": {"Qq": 1}}, "no_composition"),
        ({**MG, "entry_id": "empty", "composition": {}}, "no_composition"),
        ({**MG, "entry_id": "minus", "composition": {"Mg": -1}}, "no_composition"),
        ({**MGO, "entry_id": "sum", "correction": -1.0}, "inconsistent"),
        ({**MG, "entry_id": "scan", "parameters": {"run_type": "R2SCAN"}}, "other_level"),
        ({**MG, "entry_id": "potcar", "parameters": {"potcar_symbols": ["PBE Mg"]}}, "other_settings"),
        ({**MG, "entry_id": "big", "structure": {"n": 2**70}}, "wrong_shape"),
        ({"entry_id": "flat", "formula": "M(g", "energy_per_atom": -1.0}, "no_composition"),
        ('{"entry_id": "cut"', "unreadable"),
        ("[1, 2]", "wrong_shape"),
        ("\udcff".encode("utf-8", "surrogateescape").decode("latin-1") + "{", "unreadable"),
    ]
    path = write(tmp_path / "a.jsonl", [MG, *(row for row, _ in bad), SI])
    listing = tmp_path / "deep" / "quarantine.jsonl"
    report = import_references([path, write(tmp_path / "empty.jsonl", [])], LEVEL, quarantine=listing)
    assert list(known()) == ["mp-1", "mp-2"]
    assert (report.read, report.added) == (len(bad) + 3, 2)
    by_row = {refusal.place.number: refusal for refusal in report.refusals if refusal.place.file == str(path)}
    assert {number: refusal.code.value for number, refusal in by_row.items()} == {
        number: code for number, (_, code) in enumerate(bad, start=2)
    }
    assert by_row[2].source_id == "nan"
    assert by_row[9].source_id == "scan"
    lines = [json.loads(line) for line in listing.read_text(encoding="utf-8").splitlines()]
    assert len(lines) == len(bad) + 1
    assert all(line["file"] and line["number"] and line["reason"] and line["next_step"] for line in lines)


def test_one_id_with_two_contents_is_quarantined_with_both(tmp_path: Path) -> None:
    """Whether the other one stands in the same file or was imported before."""
    other = {**MG, "energy": -3.5}
    path = write(tmp_path / "a.jsonl", [MG, other, MG])
    for added in (1, 0):
        report = import_references(path, LEVEL)
        assert (report.added, report.known) == (added, 2 - added)
        [refusal] = report.refusals
        assert (refusal.code.value, refusal.source_id, refusal.place.number) == ("conflict", "mp-1", 2)
        assert "Mg at -1.5 eV/atom" in refusal.reason
        assert "Mg at -1.75 eV/atom" in refusal.reason
        assert "line 1" in refusal.reason
    assert known() == {"mp-1": -1.5}


def test_levels_are_apart(tmp_path: Path) -> None:
    """The same ids at another level are other entries, and settings of one level bind no other."""
    path = write(tmp_path / "a.jsonl", [MG])
    other = LevelOfTheory("vasp", "PBE", "mp24", hubbard="mp", correction="mp2020")
    import_references(path, LEVEL)
    assert import_references(write(tmp_path / "b.jsonl", [{**MG, "energy": -4.0, "parameters": {}}]), other).added == 1
    soft = entry("MgO", -12.0, "mp-7", parameters={"potcar_symbols": ["PBE Mg"]})
    assert import_references(write(tmp_path / "c.jsonl", [soft]), LEVEL).reasons == {"other_settings": 1}
    assert import_references(tmp_path / "c.jsonl", other).added == 1
    assert Entry.objects(level_key=LEVEL.key).count() == 1


def test_a_dry_run_stores_nothing(tmp_path: Path) -> None:
    """It says what an import would say, conflicts between rows included."""
    path = write(tmp_path / "a.jsonl", [MG, SI, MG, {**SI, "energy": -11.0}, "{"])
    pretended = import_references(path, LEVEL, dry_run=True)
    assert Entry.objects.count() == Level.objects.count() == 0
    real = import_references(path, LEVEL)
    for report in (pretended, real):
        assert (report.read, report.added, report.known) == (5, 2, 1)
        assert report.reasons == {"conflict": 1, "unreadable": 1}


def test_tables_without_ids_are_known_by_formula_and_energy(tmp_path: Path) -> None:
    """Rows that are the same are one entry; polymorphs are several."""
    path = tmp_path / "table.csv"
    path.write_text(
        "formula,target\nMgO,-3.0\nMgO,-2.9\nMgO,-3.0\nMg2,0.0\nO2,1.2\nCa(OH)2,-2.0\nMgO,\n", encoding="utf-8"
    )
    report = import_references(path, FORMATION, columns=Columns("target", formation=True))
    assert (report.added, report.known, report.reasons) == (8, 1, {"wrong_shape": 1})
    named = ["Mg1O1@-3.0", "Mg1O1@-2.9", "Mg2@0.0", "O2@1.2", "Ca1H2O2@-2.0", "zero:Ca", "zero:H", "zero:O"]
    assert list(known()) == named


def test_formation_energies_bring_their_zeros(tmp_path: Path) -> None:
    """Elements lie at zero by definition: where no entry of one does, a marked one is added, once."""
    rows = [{"formula": formula, "e_form": energy} for formula, energy in (("MgO", -3.0), ("Mg2", 0.0), ("O2", 1.2))]
    path = write(tmp_path / "a.jsonl", rows)
    report = import_references(path, FORMATION, columns=Columns(formation=True))
    assert report.zero_references == ["O"]
    zero = Entry.objects.get(candidate_id="imported:zero:O")
    assert (zero.energy_eV_per_atom, zero.chemsys, zero.provenance["data"]) == (0.0, "O", {"by_definition": True})
    assert import_references(path, FORMATION, columns=Columns(formation=True)).zero_references == []
    assert Entry.objects.count() == 4


def test_kinds_of_energy_never_meet(tmp_path: Path) -> None:
    """Formation energies belong to levels that say so, and total energies to the others."""
    path = write(tmp_path / "a.jsonl", [MG])
    with pytest.raises(LevelError, match="holds total energies"):
        import_references(path, LEVEL, columns=Columns(formation=True))
    with pytest.raises(LevelError, match="holds formation energies"):
        import_references(path, FORMATION)
    with pytest.raises(InputError, match="no such file"):
        import_references(tmp_path / "nowhere.json", LEVEL)
    assert Level.objects.count() == 0


def test_documents_of_the_materials_project_are_read(tmp_path: Path) -> None:
    """Thermo documents, with the entry inside and without."""
    thermo = {"material_id": "mp-8", "thermo_type": "GGA_GGA+U", "energy_type": "GGA", "formula_pretty": "MgO"}
    full = {**thermo, "energy_per_atom": -6.3435, "entries": {"GGA": MGO}}
    flat = {**thermo, "material_id": "mp-9", "uncorrected_energy_per_atom": -5.9, "energy_per_atom": -6.2}
    wrong = {**full, "material_id": "mp-10", "energy_per_atom": -6.5}
    mixed = {**flat, "material_id": "mp-11", "thermo_type": "GGA_GGA+U_R2SCAN"}
    path = tmp_path / "thermo.json"
    path.write_text(json.dumps([full, flat, wrong, mixed]), encoding="utf-8")
    report = import_references(path, LEVEL)
    assert known() == pytest.approx({"mp-8": -6.3435, "mp-9": -6.2})
    assert [(r.source_id, r.code.value) for r in report.refusals] == [
        ("mp-10", "inconsistent"),
        ("mp-11", "other_level"),
    ]


def test_files_that_hold_no_entries_are_named(tmp_path: Path) -> None:
    """Structures have no energies; a broken archive keeps the rows before the break."""
    folder = tmp_path / "given"
    folder.mkdir()
    (folder / "a.cif").write_text("data_x\n_cell_length_a 1\n", encoding="utf-8")
    rows = "".join(json.dumps({**MG, "entry_id": f"m-{i}"}) + "\n" for i in range(5000)).encode()
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(rows)[:-200])
    report = import_references(folder, LEVEL)
    assert {Path(refusal.place.file).name for refusal in report.refusals} == {"a.cif", "b.jsonl.gz"}
    assert 0 < report.added < 5000


def test_a_killed_import_is_completed_by_the_next(tmp_path: Path, mongod: Settings) -> None:
    """Killed without a word in the middle: the next adds the rest, and none twice."""
    total = 30000
    path = write(tmp_path / "a.jsonl", [{**MG, "entry_id": f"m-{i}"} for i in range(total)])
    level = tmp_path / "level.yaml"
    level.write_text("{code: vasp, functional: PBE, protocol: mp, hubbard: mp, correction: mp2020}", encoding="utf-8")
    command = [
        str(Path(sys.executable).with_name("hullworks")),
        "references",
        "import",
        str(path),
        "--define",
        str(level),
    ]
    with subprocess.Popen(command, cwd=mongod.project_dir, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while Entry.objects.count() == 0 and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    stored = _settled_count()
    assert 0 < stored < total
    report = import_references(path, LEVEL)
    assert (report.added, report.known, report.refusals) == (total - stored, stored, [])
    assert list(known()) == [f"m-{i}" for i in range(total)]


def _settled_count() -> int:
    """Return the number of entries once the server has done what the dead program had asked of it."""
    counts: list[int] = [-1, Entry.objects.count()]
    while counts[-1] != counts[-2]:
        time.sleep(0.5)
        counts.append(Entry.objects.count())
    return counts[-1]


def test_the_report_is_told_while_it_grows(tmp_path: Path) -> None:
    """For a display; the last word is the whole."""
    seen: list[int] = []

    def note(report: ImportReport) -> None:
        seen.append(report.read)

    rows = [{**MG, "entry_id": f"m-{i}"} for i in range(4500)]
    import_references(write(tmp_path / "a.jsonl", rows), LEVEL, on_progress=note)
    assert seen == [2000, 4000, 4500, 4500]


@pytest.mark.usefixtures("dask")
def test_files_parsed_on_several_processes_give_the_same_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut by lines and read by two processes: the same entries in the same order, bad rows in their places."""
    monkeypatch.setattr("hullworks.workflows.references.importer.PARTITION_BYTES", 2000)
    rows = [MG, SI, "{broken", MG2SI, MGO, *(entry(f"Mg{n}Si", -9.0 - n, f"mp-{n}") for n in range(5, 30))]
    paths = [write(tmp_path / "a.jsonl", rows), tmp_path / "b.csv"]
    paths[1].write_text("formula,energy_per_atom\nMgSi2,-4.1\n")
    told = []
    for cluster in (None, "local:2"):
        Entry.objects.delete()
        report = import_references(paths, LEVEL, cluster=cluster)
        moments = {"_id": 0, "landed_at": 0, "provenance.imported_at": 0}
        stored = list(Entry._get_collection().find({}, moments).sort("landed_at", 1))
        told.append((report.added, [refusal.as_dict() for refusal in report.refusals], stored))
    assert told[0] == told[1]
    assert told[0][0] == 30
    assert told[0][1][0]["number"] == 3


def test_the_status_says_what_is_there_and_what_is_missing(tmp_path: Path) -> None:
    """Imported and computed, elements with and without an entry, declared ones owed."""
    import_references(write(tmp_path / "a.jsonl", [MG, MG2SI]), LEVEL)
    Entry.objects(candidate_id="imported:mp-1").update(unset__provenance__imported=1)
    Candidate(
        candidate_id="cand-1",
        row_id="row-1",
        batch="b",
        level_key=LEVEL.key,
        source_file="f",
        source_row=1,
        name="lime",
        role=Role.REFERENCE,
        reduced_formula="CaO",
        chemsys="Ca-O",
        state=CandidateState.QUEUED,
    ).save()
    status = references_status(LEVEL.key)
    assert (status.imported, status.computed, status.elements) == (1, 1, ("Mg",))
    assert status.missing_elements == ("Ca", "O", "Si")
    assert [name.split()[0] for name in status.owed] == ["lime"]
