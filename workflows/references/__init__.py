"""References: entries that others computed, imported in bulk into the level that they belong to."""

from __future__ import annotations

from hullworks.workflows.references.importer import ImportReport, import_references
from hullworks.workflows.references.levels import declared_level, stored_level
from hullworks.workflows.references.rows import Refusal, RefusalCode
from hullworks.workflows.references.shapes import Columns
from hullworks.workflows.references.status import ReferencesStatus, references_status

__all__ = [
    "Columns",
    "ImportReport",
    "ReferencesStatus",
    "Refusal",
    "RefusalCode",
    "declared_level",
    "import_references",
    "references_status",
    "stored_level",
]
