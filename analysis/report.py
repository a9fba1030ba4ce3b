"""The report of a campaign: one self-contained HTML page, the same as Markdown, and the figures."""

from __future__ import annotations

import base64
import html
from dataclasses import dataclass
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import quote

from hullworks.analysis.hull_points import html_subscripts, mixture_text
from hullworks.analysis.interactive import write_interactive
from hullworks.analysis.plots import plot_phase_diagram
from hullworks.analysis.report_data import (
    Intake,
    IntakeRow,
    PredictionErrors,
    ReportData,
    RunRow,
    VerdictRow,
    prediction_errors,
)
from hullworks.analysis.verdicts import load_thresholds

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

__all__ = ["Intake", "IntakeRow", "ReportData", "RunRow", "VerdictRow", "prediction_errors", "write_report"]

NOTHING: Final = "–"
SHORT_HASH: Final = 10
ENERGIES: Final = (
    "Energies in meV/atom: above the hull as predicted and as computed; relative to the hull without the entry itself, "
    "negative for how deep a stable phase lies; and formation energy."
)
FEW: Final = 30
"""Below this many candidates a report says that its averages tell little: a share of half has an error of 9 % then."""


@dataclass(frozen=True)
class Formula:
    """A cell or text whose numbers are set lower."""

    text: str


@dataclass(frozen=True)
class Number:
    """A cell aligned to the right; None is shown as a dash."""

    text: str


@dataclass(frozen=True)
class Link:
    """A cell that leads to a file beside the report."""

    text: str
    path: str


@dataclass(frozen=True)
class Badge:
    """A verdict."""

    kind: str


Cell: TypeAlias = str | Formula | Number | Link | Badge


@dataclass(frozen=True)
class Section:
    """A heading, paragraphs, one table, and figures as (PNG file, what it shows, interactive file)."""

    heading: str
    paragraphs: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[Cell, ...], ...] = ()
    figures: tuple[tuple[Path, str, Path], ...] = ()


def write_report(data: ReportData, folder: Path) -> Path:
    """Write ``report.html``, ``report.md`` and the phase diagrams into a folder.

    Args:
        data: What to report.
        folder: The folder; made if need be. Files of an earlier report are replaced.

    Returns:
        Path of the HTML page, which needs no other file and no network to be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures = []
    for points in data.points:
        if len(points):
            picture = plot_phase_diagram(points, folder / f"hull-{points.system}.png")
            page = write_interactive(points, folder / f"hull-{points.system}.html")
            figures.append((picture, f"Phase diagram of {points.system}", page))
    sections = _sections(data, tuple(figures))
    (folder / "report.md").write_text(markdown_page(data, sections), encoding="utf-8")
    path = folder / "report.html"
    path.write_text(html_page(data, sections), encoding="utf-8")
    return path


def _sections(data: ReportData, figures: tuple[tuple[Path, str, Path], ...]) -> list[Section]:
    sections = [_summary(data), Section("Phase diagram", figures=figures), _verdicts(data), _predictions(data)]
    sections += [_intake(data), _runs(data), _failures(data), _level(data), _versions(data)]
    return [section for section in sections if section.paragraphs or section.rows or section.figures]


def _summary(data: ReportData) -> Section:
    kinds = [row.verdict.kind.value for row in data.verdicts]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(sorted(kinds, key=_rank)))
    spent = sum(run.wall_s or 0.0 for run in data.runs)
    lasted = f", {duration(data.wall_s)} from start to end" if data.wall_s is not None else "; work is still going on"
    bar = load_thresholds().error_bar_eV(data.level.key) * 1000
    accepted = f"{data.intake.rows} rows came in, {data.intake.accepted} were accepted"
    level = f"level {data.level.key} and hull version {data.hull_version}"
    lines = [
        f"{accepted} and {len(data.verdicts)} entries have a verdict: {counts or 'none'}.",
        f"{len(data.runs)} runs took {duration(spent)} of computing{lasted}.",
        f"All verdicts hold at {level}, with a numerical error bar of {bar:.0f} meV/atom.",
    ]
    return Section("Summary", tuple(lines))


def _verdicts(data: ReportData) -> Section:
    columns = ("Entry", "Formula", "Role", "Verdict", "Predicted above hull", "DFT above hull",
               "Without itself", "Formation energy", "Decomposes into", "Flags and gaps", "Run")  # fmt: skip
    rows = [
        (
            row.name,
            Formula(row.formula),
            row.role.value,
            Badge(row.verdict.kind.value),
            _meV(row.predicted_e_above_hull_eV),
            _meV(row.verdict.e_above_hull_eV),
            _meV(row.verdict.e_to_hull_of_others_eV),
            _meV(row.verdict.formation_energy_eV),
            Formula(mixture_text([(part.formula, part.fraction) for part in row.verdict.decomposition]) or NOTHING),
            _flags(row),
            _folder(row.run_folder),
        )
        for row in sorted(data.verdicts, key=lambda row: (_rank(row.verdict.kind.value), row.formula, row.name))
    ]
    return Section("Verdicts", (ENERGIES,) if rows else (), columns, tuple(rows))


def _predictions(data: ReportData) -> Section:
    errors = prediction_errors(data.verdicts)
    if errors is None:
        return Section("Predictions", ("No candidate has both a prediction and a decided verdict.",))
    models = ", ".join(sorted({row.predicted_by for row in data.verdicts if row.predicted_by})) or "not named"
    return Section("Predictions", (f"Model: {models}.", *_prediction_lines(errors)))


def _prediction_lines(errors: PredictionErrors) -> Iterable[str]:
    limit = load_thresholds().metastable_eV * 1000
    yield (
        f"Energies above hull of {errors.n} candidates: mean absolute error {errors.mae_eV * 1000:.0f} meV/atom, "
        f"mean error (predicted less DFT) {errors.bias_eV * 1000:+.0f} meV/atom, "
        f"worst {errors.worst_eV * 1000:.0f} meV/atom. "
        "Stable phases count with their negative distance from the hull of the others."
    )
    yield (
        f"Prediction and DFT are on the same side of {limit:.0f} meV/atom for {errors.same_side} of {errors.n}; "
        f"{errors.promised} were predicted within it, and {errors.kept} of these are."
    )
    if errors.within_error_bar:
        yield f"{errors.within_error_bar} of these verdicts could change within the level's error bar."
    if errors.n < FEW:
        yield f"{errors.n} candidates are too few to judge a model; these numbers describe this batch alone."


def _intake(data: ReportData) -> Section:
    intake = data.intake
    line = (
        f"{intake.rows} rows: {intake.accepted} accepted, {intake.duplicates} duplicates, "
        f"{intake.quarantined} quarantined, {intake.rejected} rejected by the screening."
    )
    rows = [(row.name or NOTHING, row.where, row.state, row.reason) for row in intake.not_accepted]
    return Section("What came in", (line,), ("Row", "Where", "Became", "Why"), tuple(rows))


def _runs(data: ReportData) -> Section:
    columns = ("Entry", "Step", "Ended", "Time", "Corrections", "Run")
    rows = [
        (
            run.name,
            run.step,
            run.cause,
            Number(duration(run.wall_s) if run.wall_s is not None else NOTHING),
            ", ".join(run.corrections) or NOTHING,
            _folder(run.folder),
        )
        for run in data.runs
    ]
    return Section("What ran", (), columns, tuple(rows))


def _failures(data: ReportData) -> Section:
    failed = [run for run in data.runs if not run.usable]
    rows = [(run.name, run.step, run.cause, run.note or NOTHING, _folder(run.folder)) for run in failed]
    text = () if rows or not data.runs else ("Every run ended with a usable result.",)
    return Section("What failed", text, ("Entry", "Step", "Cause", "Why, and what to do", "Run"), tuple(rows))


def _level(data: ReportData) -> Section:
    level = data.level
    rows: list[tuple[Cell, ...]] = [
        ("Code and functional", f"{level.code}, {level.functional}"),
        ("Protocol", level.protocol),
        *((name, value) for name, value in data.protocol),
        ("k-points", level.kpoint_rule or NOTHING),
        ("Cutoff rule", level.cutoff_rule or NOTHING),
        *(
            (f"Cutoffs of {symbol}", f"{wave:g} Ry, density {density:g} Ry")
            for symbol, wave, density in data.cutoffs_Ry
        ),
        ("Pseudopotentials", level.pseudo_family or NOTHING),
        *((f"Pseudopotential of {symbol}", f"sha256 {sha[:SHORT_HASH]}") for symbol, sha in _shown_hashes(data)),
        ("Hubbard U", level.hubbard),
        ("Spin", level.spin_rule),
        ("Correction", level.correction),
        ("Key", level.key),
    ]
    return Section("Level of theory", (), ("What", "Value"), tuple(rows))


def _shown_hashes(data: ReportData) -> list[tuple[str, str]]:
    """Return the hashes of the elements that the batch holds; a family has a hundred."""
    held = {symbol for symbol, *_ in data.cutoffs_Ry} | {symbol for points in data.points for symbol in points.elements}
    return [(symbol, sha) for symbol, sha in data.level.pseudo_hashes if symbol in held]


def _versions(data: ReportData) -> Section:
    return Section("Versions", (), ("Part", "Version"), tuple((name, version) for name, version in data.versions))


def _meV(energy: float | None) -> Number:
    return Number(NOTHING if energy is None else f"{energy * 1000 + 0.0:.1f}")


def _flags(row: VerdictRow) -> str:
    gaps = [f"missing: {name}" for name in row.verdict.missing]
    return ", ".join([*(flag.value.replace("_", " ") for flag in row.verdict.flags), *gaps]) or NOTHING


def _folder(path: str) -> Cell:
    """Return a link to a folder beside the report; an absolute path is no such folder and stays text."""
    return path or NOTHING if not path or path.startswith("/") else Link("folder", path)


def _rank(kind: str) -> int:
    return ("stable", "metastable", "unstable", "indeterminate", "invalid").index(kind)


def duration(seconds: float) -> str:
    """Return a time as text.

    >>> [duration(t) for t in (7.4, 192, 8000)]
    ['7 s', '3 min 12 s', '2 h 13 min']
    """
    whole = round(seconds)
    if whole < 60:  # noqa: PLR2004 - seconds of a minute
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"  # noqa: PLR2004


def html_page(data: ReportData, sections: Sequence[Section]) -> str:
    """Return the report as one HTML page; all text is escaped, and nothing outside the page is loaded."""
    template = files("hullworks.analysis").joinpath("templates", "report.html").read_text(encoding="utf-8")
    owner = f" of {data.owner}" if data.owner else ""
    return Template(template).substitute(
        title=html.escape(data.title),
        subtitle=html.escape(f"Batch {data.batch}{owner} · {data.level.key} · hull version {data.hull_version}"),
        sections="\n".join(_html_section(section) for section in sections),
        footer=html.escape(f"Made by HullWorks, {data.made_at:%Y-%m-%d %H:%M %Z}".rstrip()),
    )


def _html_section(section: Section) -> str:
    parts = [f"<section>\n<h2>{html.escape(section.heading)}</h2>"]
    parts += [f"<p>{html.escape(line)}</p>" for line in section.paragraphs]
    parts += [_html_figure(*figure) for figure in section.figures]
    if section.rows:
        parts.append(_html_table(section))
    return "\n".join([*parts, "</section>"])


def _html_table(section: Section) -> str:
    sides = [' class="number"' if isinstance(cell, Number) else "" for cell in section.rows[0]]
    names = zip(section.columns, sides, strict=True)
    head = "".join(f'<th scope="col"{side}>{html.escape(name)}</th>' for name, side in names)
    body = "\n".join(f"<tr>{''.join(map(_html_cell, row))}</tr>" for row in section.rows)
    table = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"
    return f'<div class="scroll">{table}</div>'


def _html_figure(picture: Path, text: str, page: Path) -> str:
    encoded = base64.b64encode(picture.read_bytes()).decode("ascii")
    return (
        f'<figure><img alt="{html.escape(text)}" src="data:image/png;base64,{encoded}">'
        f'<figcaption>{html.escape(text)} · <a href="{quote(page.name)}">explore it</a></figcaption></figure>'
    )


def _html_cell(cell: Cell) -> str:
    match cell:
        case Formula(text):
            return f"<td>{html_subscripts(text)}</td>"
        case Number(text):
            return f'<td class="number">{html.escape(text)}</td>'
        case Link(text, path):
            return f'<td><a href="{quote(path)}">{html.escape(text)}</a></td>'
        case Badge(kind):
            return f'<td><span class="badge {html.escape(kind)}">{html.escape(kind)}</span></td>'
        case _:
            return f"<td>{html.escape(cell)}</td>"


def markdown_page(data: ReportData, sections: Sequence[Section]) -> str:
    """Return the report as Markdown."""
    lines = [f"# {_escaped(data.title)}", "", f"Batch {_escaped(data.batch)}, {data.made_at:%Y-%m-%d %H:%M}", ""]
    for section in sections:
        lines += [f"## {section.heading}", ""]
        for line in section.paragraphs:
            lines += [_escaped(line), ""]
        for picture, text, page in section.figures:
            lines += [f"![{_escaped(text)}]({quote(picture.name)})", "", f"[Explore it]({quote(page.name)})", ""]
        if section.rows:
            rule = "|".join("---:" if isinstance(cell, Number) else "---" for cell in section.rows[0])
            lines += [f"|{'|'.join(section.columns)}|", f"|{rule}|"]
            lines += [f"|{'|'.join(map(_markdown_cell, row))}|" for row in section.rows]
            lines.append("")
    return "\n".join(lines)


def _markdown_cell(cell: Cell) -> str:
    match cell:
        case Formula(text) | Number(text):
            return _escaped(text)
        case Link(text, path):
            return f"[{_escaped(text)}]({quote(path)})"
        case Badge(kind):
            return f"**{kind}**"
        case _:
            return _escaped(cell)


def _escaped(text: str) -> str:
    """Return text without what Markdown or HTML would take for markup, on one line."""
    plain = html.escape(" ".join(text.split()), quote=False)
    for sign in "\\`*_[]|":
        plain = plain.replace(sign, f"\\{sign}")
    return plain
