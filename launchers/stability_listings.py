"""What the commands on a hull's memory show: changes between versions, how sure verdicts are, proofs, corrections."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hullworks.analysis import history as memory
from hullworks.analysis.audit import AuditReport, Check, audit_level, repair_level
from hullworks.analysis.ensembles import p_stable
from hullworks.analysis.entry_errors import carried_errors
from hullworks.analysis.events import published, read_events
from hullworks.analysis.publication import halt
from hullworks.analysis.published import verdict_row, verdicts_of_entries
from hullworks.analysis.stability import is_halted
from hullworks.analysis.uncertainty import first_order
from hullworks.documents import Entry, HullEvent
from hullworks.elements import elements_of
from hullworks.errors import HullWorksError, InputError, StateError
from hullworks.launchers.listings import by_distance, changed_how

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hullworks.analysis.client import Hull
    from hullworks.analysis.history import Change, HullDiff

Row = dict[str, Any]


def diff(level_key: str, start: int, end: int, chemsys: str | None = None) -> Row:
    """Return what two published versions of a level's hull say differently, what matters most first.

    Args:
        level_key: Key of the level.
        start: The one version.
        end: The other; it may be the earlier.
        chemsys: Only entries within this chemical system.

    Raises:
        HullError: A version is not published.
    """
    elements = elements_of(chemsys) if chemsys else None
    found = memory.diff(level_key, start, end)
    if elements is not None:
        within = [change for change in found.changes if set(elements).issuperset(change.chemsys.split("-"))]
        found = memory.HullDiff(level_key, start, end, tuple(within))
    return {
        "level": level_key,
        "start": start,
        "end": end,
        "chemsys": "-".join(elements) if elements else None,
        "events": _events_between(level_key, min(start, end), max(start, end), elements),
        "counts": _counts(found),
        "changes": _change_rows(found.changes),
    }


def _events_between(level_key: str, low: int, high: int, elements: tuple[str, ...] | None) -> dict[str, int]:
    """Return how many events of each kind came after one number and up to another."""
    if elements is not None:
        return dict(Counter(event["kind"] for event in read_events(level_key, low, high, within=elements)))
    match = {"level_key": level_key, "sequence": {"$gt": low, "$lte": high}}
    groups = HullEvent.collection().aggregate([{"$match": match}, {"$group": {"_id": "$kind", "n": {"$sum": 1}}}])
    return {group["_id"]: int(group["n"]) for group in groups}


def _counts(found: HullDiff) -> dict[str, int]:
    return {
        "appeared": len(found.appeared),
        "gone": len(found.gone),
        "came onto the hull": len(found.entered),
        "left the hull": len(found.left),
        "other verdict": len(found.reversed),
        "moved": len(found.moved),
    }


def _change_rows(changes: Iterable[Change]) -> list[Row]:
    """Return changes as rows: those of the hull first, then other verdicts, then by how far they moved."""
    chosen = sorted(changes, key=_weight)
    fields = {"name": 1, "reduced_formula": 1}
    known = {d["_id"]: d for d in Entry.collection().find({"_id": {"$in": [c.entry_id for c in chosen]}}, fields)}
    return [{**_named(known.get(change.entry_id)), **_change_row(change)} for change in chosen]


def _named(entry: Row | None) -> Row:
    return {"name": entry["name"], "reduced_formula": entry["reduced_formula"]} if entry else {}


def _change_row(change: Change) -> Row:
    return {
        "entry_id": change.entry_id,
        "chemsys": change.chemsys,
        "what": changed_how(change.before, change.after),
        "change": change.moved_eV_per_atom,
        "before": verdict_row(change.before) if change.before else None,
        "after": verdict_row(change.after) if change.after else None,
    }


def _weight(change: Change) -> tuple[bool, bool, float, str]:
    was, lies = (bool(verdict and verdict["on_hull"]) for verdict in (change.before, change.after))
    kinds = {verdict["kind"] for verdict in (change.before, change.after) if verdict}
    return was == lies, len(kinds) < 2, -abs(change.moved_eV_per_atom or 0.0), change.entry_id  # noqa: PLR2004 - before, after


def stability(hull: Hull, n_samples: int, seed: int, assumed_eV: float | None = None) -> Row:
    """Return how often each entry of a hull is stable when its errors are drawn anew, lowest above the hull first.

    Args:
        hull: The hull.
        n_samples: Hulls to build.
        seed: Seed of the draws.
        assumed_eV: One standard deviation of an error of its own for each entry that carries none, eV/atom.

    Raises:
        HullError: No entry carries an error, and none is assumed; or there is no sample.
    """
    carried = carried_errors(hull.view, assumed_eV)
    found = p_stable(hull.engine, carried.errors, n_samples, seed)
    linear = first_order(hull.engine, carried.errors, found.indices)
    intervals = found.p_stable_interval
    rows = [
        {
            **{name: row[name] for name in ("entry_id", "name", "reduced_formula", "role", "verdict", "flags")},
            "e_above_hull": row["e_above_hull"],
            "distance": _number(found.distance[i]),
            "sigma_energy": float(carried.errors.sigma[i]),
            "sigma_distance": _number(linear.sigma[i]),
            "p_stable": _number(found.p_stable[i]),
            "p_stable_95": [_number(end) for end in intervals[i]],
            "p_within": _number(found.p_within[i]),
        }
        for i, row in enumerate(hull.rows())
    ]
    return {
        "level": hull.level_key,
        "hull_version": hull.sequence,
        "chemsys": "-".join(hull.elements),
        "n_samples": n_samples,
        "seed": seed,
        "stable_eV": found.stable_eV,
        "window_eV": found.window_eV,
        "n_entries": len(rows),
        "n_carrying": carried.n_carrying,
        "assumed_eV": assumed_eV,
        "sources": list(carried.shared),
        "entries": sorted(rows, key=by_distance),
    }


def _number(value: np.floating[Any]) -> float | None:
    return float(value) if np.isfinite(value) else None


@dataclass(frozen=True)
class Audited:
    """An audit of a level, and the repair before it, if any.

    report: What was proved, the replay among it.
    repaired: What a repair did; None without one.
    is_halted: Whether publication is stopped.
    """

    report: AuditReport
    repaired: dict[str, int] | None
    is_halted: bool

    def as_dict(self) -> Row:
        """Return all parts as plain JSON types."""
        return {**self.report.as_dict(), "repaired": self.repaired, "halted": self.is_halted}


def audit(level_key: str, systems: int, seed: int, *, replayed: bool = False, repair: bool = False) -> Audited:
    """Prove what is published of a level; a mismatch stops its publication.

    Args:
        level_key: Key of the level.
        systems: How many random chemical systems are solved again.
        seed: Seed of their choice.
        replayed: Work out every version again from nothing, too.
        repair: First make the verdicts what the events say.

    Raises:
        HullError: A repair is impossible; only a backup helps.
        StateError: Another process is writing.
    """
    repaired = dict(repair_level(level_key)) if repair else None
    report = audit_level(level_key, systems, seed=seed, stop=True)
    if replayed:
        report = replace(report, checks=(*report.checks, _replay(level_key)))
        if not report.ok:
            halt(level_key, report.version, report.problems)
    return Audited(report, repaired, is_halted(level_key))


def _replay(level_key: str) -> Check:
    """Work out every version again from nothing, and compare it with its recorded digest."""
    count, problems = 0, []
    try:
        for version in memory.replay(level_key):
            count += 1
            if not version.same:
                problems.append(f"version {version.version} does not follow from its events")
    except HullWorksError as error:
        problems.append(str(error))
    return Check("replay", count, tuple(problems))


def entry_summary(entry_id: str) -> Row:
    """Return what an entry is and what is said of it, in a few words; energies in eV/atom.

    Raises:
        InputError: There is no such entry.
    """
    entry = Entry.stored(entry_id, {"structure": 0})
    verdict = verdicts_of_entries(entry["level_key"], published(entry["level_key"]), [entry_id]).get(entry_id)
    return {
        "entry_id": entry_id,
        "name": entry.get("name"),
        "formula": entry["reduced_formula"],
        "level": entry["level_key"],
        "energy": entry["energy_eV_per_atom"],
        "verdict": verdict["kind"] if verdict else None,
    }


def corrected(
    entry_id: str, energy: float | None, parts: Sequence[tuple[str, float]] | None
) -> tuple[float, dict[str, float]]:
    """Return the corrected energy of an entry and the parts of its correction, eV/atom.

    Args:
        entry_id: The entry.
        energy: The corrected energy; or
        parts: the parts of the correction, by name.

    Raises:
        InputError: There is no such entry, both or none is given, or a part stands twice.
    """
    if (energy is None) == (parts is None):
        raise InputError("the new energy is given as a whole or by its parts", entry_id, "Use --energy or --part.")
    uncorrected = float(Entry.stored(entry_id)["uncorrected_energy_eV_per_atom"])
    own = dict(parts) if parts is not None else {"by hand": float(energy or 0.0) - uncorrected}
    if parts is not None and len(own) < len(parts):
        raise InputError("a part of the correction stands twice", entry_id, "Add them up.")
    return (uncorrected + sum(own.values()) if energy is None else energy), own


def require_heard(entry_id: str) -> None:
    """Raise StateError unless the hull contains an entry as it is now."""
    entry = Entry.stored(entry_id, {"structure": 0})
    if entry["valid"] and not entry.get("refused") and entry.get("hull_sequence") is None:
        raise StateError("the change is stored, and another process takes it into the hull", entry_id, "Look later.")
