"""An immutable view of one chemical system at one level of theory and one hull version."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from hullworks.analysis.convex_hull import ConvexHull
from hullworks.analysis.verdicts import JudgementInput, hull_numbers
from hullworks.documents import Candidate, Entry, StoredVerdict
from hullworks.levels import require_one_level
from hullworks.states import CandidateState, Role

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_ENUMERATED_ELEMENTS = 12
"""Up to it the subsystems of a system are listed for the index; beyond, the database filters by element."""


@dataclass(frozen=True)
class EntryRow:
    """What a hull needs to know of an entry; energies in eV/atom."""

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
    results: dict[str, Any]
    provenance: dict[str, Any]

    @classmethod
    def of(cls, entry: Entry) -> EntryRow:
        """Return the row of a stored entry."""
        plain = {name: getattr(entry, name) for name in cls.__dataclass_fields__}
        return cls(
            **{
                **plain,
                "composition": dict(entry.composition),
                "flags": tuple(entry.flags),
                "results": dict(entry.results),
                "provenance": dict(entry.provenance),
            }
        )


@dataclass(frozen=True, eq=False)
class HullView:
    """One chemical system at one level, as of one hull version.

    Attributes:
        level_key: The level of theory; every entry is of it.
        elements: The chemical system, sorted.
        sequence: Number of the newest hull event that is contained.
        entries: The entries within the system, in the order of their events.
    """

    level_key: str
    elements: tuple[str, ...]
    sequence: int
    entries: tuple[EntryRow, ...]

    def __post_init__(self) -> None:
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
    def hull(self) -> ConvexHull:
        """The hull engine over the entries, total energies in eV/atom."""
        energies = np.array([entry.energy_eV_per_atom for entry in self.entries], dtype=np.float64)
        return ConvexHull.from_entries([entry.reduced_formula for entry in self.entries], energies)

    def judgement_input(self, i: int, missing_references: Sequence[str]) -> JudgementInput:
        """Return all that the verdict on entry ``i`` depends on.

        Args:
            i: Index of the entry.
            missing_references: Declared references of the system that have no entry.
        """
        entry = self.entries[i]
        lacking = set(self.hull.missing_elements) & set(entry.composition)
        return JudgementInput(
            level_key=self.level_key,
            hull_version=self.version,
            **hull_numbers(self.hull, i, self.ids, [row.reduced_formula for row in self.entries]),
            missing=(*sorted(lacking), *missing_references),
            role=entry.role,
            error_bar_eV=entry.convergence_error_eV_per_atom,
            volume_change=entry.results.get("volume_change"),
            energy_drift_eV=entry.results.get("energy_drift_eV_per_atom"),
            flags=entry.flags,
        )


def load_view(level_key: str, elements: Iterable[str], *, as_of: int | None = None) -> HullView:
    """Load the entries of a chemical system and all its subsystems.

    Args:
        level_key: Key of the level of theory.
        elements: The chemical system.
        as_of: Number of the hull event to go back to; by default the present.
    """
    system = tuple(sorted(set(elements)))
    committed = {"hull_sequence__lte": as_of} if as_of is not None else {"hull_sequence__ne": None}
    query = Entry.objects(level_key=level_key, valid=True, retracted=False, **_within(system), **committed)
    rows = tuple(EntryRow.of(entry) for entry in query.order_by("hull_sequence"))
    newest = Entry.objects(level_key=level_key, **committed).order_by("-hull_sequence").only("hull_sequence").first()
    return HullView(level_key, system, newest.hull_sequence if newest else 0, rows)


def _within(system: Sequence[str]) -> dict[str, Any]:
    """Return the query for entries whose elements all lie in ``system``."""
    if len(system) <= MAX_ENUMERATED_ELEMENTS:
        parts = [p for size in range(1, len(system) + 1) for p in combinations(system, size)]
        return {"chemsys__in": ["-".join(part) for part in parts]}
    return {"__raw__": {"elements": {"$not": {"$elemMatch": {"$nin": list(system)}}}}}


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
    owed = Candidate.objects(level_key=level_key, role=Role.REFERENCE, state__in=_OWED)
    fields = owed.only("candidate_id", "name", "reduced_formula", "chemsys", "state")
    return {_named(candidate): candidate.chemsys for candidate in fields}


def _named(candidate: Candidate) -> str:
    failed = ", failed" if candidate.state is CandidateState.FAILED else ""
    return f"{candidate.name or candidate.reduced_formula} ({candidate.candidate_id}{failed})"


def stored_verdicts(view: HullView) -> dict[str, StoredVerdict]:
    """Return the present verdicts of a view's entries by entry id."""
    return {verdict.entry_id: verdict for verdict in StoredVerdict.objects(entry_id__in=view.ids)}
