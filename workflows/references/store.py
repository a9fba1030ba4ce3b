"""Where imported entries go: in bulk, each once, whoever else writes at the time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from hullworks.documents import Entry, now
from hullworks.errors import DatabaseError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

Document = dict[str, Any]

_DUPLICATE_KEY: Final = 11000
_SEEN: Final = {
    "reduced_formula": 1,
    "energy_eV_per_atom": 1,
    "uncorrected_energy_eV_per_atom": 1,
    "provenance.source_file": 1,
    "provenance.unit": 1,
    "provenance.row": 1,
}
"""What tells whether two entries of one id are the same, and where the first one came from."""


@dataclass(frozen=True)
class Encoded:
    """Documents as bytes that MongoDB takes, and what kept the others from becoming such."""

    ready: list[Any]
    faults: dict[str, str]
    """By entry id."""


def encode(documents: Iterable[Document]) -> Encoded:
    """Return documents in the database's own form; integers beyond 64 bits and the like have none."""
    import bson
    from bson.raw_bson import RawBSONDocument

    ready, faults = [], {}
    for document in documents:
        try:
            ready.append(RawBSONDocument(bson.encode(document)))
        except (bson.errors.BSONError, OverflowError, UnicodeEncodeError) as error:
            faults[str(document["_id"])] = str(error)
    return Encoded(ready, faults)


class EntryStore:
    """The entries of one level in the database; in a dry run, what would be there.

    Args:
        level_key: The level of theory.
        dry_run: Write nothing; remember what would have been written, 0.3 kB an entry.
    """

    def __init__(self, level_key: str, *, dry_run: bool = False) -> None:
        self.level_key = level_key
        self.dry_run = dry_run
        self._collection = Entry.collection()
        self._pretended: dict[str, Document] = {}

    def present(self, ids: Sequence[str]) -> dict[str, Document]:
        """Return what is known of some entries by id: formula, energies and source."""
        found = {document["_id"]: document for document in self._collection.find({"_id": {"$in": list(ids)}}, _SEEN)}
        return found | {key: self._pretended[key] for key in ids if key in self._pretended}

    def add(self, documents: Sequence[Any]) -> set[str]:
        """Store new entries; return the ids of those that somebody else stored in the meantime.

        Raises:
            DatabaseError: The server refuses them for another reason than that.
        """
        if self.dry_run:
            self._pretended |= {document["_id"]: _seen(document) for document in documents}
            return set()
        if not documents:
            return set()
        from pymongo.errors import BulkWriteError

        try:
            self._collection.insert_many(documents, ordered=False)
        except BulkWriteError as error:
            faults = error.details.get("writeErrors", [])
            other = [fault["errmsg"] for fault in faults if fault["code"] != _DUPLICATE_KEY]
            other += [str(fault) for fault in error.details.get("writeConcernErrors", [])]
            if other:
                cure = "Import again when it takes them: what is stored already is known then."
                raise DatabaseError(f"the server refuses entries ({other[0]})", self.level_key, cure) from None
            return {str(documents[fault["index"]]["_id"]) for fault in faults}
        return set()

    def settings(self) -> dict[str, str]:
        """Return the settings that the imported entries of the level share, as the fence names them."""
        found = self._collection.aggregate(
            [
                {"$match": {"level_key": self.level_key, "provenance.imported": True, "retracted": False}},
                {"$project": {"pairs": {"$objectToArray": "$provenance.settings"}}},
                {"$unwind": "$pairs"},
                {"$group": {"_id": "$pairs.k", "value": {"$first": "$pairs.v"}}},
            ]
        )
        return {pair["_id"]: pair["value"] for pair in found}

    def first_free_moment(self) -> datetime:
        """Return a time from which on new entries come after all present ones: importing is faster than the clock."""
        from datetime import timedelta

        newest = self._collection.find_one({"level_key": self.level_key}, {"landed_at": 1}, sort=[("landed_at", -1)])
        moment = now()
        return max(moment, newest["landed_at"] + timedelta(milliseconds=1)) if newest else moment

    def elements(self) -> set[str]:
        """Return the elements of the level's entries."""
        known = set(self._collection.distinct("elements", {"level_key": self.level_key, "valid": True}))
        return known | {element for document in self._pretended.values() for element in document["elements"]}

    def lowest_elements(self) -> dict[str, float]:
        """Return the lowest energy of each element that has an entry, eV/atom."""
        alone = {"level_key": self.level_key, "valid": True, "retracted": False, "elements": {"$size": 1}}
        lowest = {"_id": {"$first": "$elements"}, "energy": {"$min": "$energy_eV_per_atom"}}
        found = self._collection.aggregate([{"$match": alone}, {"$group": lowest}])
        energies = {group["_id"]: float(group["energy"]) for group in found}
        for document in self._pretended.values():
            if len(document["elements"]) == 1:
                element, energy = document["elements"][0], document["energy_eV_per_atom"]
                energies[element] = min(energy, energies.get(element, energy))
        return energies


def _seen(document: Document) -> Document:
    """Return what a dry run remembers of an entry."""
    kept = {key: document[key] for key in _SEEN if "." not in key}
    source = {key: document["provenance"][key] for key in ("source_file", "unit", "row")}
    return {"_id": document["_id"], "elements": list(document["elements"]), "provenance": source, **kept}
