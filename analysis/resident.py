"""A level's whole hull in memory: the fold of its events, the engine, and the verdicts that follow from them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from hullworks.analysis.bulk import without_collector
from hullworks.analysis.compositions import CompositionArrays
from hullworks.analysis.convex_hull import ConvexHull, ON_HULL_eV
from hullworks.analysis.events import Fold, fold_events, read_events, subsystems
from hullworks.analysis.verdicts import JudgementInput, judge, rounded_numbers
from hullworks.documents import HullEvent
from hullworks.errors import HullError
from hullworks.states import Role

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from hullworks.analysis.compositions import FloatArray, IntArray
    from hullworks.analysis.convex_hull import HullNumbers
    from hullworks.analysis.events import Event
    from hullworks.analysis.verdicts import VerdictResult

Content: TypeAlias = dict[str, Any]
"""A verdict as it is stored, without the versions between which it holds."""

MAX_RESIDENT: Final = 4
"""Levels that one process keeps in memory; of 132,000 entries each takes some hundred MB."""


@dataclass(frozen=True, eq=False)
class Step:
    """What some events changed.

    judged: Indices of the active entries whose verdict may differ.
    gone: Ids of the entries that were taken away.
    """

    judged: IntArray
    gone: tuple[str, ...]


class LevelHull:
    """The hull of a level, or of one chemical system of it, as of one event.

    Args:
        fold: What the events amount to; further ones go through `advance`.
    """

    def __init__(self, fold: Fold) -> None:
        self.fold = fold
        events = list(fold.entries.values())
        self.ids: list[str] = []
        """Entry ids by the engine's index; of entries that left, too."""
        self.formulas: list[str] = []
        """Reduced formulas by the engine's index."""
        self._system_of: list[str] = []
        self.index: dict[str, int] = {}
        """The engine's index of each active entry."""
        self.systems: dict[str, set[int]] = {}
        """Indices of the active entries in the interior of each chemical system."""
        self._bits: dict[str, int] = {}
        self._masks: dict[str, int] = {}
        self._owed = self._references_by_system()
        self.engine = ConvexHull(*self._enlist(events))

    @property
    def version(self) -> int:
        """Number of the last event contained."""
        return self.fold.version

    def advance(self, events: Iterable[Event]) -> Step:
        """Take further events in, and return what they may have changed.

        Raises:
            LevelError: An event belongs to another level; the hull must be thrown away.
            HullError: An event does not follow; the hull must be thrown away.
        """
        old_missing, old_rules = dict(self.fold.missing), self.fold.rules
        names = set()
        for event in events:
            self.fold.apply(event)
            if event["entry_id"] is not None:
                names.add(event["entry_id"])
        touched = self._move(names)
        self._owed = self._references_by_system()
        concerned = {system for _, system in set(old_missing.items()) ^ set(self.fold.missing.items())}
        touched |= self._above(concerned)
        if old_rules != self.fold.rules:
            touched = set(self.index.values())
        gone = tuple(sorted(name for name in names if name not in self.fold.entries))
        return Step(np.array(sorted(touched), dtype=np.int64), gone)

    def contents(self, step: Step, numbers: HullNumbers) -> dict[str, Content]:
        """Return the verdicts on the judged entries of a step as they are stored, by entry id."""
        on_hull = (numbers.e_above_hull <= ON_HULL_eV).tolist()
        verdicts = self.judge(step.judged, numbers)
        rows = zip(step.judged.tolist(), verdicts, on_hull, strict=True)
        return {self.ids[i]: _content(self.entry(i), verdict, on_hull=lies) for i, verdict, lies in rows}

    def judge(self, indices: IntArray, numbers: HullNumbers) -> Iterator[VerdictResult]:
        """Yield the verdicts on some active entries.

        Args:
            indices: Engine indices, (m,).
            numbers: What the engine says of them.
        """
        rules = self.fold.thresholds
        name = f"{self.fold.level_key}#{self.version}"
        gaps = frozenset(self.engine.missing_elements)
        for i, row in zip(indices.tolist(), rounded_numbers(numbers, self.ids, self.formulas), strict=True):
            event = self.entry(i)
            missing = (*sorted(gaps.intersection(event["subject"]["composition"])), *self.missing_in(event["chemsys"]))
            yield judge(_evidence(event, name, missing, row), rules)

    def entry(self, i: int) -> Event:
        """Return the event that says what the entry of an engine index is."""
        return self.fold.entries[self.ids[i]]

    def energies(self) -> FloatArray:
        """Return the energies of the events in eV/atom by the engine's index; NaN for entries that left."""
        values = np.full(len(self.ids), np.nan)
        for name, i in self.index.items():
            values[i] = self.fold.entries[name]["subject"]["energy_eV_per_atom"]
        return values

    def missing_in(self, chemsys: str) -> list[str]:
        """Return the declared references within a chemical system that have no entry, as a verdict names them."""
        if not self._owed:
            return []
        elements = chemsys.split("-")
        if 2 ** len(elements) < len(self._owed):
            return sorted(name for part in subsystems(elements) for name in self._owed.get(part, ()))
        inside = set(elements)
        return sorted(n for part, names in self._owed.items() if inside.issuperset(part.split("-")) for n in names)

    def members(self, chemsys: str) -> list[int]:
        """Return the engine's indices of the active entries within a chemical system, increasing."""
        elements = chemsys.split("-")
        if 2 ** len(elements) < len(self.systems):
            found = [self.systems.get(part, ()) for part in subsystems(elements)]
        else:
            inside = set(elements)
            found = [own for part, own in self.systems.items() if inside.issuperset(part.split("-"))]
        return sorted(i for own in found for i in own)

    def _enlist(self, events: Sequence[Event]) -> tuple[CompositionArrays, FloatArray]:
        """Give the entries of events the next indices, and return what the engine needs of them."""
        for i, event in enumerate(events, len(self.ids)):
            self.ids.append(event["entry_id"])
            self.formulas.append(event["subject"]["formula"])
            self._system_of.append(event["chemsys"])
            self.index[event["entry_id"]] = i
            self.systems.setdefault(event["chemsys"], set()).add(i)
        subjects = [event["subject"] for event in events]
        energies = np.array([subject["energy_eV_per_atom"] for subject in subjects], dtype=np.float64)
        return CompositionArrays.from_amounts([subject["composition"] for subject in subjects]), energies

    def _move(self, names: set[str]) -> set[int]:
        """Bring the engine to what the fold says of some entries; return the indices that this touches."""
        if not names:
            return set()
        left = [(name, self.index.pop(name)) for name in sorted(names) if name in self.index]
        for _, i in left:
            self._forget(i)
        # In the order of their events, in which a hull that is built anew has them: ties are decided by it.
        came = sorted((self.fold.entries[name] for name in names if name in self.fold.entries), key=_number)
        compositions, energies = self._enlist(came)
        change = self.engine.update(remove=[i for _, i in left], compositions=compositions, energies_per_atom=energies)
        if len(self.engine) != len(self.ids):
            raise HullError(f"the engine has {len(self.engine)} entries, and {len(self.ids)} were given to it")
        here = {i for i in change.touched.tolist() if self.index.get(self.ids[i]) == i}
        return here | {self.index[event["entry_id"]] for event in came}

    def _forget(self, i: int) -> None:
        own = self.systems[self._system_of[i]]
        own.discard(i)
        if not own:
            del self.systems[self._system_of[i]]

    def _references_by_system(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name, system in self.fold.missing.items():
            found.setdefault(system, []).append(name)
        return found

    def _above(self, inner: set[str]) -> set[int]:
        """Return the active entries whose chemical system contains one of some systems."""
        wanted = [self._mask(system) for system in inner]
        if not wanted:
            return set()
        holding = (s for s in self.systems if any(self._mask(s) & mask == mask for mask in wanted))
        return {i for system in holding for i in self.systems[system]}

    def _mask(self, system: str) -> int:
        """Return a chemical system as a set of bits."""
        if system not in self._masks:
            bits = (1 << self._bits.setdefault(symbol, len(self._bits)) for symbol in system.split("-"))
            self._masks[system] = sum(bits)
        return self._masks[system]


def load_level(level_key: str, version: int) -> LevelHull:
    """Read a level's events from nothing, and build its hull as of one of them."""
    with without_collector():
        return LevelHull(fold_events(level_key, read_events(level_key, 0, version)))


class Residents:
    """The hulls that a process keeps between two uses, the last used ones; each is lent to one user at a time."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, LevelHull] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, level_key: str, version: int) -> LevelHull:
        """Return a level's hull as of an event; who takes it must give it back, or throw it away after a failure."""
        with self._lock:
            kept = self._kept.pop(level_key, None)
        if kept is None or kept.version > version or not _of_this_history(kept):
            return load_level(level_key, version)
        if kept.version < version:
            kept.advance(read_events(level_key, kept.version, version))
        return kept

    def give_back(self, hull: LevelHull) -> None:
        """Keep a hull for its next user."""
        with self._lock:
            self._kept[hull.fold.level_key] = hull
            while len(self._kept) > MAX_RESIDENT:
                self._kept.popitem(last=False)

    def forget(self) -> None:
        """Throw all hulls away."""
        with self._lock:
            self._kept.clear()


WRITERS: Final = Residents()
"""The hulls of the levels that this process writes."""


def _of_this_history(hull: LevelHull) -> bool:
    """Tell whether the last event of a hull is in the database: it may have been restored, or be another one."""
    if hull.version == 0:
        return True
    query = {"level_key": hull.fold.level_key, "sequence": hull.version}
    stored = HullEvent.collection().find_one(query, {"_id": 1})
    return stored is not None and stored["_id"] == hull.fold.last_id


def _number(event: Event) -> int:
    return int(event["sequence"])


def _evidence(event: Event, hull_version: str, missing: tuple[str, ...], numbers: dict[str, Any]) -> JudgementInput:
    """Return all that the verdict on an entry depends on."""
    subject = event["subject"]
    return JudgementInput(
        level_key=event["level_key"],
        hull_version=hull_version,
        **numbers,
        missing=missing,
        role=Role(subject["role"]),
        error_bar_eV=subject["error_bar_eV"],
        volume_change=subject["volume_change"],
        energy_drift_eV=subject["energy_drift_eV"],
        flags=tuple(subject["flags"]),
    )


def _content(event: Event, verdict: VerdictResult, *, on_hull: bool) -> Content:
    """Return a verdict as it is stored; the order of the fields is part of a version's digest."""
    return {
        "entry_id": event["entry_id"],
        "candidate_id": event["subject"]["candidate_id"],
        "level_key": event["level_key"],
        "chemsys": event["chemsys"],
        "kind": verdict.kind.value,
        "on_hull": on_hull,
        "e_above_hull_eV_per_atom": verdict.e_above_hull_eV,
        "formation_energy_eV_per_atom": verdict.formation_energy_eV,
        "e_below_others_eV_per_atom": verdict.e_to_hull_of_others_eV,
        "error_bar_eV_per_atom": verdict.error_bar_eV,
        "decomposition": [part._asdict() for part in verdict.decomposition],
        "missing": list(verdict.missing),
        "flags": [flag.value for flag in verdict.flags],
    }
