"""Tests of P(stable) against brute force with pymatgen, against closed forms, and for the same bytes everywhere."""

from __future__ import annotations

import doctest
import pickle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from pymatgen.analysis.phase_diagram import GrandPotentialPhaseDiagram, PDEntry, PhaseDiagram
from pymatgen.core.composition import Composition
from pymatgen.core.periodic_table import Element
from scipy.optimize import linprog
from scipy.stats import binomtest, norm

from hullworks.analysis.convex_hull import CompositionArrays, ConvexHull
from hullworks.analysis.ensembles import BLOCK, HullMember, p_stable, solve_members, wilson
from hullworks.analysis.uncertainty import EnergyErrors
from hullworks.analysis.verdicts import load_thresholds
from hullworks.errors import HullError

if TYPE_CHECKING:
    from hullworks.analysis.compositions import FloatArray

DOCS = Path(__file__).parents[2] / "docs" / "uncertainty.md"
FORMULAS = ["Mg", "Si", "O2", "MgO", "SiO2", "MgSiO3", "Mg2SiO4", "Mg2Si", "MgSi", "SiO", "MgO2", "MgSiO3"]
ENERGIES = np.array([0.0, 0.0, 0.0, -3.0, -3.1, -3.07, -3.06, -0.15, -0.07, -1.5, -2.0, -3.06])
ERRORS = EnergyErrors.from_parts([{"own:convergence": 0.02}] * len(FORMULAS)) + EnergyErrors.per_atom(
    CompositionArrays.from_compositions(FORMULAS), {"O": 0.05, "Mg": 0.02}, prefix="oxide ",
    where=[formula not in {"O2", "Mg"} for formula in FORMULAS],
)  # fmt: skip
SEED = 5
STABLE_EV = load_thresholds().stable_eV


def brute_force_energies(sample: int, n_samples: int) -> FloatArray:
    """Return the energies of a draw, from the definition of the model and dense arrays."""
    child = np.random.SeedSequence(SEED).spawn(n_samples)[sample]
    draws = np.random.Generator(np.random.PCG64(child)).standard_normal(len(ERRORS.sources))
    shifted: FloatArray = ENERGIES + ERRORS.coefficients.toarray() @ draws
    return shifted


def distance_by_program(i: int, energies: FloatArray) -> float:
    """Return the distance of an entry from the hull of the others by a linear program."""
    elements = ["Mg", "Si", "O"]
    fractions = [[Composition(f).get_atomic_fraction(el) for f in FORMULAS] for el in elements]
    others = [j for j in range(len(FORMULAS)) if j != i]
    x = np.array(fractions)
    tight = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
    solved = linprog(energies[others], A_eq=x[:, others], b_eq=x[:, i], method="highs", options=tight)
    return float(energies[i] - solved.fun) if solved.success else np.nan


def test_counts_equal_those_of_brute_force() -> None:
    """From the same draws, pymatgen's phase diagrams find each entry stable, and metastable, exactly as often."""
    n = 100
    found = p_stable(ConvexHull.from_entries(FORMULAS, ENERGIES), ERRORS, n, SEED, window_eV=0.03)
    stable, within = np.zeros(len(FORMULAS), int), np.zeros(len(FORMULAS), int)
    for sample in range(n):
        energies = brute_force_energies(sample, n)
        entries = [
            PDEntry(Composition(f), e * Composition(f).num_atoms) for f, e in zip(FORMULAS, energies, strict=True)
        ]
        diagram = PhaseDiagram(entries)
        above = np.array([diagram.get_e_above_hull(entry) for entry in entries])
        stable += above <= STABLE_EV
        within += above <= 0.03
    assert found.n_stable.tolist() == stable.tolist()
    assert found.n_within.tolist() == within.tolist()
    assert 0 < stable[5] < n, "the case must be open"


def test_moments_equal_those_of_brute_force() -> None:
    """Mean and standard deviation of the signed distance are those of linear programs over the same draws."""
    n = BLOCK + 4
    found = p_stable(ConvexHull.from_entries(FORMULAS, ENERGIES), ERRORS, n, SEED)
    draws = [brute_force_energies(sample, n) for sample in range(n)]
    distances = np.array([[distance_by_program(i, e) for i in range(len(FORMULAS))] for e in draws])
    np.testing.assert_allclose(found.mean, distances.mean(axis=0), atol=1e-9)
    np.testing.assert_allclose(found.std, distances.std(axis=0, ddof=1), atol=1e-9)


def test_a_compound_between_two_elements_follows_the_normal_distribution() -> None:
    """With two elements and one compound, P(stable) has a closed form; its 95 % interval holds it."""
    hull = ConvexHull.from_entries(["Mg", "Si", "MgSi"], [0.0, 0.0, -0.01])
    errors = EnergyErrors.from_parts([{"own:c": 0.012}, {"own:c": 0.016}, {"own:c": 0.02}])
    sigma = np.sqrt(0.02**2 + 0.006**2 + 0.008**2)
    found = p_stable(hull, errors, 2000, SEED)
    low, high = found.p_stable_interval[2]
    assert low < norm.cdf((STABLE_EV + 0.01) / sigma) < high
    assert low < found.p_stable[2] < high
    assert found.mean[2] == pytest.approx(-0.01, abs=4 * sigma / np.sqrt(2000))
    assert found.std[2] == pytest.approx(sigma, rel=0.06)
    assert found.p_within[2] == pytest.approx(norm.cdf(0.06 / sigma), abs=0.01)


def test_a_source_that_all_oxides_share_does_not_make_them_uncertain_among_themselves() -> None:
    """However wrong the correction of oxides is, a mixture of oxides stays above or below others as it is."""
    formulas, energies = ["Mg", "Si", "O2", "MgO", "SiO2", "MgSiO3"], [0.0, 0.0, 0.0, -3.0, -3.0, -3.001]
    hull = ConvexHull.from_entries(formulas, energies)
    oxides = np.arange(6) > 2
    shared = EnergyErrors.per_atom(hull.compositions, {"O": 0.1}, prefix="oxide ", where=oxides)
    own = EnergyErrors.from_parts([{"own:c": 0.06} if oxide else {} for oxide in oxides])
    assert p_stable(hull, shared, 64, SEED, indices=[5]).p_stable.tolist() == [1.0]
    assert p_stable(hull, own, 64, SEED, indices=[5]).p_stable[0] < 0.8


def test_the_only_entry_of_an_element_is_always_stable_and_a_missing_element_says_nothing() -> None:
    """Neither has a distance; the one is sure, the other is not guessed."""
    hull = ConvexHull.from_entries(["Mg", "GeO"], [0.0, -1.0])
    found = p_stable(hull, EnergyErrors.from_parts([{"own:c": 0.1}] * 2), 20, SEED)
    assert found.p_stable[0] == 1.0
    assert np.isnan(found.p_stable[1])
    assert np.isnan(found.p_within_interval[1]).all()
    assert np.isnan(found.mean).all()


def test_some_entries_alone_get_the_same_counts_as_among_all() -> None:
    """Entries outside the chemical systems asked for neither are built nor change a draw."""
    formulas = [*FORMULAS, "Ge", "Mg2Ge", "Li"]
    hull = ConvexHull.from_entries(formulas, [*ENERGIES, 0.0, -0.1, 0.0])
    errors = EnergyErrors.from_parts([{"own:c": 0.03, "shared": 0.01}] * len(formulas))
    every = p_stable(hull, errors, 40, SEED)
    some = p_stable(hull, errors, 40, SEED, indices=[13, 5, 7])
    assert some.indices.tolist() == [13, 5, 7]
    assert some.n_stable.tolist() == every.n_stable[[13, 5, 7]].tolist()
    np.testing.assert_allclose(some.std, every.std[[13, 5, 7]], atol=1e-12)


def test_removed_entries_take_no_part() -> None:
    """A hull with a gap gives what it would without the entry; a removed entry cannot be asked for."""
    hull = ConvexHull.from_entries(FORMULAS, ENERGIES)
    hull.remove([11])
    found = p_stable(hull, ERRORS, 10, SEED)
    assert found.indices.tolist() == list(range(11))
    with pytest.raises(HullError):
        p_stable(hull, ERRORS, 10, SEED, indices=[11])


def test_the_same_seed_gives_the_same_bytes_and_another_one_others() -> None:
    """All numbers follow from the hull, the errors, the seed and the number of samples; the hull is left as it was."""
    hull = ConvexHull.from_entries(FORMULAS, ENERGIES)
    before = hull.e_above_hull
    first, again, other = (pickle.dumps(p_stable(hull, ERRORS, 40, seed)) for seed in (SEED, SEED, SEED + 1))
    assert first == again != other
    np.testing.assert_array_equal(hull.e_above_hull, before)


def test_no_sample_is_refused() -> None:
    """An ensemble of nothing says nothing."""
    with pytest.raises(HullError, match="says nothing"):
        p_stable(ConvexHull.from_entries(FORMULAS, ENERGIES), ERRORS, 0, SEED)


def test_sampling_errors_are_wilson_intervals() -> None:
    """They are scipy's, at the ends and between."""
    for count, ends in zip((0, 1, 30, 200), wilson([0, 1, 30, 200], 200), strict=True):
        theirs = binomtest(count, 200).proportion_ci(0.95, method="wilson")
        np.testing.assert_allclose(ends, [theirs.low, theirs.high], atol=1e-12)


def test_members_of_an_ensemble_are_solved_in_order_and_a_bad_one_is_reported() -> None:
    """Correction schemes and levels are hulls of their own; one without sense does not stop the others."""
    compositions = CompositionArrays.from_compositions(FORMULAS)
    oxides = np.array(["O" in formula and formula != "O2" for formula in FORMULAS])
    members = [
        HullMember("uncorrected", compositions, ENERGIES),
        HullMember("broken", compositions, np.full(len(FORMULAS), np.nan)),
        HullMember("corrected", compositions, ENERGIES - 0.3 * oxides),
    ]
    found = solve_members(members)
    assert [failure.index for failure in found.failures] == [1]
    uncorrected, corrected = found.results[0], found.results[2]
    assert uncorrected is not None
    assert corrected is not None
    np.testing.assert_allclose(uncorrected.e_above_hull, ConvexHull(compositions, ENERGIES).e_above_hull, atol=1e-12)
    np.testing.assert_allclose(corrected.formation_energy - uncorrected.formation_energy, -0.3 * oxides, atol=1e-12)


def test_grand_potentials_equal_those_of_pymatgen() -> None:
    """With a reservoir of oxygen, distances per atom that stays equal those of GrandPotentialPhaseDiagram."""
    entries = [PDEntry(Composition(f), e * Composition(f).num_atoms) for f, e in zip(FORMULAS, ENERGIES, strict=True)]
    member = HullMember("pbe", CompositionArrays.from_compositions(FORMULAS), ENERGIES)
    for mu in (-6.5, -3.0, -0.5):
        opened, rows = member.open_to({"O": mu})
        hull = ConvexHull(opened.compositions, opened.energies_per_atom)
        diagram = GrandPotentialPhaseDiagram(entries, {Element("O"): mu})
        theirs = {entry.original_entry: diagram.get_e_above_hull(entry) for entry in diagram.all_entries}
        # pymatgen counts energies of grand potential entries per atom that stays, too.
        expected = np.array([theirs[entries[i]] for i in rows.tolist()], dtype=np.float64)
        np.testing.assert_allclose(hull.e_above_hull, expected, atol=1e-8)
        assert opened.name == f"pbe | mu(O) = {mu:g}"
        assert 2 not in rows


def test_the_examples_of_the_documentation_are_right() -> None:
    """Every number that docs/uncertainty.md prints is what its code gives."""
    failed, attempted = doctest.testfile(str(DOCS), module_relative=False, encoding="utf-8")
    assert failed == 0
    assert attempted > 0
