"""What is asked of the linear programs: compositions by chemical system, and one program for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hullworks.analysis.engine.simplex import Targets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hullworks.analysis.engine.keys import Array
    from hullworks.analysis.engine.store import Places, Store


def by_system(store: Store, comps: Array, at_once: int | None = None) -> Iterator[tuple[Array, Array, Array]]:
    """Yield compositions of two or more elements, those with the same number of elements together, by system.

    Args:
        store: The store.
        comps: Compositions, (n,).
        at_once: Systems in one piece; by default all with the same number of elements.

    Yields:
        Systems; places in ``comps``; which of the systems each of these belongs to, increasing.
    """
    sizes = store.comps["k"][comps]
    for k in range(2, int(sizes.max(initial=1)) + 1):
        at = np.flatnonzero(sizes == k)
        at = at[np.argsort(store.comps["sys"][comps[at]], kind="stable")]
        of_system = store.comps["sys"][comps[at]]
        first = np.ones(len(at), dtype=bool)
        first[1:] = of_system[1:] != of_system[:-1]
        systems, row = of_system[first], np.cumsum(first) - 1
        step = at_once or max(len(systems), 1)
        for start in range(0, len(systems), step):
            piece = slice(*np.searchsorted(row, [start, start + step]))
            yield systems[start : start + step], at[piece], row[piece] - start


def programs_of(store: Store, systems: Array, comps: Array, row: Array) -> tuple[Array, Places, Targets]:
    """Return what is asked at some compositions of k elements, each without itself among the phases.

    Args:
        store: The store.
        systems: Their systems, (s,).
        comps: The compositions, (n,).
        row: Which of the systems each belongs to, (n,).

    Returns:
        Element codes of the systems, (s, k); where the compositions stand in the flat columns; the programs.
    """
    k = int(store.systems["k"][systems[0]])
    codes, places = store.system_codes(systems, k), store.places(comps, k)
    own = codes[row]
    return codes, places, Targets(row, places.get("x"), comps, store.element_comp[own], store.element_energies()[own])
