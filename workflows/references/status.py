"""How the references of a level stand: how many, of which elements, and what is owed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from hullworks.analysis.hull_view import missing_references
from hullworks.documents import Candidate, Entry
from hullworks.states import Role


@dataclass(frozen=True)
class ReferencesStatus:
    """The references of one level.

    Attributes:
        level_key: The level of theory.
        imported: References that others computed.
        computed: References that this project computed.
        elements: Elements with an entry.
        missing_elements: Elements of entries or candidates that have none: verdicts on these are indeterminate.
        owed: Declared references without an entry.
    """

    level_key: str
    imported: int
    computed: int
    elements: tuple[str, ...]
    missing_elements: tuple[str, ...]
    owed: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON types."""
        return {**asdict(self), "references": self.imported + self.computed}


def references_status(level_key: str) -> ReferencesStatus:
    """Return how the references of a level stand; the documents must be connected."""
    active = Entry.objects(level_key=level_key, valid=True, retracted=False)
    references = active.filter(role=Role.REFERENCE)
    imported = references.filter(provenance__imported=True).count()
    present = {symbol for symbol in active.distinct("chemsys") if "-" not in symbol}
    systems = Candidate.objects(level_key=level_key, chemsys__ne=None).distinct("chemsys")
    needed = {symbol for system in systems for symbol in system.split("-")} | set(active.distinct("elements"))
    return ReferencesStatus(
        level_key=level_key,
        imported=imported,
        computed=references.count() - imported,
        elements=tuple(sorted(present)),
        missing_elements=tuple(sorted(needed - present)),
        owed=tuple(sorted(missing_references(level_key))),
    )
