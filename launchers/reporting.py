"""The report of a campaign, gathered from the database for `hullworks.analysis.report`."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hullworks.analysis.client import StabilityDB
from hullworks.analysis.report import write_report
from hullworks.analysis.report_data import Intake, IntakeRow, ReportData, RunRow, VerdictRow
from hullworks.documents import Batch, Candidate, Level, Run, now
from hullworks.levels import LevelOfTheory
from hullworks.states import CandidateState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hullworks.analysis.client import Hull
    from hullworks.analysis.hull_view import EntryRow
    from hullworks.settings import Settings

_NOT_ACCEPTED = (CandidateState.DUPLICATE, CandidateState.QUARANTINED, CandidateState.REJECTED)
_LIBRARIES = ("hullworks", "pymatgen", "jobflow", "fireworks", "custodian", "numpy", "spglib")


def write_campaign_report(settings: Settings, batch: str, chemsys: str, folder: Path) -> dict[str, Path]:
    """Write the report of a batch and the figures of its chemical system.

    Args:
        settings: The project's settings; the documents must be connected.
        batch: The batch.
        chemsys: The chemical system to draw.
        folder: Where to write; made when it is missing.

    Returns:
        What was written, by what it is.
    """
    stored = Batch.objects.get(name=batch)
    view = StabilityDB(settings).hull(chemsys, level=stored.level_key)
    candidates = list(Candidate.objects(batch=batch).order_by("source_file", "source_row"))
    data = ReportData(
        title=f"{chemsys}: which predictions are real",
        batch=batch,
        made_at=now(),
        versions=(*((name, version(name)) for name in _LIBRARIES), *_code_versions(view.view.entries)),
        level=LevelOfTheory.from_dict(Level.objects.get(key=stored.level_key).data),
        hull_version=view.version,
        intake=_intake(candidates),
        verdicts=tuple(_verdicts(view, candidates, folder)),
        runs=tuple(_runs(candidates, folder)),
        points=(view.points(),) if view.view.entries else (),
        cutoffs_Ry=_cutoffs(view.view.entries),
        protocol=_protocol(view.view.entries),
        wall_s=_wall_s(stored, candidates),
        owner=stored.owner or "",
    )
    report = write_report(data, folder)
    written = {"report": report, "report as text": folder / "report.md"}
    figures = {"phase diagram": f"hull-{chemsys}.png", "interactive phase diagram": f"hull-{chemsys}.html"}
    return written | {name: folder / file for name, file in figures.items() if (folder / file).exists()}


def _intake(candidates: list[Candidate]) -> Intake:
    states = [candidate.state for candidate in candidates]
    refused = [candidate for candidate in candidates if candidate.state in _NOT_ACCEPTED]
    return Intake(
        rows=len(candidates),
        accepted=len(candidates) - len(refused),
        duplicates=states.count(CandidateState.DUPLICATE),
        quarantined=states.count(CandidateState.QUARANTINED),
        rejected=states.count(CandidateState.REJECTED),
        not_accepted=tuple(
            IntakeRow(
                name=candidate.name or "(unreadable)",
                where=f"{Path(candidate.source_file).name}, row {candidate.source_row}",
                state=candidate.state.value,
                reason=candidate.reason.text if candidate.reason else "",
            )
            for candidate in refused
        ),
    )


def _verdicts(view: Hull, candidates: list[Candidate], folder: Path) -> Iterable[VerdictRow]:
    asked = {candidate.candidate_id: candidate for candidate in candidates}
    for entry, verdict in zip(view.view.entries, view.verdicts(), strict=True):
        candidate = asked.get(entry.candidate_id)
        prediction = candidate.prediction if candidate else None
        yield VerdictRow(
            name=entry.name,
            formula=entry.reduced_formula,
            role=entry.role,
            verdict=verdict,
            predicted_e_above_hull_eV=prediction.e_above_hull_eV_per_atom if prediction else None,
            predicted_by=f"{prediction.model} {prediction.model_version}" if prediction and prediction.model else "",
            run_folder=_relative(entry.provenance.get("static_dir"), folder),
        )


def _runs(candidates: list[Candidate], folder: Path) -> Iterable[RunRow]:
    names = {candidate.candidate_id: candidate.name for candidate in candidates}
    for run in Run.objects(candidate_id__in=list(names)).order_by("launch_id"):
        usable = run.cause.value == "converged"
        yield RunRow(
            name=names[run.candidate_id] or run.candidate_id,
            step=run.step,
            cause=run.cause.value,
            wall_s=run.wall_s,
            corrections=tuple(_correction(correction) for correction in run.corrections),
            note="" if usable else "; ".join(run.evidence[:2]),
            folder=_relative(run.directory, folder),
            usable=usable,
        )


def _correction(correction: dict[str, Any]) -> str:
    return f"{correction.get('handler', 'repair')}: {', '.join(str(e) for e in correction.get('errors', []))}"


def _relative(path: str | None, folder: Path) -> str:
    return os.path.relpath(path, folder) if path else ""


def _cutoffs(entries: Iterable[EntryRow]) -> tuple[tuple[str, float, float], ...]:
    """Return the cutoffs of the elements, read off the entries of the elements themselves."""
    found = {}
    for entry in entries:
        if len(entry.composition) == 1:
            found[entry.chemsys] = (entry.results.get("ecutwfc_Ry"), entry.results.get("ecutrho_Ry"))
    return tuple((name, float(wfc), float(rho)) for name, (wfc, rho) in sorted(found.items()) if wfc and rho)


def _protocol(entries: Iterable[EntryRow]) -> tuple[tuple[str, str], ...]:
    meshes = {entry.name: "×".join(str(n) for n in entry.results["k_mesh"]["divisions"]) for entry in entries}
    return tuple((f"k-points of {name}", mesh) for name, mesh in meshes.items())


def _code_versions(entries: Iterable[EntryRow]) -> tuple[tuple[str, str], ...]:
    codes = sorted({str(entry.provenance.get("code_version")) for entry in entries})
    return tuple(("Quantum ESPRESSO", code) for code in codes)


def _wall_s(batch: Batch, candidates: list[Candidate]) -> float | None:
    moves = [move.at for candidate in candidates for move in candidate.history]
    unfinished = any(
        not candidate.history or candidate.state in {"queued", "submitted", "running"} for candidate in candidates
    )
    return None if unfinished or not moves else (max(moves) - batch.created_at).total_seconds()
