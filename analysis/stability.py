"""The stability database's writer: entries become hull events, and events become verdicts; one writer at a time.

Everything here can be killed at any line. An event is the commitment: unique per entry, numbered without gaps. What is
derived from events (an entry's number, verdicts, the state of a candidate) is written afterwards and caught up by the
next update.
"""

from __future__ import annotations

from collections import Counter
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

import numpy as np
from mongoengine.errors import NotUniqueError

from hullworks.analysis.hull_view import HullView, load_view, missing_references
from hullworks.analysis.verdicts import judge
from hullworks.documents import Candidate, Entry, HullEvent, Level, StoredVerdict, now
from hullworks.errors import StateError
from hullworks.leases import lease
from hullworks.states import CandidateState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hullworks.analysis.verdicts import VerdictResult

LEASE_S: Final = 60.0
MOVED_THRESHOLD_eV: Final = 1e-6
"""Changes of an energy above hull below it are round-off and are not recorded, eV/atom."""
MOVED_LIMIT: Final = 200
"""Largest moves that one event lists; the others follow from rebuilding the hull."""


def update_all() -> Counter[str]:
    """Bring every level's hull and verdicts up to date; return how many of what were done."""
    done: Counter[str] = Counter()
    for level in Level.objects.only("key"):
        done += update_level(level.key)
    return done


def update_level(level_key: str) -> Counter[str]:
    """Bring one level's hull and verdicts up to date; do nothing while another process is at it.

    Args:
        level_key: Key of the level of theory.

    Returns:
        Number of events appended, verdicts made and candidates verified.
    """
    done: Counter[str] = Counter()
    with lease(f"stability:{level_key}", LEASE_S) as held:
        if not held:
            return done
        pending = Entry.objects(level_key=level_key, valid=True, retracted=False, hull_sequence=None)
        for entry in pending.order_by("landed_at", "entry_id"):
            done["events"] += _append_event(entry)
        done += _renew_verdicts(level_key)
        done["verified"] += _verify_candidates(level_key)
    return +done


def last_sequence(level_key: str) -> int:
    """Return the number of the newest event of a level; 0 when there is none."""
    newest = HullEvent.objects(level_key=level_key).order_by("-sequence").only("sequence").first()
    return int(newest.sequence) if newest else 0


def _append_event(entry: Entry) -> int:
    """Commit an entry to its level's hull; return 1 if it was not committed before."""
    known = HullEvent.objects(level_key=entry.level_key, kind="entry_added", entry_id=entry.entry_id).first()
    event = known or _describe(entry)
    if known is None:
        try:
            event.save(force_insert=True)
        except NotUniqueError:
            return 0  # a writer whose lease ran out was faster; the next update sees its event
    Entry.objects(entry_id=entry.entry_id).update_one(set__hull_sequence=event.sequence)
    return int(known is None)


def _describe(entry: Entry) -> HullEvent:
    """Work out what an entry changes: who enters the hull, who leaves it, and how far others move."""
    elements = sorted({e for s in _systems_above(entry.level_key, [entry.elements]) for e in s} | set(entry.elements))
    view = load_view(entry.level_key, elements)
    change = view.hull.add([entry.reduced_formula], np.array([entry.energy_eV_per_atom]))
    ids = [*view.ids, entry.entry_id]
    shift = change.e_above_hull_after - change.e_above_hull_before
    moves = {ids[i]: float(d) for i, d in zip(change.affected, shift, strict=True) if abs(d) > MOVED_THRESHOLD_eV}
    largest = sorted(moves, key=lambda entry_id: -abs(moves[entry_id]))[:MOVED_LIMIT]
    return HullEvent(
        level_key=entry.level_key,
        sequence=last_sequence(entry.level_key) + 1,
        kind="entry_added",
        entry_id=entry.entry_id,
        chemsys=entry.chemsys,
        entered=[ids[i] for i in change.entered],
        left=[ids[i] for i in change.left],
        moved={entry_id: moves[entry_id] for entry_id in largest},
        libraries={"hullworks": version("hullworks"), "numpy": version("numpy"), "pymatgen": version("pymatgen")},
    )


def _renew_verdicts(level_key: str) -> Counter[str]:
    """Judge again what newer events, or references that came or went, may have changed."""
    level = Level.objects.get(key=level_key)
    newest = last_sequence(level_key)
    missing = missing_references(level_key)
    events = HullEvent.objects(level_key=level_key, sequence__gt=level.verdicts_sequence).only("chemsys")
    changed = {event.chemsys for event in events}
    changed |= {system for _, system in _pairs(level) ^ set(missing.items())}
    done: Counter[str] = Counter()
    for system in _systems_above(level_key, [chemsys.split("-") for chemsys in changed]):
        done["verdicts"] += _judge_system(level_key, system, newest, missing)
    if changed or newest != level.verdicts_sequence:
        Level.objects(key=level_key).update_one(
            set__verdicts_sequence=newest, set__missing_references=[list(item) for item in missing.items()]
        )
    return done


def _systems_above(level_key: str, systems: Iterable[Iterable[str]]) -> list[tuple[str, ...]]:
    """Return the chemical systems of a level's entries that contain one of ``systems``."""
    wanted = [frozenset(system) for system in systems]
    if not wanted:
        return []
    present = {tuple(chemsys.split("-")) for chemsys in Entry.objects(level_key=level_key).distinct("chemsys")}
    return sorted(system for system in present if any(inner <= set(system) for inner in wanted))


def _judge_system(level_key: str, system: tuple[str, ...], sequence: int, missing: dict[str, str]) -> int:
    """Judge the entries that lie in the interior of one chemical system; return how many."""
    view = load_view(level_key, system)
    lacking = sorted(name for name, chemsys in missing.items() if set(chemsys.split("-")) <= set(system))
    own = [i for i, entry in enumerate(view.entries) if entry.chemsys == "-".join(system)]
    for i in own:
        _store(view, i, judge(view.judgement_input(i, missing_references=lacking)), sequence)
    return len(own)


def _store(view: HullView, i: int, verdict: VerdictResult, sequence: int) -> None:
    entry = view.entries[i]
    StoredVerdict(
        entry_id=entry.entry_id,
        candidate_id=entry.candidate_id,
        level_key=view.level_key,
        chemsys=entry.chemsys,
        hull_sequence=sequence,
        kind=verdict.kind.value,
        e_above_hull_eV_per_atom=verdict.e_above_hull_eV,
        formation_energy_eV_per_atom=verdict.formation_energy_eV,
        e_below_others_eV_per_atom=verdict.e_to_hull_of_others_eV,
        decomposition=[
            {"entry_id": part.entry_id, "formula": part.formula, "fraction": part.fraction}
            for part in verdict.decomposition
        ],
        missing=list(verdict.missing),
        flags=[flag.value for flag in verdict.flags],
        made_at=now(),
    ).save()


def _verify_candidates(level_key: str) -> int:
    """Move landed candidates that have a verdict on; return how many."""
    landed = Candidate.objects(level_key=level_key, state=CandidateState.LANDED).only("candidate_id", "entry_id")
    moved = 0
    for candidate in landed:
        verdict = StoredVerdict.objects(entry_id=candidate.entry_id).only("kind", "hull_sequence").first()
        if verdict is None:
            continue
        why = f"{verdict.kind} at hull version {verdict.hull_sequence}"
        try:
            Candidate.move(candidate.candidate_id, CandidateState.VERIFIED, why)
        except StateError:
            continue  # somebody else moved it
        moved += 1
    return moved


def _pairs(level: Level) -> set[tuple[str, str]]:
    """Return the missing references that the level's present verdicts know of."""
    return {(name, system) for name, system in level.missing_references}
