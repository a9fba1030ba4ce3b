"""The tables of the page about elements, from the recorded runs and the cutoffs of the embedded family."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hullworks.workflows.qe.protocols import load_protocol, protocol_names
from hullworks.workflows.qe.pseudos import EMBEDDED_FAMILY, gth_elements, load_family

if TYPE_CHECKING:
    from collections.abc import Sequence

Row = dict[str, Any]

PERIODS = (
    "H . . . . . . . . . . . . . . . . He",
    "Li Be . . . . . . . . . . B C N O F Ne",
    "Na Mg . . . . . . . . . . Al Si P S Cl Ar",
    "K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr",
    "Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe",
    "Cs Ba La Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn",
    "Fr Ra Ac . . . . . . . . . . . . . . .",
    ". . . Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu .",
    ". . . Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr .",
)
"""The periodic table in 18 columns, a dot for no element; the f block below."""
PERIODIC_ORDER = tuple(symbol for line in PERIODS for symbol in line.split() if symbol != ".")
MARKS = ("<!-- tables -->\n", "<!-- end of tables -->")
"""Between these stands in the page what this module writes."""

_METAL_EV = 0.01
"""A smaller gap than this on the points of a mesh is none."""


def with_tables(page: str, rows: Sequence[Row], recipe: Row) -> str:
    """Return the page with new tables between its marks.

    Args:
        page: The page.
        rows: The content of ``docs/data/qe_elements.json``.
        recipe: The content of ``elements.yaml``.
    """
    head, tail = page.partition(MARKS[0])[0], page.partition(MARKS[1])[2]
    parts = [overview(rows), *(periodic_table(name, rows) for name in ordered_protocols())]
    parts += [runs_table(rows, recipe), sources(recipe, rows)]
    return head + MARKS[0] + "\n".join(parts) + MARKS[1] + tail


def ordered_protocols() -> list[str]:
    """Return the protocols, the loosest first."""
    return sorted(protocol_names(), key=lambda name: -load_protocol(name).kpoints_distance)


def cutoffs(protocol: str) -> dict[str, float | None]:
    """Return the cutoff of each element of the embedded family in Ry at a protocol; None where none is recorded."""
    family = load_family(EMBEDDED_FAMILY, stringency=load_protocol(protocol).cutoffs)
    return {pseudo.element: pseudo.ecutwfc_Ry for pseudo in family.pseudos}


def overview(rows: Sequence[Row]) -> str:
    """Return how many elements stand where, by protocol, as a Markdown table."""
    lines = ["| protocol | has run | cutoff recorded, not run | no cutoff yet |", "|---|---|---|---|"]
    for name in ordered_protocols():
        known, ran = cutoffs(name), best_runs(rows, name)
        waiting = [e for e, cutoff in known.items() if cutoff is not None and e not in ran]
        without = [e for e, cutoff in known.items() if cutoff is None]
        lines.append(f"| {name} | {len(ran)} | {len(waiting)} | {len(without)} |")
    return "\n".join(lines) + "\n"


def best_runs(rows: Sequence[Row], protocol: str) -> dict[str, Row]:
    """Return the fastest run that converged of each element at a protocol."""
    good = [row for row in rows if row["protocol"] == protocol and row["outcome"] == "converged"]
    return {row["element"]: row for row in sorted(good, key=lambda row: -row["cpu_seconds"])}


def periodic_table(protocol: str, rows: Sequence[Row]) -> str:
    """Return the periodic table of one protocol as Markdown."""
    known, ran = cutoffs(protocol), best_runs(rows, protocol)
    head = f"\n### {protocol}\n\n" + "| " * 18 + "|\n" + "|---" * 18 + "|\n"
    lines = ["| " + " | ".join(_cell(symbol, known, ran) for symbol in line.split()) + " |" for line in PERIODS]
    return head + "\n".join(lines) + "\n"


def _cell(symbol: str, known: dict[str, float | None], ran: dict[str, Row]) -> str:
    if symbol == ".":
        return ""
    if symbol in ran:
        row = ran[symbol]
        return f"**{symbol}** {row['cpu_seconds']:.0f} s{_sparse(row)}"
    if symbol not in gth_elements():
        return f"~~{symbol}~~"
    return f"({symbol})" if known.get(symbol) is None else f"{symbol} {known[symbol]:g} Ry"


def _sparse(row: Row) -> str:
    return "" if row["kpoints_distance"] == load_protocol(row["protocol"]).kpoints_distance else "\\*"


def runs_table(rows: Sequence[Row], recipe: Row) -> str:
    """Return all runs as a Markdown table, by atomic number."""
    head = (
        "\n### The runs\n\n"
        "| element | protocol | code | atoms | k-points | cutoff Ry | CPU s | MB | energy eV/atom | P kbar | gap eV |"
        " moment μB | outcome |\n" + "|---" * 13 + "|\n"
    )
    return head + "\n".join(_run_line(row, recipe) for row in rows) + "\n"


def _run_line(row: Row, recipe: Row) -> str:
    mesh = "×".join(map(str, row["mesh"])) + _sparse(row)
    mended = f", after {', '.join(row['corrections'])}" if row["corrections"] else ""
    cells = [
        f"{row['element']} {row['structure']}",
        row["protocol"],
        row["code"].removeprefix("pw.x "),
        str(row["atoms"]),
        mesh if row["n_k_points"] is None else f"{mesh} ({row['n_k_points']})",
        f"{row['ecutwfc_Ry']:g}",
        f"{row['cpu_seconds']:.0f}",
        _number(row["memory_MB"], 0),
        _number(row["energy_eV_per_atom"], 4),
        _pressure(row["pressure_kbar"], recipe["large_pressure_kbar"]),
        "metal" if row["gap_eV"] is not None and row["gap_eV"] < _METAL_EV else _number(row["gap_eV"], 2),
        _number(row["moment_muB"] if row["spin"] else None, 2),
        row["outcome"] + mended,
    ]
    return "| " + " | ".join(cells) + " |"


def _number(value: float | None, decimals: int) -> str:
    # Adding zero turns -0.0 into 0.0.
    return "" if value is None else f"{round(value, decimals) + 0.0:.{decimals}f}"


def _pressure(value: float | None, limit: float) -> str:
    text = _number(value, 0)
    return f"**{text}**" if value is not None and abs(value) > limit else text


def sources(recipe: Row, rows: Sequence[Row]) -> str:
    """Return where the structures come from, as a Markdown list."""
    used: dict[str, list[str]] = {}
    for element in dict.fromkeys(row["element"] for row in rows):
        used.setdefault(recipe["elements"][element]["source"], []).append(element)
    lines = [f"- {recipe['sources'][key]}: {', '.join(elements)}" for key, elements in used.items()]
    return "\n### Sources of the structures\n\n" + "\n".join(lines) + "\n"
