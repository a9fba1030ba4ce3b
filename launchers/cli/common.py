"""What the commands share: options, output as a table or as JSON, the project's connection."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from hullworks.settings import Settings

WIDTH = 160
"""Columns of a table that goes into a file or a pipe."""
UNBROKEN = 14
"""Cells no longer than this are not broken where the terminal is wide enough: names stay whole, sentences give way."""

EXIT_LOOK = 10
"""The command did its work, and something in it needs a person's look."""

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
LevelOption = Annotated[
    str | None,
    typer.Option("--level", "-l", help="Level of theory: a key, or its readable name. Default: the project's."),
]


def console() -> Console:
    """Return the console for people."""
    from rich.console import Console

    return Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else WIDTH)


def settings() -> Settings:
    """Return the project's settings."""
    from hullworks.settings import load_settings

    return load_settings()


def connected(*, start: bool = True) -> Settings:
    """Return the project's settings, with its database connected.

    Args:
        start: Start the private server when it was started before and died.
    """
    from hullworks.database import connect

    found = settings()
    if start and found.embedded_database and (found.data_dir / "mongod").is_dir():
        from hullworks.launchers.services import mongod

        mongod.ensure(found)
    connect(found)
    return found


def use_configuration(found: Settings) -> None:
    """Make FireWorks and jobflow in this process read the project's configuration; before they are imported."""
    from hullworks.launchers.configuration import use_configuration as use

    use(found)


def emit(data: object, as_json: bool, render: Callable[[], RenderableType]) -> None:
    """Print data as JSON for scripts, or as a table or plain text for people."""
    if as_json:
        typer.echo(json.dumps(_finite(data), indent=2, default=str, sort_keys=True, allow_nan=False))
        return
    shown = render()
    if isinstance(shown, str):
        say(shown)
    else:
        console().print(shown)


def say(text: str) -> None:
    """Print plain text for people; brackets in it are no markup, and only a terminal breaks its lines."""
    console().print(text, markup=False, soft_wrap=not sys.stdout.isatty())


def _finite(data: object) -> object:
    """Return data whose numbers are all valid JSON: null for what is not a number."""
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    return [_finite(value) for value in data] if isinstance(data, (list, tuple)) else data


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], title: str | None = None) -> RenderableType:
    """Return a table of rows, or the words for an empty one.

    Args:
        rows: One mapping per row.
        columns: Key of each column to its heading, in order; a heading that ends in ``>`` is right-aligned.
        title: Above the table.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    if not rows:
        return Text("\n".join(filter(None, (title, "(none)"))))
    result = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    cells = {key: [_cell(row.get(key)) for row in rows] for key in columns}
    widths = {key: max(map(len, [*cells[key], *columns[key].split("\n")])) for key in columns}
    roomy = sum(min(width, UNBROKEN + 2) + 3 for width in widths.values()) <= console().width
    for key, heading in columns.items():
        short = roomy and widths[key] <= UNBROKEN
        justify: Literal["left", "right"] = "right" if heading.endswith(">") else "left"
        result.add_column(heading.rstrip(">"), justify=justify, overflow="fold", no_wrap=short)
    for line in zip(*cells.values(), strict=True):
        result.add_row(*line)
    return result


def _cell(value: object) -> str:
    from rich.markup import escape

    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{round(value, 4) + 0.0:.4f}"  # without the sign of a negative zero
    if isinstance(value, (list, tuple)):
        return ", ".join(escape(str(item)) for item in value) or "–"
    return escape(str(value))
