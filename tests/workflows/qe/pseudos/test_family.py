"""Families: what they accept, what they refuse, and what they install."""

from __future__ import annotations

import hashlib
import json
import pickle
from typing import TYPE_CHECKING

import pytest

from hullworks.errors import PseudopotentialError
from hullworks.workflows.qe.pseudos import Family, gth_elements, gth_parameters, gth_to_upf, load_family

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's folder with PBE files of Mg and Si."""
    path = tmp_path / "mine"
    path.mkdir()
    for element in ("Mg", "Si"):
        (path / f"{element}.pbe.UPF").write_bytes(gth_to_upf(gth_parameters(element)))
    return path


def sssp(folder: Path, **changes: dict[str, object]) -> None:
    """Write SSSP's table for the folder's two files; ``changes`` update single rows."""
    table = {}
    for element in ("Mg", "Si"):
        name = f"{element}.pbe.UPF"
        digest = hashlib.md5((folder / name).read_bytes(), usedforsecurity=False).hexdigest()
        row = {"filename": name, "md5": digest, "cutoff_wfc": 30.0, "cutoff_rho": 120.0}
        table[element] = row | changes.get(element, {})
    (folder / "SSSP.json").write_text(json.dumps(table), encoding="utf-8")


def test_the_embedded_family_has_every_element_of_its_table() -> None:
    """The embedded family is PBE and norm-conserving throughout."""
    family = load_family("gth-pbe")
    assert family.elements == tuple(sorted(gth_elements()))
    assert {p.functional for p in family.pseudos} == {"PBE"}
    assert {p.kind for p in family.pseudos} == {"NC"}
    assert dict(family.hashes)["Mg"] == family.pseudo("Mg").sha256


@pytest.mark.parametrize("stringency", ["low", "normal", "high"])
def test_the_demonstration_elements_have_cutoffs(stringency: str) -> None:
    """Mg, Si and Ge have a recorded cutoff at every stringency, and four times that for the density."""
    family = load_family("gth-pbe", stringency=stringency)
    ecutwfc, ecutrho = family.cutoffs(["Mg", "Si", "Ge"])
    assert 30.0 <= ecutwfc <= 100.0
    assert ecutrho == 4.0 * ecutwfc
    assert family.cutoffs(["Mg"])[0] <= ecutwfc


def test_a_higher_stringency_never_lowers_a_cutoff() -> None:
    """For every element with recorded runs, low <= normal <= high."""
    levels = [load_family("gth-pbe", stringency=s) for s in ("low", "normal", "high")]
    for element in levels[0].elements:
        found = [family.pseudo(element).ecutwfc_Ry for family in levels]
        known = [ecut for ecut in found if ecut is not None]
        assert known == sorted(known)


def test_another_valence_is_another_family() -> None:
    """A larger valence changes the file, the hash and the fingerprint."""
    usual, semicore = load_family("gth-pbe"), load_family("gth-pbe", valences={"Mg": 10})
    assert semicore.pseudo("Mg").z_valence == 10.0
    assert semicore.fingerprint != usual.fingerprint
    with pytest.raises(PseudopotentialError, match="Xx"):
        load_family("gth-pbe", valences={"Xx": 1})


def test_install_writes_verified_files(tmp_path: Path) -> None:
    """Each file has the family's hash and a name that says so; a damaged one is replaced, a good one left alone."""
    family = load_family("gth-pbe")
    names = family.install(["Si", "Mg"], tmp_path / "run")
    good, damaged = tmp_path / "run" / names["Mg"], tmp_path / "run" / names["Si"]
    assert names == {"Mg": f"Mg.{family.pseudo('Mg').sha256[:8]}.upf", "Si": f"Si.{family.pseudo('Si').sha256[:8]}.upf"}
    before = good.stat().st_mtime_ns
    damaged.write_bytes(damaged.read_bytes()[:1000])
    family.install(["Si", "Mg"], tmp_path / "run")
    assert good.stat().st_mtime_ns == before
    assert hashlib.sha256(damaged.read_bytes()).hexdigest() == family.pseudo("Si").sha256
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == sorted(names.values())


def test_all_missing_elements_are_named_at_once(tmp_path: Path) -> None:
    """The message names every missing element and what to do, and nothing is written."""
    family = load_family("gth-pbe")
    for ask in (family.require, family.cutoffs, lambda e: family.install(e, tmp_path / "run")):
        with pytest.raises(PseudopotentialError, match=r"Np, Pu\. Use a family"):
            ask(["Pu", "Mg", "Np"])
    assert not (tmp_path / "run").exists()


def test_elements_without_a_recorded_run_have_no_cutoff() -> None:
    """The message names them all and the script that records one."""
    family = load_family("gth-pbe")
    with pytest.raises(PseudopotentialError, match=r"Lu, U.*converge_cutoffs\.py Lu U"):
        family.require(["U", "Mg", "Lu"])
    with pytest.raises(PseudopotentialError, match="no elements"):
        family.cutoffs([])


def test_a_folder_is_a_family(folder: Path) -> None:
    """A folder's family has the folder's name, what the files say, and no cutoffs without a table."""
    family = load_family(folder)
    assert (family.name, family.functional, family.elements) == ("mine", "PBE", ("Mg", "Si"))
    with pytest.raises(PseudopotentialError, match=r"Mg, Si.*cutoff_wfc"):
        family.require(["Mg", "Si"])


def test_a_folder_of_the_same_files_has_the_same_fingerprint(folder: Path) -> None:
    """Name, place and cutoffs do not enter the fingerprint."""
    first = load_family(folder)
    sssp(folder)
    other = load_family(folder.rename(folder.with_name("yours")), name="x")
    assert first.fingerprint == other.fingerprint


def test_ssspss_table_gives_cutoffs(folder: Path) -> None:
    """With SSSP's table a folder's family has cutoffs: the largest among the elements, each of its own."""
    sssp(folder, Si={"cutoff_wfc": 25.0, "cutoff_rho": 200.0})
    assert load_family(folder).cutoffs(["Mg", "Si"]) == (30.0, 200.0)


def test_a_table_may_lie_elsewhere(folder: Path, tmp_path: Path) -> None:
    """PseudoDojo's table from another place gives norm-conserving files four times the cutoff for the density."""
    table = tmp_path / "standard.json"
    table.write_text(json.dumps({"Si": {"hints": {"normal": {"ecut": 18.0}}}}), encoding="utf-8")
    assert load_family(folder, table=table).cutoffs(["Si"]) == (36.0, 144.0)


def test_a_wrong_digest_is_refused(folder: Path) -> None:
    """A file that is not the table's is refused, although it is a whole UPF file of that element."""
    sssp(folder, Si={"md5": "0" * 32})
    with pytest.raises(PseudopotentialError, match=r"Si\.pbe\.UPF.*MD5"):
        load_family(folder)


def test_a_file_of_the_table_that_is_absent_is_named(folder: Path) -> None:
    """The element is missing, and the message names the file that the table expects."""
    sssp(folder)
    (folder / "Si.pbe.UPF").unlink()
    with pytest.raises(PseudopotentialError, match=r"Si \(the table names Si\.pbe\.UPF"):
        load_family(folder).require(["Si"])


def test_mixed_functionals_are_refused(folder: Path) -> None:
    """Two functionals in one folder are refused with the files of each."""
    lda = gth_to_upf(gth_parameters("Al")).replace(b'"PBE"', b'"PZ"')
    (folder / "Al.UPF").write_bytes(lda)
    with pytest.raises(PseudopotentialError, match=r"PBE: Mg\.pbe\.UPF, Si\.pbe\.UPF; PZ: Al\.UPF"):
        load_family(folder)


@pytest.mark.parametrize("name", ["Si.UPF", "si_pbe_v1.uspp.F.UPF", "Si-high.upf"])
def test_a_wrong_label_is_refused(tmp_path: Path, name: str) -> None:
    """A germanium file under silicon's name is refused: pw.x would run it."""
    (tmp_path / name).write_bytes(gth_to_upf(gth_parameters("Ge")))
    with pytest.raises(PseudopotentialError, match="labelled Si, but its content is a pseudopotential of Ge"):
        load_family(tmp_path)


@pytest.mark.parametrize("name", ["my_germanium.upf", "Ge.UPF", "GeUSPBE.upf", "ge-high.UPF"])
def test_a_name_that_is_no_other_element_is_no_label(tmp_path: Path, name: str) -> None:
    """Only the beginning of a name that is an element counts as a label."""
    (tmp_path / name).write_bytes(gth_to_upf(gth_parameters("Ge")))
    assert load_family(tmp_path).elements == ("Ge",)


def test_a_wrong_label_in_the_table_is_refused(folder: Path) -> None:
    """The table's label counts before the file's name."""
    sssp(folder, Si={"filename": "odd.UPF"})
    (folder / "odd.UPF").write_bytes((folder / "Mg.pbe.UPF").read_bytes())
    with pytest.raises(PseudopotentialError, match="labelled Si"):
        load_family(folder)


def test_two_files_for_one_element_are_refused(folder: Path) -> None:
    """Nobody guesses which of two files is meant, unless a table names one."""
    (folder / "Si.other.UPF").write_bytes((folder / "Si.pbe.UPF").read_bytes())
    with pytest.raises(PseudopotentialError, match=r"Si: Si\.other\.UPF, Si\.pbe\.UPF"):
        load_family(folder)
    sssp(folder)
    assert load_family(folder).elements == ("Mg", "Si")


def test_a_file_that_changes_later_is_noticed(folder: Path, tmp_path: Path) -> None:
    """Installing refuses a file that is no longer the one that was loaded, or that is gone."""
    family = load_family(folder)
    (folder / "Si.pbe.UPF").write_bytes((folder / "Mg.pbe.UPF").read_bytes())
    with pytest.raises(PseudopotentialError, match="not the one of this family"):
        family.install(["Mg", "Si"], tmp_path / "run")
    (folder / "Si.pbe.UPF").unlink()
    with pytest.raises(PseudopotentialError, match="cannot be read"):
        family.install(["Si"], tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [b"", b"garbage", b"<UPF version='2.0.1'>"])
def test_a_damaged_file_is_named(folder: Path, content: bytes) -> None:
    """An empty, foreign or truncated file is refused by its path when the family is loaded."""
    (folder / "Si.pbe.UPF").write_bytes(content)
    with pytest.raises(PseudopotentialError, match=r"Si\.pbe\.UPF"):
        load_family(folder)


def test_an_unknown_family_is_refused(tmp_path: Path) -> None:
    """Neither a known name nor a folder, or a folder without UPF files."""
    with pytest.raises(PseudopotentialError, match="gth-pbe"):
        load_family("sssp")
    with pytest.raises(PseudopotentialError, match="no UPF file"):
        load_family(tmp_path)


def test_a_family_survives_a_pickle() -> None:
    """A worker gets the same family."""
    family = load_family("gth-pbe")
    again: Family = pickle.loads(pickle.dumps(family))  # noqa: S301 - our own bytes
    assert again == family
    assert again.pseudo("Mg") == family.pseudo("Mg")
