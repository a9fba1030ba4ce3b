"""Facts about screening: what is computed, what is not, and in which order."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from pymatgen.core.lattice import Lattice
from pymatgen.core.structure import Structure

from hullworks.errors import InputError
from hullworks.states import Role
from hullworks.workflows.intake import Prediction
from hullworks.workflows.screening import (
    Flag,
    RejectionCode,
    ScreeningPolicy,
    default_policy,
    load_policy,
    rank,
    screen,
)

if TYPE_CHECKING:
    from pathlib import Path

SALT = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]])


def cubic(a: float, *species: str) -> Structure:
    """Return one or two elements at the corner and centre of a cube."""
    return Structure(Lattice.cubic(a), species, [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]][: len(species)])


def policy(**changes: object) -> ScreeningPolicy:
    """Return the default policy with changes."""
    return ScreeningPolicy.model_validate({**default_policy().model_dump(), **changes})


REAL = {
    "diamond": Structure.from_spacegroup("Fd-3m", Lattice.cubic(3.57), ["C"], [[0.0, 0.0, 0.0]]),
    "caesium": cubic(6.16, "Cs", "Cs"),
    "beryllium": Structure(Lattice.hexagonal(2.29, 3.58), ["Be"] * 2, [[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]]),
    "tungsten": cubic(3.17, "W", "W"),
    "xenon": Structure.from_spacegroup("Fm-3m", Lattice.cubic(6.13), ["Xe"], [[0.0, 0.0, 0.0]]),
    "salt": SALT,
    "lithium hydride": Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(4.08), ["Li", "H"], [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]]
    ),
    "one atom of aluminium": Structure(
        Lattice([[0, 2.02, 2.02], [2.02, 0, 2.02], [2.02, 2.02, 0]]), ["Al"], [[0, 0, 0]]
    ),
}


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("volume", [0.8, 1.0, 1.2])
def test_real_crystals_pass_at_the_volumes_that_generators_try(name: str, volume: float) -> None:
    """The densest, the softest and the lightest crystals are accepted, 20 % compressed or expanded too."""
    structure = REAL[name].copy()
    structure.scale_lattice(structure.volume * volume)
    result = screen(structure)
    assert result.accepted, result.reasons


@pytest.mark.parametrize(
    ("structure", "code"),
    [
        (cubic(1.9, "Na", "Cl"), RejectionCode.TOO_CLOSE),
        (cubic(1.4, "H", "H"), RejectionCode.TOO_DENSE),
        (cubic(9.0, "Na", "Cl"), RejectionCode.TOO_SPARSE),
        (cubic(8.0, "Na"), RejectionCode.ISOLATED_ATOM),
        (Structure(Lattice.orthorhombic(1.0, 9, 9), ["H"], [[0, 0, 0]]), RejectionCode.TOO_THIN),
        (Structure(Lattice.orthorhombic(3, 3, 70), ["Na"], [[0, 0, 0]]), RejectionCode.TOO_LONG),
    ],
)
def test_unphysical_cells_are_rejected_with_a_reason(structure: Structure, code: RejectionCode) -> None:
    """Each kind of unphysical cell is named, with the value and the limit."""
    result = screen(structure)
    assert not result.accepted
    reason = next(reason for reason in result.reasons if reason.code is code)
    assert any(character.isdigit() for character in reason.text)


def test_the_policy_limits_elements_and_size() -> None:
    """Excluded elements and large cells are rejected, all reasons together."""
    codes = {reason.code for reason in screen(SALT, policy=policy(exclude_elements=["Cl"], max_atoms=4)).reasons}
    assert codes == {RejectionCode.EXCLUDED_ELEMENT, RejectionCode.TOO_MANY_ATOMS}


def test_the_energy_window_holds_for_candidates_alone() -> None:
    """A candidate above the window is rejected; references, unpredicted and lower ones are not; by default none is."""
    narrow, high = policy(max_e_above_hull=0.05), Prediction(e_above_hull=0.4)
    assert [reason.code for reason in screen(SALT, high, narrow).reasons] == [RejectionCode.ABOVE_WINDOW]
    assert screen(SALT, high, narrow, role=Role.REFERENCE).accepted
    assert screen(SALT, None, narrow).accepted
    assert screen(SALT, Prediction(e_above_hull=0.05), narrow).accepted
    assert screen(SALT, high).accepted


@pytest.mark.parametrize(
    ("structure", "flags"),
    [
        (SALT, set()),
        (cubic(3.0, "Ni", "Al"), set()),
        (cubic(4.0, "Ar", "Ds"), set()),
        (cubic(3.6, "U", "Co"), {Flag.RADIOACTIVE, Flag.F_ELECTRON}),
        (cubic(3.5, "Zr", "Hf"), {Flag.DISORDER_SUSPECT}),
        (cubic(3.2, "Mg", "Cl"), {Flag.CHARGE_UNBALANCED}),
        (Structure(Lattice.cubic(4.2), ["O"] * 2, [[0.0, 0.0, 0.0], [0.29, 0.0, 0.0]]), {Flag.MOLECULAR}),
        (Structure(Lattice([[4, 0, 0], [0, 4, 0], [20, 0, 4]]), ["Na"], [[0, 0, 0]]), {Flag.SKEWED_CELL}),
    ],
)
def test_flags_tell_what_a_reader_should_know(structure: Structure, flags: set[Flag]) -> None:
    """Flags follow from the crystal, and none of them rejects it."""
    result = screen(structure)
    assert set(result.flags) == flags
    assert result.accepted


@pytest.mark.parametrize("formula", ["Fe3O4", "NaClO4", "LiFePO4", "NH4NO3", "TiO2", "CaF2", "Si3N4", "CsI"])
def test_ordinary_salts_are_balanced(formula: str) -> None:
    """Mixed valence, oxyanions and ammonium salts pass the test of charges."""
    composition = Structure(Lattice.cubic(30), [], []).composition.__class__(formula)
    species = [element.symbol for element, amount in composition.items() for _ in range(round(amount))]
    structure = Structure(Lattice.cubic(30), species, [[i / len(species), 0, 0] for i in range(len(species))])
    assert Flag.CHARGE_UNBALANCED not in screen(structure).flags


@pytest.mark.parametrize("prediction", [Prediction(formation_energy=-7.0), Prediction(e_above_hull=-0.5)])
def test_implausible_predictions_are_flagged(prediction: Prediction) -> None:
    """Energies that no crystal has are flagged, not believed."""
    assert screen(SALT, prediction).flags == (Flag.IMPLAUSIBLE_PREDICTION,)


def test_references_come_first_then_low_energies_then_small_cells() -> None:
    """Elements lead, then compound references, then candidates by predicted energy; the unpredicted are last."""
    queue = [
        rank(cubic(3, "Na"), role=Role.REFERENCE),
        rank(SALT, Prediction(e_above_hull=0.3), role=Role.REFERENCE),
        rank(cubic(3, "Na", "Cl"), Prediction(e_above_hull=-0.01)),
        rank(cubic(3, "Na", "Cl"), Prediction(e_above_hull=0.1)),
        rank(SALT, Prediction(e_above_hull=0.1)),
        rank(SALT),
    ]
    assert queue == sorted(queue)
    assert len(set(queue)) == len(queue)
    assert queue[-1].e_above_hull == math.inf


def test_a_policy_file_changes_what_it_names(tmp_path: Path) -> None:
    """Fields that the file does not name keep their defaults; an empty file changes nothing."""
    path = tmp_path / "policy.yaml"
    path.write_text("max_e_above_hull: 0.05\nexclude_elements: [Tc]\n")
    changed = load_policy(path)
    assert (changed.max_e_above_hull, changed.exclude_elements) == (0.05, frozenset({"Tc"}))
    assert changed.max_atoms == default_policy().max_atoms
    path.write_text("")
    assert load_policy(path) == default_policy()


@pytest.mark.parametrize(
    "text",
    ["max_atom: 4", "max_atoms: none", "max_atoms: -1", "- a", "{", "max_e_above_hull: .nan", "exclude_elements: [Xx]"],
)
def test_a_wrong_policy_is_refused(tmp_path: Path, text: str) -> None:
    """Unknown fields, wrong values and broken YAML are named with the file."""
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"policy\.yaml"):
        load_policy(path)


def test_a_missing_policy_file_is_refused(tmp_path: Path) -> None:
    """A policy that is not there is an error, not the default."""
    with pytest.raises(InputError):
        load_policy(tmp_path / "nowhere.yaml")
