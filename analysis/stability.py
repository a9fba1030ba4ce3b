"""The stability database's writer: entries become hull events, events become verdicts; one writer at a time.

An event is the commitment: unique, numbered without gaps, never changed. All else is derived from the events, in steps
that can be repeated; a writer killed at any line is completed by the next one.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from pymongo import UpdateOne
from pymongo.errors import BulkWriteError

from hullworks.analysis.bulk import without_collector
from hullworks.analysis.events import (
    ADDED,
    ENTRY_FIELDS,
    RECORRECTED,
    RETRACTED,
    append_events,
    entry_event,
    last_sequence,
    published,
    reference_events,
    rules_events,
)
from hullworks.analysis.hull_view import missing_references
from hullworks.analysis.publication import CHUNK, DUPLICATE, publish_pending, read_level
from hullworks.analysis.published import verdicts_of_candidates
from hullworks.analysis.resident import WRITERS
from hullworks.analysis.verdicts import load_thresholds
from hullworks.documents import Candidate, Entry, HullEvent, Level, Reason
from hullworks.errors import HullError, InputError, StateError
from hullworks.leases import lease
from hullworks.states import CandidateState, Cause

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hullworks.analysis.events import Event, Fold
    from hullworks.leases import Hold

__all__ = ["is_halted", "last_sequence", "published", "recorrect", "retract", "update_all", "update_level"]

LEASE_S: Final = 60.0
"""A step of a publication takes seconds; a killed writer holds up the next for so long."""
MAX_EVENTS: Final = 250_000
"""Events of one version: enough for a whole database at once, and few enough for a machine's memory."""

_BY_HEARD: Final = [("level_key", 1), ("valid", 1), ("hull_sequence", 1)]
"""The index of pending entries; others begin with the level, too, and would be walked through to their end."""


def update_all() -> Counter[str]:
    """Bring every level's hull and verdicts up to date; return how many of what were done.

    A level that an audit has halted is counted as ``halted`` and left alone; it says why, and the others go on.
    """
    done: Counter[str] = Counter()
    for key in sorted(Level.collection().distinct("_id")):
        try:
            done += update_level(key)
        except HullError:
            if not is_halted(key):
                raise
            done["halted"] += 1
    return done


def is_halted(level_key: str) -> bool:
    """Tell whether an audit has stopped all publication for a level."""
    return bool((Level.collection().find_one({"_id": level_key}, {"halted": 1}) or {}).get("halted"))


def update_level(level_key: str) -> Counter[str]:
    """Bring one level's hull and verdicts up to date; do nothing while another process is at it.

    Args:
        level_key: Key of the level of theory.

    Returns:
        Number of events appended, versions published, verdicts made, entries refused and candidates verified.

    Raises:
        HullError: An audit found a wrong number; nothing more is published at this level, and it says why.
        LevelError: There is no such level.
    """
    done: Counter[str] = Counter()
    while True:
        with lease(f"stability:{level_key}", LEASE_S) as hold:
            if not hold:
                return +done
            try:
                with without_collector():
                    done += _update(level_key, hold)
            except StateError:
                # Another process took over in the middle. What was written here is what it writes, too.
                return +done
        # Whoever came meanwhile went away, trusting the holder of the lease.
        if Entry.collection().find_one(_pending(level_key), {"_id": 1}, hint=_BY_HEARD) is None:
            return +done


def retract(entry_id: str, reason: str) -> Counter[str]:
    """Take an entry back: all that it moved moves back, and its candidate has failed.

    Args:
        entry_id: The entry; retracting it again changes nothing.
        reason: Why, for the history.

    Returns:
        What the update did.

    Raises:
        InputError: There is no such entry, or no reason.
        HullError: An audit has stopped publication; nothing was changed.
    """
    entry = _entry(entry_id, reason)
    read_level(entry["level_key"])  # while it is halted, a repair would take the change in silently
    change = {"retracted": True, "retraction": reason, "hull_sequence": None}
    Entry.collection().update_one({"_id": entry_id, "retracted": {"$ne": True}}, {"$set": change})
    return update_level(entry["level_key"])


def recorrect(entry_id: str, energy: float, parts: Mapping[str, float], reason: str) -> Counter[str]:
    """Give an entry another corrected energy, higher or lower.

    Args:
        entry_id: The entry.
        energy: The corrected energy in eV/atom.
        parts: The correction's parts in eV/atom by name.
        reason: Why, for the history.

    Returns:
        What the update did.

    Raises:
        InputError: There is no such entry or no reason, it was retracted, or the energy is no energy of a solid.
        HullError: An audit has stopped publication; nothing was changed.
    """
    entry = _entry(entry_id, reason)
    if problem := _energy_problem(energy):
        raise InputError(problem, entry_id)
    read_level(entry["level_key"])  # while it is halted, a repair would take the change in silently
    change: dict[str, Any] = {"energy_eV_per_atom": float(energy), "correction_parts_eV_per_atom": dict(parts)}
    change |= {"recorrection": reason, "hull_sequence": None}
    made = Entry.collection().update_one(
        {"_id": entry_id, "retracted": {"$ne": True}},
        {"$set": change, "$inc": {"recorrections": 1}, "$unset": {"refused": ""}},
    )
    if not made.matched_count:
        raise InputError("a retracted entry has no energy to correct", entry_id)
    return update_level(entry["level_key"])


def _entry(entry_id: str, reason: str) -> dict[str, Any]:
    if not reason.strip():
        raise InputError("a reason is needed, for the history", entry_id)
    return Entry.stored(entry_id, {"level_key": 1})


def _update(level_key: str, hold: Hold) -> Counter[str]:
    """Publish what is pending, append what is new, and so on until nothing is left."""
    done: Counter[str] = Counter()
    previous = int(read_level(level_key).get("published") or 0)
    hull = WRITERS.take(level_key, previous)
    while True:
        hull, made = publish_pending(hull, hold)
        done += made
        fold = hull.fold
        entries = _pending_entries(level_key)
        _fail_candidates(entries)  # before the references are looked at, of which one may be missing from now on
        _mark_heard(fold, entries)
        drafts, refused = _drafts(fold, entries)
        done["refused"] += _refuse(refused)
        if drafts or fold.entries:  # a level without entries has no hull to speak of
            context = rules_events(fold) + reference_events(fold, missing_references(level_key))
            drafts = context + drafts
        if not drafts:
            break
        hold.keep()
        done += _append(level_key, fold.version, drafts)
    WRITERS.give_back(hull)
    done["verified"] += _verify_candidates(level_key)
    return done


def _pending_entries(level_key: str) -> list[dict[str, Any]]:
    """Return the entries that the hull has not heard of in their present form.

    In the order in which they lie in the database: noting something at each of many is five times as fast in it.
    """
    fields = dict.fromkeys([*ENTRY_FIELDS, "landed_at"], 1)
    return list(Entry.collection().find(_pending(level_key), fields).hint(_BY_HEARD).limit(MAX_EVENTS))


def _pending(level_key: str) -> dict[str, Any]:
    return {"level_key": level_key, "valid": True, "hull_sequence": None, "refused": None}


def _drafts(fold: Fold, entries: Iterable[dict[str, Any]]) -> tuple[list[Event], dict[str, str]]:
    """Return the events that pending entries make, in the order of landing; and why others are refused, by entry id."""
    drafts: list[Event] = []
    refused: dict[str, str] = {}
    for entry in sorted(entries, key=lambda entry: (entry["landed_at"], entry["_id"])):
        kind = _kind(fold, entry)
        if kind is None:
            continue
        if problem := _problem(entry, kind):
            refused[entry["_id"]] = problem
        else:
            drafts.append(entry_event(entry, kind))
    return drafts, refused


def _kind(fold: Fold, entry: Mapping[str, Any]) -> str | None:
    """Return which event a pending entry makes; None when the hull knows it as it is."""
    known = fold.entries.get(entry["_id"])
    if entry.get("retracted"):
        return RETRACTED if known else None
    if known is None:
        return ADDED
    heard: int = known["subject"]["recorrections"]
    return RECORRECTED if (entry.get("recorrections") or 0) > heard else None


def _problem(entry: Mapping[str, Any], kind: str) -> str:
    """Return why an entry must not enter the hull; empty when it may."""
    amounts = entry.get("composition") or {}
    if kind == RETRACTED:
        return ""
    if not amounts or not all(math.isfinite(n) and n > 0 for n in amounts.values()):
        return f"{amounts} is no composition"
    if "-".join(sorted(amounts)) != entry["chemsys"]:
        return f"its composition {amounts} is not of the system {entry['chemsys']}"
    return _energy_problem(entry["energy_eV_per_atom"])


def _energy_problem(energy: float) -> str:
    low, high = load_thresholds().energy_bounds_eV
    return "" if low <= energy <= high else f"{energy} eV/atom is no energy of a solid"


def _refuse(refused: Mapping[str, str]) -> int:
    """Mark entries that the hull does not take; return how many."""
    text = "Correct its energy, or retract it."
    marks = [
        UpdateOne({"_id": name}, {"$set": {"refused": {"code": "refused", "text": why, "next_step": text}}})
        for name, why in refused.items()
    ]
    return int(Entry.collection().bulk_write(marks, ordered=False).matched_count) if marks else 0


def _append(level_key: str, after: int, drafts: list[Event]) -> Counter[str]:
    """Append events; return how many, and how many entries the database itself refused."""
    try:
        append_events(level_key, after, drafts)
    except BulkWriteError as error:
        (failed,) = error.details["writeErrors"]
        if failed["code"] != DUPLICATE:
            raise
        if "sequence" in failed["keyPattern"] and "level_key" in failed["keyPattern"]:
            raise StateError("another process appends events", level_key, "It does the work.") from None
        _refuse_foreign(level_key, drafts[failed["index"]])
        return Counter(events=int(error.details["nInserted"]), refused=1)
    return Counter(events=len(drafts))


def _refuse_foreign(level_key: str, draft: Event) -> None:
    """Refuse an entry that another level's hull has: an entry belongs to one level.

    Raises:
        HullError: It is this level's own, which cannot be while events have no gaps.
    """
    there = HullEvent.collection().find_one({"entry_id": draft["entry_id"], "kind": ADDED}, {"level_key": 1})
    if there is None or there["level_key"] == level_key:
        raise HullError(f"the event {draft['token']} is there already", level_key, "Run: hullworks audit")
    _refuse({draft["entry_id"]: f"it is on the hull of {there['level_key']}, and an entry belongs to one level"})


def _mark_heard(fold: Fold, entries: Iterable[Mapping[str, Any]]) -> None:
    """Note at pending entries that the hull contains them, unless they have changed again meanwhile."""
    heard = [entry for entry in entries if _kind(fold, entry) is None]
    for (recorrections, retracted), alike in _by_state(heard).items():
        for start in range(0, len(alike), CHUNK):
            unchanged = {"recorrections": recorrections, "retracted": retracted}
            Entry.collection().update_many(
                {"_id": {"$in": alike[start : start + CHUNK]}, **unchanged}, {"$set": {"hull_sequence": fold.version}}
            )


def _by_state(entries: Iterable[Mapping[str, Any]]) -> dict[tuple[Any, Any], list[str]]:
    """Return entry ids by what may have changed of them."""
    found: dict[tuple[Any, Any], list[str]] = {}
    for entry in entries:
        found.setdefault((entry.get("recorrections"), entry.get("retracted")), []).append(entry["_id"])
    return found


def _fail_candidates(entries: Iterable[Mapping[str, Any]]) -> None:
    """Move the candidates of retracted entries to where they belong."""
    for entry in entries:
        if entry.get("retracted"):
            _fail_candidate(entry)


def _fail_candidate(entry: Mapping[str, Any]) -> None:
    why = entry.get("retraction") or "its entry was retracted"
    reason = Reason(code="retracted", text=why)
    judged = {CandidateState.LANDED, CandidateState.VERIFIED}
    try:
        Candidate.move(
            entry["candidate_id"], CandidateState.FAILED, why, only_from=judged, cause=Cause.INVALID, reason=reason
        )
    except StateError:
        return  # an imported reference has no candidate, and a candidate may have moved on


def _verify_candidates(level_key: str) -> int:
    """Move landed candidates that have a verdict on; return how many."""
    query = {"level_key": level_key, "state": CandidateState.LANDED.value}
    landed = [doc["_id"] for doc in Candidate.collection().find(query, {"_id": 1})]
    verdicts = verdicts_of_candidates({level_key: landed}) if landed else {}
    why = {name: f"{verdict['kind']} at hull version {verdict['since']}" for name, verdict in verdicts.items()}
    return Candidate.move_many(CandidateState.LANDED, CandidateState.VERIFIED, why)
