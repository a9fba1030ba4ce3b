"""Level of theory: identity, names, the fence."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hullworks.errors import LevelError
from hullworks.levels import LevelOfTheory, require_one_level, resolve_level

LEVEL = LevelOfTheory("qe", "PBE", "fast", pseudo_family="gth-pbe", pseudo_hashes=(("Si", "aa"), ("Mg", "bb")))


def test_the_key_is_a_slug_and_eight_hexadecimal_digits() -> None:
    """Users read the slug, the database trusts the hash."""
    slug, _, digits = LEVEL.key.rpartition("-")
    assert slug == LEVEL.slug == "qe-pbe-fast"
    assert len(digits) == 8
    assert int(digits, 16) >= 0


@pytest.mark.parametrize("name", [field.name for field in fields(LevelOfTheory)])
def test_every_field_changes_the_key(name: str) -> None:
    """Nothing that decides what an energy means is left out of the identity."""
    changed = [["Si", "cc"]] if name == "pseudo_hashes" else "other"
    assert LevelOfTheory.from_dict({**LEVEL.as_dict(), name: changed}).key != LEVEL.key


def test_the_order_of_pseudopotentials_does_not_matter() -> None:
    """They are sorted by element."""
    assert replace(LEVEL, pseudo_hashes=(("Mg", "bb"), ("Si", "aa"))) == LEVEL


@given(st.text(max_size=8), st.lists(st.tuples(st.text(max_size=2), st.text(max_size=4)), max_size=4))
def test_a_level_survives_its_dictionary(word: str, hashes: list[tuple[str, str]]) -> None:
    """What is stored gives back the same level with the same key."""
    level = replace(LEVEL, protocol=word, hubbard=word, pseudo_hashes=tuple(hashes))
    again = LevelOfTheory.from_dict(level.as_dict())
    assert again == level
    assert again.key == level.key


def test_a_level_survives_its_compact_dictionary() -> None:
    """What travels with the jobs of a graph gives back the same level, also without any pseudopotential."""
    for level in (LEVEL, replace(LEVEL, pseudo_hashes=())):
        assert LevelOfTheory.from_dict(level.as_compact_dict()) == level


def test_a_field_of_a_newer_version_is_refused() -> None:
    """Dropping it in silence would join two levels."""
    with pytest.raises(LevelError, match="unknown field vdw"):
        LevelOfTheory.from_dict({**LEVEL.as_dict(), "vdw": "D3"})


def test_another_family_shows_in_the_name() -> None:
    """The embedded family is the default and needs no mention."""
    assert replace(LEVEL, pseudo_family="sssp").slug == "qe-pbe-fast@sssp"


def test_two_levels_never_meet() -> None:
    """The fence names both."""
    with pytest.raises(LevelError, match=r"a-1, b-2"):
        require_one_level(["a-1", "b-2", "a-1"], "Mg-Si")
    assert require_one_level(["a-1", "a-1"], "Mg-Si") == "a-1"
    with pytest.raises(LevelError, match="no entry"):
        require_one_level([], "Mg-Si")


def test_a_name_resolves_to_the_only_key_that_fits() -> None:
    """A slug that two keys share is ambiguous, and both are named."""
    known = ["qe-pbe-fast-11111111", "qe-pbe-fast-22222222", "qe-pbe-balanced-33333333"]
    assert resolve_level("qe-pbe-balanced", known) == known[2]
    assert resolve_level(known[0], known) == known[0]
    with pytest.raises(LevelError, match="several levels"):
        resolve_level("qe-pbe-fast", known)
    with pytest.raises(LevelError, match=r"no such level.*none yet"):
        resolve_level("qe-pbe-fast", [])
