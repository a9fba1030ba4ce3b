"""Levels that a file declares, and what is wrong with a file that declares none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hullworks.documents import Level
from hullworks.errors import LevelError
from hullworks.levels import LevelOfTheory
from hullworks.workflows.references.levels import check_kind, declared_level, store_level, stored_level

if TYPE_CHECKING:
    from pathlib import Path

DECLARED = LevelOfTheory("vasp", "PBE", "mp", pseudo_hashes=(("O", "b"), ("Fe", "a")), correction="mp2020")


def test_a_file_declares_a_level(tmp_path: Path) -> None:
    """By the fields of `LevelOfTheory`; the order of pseudopotentials does not matter."""
    path = tmp_path / "level.yaml"
    path.write_text(
        "code: vasp\nfunctional: PBE\nprotocol: mp\ncorrection: mp2020\npseudo_hashes:\n- [Fe, a]\n- [O, b]\n",
        encoding="utf-8",
    )
    assert declared_level(path) == DECLARED


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("code: vasp\nfunctional: PBE\n", "code, functional and protocol"),
        ("- vasp\n", "code, functional and protocol"),
        ("code: [\n", "cannot be read"),
        ("{code: vasp, functional: PBE, protocol: mp, colour: red}", "unknown field colour"),
        ("{code: vasp, functional: PBE, protocol: 7}", "protocol must be text"),
        ("{code: vasp, functional: PBE, protocol: mp, pseudo_hashes: 7}", "pseudo_hashes"),
        ("{code: vasp, functional: PBE, protocol: mp, pseudo_hashes: [[Fe]]}", "pseudo_hashes"),
    ],
)
def test_a_file_that_declares_none_is_refused(tmp_path: Path, text: str, match: str) -> None:
    """With the file, and what belongs into it."""
    path = tmp_path / "level.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(LevelError, match=match) as refused:
        declared_level(path)
    assert refused.value.where == str(path)
    with pytest.raises(LevelError, match="cannot be read"):
        declared_level(tmp_path / "nowhere.yaml")


@pytest.mark.usefixtures("mongod")
def test_a_level_is_stored_once() -> None:
    """And found again by key and by name."""
    for _ in range(2):
        store_level(DECLARED)
    assert Level.objects.count() == 1
    assert stored_level(DECLARED.key) == stored_level("vasp-pbe-mp") == DECLARED
    with pytest.raises(LevelError, match="no such level"):
        stored_level("vasp-pbe-other")


def test_only_levels_that_say_so_hold_formation_energies() -> None:
    """In their protocol or in their correction."""
    for protocol, correction in (("formation-energies", "none"), ("mp", "Formation energies, mp2020")):
        level = LevelOfTheory("vasp", "PBE", protocol, correction=correction)
        check_kind(level, formation=True)
        with pytest.raises(LevelError, match="--formation-energies"):
            check_kind(level, formation=False)
    check_kind(DECLARED, formation=False)
    with pytest.raises(LevelError, match="--define"):
        check_kind(DECLARED, formation=True)
