"""Commands on references: entries that anchor the hulls of a level."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hullworks.errors import InputError
from hullworks.launchers.cli.common import (
    EXIT_LOOK,
    JsonOption,
    LevelOption,
    connected,
    console,
    emit,
    table,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hullworks.levels import LevelOfTheory
    from hullworks.workflows.references import ImportReport

app = typer.Typer(
    help="Entries that anchor the hulls of a level: import them, see what is missing.", no_args_is_help=True
)

SCREENFUL = 40
"""Quarantined rows that are shown; the file has them all."""

_REFUSED_COLUMNS = {"where": "row", "source_id": "id", "code": "quarantined as", "reason": "reason"}
_STATUS_COLUMNS = {
    "level_key": "level",
    "imported": "imported>",
    "computed": "computed>",
    "n_elements": "elements>",
    "missing_elements": "elements missing",
    "owed": "declared, without entry",
}


@app.command("import")
def import_files(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="JSON lists, JSONL or CSV (.gz too), or folders: pymatgen entries, Materials Project documents."
        ),
    ],
    level: LevelOption = None,
    define: Annotated[
        Path | None,
        typer.Option("--define", help="YAML file that declares the level (code, functional, protocol, ...)."),
    ] = None,
    energy_column: Annotated[
        str | None, typer.Option("--energy-column", help="Column of the energy, eV/atom. Default: energy_per_atom.")
    ] = None,
    formula_column: Annotated[str | None, typer.Option("--formula-column", help="Column of the formula.")] = None,
    id_column: Annotated[str | None, typer.Option("--id-column", help="Column of the rows' own ids.")] = None,
    formation_energies: Annotated[
        bool, typer.Option("--formation-energies", help="The energies are formation energies: elements lie at 0.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be added; store nothing.")] = False,
    quarantine: Annotated[
        Path | None,
        typer.Option("--quarantine", help="File for the rows that cannot be used. Default: in the data folder."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help=f"Exit with {EXIT_LOOK} when a row was quarantined.")
    ] = False,
    cluster: Annotated[
        str | None,
        typer.Option("--cluster", help="Parse large files on several processes: local:N, or slurm:N (extra `dask`)."),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Import entries that others computed into the level that they belong to. Importing twice adds nothing."""
    from hullworks.analysis.stability import update_level
    from hullworks.documents import now
    from hullworks.workflows.references import Columns, import_references

    found = connected()
    chosen = _level(level or found.level if define is None else level, define)
    listing = quarantine or found.data_dir / "references" / f"quarantine-{now():%Y%m%dT%H%M%S}.jsonl"
    with _progress(quiet=as_json) as on_progress:
        report = import_references(
            files,
            chosen,
            columns=Columns(energy_column, formula_column, id_column, formation_energies),
            dry_run=dry_run,
            quarantine=listing,
            cluster=cluster,
            on_progress=on_progress,
        )
    hull = {} if dry_run else dict(update_level(chosen.key))
    if report.refusals and not as_json:
        console().print(table(_refused(report), _REFUSED_COLUMNS))
    emit({**report.as_dict(), "hull": hull}, as_json, lambda: _summary(report, hull))
    return EXIT_LOOK if strict and report.refusals else 0


@app.command()
def status(level: LevelOption = None, as_json: JsonOption = False) -> None:
    """Show how many references each level has, which elements lack one, and which declared ones are owed."""
    from hullworks.documents import Level
    from hullworks.launchers import listings
    from hullworks.workflows.references import references_status

    connected()
    keys = [listings.level_key(level)] if level else sorted(known.key for known in Level.objects.only("key"))
    rows = [references_status(key).as_dict() for key in keys]
    shown = [{**row, "n_elements": len(row["elements"])} for row in rows]
    emit(rows, as_json, lambda: table(shown, _STATUS_COLUMNS))


def _level(name: str | None, define: Path | None) -> LevelOfTheory:
    """Return the level that the options name.

    Raises:
        InputError: Both name one.
    """
    from hullworks.workflows.references import declared_level, stored_level

    if name is not None and define is not None:
        raise InputError("a level is named and another declared", "--level and --define", "Give one of them.")
    return declared_level(define) if define is not None else stored_level(str(name))


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[ImportReport], None]]:
    """Show how far an import is, on a terminal."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    out = console()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=out, transient=True, disable=quiet or not out.is_terminal) as progress:
        task = progress.add_task("reading", total=None)
        yield lambda report: progress.update(task, description=_counts(report))


def _counts(report: ImportReport) -> str:
    quarantined = len(report.refusals)
    return f"{report.read:,} rows: {report.added:,} added, {report.known:,} known, {quarantined:,} quarantined"


def _refused(report: ImportReport) -> list[dict[str, object]]:
    shown = report.refusals[:SCREENFUL]
    return [{**refusal.as_dict(), "where": str(refusal.place)} for refusal in shown]


def _summary(report: ImportReport, hull: dict[str, int]) -> str:
    """Return what an import did, in words."""
    lines = [f"level {report.level_key}: {_counts(report)}" + (" (dry run, nothing stored)" if report.dry_run else "")]
    if report.zero_references:
        lines.append(f"references at 0 eV/atom: {', '.join(report.zero_references)}")
    if report.quarantine_file:
        lines.append(f"quarantined rows: {report.quarantine_file}")
    done = ", ".join(f"{number:,} {what}" for what, number in hull.items())
    if not report.dry_run:
        lines.append(f"hull: {done or 'nothing changed'}")
    return "\n".join(lines)
