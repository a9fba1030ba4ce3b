"""The audit of a level's hull: everything that is published, proved again from the events; and its repair."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from hullworks.analysis.bulk import without_collector
from hullworks.analysis.events import fold_events, published, read_events
from hullworks.analysis.history import expected_documents
from hullworks.analysis.proofs import TOLERANCE_eV, independent_distance, problems_of_certificates, problems_of_counts
from hullworks.analysis.publication import halt
from hullworks.analysis.published import BY_VERSION, content_of, digest_of, verdicts_of_level
from hullworks.analysis.resident import WRITERS, LevelHull, Step
from hullworks.analysis.stability import LEASE_S, update_level
from hullworks.documents import OPEN_END, SCHEMA_VERSION, HullVersion, Level, StoredVerdict
from hullworks.errors import HullError, HullWorksError, StateError
from hullworks.leases import lease

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable, Iterator

    from hullworks.analysis.published import Stored

MAX_PROBLEMS: Final = 20
"""Problems that one check lists; the number of all of them is told."""


@dataclass(frozen=True)
class Check:
    """One kind of proof: its name, how many things were proved, and what is wrong."""

    name: str
    checked: int
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class AuditReport:
    """What an audit found.

    Attributes:
        level_key: Key of the level.
        version: The published hull version that was audited.
        seed: Seed of the random systems, with which the same audit can be made again.
        checks: Each kind of proof.
    """

    level_key: str
    version: int
    seed: int
    checks: tuple[Check, ...]

    @property
    def problems(self) -> list[str]:
        """All that is wrong; empty when every proof holds."""
        return [f"{check.name}: {problem}" for check in self.checks for problem in check.problems]

    @property
    def ok(self) -> bool:
        """Whether every proof holds."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """Return all parts as plain JSON types."""
        return {**asdict(self), "checks": [asdict(check) for check in self.checks], "ok": self.ok}


def audit_level(level_key: str, systems: int = 20, *, seed: int = 0, stop: bool = False) -> AuditReport:
    """Prove what is published of a level, from its events alone.

    Args:
        level_key: Key of the level.
        systems: How many random chemical systems are solved again by linear programs over the raw entries.
        seed: Seed of the choice.
        stop: On a mismatch, halt the level: nothing more is published, and the published version stays readable.

    Returns:
        What was checked, and what is wrong.
    """
    version = published(level_key)
    with without_collector():
        checks = _checks_of_events(level_key, version, systems, seed)
        checks += [_check_versions(level_key, version), _check_digests(level_key, version)]
    report = AuditReport(level_key, version, seed, tuple(checks))
    if stop and not report.ok:
        halt(level_key, version, report.problems)
    return report


def _checks_of_events(level_key: str, version: int, systems: int, seed: int) -> list[Check]:
    """Fold the events anew, and check all that follows from them."""
    try:
        hull = LevelHull(fold_events(level_key, _without_gaps(level_key, version)))
    except HullWorksError as error:
        return [Check("events", version, (str(error),))]
    return [Check("events", version), *_checks_of_hull(hull, systems, seed)]


def _without_gaps(level_key: str, version: int) -> Iterator[dict[str, Any]]:
    number = 0
    for number, event in enumerate(read_events(level_key, 0, version), 1):
        if event["sequence"] != number:
            break
        yield event
    else:
        if number == version:
            return
    raise HullError(f"event {min(number + 1, version)} is not there", level_key, "Restore a backup.")


def _checks_of_hull(hull: LevelHull, systems: int, seed: int) -> list[Check]:
    level_key, version = hull.fold.level_key, hull.version
    stored = {doc["entry_id"]: doc for doc in verdicts_of_level(level_key, version)}
    counts = problems_of_counts(hull)
    counts += [f"{name} has no verdict" for name in sorted(hull.fold.entries.keys() - stored.keys())]
    counts += [f"{name} has a verdict, but no entry" for name in sorted(stored.keys() - hull.fold.entries.keys())]
    return [
        Check("counts", len(stored), _some(counts)),
        Check("certificates", len(stored), _some(problems_of_certificates(hull))),
        Check("verdicts", len(stored), _some(_other_verdicts(hull, stored))),
        _check_systems(hull, stored, systems, seed),
    ]


def _other_verdicts(hull: LevelHull, stored: dict[str, Stored]) -> list[str]:
    """Compare every stored verdict with that of an engine that was built from nothing."""
    indices = np.array(sorted(hull.index.values()), dtype=np.int64)
    if not len(indices):
        return []
    contents = hull.contents(Step(indices, ()), hull.engine.numbers(indices))
    both = sorted(contents.keys() & stored.keys())
    return [f"what is stored of {name} is not what the events say" for name in both
            if content_of(stored[name]) != contents[name]]  # fmt: skip


def _check_systems(hull: LevelHull, stored: dict[str, Stored], systems: int, seed: int) -> Check:
    """Solve random chemical systems again by linear programs, and compare with the stored energies above hull."""
    names = sorted(hull.systems)
    chosen = random.Random(seed).sample(names, min(systems, len(names)))  # noqa: S311 - a sample, not a secret
    rows = [i for name in chosen for i in sorted(hull.systems[name])]
    problems = []
    for i in rows:
        said = stored.get(hull.ids[i], {}).get("e_above_hull_eV_per_atom")
        proved = independent_distance(hull, i)
        if said is not None and not abs(said - proved) <= TOLERANCE_eV:
            problems.append(f"{hull.ids[i]} is said to lie {said:.9f} eV/atom above the hull, and lies {proved:.9f}")
    return Check("linear programs", len(rows), _some(problems))


def _check_versions(level_key: str, version: int) -> Check:
    """Check that each version follows the one before, up to the published one."""
    expected, problems, count = 0, [], 0
    for stored in _versions(level_key, version):
        count += 1
        if stored["previous"] != expected:
            problems.append(f"version {stored['version']} follows {stored['previous']}, not {expected}")
        expected = stored["version"]
    if expected != version:
        problems.append(f"the last version is {expected}, and {version} is published")
    return Check("versions", count, _some(problems))


def _check_digests(level_key: str, version: int) -> Check:
    """Check that the stored verdicts of each version still have the digest that was recorded."""
    gone = _gone_by_version(level_key, version)
    problems, count = [], 0
    verdicts = StoredVerdict.collection().find({"level_key": level_key, "since": {"$lte": version}})
    stream = iter(verdicts.hint(BY_VERSION).sort("since", 1))
    ahead = next(stream, None)
    for stored in _versions(level_key, version):
        made: list[Stored] = []
        while ahead is not None and ahead["since"] <= stored["version"]:
            made.append(content_of(ahead))
            ahead = next(stream, None)
        count += 1
        if digest_of(made, gone.get(stored["version"], ())) != stored["digest"]:
            problems.append(f"the verdicts of version {stored['version']} are not those that it made")
    return Check("digests", count, _some(problems))


def _gone_by_version(level_key: str, version: int) -> dict[int, set[str]]:
    """Return the entries whose verdict a version ended without another, by version."""
    fields = {"entry_id": 1, "since": 1, "until": 1}
    made: set[tuple[str, int]] = set()
    ended: set[tuple[str, int]] = set()
    for doc in StoredVerdict.collection().find({"level_key": level_key, "since": {"$lte": version}}, fields):
        made.add((doc["entry_id"], doc["since"]))
        if doc["until"] <= version:
            ended.add((doc["entry_id"], doc["until"]))
    found: dict[int, set[str]] = {}
    for name, end in ended - made:
        found.setdefault(end, set()).add(name)
    return found


def _versions(level_key: str, version: int) -> Iterable[dict[str, Any]]:
    query = {"level_key": level_key, "version": {"$lte": version}}
    return HullVersion.collection().find(query).sort("version", 1)


def _some(problems: list[str]) -> tuple[str, ...]:
    more = len(problems) - MAX_PROBLEMS
    return (*problems[:MAX_PROBLEMS], *([f"and {more} more"] if more > 0 else []))


def repair_level(level_key: str) -> Counter[str]:
    """Make the published verdicts of a level what its events say, and publish again.

    What was written of a version that is not published is thrown away and made anew. Events and versions are the
    truth, and are never changed.

    Returns:
        Number of verdicts put right (``repaired``), and what the update did afterwards.

    Raises:
        HullError: The events do not give the recorded versions; only a backup helps.
        StateError: Another process is writing.
    """
    with lease(f"stability:{level_key}", LEASE_S) as hold:
        if not hold:
            raise StateError("another process is writing", level_key, "Try again when it has ended.")
        WRITERS.forget()
        version = published(level_key)
        _drop_unpublished(level_key, version)
        hold.keep(0.9)
        expected = expected_documents(level_key)
        hold.keep(0.9)
        repaired = _put_right(level_key, expected)
        report = audit_level(level_key)
        if not report.ok:
            raise halt(level_key, version, report.problems)
        Level.collection().update_one({"_id": level_key}, {"$unset": {"halted": "", "claimed": ""}})
    done = update_level(level_key)
    done["repaired"] += repaired
    return +done


def _drop_unpublished(level_key: str, version: int) -> None:
    """Throw away what was derived for a version that is not published."""
    later = {"level_key": level_key, "since": {"$gt": version}}
    StoredVerdict.collection().delete_many(later)
    ended = {"level_key": level_key, "until": {"$gt": version, "$lt": OPEN_END}}
    StoredVerdict.collection().update_many(ended, {"$set": {"until": OPEN_END}})
    HullVersion.collection().delete_many({"level_key": level_key, "version": {"$gt": version}})


def _put_right(level_key: str, expected: dict[tuple[str, int], tuple[dict[str, Any], int]]) -> int:
    """Replace the stored verdicts that are not what they must be; return how many."""
    verdicts, sound = StoredVerdict.collection(), set()
    wrong = []
    for doc in verdicts.find({"level_key": level_key}):
        key = doc["entry_id"], doc["since"]
        if _as_expected(doc) == expected.get(key):
            sound.add(key)
        else:
            wrong.append(doc["_id"])
    verdicts.delete_many({"_id": {"$in": wrong}})
    missing = [
        {**content, "since": since, "until": until, "schema_version": SCHEMA_VERSION}
        for (name, since), (content, until) in expected.items()
        if (name, since) not in sound
    ]
    if missing:
        verdicts.insert_many(missing, ordered=False)
    return len(wrong) + len(missing)


def _as_expected(doc: Stored) -> tuple[dict[str, Any], int] | None:
    return (content_of(doc), doc["until"]) if set(doc) >= {"kind", "until", "flags", "decomposition"} else None
