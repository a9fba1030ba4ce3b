"""The reader of pw.x's XML file, on recorded files of 6.7 and 7.2 rewritten as the schemas of other versions have them.

What differs between the schemas was read off their definitions and off files of those versions; the rewritten files
hold our own numbers in the other versions' form.
"""

from __future__ import annotations

import dataclasses
import gzip
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from hullworks.units import UNITS
from hullworks.workflows.qe.quantities import Smearing
from hullworks.workflows.qe.xml_output import XmlRun, read_xml

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
SOURCES = {
    "insulator": "../../fixtures/qe/converged/{}-scf",
    "metal": "../../fixtures/qe/converged/{}-metal",
    "spin": "unabridged/{}/magnetic",
    "vc-relax": "unabridged/{}/variable_cell",
    "noncollinear": "unabridged/{}/noncollinear",
    "PAW and U": "unabridged/{}/all_terms",
}
_NAMESPACE = "http://www.quantum-espresso.org/ns/qes/"


def source(version: str, kind: str) -> str:
    """Return a recorded XML file."""
    path = HERE / SOURCES[kind].format(version) / "out" / "pwscf.xml.gz"
    return gzip.decompress(path.read_bytes()).decode()


def read(text: str) -> XmlRun:
    """Read a file that is whole."""
    run = read_xml(text.encode())
    assert run is not None
    return run


def assert_same(mine: object, theirs: object, name: str = "") -> None:
    """Compare all values of two runs, arrays and nested groups too."""
    if dataclasses.is_dataclass(mine) and not isinstance(mine, type):
        assert type(mine) is type(theirs), name
        for item in dataclasses.fields(mine):
            assert_same(getattr(mine, item.name), getattr(theirs, item.name), f"{name}.{item.name}")
    elif isinstance(mine, np.ndarray):
        assert isinstance(theirs, np.ndarray), name
        assert mine == pytest.approx(theirs, abs=1e-12), name
    elif isinstance(mine, tuple) and isinstance(theirs, tuple):
        assert len(mine) == len(theirs), name
        for number, pair in enumerate(zip(mine, theirs, strict=True)):
            assert_same(*pair, f"{name}[{number}]")
    elif isinstance(mine, float):
        assert mine == pytest.approx(theirs, abs=1e-12), name
    else:
        assert mine == theirs, name


# -------------------------------------------------------------------------------------------- the schemas, one by one


def labelled(text: str, tag: str, release: str) -> str:
    """Return a file that says it is of another schema and version."""
    text = re.sub(r"qes_\d{6}\.xsd", f"qes_{tag}.xsd", text)
    text = re.sub(r'(<xml_format NAME="QEXSD" VERSION=)"[\d.]+">QEXSD_[\d.]+', rf'\1"{tag}">QEXSD_{tag}', text)
    return re.sub(r'(<creator NAME="PWSCF" VERSION=)"[^"]+"', rf'\1"{release}"', text)


def as_6_5(text: str) -> str:
    """191206: an insulator has its highest level alone, and every run says whether a magnetization was asked for."""
    text = re.sub(r"\s*<fermi_energy>.*?</fermi_energy>(?=\s*<highestOccupiedLevel>)", "", text)
    text = re.sub(
        r"(</absolute>)(\s*<do_magnetization>.*?</do_magnetization>)?",
        r"\1<do_magnetization>x</do_magnetization>",
        text,
    )
    return labelled(text, "191206", "6.5").replace("<do_magnetization>x<", "<do_magnetization>false<")


def as_6_6(text: str) -> str:
    """200420: as recorded with 6.7."""
    return labelled(text, "200420", "6.6")


def as_6_8(text: str) -> str:
    """210716: the same names."""
    return labelled(text, "210716", "6.8")


def as_7_0(text: str) -> str:
    """211101: an exit status, all clocks, no order of matrices, and no total magnetization without spin."""
    text = re.sub(r"<status>(-?\d+)</status>", r"<exit_status>\1</exit_status>", text)
    text = re.sub(r' order="F"', "", text)
    if "<lsda>false</lsda>" in text:
        text = re.sub(r"(<spinorbit>\w+</spinorbit>\s*)<total>.*?</total>", r"\1", text)
    text = re.sub(r"<do_magnetization>.*?</do_magnetization>", "", text)
    clock = '<partial label="init_run" calls="1">\n<cpu>2.96e-1</cpu>\n<wall>3.04e-1</wall>\n</partial>'
    return labelled(text.replace("</timing_info>", clock + "</timing_info>"), "211101", "7.0")


def as_7_1(text: str) -> str:
    """220603: as 7.0."""
    return labelled(as_7_0(text), "220603", "7.1")


def as_7_3(text: str) -> str:
    """230310 and later: what belongs to the bands stands elsewhere, and new blocks come."""
    text = re.sub(r"\s*<wf_collected>.*?</wf_collected>", "", text)
    text = re.sub(r"\s*<num_of_atomic_wfc>.*?</num_of_atomic_wfc>", "", text)
    text = text.replace("</convergence_info>", "<wf_collected>true</wf_collected></convergence_info>")
    text = re.sub(r"<atomic_structure nat=", '<atomic_structure num_of_atomic_wfc="8" bravais_index="2" nat=', text)
    new = "<twoch_><twochem>false</twochem><nbnd_cond>0</nbnd_cond></twoch_>"
    text = text.replace("</input>", f'<free_positions rank="2" dims="3 1">1 1 1</free_positions>{new}</input>')
    return labelled(text, "240411", "7.3.1")


def as_7_4(text: str) -> str:
    """241015: an operation count for collinear magnets, and dates that begin with a blank."""
    text = as_7_3(text).replace("<nrot>", "<colin_mag>-1</colin_mag><nrot>")
    text = re.sub(r'<created DATE="\d+Nov', '<created DATE=" 1Nov', text)
    return labelled(text, "241015", "7.4")


def with_long_exponents(text: str) -> str:
    """Other compilers write three digits of the exponent, wide columns and line breaks in short vectors."""
    text = re.sub(
        r"(?<=\d)[eE]([+-]?)(\d{1,2})(?=[\s<\"])", lambda found: f"E{found[1] or '+'}{int(found[2]):03}", text
    )
    text = re.sub(r"(<a\d>)(.*?)(</a\d>)", r"\1\n  \2\n        \3", text)
    return re.sub(r'dims="(\d+) (\d+)"', r'dims="           \1           \2"', text)


OLDER = {"6.5": as_6_5, "6.6": as_6_6, "6.8": as_6_8, "7.0": as_7_0, "7.1": as_7_1}
NEWER = {"7.3": as_7_3, "7.4": as_7_4}
FREE = {"version", "created", "timings", "total_magnetization"}
"""What the rewriting changes itself; looked at in tests of their own."""


def compare(original: str, rewritten: str) -> tuple[XmlRun, XmlRun]:
    """Assert that two files tell the same, and return both."""
    mine, theirs = read(rewritten), read(original)
    for item in dataclasses.fields(XmlRun):
        if item.name not in FREE:
            assert_same(getattr(mine, item.name), getattr(theirs, item.name), item.name)
    return mine, theirs


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("rewrite", OLDER.values(), ids=OLDER)
def test_schemas_up_to_7_1_tell_the_same_as_that_of_6_7(rewrite: Callable[[str], str], kind: str) -> None:
    """Every value of a file of 6.7 is read from the forms of 6.5 to 7.1."""
    original = source("6.7", kind)
    mine, theirs = compare(original, rewrite(original))
    assert mine.version != theirs.version
    assert mine.closed
    assert mine.total_magnetization == theirs.total_magnetization


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("rewrite", NEWER.values(), ids=NEWER)
def test_schemas_after_7_2_tell_the_same_as_that_of_7_2(rewrite: Callable[[str], str], kind: str) -> None:
    """Every value of a file of 7.2 is read from the forms of 7.3 and 7.4."""
    original = source("7.2", kind)
    mine, theirs = compare(original, rewrite(original))
    assert mine.total_magnetization == theirs.total_magnetization
    assert mine.created is not None
    assert mine.created.month == 11


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("version", ["6.7", "7.2"])
def test_other_compilers_numbers_are_read(version: str, kind: str) -> None:
    """Three digits of the exponent, wide columns and line breaks change nothing."""
    original = source(version, kind)
    rewritten = with_long_exponents(original)
    assert rewritten != original
    compare(original, rewritten)


def test_clocks_and_exit_status_of_7_0_are_read() -> None:
    """What 7.0 adds is there: a clock for every routine, and an exit status that means something."""
    run = read(as_7_0(source("6.7", "insulator")).replace("<exit_status>0", "<exit_status>3"))
    assert run.timings["init_run"].wall_seconds == 0.304
    assert run.exit_status == 3


# ------------------------------------------------------------------------------------------------------ the file's form


FORMS: dict[str, Callable[[str], bytes]] = {
    "byte order mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "blanks around": lambda text: b"\n  \t" + text.encode() + b"\n\n  ",
    "no declaration": lambda text: text.partition("?>")[2].encode(),
    "Windows line ends": lambda text: text.replace("\n", "\r\n").encode(),
    "another prefix": lambda text: text.replace("qes:espresso", "q:espresso").replace("xmlns:qes", "xmlns:q").encode(),
    "no namespace": lambda text: (
        re.sub(r"<qes:espresso.*?>", "<espresso>", text).replace("</qes:espresso", "</espresso").encode()
    ),
    "default namespace": lambda text: (
        re.sub(r"<qes:espresso.*?>", f'<espresso xmlns="{_NAMESPACE}qes-1.0">', text)
        .replace("</qes:espresso", "</espresso")
        .encode()
    ),
    "later namespace": lambda text: text.replace("qes/qes-1.0", "qes/qes-2.0").encode(),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("version", ["6.7", "7.2"])
def test_form_of_the_file_does_not_matter(version: str, form: Callable[[str], bytes]) -> None:
    """Marks, blanks, line ends and namespaces change nothing."""
    original = source(version, "vc-relax")
    mine = read_xml(form(original))
    assert mine is not None
    assert_same(mine, read(original))


BLOCKS = (
    "general_info", "parallel_info", "input", "step", "convergence_info", "algorithmic_info", "atomic_species",
    "symmetries", "basis_set", "dft", "magnetization", "total_energy", "band_structure", "forces", "stress",
    "exit_status", "timing_info", "output",
)  # fmt: skip


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("kind", ["spin", "vc-relax"])
def test_a_missing_block_leaves_the_rest(kind: str, block: str) -> None:
    """No block is needed: what it held is None, and what is outside it stays."""
    original = source("7.2", kind)
    rewritten = re.sub(rf"<{block}[\s>].*?</{block}>", "", original, flags=re.DOTALL)
    assert rewritten != original
    mine, theirs = read(rewritten), read(original)
    assert mine.closed
    if block not in {"output", "basis_set"}:
        assert mine.ecutwfc_Ry == theirs.ecutwfc_Ry
    if block not in {"output", "total_energy"}:
        assert mine.last.energy_eV == theirs.last.energy_eV
    if block != "general_info":
        assert mine.version == theirs.version


@pytest.mark.parametrize("kind", SOURCES)
def test_unknown_blocks_are_passed_over(kind: str) -> None:
    """Blocks and attributes of schemas to come change nothing."""
    original = source("7.2", kind)
    block = '<novelty kind="new"><etot>1.0</etot><deep><a1>1 2 3</a1></deep></novelty>'
    rewritten = re.sub(
        r"</(input|output|total_energy|band_structure|magnetization|scf_conv)>", rf"{block}</\1>", original
    )
    rewritten = rewritten.replace("<cell>", '<cell volume="7.0">')
    assert rewritten.count("novelty") > 8
    assert_same(read(rewritten), read(original))


@pytest.mark.parametrize(
    "text", [b"", b"<", b"<html></html>", b"<?xml version='1.0' encoding='nonsense'?><espresso/>", b"\0" * 1000]
)
def test_what_is_no_xml_file_of_pw_is_none(text: bytes) -> None:
    """Cut files, other files and files of zeros are no error."""
    assert read_xml(text) is None


@pytest.mark.parametrize("kind", ["spin", "vc-relax"])
def test_a_file_cut_anywhere_is_none(kind: str) -> None:
    """A cut file is never taken for a whole one."""
    text = source("7.2", kind).rstrip().encode()
    for size in range(0, len(text), 97):
        assert read_xml(text[:size]) is None


# -------------------------------------------------------------------------------------------------------------- values


def test_crystal_positions_are_read() -> None:
    """Positions in units of the cell vectors give the same geometry."""
    original = source("7.2", "insulator")
    cell = read(original).initial
    assert cell is not None
    fractional = cell.positions @ np.linalg.inv(cell.cell)
    atoms = "".join(
        f'<atom name="Si">{" ".join(f"{value:.15e}" for value in row)}</atom>' for row in fractional.tolist()
    )
    block = f"<crystal_positions>{atoms}</crystal_positions>"
    rewritten = re.sub(r"<atomic_positions>.*?</atomic_positions>", block, original, flags=re.DOTALL)
    mine = read(rewritten).initial
    assert mine is not None
    assert mine.positions == pytest.approx(cell.positions, abs=1e-10)


def test_two_fermi_energies_belong_to_the_two_spins() -> None:
    """With a fixed moment each spin has its own level; a gap needs none of them crossed."""
    original = source("7.2", "spin")
    level = read(original).fermi_eV
    assert level is not None
    hartree = level / UNITS.hartree_to_eV
    both = f"<two_fermi_energies>{hartree + 10.0} {hartree}</two_fermi_energies>"
    run = read(re.sub(r"<fermi_energy>.*?</fermi_energy>", both, original))
    assert run.fermi_eV == pytest.approx(level + 10.0 * UNITS.hartree_to_eV)
    assert run.gap_eV == 0.0


def test_terms_that_the_file_does_not_name_leave_the_one_electron_energy_open() -> None:
    """With PAW, a Hubbard U or a hybrid the rest of the total energy is not the one-electron energy."""
    plain = source("7.2", "insulator")
    assert read(plain).energy_terms.one_electron_eV is not None
    assert read(source("7.2", "PAW and U")).energy_terms.one_electron_eV is None
    for block in ("<dftU></dftU>", "<hybrid></hybrid>"):
        assert read(plain.replace("</dft>", f"{block}</dft>")).energy_terms.one_electron_eV is None


@pytest.mark.parametrize(
    ("written", "name"),
    [("mv", "marzari-vanderbilt"), ("mp", "methfessel-paxton"), ("fd", "fermi-dirac"), ("gaussian", "gaussian")],
)
def test_smearing_has_the_name_that_the_output_prints(written: str, name: str) -> None:
    """The XML file's short names are those of the output, and the width is in Ry."""
    text = re.sub(r"(<smearing degauss=\S+>)\w+<", rf"\g<1>{written}<", source("7.2", "metal"))
    assert read(text).smearing == Smearing(name, 0.02)


def test_a_vector_without_direction_means_nothing() -> None:
    """6.7 writes 0 for the magnetization of spins that are not collinear; 7.2 writes the vector."""
    values: dict[str, Any] = {version: read(source(version, "noncollinear")) for version in ("6.7", "7.2")}
    assert values["6.7"].total_magnetization is None
    assert values["7.2"].total_magnetization == pytest.approx(0.48 * 2**0.5, abs=0.01)
    assert values["6.7"].absolute_magnetization == pytest.approx(values["7.2"].absolute_magnetization, abs=1e-3)
