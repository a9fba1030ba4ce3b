"""Verdicts: what the numbers of a hull, and the evidence about an entry, amount to."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from hullworks.errors import HullError
from hullworks.shipped import shipped_yaml
from hullworks.states import Role

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from hullworks.analysis.compositions import FloatArray
    from hullworks.analysis.convex_hull import HullNumbers


class VerdictKind(StrEnum):
    """What a level of theory says of an entry, as of one hull version.

    STABLE: on the hull; a new phase also lies below the hull of all others by more than the error bar.
    METASTABLE: within the metastable window above the hull, or a new phase on the hull by less than the error bar.
    UNSTABLE: above the metastable window.
    INDETERMINATE: cannot be said: an element or a competing phase has no entry at this level, or a new phase lies so
        deep that the hull, or its energy, is in doubt.
    INVALID: the energy is no energy of a solid.
    """

    STABLE = "stable"
    METASTABLE = "metastable"
    UNSTABLE = "unstable"
    INDETERMINATE = "indeterminate"
    INVALID = "invalid"


class VerdictFlag(StrEnum):
    """What a reader of a verdict has to know beside it.

    WITHIN_ERROR_BAR: a change of the energy within the level's error bar would change the verdict.
    SUSPICIOUSLY_DEEP: a new phase far below the hull of all others; to be reviewed, never stable.
    FORMATION_ENERGY_OUT_OF_BOUNDS: the formation energy is not one of a solid.
    UNVALIDATED_REFERENCE: the entry competes with a reference that nobody compared with published values.
    IONIC_CONVERGENCE_LOOSE: the relaxation was accepted with forces or stress above the protocol's thresholds.
    VOLUME_CHANGE_LARGE: the relaxed cell differs much from the submitted one; it may be another crystal.
    ENERGY_DRIFT: the static energy differs from the last energy of the relaxation.
    MAGNETIC_COLLAPSE: an earlier step was magnetic and the result is not; a magnetic solution may lie lower.
    SEVERAL_SCF_SOLUTIONS: the magnetization jumped between two steps: the electrons have more than one solution.
    """

    WITHIN_ERROR_BAR = "within_error_bar"
    SUSPICIOUSLY_DEEP = "suspiciously_deep"
    FORMATION_ENERGY_OUT_OF_BOUNDS = "formation_energy_out_of_bounds"
    UNVALIDATED_REFERENCE = "unvalidated_reference"
    IONIC_CONVERGENCE_LOOSE = "ionic_convergence_loose"
    VOLUME_CHANGE_LARGE = "volume_change_large"
    ENERGY_DRIFT = "energy_drift"
    MAGNETIC_COLLAPSE = "magnetic_collapse"
    SEVERAL_SCF_SOLUTIONS = "several_scf_solutions"


class Product(NamedTuple):
    """One phase that an entry decomposes into; ``fraction`` counts atoms, and the fractions sum to 1."""

    entry_id: str
    formula: str
    fraction: float


DECIMALS: Final = 10
"""Energies in eV/atom and fractions of atoms are stored with so many: above round-off, below anything physical."""

_BOUNDS: Final = ("formation_energy_bounds_eV", "energy_bounds_eV")


@dataclass(frozen=True)
class Thresholds:
    """The numbers of ``verdicts.yaml``, which gives the reason and source of each; energies in eV/atom."""

    stable_eV: float
    metastable_eV: float
    suspiciously_deep_eV: float
    formation_energy_bounds_eV: tuple[float, float]
    volume_change: float
    energy_drift_eV: float
    energy_bounds_eV: tuple[float, float]
    error_bars_eV: tuple[tuple[str, float], ...]

    def as_dict(self) -> dict[str, Any]:
        """Return all numbers as plain JSON types, as the hull event that brings them into a level has them."""
        plain = asdict(self) | {name: list(getattr(self, name)) for name in _BOUNDS}
        return plain | {"error_bars_eV": [list(pair) for pair in self.error_bars_eV]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Build the thresholds from `as_dict` output."""
        bounds = {name: tuple(data[name]) for name in _BOUNDS}
        bars = tuple((str(pattern), float(bar)) for pattern, bar in data["error_bars_eV"])
        return cls(**{**data, **bounds, "error_bars_eV": bars})

    def error_bar_eV(self, level_key: str) -> float:
        """Return the numerical error bar of a level of theory in eV/atom.

        >>> load_thresholds().error_bar_eV("qe-pbe-fast-0a1b2c3d")
        0.025
        """
        return _error_bar_eV(self.error_bars_eV, level_key.rpartition("-")[0])


@cache
def _error_bar_eV(bars: tuple[tuple[str, float], ...], slug: str) -> float:
    return next(bar for pattern, bar in bars if fnmatchcase(slug, pattern))


@cache
def load_thresholds() -> Thresholds:
    """Return the thresholds that HullWorks ships."""
    data = shipped_yaml("hullworks.analysis", "verdicts.yaml")
    return Thresholds.from_dict(
        {**data, "error_bars_eV": [(row["level"], row["error_bar_eV"]) for row in data["error_bars_eV"]]}
    )


@dataclass(frozen=True)
class JudgementInput:
    """All that a verdict depends on; energies in eV/atom.

    Attributes:
        level_key: Key of the level of theory that all energies are of.
        hull_version: Name of the hull version that the numbers come from.
        formation_energy_eV: Formation energy; None or NaN where an elemental reference is missing.
        e_above_hull_eV: Energy above hull; None or NaN where an elemental reference is missing.
        e_to_hull_of_others_eV: Signed distance from the hull without the entry; None or NaN where there is none.
        decomposition: What the entry decomposes into.
        missing: Elements and competing phases that should have an entry at this level and have none.
        role: References are known phases; candidates are new and have to prove themselves.
        error_bar_eV: Numerical error of this entry, where known; the larger of it and the level's counts.
        volume_change: Relative change of volume from the submitted to the relaxed cell.
        energy_drift_eV: Static energy less the last energy of the relaxation.
        flags: What is known already, such as from landing.
    """

    level_key: str
    hull_version: str
    formation_energy_eV: float | None
    e_above_hull_eV: float | None
    e_to_hull_of_others_eV: float | None = None
    decomposition: tuple[Product, ...] = ()
    missing: tuple[str, ...] = ()
    role: Role = Role.CANDIDATE
    error_bar_eV: float | None = None
    volume_change: float | None = None
    energy_drift_eV: float | None = None
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class VerdictResult:
    """A verdict: never without its level, its hull version and its flags.

    Attributes:
        kind: The verdict.
        level_key: Key of the level of theory.
        hull_version: Name of the hull version.
        flags: What has to be known beside it; sorted, may be empty.
        e_above_hull_eV: eV/atom, >= 0; None for indeterminate and invalid.
        formation_energy_eV: eV/atom; None where an elemental reference is missing.
        e_to_hull_of_others_eV: eV/atom; negative says how deep a stable phase lies below the hull of all others.
        decomposition: What the entry decomposes into; itself when it is on the hull.
        missing: Elements and competing phases without an entry at this level.
        error_bar_eV: Numerical error bar that the verdict was made with, eV/atom.

    Raises:
        HullError: Something that a verdict must have is absent, or its parts contradict each other.
    """

    kind: VerdictKind
    level_key: str
    hull_version: str
    flags: tuple[VerdictFlag, ...]
    e_above_hull_eV: float | None
    formation_energy_eV: float | None = None
    e_to_hull_of_others_eV: float | None = None
    decomposition: tuple[Product, ...] = ()
    missing: tuple[str, ...] = ()
    error_bar_eV: float | None = None

    def __post_init__(self) -> None:
        for name in ("level_key", "hull_version"):
            if not getattr(self, name):
                raise HullError(f"a verdict has no {name}")
        flags: Any = self.flags  # callers without types, such as a database, may hand in anything
        if not isinstance(flags, tuple) or not all(isinstance(flag, VerdictFlag) for flag in flags):
            raise HullError("a verdict's flags are not a tuple of VerdictFlag", repr(flags))
        if problem := self._contradiction():
            raise HullError(f"a verdict cannot be {self.kind} and {problem}", self.hull_version)

    def _contradiction(self) -> str:
        decided = self.kind in {VerdictKind.STABLE, VerdictKind.METASTABLE, VerdictKind.UNSTABLE}
        if decided != (self.e_above_hull_eV is not None):
            return "have no energy above hull" if decided else "have an energy above hull"
        if self.e_above_hull_eV is not None and not self.e_above_hull_eV >= 0:
            return f"lie {self.e_above_hull_eV} eV/atom above the hull"
        if decided and self.missing:
            return f"miss {', '.join(self.missing)}"
        if self.kind is VerdictKind.STABLE and VerdictFlag.SUSPICIOUSLY_DEEP in self.flags:
            return "suspiciously deep"
        return ""

    def as_dict(self) -> dict[str, Any]:
        """Return all parts as plain JSON types."""
        plain = asdict(replace(self, decomposition=()))
        plain |= {"kind": self.kind.value, "flags": [flag.value for flag in self.flags], "missing": list(self.missing)}
        return plain | {"decomposition": [product._asdict() for product in self.decomposition]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Build a verdict from `as_dict` output."""
        parts = {
            "kind": VerdictKind(data["kind"]),
            "flags": read_flags(data["flags"]),
            "missing": tuple(data["missing"]),
            "decomposition": tuple(Product(**product) for product in data["decomposition"]),
        }
        return cls(**{**data, **parts})


def read_flags(names: Iterable[str]) -> tuple[VerdictFlag, ...]:
    """Return flags by name, sorted and each once.

    Raises:
        HullError: A name is no flag.
    """
    wanted = sorted(set(names))
    known = VerdictFlag._value2member_map_
    if unknown := [name for name in wanted if name not in known]:
        raise HullError(f"no such flag: {', '.join(unknown)}", next_step=f"Known: {', '.join(VerdictFlag)}.")
    return tuple(VerdictFlag(name) for name in wanted)


def judge(subject: JudgementInput, thresholds: Thresholds | None = None) -> VerdictResult:
    """Return the verdict on an entry.

    >>> numbers = {"formation_energy_eV": 0.03, "e_above_hull_eV": 0.034, "e_to_hull_of_others_eV": 0.034}
    >>> verdict = judge(JudgementInput("qe-pbe-fast-0a1b2c3d", "7", **numbers))
    >>> verdict.kind.value, [flag.value for flag in verdict.flags]
    ('metastable', ['within_error_bar'])

    Raises:
        HullError: The energy above hull is unknown, but nothing is named as missing.
    """
    limits = thresholds or load_thresholds()
    subject = _without_nan(subject)
    bar = max(limits.error_bar_eV(subject.level_key), subject.error_bar_eV or 0.0)
    kind = _kind(subject, limits, bar)
    decided = kind not in {VerdictKind.INDETERMINATE, VerdictKind.INVALID}
    return VerdictResult(
        kind=kind,
        level_key=subject.level_key,
        hull_version=subject.hull_version,
        flags=read_flags([*subject.flags, *_flags(subject, limits, bar)]),
        e_above_hull_eV=subject.e_above_hull_eV if decided else None,
        formation_energy_eV=subject.formation_energy_eV,
        e_to_hull_of_others_eV=subject.e_to_hull_of_others_eV,
        decomposition=subject.decomposition,
        missing=subject.missing,
        error_bar_eV=bar,
    )


def rounded_numbers(
    numbers: HullNumbers, entry_ids: Sequence[str], formulas: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yield what a hull says of m entries, one by one, as arguments of `JudgementInput`.

    Energies in eV/atom and fractions are rounded to `DECIMALS`, so that round-off never makes another verdict.

    Args:
        numbers: The numbers of m entries.
        entry_ids: Id of each entry of the hull.
        formulas: Formula of each entry of the hull.
    """
    names = ("formation_energy_eV", "e_above_hull_eV", "e_to_hull_of_others_eV")
    energies = [numbers.formation_energy, numbers.e_above_hull, numbers.e_to_hull_of_others]
    rows = zip(*(_rounded(values) for values in energies), strict=True)
    bounds, products, fractions = numbers.indptr.tolist(), numbers.products.tolist(), _rounded(numbers.fractions)
    for row, (start, stop) in zip(rows, pairwise(bounds), strict=True):
        parts = zip(products[start:stop], fractions[start:stop], strict=True)
        mixture = tuple(Product(entry_ids[j], formulas[j], fraction) for j, fraction in parts)
        yield {**dict(zip(names, row, strict=True)), "decomposition": mixture}


def _rounded(values: FloatArray) -> list[float]:
    import numpy as np

    rounded: list[float] = (np.round(values, DECIMALS) + 0.0).tolist()  # + 0.0: no -0.0
    return rounded


def _without_nan(subject: JudgementInput) -> JudgementInput:
    """Return the input with None for NaN, which JSON has not; refuse a gap that nobody explains."""
    formation, above, others = (
        None if value is None or math.isnan(value) else value
        for value in (subject.formation_energy_eV, subject.e_above_hull_eV, subject.e_to_hull_of_others_eV)
    )
    if (formation is None or above is None) and not subject.missing:
        raise HullError(
            "the energy above hull is unknown, but nothing is missing",
            subject.hull_version,
            "Name the elements without a reference, ConvexHull.missing_elements.",
        )
    if None not in {formation, above, others}:
        return subject
    return replace(subject, formation_energy_eV=formation, e_above_hull_eV=above, e_to_hull_of_others_eV=others)


def _kind(subject: JudgementInput, limits: Thresholds, bar: float) -> VerdictKind:
    if _out_of_bounds(subject, limits):
        return VerdictKind.INVALID
    if subject.missing or subject.e_above_hull_eV is None or _suspiciously_deep(subject, limits):
        return VerdictKind.INDETERMINATE
    if subject.e_above_hull_eV <= limits.stable_eV:
        proved = subject.role is Role.REFERENCE or _depth(subject) >= bar
        return VerdictKind.STABLE if proved else VerdictKind.METASTABLE
    return VerdictKind.METASTABLE if subject.e_above_hull_eV <= limits.metastable_eV else VerdictKind.UNSTABLE


def _flags(subject: JudgementInput, limits: Thresholds, bar: float) -> list[VerdictFlag]:
    raised = {
        VerdictFlag.FORMATION_ENERGY_OUT_OF_BOUNDS: _out_of_bounds(subject, limits),
        VerdictFlag.SUSPICIOUSLY_DEEP: _suspiciously_deep(subject, limits),
        VerdictFlag.WITHIN_ERROR_BAR: _within_error_bar(subject, limits, bar),
        VerdictFlag.VOLUME_CHANGE_LARGE: abs(subject.volume_change or 0.0) > limits.volume_change,
        VerdictFlag.ENERGY_DRIFT: abs(subject.energy_drift_eV or 0.0) > limits.energy_drift_eV,
    }
    return [flag for flag, holds in raised.items() if holds]


def _depth(subject: JudgementInput) -> float:
    """Return how far below the hull of all others an entry lies, eV/atom; infinite where there is no other hull."""
    others = subject.e_to_hull_of_others_eV
    return math.inf if others is None else -others


def _out_of_bounds(subject: JudgementInput, limits: Thresholds) -> bool:
    low, high = limits.formation_energy_bounds_eV
    return subject.formation_energy_eV is not None and not low <= subject.formation_energy_eV <= high


def _suspiciously_deep(subject: JudgementInput, limits: Thresholds) -> bool:
    others = subject.e_to_hull_of_others_eV
    return subject.role is Role.CANDIDATE and others is not None and -others > limits.suspiciously_deep_eV


def _within_error_bar(subject: JudgementInput, limits: Thresholds, bar: float) -> bool:
    """Tell whether the signed distance is so near a boundary between verdicts that the error bar may cross it."""
    above, others = subject.e_above_hull_eV, subject.e_to_hull_of_others_eV
    distance = above if above is not None and above > limits.stable_eV else others
    if above is None or distance is None:
        return False
    return min(abs(distance), abs(distance - limits.metastable_eV)) < bar
