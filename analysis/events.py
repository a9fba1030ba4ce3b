"""Hull events: the appended facts that a level's hull is made of, and the one fold that turns them into its state."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from itertools import combinations
from sys import intern
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pymongo import ASCENDING

from hullworks.analysis.verdicts import Thresholds, load_thresholds
from hullworks.documents import SCHEMA_VERSION, HullEvent, Level, now
from hullworks.errors import HullError, LevelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

Event: TypeAlias = dict[str, Any]
"""A hull event as the database has it; `hullworks.documents.HullEvent` names its fields."""

ADDED: Final = "entry_added"
RETRACTED: Final = "entry_retracted"
RECORRECTED: Final = "entry_recorrected"
REFERENCES: Final = "references_changed"
RULES: Final = "rules_changed"

MAX_NAMES: Final = 5000
"""References that one event lists at most: a document must not exceed 16 MB."""

MAX_ENUMERATED_ELEMENTS: Final = 12
"""Up to it the subsystems of a system are listed for the index; beyond, all events of the level are looked through."""

_SUBJECT_FIELDS: Final = {
    "candidate_id": "candidate_id",
    "name": "name",
    "role": "role",
    "reduced_formula": "formula",
    "composition": "composition",
    "n_atoms": "n_atoms",
    "energy_eV_per_atom": "energy_eV_per_atom",
    "convergence_error_eV_per_atom": "error_bar_eV",
    "flags": "flags",
    "recorrections": "recorrections",
}
"""Fields of an entry and their names in an event's subject."""

ENTRY_FIELDS: Final = (
    "level_key",
    "chemsys",
    "retracted",
    "retraction",
    "recorrection",
    "results.volume_change",
    "results.energy_drift_eV_per_atom",
    *_SUBJECT_FIELDS,
)
"""What an event needs to know of an entry."""


def entry_event(entry: Mapping[str, Any], kind: str) -> Event:
    """Return the event, not yet numbered, that says what became of an entry.

    Args:
        entry: The entry as the database has it, with `ENTRY_FIELDS`.
        kind: ``entry_added``, ``entry_retracted`` or ``entry_recorrected``.
    """
    results = entry.get("results") or {}
    subject = {name: entry.get(own) for own, name in _SUBJECT_FIELDS.items()}
    subject |= {
        "flags": entry.get("flags") or [],
        "recorrections": entry.get("recorrections") or 0,
        "volume_change": results.get("volume_change"),
        "energy_drift_eV": results.get("energy_drift_eV_per_atom"),
    }
    again = f":{subject['recorrections']}" if kind == RECORRECTED else ""
    reasons = {RETRACTED: entry.get("retraction"), RECORRECTED: entry.get("recorrection")}
    return {
        "kind": kind,
        "token": f"{kind}:{entry['_id']}{again}",
        "entry_id": entry["_id"],
        "chemsys": entry["chemsys"],
        "subject": subject,
        "reason": reasons.get(kind),
    }


def rules_events(fold: Fold) -> list[Event]:
    """Return the event that brings the thresholds which HullWorks ships into a level; none when it has them."""
    rules = load_thresholds().as_dict()
    if rules == fold.rules:
        return []
    return [{"kind": RULES, "token": f"{RULES}:{fold.version + 1}", "entry_id": None, "chemsys": "", "rules": rules}]


def reference_events(fold: Fold, missing: Mapping[str, str]) -> list[Event]:
    """Return the events that bring the declared references without an entry into a level; none when it knows them.

    Args:
        fold: The level's state.
        missing: {what a verdict names: chemical system}.
    """
    came = sorted(set(missing.items()) - set(fold.missing.items()))
    went = sorted(set(fold.missing.items()) - set(missing.items()))
    return [
        {
            "kind": REFERENCES,
            "token": f"{REFERENCES}:{fold.version + 1}:{start}",
            "entry_id": None,
            "chemsys": "",
            "missing": [list(pair) for pair in came[start : start + MAX_NAMES]],
            "settled": [list(pair) for pair in went[start : start + MAX_NAMES]],
        }
        for start in range(0, max(len(came), len(went)), MAX_NAMES)
    ]


def append_events(level_key: str, after: int, drafts: Sequence[Event]) -> None:
    """Append events to a level, numbered from ``after`` + 1, in order; a killed writer leaves the first of them.

    Raises:
        pymongo.errors.BulkWriteError: Somebody else took a number, or an event is there already; those before it stand.
    """
    common = {"level_key": level_key, "libraries": libraries(), "at": now(), "schema_version": SCHEMA_VERSION}
    events = [{**common, **draft, "sequence": after + place} for place, draft in enumerate(drafts, 1)]
    HullEvent.collection().insert_many(events, ordered=True)


@cache
def libraries() -> dict[str, str]:
    """Return the versions of the libraries that numbers depend on."""
    return {name: version(name) for name in ("hullworks", "numpy", "pymatgen")}


def last_sequence(level_key: str) -> int:
    """Return the number of the newest event of a level, published or not; 0 when there is none."""
    newest = HullEvent.collection().find_one({"level_key": level_key}, {"sequence": 1}, sort=[("sequence", -1)])
    return int(newest["sequence"]) if newest else 0


def published(level_key: str) -> int:
    """Return the hull version of a level that readers see; 0 before the first."""
    level = Level.collection().find_one({"_id": level_key}, {"published": 1})
    return int((level or {}).get("published") or 0)


def version_asked(level_key: str, asked: int | None, newest: int) -> int:
    """Return the number of the hull version that is asked for; a number between two means the earlier one.

    Args:
        level_key: Key of the level.
        asked: A number; None for the newest.
        newest: The published version.

    Raises:
        HullError: There is no such version yet.
    """
    version = newest if asked is None else asked
    if not 0 <= version <= newest:
        raise HullError(f"there is no hull version {version}, the newest is {newest}", level_key)
    return version


_WANTED: Final = {"libraries": 0, "schema_version": 0, "token": 0}


def read_events(
    level_key: str, after: int = 0, up_to: int | None = None, *, within: Sequence[str] | None = None
) -> Iterator[Event]:
    """Read events of a level in order.

    Args:
        level_key: Key of the level.
        after: Number of the last event that is not wanted.
        up_to: Number of the last event wanted; by default all.
        within: A chemical system; then only events of entries within it, and those that concern no entry.
    """
    numbers: dict[str, Any] = {"$gt": after} | ({} if up_to is None else {"$lte": up_to})
    query: dict[str, Any] = {"level_key": level_key, "sequence": numbers}
    small = within is not None and len(within) <= MAX_ENUMERATED_ELEMENTS
    if within is not None and small:
        query["chemsys"] = {"$in": ["", *subsystems(within)]}
    found = HullEvent.collection().find(query, _WANTED).sort("sequence", ASCENDING)
    if within is None or small:
        return iter(found)
    elements = set(within)
    return (event for event in found if not event["chemsys"] or elements.issuperset(event["chemsys"].split("-")))


def subsystems(elements: Iterable[str]) -> list[str]:
    """Return the chemical systems that lie within one, itself included: ``Mg``, ``Mg-Si``, ..."""
    names = sorted(set(elements))
    return ["-".join(part) for size in range(1, len(names) + 1) for part in combinations(names, size)]


@dataclass
class Fold:
    """The state of a level's hull, or of one chemical system of it: what the events up to a number amount to.

    Attributes:
        level_key: Key of the level; events of another are refused.
        version: Number of the last event contained.
        entries: The event that says what each active entry is, by entry id, in the order of those events: its
            ``entry_id``, ``level_key``, ``chemsys``, ``sequence`` and ``subject``.
        missing: Declared references without an entry: {what a verdict names: chemical system}.
        rules: The thresholds of verdicts, as `Thresholds.as_dict`; empty before the first event.
        retracted: Ids of the entries that were taken back.
        last_id: The database's id of the last event, which tells this history from another one.
    """

    level_key: str
    version: int = 0
    entries: dict[str, Event] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    rules: dict[str, Any] = field(default_factory=dict)
    retracted: set[str] = field(default_factory=set)
    last_id: object = None

    def apply(self, event: Event) -> None:
        """Take one more event in.

        Raises:
            LevelError: It belongs to another level.
            HullError: It does not follow: its number is not larger, or it speaks of an entry that is not there.
        """
        if event["level_key"] != self.level_key:
            raise LevelError(f"an event of {event['level_key']} cannot enter this hull", self.level_key)
        if event["sequence"] <= self.version:
            raise HullError(f"event {event['sequence']} comes after event {self.version}", self.level_key)
        _FOLDERS[event["kind"]](self, event)
        self.version, self.last_id = event["sequence"], event.get("_id")

    @property
    def thresholds(self) -> Thresholds:
        """The thresholds that hold at this version."""
        return Thresholds.from_dict(self.rules) if self.rules else load_thresholds()

    def _add(self, event: Event) -> None:
        if event["entry_id"] in self.entries or event["entry_id"] in self.retracted:
            raise HullError(f"entry {event['entry_id']} is added twice", f"event {event['sequence']}")
        self.entries[event["entry_id"]] = _slim(event)

    def _retract(self, event: Event) -> None:
        self._pop(event)
        self.retracted.add(event["entry_id"])

    def _recorrect(self, event: Event) -> None:
        self._pop(event)  # to the end, so that ties are decided alike whether the events came at once or one by one
        self.entries[event["entry_id"]] = _slim(event)

    def _pop(self, event: Event) -> None:
        if self.entries.pop(event["entry_id"], None) is None:
            raise HullError(f"entry {event['entry_id']} is not in this hull", f"event {event['sequence']}")

    def _change_references(self, event: Event) -> None:
        for name, _ in event["settled"]:
            self.missing.pop(name, None)
        self.missing.update(dict(event["missing"]))

    def _change_rules(self, event: Event) -> None:
        self.rules = event["rules"]


def _slim(event: Event) -> Event:
    """Return what a fold keeps of an event.

    The driver makes new strings for the names of every document's fields; shared ones halve the memory of a level.
    """
    subject = {intern(name): value for name, value in event["subject"].items()}
    subject["composition"] = {intern(symbol): amount for symbol, amount in subject["composition"].items()}
    subject["role"] = intern(subject["role"])
    names = {
        "entry_id": event["entry_id"],
        "level_key": intern(event["level_key"]),
        "chemsys": intern(event["chemsys"]),
    }
    return {**names, "sequence": event["sequence"], "subject": subject}


_FOLDERS: Final = {
    ADDED: Fold._add,  # noqa: SLF001 - the table of kinds belongs to the class
    RETRACTED: Fold._retract,  # noqa: SLF001
    RECORRECTED: Fold._recorrect,  # noqa: SLF001
    REFERENCES: Fold._change_references,  # noqa: SLF001
    RULES: Fold._change_rules,  # noqa: SLF001
}


def fold_events(level_key: str, events: Iterable[Event]) -> Fold:
    """Return what events amount to; see `Fold` for errors."""
    fold = Fold(level_key)
    for event in events:
        fold.apply(event)
    return fold
