"""Made entries for the hull benchmark: parents, children by substitution, energies of pairs of elements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]

QUANTILES: Final = 1 << 14
"""A distribution is a table of so many equally likely values: drawing from it is one look-up."""
NOTHING: Final = -1
"""Fills the rows of compositions with fewer elements than the widest."""


@dataclass(frozen=True, eq=False)
class Base:
    """Parents and what their children follow from.

    Attributes:
        indices: Elements of each parent, padded with -1, int8, (p, width).
        amounts: Atoms, padded with 0, int16, (p, width).
        often: The chance that a child is of this parent or of one before it, (p,).
        similar: Per element those that may take its place, one per equally likely value, int8, (e, q).
        pairs: eV per pair of elements, (e, e), symmetric, 0 on the diagonal.
    """

    indices: Array
    amounts: Array
    often: Array
    similar: Array
    pairs: Array

    @classmethod
    def of(cls, symbols: tuple[str, ...], recipe: dict[str, Any], rng: np.random.Generator) -> Self:
        """Return the base of a recipe; see `hull_data.yaml`."""
        from pymatgen.core.periodic_table import Element

        elements = [Element(symbol) for symbol in symbols]
        ionic = np.array([float(element.X) for element in elements])
        scale = np.array([float(element.mendeleev_no) for element in elements])
        shares = np.array([recipe["elements_per_mille"][symbol] for symbol in symbols], dtype=float)
        indices, amounts = _parents(ionic, shares, recipe, rng)
        children = 1.0 / (np.arange(len(indices)) + recipe["flat"]) ** recipe["steep"]
        distance = np.abs(scale[:, None] - scale)
        near = np.exp(-distance / recipe["similar_within"]) * np.sqrt(shares)
        np.fill_diagonal(near, 0.0)
        own = np.triu(rng.normal(0.0, recipe["pair"], near.shape), 1)
        pairs = own + own.T - recipe["ionic"] * (ionic[:, None] - ionic) ** 2
        similar = np.stack([_quantiles(row, QUANTILES) for row in near]).astype(np.int8)
        return cls(indices, amounts, np.cumsum(children / children.sum()), similar, pairs)


def drawn(n: int, symbols: tuple[str, ...], settings: dict[str, Any]) -> tuple[Array, Array, Array]:
    """Return n made entries: (elements padded with -1, atoms padded with 0, formation energies in eV/atom)."""
    seed, recipe, block = settings["seed"], settings["recipe"], settings["rows_per_block"]
    base = Base.of(symbols, recipe, np.random.default_rng(seed))
    width = base.indices.shape[1]
    indices, amounts = np.empty((n, width), dtype=np.int8), np.empty((n, width), dtype=np.int16)
    energies = np.empty(n)
    for first in range(0, n, block):
        at, rng = slice(first, min(first + block, n)), np.random.default_rng([seed, first])
        # A whole block each time, so that a cut set begins like an uncut one.
        kept = slice(0, at.stop - first)
        parts = _children(base, block, recipe["substitutions"], rng)
        indices[at], amounts[at] = parts[0][kept], parts[1][kept]
        noise = rng.normal(0.0, recipe["arrangement"], block)[kept]
        energies[at] = _energies(indices[at], amounts[at], base.pairs) + noise
    return indices, amounts, energies


def _parents(ionic: Array, shares: Array, recipe: dict[str, Any], rng: np.random.Generator) -> tuple[Array, Array]:
    """Return elements and atoms of the parents; the more electronegative an element, the more atoms of it."""
    by_size = {int(k): float(share) for k, share in recipe["sizes_per_mille"].items()}
    each, width = recipe["stoichiometries_each"], max(by_size)
    n = recipe["parents"] // each
    sizes = np.array(list(by_size))[_quantiles(np.array(list(by_size.values())), n)]
    rng.shuffle(sizes)
    indices, amounts = np.full((n, width), NOTHING, dtype=np.int8), np.zeros((n, each, width), dtype=np.int16)
    # The k largest of the logarithms plus Gumbel noise are k draws by share, without repetition.
    order = np.argsort(-(np.log(shares) + rng.gumbel(size=(n, len(shares)))), axis=1)[:, :width]
    for k in by_size:
        at = np.flatnonzero(sizes == k)
        chosen = order[at, :k]
        indices[at, :k] = np.take_along_axis(chosen, np.argsort(ionic[chosen], axis=1), axis=1)
        amounts[at, :, :k] = _stoichiometries(len(at) * each, k, recipe, rng).reshape(len(at), each, k)
    return np.repeat(indices, each, axis=0), amounts.reshape(-1, width)


def _stoichiometries(n: int, k: int, recipe: dict[str, Any], rng: np.random.Generator) -> Array:
    """Return n stoichiometries of k elements, amounts increasing in a row, (n, k)."""
    known = recipe["stoichiometries_percent"][k]
    patterns = np.array([[int(amount) for amount in text.split()] for text in known])
    chance = np.array(list(known.values())) / 100.0
    # The square of an evenly drawn number: small amounts are far commoner than large ones.
    spread = rng.random((n, k)) ** 2
    at_random = np.sort(1 + np.floor(spread * recipe["largest_amount"]).astype(np.int64), axis=1)
    which = np.searchsorted(np.cumsum(chance), rng.random(n))
    common = which < len(patterns)
    return np.where(common[:, None], patterns[np.minimum(which, len(patterns) - 1)], at_random)


def _children(base: Base, n: int, substitutions: list[float], rng: np.random.Generator) -> tuple[Array, Array]:
    """Return elements and atoms of n children; a substitution that would double an element does not happen."""
    parent = np.minimum(np.searchsorted(base.often, rng.random(n)), len(base.often) - 1)
    indices, amounts = base.indices[parent], base.amounts[parent]
    sizes = (indices >= 0).sum(axis=1)
    number = np.searchsorted(np.cumsum(substitutions)[:-1], rng.random(n), "right")
    for step in range(len(substitutions) - 1):
        place = (rng.random(n) * sizes).astype(np.int64)
        drawn_ = rng.integers(0, base.similar.shape[1], n)
        new = base.similar[indices[np.arange(n), place], drawn_]
        at = np.flatnonzero((number > step) & ~(indices == new[:, None]).any(axis=1))
        indices[at, place[at]] = new[at]
    return indices, amounts


def _energies(indices: Array, amounts: Array, pairs: Array) -> Array:
    """Return the energies of pairs of elements in eV/atom, (n,): each by the product of the two atomic fractions."""
    x = amounts / amounts.sum(axis=1, keepdims=True)
    energies = np.zeros(len(x))
    for i in range(x.shape[1]):
        for j in range(i):
            energies += x[:, i] * x[:, j] * pairs[indices[:, i], indices[:, j]]
    return energies


def _quantiles(weights: Array, n: int) -> Array:
    """Return n equally likely positions, each as often as its weight says."""
    return np.searchsorted(np.cumsum(weights / weights.sum())[:-1], (np.arange(n) + 0.5) / n, "right")
