"""The same tasks done by pymatgen, whole or extrapolated from a random sample, each in a process of its own."""

from __future__ import annotations

import pickle
import time
import warnings
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from hull_clock import peak_MB
from hull_data import Entries, settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hull_data import Array
    from hull_sets import Folder
    from pymatgen.analysis.phase_diagram import PatchedPhaseDiagram, PDEntry
    from pymatgen.core.periodic_table import Element

    Spaces = Iterable[frozenset[Element]]

Result = dict[str, Any]


class Clock:
    """Seconds of processor and wall time since it was made.

    >>> sorted(Clock().figures())
    ['cpu_s', 'wall_s']
    """

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def figures(self, of: int = 1, sampled: int = 1) -> dict[str, float]:
        """Return the seconds so far; of a sample, times the number of all over that of the sample."""
        factor = of / sampled
        return {
            "cpu_s": (time.process_time() - self._cpu) * factor,
            "wall_s": (time.perf_counter() - self._wall) * factor,
        }  # fmt: skip


def construct(folder: Folder) -> Result:
    """Build the PatchedPhaseDiagram of all entries but those held back, and keep it for the other steps."""
    from pymatgen.analysis.phase_diagram import PatchedPhaseDiagram

    entries = folder.entries()
    clock = Clock()
    made = _pd_entries(entries)
    conversion = clock.figures()
    built = made[: len(entries) - settings()["held_back"]]
    clock = Clock()
    diagram = PatchedPhaseDiagram(built, verbose=True)
    spent, peak = clock.figures(), peak_MB()
    with (folder.path / "patched.pickle").open("wb") as file:
        pickle.dump((diagram, made), file, protocol=5)
    return {
        "construct": spent, "conversion": conversion, "entries": len(built), "spaces": len(diagram.spaces),
        "stable": len(diagram.stable_entries), "peak_MB": peak,
    }  # fmt: skip


def ask(folder: Folder) -> Result:
    """Ask the PatchedPhaseDiagram for energies above hull with decompositions, of its entries and of unseen ones."""
    diagram, made = _kept(folder)
    n_built = len(made) - settings()["held_back"]
    rows = _sample(n_built, settings()["peer"]["entries"])
    own, answers = _asked(diagram, [made[i] for i in rows], n_built)
    unseen = folder.unseen()
    compounds = _pd_entries(unseen)
    asked = _sample(len(compounds), settings()["peer"]["unseen"])
    foreign, distances = _asked(diagram, [compounds[i] for i in asked], len(compounds))
    patched = np.array([bool(_containing(diagram, compounds[i])) for i in asked])
    folder.keep_answers("peer_ask", rows=rows, e_above_hull=answers, asked=asked, e_to_hull=distances, patched=patched)
    return {
        "entries": own, "sampled_entries": len(rows), "unseen": foreign, "sampled_unseen": len(asked),
        "unseen_without_patch": float(1 - patched.mean()), "peak_MB": peak_MB(),
    }  # fmt: skip


def update(folder: Folder) -> Result:
    """Update the PatchedPhaseDiagram with the entries held back, and ask again for all entries of rebuilt spaces."""
    diagram, made = _kept(folder)
    n_built = len(made) - settings()["held_back"]
    clock = Clock()
    updated, info = diagram.update(made[n_built:], return_info=True, on_new_el_ref="recalculate")
    spent = clock.figures()
    rebuilt = [*info["updated_spaces"], *info["new_spaces"]]
    inside = _inside(made, rebuilt)
    rows = np.concatenate([np.arange(n_built, len(made)), _picked(inside[inside < n_built])])
    requery, answers = _asked(updated, [made[i] for i in rows], len(inside))
    folder.keep_answers("peer_update", rows=rows, e_above_hull=answers)
    return {
        "update": spent, "rebuilt_spaces": len(rebuilt), "requery": requery, "entries_in_rebuilt": len(inside),
        "sampled": len(rows), "added": len(made) - n_built, "peak_MB": peak_MB(),
    }  # fmt: skip


def systems(folder: Folder) -> Result:
    """Build one PhaseDiagram per chemical system and ask it for the system's own entries; systems sampled by size."""
    entries = folder.entries()
    made = _pd_entries(entries)[: len(entries) - settings()["held_back"]]
    by_system: dict[frozenset[Element], list[int]] = defaultdict(list)
    for i, entry in enumerate(made):
        by_system[_system(entry)].append(i)
    by_size: dict[int, list[frozenset[Element]]] = defaultdict(list)
    for system in by_system:
        by_size[len(system)].append(system)
    parts, rows, answers = [], [], []
    for size in sorted(by_size):
        listed = sorted(by_size[size], key=lambda system: sorted(element.symbol for element in system))
        sample = [listed[i] for i in _sample(len(listed), settings()["peer"]["systems"])]
        clock = Clock()
        for system in sample:
            own, found = _one_system(system, by_system, made)
            rows += own
            answers += found
        parts.append({
            "elements": size, "systems": len(listed), "sampled": len(sample),
            **clock.figures(len(listed), len(sample)),
        })  # fmt: skip
    folder.keep_answers("peer_systems", rows=np.array(rows), e_above_hull=np.array(answers))
    total = {name: sum(part[name] for part in parts) for name in ("cpu_s", "wall_s")}
    return {"all": total, "by_size": parts, "systems": len(by_system), "peak_MB": peak_MB()}


STEPS: Final[dict[str, Callable[[Folder], Result]]] = {
    step.__name__: step for step in (construct, ask, update, systems)
}  # fmt: skip


def run_step(name: str, folder: Folder) -> Result:
    """Run one step; the warning that a composition has no patch says nothing new."""
    warnings.filterwarnings("ignore", message=".*Using SLSQP.*")
    return STEPS[name](folder)


def _pd_entries(entries: Entries) -> list[PDEntry]:
    """Return entries as pymatgen has them, energies of the whole formula."""
    from pymatgen.analysis.phase_diagram import PDEntry
    from pymatgen.core.composition import Composition

    compositions = [Composition(formula) for formula in entries.formulas()]
    energies = entries.energies.tolist()
    return [
        PDEntry(composition, energy * composition.num_atoms)
        for composition, energy in zip(compositions, energies, strict=True)
    ]


def _kept(folder: Folder) -> tuple[PatchedPhaseDiagram, list[PDEntry]]:
    with (folder.path / "patched.pickle").open("rb") as file:
        kept: tuple[PatchedPhaseDiagram, list[PDEntry]] = pickle.load(file)  # noqa: S301 - the benchmark's own file
    return kept


def _asked(diagram: PatchedPhaseDiagram, sample: list[PDEntry], of: int) -> tuple[dict[str, float], Array]:
    """Ask for decomposition and energy above hull of a sample of so many; return what all take, and the energies."""
    clock = Clock()
    found = [diagram.get_decomp_and_e_above_hull(entry, allow_negative=True, on_error="ignore")[1] for entry in sample]
    spent = clock.figures(of, max(1, len(sample)))
    return spent, np.array([np.nan if energy is None else energy for energy in found])


def _containing(diagram: PatchedPhaseDiagram, entry: PDEntry) -> set[frozenset[Element]]:
    """Return the patches that contain an entry's elements; without one it goes to SLSQP."""
    return diagram._spaces_containing(_system(entry), diagram._spaces_by_el)


def _system(entry: PDEntry) -> frozenset[Element]:
    """Return the elements of an entry, none of which carries an oxidation state here."""
    elements: Any = entry.elements
    return frozenset(elements)


def _inside(made: list[PDEntry], spaces: Spaces) -> Array:
    """Return the entries that lie in one of some spaces."""
    from pymatgen.analysis.phase_diagram import PatchedPhaseDiagram

    by_element = PatchedPhaseDiagram._build_spaces_by_el(spaces)
    systems = [_system(entry) for entry in made]
    contained = {system: bool(PatchedPhaseDiagram._spaces_containing(system, by_element)) for system in set(systems)}
    return np.flatnonzero([contained[system] for system in systems])


def _one_system(
    system: frozenset[Element], by_system: dict[frozenset[Element], list[int]], made: list[PDEntry]
) -> tuple[list[int], list[float]]:
    """Return the entries of one system, and their energies above hull by a PhaseDiagram of all within it."""
    from itertools import chain, combinations

    from pymatgen.analysis.phase_diagram import PhaseDiagram

    subsets = chain.from_iterable(combinations(system, k) for k in range(1, len(system) + 1))
    within = [made[i] for subset in subsets for i in by_system.get(frozenset(subset), ())]
    diagram, own = PhaseDiagram(within), by_system[system]
    return own, [diagram.get_decomp_and_e_above_hull(made[i], allow_negative=True)[1] or 0.0 for i in own]


def _sample(n: int, wanted: int) -> Array:
    """Return numbers below n at random, increasing."""
    rng = np.random.default_rng(settings()["seed"])
    return np.sort(rng.choice(n, min(n, wanted), replace=False))


def _picked(rows: Array) -> Array:
    return rows[_sample(len(rows), settings()["peer"]["requeried"])]
