"""Commands on batches and candidates: what goes in, how it stands, and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hullworks.launchers.cli.common import EXIT_LOOK, JsonOption, LevelOption, connected, console, emit, settings, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hullworks.workflows.submission import SubmissionReport

BatchArgument = Annotated[str | None, typer.Argument(help="Name of a batch; all batches when left out.")]
LimitOption = Annotated[int, typer.Option("--limit", min=1, help="Show at most so many.")]

_CANDIDATE_COLUMNS = {
    "candidate_id": "candidate",
    "name": "name",
    "reduced_formula": "formula",
    "state": "state",
    "predicted_e_above_hull": "predicted e_hull>",
    "e_above_hull": "e_hull>",
    "verdict": "verdict",
    "flags": "flags",
    "note": "note",
}


def submit(
    files: Annotated[
        list[Path], typer.Argument(help="JSONL, JSON, CIF, POSCAR or extxyz files (.gz too), or folders.")
    ],
    level: LevelOption = None,
    batch: Annotated[
        str | None, typer.Option("--batch", "-b", help="Name of the batch. Default: the first file's.")
    ] = None,
    policy: Annotated[Path | None, typer.Option("--policy", help="YAML file with the screening policy.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would become of each row; store nothing.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help=f"Exit with {EXIT_LOOK} when a row was quarantined or rejected.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Hand candidates in: every row is accepted, or kept with the reason why not. Submitting twice adds nothing."""
    import getpass

    from hullworks.workflows.codes import build_level
    from hullworks.workflows.screening import default_policy, load_policy
    from hullworks.workflows.submission import submit as submit_rows

    found = settings() if dry_run else connected()
    report = submit_rows(
        files,
        build_level(level or found.level, found),
        found,
        batch=batch or _batch_name(files[0]),
        policy=load_policy(policy) if policy else default_policy(),
        dry_run=dry_run,
        owner=getpass.getuser(),
    )
    rows = [outcome.as_dict() for outcome in report.outcomes]
    data = {"batch": report.batch, "level": report.level_key, "dry_run": dry_run, "counts": report.counts, "rows": rows}
    emit(data, as_json, lambda: _submission_table(report))
    if not as_json:
        console().print(_submission_summary(report))
    needs_look = any(row["state"] in {"quarantined", "rejected"} for row in rows)
    return EXIT_LOOK if strict and needs_look else 0


def _batch_name(path: Path) -> str:
    return path.resolve().name.split(".")[0] or "batch"


def _submission_table(report: SubmissionReport) -> RenderableType:
    rows = [
        {**outcome.as_dict(), "state": outcome.state if outcome.new else f"{outcome.state} (known)"}
        for outcome in report.outcomes
    ]
    columns = {"where": "row", "name": "name", "state": "state", "candidate_id": "candidate", "reason": "reason"}
    if len(rows) > 60:  # noqa: PLR2004 - a screenful; the whole is in --json and `candidates`
        rows = [row for row in rows if row["reason"]][:60]
    return table(rows, columns)


def _submission_summary(report: SubmissionReport) -> str:
    counts = ", ".join(f"{number} {state}" for state, number in sorted(report.counts.items()))
    verb = "would be" if report.dry_run else "are"
    return (
        f"batch {report.batch} at {report.level_key}: {counts or 'no rows'} ({len(report.outcomes)} rows {verb} in it)"
    )


def batches(as_json: JsonOption = False) -> None:
    """List the batches with their counts per state."""
    from hullworks.launchers import listings

    connected()
    rows = listings.batches()
    columns = {"name": "batch", "level_key": "level", "owner": "owner", "total": "rows>", "states": "states"}
    shown = [{**row, "states": [f"{n} {state}" for state, n in row["counts"].items()]} for row in rows]
    emit(rows, as_json, lambda: table(shown, columns))


def status(
    batch: BatchArgument = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Keep showing until everything is done.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Show how a batch stands: counts per state, what runs now, what failed and why."""
    from hullworks.launchers import listings, progress

    connected()
    if watch and not as_json:
        progress.watch(console(), batch)
    data = listings.status(batch)
    emit(data, as_json, lambda: progress.status_panel(data))
    return EXIT_LOOK if data["counts"].get("failed") else 0


def candidates(
    batch: Annotated[str | None, typer.Option("--batch", "-b", help="Only of this batch.")] = None,
    state: Annotated[str | None, typer.Option("--state", "-s", help="Only in this state.")] = None,
    chemsys: Annotated[
        str | None, typer.Option("--chemsys", help="Only of this chemical system, such as Mg-Si.")
    ] = None,
    limit: LimitOption = 200,
    as_json: JsonOption = False,
) -> None:
    """List candidates with their predictions and verdicts."""
    from hullworks.launchers import listings

    connected()
    rows = listings.candidates(batch=batch, state=state, chemsys=chemsys, limit=limit)
    emit(rows, as_json, lambda: table(rows, _CANDIDATE_COLUMNS))


def why(
    candidate: Annotated[str, typer.Argument(help="Id of a candidate, or its name within the batches.")],
    as_json: JsonOption = False,
) -> None:
    """Explain one candidate: where it comes from, what happened to it, its verdict, and the evidence."""
    from hullworks.launchers import listings

    connected()
    data = listings.explain_candidate(candidate)
    emit(data, as_json, lambda: _story(data))


def _story(data: dict[str, Any]) -> str:
    from rich.markup import escape

    from hullworks.launchers.listings import story_lines

    return "\n".join(escape(line) for line in story_lines(data))
