"""Ensembles of hulls: how far a verdict depends on the errors of energies, on a correction, a reservoir or a level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from hullworks.analysis.compositions import CompositionArrays
from hullworks.analysis.convex_hull import ConvexHull
from hullworks.analysis.parallel import map_chunks
from hullworks.analysis.uncertainty import require_same_length
from hullworks.analysis.verdicts import load_thresholds
from hullworks.errors import HullError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike

    from hullworks.analysis.clusters import OpenCluster
    from hullworks.analysis.compositions import FloatArray, IntArray
    from hullworks.analysis.convex_hull import HullNumbers
    from hullworks.analysis.parallel import Mapped
    from hullworks.analysis.uncertainty import EnergyErrors

BLOCK: Final = 16
"""Samples that are added up together, wherever they are drawn: sums of other blocks would differ in their last bits."""
CONFIDENCE_Z: Final = 1.959963984540054
"""Standard deviations of a normal distribution that hold 95 % of it."""


@dataclass(frozen=True, eq=False)
class Stability:
    """What an ensemble of hulls says of m entries; energies in eV/atom.

    indices: Entry indices, (m,).
    n_samples, seed: The draws.
    stable_eV, window_eV: At most so far above the hull counts as stable, and as within the metastable window.
    e_above_hull, distance: (m,): without errors: energy above hull, and signed distance from the hull of the others;
        NaN where there is no such hull.
    n_stable, n_within: int64, (m,): samples in which the entry is stable; and within the window, stable ones included.
    mean, std: (m,): of the signed distance over the samples; NaN where the distance is.
    """

    indices: IntArray
    n_samples: int
    seed: int
    stable_eV: float
    window_eV: float
    e_above_hull: FloatArray
    distance: FloatArray
    n_stable: IntArray
    n_within: IntArray
    mean: FloatArray
    std: FloatArray

    @property
    def p_stable(self) -> FloatArray:
        """float64, (m,): fraction of samples in which the entry is stable; NaN where an element has no reference."""
        return np.where(np.isnan(self.e_above_hull), np.nan, self.n_stable / self.n_samples)

    @property
    def p_within(self) -> FloatArray:
        """float64, (m,): fraction of samples within the metastable window; NaN where an element has no reference."""
        return np.where(np.isnan(self.e_above_hull), np.nan, self.n_within / self.n_samples)

    @property
    def p_stable_interval(self) -> FloatArray:
        """float64, (m, 2): 95 % interval of P(stable) for the finite number of samples (Wilson); NaN as there."""
        return self._interval(self.n_stable)

    @property
    def p_within_interval(self) -> FloatArray:
        """float64, (m, 2): 95 % interval of P(within the window) for the finite number of samples; NaN as there."""
        return self._interval(self.n_within)

    def _interval(self, counts: IntArray) -> FloatArray:
        known = ~np.isnan(self.e_above_hull)
        return np.where(known[:, None], wilson(counts, self.n_samples), np.nan)


def p_stable(
    hull: ConvexHull,
    errors: EnergyErrors,
    n_samples: int,
    seed: int,
    *,
    indices: ArrayLike | None = None,
    stable_eV: float | None = None,
    window_eV: float | None = None,
    cluster: str | OpenCluster | None = None,
) -> Stability:
    """Return how often entries are stable when all errors are drawn anew and the hull is built again, many times.

    The same seed gives the same bytes, however many processes work on it. Draws are independent, not antithetic: an
    error that two entries share may raise both distances of such a pair, whose number would then promise too much.

    Args:
        hull: The hull at the energies as they are; it does not change.
        errors: Errors of all its entries, by entry index.
        n_samples: Hulls to build; the interval of P = 0.5 is 0.06 wide at 1,000 samples, 0.02 at 10,000.
        seed: Seed of the draws.
        indices: The m entries asked for, by default all active ones. Hulls are built of the entries within their
            chemical systems alone, from the same draws as for all.
        stable_eV: At most so far above the hull is stable; by default that of ``verdicts.yaml``.
        window_eV: At most so far above the hull is metastable; by default that of ``verdicts.yaml``.
        cluster: Where to work; see `clusters.open_cluster`.

    Raises:
        HullError: An entry is unknown or was removed, the errors are of another number of entries, or there is no
            sample.
    """
    require_same_length(hull, errors)
    if n_samples < 1:
        raise HullError(f"an ensemble of {n_samples} hulls says nothing", next_step="1,000 are a good start.")
    thresholds = load_thresholds()
    limits = (
        thresholds.stable_eV if stable_eV is None else stable_eV,
        thresholds.metastable_eV if window_eV is None else window_eV,
    )
    now = hull.numbers(np.flatnonzero(hull.active) if indices is None else indices)
    solvable = np.flatnonzero(~np.isnan(now.e_above_hull))
    noise = _noise(hull, errors, now.indices[solvable], None if indices is None else now.indices, limits, seed)
    blocks = [range(start, min(start + BLOCK, n_samples)) for start in range(0, n_samples, BLOCK)]
    total = _Tally.zero(len(solvable))
    for tally in map_chunks(noise, blocks, cluster).all():
        total = total.plus(tally)
    return _stability(now, solvable, total, n_samples, seed, limits)


@dataclass(frozen=True, eq=False)
class _Tally:
    """Sums over some samples, (m,) each: stable, within the window, deviation from the distance without errors."""

    n_stable: IntArray
    n_within: IntArray
    deviation: FloatArray
    squared: FloatArray

    @classmethod
    def zero(cls, m: int) -> _Tally:
        return cls(np.zeros(m, np.int64), np.zeros(m, np.int64), np.zeros(m), np.zeros(m))

    def plus(self, other: _Tally) -> _Tally:
        return _Tally(
            self.n_stable + other.n_stable, self.n_within + other.n_within,
            self.deviation + other.deviation, self.squared + other.squared,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Noise:
    """The function of one block of samples: all that it needs, as plain arrays.

    compositions, energies, errors: Of the entries that matter; asked: positions among them, (m,).
    distance: Without errors, (m,), eV/atom; limits: of stable and of the window, eV/atom.
    """

    compositions: CompositionArrays
    energies: FloatArray
    errors: EnergyErrors
    asked: IntArray
    distance: FloatArray
    limits: tuple[float, float]
    seed: int

    def __call__(self, samples: range) -> _Tally:
        total = _Tally.zero(len(self.asked))
        for sample in samples:
            total = total.plus(self.sample(sample))
        return total

    def sample(self, sample: int) -> _Tally:
        """Return one sample."""
        hull = ConvexHull(self.compositions, self.energies + self.errors.shifts(self.seed, sample))
        numbers = hull.numbers(self.asked)
        stable, within = (numbers.e_above_hull <= limit for limit in self.limits)
        deviation = numbers.e_to_hull_of_others - self.distance
        return _Tally(stable.astype(np.int64), within.astype(np.int64), deviation, deviation**2)


def _noise(
    hull: ConvexHull,
    errors: EnergyErrors,
    solvable: IntArray,
    asked: IntArray | None,
    limits: tuple[float, float],
    seed: int,
) -> _Noise:
    """Return the function of one block, for the entries that can have a say in the hull of those asked for."""
    formation = hull.formation_energy_per_atom  # any zero per element will do, and NaN marks those without a hull
    compositions = hull.compositions
    matter = np.isfinite(formation)
    if asked is not None:
        inside = np.zeros(len(hull), dtype=bool)
        for system in sorted({compositions.system(i) for i in solvable.tolist()}):
            inside[compositions.within(system)] = True
        matter &= inside
    rows = np.flatnonzero(matter)
    return _Noise(
        compositions.take(rows), formation[rows], errors.of(rows), np.searchsorted(rows, solvable),
        hull.numbers(solvable).e_to_hull_of_others, limits, seed,
    )  # fmt: skip


def _stability(
    now: HullNumbers, solvable: IntArray, total: _Tally, n_samples: int, seed: int, limits: tuple[float, float]
) -> Stability:
    """Return the sums as probabilities and moments, for all entries asked for."""
    m = len(now.indices)
    counts = np.zeros((2, m), dtype=np.int64)
    counts[:, solvable] = total.n_stable, total.n_within
    moments = np.full((2, m), np.nan)
    mean = total.deviation / n_samples
    spread = np.maximum(total.squared - n_samples * mean**2, 0.0)
    moments[:, solvable] = mean, np.sqrt(spread / (n_samples - 1)) if n_samples > 1 else np.nan
    return Stability(
        now.indices, n_samples, seed, *limits, now.e_above_hull, now.e_to_hull_of_others,
        counts[0], counts[1], now.e_to_hull_of_others + moments[0], moments[1],
    )  # fmt: skip


def wilson(count: ArrayLike, n: int, z: float = CONFIDENCE_Z) -> FloatArray:
    """Return Wilson's score interval for a probability that was met ``count`` times in n independent trials.

    Unlike the simple one it is right at 0 and n: no stable sample in 1,000 still allows 0.4 %.

    >>> wilson([0, 500], 1000).round(4).tolist()
    [[0.0, 0.0038], [0.4691, 0.5309]]

    Returns:
        float64, shape (m, 2): lower and upper end.
    """
    p = np.asarray(count, dtype=np.float64) / n
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    ends = np.stack([p + z**2 / (2 * n) - half, p + z**2 / (2 * n) + half], axis=-1) / (1 + z**2 / n)
    return np.clip(ends, 0.0, 1.0)


@dataclass(frozen=True, eq=False)
class HullMember:
    """One hull of an ensemble that somebody put together: a correction scheme, a level, a reservoir.

    name: What it is called.
    compositions, energies_per_atom: Its n entries, as for `ConvexHull`, all of one level of theory, eV/atom.
    """

    name: str
    compositions: CompositionArrays
    energies_per_atom: FloatArray

    def open_to(self, chemical_potentials_eV: Mapping[str, float]) -> tuple[HullMember, IntArray]:
        """Return the hull of grand potentials, for a sample in exchange with reservoirs of some elements.

        Fractions are of the atoms that are not exchanged, and energies are per such atom.

        Args:
            chemical_potentials_eV: Element symbol to chemical potential, eV/atom, on the scale of the energies.

        Returns:
            The member, and the rows of this one that its entries are; entries of exchanged elements alone drop out.
        """
        c = self.compositions
        mu = np.array([chemical_potentials_eV.get(symbol, 0.0) for symbol in c.elements], dtype=np.float64)
        closed = np.array([symbol not in chemical_potentials_eV for symbol in c.elements], dtype=bool)[c.indices]
        rows = np.repeat(np.arange(len(c)), np.diff(c.indptr))
        left = np.bincount(rows[closed], c.fractions[closed], minlength=len(c))
        exchanged = np.bincount(rows, np.where(closed, 0.0, c.fractions * mu[c.indices]), minlength=len(c))
        kept = np.flatnonzero(left > 0)
        lengths = np.bincount(rows[closed], minlength=len(c))[kept]
        compositions = CompositionArrays(
            c.elements, np.concatenate([[0], np.cumsum(lengths)]), c.indices[closed],
            c.fractions[closed] / left[rows[closed]],
        )  # fmt: skip
        settings = ", ".join(f"mu({symbol}) = {value:g}" for symbol, value in sorted(chemical_potentials_eV.items()))
        energies = (self.energies_per_atom[kept] - exchanged[kept]) / left[kept]
        return HullMember(f"{self.name} | {settings}", compositions, energies), kept


def solve_members(members: Sequence[HullMember], cluster: str | OpenCluster | None = None) -> Mapped[HullNumbers]:
    """Return the numbers of all entries of each hull, in the order of the members.

    A member that cannot be built, such as one with an energy that is not finite, is reported and the others are solved.

    Args:
        members: The hulls; each may have entries of its own.
        cluster: Where to work; see `clusters.open_cluster`.
    """
    return map_chunks(_solved, members, cluster)


def _solved(member: HullMember) -> HullNumbers:
    hull = ConvexHull(member.compositions, member.energies_per_atom)
    return hull.numbers(np.arange(len(hull)))
