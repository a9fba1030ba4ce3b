"""Protocols."""

from __future__ import annotations

import pytest

from hullworks.errors import LevelError
from hullworks.levels import LevelOfTheory
from hullworks.workflows.qe.protocols import (
    INITIAL_RELAX,
    Protocol,
    cell_rule,
    level_of_theory,
    load_protocol,
    protocol_names,
    run_rule,
    spin_rule,
)
from hullworks.workflows.qe.pseudos import load_family


@pytest.mark.parametrize("name", ["fast", "balanced", "stringent"])
@pytest.mark.parametrize("stage", ["", INITIAL_RELAX])
def test_every_protocol_loads_at_every_stage(name: str, stage: str) -> None:
    """Each protocol is complete at each stage."""
    protocol = load_protocol(name, stage)
    assert (protocol.name, protocol.stage) == (name, stage)
    assert protocol.smearing == "gaussian"


def test_balanced_is_the_default_and_the_names_are_listed() -> None:
    """Without a name the balanced protocol is meant."""
    assert load_protocol() == load_protocol("balanced")
    assert protocol_names() == ("balanced", "fast", "stringent")


@pytest.mark.parametrize(
    "number",
    ["kpoints_distance", "conv_thr_Ry_per_atom", "etot_conv_thr_Ry_per_atom", "forc_conv_thr_Ry_per_bohr"],
)
def test_each_protocol_is_tighter_than_the_one_before(number: str) -> None:
    """Fast > balanced > stringent in every threshold."""
    fast, balanced, stringent = (getattr(load_protocol(name), number) for name in ("fast", "balanced", "stringent"))
    assert fast > balanced > stringent > 0.0


@pytest.mark.parametrize("name", ["fast", "balanced", "stringent"])
def test_the_first_relaxation_is_nowhere_tighter_than_the_protocol(name: str) -> None:
    """The initial relaxation is loose in everything that costs time."""
    loose, final = load_protocol(name, INITIAL_RELAX), load_protocol(name)
    for number in ("kpoints_distance", "conv_thr_Ry_per_atom", "forc_conv_thr_Ry_per_bohr", "press_conv_thr_kbar"):
        assert getattr(loose, number) >= getattr(final, number)


def test_an_unknown_protocol_or_stage_is_named_with_the_known_ones() -> None:
    """The error lists what there is."""
    with pytest.raises(LevelError, match=r"swift.*Known: balanced, fast, stringent"):
        load_protocol("swift")
    with pytest.raises(LevelError, match="stage"):
        load_protocol("fast", "warm_up")


def test_the_hash_follows_the_numbers() -> None:
    """Two protocols with unlike numbers have unlike hashes, and the same ones the same."""
    hashes = {load_protocol(name, stage).content_hash for name in protocol_names() for stage in ("", INITIAL_RELAX)}
    assert len(hashes) == 6
    assert Protocol(**load_protocol("fast").as_dict()).content_hash == load_protocol("fast").content_hash


def test_a_cell_without_magnetic_elements_gets_no_moments() -> None:
    """Main-group elements and closed d shells start without spin."""
    assert spin_rule().moments(["Mg", "Si", "Zn"]) == {}


def test_magnetic_elements_start_from_high_spin() -> None:
    """5 for an open d shell, 7 for an open f shell, a seed for the rest."""
    assert spin_rule().moments(["O", "Fe", "Gd"]) == {"Fe": 5.0, "Gd": 7.0, "O": 0.1}


def test_rules_are_positive_numbers() -> None:
    """Cells and runs are judged by positive limits."""
    assert all(value > 0 for value in vars(cell_rule()).values())
    assert all(value > 0 for value in vars(run_rule()).values())


def test_a_level_holds_protocol_pseudopotentials_and_cutoffs() -> None:
    """The level of theory names everything that decides an energy, and survives its dictionary."""
    family = load_family("gth-pbe")
    level = level_of_theory(load_protocol("fast"), family)
    assert level.slug == "qe-pbe-fast"
    assert level.pseudo_hashes == family.hashes
    assert level.kpoint_rule == "0.25/A"
    assert LevelOfTheory.from_dict(level.as_dict()) == level
    assert level.key != level_of_theory(load_protocol("balanced"), family).key
