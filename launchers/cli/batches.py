"""Commands on batches and candidates: what goes in, how it stands, and why."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hullworks.launchers.cli.common import (
    EXIT_LOOK,
    JsonOption,
    LevelOption,
    connected,
    console,
    emit,
    say,
    settings,
    table,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hullworks.workflows.submission import SubmissionReport

BatchArgument = Annotated[str | None, typer.Argument(help="Name of a batch; all batches when left out.")]
LimitOption = Annotated[int, typer.Option("--limit", min=1, help="Show at most so many.")]

SCREENFUL = 60
"""Rows of a submission beyond which only those with a reason are shown."""

_CANDIDATE_COLUMNS = {
    "candidate_id": "candidate",
    "name": "name",
    "reduced_formula": "formula",
    "state": "state",
    "predicted_e_above_hull": "predicted\ne_hull>",
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
        say(_submission_summary(report))
    needs_look = any(row["state"] in {"quarantined", "rejected"} for row in rows)
    return EXIT_LOOK if strict and needs_look else 0


def _batch_name(path: Path) -> str:
    return path.resolve().name.split(".")[0] or "batch"


def _submission_table(report: SubmissionReport) -> RenderableType:
    outcomes = report.outcomes
    if len(outcomes) > SCREENFUL:  # all of them are in --json and `candidates`
        outcomes = [outcome for outcome in outcomes if outcome.reason][:SCREENFUL]
    folder = _common_folder([outcome.where for outcome in outcomes])
    rows = [
        {
            **outcome.as_dict(),
            "where": outcome.where.removeprefix(folder),
            "state": outcome.state if outcome.new else f"{outcome.state} (known)",
        }
        for outcome in outcomes
    ]
    columns = {"where": "row", "name": "name", "state": "state", "candidate_id": "candidate", "reason": "reason"}
    return table(rows, columns)


def _common_folder(places: list[str]) -> str:
    """Return the folder, slash included, that all places share."""
    folders = [place.split("/")[:-1] for place in places]
    shared = takewhile(lambda names: len(set(names)) == 1, zip(*folders, strict=False))
    return "".join(f"{names[0]}/" for names in shared)


def _submission_summary(report: SubmissionReport) -> str:
    counts = ", ".join(f"{number} {state}" for state, number in sorted(report.counts.items()))
    text = f"batch {report.batch} at {report.level_key}: {counts or 'no rows'}"
    if report.dry_run:
        return f"{text}; a dry run: nothing is stored, and nothing was compared with the database"
    unread = next((outcome for outcome in report.outcomes if outcome.next_step), None)
    return f"{text}\nWhat to do about a row: hullworks why {unread.candidate_id}" if unread else text


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
    if len(rows) == limit and not as_json:
        say(f"the first {limit}; --limit shows more")


def why(
    candidate: Annotated[str, typer.Argument(help="Id of a candidate, or its name within the batches.")],
    as_json: JsonOption = False,
) -> None:
    """Explain one candidate: where it comes from, what happened to it, its verdict, and the evidence."""
    from hullworks.launchers import listings

    connected()
    data = listings.explain_candidate(candidate)
    emit(data, as_json, lambda: "\n".join(listings.story_lines(data)))
