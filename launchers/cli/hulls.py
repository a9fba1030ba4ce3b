"""Commands on the hull: what is stable, against what, and since when."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hullworks.launchers.cli.common import JsonOption, LevelOption, connected, emit, say, table

if TYPE_CHECKING:
    from hullworks.settings import Settings

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


def _level_key(found: Settings, level: str | None) -> str:
    from hullworks.launchers import listings

    return listings.level_key(level or found.level)


def hull(
    chemsys: Annotated[str, typer.Argument(help="Chemical system, such as Mg-Si-Ge.")],
    level: LevelOption = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Write the phase diagram: .png, or .html (interactive).")
    ] = None,
    as_of: Annotated[int | None, typer.Option("--as-of", min=1, help="The hull as of this event.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the hull of a chemical system: every entry, its energy above hull and its verdict; eV/atom."""
    from hullworks.analysis.client import StabilityDB
    from hullworks.launchers import listings

    found = connected()
    view = StabilityDB(found).hull(chemsys, level=_level_key(found, level), as_of=as_of)
    rows = listings.hull_rows(view)
    title = f"{'-'.join(view.elements)} at {view.level_key}, hull version {view.sequence}; energies in eV/atom"
    data: dict[str, Any] = {"level": view.level_key, "hull_version": view.version, "entries": rows}
    if plot is not None:
        data["plot"] = str(view.save_plot(plot))
    emit(data, as_json, lambda: table(rows, _COLUMNS, title=title))
    if plot is not None and not as_json:
        say(f"phase diagram: {plot}")


def stable(
    chemsys: Annotated[str | None, typer.Argument(help="Only within this chemical system.")] = None,
    level: LevelOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what is stable, with level, hull version and flags."""
    from hullworks.launchers import listings

    found = connected()
    rows = listings.stable(_level_key(found, level), chemsys)
    emit(rows, as_json, lambda: table(rows, {**_COLUMNS, "hull_version": "hull version"}))


def history(
    entry: Annotated[str, typer.Argument(help="Id of an entry.")],
    as_json: JsonOption = False,
) -> None:
    """Show the hull events that concern an entry."""
    from hullworks.launchers import listings

    connected()
    rows = listings.history(entry)
    columns = {"sequence": "event>", "at": "at", "what": "what", "change": "change>", "because_of": "because of"}
    emit(rows, as_json, lambda: table(rows, columns))
