"""Commands on the memory of a hull: what changed, how sure it is, proofs of it, and entries that were wrong."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from hullworks.errors import InputError
from hullworks.launchers.cli.common import EXIT_LOOK, JsonOption, LevelOption, connected, console, emit, say, table
from hullworks.launchers.cli.hulls import SCREENFUL, AsOfOption, arrow, level_key, number, say_of_more

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from rich.console import RenderableType

    from hullworks.analysis.audit import AuditReport
    from hullworks.launchers.stability_listings import Audited

SHOWN_PROBLEMS = 5
"""Problems of one proof that a table shows."""

EntryArgument = Annotated[str, typer.Argument(help="Id of an entry.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; the history keeps it.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

_CHANGE_COLUMNS = {
    "reduced_formula": "formula",
    "what": "what",
    "verdicts": "verdict",
    "distances": "e_hull>",
    "change": "change>",
    "chemsys": "system",
    "entry_id": "entry",
}
_SURE_COLUMNS = {
    "name": "name",
    "reduced_formula": "formula",
    "verdict": "verdict",
    "distance": "distance>",
    "sigma_energy": "sigma of\nenergy>",
    "sigma_distance": "sigma of\ndistance>",
    "p_stable": "P(stable)>",
    "interval": "95 %>",
    "p_within": "P(near)>",
    "entry_id": "entry",
}
_CHECK_COLUMNS = {"name": "proof", "checked": "checked>", "result": "result"}


def diff(
    start: Annotated[int, typer.Argument(metavar="A", min=0, help="A hull version; 0 is the empty hull.")],
    end: Annotated[int | None, typer.Argument(metavar="B", min=0, help="Another. Default: the published one.")] = None,
    level: LevelOption = None,
    chemsys: Annotated[str | None, typer.Option("--chemsys", help="Only within this chemical system.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare what two hull versions say: who came and went, whose verdict changed, how far others moved."""
    from hullworks.analysis.events import published
    from hullworks.launchers import stability_listings

    key = level_key(connected(), level)
    data = stability_listings.diff(key, start, published(key) if end is None else end, chemsys)
    _show_changes(data, as_json)


def _show_changes(data: dict[str, Any], as_json: bool) -> None:
    rows = data["changes"]
    within = f" within {data['chemsys']}" if data["chemsys"] else ""
    title = f"from hull version {data['start']} to {data['end']}{within} at {data['level']}; energies in eV/atom"
    emit(data, as_json, lambda: table([_change_cells(row) for row in rows[:SCREENFUL]], _CHANGE_COLUMNS, title=title))
    say_of_more(rows, as_json)
    if not as_json:
        say(_summary(data))


def _change_cells(row: dict[str, Any]) -> dict[str, Any]:
    before, after = row["before"] or {}, row["after"] or {}
    distances = arrow(number(before.get("e_above_hull")), number(after.get("e_above_hull")))
    return {**row, "verdicts": arrow(before.get("verdict"), after.get("verdict")), "distances": distances}


def _summary(data: dict[str, Any]) -> str:
    events = ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in sorted(data["events"].items()))
    counts = ", ".join(f"{count:,} {what}" for what, count in data["counts"].items() if count)
    return f"events: {events or 'none'}\nverdicts: {counts or 'nothing changed'}"


def stability(
    chemsys: Annotated[str, typer.Argument(help="Chemical system, such as Mg-Si-Ge.")],
    level: LevelOption = None,
    samples: Annotated[int, typer.Option("--samples", "-n", min=1, help="Hulls to build.")] = 1000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the draws; the same one gives the same.")] = 0,
    assume: Annotated[
        float | None,
        typer.Option("--assume", min=0.0, help="Error of its own, eV/atom, of each entry that carries none."),
    ] = None,
    as_of: AsOfOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how sure verdicts are: P(stable) of every entry, from an ensemble of hulls with all errors drawn anew."""
    from hullworks.analysis.client import StabilityDB
    from hullworks.launchers import stability_listings

    found = connected()
    view = StabilityDB(found).hull(chemsys, level=level_key(found, level), as_of=as_of)
    with _working(f"building {samples:,} hulls", quiet=as_json):
        data = stability_listings.stability(view, samples, seed, assume)
    title = f"{data['chemsys']} at {data['level']}, hull version {data['hull_version']}; energies in eV/atom"
    rows = [{**row, "interval": _interval(row["p_stable_95"])} for row in data["entries"]]
    emit(data, as_json, lambda: table(rows, _SURE_COLUMNS, title=title))
    if not as_json:
        say(_assumptions(data))


def _working(what: str, *, quiet: bool) -> AbstractContextManager[object]:
    """Show on a terminal that something takes its time."""
    out = console()
    return nullcontext() if quiet or not out.is_terminal else out.status(what)


def _interval(ends: list[float | None]) -> str | None:
    low, high = ends
    return None if low is None or high is None else f"{low:.3f} to {high:.3f}"


def _assumptions(data: dict[str, Any]) -> str:
    """Return in words what the probabilities rest on."""
    exact = "taken as exact"
    rest = f"assumed to have one of their own, {data['assumed_eV']:g} eV/atom" if data["assumed_eV"] else exact
    return (
        f"{data['n_samples']:,} hulls, seed {data['seed']}. Stable: at most {data['stable_eV']:g} eV/atom above the "
        f"hull; near: at most {data['window_eV']:g}. Distance: from the hull of all others.\n"
        f"{data['n_carrying']} entries carry errors; {data['n_entries'] - data['n_carrying']} are {rest}. "
        f"Errors that entries share: {', '.join(data['sources']) or 'none'}.\n"
        "Assumed: sources of error are normal, independent of each other, as large as stated; and no phase is missing."
    )


def audit(
    level: Annotated[
        str | None, typer.Option("--level", "-l", help="Level of theory. Default: every level that has a hull.")
    ] = None,
    systems: Annotated[int, typer.Option("--systems", min=0, help="Random chemical systems to solve again.")] = 20,
    seed: Annotated[int, typer.Option("--seed", help="Seed of their choice.")] = 0,
    replay: Annotated[bool, typer.Option("--replay", help="Also work out every version again from nothing.")] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Make the verdicts what the events say, and go on publishing.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Prove what is published, from the events alone; a mismatch stops publication, and exits with 10."""
    from hullworks.analysis.published import levels_with_versions
    from hullworks.launchers import listings, stability_listings

    connected()
    every = levels_with_versions()
    keys = [listings.level_key(level)] if level else sorted(key for key, version in every.items() if version)
    with _working("proving what is published", quiet=as_json):
        results = [stability_listings.audit(key, systems, seed, replayed=replay, repair=repair) for key in keys]
    emit([result.as_dict() for result in results], as_json, lambda: _audit_tables(results))
    return 0 if all(result.report.ok for result in results) else EXIT_LOOK


def _audit_tables(results: Sequence[Audited]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    if not results:
        return "no level has a hull yet"
    parts = [
        (Text(_audit_title(result.report)), _audit_table(result.report), Text(_audit_end(result))) for result in results
    ]
    return Group(*(part for three in parts for part in three))


def _audit_title(report: AuditReport) -> str:
    return f"{report.level_key}, hull version {report.version}; random systems by seed {report.seed}"


def _audit_table(report: AuditReport) -> RenderableType:
    rows = [
        {"name": check.name, "checked": f"{check.checked:,}", "result": _some(check.problems) or "holds"}
        for check in report.checks
    ]
    return table(rows, _CHECK_COLUMNS)


def _some(problems: Sequence[str]) -> str:
    more = len(problems) - SHOWN_PROBLEMS
    return "\n".join([*problems[:SHOWN_PROBLEMS], *([f"and more: {more}"] if more > 0 else [])])


def _audit_end(result: Audited) -> str:
    """Return what an audit amounts to, and what to do."""
    done = [f"repaired: {_counts(result.repaired)}"] if result.repaired is not None else []
    if result.report.ok:
        halted = "; the level is still halted: hullworks audit --repair lets it go on" if result.is_halted else ""
        return "\n".join([*done, f"every proof holds{halted}"])
    cure = "Restore a backup." if result.repaired is not None else "Run: hullworks audit --repair"
    return "\n".join(
        [*done, f"wrong: nothing more is published; version {result.report.version} stays readable. {cure}"]
    )


def _counts(done: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in sorted(done.items()) if count) or "nothing to do"


def retract(entry: EntryArgument, reason: ReasonOption, yes: YesOption = False, as_json: JsonOption = False) -> None:
    """Take an entry back: all that it moved moves back, and the history says why."""
    from hullworks.analysis import stability as writer

    connected()
    _act(entry, "Take it back?", lambda: writer.retract(entry, reason), yes=yes, as_json=as_json)


def recorrect(
    entry: EntryArgument,
    reason: ReasonOption,
    energy: Annotated[
        float | None, typer.Option("--energy", help="Corrected energy, eV/atom; the difference is one correction.")
    ] = None,
    part: Annotated[
        list[str] | None,
        typer.Option("--part", metavar="NAME=EV", help="Each part of the correction, eV/atom; instead of --energy."),
    ] = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Give an entry another corrected energy, higher or lower; its uncorrected energy stays."""
    from hullworks.analysis import stability as writer
    from hullworks.launchers import stability_listings

    connected()
    parts = [_part(text) for text in part] if part else None
    wanted, own = stability_listings.corrected(entry, energy, parts)
    _act(
        entry,
        f"Let its energy be {wanted:.6f} eV/atom?",
        lambda: writer.recorrect(entry, wanted, own, reason),
        yes=yes,
        as_json=as_json,
    )


def _part(text: str) -> tuple[str, float]:
    """Return name and value of one part of a correction.

    Raises:
        InputError: It is not written as NAME=EV.
    """
    name, _, value = text.rpartition("=")
    try:
        return name.strip() or _unreadable(text), float(value)
    except ValueError:
        _unreadable(text)


def _unreadable(text: str) -> NoReturn:
    raise InputError("a part of a correction is written as NAME=EV", text, "For example: --part oxide=-0.687") from None


def _act(entry_id: str, question: str, change: Callable[[], Mapping[str, int]], *, yes: bool, as_json: bool) -> None:
    """Ask, change an entry, and show what moved.

    Raises:
        InputError: There is no such entry, or nobody can be asked.
        HullError: An audit has halted the level; nothing is changed.
        StateError: Another process publishes, and will take the change in.
    """
    from hullworks.analysis.events import published
    from hullworks.analysis.publication import read_level
    from hullworks.launchers import stability_listings

    known = stability_listings.entry_summary(entry_id)
    read_level(known["level"])  # a halted level would take the change in much later, when nobody thinks of it
    if not yes:
        _ask(known, question, as_json=as_json)
    before = published(known["level"])
    done = change()
    stability_listings.require_heard(entry_id)
    data = stability_listings.diff(known["level"], before, published(known["level"]))
    _show_changes({**data, "done": dict(done)}, as_json)


def _ask(known: Mapping[str, Any], question: str, *, as_json: bool) -> None:
    """Show what an entry is, and go on only after a yes.

    Raises:
        InputError: Nobody can be asked.
        typer.Abort: The answer is no.
    """
    if as_json or not sys.stdin.isatty():
        raise InputError("nobody can be asked", known["entry_id"], "Add --yes.")
    say("  ".join(f"{name} {value}" for name, value in known.items() if value is not None))
    typer.confirm(question, abort=True)
