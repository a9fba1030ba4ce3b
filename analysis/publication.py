"""Publication of one hull version: from appended events to verdicts, in steps that each can be repeated.

A version is claimed before its first verdict is written. Whoever claims or completes it writes the very same bytes:
its events are fixed, and verdicts are a function of the events. So a writer that lost its lease in the middle, and the
one that took over, cannot contradict each other.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from pymongo import ReturnDocument
from pymongo.errors import BulkWriteError, DuplicateKeyError

from hullworks.analysis.events import libraries, read_events
from hullworks.analysis.proofs import problems_of_step
from hullworks.analysis.published import content_of, digest_of, largest_first, moved_eV, verdicts_of_entries
from hullworks.analysis.resident import load_level
from hullworks.documents import OPEN_END, SCHEMA_VERSION, HullVersion, Level, StoredVerdict, now
from hullworks.errors import HullError, LevelError, StateError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hullworks.analysis.events import Event
    from hullworks.analysis.published import Stored
    from hullworks.analysis.resident import Content, LevelHull
    from hullworks.leases import Hold

MAX_MOVES: Final = 200
"""Largest moves that one version lists; the others are differences between verdicts."""
CHUNK: Final = 20_000
"""Documents in one bulk write, between which the lease is renewed."""
DUPLICATE: Final = 11000
"""MongoDB's code for a unique key that is there already."""


def publish_pending(hull: LevelHull, hold: Hold) -> tuple[LevelHull, Counter[str]]:
    """Publish the events of a level that are not published yet, the claimed ones first; the lease must be held.

    Args:
        hull: The level's hull as of the published version; used up.
        hold: The level's lease.

    Returns:
        The hull as of the version that is published now; number of versions published and of verdicts made.

    Raises:
        HullError: An audit found a wrong number; nothing was published, and the level is halted.
        StateError: The lease was lost; whoever has it goes on.
    """
    done: Counter[str] = Counter()
    while events := list(read_events(hull.fold.level_key, hull.version)):
        hold.keep()
        version = _claim(hull.fold.level_key, hull.version, events[-1]["sequence"])
        hull, made = _publish(hull, [event for event in events if event["sequence"] <= version], hold)
        done += made
    return hull, done


def read_level(level_key: str) -> dict[str, Any]:
    """Return a level that may be written.

    Raises:
        LevelError: There is no such level.
        HullError: It is halted.
    """
    level = Level.collection().find_one({"_id": level_key})
    if level is None:
        raise LevelError("no such level", level_key, "The first `hullworks submit` at a level makes it.")
    if level.get("halted"):
        raise _halted(level_key, level["halted"]["evidence"])
    return level


def _claim(level_key: str, previous: int, version: int) -> int:
    """Fix which events the next version contains, unless somebody has; return its number.

    Raises:
        StateError: Somebody else has published meanwhile.
    """
    claimed = {"$ifNull": ["$claimed", version]}
    level = Level.collection().find_one_and_update(
        {"_id": level_key, "published": _number(previous)},
        [{"$set": {"claimed": claimed}}],
        {"claimed": 1},
        return_document=ReturnDocument.AFTER,
    )
    if level is None:
        raise StateError("another process has published a hull version", level_key, "It does the work.")
    return int(level["claimed"])


def _number(version: int) -> Any:  # noqa: ANN401 - a value or an operator of a query
    return {"$in": [0, None]} if version == 0 else version


def _publish(hull: LevelHull, events: list[Event], hold: Hold) -> tuple[LevelHull, Counter[str]]:
    """Work out one version, prove it, and write it."""
    level_key, previous, version = hull.fold.level_key, hull.version, int(events[-1]["sequence"])
    made, problems = _work_out(hull, previous, events)
    if problems:
        # What is in memory may have rotted; what the events say has not.
        made, problems = _work_out(load_level(level_key, previous), previous, events)
    if made is None or problems:
        raise halt(level_key, version, problems)
    made.write(hold)
    return made.hull, Counter(versions=1, verdicts=len(made.changed))


def _work_out(hull: LevelHull, previous: int, events: list[Event]) -> tuple[Version | None, list[str]]:
    """Return a version, and what is wrong with it."""
    try:
        made = Version(hull, previous, events)
    except HullError as error:
        return None, [str(error)]
    return made, made.problems


def halt(level_key: str, version: int, problems: Iterable[str]) -> HullError:
    """Stop all publication for a level, and return the error that says so; what is published stays readable."""
    evidence = list(problems)[:20]
    mark = {"version": version, "evidence": evidence, "at": now()}
    Level.collection().update_one({"_id": level_key}, {"$set": {"halted": mark}})
    return _halted(level_key, evidence)


def _halted(level_key: str, evidence: list[str]) -> HullError:
    return HullError(
        f"the audit found wrong numbers, and nothing more is published: {'; '.join(evidence[:3])}",
        level_key,
        "The last good version stays readable. Run: hullworks audit --repair",
    )


class Version:
    """One hull version, worked out and audited, not yet written.

    Args:
        hull: The level's hull as of the version before; advanced here.
        previous: The version before.
        events: The events that make this version.
    """

    def __init__(self, hull: LevelHull, previous: int, events: list[Event]) -> None:
        self.hull = hull
        self.previous = previous
        self.events = events
        self.number = int(events[-1]["sequence"])
        step = hull.advance(events)
        numbers = hull.engine.numbers(step.judged)
        self.judged = hull.contents(step, numbers)
        self.old = verdicts_of_entries(hull.fold.level_key, previous, [*self.judged, *step.gone])
        self.changed = changed_contents(self.judged, {name: content_of(doc) for name, doc in self.old.items()})
        self.gone = [name for name in step.gone if name in self.old]
        self.problems, self.audit = problems_of_step(hull, step, numbers)

    def write(self, hold: Hold) -> None:
        """Write the verdicts, the version, and at last its number; each may be there already.

        Raises:
            HullError: Something else is there already.
            StateError: The lease was lost.
        """
        self._close(hold)
        self._insert(hold)
        hold.keep()
        self._record()
        hold.keep()
        Level.collection().update_one(
            {"_id": self.hull.fold.level_key, "published": _number(self.previous)},
            {"$set": {"published": self.number}, "$unset": {"claimed": ""}},
        )

    def _close(self, hold: Hold) -> None:
        """End the verdicts that are replaced: only those of earlier versions, however late this is repeated."""
        ended = sorted({*self.gone, *self.old.keys() & self.changed.keys()})
        for start in range(0, len(ended), CHUNK):
            hold.keep()
            StoredVerdict.collection().update_many(
                {"entry_id": {"$in": ended[start : start + CHUNK]}, "until": OPEN_END, "since": {"$lt": self.number}},
                {"$set": {"until": self.number}},
            )

    def _insert(self, hold: Hold) -> None:
        names = sorted(self.changed)
        for start in range(0, len(names), CHUNK):
            hold.keep()
            chunk = names[start : start + CHUNK]
            self._insert_missing([self._document(self.changed[name]) for name in chunk])

    def _document(self, content: Content) -> Stored:
        return {**content, "since": self.number, "until": OPEN_END, "schema_version": SCHEMA_VERSION}

    def _insert_missing(self, documents: list[Stored]) -> None:
        try:
            StoredVerdict.collection().insert_many(documents, ordered=False)
        except BulkWriteError as error:
            failed = error.details["writeErrors"]
            if any(each["code"] != DUPLICATE for each in failed):
                raise
            self._require_same(documents[each["index"]] for each in failed)

    def _require_same(self, documents: Iterable[Stored]) -> None:
        """Refuse to go on unless verdicts that are there already say the same."""
        wanted = {document["entry_id"]: content_of(document) for document in documents}
        query = {"entry_id": {"$in": list(wanted)}, "since": self.number}
        there = {doc["entry_id"]: content_of(doc) for doc in StoredVerdict.collection().find(query)}
        if other := sorted(name for name in wanted if there.get(name) != wanted[name]):
            raise halt(self.hull.fold.level_key, self.number, [f"another verdict on {name} is there" for name in other])

    def _record(self) -> None:
        document = self._version_document()
        try:
            HullVersion.collection().insert_one(document)
        except DuplicateKeyError:
            own = {"level_key": self.hull.fold.level_key, "version": self.number}
            stored = HullVersion.collection().find_one(own)
            if stored is None or stored["digest"] != document["digest"]:
                raise halt(self.hull.fold.level_key, self.number, ["another version of this number is there"]) from None

    def _version_document(self) -> dict[str, Any]:
        came = {name for name, content in self.changed.items() if content["on_hull"]}
        was = {name for name in {*self.changed, *self.gone} if name in self.old and self.old[name]["on_hull"]}
        return {
            "level_key": self.hull.fold.level_key,
            "version": self.number,
            "previous": self.previous,
            "entered": sorted(came - was),
            "left": sorted(was - came),
            "n_judged": len(self.judged),
            "n_changed": len(self.changed) + len(self.gone),
            "moves": largest_moves(self.changed, self.old),
            "digest": digest_of(self.changed.values(), self.gone),
            "audit": self.audit,
            "libraries": libraries(),
            "at": self.events[-1]["at"],
            "schema_version": SCHEMA_VERSION,
        }


def changed_contents(judged: Mapping[str, Content], old: Mapping[str, Content]) -> dict[str, Content]:
    """Return those of some verdicts that differ from what was said before."""
    return {name: content for name, content in judged.items() if old.get(name) != content}


def largest_moves(changed: Mapping[str, Content], old: Mapping[str, Stored]) -> list[dict[str, Any]]:
    """Return the largest changes of an energy above hull, in eV/atom, largest first."""
    moved = largest_first({name: moved_eV(old.get(name), content) for name, content in changed.items()})
    return [{"entry_id": name, "change_eV_per_atom": change} for name, change in moved[:MAX_MOVES]]
