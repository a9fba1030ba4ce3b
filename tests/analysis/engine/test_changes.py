"""Changes of a hull: certificates, canonical numbers and both implementations of the linear programs."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from hullworks.analysis.convex_hull import CompositionArrays, ConvexHull, HullChange, HullNumbers
from hullworks.analysis.engine.choice import Choice

if TYPE_CHECKING:
    from collections.abc import Iterator

ELEMENTS = ("Fe", "Ge", "Li", "Mg", "Na", "O", "P", "Si")
Entry = tuple[dict[str, int], float]


@pytest.fixture(params=["numpy", "numba"])
def implementation(request: pytest.FixtureRequest) -> Iterator[str]:
    """Let a test run with each implementation of the linear programs."""
    if request.param == "numba":
        pytest.importorskip("numba")
    Choice.compiled = request.param == "numba"
    yield request.param
    Choice.compiled = True


class Case:
    """A random system of up to eight elements that changes at random; energies on a grid tie often."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.elements = ELEMENTS[: self.rng.randint(1, 8)]
        self.grid = self.rng.random() < 0.5
        self.offsets = {e: self.rng.uniform(-900, 0) if seed % 2 else 0.0 for e in ELEMENTS}

    def entries(self, n: int) -> list[Entry]:
        """Return random entries."""
        return [self.entry(self.rng.sample(self.elements, self.rng.randint(1, len(self.elements)))) for _ in range(n)]

    def entry(self, elements: list[str], energy: float | None = None) -> Entry:
        """Return an entry of some elements, its energy in the case's own frame."""
        amounts = {element: self.rng.randint(1, 4) for element in elements}
        if energy is None:
            energy = self.rng.randint(-8, 3) / 8 if self.grid else self.rng.uniform(-1, 0.3)
        return amounts, energy + sum(n * self.offsets[e] for e, n in amounts.items()) / sum(amounts.values())

    def start(self) -> list[Entry]:
        """Return entries to begin with; sometimes a reference is missing."""
        pure = [self.entry([element], 0.0) for element in self.elements]
        if self.rng.random() < 0.3:
            pure.pop(self.rng.randrange(len(pure)))
        return [*pure, *self.entries(self.rng.randint(0, 25))]

    def step(self, alive: dict[int, Entry]) -> tuple[list[int], list[Entry]]:
        """Return what goes and what comes."""
        new = self.entries(self.rng.randint(0, 8))
        if self.rng.random() < 0.3:
            new.append(self.entry([self.rng.choice(self.elements)], self.rng.uniform(-0.3, 0.3)))
        return [i for i in alive if self.rng.random() < 0.15], new


def build(entries: list[Entry]) -> ConvexHull:
    """Build a hull."""
    return ConvexHull(CompositionArrays.from_amounts([a for a, _ in entries]), [e for _, e in entries])


def apply(hull: ConvexHull, alive: dict[int, Entry], gone: list[int], new: list[Entry]) -> HullChange:
    """Change a hull, and the record of its entries."""
    change = hull.update(
        remove=gone,
        compositions=CompositionArrays.from_amounts([a for a, _ in new]),
        energies_per_atom=[e for _, e in new],
    )
    for i in gone:
        del alive[i]
    alive |= dict(zip(change.added.tolist(), new, strict=True))
    return change


def cheapest(entries: list[Entry], target: dict[str, int]) -> float:
    """Return the energy of the cheapest mixture by HiGHS, NaN where there is none."""
    symbols = sorted(target)
    inside = [(a, e) for a, e in entries if set(a) <= set(symbols)]
    if not inside:
        return np.nan
    columns = np.array([[a.get(s, 0) / sum(a.values()) for s in symbols] for a, _ in inside]).T
    x = np.array([target[s] for s in symbols]) / sum(target.values())
    tight = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
    found = linprog([e for _, e in inside], A_eq=columns, b_eq=x, method="highs", options=tight)
    return float(found.fun) if found.status == 0 else np.nan


def bits(numbers: HullNumbers, ids: list[int]) -> list[bytes]:
    """Return all numbers as bytes, entries under their own names."""
    names = np.array(ids, dtype=np.int64)
    parts = (numbers.formation_energy, numbers.e_above_hull, numbers.e_to_hull_of_others, numbers.fractions)
    return [*(part.tobytes() for part in parts), names[numbers.products].tobytes(), numbers.indptr.tobytes()]


@pytest.mark.usefixtures("implementation")
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_whatever_led_to_a_set_of_entries_its_numbers_have_the_same_bits(seed: int) -> None:
    """After any changes all numbers equal, bit for bit, those of a hull built of what is left; certificates hold."""
    case = Case(seed)
    entries = case.start()
    hull, alive = build(entries), dict(enumerate(entries))
    for _ in range(3):
        apply(hull, alive, *case.step(alive))
        ids = sorted(alive)
        whole = build([alive[i] for i in ids])
        assert bits(hull.numbers(ids), list(range(len(hull)))) == bits(whole.numbers(np.arange(len(ids))), ids)
        assert hull.verify() < 1e-9
        np.testing.assert_allclose(hull.e_above_hull[ids], hull.numbers(ids).e_above_hull, atol=1e-9)


@pytest.mark.usefixtures("implementation")
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_what_a_change_does_not_touch_keeps_its_bits(seed: int) -> None:
    """No number of an entry changes that is not among those touched, decompositions and ties included."""
    case = Case(seed)
    entries = case.start()
    hull, alive = build(entries), dict(enumerate(entries))
    before = hull.numbers(sorted(alive))
    change = apply(hull, alive, *case.step(alive))
    kept = [i for i in sorted(alive) if i < len(entries) and i not in set(change.touched.tolist())]
    rows = [before.indices.tolist().index(i) for i in kept]
    after = hull.numbers(kept)
    assert [before.decomposition(r) for r in rows] == [after.decomposition(r) for r in range(len(kept))]
    for name in ("formation_energy", "e_above_hull", "e_to_hull_of_others"):
        assert getattr(before, name)[rows].tobytes() == getattr(after, name).tobytes()


@pytest.mark.usefixtures("implementation")
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_distances_equal_a_linear_program_over_raw_entries(seed: int) -> None:
    """Up to eight elements: energies above hull and to the hull of all others are those of HiGHS to 1e-8 eV/atom."""
    case = Case(seed)
    entries = case.start()
    numbers = build(entries).numbers(np.arange(len(entries)))
    for i in case.rng.sample(range(len(entries)), min(8, len(entries))):
        amounts, energy = entries[i]
        for others, found in (
            (entries, numbers.e_above_hull[i]),
            (entries[:i] + entries[i + 1 :], numbers.e_to_hull_of_others[i]),
        ):
            there = {next(iter(a)) for a, _ in others if len(a) == 1}
            expected = energy - cheapest(others, amounts) if set(amounts) <= there else np.nan
            assert found == pytest.approx(expected, abs=1e-8, nan_ok=True)


@pytest.mark.usefixtures("implementation")
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_what_an_entry_is_stable_against_is_the_hull_without_it(seed: int) -> None:
    """The mixture of others is one of the hull without the entry, at the distance that the numbers give."""
    case = Case(seed)
    entries = case.start()
    hull = build(entries)
    numbers = hull.numbers(np.arange(len(entries)))
    for i in case.rng.sample(range(len(entries)), min(8, len(entries))):
        mixture, distance = hull.decomposition_of_others(i), numbers.e_to_hull_of_others[i]
        assert bool(mixture) == np.isfinite(distance)
        if not mixture:
            continue
        assert i not in {j for j, _ in mixture}
        assert sum(share for _, share in mixture) == pytest.approx(1, abs=1e-12)
        assert entries[i][1] - sum(entries[j][1] * share for j, share in mixture) == pytest.approx(distance, abs=1e-8)
        alone = hull.update(remove=[i])
        assert {j for j, _ in mixture} <= set(hull.stable.tolist())
        back = hull.add(CompositionArrays.from_amounts([entries[i][0]]), [entries[i][1]])
        assert len(alone.removed) == len(back.added) == 1
        hull = build(entries)


def test_the_compiled_programs_agree_with_those_of_numpy() -> None:
    """A thousand compositions of five elements have the same bits either way."""
    pytest.importorskip("numba")
    case = Case(11)
    case.elements, case.grid = ELEMENTS[:5], False
    entries = [case.entry([e], 0.0) for e in case.elements] + case.entries(1000)
    every = list(range(len(entries)))
    compiled = bits(build(entries).numbers(every), every)
    Choice.compiled = False
    try:
        assert bits(build(entries).numbers(every), every) == compiled
    finally:
        Choice.compiled = True


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("spoiled", ["mu", "lam", "basis", "x"])
def test_a_spoiled_certificate_is_noticed(spoiled: str) -> None:
    """One wrong number in a proof, and it proves nothing any more."""
    case = Case(12)
    case.elements, case.grid = ELEMENTS[:4], False
    hull = build([case.entry([e], 0.0) for e in case.elements] + case.entries(200))
    assert hull.verify() < 1e-10
    comps, flat = hull._store.comps, hull._store.flat
    victim = int(np.flatnonzero((comps["k"] == 4) & ~comps["vertex"])[0])
    place = int(comps["off"][victim])
    flat[spoiled][place] = flat["basis"][place + 1] if spoiled == "basis" else flat[spoiled][place] + 1e-3
    assert hull.verify() > 1e-5


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("column", ["h", "e", "vertex", "ground"])
def test_a_spoiled_composition_is_noticed(column: str) -> None:
    """So is one whose height, energy, place or ground state is wrong."""
    case = Case(13)
    case.elements, case.grid = ELEMENTS[:3], False
    hull = build([case.entry([e], 0.0) for e in case.elements] + case.entries(200))
    comps = hull._store.comps
    victim = int(np.flatnonzero((comps["k"] == 3) & comps["vertex"])[0])
    comps[column][victim] = {"h": 1.0, "e": -9.0, "vertex": False, "ground": 0}[column]
    assert hull.verify() > 1e-5


@pytest.mark.usefixtures("implementation")
def test_another_entry_at_the_same_energy_is_told_to_all_that_may_be_mixed_of_it() -> None:
    """Of several equally cheap mixtures the canonical one may name a phase that the proof does not."""
    line: list[Entry] = [({"Mg": n, "Si": 6 - n}, -0.5) for n in range(1, 6)]
    entries: list[Entry] = [({"Mg": 1}, -0.5), ({"Si": 1}, -0.5), *line, ({"Mg": 7, "Si": 5}, 0.1)]
    for removed in range(2, 7):
        hull = build([*entries, entries[removed]])
        before = hull.numbers([7])
        change = hull.remove([removed])
        after = hull.numbers([7])
        assert before.products.tolist() == after.products.tolist() or 7 in change.touched


@pytest.mark.usefixtures("implementation")
def test_a_proof_that_is_no_number_proves_nothing() -> None:
    """NaN is smaller than nothing, and is not taken for round-off."""
    hull = build([({"Mg": 1}, 0.0), ({"Si": 1}, 0.0), ({"Mg": 2, "Si": 1}, -0.2), ({"Mg": 1, "Si": 1}, 0.1)])
    hull._store.flat["mu"][-1] = np.nan
    assert hull.verify() > 1


def test_systems_of_many_elements_are_scanned() -> None:
    """Twelve elements, more than are looked up subset by subset, have the same hull as a linear program."""
    elements = [*ELEMENTS, "C", "N", "S", "Al"]
    rng = random.Random(3)
    entries: list[Entry] = [({e: 1}, 0.0) for e in elements]
    for _ in range(60):
        inside = rng.sample(elements, rng.choice([2, 3, 4, 11, 12]))
        entries.append(({e: rng.randint(1, 4) for e in inside}, rng.uniform(-1, 0)))
    hull = build(entries)
    assert hull.verify() < 1e-10
    for i in range(len(elements), len(entries)):
        expected = entries[i][1] - cheapest(entries, entries[i][0])
        assert hull.e_above_hull[i] == pytest.approx(expected, abs=1e-8)
