"""The program: its commands, its one boundary for errors."""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from hullworks import __version__
from hullworks.errors import DatabaseError, HullWorksError
from hullworks.launchers.cli import batches, hulls, lifecycle, project, references, stability, work

EXIT_UNEXPECTED = 1
EXIT_INTERRUPTED = 130


def _exit_with(status: object, **_options: object) -> None:
    """End with the status that a command returned."""
    if isinstance(status, int) and status:
        raise typer.Exit(status)


app = typer.Typer(
    name="hullworks",
    help="Decides which machine-learned crystal predictions are real.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    result_callback=_exit_with,
)
launch_app = typer.Typer(help="Start workers; they feed the LaunchPad as they go.", no_args_is_help=True)
app.add_typer(launch_app, name="launch")
app.add_typer(references.app, name="references")

app.command()(work.demo)
app.command()(project.up)
app.command()(project.down)
app.command()(project.doctor)
app.command()(batches.submit)
app.command()(batches.batches)
app.command()(batches.status)
app.command()(batches.candidates)
app.command()(batches.why)
launch_app.command("local")(work.launch_local)
launch_app.command("slurm")(work.launch_slurm)
launch_app.command("feed")(work.launch_feed)
app.command()(work.land)
for _command in (lifecycle.pause, lifecycle.resume, lifecycle.cancel, lifecycle.retry, lifecycle.reconcile):
    app.command()(_command)
app.command()(hulls.hull)
app.command()(hulls.stable)
app.command()(hulls.history)
app.command()(stability.diff)
app.command()(stability.stability)
app.command()(stability.audit)
app.command()(stability.retract)
app.command()(stability.recorrect)
app.command()(project.levels)
app.command()(project.config)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"hullworks {__version__}")
        raise typer.Exit


@app.callback()
def options(
    project_dir: Annotated[
        Path | None,
        typer.Option(
            "--project", "-C", help="Project folder; by default the nearest with a hullworks.toml, else this one."
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the whole trace of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    """Decide which machine-learned crystal predictions are real."""
    del version, debug  # `run` looks for the latter itself: an error may come before options are parsed
    if project_dir is not None:
        os.environ["HULLWORKS_PROJECT_DIR"] = str(project_dir.resolve())


def run(arguments: list[str]) -> int:
    """Run one command; return the exit status. Errors become one line on standard error."""
    debug = "--debug" in arguments
    try:
        app(arguments)
    except SystemExit as end:  # typer's way to end, also after Ctrl-C
        status = end.code if isinstance(end.code, int) else EXIT_UNEXPECTED
        if status == EXIT_INTERRUPTED:
            sys.stderr.write("interrupted; nothing is lost, run the command again to continue\n")
        return status
    except Exception as error:  # noqa: BLE001 - the one boundary of this process
        if debug:
            traceback.print_exception(error)
        known = error if isinstance(error, HullWorksError) else _unexpected(error)
        _report(known, arguments)
        return known.exit_code
    return 0


def _report(error: HullWorksError, arguments: list[str]) -> None:
    if "--json" in arguments:
        sys.stderr.write(json.dumps(error.as_dict()) + "\n")
    else:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")


def _unexpected(error: Exception) -> HullWorksError:
    """Return what to say of an error that nobody foresaw; a database that went away while it was used is foreseen."""
    import pymongo.errors

    if isinstance(error, pymongo.errors.ConnectionFailure):
        return DatabaseError("the database stopped answering", "", "Run: hullworks up, then this command again.")
    what = f"unexpected {type(error).__name__}: {error}"
    return HullWorksError(what, "", "Run with --debug before the command, and report the trace.")
