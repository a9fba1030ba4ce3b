"""What the commands share: options, output as a table or as JSON, the project's connection."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

    from hullworks.settings import Settings

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

    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)


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
    """Print data as JSON for scripts, or as a table or text for people."""
    if as_json:
        typer.echo(json.dumps(data, indent=2, default=str, sort_keys=True))
    else:
        console().print(render(), soft_wrap=False)


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], title: str | None = None) -> Table:
    """Return a table of rows.

    Args:
        rows: One mapping per row.
        columns: Key of each column to its heading, in order; a heading that ends in ``>`` is right-aligned.
        title: Above the table.
    """
    from rich import box
    from rich.table import Table

    result = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in columns.values():
        result.add_column(heading.rstrip(">"), justify="right" if heading.endswith(">") else "left", overflow="fold")
    for row in rows:
        result.add_row(*(_cell(row.get(key)) for key in columns))
    return result


def _cell(value: object) -> str:
    from rich.markup import escape

    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, (list, tuple)):
        return ", ".join(escape(str(item)) for item in value) or "–"
    return escape(str(value))
