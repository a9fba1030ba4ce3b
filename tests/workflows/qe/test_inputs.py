"""Inputs of pw.x and the cells that they are made for."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from hullworks.errors import InputError, PseudopotentialError
from hullworks.workflows.qe.cells import check_structure, primitive_cell, right_handed
from hullworks.workflows.qe.inputs import (
    Override,
    PwInput,
    Species,
    build_pw_input,
    spin_bands,
    starting_magnetization,
    write_pw_input,
)
from hullworks.workflows.qe.protocols import load_protocol
from hullworks.workflows.qe.pseudos import Family, load_family

pytestmark = pytest.mark.filterwarnings("ignore:Set OLD_ERROR_HANDLING:DeprecationWarning")  # pymatgen asks spglib


@pytest.fixture(scope="module")
def family() -> Family:
    """The embedded pseudopotentials."""
    return load_family("gth-pbe")


@pytest.fixture
def mg2si_fm3m() -> Structure:
    """Conventional antifluorite Mg2Si."""
    return Structure.from_spacegroup("Fm-3m", Lattice.cubic(6.37), ["Si", "Mg"], [[0.0, 0.0, 0.0], [0.25, 0.25, 0.25]])


@pytest.fixture
def mg_input(family: Family) -> PwInput:
    """A relaxation of hexagonal Mg."""
    structure = Structure(Lattice.hexagonal(3.2, 5.2), ["Mg", "Mg"], [[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]])
    return build_pw_input("vc-relax", structure, load_protocol("fast"), family)


MG_TEXT = """\
&CONTROL
  calculation = 'vc-relax'
  restart_mode = 'from_scratch'
  prefix = 'pwscf'
  outdir = './out'
  pseudo_dir = '../pseudo'
  disk_io = 'low'
  tprnfor = .true.
  tstress = .true.
  etot_conv_thr = 0.0002
  forc_conv_thr = 0.001
  nstep = 50
/
&SYSTEM
  ibrav = 0
  nat = 2
  ntyp = 1
  ecutwfc = {ecutwfc:.10g}
  ecutrho = {ecutrho:.10g}
  occupations = 'smearing'
  smearing = 'gaussian'
  degauss = 0.0275
/
&ELECTRONS
  conv_thr = 8e-10
  electron_maxstep = 80
  mixing_beta = 0.4
  diagonalization = 'david'
/
&IONS
  ion_dynamics = 'bfgs'
  upscale = 10
/
&CELL
  cell_dynamics = 'bfgs'
  cell_dofree = 'all'
  press_conv_thr = 0.5
/
ATOMIC_SPECIES
  Mg 24.3050 {filename}
K_POINTS automatic
  10 10 5 0 0 0
CELL_PARAMETERS angstrom
3.200000000000  0.000000000000  0.000000000000
-1.600000000000  2.771281292110  0.000000000000
0.000000000000  0.000000000000  5.200000000000
ATOMIC_POSITIONS crystal
  Mg 0.333333333333  0.666666666667  0.250000000000
  Mg 0.666666666667  0.333333333333  0.750000000000
"""


def test_the_text_is_what_pw_x_is_given(mg_input: PwInput) -> None:
    """Every line of an input, one setting per line, cell and positions with twelve decimals."""
    lattice = Lattice([[3.2, 0, 0], [-1.6, 2.77128129211, 0], [0, 0, 5.2]])
    turned = replace(mg_input, structure=Structure(lattice, ["Mg", "Mg"], mg_input.structure.frac_coords))
    numbers = {"ecutwfc": mg_input.ecutwfc_Ry, "ecutrho": mg_input.ecutrho_Ry}
    assert write_pw_input(turned) == MG_TEXT.format(**numbers, filename=mg_input.species[0].filename)


def test_the_same_input_gives_the_same_bytes(mg_input: PwInput, family: Family) -> None:
    """Building twice gives equal texts and hashes; positions outside the cell are the same ones."""
    moved = Structure(
        mg_input.structure.lattice, ["Mg", "Mg"], np.add(mg_input.structure.frac_coords, [[0, -1, 2], [1, 0, 0]])
    )
    again = build_pw_input("vc-relax", moved, load_protocol("fast"), family)
    assert write_pw_input(again) == write_pw_input(mg_input)
    assert again.sha256 == mg_input.sha256


def test_the_bytes_survive_storage(mg2si_fm3m: Structure, family: Family) -> None:
    """A structure that went through a dictionary, JSON or a pickle gives the same bytes: no digit is lost."""
    mg2si_fm3m.perturb(0.02)
    again = [
        Structure.from_dict(mg2si_fm3m.as_dict()),
        Structure.from_dict(json.loads(json.dumps(mg2si_fm3m.as_dict()))),
        Structure.from_str(mg2si_fm3m.to(fmt="json"), fmt="json"),
        pickle.loads(pickle.dumps(mg2si_fm3m)),  # noqa: S301 - our own bytes
    ]
    texts = {
        write_pw_input(build_pw_input("scf", structure, load_protocol("fast"), family))
        for structure in (mg2si_fm3m, *again)
    }
    assert len(texts) == 1


def test_the_order_of_the_sites_is_kept(mg2si_fm3m: Structure, family: Family) -> None:
    """Forces and moments come back by site, so another order of the sites is another text; the species never move."""
    turned = Structure.from_sites(list(reversed(mg2si_fm3m)))
    one, other = (build_pw_input("scf", cell, load_protocol("fast"), family) for cell in (mg2si_fm3m, turned))
    head = "ATOMIC_POSITIONS crystal\n"
    before, after = (write_pw_input(item).partition(head) for item in (one, other))
    assert before[0] == after[0]
    assert before[2].splitlines() == after[2].splitlines()[::-1]
    assert one.sha256 != other.sha256


def test_the_time_limit_is_written_but_is_no_part_of_the_identity(mg_input: PwInput) -> None:
    """max_seconds depends on the allocation, so the content hash leaves it out."""
    limited = replace(mg_input, max_seconds=1234.9)
    assert "max_seconds = 1234\n" in write_pw_input(limited)
    assert limited.sha256 == mg_input.sha256


def test_a_static_calculation_has_no_ions(mg_input: PwInput) -> None:
    """An scf has neither IONS nor CELL, nor thresholds on them."""
    text = write_pw_input(replace(mg_input, calculation="scf"))
    assert "&IONS" not in text
    assert "&CELL" not in text
    assert "forc_conv_thr" not in text


def test_an_override_wins_and_none_leaves_the_setting_to_the_code(mg_input: PwInput) -> None:
    """Settings can be changed, added and left out, and the later one wins."""
    changed = mg_input.with_setting("ELECTRONS", "mixing_beta", 0.2).with_setting("ELECTRONS", "mixing_beta", 0.1)
    assert changed.setting("ELECTRONS", "mixing_beta") == 0.1
    assert len(changed.overrides) == 1
    assert changed.with_setting("SYSTEM", "nbnd", 12).setting("SYSTEM", "nbnd") == 12
    assert "upscale" not in write_pw_input(mg_input.with_setting("IONS", "upscale", None))
    assert mg_input.sha256 != changed.sha256


def test_an_override_of_a_namelist_that_is_not_written_is_refused(mg_input: PwInput) -> None:
    """An scf has no IONS to change."""
    wrong = replace(mg_input, calculation="scf", overrides=(Override("IONS", "upscale", 1.0),))
    with pytest.raises(InputError, match="no such namelist"):
        write_pw_input(wrong)


def test_thresholds_of_the_energy_grow_with_the_cell(family: Family, mg2si_fm3m: Structure) -> None:
    """They are per atom: the conventional cell has four times those of the primitive one."""
    small = build_pw_input("vc-relax", primitive_cell(mg2si_fm3m), load_protocol("fast"), family)
    large = build_pw_input("vc-relax", mg2si_fm3m, load_protocol("fast"), family)
    for namelist, key in (("ELECTRONS", "conv_thr"), ("CONTROL", "etot_conv_thr")):
        one, four = small.setting(namelist, key), large.setting(namelist, key)
        assert isinstance(one, float)
        assert four == pytest.approx(4 * one)


def test_cutoffs_are_the_largest_among_the_elements(family: Family, mg2si_fm3m: Structure) -> None:
    """Mg2Si is calculated at the larger cutoff of Mg and Si."""
    both = build_pw_input("scf", mg2si_fm3m, load_protocol("fast"), family)
    assert both.ecutwfc_Ry == max(family.cutoffs([element])[0] for element in ("Mg", "Si"))


def test_magnetic_elements_switch_spin_on() -> None:
    """An open d shell starts from high spin, as a share of the valence electrons that is at most 1."""
    structure = Structure(Lattice.cubic(2.9), ["Fe", "Al"], [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]])
    family = load_family("gth-pbe")
    elements = [("Al", 3.0), ("Fe", family.pseudo("Fe").z_valence)]
    pw_input = PwInput(
        calculation="scf",
        structure=structure,
        protocol=load_protocol("fast"),
        species=tuple(Species(element, f"{element}.upf", valence) for element, valence in elements),
        ecutwfc_Ry=40.0,
        ecutrho_Ry=160.0,
        mesh=build_pw_input("scf", _mg(), load_protocol("fast"), family).mesh,
    )
    text = write_pw_input(pw_input)
    assert "nspin = 2" in text
    assert starting_magnetization(pw_input) == {"Al": 0.0333, "Fe": round(5.0 / elements[1][1], 4)}
    assert f"starting_magnetization(2) = {5.0 / elements[1][1]:.4g}" in text


@pytest.mark.parametrize(
    ("element", "atoms", "bands"),
    [
        pytest.param("Fe", 1, 15, id="the majority of the start and four"),
        pytest.param("Gd", 1, 17, id="f shell"),
        pytest.param("Mn", 8, 84, id="many atoms of high spin"),
        pytest.param("Au", 8, 68, id="more valence electrons than moment"),
    ],
)
def test_both_spins_have_bands_for_the_majority(family: Family, element: str, atoms: int, bands: int) -> None:
    """There are 1.2 bands per pair of electrons at least, and four more than majority electrons at the start."""
    pw_input = replace(
        build_pw_input("scf", _mg(), load_protocol("fast"), family),
        structure=Structure(Lattice.cubic(20), [element] * atoms, [[i / atoms, 0, 0] for i in range(atoms)]),
        species=(Species(element, f"{element}.upf", family.pseudo(element).z_valence),),
    )
    electrons = family.pseudo(element).z_valence * atoms
    assert pw_input.setting("SYSTEM", "nbnd") == spin_bands(pw_input) == bands
    assert bands >= max(0.6 * electrons, electrons / 2 + 4)


def test_without_spin_the_number_of_bands_is_left_to_the_code(mg_input: PwInput) -> None:
    """With smearing pw.x itself takes 1.2 bands per pair of electrons, and four more than pairs at least."""
    assert mg_input.setting("SYSTEM", "nbnd") is None


def test_a_nonmagnetic_cell_has_no_spin(mg_input: PwInput) -> None:
    """Mg is calculated without spin."""
    assert "nspin" not in write_pw_input(mg_input)
    assert starting_magnetization(mg_input) == {}


def test_an_element_without_a_pseudopotential_is_named_before_any_run(family: Family) -> None:
    """Fr has none in the embedded family; pw.x itself would fall back to another folder without a word."""
    structure = Structure(Lattice.cubic(5.0), ["Fr"], [[0, 0, 0]])
    with pytest.raises(PseudopotentialError, match="Fr"):
        build_pw_input("scf", structure, load_protocol("fast"), family)


def test_another_functional_than_the_pseudopotentials_is_refused(family: Family) -> None:
    """pw.x would take it, and mix two functionals in one energy; the pseudopotentials' own name passes."""
    for words in ("PBESOL", "sla+pw+psx+psc", "scan"):
        with pytest.raises(InputError, match="the pseudopotentials are of PBE"):
            build_pw_input("scf", _mg(), load_protocol("fast"), family, (Override("SYSTEM", "input_dft", words),))
    same = build_pw_input("scf", _mg(), load_protocol("fast"), family, (Override("SYSTEM", "input_dft", "pbe"),))
    assert same.setting("SYSTEM", "input_dft") == "pbe"


def test_a_structure_that_got_another_element_is_refused(mg_input: PwInput) -> None:
    """The text never names an atom without a species."""
    other = Structure(mg_input.structure.lattice, ["Mg", "Ca"], mg_input.structure.frac_coords)
    with pytest.raises(PseudopotentialError, match="Ca"):
        write_pw_input(mg_input.with_structure(other))


@pytest.mark.parametrize(
    ("structure", "message"),
    [
        pytest.param(
            Structure(Lattice.cubic(4), ["Mg", "Si"], [[0.0, 0.0, 0.0], [0.1, 0.0, 0.0]]), "0.40 A apart", id="near"
        ),
        pytest.param(
            Structure(Lattice.cubic(4), ["Mg", "Mg"], [[0, 0, 0], [1, 0, 0]]), "0.00 A apart", id="same place"
        ),
        pytest.param(Structure(Lattice.orthorhombic(0.9, 9, 9), ["Mg"], [[0, 0, 0]]), "0.90 A apart", id="own image"),
        pytest.param(Structure(Lattice([[4, 0, 0], [0, 4, 0], [4, 4, 0]]), ["Mg"], [[0, 0, 0]]), "singular", id="flat"),
        pytest.param(Structure(Lattice.cubic(0.5), ["H"], [[0, 0, 0]]), "far too small", id="tiny"),
        pytest.param(Structure(Lattice.cubic(4), [{"Mg": 0.5}], [[0, 0, 0]]), "partly occupied", id="disorder"),
        pytest.param(Structure(Lattice.cubic(4), ["Mg"], [[0.0, 0.0, float("nan")]]), "not a finite", id="nan"),
        pytest.param(Structure(Lattice.cubic(4), [], []), "no atoms", id="empty"),
    ],
)
def test_cells_that_cannot_be_calculated_are_refused(structure: Structure, message: str) -> None:
    """Overlaps, singular cells, disorder and numbers that are none never reach pw.x."""
    with pytest.raises(InputError, match=message):
        check_structure(structure)


def test_a_hydrogen_molecule_is_no_overlap() -> None:
    """The shortest bond there is passes."""
    check_structure(Structure(Lattice.cubic(6), ["H", "H"], [[0.0, 0.0, 0.0], [0.741 / 6, 0.0, 0.0]]))


def test_a_left_handed_cell_becomes_the_same_crystal_right_handed() -> None:
    """All vectors and positions are inverted, and no distance changes."""
    left = Structure(Lattice([[0, 0, 5], [0, 4, 0], [3, 0, 0]]), ["Mg", "Si"], [[0.0, 0.0, 0.0], [0.4, 0.3, 0.2]])
    right = right_handed(Structure(left.lattice, left.species, left.frac_coords))
    flipped = Structure(Lattice(-left.lattice.matrix), left.species, -left.frac_coords)
    assert np.linalg.det(right.lattice.matrix) > 0
    assert np.allclose(right.distance_matrix, left.distance_matrix)
    assert np.allclose(flipped.distance_matrix, left.distance_matrix)


def test_the_primitive_cell_of_a_noisy_crystal_has_all_its_symmetry(mg2si_fm3m: Structure) -> None:
    """Coordinates with five decimals are as good as exact ones."""
    noisy = mg2si_fm3m.copy()
    noisy.perturb(1e-5)
    cell = primitive_cell(noisy)
    assert len(cell) == 3
    assert np.allclose(cell.lattice.angles, 60.0, atol=1e-9)
    assert cell.get_space_group_info(symprec=1e-8)[1] == 225


def test_a_real_distortion_is_kept() -> None:
    """A shift of 0.02 Angstrom is no noise."""
    structure = Structure(Lattice.cubic(4.0), ["Mg", "Si"], [[0.0, 0.0, 0.0], [0.505, 0.5, 0.5]])
    assert primitive_cell(structure).get_space_group_info(symprec=1e-4)[1] == 99


def _mg() -> Structure:
    return Structure(Lattice.hexagonal(3.2, 5.2), ["Mg", "Mg"], [[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]])
