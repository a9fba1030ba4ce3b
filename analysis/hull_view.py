"""An immutable view of one chemical system at one level of theory, as of one hull event."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from hullworks.analysis.events import Fold, fold_events, published, read_events
from hullworks.analysis.resident import LevelHull
from hullworks.documents import Candidate, Entry
from hullworks.errors import LevelError
from hullworks.levels import require_one_level
from hullworks.states import CandidateState, Role

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hullworks.analysis.convex_hull import ConvexHull
    from hullworks.analysis.events import Event
    from hullworks.analysis.verdicts import VerdictResult


@dataclass(frozen=True)
class EntryRow:
    """What a reader of a hull needs to know of an entry; energies in eV/atom."""

    entry_id: str
    candidate_id: str
    calculation_id: str
    level_key: str
    name: str
    role: Role
    formula: str
    reduced_formula: str
    chemsys: str
    composition: dict[str, float]
    n_atoms: int
    energy_eV_per_atom: float
    convergence_error_eV_per_atom: float | None
    flags: tuple[str, ...]
    results: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, event: Event, details: Mapping[str, Any]) -> EntryRow:
        """Return the row of an entry: what its hull event says, and what its document adds.

        Args:
            event: The event that says what the entry is.
            details: The entry's document; results and provenance are taken from it.
        """
        subject = event["subject"]
        return cls(
            entry_id=event["entry_id"],
            candidate_id=subject["candidate_id"],
            calculation_id=details.get("calculation_id", ""),
            level_key=event["level_key"],
            name=subject["name"] or subject["formula"],
            role=Role(subject["role"]),
            formula=details.get("formula", subject["formula"]),
            reduced_formula=subject["formula"],
            chemsys=event["chemsys"],
            composition=dict(subject["composition"]),
            n_atoms=subject["n_atoms"],
            energy_eV_per_atom=subject["energy_eV_per_atom"],
            convergence_error_eV_per_atom=subject["error_bar_eV"],
            flags=tuple(subject["flags"]),
            results=dict(details.get("results") or {}),
            provenance=dict(details.get("provenance") or {}),
        )


@dataclass(frozen=True, eq=False)
class HullView:
    """One chemical system at one level, as of one hull event.

    Attributes:
        level_key: The level of theory; every entry is of it.
        elements: The chemical system, sorted.
        sequence: Number of the newest hull event that is contained.
        entries: The entries within the system, in the order of their events.
        fold: What the events of the system amount to.

    Raises:
        LevelError: An entry is of another level.
    """

    level_key: str
    elements: tuple[str, ...]
    sequence: int
    entries: tuple[EntryRow, ...]
    fold: Fold

    def __post_init__(self) -> None:
        if self.fold.level_key != self.level_key:
            raise LevelError(f"its events are of {self.fold.level_key}", self.level_key)
        if self.entries:
            require_one_level({self.level_key, *(entry.level_key for entry in self.entries)}, "-".join(self.elements))

    @property
    def version(self) -> str:
        """The name under which a verdict quotes this hull."""
        return f"{self.level_key}#{self.sequence}"

    @property
    def ids(self) -> list[str]:
        """Entry ids, in the order of the hull's indices."""
        return [entry.entry_id for entry in self.entries]

    @cached_property
    def level_hull(self) -> LevelHull:
        """The hull of the system with all that its verdicts depend on."""
        return LevelHull(self.fold)

    @property
    def hull(self) -> ConvexHull:
        """The hull engine over the entries, total energies in eV/atom."""
        return self.level_hull.engine

    def verdicts(self) -> list[VerdictResult]:
        """Judge every entry by this very hull; in the order of the entries.

        A verdict on an entry of a subsystem names the references that are missing in its own system only.
        """
        if not self.entries:
            return []
        indices = np.arange(len(self.entries))
        return list(self.level_hull.judge(indices, self.hull.numbers(indices)))


def load_view(level_key: str, elements: Iterable[str], *, as_of: int | None = None) -> HullView:
    """Load a chemical system and all its subsystems from the hull events.

    Args:
        level_key: Key of the level of theory.
        elements: The chemical system.
        as_of: Number of the hull event to go back to; by default the published version.
    """
    system = tuple(sorted(set(elements)))
    sequence = published(level_key) if as_of is None else as_of
    fold = fold_events(level_key, read_events(level_key, 0, sequence, within=system))
    fold.version = sequence
    fields = {"calculation_id": 1, "formula": 1, "results": 1, "provenance": 1}
    found = Entry.collection().find({"_id": {"$in": list(fold.entries)}}, fields)
    details = {doc["_id"]: doc for doc in found}
    rows = tuple(EntryRow.of(event, details.get(name, {})) for name, event in fold.entries.items())
    return HullView(level_key, system, sequence, rows, fold)


_OWED = (
    CandidateState.QUEUED,
    CandidateState.SUBMITTED,
    CandidateState.RUNNING,
    CandidateState.FAILED,
    CandidateState.PAUSED,
)
"""A reference in one of these states is declared, but has no entry."""


def missing_references(level_key: str) -> dict[str, str]:
    """Return the declared references of a level that have no entry: {what a verdict names: chemical system}."""
    query = {"level_key": level_key, "role": Role.REFERENCE.value, "state": {"$in": [s.value for s in _OWED]}}
    fields = {"name": 1, "reduced_formula": 1, "chemsys": 1, "state": 1}
    return {_named(doc): doc["chemsys"] for doc in Candidate.collection().find(query, fields)}


def _named(candidate: Mapping[str, Any]) -> str:
    failed = ", failed" if candidate["state"] == CandidateState.FAILED.value else ""
    return f"{candidate.get('name') or candidate.get('reduced_formula')} ({candidate['_id']}{failed})"
