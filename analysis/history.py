"""The memory of a level's hull: what was said when and why, what changed between versions, and all of it replayed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hullworks.analysis.events import (
    ADDED,
    RECORRECTED,
    RETRACTED,
    fold_events,
    published,
    read_events,
    version_asked,
)
from hullworks.analysis.publication import changed_contents
from hullworks.analysis.published import BY_ENTRY, content_of, digest_of, largest_first, moved_eV, verdicts_of_entries
from hullworks.analysis.resident import LevelHull
from hullworks.documents import OPEN_END, HullEvent, HullVersion, StoredVerdict
from hullworks.errors import HullError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from hullworks.analysis.events import Event
    from hullworks.analysis.published import Stored
    from hullworks.analysis.resident import Content


@dataclass(frozen=True)
class Because:
    """An event that took part in a change: its kind, and the entry that it concerns, if any."""

    sequence: int
    kind: str
    entry_id: str | None
    formula: str
    reason: str


@dataclass(frozen=True)
class HistoryStep:
    """One change of what is said of an entry.

    Attributes:
        level_key: Key of the level.
        version: The hull version that made the change.
        at: When.
        what: ``added``, ``retracted``, ``re-corrected``, or ``moved`` by others.
        before, after: The verdicts before and from this version on; None where there was, or is, none.
        because: The events of this version within the entry's chemical system, and those that concern no entry.
    """

    level_key: str
    version: int
    at: datetime
    what: str
    before: Stored | None
    after: Stored | None
    because: tuple[Because, ...]

    @property
    def change_eV_per_atom(self) -> float | None:
        """Change of the energy above hull in eV/atom; None unless there is one before and after."""
        return moved_eV(self.before, self.after)


_OWN = {ADDED: "added", RETRACTED: "retracted", RECORRECTED: "re-corrected"}


def history(entry_id: str) -> list[HistoryStep]:
    """Return all that happened to an entry on its level's hull, oldest first; what is published of it.

    Raises:
        InputError: No hull knows the entry.
    """
    query = {"entry_id": entry_id, "kind": ADDED}
    first = HullEvent.collection().find_one(query)
    if first is None:
        raise InputError("no hull knows this entry", entry_id, "`hullworks hull CHEMSYS` lists entries with their ids.")
    newest = published(first["level_key"])
    found = StoredVerdict.collection().find({"entry_id": entry_id, "since": {"$lte": newest}})
    revisions = {doc["since"]: doc for doc in found.hint(BY_ENTRY)}
    ends = {doc["until"] for doc in revisions.values() if doc["until"] <= newest}
    by_end = {doc["until"]: doc for doc in revisions.values()}
    turns = sorted({*revisions, *ends})
    return [_step(first, turn, before=by_end.get(turn), after=revisions.get(turn)) for turn in turns]


def _step(first: Event, turn: int, *, before: Stored | None, after: Stored | None) -> HistoryStep:
    level_key, entry_id = first["level_key"], first["entry_id"]
    version = HullVersion.collection().find_one({"level_key": level_key, "version": turn})
    if version is None:
        raise HullError(f"there is no record of hull version {turn}", level_key, "Run: hullworks audit")
    within = first["chemsys"].split("-")
    events = list(read_events(level_key, version["previous"], turn, within=within))
    own = [_OWN[event["kind"]] for event in events if event["entry_id"] == entry_id]
    what = " and ".join(own) or "moved"
    because = tuple(_because(event) for event in events)
    return HistoryStep(level_key, turn, version["at"], what, before, after, because)


def _because(event: Event) -> Because:
    formula = event.get("subject", {}).get("formula", "")
    return Because(event["sequence"], event["kind"], event["entry_id"], formula, event.get("reason") or "")


@dataclass(frozen=True)
class Change:
    """What two hull versions say of one entry; None where the entry has no verdict."""

    entry_id: str
    chemsys: str
    before: Stored | None
    after: Stored | None

    @property
    def moved_eV_per_atom(self) -> float | None:
        """Change of the energy above hull in eV/atom; None unless both versions give one."""
        return moved_eV(self.before, self.after)


@dataclass(frozen=True)
class HullDiff:
    """What changed at a level from hull version ``start`` to ``end``, by entry id.

    Attributes:
        level_key: Key of the level.
        start, end: The versions compared; each says what was said as of that event.
        changes: Every entry of which the two versions say different things.
    """

    level_key: str
    start: int
    end: int
    changes: tuple[Change, ...]

    @property
    def appeared(self) -> list[Change]:
        """Entries with a verdict at the end alone."""
        return [change for change in self.changes if change.before is None]

    @property
    def gone(self) -> list[Change]:
        """Entries with a verdict at the start alone."""
        return [change for change in self.changes if change.after is None]

    @property
    def entered(self) -> list[Change]:
        """Entries that came onto the hull, new ones among them."""
        return [change for change in self.changes if _lies(change.after) and not _lies(change.before)]

    @property
    def left(self) -> list[Change]:
        """Entries that are no longer on the hull, those that are gone among them."""
        return [change for change in self.changes if _lies(change.before) and not _lies(change.after)]

    @property
    def reversed(self) -> list[Change]:
        """Entries whose verdict is another one."""
        return [c for c in self.changes if c.before and c.after and c.before["kind"] != c.after["kind"]]

    @property
    def moved(self) -> list[Change]:
        """Entries whose energy above hull changed, largest change first."""
        by_id = {change.entry_id: change for change in self.changes}
        return [by_id[name] for name, _ in largest_first({n: c.moved_eV_per_atom for n, c in by_id.items()})]


def _lies(verdict: Stored | None) -> bool:
    return verdict is not None and bool(verdict["on_hull"])


def diff(level_key: str, start: int, end: int) -> HullDiff:
    """Compare what two published versions of a level's hull say; a number between two versions means the earlier one.

    Raises:
        HullError: A version is not published.
    """
    newest = published(level_key)
    low, high = sorted(version_asked(level_key, version, newest) for version in (start, end))
    verdicts = StoredVerdict.collection()
    span = {"$gt": low, "$lte": high}
    # A writer may end verdicts meanwhile, but with a later version than those compared, which are published.
    names = {doc["entry_id"] for doc in verdicts.find({"level_key": level_key, "since": span}, {"entry_id": 1})}
    names |= {doc["entry_id"] for doc in verdicts.find({"level_key": level_key, "until": span}, {"entry_id": 1})}
    before, after = (verdicts_of_entries(level_key, version, names) for version in (start, end))
    changes = [
        Change(name, (before.get(name) or after[name])["chemsys"], before.get(name), after.get(name))
        for name in sorted({*before, *after})
    ]
    return HullDiff(level_key, start, end, tuple(c for c in changes if _said(c.before) != _said(c.after)))


def _said(verdict: Stored | None) -> Content | None:
    return None if verdict is None else content_of(verdict)


@dataclass(frozen=True)
class Replayed:
    """One version, worked out again from the events.

    Attributes:
        version: Its number.
        recorded: The digest that was stored when it was published.
        digest: The digest of what the events say now.
        changed: The verdicts that it makes, by entry id.
        gone: Entries whose verdict it ends without another.
    """

    version: int
    recorded: str
    digest: str
    changed: dict[str, Content]
    gone: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether it is the same to the last bit."""
        return self.digest == self.recorded


def replay(level_key: str) -> Iterator[Replayed]:
    """Fold all events of a level from nothing, version by version; yield what each says now.

    Raises:
        HullError: The versions, or the events, have gaps.
    """
    hull = LevelHull(fold_events(level_key, []))
    said: dict[str, Content] = {}
    versions = HullVersion.collection().find({"level_key": level_key, "version": {"$lte": published(level_key)}})
    for stored in versions.sort("version", 1):
        if stored["previous"] != hull.version:
            problem = f"version {stored['version']} does not follow version {hull.version}"
            raise HullError(problem, level_key, "Restore a backup.")
        step = hull.advance(_complete(level_key, stored))
        contents = hull.contents(step, hull.engine.numbers(step.judged))
        changed = changed_contents(contents, said)
        gone = tuple(name for name in step.gone if said.pop(name, None) is not None)
        said |= changed
        yield Replayed(stored["version"], stored["digest"], digest_of(changed.values(), gone), changed, gone)


def _complete(level_key: str, stored: dict[str, Any]) -> list[Event]:
    events = list(read_events(level_key, stored["previous"], stored["version"]))
    if len(events) != stored["version"] - stored["previous"]:
        raise HullError(f"events of version {stored['version']} are missing", level_key, "Restore a backup.")
    return events


def expected_documents(level_key: str) -> dict[tuple[str, int], tuple[Content, int]]:
    """Return what the published verdicts of a level must be: {(entry id, since): (content, until)}.

    Raises:
        HullError: Events and versions contradict each other.
    """
    found: dict[tuple[str, int], tuple[Content, int]] = {}
    latest: dict[str, int] = {}
    for version in replay(level_key):
        if not version.same:
            raise HullError(
                f"version {version.version} does not follow from its events", level_key, "Restore a backup."
            )
        for name in (*version.changed, *version.gone):
            if name in latest:
                content, _ = found[name, latest[name]]
                found[name, latest[name]] = (content, version.version)
        for name, content in version.changed.items():
            found[name, version.version], latest[name] = (content, OPEN_END), version.version
    return found
