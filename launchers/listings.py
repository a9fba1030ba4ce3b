"""What the commands show: plain rows out of the database, for tables and for JSON alike."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from hullworks.analysis import history as memory
from hullworks.analysis.events import published, version_asked
from hullworks.analysis.hull_view import missing_references
from hullworks.analysis.published import (
    candidate_rows,
    verdict_row,
    verdicts_of_entries,
    verdicts_of_level,
)
from hullworks.documents import Batch, Candidate, Entry, Level, Run, StateMove
from hullworks.elements import elements_of
from hullworks.errors import InputError
from hullworks.levels import resolve_level
from hullworks.states import CandidateState

if TYPE_CHECKING:
    from hullworks.analysis.client import Hull

Row = dict[str, Any]

FEW = 3
"""Events that one line of a history names."""


def level_key(name: str) -> str:
    """Return the key of the stored level that a user means."""
    return resolve_level(name, [level.key for level in Level.objects.only("key")])


def levels() -> list[Row]:
    """Return the stored levels: candidates, entries, published hull version, and why a level is halted, if it is."""
    return [
        {
            "slug": level.slug,
            "key": level.key,
            "candidates": Candidate.objects(level_key=level.key).count(),
            "entries": Entry.objects(level_key=level.key, valid=True, retracted=False).count(),
            "hull_version": level.published or 0,
            "halted": list(level.halted["evidence"]) if level.halted else None,
            "level": dict(level.data),
        }
        for level in Level.objects.order_by("key")
    ]


def state_counts(batch: str | None) -> dict[str, int]:
    """Return the number of candidates per state, in the order of a candidate's life, without zeros."""
    match = {"batch": batch} if batch else {}
    groups = Candidate.objects.aggregate([{"$match": match}, {"$group": {"_id": "$state", "n": {"$sum": 1}}}])
    found = {group["_id"]: int(group["n"]) for group in groups}
    return {state.value: found[state.value] for state in CandidateState if state.value in found}


def batches() -> list[Row]:
    """Return the batches, newest first."""
    rows = []
    for batch in Batch.objects.order_by("-created_at"):
        counts = state_counts(batch.name)
        row = {"name": batch.name, "level_key": batch.level_key, "owner": batch.owner, "total": sum(counts.values())}
        rows.append({**row, "counts": counts, "created_at": batch.created_at, "sources": list(batch.sources)})
    return rows


def require_batch(batch: str | None) -> None:
    """Raise `InputError` when a batch is named that does not exist."""
    if batch is not None and Batch.objects(name=batch).first() is None:
        known = (
            ", ".join(item.name for item in Batch.objects.order_by("-created_at").only("name").limit(10)) or "none yet"
        )
        raise InputError("there is no such batch", batch, f"Known: {known}.")


def status(batch: str | None) -> Row:
    """Return how a batch, or everything, stands."""
    require_batch(batch)
    chosen = {"batch": batch} if batch else {}
    running = Candidate.objects(state=CandidateState.RUNNING, **chosen).order_by("state_since").limit(20)
    failed = Candidate.objects(state=CandidateState.FAILED, **chosen).order_by("-state_since").limit(20)
    return {
        "batch": batch,
        "counts": state_counts(batch),
        "running": [_running_row(candidate) for candidate in running],
        "failed": [_failed_row(candidate) for candidate in failed],
    }


def _running_row(candidate: Candidate) -> Row:
    return {"candidate_id": candidate.candidate_id, "name": candidate.name, "since": candidate.state_since}


def _failed_row(candidate: Candidate) -> Row:
    reason = candidate.reason.text if candidate.reason else ""
    cause = candidate.cause.value if candidate.cause else None
    return {"candidate_id": candidate.candidate_id, "name": candidate.name, "cause": cause, "reason": reason}


def candidates(
    *, batch: str | None = None, state: str | None = None, chemsys: str | None = None, limit: int = 200
) -> list[Row]:
    """Return candidates with predictions and verdicts, best ranked first."""
    require_batch(batch)
    query: Row = {"batch": batch} if batch else {}
    if state:
        query["state"] = _state(state)
    if chemsys:
        query["chemsys"] = "-".join(elements_of(chemsys))
    found = Candidate.objects(**query).order_by("rank", "source_row").limit(limit)
    return candidate_rows(found.exclude("structure", "history"))


def _state(name: str) -> CandidateState:
    try:
        return CandidateState(name)
    except ValueError:
        raise InputError("no such state", name, f"States: {', '.join(CandidateState)}.") from None


def hull_rows(view: Hull) -> list[Row]:
    """Return the entries of a hull view, lowest above it first."""
    made = verdicts_of_entries(view.level_key, view.sequence, view.view.ids) if view.is_present else {}
    rows = []
    for row in view.rows():
        stored = verdict_row(made.get(row["entry_id"]))
        rows.append({**stored, **{key: value for key, value in row.items() if value is not None}})
    return sorted(rows, key=by_distance)


def by_distance(row: Row) -> tuple[bool, float, str]:
    """Return what entries are sorted by: the lowest above the hull first, those without a distance last, then names."""
    return row["e_above_hull"] is None, row["e_above_hull"] or 0.0, row["name"]


def stable(key: str, chemsys: str | None, as_of: int | None = None) -> list[Row]:
    """Return the stable entries of a level, within a chemical system if one is named.

    Args:
        key: Key of the level.
        chemsys: Only entries within this chemical system.
        as_of: The hull version that is asked for; a number between two means the earlier. By default the published.

    Raises:
        HullError: There is no such version yet.
        InputError: The chemical system cannot be read.
    """
    version = version_asked(key, as_of, published(key))
    system = "-".join(elements_of(chemsys)) if chemsys else None
    verdicts = {each["entry_id"]: each for each in verdicts_of_level(key, version, chemsys=system, kind="stable")}
    fields = {"name": 1, "reduced_formula": 1, "role": 1}
    entries = {doc["_id"]: doc for doc in Entry.collection().find({"_id": {"$in": list(verdicts)}}, fields)}
    return [
        {"entry_id": name, **{field: entries[name].get(field) for field in fields}, **verdict_row(verdict)}
        for name, verdict in sorted(verdicts.items(), key=lambda item: (item[1]["chemsys"], item[0]))
    ]


def history(entry_id: str) -> list[Row]:
    """Return what happened to an entry on the hull, oldest first.

    Raises:
        InputError: There is no such entry.
    """
    Entry.stored(entry_id, {"_id": 1})
    return [_history_row(entry_id, step) for step in memory.history(entry_id)]


def _history_row(entry_id: str, step: memory.HistoryStep) -> Row:
    others = [event.entry_id or event.kind for event in step.because if event.entry_id != entry_id]
    return {
        "level": step.level_key,
        "sequence": step.version,
        "at": step.at,
        "what": _what(step),
        "change": step.change_eV_per_atom,
        "because_of": entry_id if step.what != "moved" else _few(others),
        "because": [asdict(event) for event in step.because],
        "reasons": [event.reason for event in step.because if event.reason],
        "before": verdict_row(step.before),
        "after": verdict_row(step.after),
    }


def _few(names: list[str]) -> str:
    return ", ".join([*names[:FEW], *(["…"] if len(names) > FEW else [])])


def _what(step: memory.HistoryStep) -> str:
    """Return what one version did to an entry, in a few words."""
    if step.after is None:
        return step.what
    if step.before is None or step.what != "moved":
        return f"{step.what}, {'on the hull' if step.after['on_hull'] else 'above the hull'}"
    return changed_how(step.before, step.after)


def changed_how(before: Row | None, after: Row | None) -> str:
    """Return how two stored verdicts on an entry differ, in a few words; None where there is none."""
    if before is None or after is None:
        gone = " from the hull" if before and before["on_hull"] else ""
        return f"gone{gone}" if after is None else f"appeared {'on' if after['on_hull'] else 'above'} the hull"
    if before["on_hull"] != after["on_hull"]:
        return "came onto the hull" if after["on_hull"] else "left the hull"
    if before["kind"] != after["kind"]:
        return f"{before['kind']} → {after['kind']}"
    if before["e_above_hull_eV_per_atom"] != after["e_above_hull_eV_per_atom"]:
        return "moved"
    return "other " + ", ".join(word for field, word in _DETAILS.items() if before[field] != after[field])


_DETAILS = {
    "decomposition": "products",
    "e_below_others_eV_per_atom": "distance from others",
    "formation_energy_eV_per_atom": "formation energy",
    "missing": "missing references",
    "error_bar_eV_per_atom": "error bar",
    "flags": "flags",
}
"""What two verdicts may differ in although kind and energy above hull are the same; in words."""


def find_candidate(name: str) -> Candidate:
    """Return a candidate by its id, or by a name that only one has."""
    found = list(Candidate.objects(candidate_id=name)) or list(Candidate.objects(name=name).limit(20))
    if len(found) == 1:
        (candidate,) = found
        only: Candidate = candidate
        return only
    if not found:
        raise InputError("there is no such candidate", name, "`hullworks candidates` lists them.")
    ids = ", ".join(f"{candidate.candidate_id} ({candidate.state})" for candidate in found)
    raise InputError("several candidates have this name", name, f"Give one id: {ids}.")


def explain_candidate(name: str) -> Row:
    """Return everything that is known of a candidate, for ``why``."""
    candidate = find_candidate(name)
    twin = candidate.duplicate_of
    owner = (Candidate.objects(candidate_id=twin).first() if twin else None) or candidate
    entry = Entry.objects(candidate_id=owner.candidate_id).first()
    (row,) = candidate_rows([candidate])
    prediction = candidate.prediction.to_mongo().to_dict() if candidate.prediction else None
    return {
        **row,
        "level_key": candidate.level_key,
        "source": candidate.source,
        "parent": candidate.parent,
        "licence": candidate.licence,
        "extra": dict(candidate.extra),
        "remarks": list(candidate.remarks),
        "prediction": prediction,
        "duplicate_of": twin,
        "raw_snippet": candidate.raw_snippet,
        "screening_flags": list(candidate.flags),
        "reason": candidate.reason.to_mongo().to_dict() if candidate.reason else None,
        "cause": candidate.cause.value if candidate.cause else None,
        "history": [_move_row(move) for move in candidate.history],
        "runs": [_run_row(run) for run in Run.objects(candidate_id=owner.candidate_id).order_by("launch_id")],
        "entry": _entry_row(entry) if entry else None,
        "missing_now": sorted(missing_references(candidate.level_key)),
    }


def _move_row(move: StateMove) -> Row:
    return {"at": move.at, "old": move.old.value if move.old else None, "new": move.new.value, "reason": move.reason}


def _run_row(run: Run) -> Row:
    return {
        "step": run.step,
        "cause": run.cause.value,
        "outcome": run.outcome,
        "wall_s": run.wall_s,
        "directory": run.directory,
        "evidence": list(run.evidence),
        "corrections": list(run.corrections),
    }


def _entry_row(entry: Entry) -> Row:
    return {
        "entry_id": entry.entry_id,
        "valid": entry.valid,
        "energy_eV_per_atom": entry.energy_eV_per_atom,
        "convergence_error_eV_per_atom": entry.convergence_error_eV_per_atom,
        "reasons": [reason.text for reason in entry.reasons],
        "flags": list(entry.flags),
        "results": dict(entry.results),
        "provenance": dict(entry.provenance),
    }


def story_lines(data: Row) -> list[str]:
    """Return the explanation of a candidate as lines of text."""
    named = [data[key] for key in ("candidate_id", "name", "reduced_formula") if data[key]]
    lines = [f"{'  '.join(named)}  is {data['state']}"]
    lines.append(f"  from      {data['row']}, batch {data['batch']}, {data['role']}")
    lines.append(f"  level     {data['level_key']}")
    if data["duplicate_of"]:
        lines.append(f"  twin of   {data['duplicate_of']}")
    if data["prediction"]:
        lines.append(f"  predicted {_pairs(data['prediction'])}")
    lines += [f"  remark    {remark}" for remark in data["remarks"]]
    if data["reason"]:
        reason = data["reason"]
        lines.append(f"  because   [{reason['code']}] {reason['text']}. {reason.get('next_step', '')}".rstrip())
    if data["raw_snippet"]:
        lines.append(f"  row       {data['raw_snippet']}")
    lines += _verdict_lines(data) + _entry_lines(data["entry"])
    lines += [
        f"  {m['at']:%Y-%m-%d %H:%M:%S}  {m['old'] or 'new'} → {m['new']}: {m['reason']}" for m in data["history"]
    ]
    for run in data["runs"]:
        wall = f", {run['wall_s']:.0f} s" if run["wall_s"] is not None else ""
        lines.append(f"  run       {run['step']}: {run['cause']} ({run['outcome']}{wall})  {run['directory']}")
        lines += [f"            {line}" for line in run["evidence"]]
        lines += [f"            repaired: {_pairs(correction)}" for correction in run["corrections"]]
    return lines


def _verdict_lines(data: Row) -> list[str]:
    if data["verdict"] is None:
        return []
    flags = ", ".join(data["flags"]) or "none"
    lines = [f"  verdict   {data['verdict']} at {data['level']}, hull version {data['hull_version']}; flags: {flags}"]
    if data["e_above_hull"] is not None:
        lines.append(
            f"            {data['e_above_hull']:.4f} eV/atom above the hull of {' + '.join(data['decomposition'])}"
        )
    if data["missing"]:
        lines.append(f"            missing: {', '.join(data['missing'])}")
    return lines


def _entry_lines(entry: Row | None) -> list[str]:
    if entry is None:
        return []
    validity = "valid" if entry["valid"] else "INVALID: " + "; ".join(entry["reasons"])
    lines = [f"  entry     {entry['entry_id']}: {entry['energy_eV_per_atom']:.6f} eV/atom, {validity}"]
    lines.append(f"            {_pairs(entry['results'])}")
    lines.append(f"            {_pairs(entry['provenance'])}")
    return lines


def _pairs(data: Row) -> str:
    return ", ".join(f"{key} {value}" for key, value in data.items() if value not in (None, "", [], {}))
