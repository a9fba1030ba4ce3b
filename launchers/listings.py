"""What the commands show: plain rows out of the database, for tables and for JSON alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hullworks.analysis.hull_view import missing_references, stored_verdicts
from hullworks.analysis.stability import last_sequence
from hullworks.documents import Batch, Candidate, Entry, HullEvent, Level, Run, StateMove, StoredVerdict
from hullworks.errors import InputError
from hullworks.levels import resolve_level
from hullworks.states import CandidateState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hullworks.analysis.client import Hull

Row = dict[str, Any]


def level_key(name: str) -> str:
    """Return the key of the stored level that a user means."""
    return resolve_level(name, [level.key for level in Level.objects.only("key")])


def levels() -> list[Row]:
    """Return the stored levels with their numbers of candidates and entries."""
    return [
        {
            "slug": level.slug,
            "key": level.key,
            "candidates": Candidate.objects(level_key=level.key).count(),
            "entries": Entry.objects(level_key=level.key, valid=True, retracted=False).count(),
            "hull_version": last_sequence(level.key),
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
        query["chemsys"] = "-".join(sorted(chemsys.split("-")))
    found = list(Candidate.objects(**query).order_by("rank", "source_row").limit(limit))
    verdicts = _verdicts_of(found)
    return [candidate_row(candidate, verdicts) for candidate in found]


def _state(name: str) -> CandidateState:
    try:
        return CandidateState(name)
    except ValueError:
        raise InputError("no such state", name, f"States: {', '.join(CandidateState)}.") from None


def _verdicts_of(found: Iterable[Candidate]) -> dict[str, StoredVerdict]:
    """Return verdicts by candidate, that of its twin for a duplicate."""
    ids = {candidate.duplicate_of or candidate.candidate_id for candidate in found}
    return {verdict.candidate_id: verdict for verdict in StoredVerdict.objects(candidate_id__in=list(ids))}


def candidate_row(candidate: Candidate, verdicts: dict[str, StoredVerdict]) -> Row:
    """Return one candidate as a row."""
    verdict = verdicts.get(candidate.duplicate_of or candidate.candidate_id)
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
        **verdict_row(verdict),
        "note": candidate.reason.text if candidate.reason else None,
        "row": f"{candidate.source_file}:{candidate.source_row}",
    }


def verdict_row(verdict: StoredVerdict | None) -> Row:
    """Return a verdict as columns: never without its level, hull version and flags."""
    if verdict is None:
        return {"verdict": None, "e_above_hull": None, "formation_energy": None, "decomposition": [], "flags": []}
    parts = [f"{part['fraction']:.3f} {part['formula']}" for part in verdict.decomposition]
    return {
        "verdict": verdict.kind,
        "level": verdict.level_key,
        "hull_version": verdict.hull_sequence,
        "e_above_hull": verdict.e_above_hull_eV_per_atom,
        "formation_energy": verdict.formation_energy_eV_per_atom,
        "e_below_others": verdict.e_below_others_eV_per_atom,
        "decomposition": parts,
        "missing": list(verdict.missing),
        "flags": list(verdict.flags),
    }


def hull_rows(view: Hull) -> list[Row]:
    """Return the entries of a hull view, lowest above it first."""
    present = stored_verdicts(view.view) if view.is_present else {}
    rows = []
    for row in view.rows():
        stored = verdict_row(present.get(row["entry_id"]))
        rows.append({**stored, **{key: value for key, value in row.items() if value is not None}})
    return sorted(rows, key=lambda row: (row["e_above_hull"] is None, row["e_above_hull"] or 0.0, row["name"]))


def stable(key: str, chemsys: str | None) -> list[Row]:
    """Return the stable entries of a level, within a chemical system if one is named."""
    rows = []
    for verdict in StoredVerdict.objects(level_key=key, kind="stable").order_by("chemsys", "entry_id"):
        if chemsys and not set(verdict.chemsys.split("-")) <= set(chemsys.split("-")):
            continue
        entry = Entry.objects.get(entry_id=verdict.entry_id)
        names = {"name": entry.name, "reduced_formula": entry.reduced_formula, "role": entry.role.value}
        rows.append({"entry_id": entry.entry_id, **names, **verdict_row(verdict)})
    return rows


def history(entry_id: str) -> list[Row]:
    """Return the hull events that concern an entry."""
    entry = Entry.objects(entry_id=entry_id).first()
    if entry is None:
        raise InputError("there is no such entry", entry_id, "`hullworks hull CHEMSYS` lists entries with their ids.")
    rows = []
    for event in HullEvent.objects(level_key=entry.level_key).order_by("sequence"):
        what = _concern(event, entry_id)
        if what:
            change = event.moved.get(entry_id)
            row = {"sequence": event.sequence, "at": event.at, "what": what, "change": change}
            rows.append({**row, "because_of": event.entry_id})
    return rows


def _concern(event: HullEvent, entry_id: str) -> str:
    if event.entry_id == entry_id:
        return "added, on the hull" if entry_id in event.entered else "added, above the hull"
    if entry_id in event.left:
        return "left the hull"
    if entry_id in event.entered:
        return "came onto the hull"
    return "moved" if entry_id in event.moved else ""


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
    row = candidate_row(candidate, _verdicts_of([candidate]))
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
