"""Reading what is published: the verdicts as of one hull version, whole however many queries it takes.

A reader asks for the version first, and then for the verdicts that hold at it. Later versions only add verdicts and
write the end of those that they replace. A cursor walks an index, and a document whose key changes under it may be
met twice or never; so the end of a verdict is in no index that a reader uses, and readers name theirs.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

from bson import encode

from hullworks.analysis.events import MAX_ENUMERATED_ELEMENTS, published, subsystems
from hullworks.documents import Candidate, Level, StoredVerdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from hullworks.analysis.resident import Content

Stored = dict[str, Any]
"""A verdict as the database has it."""

CONTENT_FIELDS: Final = (
    "entry_id",
    "candidate_id",
    "level_key",
    "chemsys",
    "kind",
    "on_hull",
    "e_above_hull_eV_per_atom",
    "formation_energy_eV_per_atom",
    "e_below_others_eV_per_atom",
    "error_bar_eV_per_atom",
    "decomposition",
    "missing",
    "flags",
)
"""What a verdict says, in the order that its digest needs."""

CHUNK: Final = 20_000
"""Ids in one query: a command must not exceed 48 MB."""

BY_ENTRY: Final = [("entry_id", 1), ("since", 1)]
BY_VERSION: Final = [("level_key", 1), ("since", 1)]
"""Indexes of the verdicts, as readers name them: none holds the end of a verdict."""
_BY_CANDIDATE: Final = [("candidate_id", 1), ("since", 1)]
_BY_SYSTEM: Final = [("level_key", 1), ("chemsys", 1), ("since", 1)]


def verdicts_of_entries(level_key: str, version: int, entry_ids: Iterable[str]) -> dict[str, Stored]:
    """Return the verdicts on some entries that hold at a hull version, by entry id."""
    found: dict[str, Stored] = {}
    for ids in _chunks(sorted(set(entry_ids))):
        query = {"entry_id": {"$in": ids}, "level_key": level_key, **_holding(version)}
        found |= {doc["entry_id"]: doc for doc in StoredVerdict.collection().find(query).hint(BY_ENTRY)}
    return found


def verdicts_of_level(
    level_key: str, version: int, *, chemsys: str | None = None, **fields: object
) -> Iterator[Stored]:
    """Yield the verdicts of a level that hold at a hull version.

    Args:
        level_key: Key of the level.
        version: The hull version.
        chemsys: Only entries within this chemical system.
        fields: Only verdicts with these values, such as ``kind="stable"``.
    """
    query = {"level_key": level_key, **_holding(version), **fields}
    hint, elements = BY_VERSION, set(chemsys.split("-")) if chemsys else None
    if elements is not None and len(elements) <= MAX_ENUMERATED_ELEMENTS:
        query["chemsys"], hint = {"$in": subsystems(elements)}, _BY_SYSTEM
    for doc in StoredVerdict.collection().find(query).hint(hint):
        if elements is None or elements.issuperset(doc["chemsys"].split("-")):
            yield doc


def verdicts_of_candidates(owners: Mapping[str, Iterable[str]]) -> dict[str, Stored]:
    """Return the present verdicts on candidates, by candidate id, as of one version of each level.

    Args:
        owners: Candidate ids by level key.
    """
    found: dict[str, Stored] = {}
    for level_key, candidate_ids in owners.items():
        version = published(level_key)
        for ids in _chunks(sorted(set(candidate_ids))):
            query = {"candidate_id": {"$in": ids}, "level_key": level_key, **_holding(version)}
            for doc in StoredVerdict.collection().find(query).hint(_BY_CANDIDATE):
                found[doc["candidate_id"]] = {**doc, "read_at": version}
    return found


def verdict_on(candidate: Candidate) -> Stored | None:
    """Return the present verdict on a candidate, of its twin for a duplicate; None while it has none."""
    owner = candidate.duplicate_of or candidate.candidate_id
    return verdicts_of_candidates({candidate.level_key: [owner]}).get(owner)


def candidate_rows(candidates: Iterable[Candidate]) -> list[dict[str, Any]]:
    """Return candidates as plain rows: state, prediction in eV/atom, and verdict, that of its twin for a duplicate."""
    found = list(candidates)
    owners: dict[str, set[str]] = {}
    for candidate in found:
        owners.setdefault(candidate.level_key, set()).add(candidate.duplicate_of or candidate.candidate_id)
    verdicts = verdicts_of_candidates(owners)
    return [candidate_row(each, verdicts.get(each.duplicate_of or each.candidate_id)) for each in found]


def candidate_row(candidate: Candidate, verdict: Stored | None) -> dict[str, Any]:
    """Return one candidate as a row."""
    prediction = candidate.prediction
    return {
        "candidate_id": candidate.candidate_id,
        "batch": candidate.batch,
        "name": candidate.name,
        "role": candidate.role.value,
        "reduced_formula": candidate.reduced_formula,
        "chemsys": candidate.chemsys,
        "state": candidate.state.value,
        "predicted_e_form": prediction.e_form_eV_per_atom if prediction else None,
        "predicted_e_above_hull": prediction.e_above_hull_eV_per_atom if prediction else None,
        "level": candidate.level_key,
        **verdict_row(verdict),
        "note": candidate.reason.text if candidate.reason else None,
        "row": f"{candidate.source_file}:{candidate.source_row}",
    }


def verdict_row(verdict: Stored | None) -> dict[str, Any]:
    """Return a verdict as columns, energies in eV/atom: never without its level, hull versions and flags."""
    if verdict is None:
        gaps = {"verdict": None, "hull_version": None, "e_above_hull": None, "formation_energy": None}
        return {**gaps, "decomposition": [], "flags": []}
    return {
        "verdict": verdict["kind"],
        "level": verdict["level_key"],
        "hull_version": verdict["since"],
        "read_at": verdict.get("read_at", verdict["since"]),
        "e_above_hull": verdict["e_above_hull_eV_per_atom"],
        "formation_energy": verdict["formation_energy_eV_per_atom"],
        "e_below_others": verdict["e_below_others_eV_per_atom"],
        "decomposition": [f"{part['fraction']:.3f} {part['formula']}" for part in verdict["decomposition"]],
        "missing": list(verdict["missing"]),
        "flags": list(verdict["flags"]),
    }


def content_of(verdict: Stored) -> Content:
    """Return what a stored verdict says, without the versions between which it holds."""
    return {name: verdict[name] for name in CONTENT_FIELDS}


def moved_eV(before: Stored | None, after: Stored | Content | None) -> float | None:
    """Return the change of an entry's energy above hull in eV/atom; None unless there is one before and after."""
    field = "e_above_hull_eV_per_atom"
    if before is None or after is None or before[field] is None or after[field] is None:
        return None
    return float(after[field] - before[field])


def largest_first(moves: Mapping[str, float | None]) -> list[tuple[str, float]]:
    """Return the entries that moved at all with their moves in eV/atom, the largest first, then by id."""
    moved = [(name, change) for name, change in moves.items() if change]
    return sorted(moved, key=lambda pair: (-abs(pair[1]), pair[0]))


def digest_of(contents: Iterable[Content], gone: Iterable[str]) -> str:
    """Return the SHA-256, hexadecimal, of what one version made of a level.

    Args:
        contents: The verdicts that it made, in any order.
        gone: Ids of the entries whose verdict it ended without another.
    """
    rows = [(content["entry_id"], encode({"verdict": content})) for content in contents]
    rows += [(entry_id, encode({"gone": entry_id})) for entry_id in gone]
    made = hashlib.sha256()
    for _, row in sorted(rows):
        made.update(row)
    return made.hexdigest()


def levels_with_versions() -> dict[str, int]:
    """Return the published hull version of each level by its key."""
    return {doc["_id"]: int(doc.get("published") or 0) for doc in Level.collection().find({}, {"published": 1})}


def _holding(version: int) -> dict[str, Any]:
    return {"since": {"$lte": version}, "until": {"$gt": version}}


def _chunks(ids: list[str]) -> Iterator[list[str]]:
    return (ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK))
