"""Commands on the hull: what is stable, against what, and since when."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hullworks.launchers.cli.common import JsonOption, LevelOption, connected, emit, say, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hullworks.settings import Settings

SCREENFUL = 200
"""Rows of a table on a terminal; ``--json`` has them all."""

AsOfOption = Annotated[
    int | None, typer.Option("--as-of", min=1, help="What held at this hull event. Default: the published version.")
]

_COLUMNS = {
    "name": "name",
    "reduced_formula": "formula",
    "role": "role",
    "formation_energy": "e_form>",
    "e_above_hull": "e_hull>",
    "verdict": "verdict",
    "decomposition": "decomposes to",
    "flags": "flags",
    "entry_id": "entry",
}


_STABLE_COLUMNS = {
    "name": "name",
    "reduced_formula": "formula",
    "role": "role",
    "formation_energy": "e_form>",
    "e_below_others": "distance\nfrom others>",
    "flags": "flags",
    "hull_version": "since\nversion>",
    "entry_id": "entry",
}
_HISTORY_COLUMNS = {
    "sequence": "version>",
    "at": "at",
    "what": "what",
    "verdicts": "verdict",
    "distances": "e_hull>",
    "change": "change>",
    "because_of": "because of",
    "reasons": "reason",
}


def level_key(found: Settings, level: str | None) -> str:
    """Return the key of the level that is asked for, by default the project's."""
    from hullworks.launchers import listings

    return listings.level_key(level or found.level)


def hull(
    chemsys: Annotated[str, typer.Argument(help="Chemical system, such as Mg-Si-Ge.")],
    level: LevelOption = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Write the phase diagram: .png, or .html (interactive).")
    ] = None,
    as_of: AsOfOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the hull of a chemical system: every entry, its energy above hull and its verdict; eV/atom."""
    from hullworks.analysis.client import StabilityDB
    from hullworks.launchers import listings

    found = connected()
    view = StabilityDB(found).hull(chemsys, level=level_key(found, level), as_of=as_of)
    rows = listings.hull_rows(view)
    then = "" if view.is_present else ", as it was then"
    title = f"{'-'.join(view.elements)} at {view.level_key}, hull version {view.sequence}{then}; energies in eV/atom"
    data: dict[str, Any] = {"level": view.level_key, "hull_version": view.version, "entries": rows}
    if plot is not None:
        data["plot"] = str(view.save_plot(plot))
    emit(data, as_json, lambda: table(rows[:SCREENFUL], _COLUMNS, title=title))
    say_of_more(rows, as_json)
    if plot is not None and not as_json:
        say(f"phase diagram: {plot}")


def stable(
    chemsys: Annotated[str | None, typer.Argument(help="Only within this chemical system.")] = None,
    level: LevelOption = None,
    as_of: AsOfOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what is stable, with level, hull version and flags."""
    from hullworks.launchers import listings

    found = connected()
    rows = listings.stable(level_key(found, level), chemsys, as_of)
    emit(rows, as_json, lambda: table(rows[:SCREENFUL], _STABLE_COLUMNS))
    say_of_more(rows, as_json)


def history(
    entry: Annotated[str, typer.Argument(help="Id of an entry.")],
    as_json: JsonOption = False,
) -> None:
    """Show every verdict that an entry ever had: the hull versions that changed it, and the events that did."""
    from hullworks.launchers import listings

    connected()
    rows = listings.history(entry)
    title = f"{entry} at {rows[0]['level']}; energies in eV/atom" if rows else entry
    emit(rows, as_json, lambda: table([_step_cells(row) for row in rows], _HISTORY_COLUMNS, title=title))


def _step_cells(row: dict[str, Any]) -> dict[str, Any]:
    """Return a step of a history with what was said before and after in one cell each."""
    before, after = row["before"], row["after"]
    both = [number(verdict["e_above_hull"]) for verdict in (before, after)]
    return {
        **row,
        "at": f"{row['at']:%Y-%m-%d %H:%M:%S}",
        "verdicts": arrow(before["verdict"], after["verdict"]),
        "distances": arrow(*both),
        "reasons": row["reasons"][:SHOWN_REASONS],
    }


SHOWN_REASONS = 3
"""Reasons in one line of a history."""


def arrow(before: str | None, after: str | None) -> str:
    """Return a change as text; one word where nothing changed."""
    return str(after) if before == after else f"{before or '–'} → {after or '–'}"


def number(value: float | None) -> str | None:
    """Return an energy in eV/atom as a cell shows it, without the sign of a negative zero; None where there is none."""
    return None if value is None else f"{round(value, 4) + 0.0:.4f}"


def say_of_more(rows: Sequence[object], as_json: bool) -> None:
    """Say that a table showed the first rows only."""
    if len(rows) > SCREENFUL and not as_json:
        say(f"the first {SCREENFUL} of {len(rows):,}; --json has them all")
