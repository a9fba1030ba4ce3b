"""Print the table that holds a project's lattice constants and formation energies against published PBE values."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pymatgen.core import Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

PUBLISHED = Path(__file__).resolve().parent.parent / "analysis" / "published_pbe.yaml"
MARKS = ("<!-- physics table -->", "<!-- end of physics table -->")
"""Between these stands the table in a document."""
SYMMETRY_TOLERANCE = 0.01
"""Angstrom: far above the noise of a relaxation, far below any real distortion."""


@dataclass(frozen=True)
class Computed:
    """One phase as the project has it.

    Attributes:
        name: The candidate's name.
        space_group: Hermann-Mauguin symbol after relaxation.
        lengths_A: a and c of the conventional cell, Angstrom.
        formation_energy: eV/atom.
        e_above_hull: eV/atom.
    """

    name: str
    space_group: str
    lengths_A: tuple[float, float]
    formation_energy: float
    e_above_hull: float


def computed(name: str, structure: Structure, formation_energy: float, e_above_hull: float) -> Computed:
    """Return what the table shows of one relaxed crystal."""
    analyzer = SpacegroupAnalyzer(structure, symprec=SYMMETRY_TOLERANCE)
    lattice = analyzer.get_conventional_standard_structure().lattice
    symbol = analyzer.get_space_group_symbol()
    return Computed(name, symbol, (lattice.a, lattice.c), formation_energy, e_above_hull)


def from_project(project: Path, chemsys: str, level: str | None) -> list[Computed]:
    """Return the entries of a project's hull; its database must be running."""
    from hullworks.analysis.client import connect
    from hullworks.documents import Entry

    rows = connect(project=project, read_only=True).hull(chemsys, level=level).rows()
    structures = {
        entry.entry_id: entry.structure for entry in Entry.objects(entry_id__in=[r["entry_id"] for r in rows])
    }
    return [
        computed(
            row["name"], Structure.from_dict(structures[row["entry_id"]]), row["formation_energy"], row["e_above_hull"]
        )
        for row in rows
    ]


def table(phases: list[Computed], published: dict[str, Any]) -> str:
    """Return the comparison as a Markdown table, the published phases first."""
    lines = [
        "| phase | quantity | here | published PBE | here − PBE | experiment |",
        "|---|---|---|---|---|---|",
    ]
    for phase in sorted(phases, key=lambda phase: phase.name not in published["phases"]):
        known = published["phases"].get(phase.name, {})
        lines += [_line(phase.name, *quantity, known) for quantity in _quantities(phase, known)]
    return "\n".join(lines)


def _quantities(phase: Computed, known: dict[str, Any]) -> list[tuple[str, float]]:
    """Return name and value of what is shown: lengths, and the energy where it is not zero by definition."""
    a, c = phase.lengths_A
    shown = [("a", a)] if abs(a - c) < SYMMETRY_TOLERANCE else [("a", a), ("c", c)]
    if not _is_reference(known):
        shown.append(("formation_energy", phase.formation_energy))
    return shown


def _is_reference(known: dict[str, Any]) -> bool:
    return bool(known.get("pbe", {}).get("formation_energy", {}).get("value") == 0.0)


def _line(name: str, quantity: str, value: float, known: dict[str, Any]) -> str:
    pbe, experiment = (known.get(kind, {}).get(quantity) for kind in ("pbe", "experiment"))
    energy = quantity == "formation_energy"
    label = "E_f (eV/atom)" if energy else f"{quantity} (Å)"
    cells = [name, label, _number(value, energy=energy), _given(pbe, energy=energy)]
    cells += [difference(value, pbe, energy=energy), _given(experiment, energy=energy)]
    return "| " + " | ".join(cells) + " |"


def difference(value: float, pbe: dict[str, Any] | None, *, energy: bool) -> str:
    """Return how far a value lies from the published one or the nearer end of its range, meV/atom or per cent."""
    if pbe is None:
        return ""
    low, high = _ends(pbe["value"])
    nearest = min(max(value, low), high)
    if energy:
        return f"{(value - nearest) * 1000:+.0f} meV/atom"
    return f"{(value / nearest - 1) * 100:+.2f} %"


def _given(entry: dict[str, Any] | None, *, energy: bool) -> str:
    if entry is None:
        return ""
    low, high = _ends(entry["value"])
    text = _number(low, energy=energy) if low == high else " to ".join(_number(v, energy=energy) for v in (low, high))
    return f"{text} [{entry['source']}{'' if entry['status'] == 'given' else ', ' + entry['status']}]"


def _ends(value: float | list[float]) -> tuple[float, float]:
    return (value[0], value[1]) if isinstance(value, list) else (value, value)


def _number(value: float, *, energy: bool) -> str:
    return f"{value:+.3f}" if energy else f"{value:.3f}"


def report(phases: list[Computed], published: dict[str, Any]) -> str:
    """Return the table with the sources that it names below."""
    sources = [f"- **{name}**: {' '.join(text.split())}" for name, text in published["sources"].items()]
    body = table(phases, published)
    return "\n".join([body, "", *(line for line in sources if f"[{line[4:].partition('**')[0]}" in body)])


def inserted(text: str, new: str) -> str:
    """Return a document with what stands between its two marks replaced."""
    before, _, rest = text.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    return f"{before}{MARKS[0]}\n\n{new}\n\n{MARKS[1]}{after}"


def main() -> None:
    """Parse the command line; print the table or put it into a document."""
    parser = argparse.ArgumentParser(description="Hold a project's results against published PBE values.")
    parser.add_argument("project", type=Path, help="project folder, its database running")
    parser.add_argument("--chemsys", default="Mg-Si-Sn")
    parser.add_argument("--level", help="level of theory (default: the project's)")
    parser.add_argument("--into", type=Path, help="put the table between the marks of this document")
    arguments = parser.parse_args()
    published = yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))
    text = report(from_project(arguments.project, arguments.chemsys, arguments.level), published)
    if arguments.into:
        arguments.into.write_text(inserted(arguments.into.read_text(encoding="utf-8"), text), encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
