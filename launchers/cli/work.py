"""Commands that compute: workers on this machine, and the demonstration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hullworks.launchers.cli.common import EXIT_LOOK, JsonOption, connected, console, emit, table, use_configuration


def launch_local(
    workers: Annotated[int, typer.Option("--workers", "-n", min=1, help="Runs side by side.")] = 1,
    batch: Annotated[str | None, typer.Option("--batch", "-b", help="Stop when this batch is done.")] = None,
    forever: Annotated[bool, typer.Option("--forever", help="Go on waiting for candidates when all are done.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Run what is queued with workers on this machine, until it is done. Safe to kill and to start again."""
    found = connected()
    use_configuration(found)
    from hullworks.launchers import listings
    from hullworks.launchers.local import LocalLauncher
    from hullworks.launchers.progress import Display

    with Display(console(), batch, quiet=as_json) as display:
        done = LocalLauncher(found, workers, batch, forever=forever, on_tick=display.update).run()
    data = {"done": dict(done), **listings.status(batch)}
    emit(data, as_json, lambda: _done_line(data["counts"]))
    return EXIT_LOOK if data["counts"].get("failed") else 0


def launch_feed(
    once: Annotated[bool, typer.Option("--once", help="Feed and keep the books once, and end.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Feed the LaunchPad and keep the books, for workers that others start: rlaunch, qlaunch."""
    found = connected()
    use_configuration(found)
    from hullworks.launchers.local import LocalLauncher
    from hullworks.launchers.progress import Display

    with Display(console(), None, quiet=as_json) as display:
        launcher = LocalLauncher(found, workers=0, forever=True, on_tick=display.update)
        done = launcher.run_once() if once else launcher.run()
    emit({"done": dict(done)}, as_json, lambda: _done_line(dict(done)))


def launch_slurm(
    site: Annotated[str | None, typer.Option("--site", help="A site that HullWorks ships, or a site's file.")] = None,
    mode: Annotated[str | None, typer.Option("--mode", help="packed, single or array.")] = None,
    slots: Annotated[int | None, typer.Option("--slots", min=1, help="Runs side by side in an allocation.")] = None,
    max_jobs: Annotated[int | None, typer.Option("--max-jobs", min=1, help="Most jobs in the queue.")] = None,
    rate: Annotated[int | None, typer.Option("--rate", min=1, help="Most submissions per minute.")] = None,
    batch: Annotated[str | None, typer.Option("--batch", "-b", help="Stop when this batch is done.")] = None,
    forever: Annotated[bool, typer.Option("--forever", help="Go on waiting for candidates when all are done.")] = False,
    once: Annotated[bool, typer.Option("--once", help="Look and submit once, and end.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Run what is queued on a SLURM cluster, until it is done. Safe to kill and to start again, and beside itself."""
    found = connected()
    use_configuration(found)
    from hullworks.launchers import listings
    from hullworks.launchers.progress import Display
    from hullworks.launchers.slurm.launch import SlurmLauncher
    from hullworks.sites import load_site

    own = {"mode": mode, "slots": slots, "max_jobs": max_jobs, "submissions_per_minute": rate}
    asked = load_site(found, site, {name: value for name, value in own.items() if value is not None})
    with Display(console(), batch, quiet=as_json) as display:
        launcher = SlurmLauncher(found, asked, batch, forever=forever, on_tick=display.update)
        done = launcher.run_once() if once else launcher.run()
    data = {"done": dict(done), **listings.status(batch)}
    emit(data, as_json, lambda: _done_line(dict(done) if once else data["counts"]))
    return EXIT_LOOK if data["counts"].get("failed") else 0


def land(
    folders: Annotated[list[Path], typer.Argument(help="Run folders, or folders above them.", exists=True)],
    as_json: JsonOption = False,
) -> None:
    """Tell the database what lies in run folders: what finished while it was away, or before it was restored."""
    found = connected()
    use_configuration(found)
    from hullworks.launchers.launchpad import open_launchpad
    from hullworks.launchers.slurm.land import land_folders

    launchpad = open_launchpad(found)
    try:
        rows = land_folders(launchpad, [folder.resolve() for folder in folders])
    finally:
        launchpad.connection.close()
    emit({"landed": rows}, as_json, lambda: table(rows, {"what": "what", "step": "step", "result": "result"}))


def _done_line(counts: dict[str, int]) -> str:
    return "done: " + (", ".join(f"{number} {state}" for state, number in counts.items()) or "nothing was queued")


def demo(
    folder: Annotated[Path, typer.Option("--folder", help="Project folder of the demonstration.")] = Path(
        "hullworks-demo"
    ),
    workers: Annotated[int, typer.Option("--workers", "-n", min=1, help="Runs side by side.")] = 2,
    keep: Annotated[bool, typer.Option("--keep", help="Leave MongoDB running afterwards.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Run the whole loop on this machine with real Quantum ESPRESSO: candidates in, verified hull out."""
    from hullworks.launchers.demo import run_demo

    result = run_demo(folder, workers=workers, keep=keep, console=console(), quiet=as_json)
    columns = {
        "name": "name",
        "role": "role",
        "predicted_e_above_hull": "predicted\ne_hull>",
        "formation_energy": "e_form>",
        "e_above_hull": "e_hull>",
        "verdict": "verdict",
        "decomposition": "decomposes to",
        "flags": "flags",
    }
    emit(result.as_dict(), as_json, lambda: table(result.verdicts, columns, title=result.title))
    if not as_json:
        console().print(result.closing)
    return 0 if result.complete else EXIT_LOOK
