"""Hubbard U at the door."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from pymatgen.core import Lattice, Structure

from hullworks.errors import InputError, LevelError
from hullworks.levels import LevelOfTheory
from hullworks.workflows.qe.hubbard import check_hubbard, check_level
from hullworks.workflows.qe.inputs import Override, build_pw_input, write_pw_input
from hullworks.workflows.qe.protocols import load_protocol
from hullworks.workflows.qe.pseudos import Pseudo, gth_parameters, gth_to_upf, load_family

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def iron() -> Pseudo:
    """A pseudopotential of iron with two atomic wave functions."""
    return replace(load_family("gth-pbe").pseudo("Fe"), n_wavefunctions=2)


@pytest.mark.parametrize("key", ["Hubbard_U(1)", "hubbard_u(1)", "Hubbard_J(1,1)", "Hubbard_J0(1)", "Hubbard_V(1,1,1)"])
def test_a_value_without_a_declared_projector_is_refused(iron: Pseudo, key: str) -> None:
    """The message names the element, the value and both ways out, however the key is spelled."""
    with pytest.raises(InputError, match=r"Fe 5\.3 eV\) without a declared projector.*VASP.*atomic or ortho-atomic"):
        check_hubbard({key: 5.3, "lda_plus_u": True}, [iron])


def test_the_switch_alone_is_refused(iron: Pseudo) -> None:
    """lda_plus_u without a value is a U as well: 6.7 takes it."""
    for word in (True, ".true.", "T"):
        with pytest.raises(InputError, match="no element"):
            check_hubbard({"lda_plus_u": word}, [iron])


def test_an_unknown_projector_is_refused(iron: Pseudo) -> None:
    """Projectors that pw.x reads from a file or takes from PAW are not declared ones."""
    with pytest.raises(InputError, match="with the projector 'pseudo'"):
        check_hubbard({"Hubbard_U(1)": 4.0, "U_projection_type": "pseudo"}, [iron])


def test_a_file_without_atomic_wave_functions_is_refused() -> None:
    """Nothing can be projected onto a GTH pseudopotential, whatever the projector."""
    with pytest.raises(InputError, match="of Fe hold no atomic wave functions"):
        check_hubbard({"Hubbard_U(1)": 4.0, "U_projection_type": "ortho-atomic"}, [load_family("gth-pbe").pseudo("Fe")])


def test_a_declared_projector_and_a_file_that_has_one_pass(iron: Pseudo) -> None:
    """What somebody declared for Quantum ESPRESSO is theirs to ask for."""
    check_hubbard({"lda_plus_u": True, "Hubbard_U(1)": 4.0, "U_projection_type": "ortho-atomic"}, [iron])


@pytest.mark.parametrize("settings", [{}, {"nbnd": 10}, {"Hubbard_U(1)": 0.0}, {"lda_plus_u": False}])
def test_no_u_is_no_u(iron: Pseudo, settings: dict[str, object]) -> None:
    """A value of zero and a switch that is off pass, and so do all other settings."""
    check_hubbard(settings, [iron])
    check_hubbard({"Hubbard_U(1)": None}, [iron])


def test_no_input_is_built_with_such_a_u() -> None:
    """The door of all calculations refuses, with the element that has the number of the species."""
    structure = Structure(Lattice.cubic(5.0), ["Si", "Mg"], [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]])
    asked = (Override("SYSTEM", "Hubbard_U(2)", 3.0),)
    with pytest.raises(InputError, match=r"Si 3\.0 eV"):
        build_pw_input("scf", structure, load_protocol("fast"), load_family("gth-pbe"), asked)


def test_a_family_with_atomic_wave_functions_gets_its_u(tmp_path: Path) -> None:
    """A user's family whose files have them is calculated as asked."""
    text = gth_to_upf(gth_parameters("Si")).replace(b'number_of_wfc="0"', b'number_of_wfc="2"')
    (tmp_path / "Si.upf").write_bytes(text)
    (tmp_path / "table.json").write_text('{"Si": {"cutoff_wfc": 30}}', encoding="utf-8")
    asked = (Override("SYSTEM", "Hubbard_U(1)", 3.0), Override("SYSTEM", "U_projection_type", "atomic"))
    structure = Structure(Lattice.cubic(5.0), ["Si"], [[0, 0, 0]])
    assert "Hubbard_U(1) = 3" in write_pw_input(
        build_pw_input("scf", structure, load_protocol("fast"), load_family(tmp_path), asked)
    )


def test_a_level_with_a_scheme_is_refused() -> None:
    """No protocol for pw.x has a U, so no level that names one can be calculated."""
    check_level(LevelOfTheory("qe", "PBE", "fast"))
    with pytest.raises(LevelError, match="scheme 'mp'"):
        check_level(LevelOfTheory("qe", "PBE", "fast", hubbard="mp"))
