"""Tests of the convex hull against pymatgen's PhaseDiagram, an independent linear program, and its own claims."""

from __future__ import annotations

import csv
import gzip
import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core.composition import Composition
from scipy.optimize import linprog

from hullworks.analysis.convex_hull import CompositionArrays, ConvexHull
from hullworks.errors import HullError

ELEMENTS = ("Mg", "Si", "Ge", "O", "Li", "Fe")
PUBLISHED = Path(__file__).parents[2].parent / "shared" / "hull_data" / "mp_e_form.csv.gz"
"""Formation energies of 133 thousand published entries, where this machine has them."""

Amounts = dict[str, int]
Entry = tuple[Amounts, float]

grid_or_any = st.one_of(st.integers(-8, 4).map(lambda n: n / 8), st.floats(-2, 1))
"""Energies that tie and lie on tie lines often, and energies that never do."""


def compounds(elements: tuple[str, ...], size: int) -> st.SearchStrategy[list[Entry]]:
    """Return compounds of some elements, with duplicates, polymorphs and ties."""
    amounts = st.dictionaries(st.sampled_from(elements), st.integers(1, 4), min_size=1, max_size=len(elements))
    return st.lists(st.tuples(amounts, grid_or_any), max_size=size)


@st.composite
def systems(draw: st.DrawFn, max_elements: int = 6, size: int = 24) -> list[Entry]:
    """Return entries of a system with all elements, in total energies with any reference per element."""
    elements = ELEMENTS[: draw(st.integers(1, max_elements))]
    offsets = dict(zip(elements, draw(st.lists(st.floats(-900, 0), min_size=6, max_size=6)), strict=False))
    pure: list[Entry] = [({element: 1}, 0.0) for element in elements]
    return [
        (amounts, energy + sum(n * offsets[symbol] for symbol, n in amounts.items()) / sum(amounts.values()))
        for amounts, energy in draw(st.permutations([*pure, *draw(compounds(elements, size))]))
    ]


def build(entries: list[Entry]) -> ConvexHull:
    """Build a hull from amounts and energies per atom."""
    return ConvexHull(CompositionArrays.from_amounts([a for a, _ in entries]), [e for _, e in entries])


def program(entries: list[Entry], target: Amounts) -> float:
    """Return the hull energy in eV/atom at a composition by linear programming over all entries within its elements."""
    symbols = sorted(target)
    inside = [(a, e) for a, e in entries if set(a) <= set(symbols)]
    columns = np.array([[a.get(s, 0) / sum(a.values()) for s in symbols] for a, _ in inside]).T
    x = np.array([target[s] for s in symbols]) / sum(target.values())
    references = np.array([min(e for a, e in inside if set(a) == {s}) for s in symbols])
    formation = np.array([e for _, e in inside]) - references @ columns
    tight = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}  # by default 1e-7
    return float(linprog(formation, A_eq=columns, b_eq=x, method="highs", options=tight).fun + references @ x)


def same(left: ConvexHull, right: ConvexHull) -> None:
    """Assert that a hull with gaps equals one built from scratch of its active entries."""
    np.testing.assert_allclose(left.e_above_hull[left.active], right.e_above_hull, atol=1e-9)
    assert np.flatnonzero(np.isin(np.flatnonzero(left.active), left.stable)).tolist() == right.stable.tolist()


@settings(max_examples=60, deadline=None)
@given(systems())
def test_energies_above_hull_equal_those_of_pymatgen(entries: list[Entry]) -> None:
    """Up to six elements, pymatgen's PhaseDiagram and this hull agree to 1e-8 eV/atom for every entry."""
    hull = build(entries)
    computed = [PDEntry(Composition(a), e * sum(a.values())) for a, e in entries]
    diagram = PhaseDiagram(computed)
    expected = np.array([diagram.get_e_above_hull(entry) for entry in computed], dtype=float)
    np.testing.assert_allclose(hull.e_above_hull, expected, atol=1e-8)
    np.testing.assert_allclose(
        hull.formation_energy_per_atom, [diagram.get_form_energy_per_atom(entry) for entry in computed], atol=1e-8
    )


@settings(max_examples=60, deadline=None)
@given(systems())
def test_energies_above_hull_equal_a_linear_program(entries: list[Entry]) -> None:
    """Up to six elements, the cheapest mixture found by HiGHS is the hull, to 1e-8 eV/atom."""
    hull = build(entries)
    expected = [energy - program(entries, amounts) for amounts, energy in entries]
    np.testing.assert_allclose(hull.e_above_hull, expected, atol=1e-8)
    assert (hull.e_above_hull >= 0).all()
    assert hull.verify() < 1e-9


@settings(max_examples=40, deadline=None)
@given(systems())
def test_decompositions_make_up_the_entry_at_the_energy_of_the_hull(entries: list[Entry]) -> None:
    """Phase fractions sum to 1, reproduce the composition, and their energy is the entry's less its distance."""
    hull = build(entries)
    rows, stable = list(hull.compositions), set(hull.stable.tolist())
    for i, (amounts, energy) in enumerate(entries):
        phases = hull.decomposition(i)
        made = dict.fromkeys(ELEMENTS, 0.0)
        for j, share in phases:
            for symbol, fraction in zip(*rows[j], strict=True):
                made[symbol] += share * fraction
        wanted = {s: amounts.get(s, 0) / sum(amounts.values()) for s in ELEMENTS}
        assert made == pytest.approx(wanted, abs=1e-9)
        assert sum(share for _, share in phases) == pytest.approx(1, abs=1e-12)
        assert {j for j, _ in phases} <= stable
        mixture = sum(entries[j][1] * share for j, share in phases)
        assert mixture == pytest.approx(energy - hull.e_above_hull[i], abs=1e-8)


@settings(max_examples=40, deadline=None)
@given(systems(max_elements=4), st.data())
def test_any_sequence_of_changes_equals_building_from_scratch(entries: list[Entry], data: st.DataObject) -> None:
    """After adding and removing, elemental references too, every energy above hull is that of a new hull."""
    hull, alive = build([]), dict[int, Entry]()
    for entry in entries:
        before = hull.e_above_hull
        change = hull.add(CompositionArrays.from_amounts([entry[0]]), [entry[1]])
        alive[int(change.added[0])] = entry
        if data.draw(st.integers(0, 3)) == 0:
            gone = data.draw(st.sampled_from(sorted(alive)))
            before = hull.e_above_hull
            change = hull.remove([gone])
            del alive[gone]
        np.testing.assert_array_equal(change.e_above_hull_after, hull.e_above_hull[change.affected])
        kept = np.setdiff1d(np.arange(len(before)), change.affected)
        np.testing.assert_allclose(hull.e_above_hull[kept], before[kept], atol=1e-9)
        same(hull, build(list(alive.values())))


@settings(max_examples=30, deadline=None)
@given(systems(max_elements=4), st.data())
def test_a_query_tells_what_adding_would_do(entries: list[Entry], data: st.DataObject) -> None:
    """A queried composition below the hull enters it when added; one above gets the queried distance."""
    hull = build(entries)
    amounts = data.draw(st.sampled_from([a for a, _ in entries]))
    energy = program(entries, amounts) + data.draw(st.sampled_from([-0.3, -0.01, 0.0, 0.02]))
    composition = CompositionArrays.from_amounts([amounts])
    signed = hull.query(composition, [energy])[0]
    assert signed == pytest.approx(energy - program(entries, amounts), abs=1e-8)
    new = int(hull.add(composition, [energy]).added[0])
    assert hull.e_above_hull[new] == pytest.approx(max(signed, 0), abs=1e-8)
    assert hull.e_to_hull_of_others(new) == pytest.approx(signed, abs=1e-8)


@settings(max_examples=30, deadline=None)
@given(systems(max_elements=4))
def test_no_entry_undercuts_the_chemical_potentials_of_another(entries: list[Entry]) -> None:
    """Chemical potentials at an entry sum to its hull energy and price every phase of its system at most its energy."""
    hull = build(entries)
    formation = hull.formation_energy_per_atom
    rows = list(hull.compositions)
    for i, (system, fractions) in enumerate(rows):
        mu = hull.chemical_potentials(i)
        assert sum(n * mu[s] for s, n in zip(system, fractions, strict=True)) == pytest.approx(
            formation[i] - hull.e_above_hull[i], abs=1e-8
        )
        for (other, x), energy in zip(rows, formation, strict=True):
            if set(other) <= set(system):
                assert sum(n * mu[s] for s, n in zip(other, x, strict=True)) <= energy + 1e-8


def test_entries_that_tie_are_both_stable() -> None:
    """Two entries of one composition and one energy are both on the hull, and each decomposes into itself."""
    hull = ConvexHull.from_entries(["Mg", "Si", "Mg2Si", "Mg4Si2"], [0, 0, -0.15, -0.15])
    assert hull.e_above_hull.tolist() == [0, 0, 0, 0]
    assert hull.stable.tolist() == [0, 1, 2, 3]
    assert [hull.decomposition(i) for i in (2, 3)] == [[(2, 1.0)], [(3, 1.0)]]
    assert hull.e_to_hull_of_others(2) == 0
    assert hull.e_to_hull_of_others(2, ignore_polymorphs=True) == pytest.approx(-0.15)


def test_a_polymorph_decomposes_into_the_ground_state() -> None:
    """A higher polymorph's distance is the energy between the two, elements included."""
    hull = ConvexHull.from_entries(["Mg", "Si", "Si", "Mg2Si", "Mg2Si"], [-1.0, -5.0, -4.9, -2.5, -2.4])
    assert hull.e_above_hull.tolist() == pytest.approx([0, 0, 0.1, 0, 0.1])
    assert hull.decomposition(2) == [(1, 1.0)]
    assert hull.decomposition(4) == [(3, 1.0)]


def test_an_entry_on_a_tie_line_is_on_the_hull() -> None:
    """An entry exactly between two stable phases has no energy above hull, and nothing lies below it."""
    hull = ConvexHull.from_entries(["Mg", "Si", "Ge", "Mg2Si", "Mg2Ge", "Mg4SiGe"], [0, 0, 0, -0.15, -0.25, -0.2])
    assert hull.e_above_hull[5] == 0
    assert hull.e_to_hull_of_others(5) == 0
    assert hull.decomposition(5) == [(5, 1.0)]


def test_a_stable_phase_tells_how_deep_it_lies() -> None:
    """Without itself the phase would be a mixture of its neighbours, whose energy minus its own is its depth."""
    hull = ConvexHull.from_entries(["Mg", "Si", "Mg3Si", "MgSi"], [0, 0, -0.1, -0.3])
    assert hull.e_to_hull_of_others(3) == pytest.approx(-0.3 + 2 / 3 * 0.1)
    assert hull.decomposition(2) == [(0, 0.5), (3, 0.5)]


def test_a_missing_reference_is_reported_and_not_guessed() -> None:
    """Without silicon every silicide is NaN, magnesium is not, and asking for a decomposition names silicon."""
    hull = ConvexHull.from_entries(["Mg", "Mg2Si", "Mg2Ge", "Ge"], [0, -0.15, -0.2, 0])
    assert hull.missing_elements == ("Si",)
    assert np.isnan(hull.e_above_hull).tolist() == [False, True, False, False]
    assert np.isnan(hull.formation_energy_per_atom).tolist() == [False, True, False, False]
    assert np.isnan(hull.query(["SiGe"], [0.0])).all()
    with pytest.raises(HullError, match="Si"):
        hull.decomposition(1)
    with pytest.raises(HullError, match="Si"):
        hull.query_decomposition("Mg3Si")


def test_a_reference_that_arrives_completes_its_systems() -> None:
    """Adding silicon turns NaN into a verdict for every silicide, and removing it takes the verdict back."""
    hull = ConvexHull.from_entries(["Mg", "Mg2Si", "MgSi"], [0, -0.15, 0.17])
    arrived = hull.add(["Si"], [0.0])
    assert arrived.affected.tolist() == [1, 2, 3]
    assert arrived.entered.tolist() == [1, 3]
    assert np.isnan(arrived.e_above_hull_before).all()
    assert arrived.e_above_hull_after.tolist() == pytest.approx([0, 0.2825, 0])
    left = hull.remove([3])
    assert left.left.tolist() == [1, 3]
    assert np.isnan(left.e_above_hull_after).all()
    assert hull.missing_elements == ("Si",)


def test_a_lower_reference_raises_what_was_stable() -> None:
    """A lower polymorph of an element displaces the old one and takes weak compounds off the hull."""
    hull = ConvexHull.from_entries(["Mg", "Si", "MgSi"], [0, 0, -0.01])
    change = hull.add(["Si"], [-0.1])
    assert (change.affected.tolist(), change.entered.tolist(), change.left.tolist()) == ([1, 2, 3], [3], [1, 2])
    assert hull.e_above_hull.tolist() == pytest.approx([0, 0.1, 0.04, 0])


def test_an_entry_above_the_hull_moves_nobody() -> None:
    """Adding or removing an unstable entry affects itself alone."""
    hull = ConvexHull.from_entries(["Mg", "Si", "Mg2Si"], [0, 0, -0.15])
    assert hull.add(["MgSi"], [0.1]).affected.tolist() == [3]
    assert hull.remove([3]).affected.tolist() == [3]


def test_a_corrected_energy_is_one_change() -> None:
    """Update removes and adds at once; whoever is stable before and after neither enters nor leaves."""
    hull = ConvexHull.from_entries(["Mg", "Si", "Mg2Si"], [0, 0, -0.15])
    change = hull.update(remove=[2], compositions=["Mg2Si"], energies_per_atom=[-0.2])
    assert (change.removed.tolist(), change.added.tolist(), change.affected.tolist()) == ([2], [3], [2, 3])
    assert hull.stable.tolist() == [0, 1, 3]
    assert hull.active.tolist() == [True, True, False, True]


def test_a_new_phase_moves_only_the_systems_that_hold_it() -> None:
    """A Mg-Si phase moves Mg-Si-Ge entries that compete with it, and no Ge-Si entry."""
    hull = ConvexHull.from_entries(["Mg", "Si", "Ge", "MgSiGe", "SiGe"], [0, 0, 0, 0.1, 0.03])
    assert hull.add(["Mg2Si"], [-0.15]).affected.tolist() == [3, 5]


@pytest.mark.parametrize(
    ("compositions", "energies", "said"),
    [
        (["Xx"], [0.0], "not an element"),
        (["mg2si"], [0.0], "not a chemical formula"),
        (["Mg"], [float("nan")], "not finite"),
        (["Mg", "Si"], [0.0], "2 compositions"),
    ],
)
def test_what_is_no_entry_is_refused(compositions: list[str], energies: list[float], said: str) -> None:
    """Formulas that cannot be read, unknown elements, NaN energies and unequal lengths are named."""
    with pytest.raises(HullError, match=said):
        ConvexHull.from_entries(compositions, energies)


def test_a_refused_change_changes_nothing() -> None:
    """Removing an unknown entry beside a good one leaves the hull as it was."""
    hull = ConvexHull.from_entries(["Mg", "Si"], [0, 0])
    with pytest.raises(HullError, match="no entry 7"):
        hull.remove([0, 7])
    assert hull.active.all()
    hull.remove([0])
    with pytest.raises(HullError, match="no entry 0"):
        hull.remove([0])


def test_arrays_that_are_no_compositions_are_refused() -> None:
    """Fractions that do not sum to 1, repeated elements and broken row pointers are errors."""
    index, one = np.array([0]), np.array([1.0])
    for arrays in [
        (("Mg",), np.array([0, 1]), index, np.array([0.9])),
        (("Si", "Mg"), np.array([0, 1]), index, one),
        (("Mg",), np.array([0, 2]), index, one),
        (("Mg",), np.array([0, 1]), np.array([1]), one),
        (("Mg",), np.array([0, 2]), np.array([0, 0]), np.array([0.5, 0.5])),
    ]:
        with pytest.raises(HullError):
            CompositionArrays(*arrays)


def test_oxidation_states_do_not_matter() -> None:
    """A composition of ions is the composition of its elements."""
    ions = Composition("Mg2Si").add_charges_from_oxi_state_guesses()
    assert next(iter(CompositionArrays.from_compositions([ions])))[0] == ("Mg", "Si")


def test_an_empty_hull_has_nothing_to_say() -> None:
    """A hull without entries has no elements, no missing ones, and nothing stable."""
    hull = ConvexHull.from_entries([], [])
    assert (len(hull), hull.elements, hull.missing_elements, hull.stable.tolist()) == (0, (), (), [])
    assert hull.verify() == 0


def test_a_pickled_hull_answers_and_changes_alike() -> None:
    """A copy in another process gives the same numbers, and a change of the copy leaves the original alone."""
    hull = ConvexHull.from_entries(["Mg", "Si", "Mg2Si", "MgSi"], [0, 0, -0.15, 0.17])
    copy = pickle.loads(pickle.dumps(hull))  # noqa: S301 - our own bytes
    copy.remove([2])
    assert hull.e_above_hull[3] == pytest.approx(0.2825)
    assert copy.e_above_hull[3] == pytest.approx(0.17)


def test_threads_may_read_while_one_writes() -> None:
    """Many readers and writers at once end in the hull that a single thread builds."""
    hull = ConvexHull.from_entries(["Mg", "Si", "Ge"], [0, 0, 0])
    formulas = [f"Mg{a}Si{b}Ge{c}" for a in range(1, 4) for b in range(1, 4) for c in range(1, 4)]
    energies = np.random.default_rng(1).uniform(-0.4, 0.2, len(formulas))

    def work(i: int) -> float:
        hull.add([formulas[i]], [energies[i]])
        return float(hull.e_above_hull.sum())

    with ThreadPoolExecutor(8) as pool:
        assert np.isfinite(list(pool.map(work, range(len(formulas))))).all()
    alone = ConvexHull.from_entries(["Mg", "Si", "Ge", *formulas], [0, 0, 0, *energies])
    np.testing.assert_allclose(np.sort(hull.e_above_hull), np.sort(alone.e_above_hull), atol=1e-9)
    assert hull.verify() < 1e-9


def test_the_first_candidate_of_a_new_system_competes_with_all_below() -> None:
    """LiFeO2 as the first ternary: pymatgen's incremental update calls it stable; LiO and Fe lie 2.25 eV/atom lower."""
    hull = ConvexHull.from_entries(["Li", "Fe", "O", "LiO"], [0, 0, 0, -5.0])
    added = int(hull.add(["LiFeO2"], [-0.25]).added[0])
    assert hull.e_above_hull[added] == pytest.approx(2.25)
    assert hull.decomposition(added) == [(1, 0.25), (2, 0.25), (3, 0.5)]


def test_a_system_inside_a_larger_one_does_not_go_stale() -> None:
    """Li2O again, lower, after a ternary made its own patch redundant: the old one is 0.5 above, the new one stable."""
    hull = ConvexHull.from_entries(["Li", "Fe", "O", "LiO"], [0, 0, 0, -1.0])
    hull.add(["LiFeO2"], [-2.0])
    lower = int(hull.add(["LiO"], [-1.5]).added[0])
    assert hull.e_above_hull[[3, lower]].tolist() == [0.5, 0.0]


def test_two_entries_of_one_composition_are_two_entries() -> None:
    """Not both 0, as where phases are told apart by their name; the higher decomposes into the lower."""
    hull = ConvexHull.from_entries(["Mg", "Si", "Mg2Si", "Mg2Si"], [0, 0, -0.2, -0.15])
    assert hull.e_above_hull[2:].tolist() == pytest.approx([0, 0.05])
    assert hull.e_to_hull_of_others(2) == pytest.approx(-0.05)
    assert hull.e_to_hull_of_others(2, ignore_polymorphs=True) == pytest.approx(-0.2)


def test_an_energy_that_is_corrected_upwards_counts() -> None:
    """Mg2Si rises above MgSi's tie line: its neighbours come back, and nobody keeps what it proved."""
    hull = ConvexHull.from_entries(["Mg", "Si", "Mg2Si", "Mg3Si"], [0, 0, -0.3, -0.1])
    assert hull.stable.tolist() == [0, 1, 2]
    change = hull.update(remove=[2], compositions=["Mg2Si"], energies_per_atom=[-0.05])
    assert (change.entered.tolist(), change.left.tolist()) == ([3], [2])
    assert hull.stable.tolist() == [0, 1, 3]


def test_a_new_element_begins_with_its_compound() -> None:
    """A compound of an element that nobody has is incomplete until the element comes."""
    hull = ConvexHull.from_entries(["Mg", "Si"], [0, 0])
    change = hull.add(["MgSiGe", "Mg2Ge"], [-0.1, -0.1])
    assert (hull.missing_elements, change.entered.tolist()) == (("Ge",), [])
    assert hull.add(["Ge"], [-4.0]).entered.tolist() == [4]
    assert hull.e_above_hull[[2, 3]].tolist() == pytest.approx([-0.1 + 4 / 3, -0.1 + 4 / 3])


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the published formation energies are not on this machine")
def test_published_systems_agree_with_pymatgen() -> None:
    """For systems of 3 to 5 elements with real formation energies, this hull is that of pymatgen."""
    wanted = [set(s.split("-")) for s in ("Li-Fe-O", "Mg-Si-Ge-O", "Li-Fe-P-O", "Ti-Al-N", "Na-Mn-Ni-O", "Li-Mn-P-O-F")]
    with gzip.open(PUBLISHED, "rt") as stream:
        rows = [(row["formula"], float(row["target"])) for row in csv.DictReader(stream)]
    held = [frozenset(re.findall("[A-Z][a-z]?", formula)) for formula, _ in rows]
    for elements in wanted:
        inside = [(Composition(f), e) for (f, e), symbols in zip(rows, held, strict=True) if symbols <= elements]
        inside += [(Composition(symbol), 0.0) for symbol in sorted(elements)]
        hull = ConvexHull.from_entries([c for c, _ in inside], [e for _, e in inside])
        entries = [PDEntry(c, e * c.num_atoms) for c, e in inside]
        diagram = PhaseDiagram(entries)
        expected = np.array([diagram.get_e_above_hull(entry) for entry in entries], dtype=float)
        np.testing.assert_allclose(hull.e_above_hull, expected, atol=1e-8)
        assert len(inside) > 30
        assert hull.verify() < 1e-9
