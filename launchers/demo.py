"""The demonstration: a real campaign in a small system, from a file of predictions to a verified hull and a report."""

from __future__ import annotations

import shutil
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hullworks.errors import InputError
from hullworks.settings import SETTINGS_FILE, load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from hullworks.settings import Settings

BATCH: Final = "mg-si-sn"
CHEMSYS: Final = "Mg-Si-Sn"
EXAMPLE: Final = "MgSn-CsCl"
"""The row to ask about afterwards: the compound that the model believes in and experiment does not know."""
LEVEL: Final = "qe-pbe-fast"
MARKER: Final = ".hullworks-demo"
"""Tells a folder that a demonstration made from one that somebody works in."""

_SETTINGS = """# Settings of the demonstration project. `hullworks config` lists all there are.
level = "qe-pbe-fast"
"""


@dataclass
class DemoResult:
    """What the demonstration ended with."""

    folder: Path
    level: str
    hull_version: int
    verdicts: list[dict[str, Any]]
    rows: dict[str, int]
    files: dict[str, str]
    seconds: float
    complete: bool
    unfinished: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        """Heading of the table of verdicts."""
        return f"{CHEMSYS} at {self.level}, hull version {self.hull_version}; energies in eV/atom"

    @property
    def closing(self) -> str:
        """What to look at next."""
        lines = [f"{name:<28}{path}" for name, path in self.files.items()]
        command = "hullworks" if shutil.which("hullworks") else str(Path(sys.executable).with_name("hullworks"))
        lines.append(f"{'ask further':<28}cd {self.folder}; {command} up; {command} why {EXAMPLE}")
        head = f"finished in {self.seconds:.0f} s" if self.complete else f"NOT complete: {', '.join(self.unfinished)}"
        return "\n".join([head, *lines])

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON types."""
        return {**self.__dict__, "folder": str(self.folder)}


def run_demo(folder: Path, *, workers: int, keep: bool, console: Console, quiet: bool) -> DemoResult:
    """Run the demonstration, or continue it; a second run adds nothing.

    Args:
        folder: The demonstration's project folder; made when it does not exist.
        workers: Runs side by side.
        keep: Leave the private MongoDB running.
        console: Where to show progress.
        quiet: Show nothing.

    Raises:
        InputError: The folder holds something else.
        MissingPartError: A part is missing and could not be fetched.
    """
    from hullworks.launchers.services import mongod
    from hullworks.launchers.services.parts import fetch_missing

    started = time.monotonic()
    settings = _project(folder)

    def say(text: str) -> None:
        if not quiet:
            console.print(text)

    say(f"[bold]1[/] parts: Quantum ESPRESSO, MongoDB, pseudopotentials ({settings.parts_dir})")
    fetch_missing(settings, lambda message: say(f"  {message}"))
    try:
        if settings.embedded_database:
            mongod.start(settings)
        result = _campaign(settings, workers, console, quiet=quiet)
    finally:
        if settings.embedded_database and not keep:
            mongod.stop(settings)
    result.seconds = time.monotonic() - started
    return result


def _project(folder: Path) -> Settings:
    """Make the project folder, or find it made."""
    folder = folder.resolve()
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARKER).exists():
        raise InputError("the folder holds something else", str(folder), "Name another one with --folder.")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).touch()
    if not (folder / SETTINGS_FILE).exists():
        (folder / SETTINGS_FILE).write_text(_SETTINGS, encoding="utf-8")
    with _packaged_batch() as sources:
        for source in sources:
            shutil.copyfile(source, folder / source.name)
    return load_settings(folder)


@contextmanager
def _packaged_batch() -> Iterator[list[Path]]:
    """Yield the files of the demonstration batch, wherever the package is installed."""
    with as_file(files("hullworks.launchers").joinpath("demo_data")) as folder:
        yield sorted(folder.glob("*.jsonl"))


def _campaign(settings: Settings, workers: int, console: Console, *, quiet: bool) -> DemoResult:
    """Submit, compute, judge and report."""
    from hullworks.database import connect
    from hullworks.launchers.configuration import use_configuration

    connect(settings)
    use_configuration(settings)
    from hullworks.launchers import listings
    from hullworks.launchers.cli.common import table
    from hullworks.launchers.local import LocalLauncher
    from hullworks.launchers.progress import Display
    from hullworks.launchers.reporting import write_campaign_report
    from hullworks.workflows.codes import build_level
    from hullworks.workflows.screening import default_policy
    from hullworks.workflows.submission import submit

    level = build_level(LEVEL, settings)
    sources = sorted(settings.project_dir.glob("*.jsonl"))
    report = submit(sources, level, settings, batch=BATCH, policy=default_policy(), owner="demo")
    if not quiet:
        console.print(f"[bold]2[/] the batch: {len(report.outcomes)} rows")
        here = f"{settings.project_dir}/"
        rows = [
            {**outcome.as_dict(), "where": outcome.where.removeprefix(here)}
            for outcome in report.outcomes
            if outcome.reason and outcome.new
        ]
        if rows:
            console.print(table(rows, {"name": "row", "where": "where", "state": "state", "reason": "reason"}))
        console.print(
            f"[bold]3[/] relax, relax again, static with {workers} workers; Ctrl-C stops, running again continues"
        )
    with Display(console, BATCH, quiet=quiet) as display:
        LocalLauncher(settings, workers, BATCH, on_tick=display.update).run()
    if not quiet:
        console.print("[bold]4[/] hull, verdicts, report")
    written = write_campaign_report(settings, BATCH, CHEMSYS, settings.project_dir / "report")
    status = listings.status(BATCH)
    return _result(settings, level.key, written, status)


def _result(settings: Settings, level: str, written: dict[str, Path], status: dict[str, Any]) -> DemoResult:
    from hullworks.analysis.client import StabilityDB
    from hullworks.launchers import listings

    view = StabilityDB(settings).hull(CHEMSYS, level=level)
    predicted = {row["candidate_id"]: row["predicted_e_above_hull"] for row in listings.candidates(batch=BATCH)}
    verdicts = [
        {**row, "predicted_e_above_hull": predicted.get(row["candidate_id"])} for row in listings.hull_rows(view)
    ]
    unfinished = [f"{row['name']}: {row['reason']}" for row in status["failed"]]
    return DemoResult(
        folder=settings.project_dir,
        level=level,
        hull_version=view.sequence,
        verdicts=verdicts,
        rows=status["counts"],
        files={name: str(path) for name, path in written.items()},
        seconds=0.0,
        complete=not unfinished,
        unfinished=unfinished,
    )
