"""Tests of verdicts: each kind, each flag, and what a verdict refuses to be."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hullworks.analysis.convex_hull import ConvexHull
from hullworks.analysis.verdicts import (
    JudgementInput,
    Product,
    VerdictFlag,
    VerdictKind,
    VerdictResult,
    judge,
    load_thresholds,
    read_flags,
    rounded_numbers,
)
from hullworks.errors import HullError
from hullworks.states import Role

FAST = "qe-pbe-fast-0a1b2c3d"


def verdict(
    above: float | None, others: float | None = None, formation: float | None = -0.1, **more: Any
) -> VerdictResult:
    """Judge an entry by its distances in eV/atom."""
    return judge(JudgementInput(FAST, "7", formation, above, above if others is None else others, **more))


@pytest.mark.parametrize(
    ("above", "others", "role", "kind"),
    [
        (0.0, -0.148, Role.CANDIDATE, VerdictKind.STABLE),
        (5e-5, -0.148, Role.CANDIDATE, VerdictKind.STABLE),
        (0.0, -0.0066, Role.CANDIDATE, VerdictKind.METASTABLE),
        (0.0, -0.0066, Role.REFERENCE, VerdictKind.STABLE),
        (6e-5, None, Role.REFERENCE, VerdictKind.METASTABLE),
        (0.05, None, Role.CANDIDATE, VerdictKind.METASTABLE),
        (0.0501, None, Role.CANDIDATE, VerdictKind.UNSTABLE),
        (0.0, -3.0, Role.REFERENCE, VerdictKind.STABLE),
        (0.0, -0.31, Role.CANDIDATE, VerdictKind.INDETERMINATE),
    ],
)
def test_the_kind_follows_from_the_distance(above: float, others: float | None, role: Role, kind: VerdictKind) -> None:
    """5e-5 and 0.05 eV/atom divide the kinds; a new phase must clear the error bar, and not by more than 0.3."""
    assert verdict(above, others, role=role).kind is kind


def test_an_element_without_a_rival_is_stable() -> None:
    """A reference that nothing competes with is stable without being within any error bar."""
    alone = verdict(0.0, math.nan, 0.0, role=Role.REFERENCE)
    assert (alone.kind, alone.flags, alone.e_to_hull_of_others_eV) == (VerdictKind.STABLE, (), None)


@pytest.mark.parametrize(
    ("above", "others", "level", "flagged"),
    [
        (0.034, None, FAST, True),
        (0.034, None, "qe-pbe-balanced-0a1b2c3d", False),
        (0.08, None, FAST, False),
        (0.074, None, FAST, True),
        (0.0, -0.153, FAST, False),
        (0.0, -0.02, FAST, True),
        (0.0, -0.02, "qe-pbe-balanced-0a1b2c3d", False),
        (0.008, None, "qe-pbe-balanced-0a1b2c3d", True),
        (0.03, None, "something-new-0a1b2c3d", True),
    ],
)
def test_a_verdict_that_an_error_could_change_is_flagged(
    above: float, others: float | None, level: str, flagged: bool
) -> None:
    """The flag is raised where the level's error bar reaches a boundary between two verdicts."""
    result = judge(JudgementInput(level, "7", -0.1, above, above if others is None else others))
    assert (VerdictFlag.WITHIN_ERROR_BAR in result.flags) is flagged


def test_the_larger_error_bar_counts() -> None:
    """An entry whose own error is larger than its level's is not stable within it."""
    assert verdict(0.0, -0.04).kind is VerdictKind.STABLE
    assert verdict(0.0, -0.04, error_bar_eV=0.06).kind is VerdictKind.METASTABLE
    assert verdict(0.0, -0.04, error_bar_eV=0.001).error_bar_eV == 0.025


def test_a_missing_phase_makes_the_verdict_indeterminate() -> None:
    """Without an element, or with a competing phase still to come, there is no energy above hull, but a name."""
    element = verdict(None, formation=None, missing=("O",))
    phase = verdict(0.01, missing=("Mg2Ge (ref-3)",))
    assert {element.kind, phase.kind} == {VerdictKind.INDETERMINATE}
    assert (element.e_above_hull_eV, phase.e_above_hull_eV) == (None, None)
    assert (element.missing, phase.missing) == (("O",), ("Mg2Ge (ref-3)",))


def test_an_unexplained_gap_is_refused() -> None:
    """NaN without a name of what is missing is an error, not a verdict."""
    with pytest.raises(HullError, match="nothing is missing"):
        verdict(math.nan, formation=math.nan)


@pytest.mark.parametrize("formation", [-5.1, 5.1, 80.0])
def test_an_energy_of_no_solid_is_invalid(formation: float) -> None:
    """A formation energy outside [-5, 5] eV/atom is invalid whatever the hull says, even with elements missing."""
    result = verdict(0.0, -0.1, formation, missing=("O",))
    assert result.kind is VerdictKind.INVALID
    assert VerdictFlag.FORMATION_ENERGY_OUT_OF_BOUNDS in result.flags


def test_evidence_from_the_run_becomes_flags() -> None:
    """A large change of volume, a drifting energy and what landing knew stand beside the verdict, sorted, once."""
    result = verdict(0.2, volume_change=-0.21, energy_drift_eV=0.011, flags=("ionic_convergence_loose", "energy_drift"))
    assert [flag.value for flag in result.flags] == ["energy_drift", "ionic_convergence_loose", "volume_change_large"]
    assert verdict(0.2, volume_change=0.2, energy_drift_eV=-0.01).flags == ()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"level_key": ""}, "level_key"),
        ({"hull_version": ""}, "hull_version"),
        ({"flags": None}, "flags"),
        ({"flags": ("energy_drift",)}, "flags"),
        ({"e_above_hull_eV": None}, "no energy above hull"),
        ({"e_above_hull_eV": -0.1}, "above the hull"),
        ({"e_above_hull_eV": math.nan}, "above the hull"),
        ({"missing": ("O",)}, "miss O"),
        ({"flags": (VerdictFlag.SUSPICIOUSLY_DEEP,)}, "suspiciously deep"),
        ({"kind": VerdictKind.INDETERMINATE}, "have an energy"),
    ],
)
def test_a_verdict_that_is_none_cannot_be_made(changes: dict[str, Any], said: str) -> None:
    """Without level, hull version and flags, or in contradiction with itself, the constructor refuses."""
    whole: dict[str, Any] = {
        "kind": VerdictKind.STABLE,
        "level_key": FAST,
        "hull_version": "7",
        "flags": (),
        "e_above_hull_eV": 0.0,
    }
    VerdictResult(**whole)
    with pytest.raises(HullError, match=said):
        VerdictResult(**{**whole, **changes})


def test_a_verdict_survives_json() -> None:
    """A verdict written as JSON and read again is equal to itself."""
    made = verdict(0.2825, decomposition=(Product("e-1", "Mg2Si", 0.75), Product("e-2", "Si", 0.25)), volume_change=0.5)
    assert VerdictResult.from_dict(json.loads(json.dumps(made.as_dict()))) == made


def test_an_unknown_flag_is_named() -> None:
    """Flags are a vocabulary, and a word outside it is an error that lists the words."""
    with pytest.raises(HullError, match=r"shiny.*within_error_bar"):
        read_flags(["shiny"])


def test_a_hull_speaks_for_its_entries() -> None:
    """From a hull of Mg-Si come all numbers of a verdict, with ids and formulas in place of indices."""
    formulas = ["Mg", "Si", "Mg2Si", "MgSi"]
    hull = ConvexHull.from_entries(formulas, [0.0, 0.0, -0.15, 0.17])
    (numbers,) = rounded_numbers(hull.numbers([3]), ["e0", "e1", "e2", "e3"], formulas)
    result = judge(JudgementInput(FAST, "1", **numbers))
    assert result.kind is VerdictKind.UNSTABLE
    assert result.e_above_hull_eV == pytest.approx(0.2825)
    assert [(p.entry_id, p.formula, round(p.fraction, 6)) for p in result.decomposition] == [
        ("e1", "Si", 0.25),
        ("e2", "Mg2Si", 0.75),
    ]


def test_a_hull_without_a_reference_speaks_of_nothing_missing_itself() -> None:
    """Numbers of an incomplete system are NaN, and the verdict needs the hull's missing elements."""
    hull = ConvexHull.from_entries(["Mg", "Mg2Si"], [0.0, -0.15])
    (numbers,) = rounded_numbers(hull.numbers([1]), ["e0", "e1"], ["Mg", "Mg2Si"])
    result = judge(JudgementInput(FAST, "1", missing=hull.missing_elements, **numbers))
    assert (result.kind, result.missing, result.formation_energy_eV) == (VerdictKind.INDETERMINATE, ("Si",), None)


@given(st.floats(0, 1), st.floats(-1, 0), st.sampled_from(Role), st.floats(-7, 7))
def test_no_numbers_make_a_verdict_that_contradicts_itself(
    above: float, depth: float, role: Role, formation: float
) -> None:
    """Whatever the numbers, a stable verdict is on the hull, and a new one is proved beyond its error bar."""
    others = above or depth
    result = verdict(above, others, formation, role=role)
    if result.kind is VerdictKind.STABLE:
        assert above <= load_thresholds().stable_eV
        assert role is Role.REFERENCE or 0.025 <= -others <= 0.3
