"""What the benchmark asks of the convex hull: tasks that begin with arrays, or with a hull as it was built."""

from __future__ import annotations

import pickle
import statistics
import time
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from hull_clock import figures, peak_MB, timed
from hull_data import settings, synthetic
from hull_sets import Folder, digest

from hullworks.analysis.compositions import CompositionArrays
from hullworks.analysis.convex_hull import ConvexHull
from hullworks.analysis.engine.choice import Choice

if TYPE_CHECKING:
    from collections.abc import Callable

    from hull_data import Array

Result = dict[str, Any]


def convert(folder: Folder, mode: str, limits: dict[str, Any]) -> Result:
    """Measure what comes before the hull: formulas, or amounts of atoms in arrays, to compositions; the same for both
    modes.
    """
    del mode
    entries = folder.entries()
    entries = entries.first(min(len(entries), settings()["measured"]["converted"]))
    formulas = entries.formulas()
    CompositionArrays.from_compositions(formulas[:1000])
    return {
        "entries": len(entries),
        "from_formulas": figures(timed(lambda: CompositionArrays.from_compositions(formulas), **limits)),
        "from_amounts": figures(timed(entries.compositions, **limits)),
    }


def build(folder: Folder, mode: str, limits: dict[str, Any]) -> Result:
    """Measure the full build.

    Included: grouping entries by composition and composition by chemical system, one linear program per composition
    (two for those on the hull), with its mixture, its chemical potentials and the energy above hull of every entry.
    Not included: converting input to arrays, and bringing mixtures into the canonical form of `ConvexHull.numbers`.
    """
    compositions, energies = folder.arrays("built")
    _warm_up()
    before = peak_MB()
    peaks: list[float] = []

    def once() -> None:
        ConvexHull(compositions, energies).e_above_hull  # noqa: B018 - that it is computed is the point
        peaks.append(peak_MB())

    timing = timed(once, **limits)
    hull = ConvexHull(compositions, energies)
    folder.keep_hull(hull, mode)
    folder.keep_answers(f"build_{mode}", e_above_hull=hull.e_above_hull)
    store = hull._store  # how many there are is no question to a hull
    return {
        "build": figures(timing), "before_MB": before, "peak_MB": peaks[0], "entries": len(hull),
        "compositions": len(store.comps), "systems": len(store.systems), "stable": len(hull.stable),
        "vertices": int(store.comps["vertex"].sum()),
    }  # fmt: skip


def update(folder: Folder, mode: str, limits: dict[str, Any]) -> Result:
    """Measure changes: the entries held back at once, some of them one by one, and the removal of stable phases."""
    compositions, energies = folder.arrays("held")
    _warm_up()
    before = peak_MB()
    added = timed(lambda fresh: fresh.add(compositions, energies), lambda: folder.hull(mode), **limits)
    peak = peak_MB()
    hull = folder.hull(mode)
    gone = _stable_compounds(hull)
    removed = timed(lambda fresh: fresh.remove(gone), lambda: folder.hull(mode), **limits)
    singles = _single_inserts(folder.hull(mode), compositions, energies)
    change = hull.add(compositions, energies)
    rebuilt, differs = _against_rebuild(folder, hull)
    folder.keep_answers(f"update_{mode}", e_above_hull=rebuilt)
    return {
        "add": figures(added), "added": len(energies), "affected": len(change.affected), "entered": len(change.entered),
        "left": len(change.left), "before_MB": before, "peak_MB": peak, "differs_from_rebuild_eV": differs,
        "remove": figures(removed), "removed": len(gone), "insert": singles,
    }  # fmt: skip


def query(folder: Folder, mode: str, limits: dict[str, Any]) -> Result:
    """Measure queries of unseen compositions, the same number of each size."""
    compositions, energies = folder.arrays("unseen")
    formulas = folder.unseen().formulas()
    _warm_up()
    hull = folder.hull(mode)
    hull.query(compositions, energies)
    timing = timed(lambda: hull.query(compositions, energies), **limits)
    with_formulas = timed(lambda: hull.query(formulas, energies), **limits)
    folder.keep_answers(f"query_{mode}", e_to_hull=hull.query(compositions, energies))
    sizes = np.diff(compositions.indptr)
    by_size = {
        int(k): figures(timed(_asking(hull, compositions, energies, np.flatnonzero(sizes == k)), **limits))
        for k in np.unique(sizes)
    }
    return {
        "query": figures(timing), "from_formulas": figures(with_formulas), "by_size": by_size, "queries": len(energies),
        "peak_MB": peak_MB(),
    }  # fmt: skip


def verify(folder: Folder, mode: str, limits: dict[str, Any]) -> Result:
    """Measure the proof of all answers, and report the largest doubt."""
    hull = folder.hull(mode)
    before = peak_MB()
    doubt = hull.verify()
    timing = timed(hull.verify, **limits)
    return {"verify": figures(timing), "doubt_eV": doubt, "before_MB": before, "peak_MB": peak_MB()}


def numbers(folder: Folder, mode: str, limits: dict[str, Any]) -> Result:
    """Measure all numbers of all entries: the canonical decompositions among them."""
    _warm_up()
    hull = folder.hull(mode)
    before = peak_MB()
    every = np.arange(len(hull))
    timing = timed(lambda: hull.numbers(every), **limits)
    found = hull.numbers(every)
    return {
        "numbers": figures(timing), "before_MB": before, "peak_MB": peak_MB(), "products": len(found.products),
        "digest": digest(*vars(found).values()),
    }  # fmt: skip


def pickled(folder: Folder, mode: str, limits: dict[str, Any]) -> Result:
    """Measure pickling and reading back."""
    hull = folder.hull(mode)
    text = pickle.dumps(hull, protocol=5)
    return {
        "dumps": figures(timed(lambda: pickle.dumps(hull, protocol=5), **limits)),
        "loads": figures(timed(lambda: pickle.loads(text), **limits)),  # noqa: S301 - its own bytes
        "MB": len(text) / 2**20,
        "bytes_per_entry": len(text) / len(hull),
    }


def profile(folder: Folder, mode: str, limits: dict[str, Any]) -> Result:
    """Return in which functions the build spends its time: name and share of the whole, the largest first."""
    import cProfile
    import pstats

    del mode, limits
    compositions, energies = folder.arrays("built")
    _warm_up()
    profiler = cProfile.Profile()
    profiler.runcall(ConvexHull, compositions, energies)
    stats: Any = pstats.Stats(profiler)
    own = sorted(((value[2], key) for key, value in stats.stats.items()), reverse=True)[:12]
    names = [f"{key[0].rpartition('/')[2]}:{key[2]}" for _, key in own]
    shares = [{"function": name, "share": own[i][0] / stats.total_tt} for i, name in enumerate(names)]
    return {"seconds": stats.total_tt, "shares": shares}


def first_use(folder: Folder, mode: str, limits: dict[str, Any]) -> Result:
    """Measure the first small hull of a process, in which compiled code is compiled or read from its cache."""
    del folder, mode, limits
    start = time.perf_counter()
    _warm_up()
    return {"first_s": time.perf_counter() - start, "peak_MB": peak_MB()}


TASKS: Final[dict[str, Callable[[Folder, str, dict[str, Any]], Result]]] = {
    task.__name__: task for task in (convert, build, update, query, verify, numbers, pickled, profile, first_use)
}


def run_task(name: str, folder: Folder, mode: str, limits: dict[str, Any]) -> Result:
    """Run one task in this process, with compiled code where the mode is ``numba``."""
    Choice.compiled = mode == "numba"
    return TASKS[name](folder, mode, limits)


def _warm_up() -> None:
    """Build, change and query a small hull, so that everything is imported, and compiled where it can be."""
    entries = synthetic(settings()["measured"]["warm_up"])
    compositions = entries.compositions()
    hull = ConvexHull(compositions, entries.energies)
    hull.add(compositions.take(np.arange(1000, 1100)), entries.energies[1000:1100] - 0.1)
    hull.query(compositions, entries.energies)


def _stable_compounds(hull: ConvexHull) -> Array:
    """Return stable entries of several elements, at random."""
    stable = hull.stable[np.diff(hull.compositions.indptr)[hull.stable] > 1]
    rng = np.random.default_rng(settings()["seed"])
    gone: Array = rng.choice(stable, min(settings()["measured"]["removed"], len(stable) // 2), replace=False)
    return gone


def _single_inserts(hull: ConvexHull, compositions: CompositionArrays, energies: Array) -> Result:
    """Add entries one by one; return the median and the 95th percentile in seconds of wall time."""
    spent = []
    for i in range(min(settings()["measured"]["inserts"], len(energies))):
        one, energy = compositions.take(np.array([i])), energies[i : i + 1]
        start = time.perf_counter()
        hull.add(one, energy)
        spent.append(time.perf_counter() - start)
    return {"median_s": statistics.median(spent), "p95_s": float(np.percentile(spent, 95)), "inserts": len(spent)}


def _against_rebuild(folder: Folder, hull: ConvexHull) -> tuple[Array, float]:
    """Return the energies above hull of all entries built at once, and how far those after the update differ."""
    parts = [folder.arrays(name) for name in ("built", "held")]
    compositions = parts[0][0].followed_by(parts[1][0])
    rebuilt = ConvexHull(compositions, np.concatenate([part[1] for part in parts])).e_above_hull
    return rebuilt, float(np.abs(hull.e_above_hull - rebuilt).max())


def _asking(hull: ConvexHull, compositions: CompositionArrays, energies: Array, rows: Array) -> Callable[[], Any]:
    part = compositions.take(rows)
    return lambda: hull.query(part, energies[rows])
