"""Energies of different levels never meet: what the fence lets in, and what not."""

from __future__ import annotations

from typing import Any

import pytest

from hullworks.levels import LevelOfTheory
from hullworks.workflows.references.fence import Fence
from hullworks.workflows.references.rows import ReferenceRow, RefusalCode, RowRefusedError
from hullworks.workflows.references.rules import load_rules

MIXED = LevelOfTheory("vasp", "PBE", "mp", hubbard="mp", correction="mp2020")
PLAIN = LevelOfTheory("vasp", "PBE", "mp", pseudo_hashes=(("Fe", "aaa"),))
QE = LevelOfTheory("qe", "PBE", "fast")
SCAN = LevelOfTheory("vasp", "r2SCAN", "mp")


def row(parts: dict[str, float] | None = None, **parameters: Any) -> ReferenceRow:
    """A row that says how it was computed."""
    return ReferenceRow({"Fe": 1.0}, -8.0, parts=parts or {}, parameters=parameters)


@pytest.mark.parametrize(
    ("level", "parameters"),
    [
        (MIXED, {}),
        (MIXED, {"run_type": "GGA"}),
        (MIXED, {"run_type": "GGA+U", "hubbards": {"Fe": 5.3, "O": 0}, "is_hubbard": True}),
        (MIXED, {"thermo_type": "GGA_GGA+U", "energy_type": "GGA"}),
        (PLAIN, {"run_type": "GGA", "hubbards": {"Fe": 0.0}, "is_hubbard": False, "software": "VASP"}),
        (PLAIN, {"potcar_spec": [{"titel": "PAW_PBE Fe 06Sep2000", "hash": "aaa"}, {"titel": None}, None]}),
        (SCAN, {"run_type": "R2SCAN", "thermo_type": "R2SCAN"}),
        (QE, {"code": "pw.x", "functional": "pbe", "protocol": "fast", "level_key": QE.key}),
    ],
)
def test_rows_of_the_level_pass(level: LevelOfTheory, parameters: dict[str, Any]) -> None:
    """Also those that say nothing."""
    Fence(level, load_rules()).settings_of(row(**parameters))


@pytest.mark.parametrize(
    ("level", "parameters", "match"),
    [
        (PLAIN, {"run_type": "R2SCAN"}, "run_type is R2SCAN"),
        (SCAN, {"run_type": "GGA"}, "run_type is GGA"),
        (SCAN, {"energy_type": "GGA"}, "energy_type is GGA"),
        (PLAIN, {"run_type": "GGA+U"}, "Hubbard"),
        (PLAIN, {"is_hubbard": True}, "Hubbard"),
        (PLAIN, {"hubbards": {"Fe": 5.3}}, "Fe 5.3"),
        (MIXED, {"thermo_type": "GGA_GGA+U_R2SCAN"}, "not one that belongs to a level"),
        (MIXED, {"run_type": "B3LYP"}, "not one that belongs to a level"),
        (QE, {"run_type": "GGA", "software": "vasp"}, "software is vasp"),
        (PLAIN, {"code": "Quantum ESPRESSO"}, "code is Quantum ESPRESSO"),
        (PLAIN, {"functional": "PBEsol"}, "functional is PBEsol"),
        (QE, {"protocol": "balanced"}, "protocol is balanced"),
        (QE, {"level_key": PLAIN.key}, "level_key is vasp"),
        (PLAIN, {"potcar_spec": [{"titel": "PAW_PBE Fe 06Sep2000", "hash": "bbb"}]}, "hash bbb, not aaa"),
    ],
)
def test_rows_of_another_level_are_refused(level: LevelOfTheory, parameters: dict[str, Any], match: str) -> None:
    """With what they say and what the level is."""
    with pytest.raises(RowRefusedError, match=match) as refused:
        Fence(level, load_rules()).settings_of(row(**parameters))
    assert refused.value.code is RefusalCode.OTHER_LEVEL
    assert level.key in str(refused.value)


def test_corrections_need_a_level_with_a_scheme() -> None:
    """A correction of zero is none."""
    Fence(PLAIN, load_rules()).settings_of(row({"oxide": 0.0}))
    with pytest.raises(RowRefusedError, match="no correction scheme"):
        Fence(PLAIN, load_rules()).settings_of(row({"oxide": -0.7}))


@pytest.mark.parametrize(
    ("first", "second", "named"),
    [
        ({"potcar_symbols": ["PBE Fe_pv", "PBE O"]}, {"potcar_symbols": ["PBE O", "PBE Fe"]}, "potcar Fe"),
        (
            {"potcar_spec": [{"titel": "PAW_PBE Li_sv 23Jan2001"}]},
            {"potcar_spec": [{"titel": "PAW_PBE Li_sv 10Sep2004"}]},
            "potcar title Li",
        ),
        ({"hubbards": {"Fe": 5.3}}, {"hubbards": {"Fe": 4.0}}, "U Fe"),
        ({"correction_schemes": ["A"]}, {"correction_schemes": ["B"]}, "correction scheme"),
    ],
)
def test_rows_must_share_their_settings(first: dict[str, Any], second: dict[str, Any], named: str) -> None:
    """The first one of a level decides, also one of an earlier import; an element without a U is no contradiction."""
    fence = Fence(MIXED, load_rules())
    settings = fence.settings_of(row(**first))
    fence.settings_of(row(hubbards={"Fe": 0.0}))
    for judge in (fence, Fence(MIXED, load_rules(), settings)):
        with pytest.raises(RowRefusedError, match=named) as refused:
            judge.settings_of(row(**second))
        assert refused.value.code is RefusalCode.OTHER_SETTINGS
