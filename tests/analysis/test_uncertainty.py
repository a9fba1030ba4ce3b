"""Tests of errors that entries share, and of what they leave of a distance from the hull to first order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.stats import norm

from hullworks.analysis.convex_hull import CompositionArrays, ConvexHull
from hullworks.analysis.uncertainty import EnergyErrors, first_order
from hullworks.errors import HullError

FORMULAS = ("Mg", "Si", "Mg2Si", "MgSi", "Mg", "Mg2Si")
MG_SI = ConvexHull.from_entries(FORMULAS, [0.0, 0.0, -0.15, 0.17, 0.02, -0.1])
OXIDES = ConvexHull.from_entries(["Mg", "Si", "O2", "MgO", "SiO2", "MgSiO3"], [0.0, 0.0, 0.0, -3.0, -3.0, -3.05])
SEED = 11


def test_a_shared_name_correlates_and_an_own_name_does_not() -> None:
    """The same name is the same unknown number for all entries, unless it begins with own:."""
    errors = EnergyErrors.from_parts(
        [{"oxide": 0.02, "own:convergence": 0.01}, {"oxide": 0.04, "own:convergence": 0.03}]
    )
    covariance = (errors.coefficients @ errors.coefficients.T).toarray()
    np.testing.assert_allclose(covariance, [[0.0005, 0.0008], [0.0008, 0.0025]])
    np.testing.assert_allclose(errors.sigma, [np.sqrt(0.0005), 0.05])
    assert errors.sources == ("oxide", "own:convergence:0", "own:convergence:1")


def test_errors_without_any_part_are_zero() -> None:
    """Entries that know no error have none."""
    errors = EnergyErrors.from_parts([{}, {}])
    assert errors.sigma.tolist() == [0.0, 0.0] == errors.shifts(SEED, 0).tolist()


def test_errors_linear_in_composition_act_by_fraction_and_where_they_are_told() -> None:
    """Half of the atoms of MgO are oxygen, three fifths of those of MgSiO3; O2 is exempt where one says so."""
    errors = EnergyErrors.per_atom(OXIDES.compositions, {"O": 0.01, "Ge": 1.0}, prefix="oxide ", where=np.arange(6) > 2)
    assert errors.sources == ("oxide O",)
    np.testing.assert_allclose(errors.sigma, [0, 0, 0, 0.005, 0.02 / 3, 0.006])


def test_sums_of_errors_merge_sources_of_one_name() -> None:
    """What two sets of errors say of the same source adds up before it is squared."""
    both = EnergyErrors.from_parts([{"a": 3.0, "b": 4.0}]) + EnergyErrors.from_parts([{"c": 12.0, "a": -3.0}])
    assert set(both.sources) == {"a", "b", "c"}
    assert both.sigma.tolist() == [np.hypot(4, 12)]


@pytest.mark.parametrize(
    ("sources", "coefficients"),
    [(("a",), [[1.0, 2.0]]), (("a", "a"), [[1.0, 2.0]]), (("a", "b"), [[1.0, np.nan]])],
)
def test_errors_that_make_no_sense_are_refused(sources: tuple[str, ...], coefficients: list[list[float]]) -> None:
    """Each column has one name of its own, and each coefficient is a number."""
    with pytest.raises(HullError):
        EnergyErrors(sources, csr_array(coefficients))


def test_errors_of_other_entries_are_refused() -> None:
    """Errors of six entries say nothing about five."""
    errors = EnergyErrors.from_parts([{}] * 5)
    with pytest.raises(HullError, match="6 entries, the errors are of 5"):
        first_order(MG_SI, errors, [0])
    with pytest.raises(HullError, match="cannot be added"):
        _ = errors + EnergyErrors.from_parts([{}] * 6)


def test_draws_follow_from_seed_and_number_alone() -> None:
    """Draw k is that of child k of the seed, and some entries alone get what they get among all."""
    errors = EnergyErrors.from_parts([{"x": 0.1, "own:c": 0.01}] * 3)
    child = np.random.SeedSequence(SEED).spawn(8)[7]
    draws = np.random.Generator(np.random.PCG64(child)).standard_normal(4)
    np.testing.assert_array_equal(errors.shifts(SEED, 7), 0.1 * draws[0] + 0.01 * draws[1:])
    np.testing.assert_array_equal(errors.of(np.array([2, 0])).shifts(SEED, 7), errors.shifts(SEED, 7)[[2, 0]])


def test_draws_have_the_covariance_of_the_errors() -> None:
    """Over many draws, the covariance of the shifts is that of the coefficients."""
    errors = EnergyErrors.from_parts([{"x": 1.0, "own:c": 1.0}, {"x": -2.0}])
    drawn = np.cov([errors.shifts(SEED, k) for k in range(20_000)], rowvar=False)
    np.testing.assert_allclose(drawn, [[2, -2], [-2, 4]], atol=0.15)


def test_sigma_of_a_distance_follows_from_the_reaction() -> None:
    """MgSi above 1/4 Si and 3/4 Mg2Si; Mg2Si below its polymorph; polymorphs above their ground states."""
    errors = EnergyErrors.from_parts([{"own:convergence": 0.01}] * 6)
    found = first_order(MG_SI, errors, range(6))
    pair = np.sqrt(2) * 0.01
    expected = [pair, np.nan, pair, 0.01 * np.sqrt(1 + 1 / 16 + 9 / 16), pair, pair]
    np.testing.assert_allclose(found.sigma, expected)
    np.testing.assert_allclose(found.distance, [-0.02, np.nan, -0.05, 0.2825, 0.02, 0.05])


def test_a_stable_compound_is_compared_with_what_it_would_decompose_into() -> None:
    """Without MgSiO3 there would be MgO and SiO2 in the ratio 2 to 3 of their atoms."""
    errors = EnergyErrors.from_parts([{"own:convergence": 0.01}] * 6)
    found = first_order(OXIDES, errors, [5])
    assert found.distance[0] == pytest.approx(-0.05)
    assert found.sigma[0] == pytest.approx(0.01 * np.sqrt(1 + 0.4**2 + 0.6**2))
    assert found.p_stable()[0] == pytest.approx(norm.cdf(0.05 / found.sigma[0]))


def test_a_source_that_all_oxides_share_leaves_reactions_between_oxides_alone() -> None:
    """A correction per oxygen of oxides moves MgO against its elements, but not MgSiO3 against MgO and SiO2."""
    errors = EnergyErrors.per_atom(OXIDES.compositions, {"O": 0.1}, prefix="oxide ", where=np.arange(6) > 2)
    np.testing.assert_allclose(first_order(OXIDES, errors, [3, 4, 5]).sigma, [0.05, 0.2 / 3, 0], atol=1e-12)


def test_a_source_in_proportion_to_an_element_everywhere_moves_nothing() -> None:
    """An error of all Mg alike, elemental Mg included, only shifts the zero of energy."""
    errors = EnergyErrors.per_atom(MG_SI.compositions, {"Mg": 0.5}, prefix="element:")
    np.testing.assert_allclose(first_order(MG_SI, errors, [0, 2, 3, 4, 5]).sigma, 0, atol=1e-12)


def test_distances_that_share_products_vary_together() -> None:
    """The covariance of two distances comes from the sources that both feel."""
    errors = EnergyErrors.from_parts([{}, {"own:c": 0.01}, {}, {}, {}, {}])
    found = first_order(
        ConvexHull.from_entries(["Mg", "Si", "MgSi", "MgSi2", "Mg", "Mg"], [0, 0, 0.1, 0.1, 1, 1]), errors, [2, 3]
    )
    np.testing.assert_allclose(found.covariance, 1e-4 * np.outer([1 / 2, 2 / 3], [1 / 2, 2 / 3]))


def test_an_error_of_zero_leaves_certainty() -> None:
    """Without errors an entry is stable or is not."""
    found = first_order(MG_SI, EnergyErrors.from_parts([{}] * 6), [2, 3])
    assert found.p_stable().tolist() == [1.0, 0.0]


def test_entries_without_a_hull_have_no_sigma() -> None:
    """GeO lacks germanium and oxygen; nothing is guessed."""
    hull = ConvexHull.from_entries(["Mg", "GeO"], [0.0, 0.0])
    found = first_order(hull, EnergyErrors.from_parts([{"own:c": 0.01}] * 2), [0, 1])
    assert np.isnan(found.sigma).all()
    assert np.isnan(found.p_stable()).all()


def test_removed_entries_do_not_count() -> None:
    """After the polymorph of Mg2Si is gone, Mg2Si is compared with the elements."""
    hull = ConvexHull.from_entries(FORMULAS, [0.0, 0.0, -0.15, 0.17, 0.02, -0.1])
    hull.remove([5])
    found = first_order(hull, EnergyErrors.from_parts([{"own:c": 0.03}] * 6), [2])
    assert found.sigma[0] == pytest.approx(0.03 * np.sqrt(1 + 4 / 9 + 1 / 9))


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_first_order_is_exact_for_small_errors(data: st.DataObject) -> None:
    """In random systems, a step too small to change any decomposition moves each distance by its effect."""
    elements = ("Mg", "Si", "O")
    amounts = st.dictionaries(st.sampled_from(elements), st.integers(1, 4), min_size=2)
    rows = data.draw(st.lists(st.tuples(amounts, st.floats(-1, 0.5)), min_size=1, max_size=8))
    compositions = CompositionArrays.from_amounts([*({symbol: 1} for symbol in elements), *(row for row, _ in rows)])
    noise = np.random.default_rng(SEED).normal(scale=1e-3, size=len(rows))  # so that no two energies tie
    energies = np.array([0.0, 0.0, 0.0, *(np.array([energy for _, energy in rows]) + noise)])
    coefficients = np.random.default_rng(SEED + 1).normal(size=(len(energies), 2))
    errors = EnergyErrors(("a", "b"), csr_array(coefficients))
    found = first_order(ConvexHull(compositions, energies), errors, range(3, len(energies)))
    step = 1e-7
    for j in range(2):
        moved = ConvexHull(compositions, energies + step * coefficients[:, j]).numbers(found.indices)
        slope = (moved.e_to_hull_of_others - found.distance) / step
        small = np.abs(found.distance) > 1e-4  # at 0 the products may change
        assume(small.any())
        np.testing.assert_allclose(slope[small], found.effects.toarray()[small, j], atol=2e-3)


def test_members_of_a_system_are_those_of_its_subsystems_too() -> None:
    """MgO and the elements lie within Mg-O, silicates do not."""
    assert OXIDES.compositions.within(("Mg", "O")).tolist() == [0, 2, 3]
    some = OXIDES.compositions.take(np.array([5, 3]))
    assert [system for system, _ in some] == [("Mg", "O", "Si"), ("Mg", "O")]
