"""Find and record the plane-wave cutoffs of the embedded family: ``converge_cutoffs.py [ELEMENT ...]``.

Each element runs in a small cell at two volumes up a ladder of cutoffs until the criterion in ``convergence.yaml``
holds over a plateau. All numbers go into the data file that the family reads, after each element.
"""

from __future__ import annotations

import argparse
import json
import resource
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from pw import ScfResult, run_scf, scf_input

import hullworks.workflows.qe.pseudos.cutoffs as cutoffs_module
from hullworks.units import UNITS
from hullworks.workflows.qe.pseudos import EMBEDDED_FAMILY, GthParameters, gth_parameters, load_family

SETTINGS = Path(__file__).with_name("convergence.yaml")
DATA = Path(cutoffs_module.__file__).with_name(cutoffs_module.CUTOFFS_NAME)
LATTICES = {
    "sc": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "fcc": ((-0.5, 0.0, 0.5), (0.0, 0.5, 0.5), (-0.5, 0.5, 0.0)),
    "bcc": ((0.5, 0.5, 0.5), (-0.5, 0.5, 0.5), (-0.5, -0.5, 0.5)),
}
ABOUT = (
    "Convergence of the embedded pseudopotentials with the plane-wave cutoff, written by"
    " scripts/pseudopotentials/converge_cutoffs.py. A run is [ecutwfc_Ry, edge_angstrom, energy_Ry of the cell,"
    " pressure_kbar]. Cutoffs are recommendations derived from the runs by the criterion given here."
)
Run = list[float]
"""[ecutwfc_Ry, edge_angstrom, energy_Ry of the cell, pressure_kbar]"""


def main() -> int:
    """Run the ladder of each element and record it."""
    recipe = yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))
    arguments = parse_arguments()
    data = json.loads(arguments.data.read_text(encoding="utf-8")) if arguments.data.is_file() else {}
    recorded = data.get("elements", {}) if data.get("settings") == recipe["settings"] else {}
    if arguments.table:
        sys.stdout.write(markdown_table(recorded))
        return 0
    if arguments.release:
        write(arguments.data, cutoffs_module.release(data))
        return 0
    recipe["ladder_Ry"] = arguments.ladder or recipe["ladder_Ry"]
    command = shlex.split(arguments.command)
    for element in arguments.elements or unfinished(recipe, recorded, arguments.until):
        parameters = gth_parameters(element)
        known = recorded.get(parameters.name, {})
        released = {key: known[key] for key in ("released_Ry",) if key in known}
        record = released | climb(parameters, recipe, command, known, arguments.max_seconds, arguments.until)
        recorded[parameters.name] = record
        shared = {key: recipe[key] for key in ("criteria", "floor_Ry", "plateau", "settings")}
        write(arguments.data, {"about": ABOUT, "version": data.get("version", 1)} | shared | {"elements": recorded})
        sys.stdout.write(f"{parameters.name:8s} {record['ecutwfc_Ry']} Ry, {record['seconds']} s\n")
        sys.stdout.flush()
    return 0


def parse_arguments() -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("elements", nargs="*", metavar="ELEMENT", help="elements to run; none: all that lack a cutoff")
    parser.add_argument("--command", default="pw.x", help="command that starts pw.x")
    parser.add_argument("--data", type=Path, default=DATA, help="data file to update")
    parser.add_argument("--max-seconds", type=float, default=120.0, help="CPU time for one element; 0 derives only")
    parser.add_argument("--until", default="high", help="stringency at which an element is done: low, normal or high")
    parser.add_argument("--ladder", nargs="+", type=float, help="cutoffs in Ry to run instead of the recipe's")
    parser.add_argument("--release", action="store_true", help="mark all cutoffs as released, and run nothing")
    parser.add_argument("--table", action="store_true", help="print what is recorded as Markdown, and run nothing")
    return parser.parse_args()


def markdown_table(recorded: dict[str, Any]) -> str:
    """Return the recorded cutoffs in Ry as a Markdown table, by atomic number; a dash where none is proven."""
    lines = ["| pseudopotential | low | normal | high | cell (edge in Å) | highest run |", "|---|---|---|---|---|---|"]
    for name, record in sorted(recorded.items(), key=lambda item: gth_parameters(item[0].split("-")[0]).atomic_number):
        cutoffs = " | ".join("–" if ecut is None else f"{ecut:g}" for ecut in record["ecutwfc_Ry"].values())
        lattice, edge = record["cell"]
        lines.append(f"| {name} | {cutoffs} | {lattice} {edge} | {record['runs'][-1][0]:g} |")
    return "\n".join(lines) + "\n"


def unfinished(recipe: dict[str, Any], recorded: dict[str, Any], until: str) -> list[str]:
    """Return the elements that have cells and lack the cutoff of a stringency."""
    names = {element: gth_parameters(element).name for element in recipe["cells"]}
    return [e for e, name in names.items() if recorded.get(name, {}).get("ecutwfc_Ry", {}).get(until) is None]


def climb(
    parameters: GthParameters,
    recipe: dict[str, Any],
    command: list[str],
    known: dict[str, Any],
    max_seconds: float,
    until: str,
) -> dict[str, Any]:
    """Return the record of one element, going on from the runs that it has.

    The cutoff of a criterion is None when time or ladder ended before it held over its plateau, or a run failed.
    """
    start, version = child_seconds(), known.get("code", "")
    cell, scales = recipe["cells"][parameters.element], recipe["settings"]["scales"]
    runs: list[Run] = known.get("runs", []) if known.get("cell") == cell else []
    atoms = 2 if cell[0] == "diamond" else 1
    cutoffs = derive(runs, atoms, recipe)
    done = {run[0] for run in runs}
    with tempfile.TemporaryDirectory() as scratch:
        for ecut in (e for e in ladder(parameters, recipe) if e not in done):
            if cutoffs[until] is not None or child_seconds() - start > max_seconds:
                break
            try:
                pair = [one_run(parameters.element, ecut, s, recipe, command, Path(scratch)) for s in scales]
            except RuntimeError as error:
                sys.stderr.write(f"{parameters.name} at {ecut} Ry: {error}\n")
                break
            version = f"pw.x {pair[0][1].version}"
            runs += [[ecut, edge, result.energy_Ry, result.pressure_kbar] for edge, result in pair]
            cutoffs = derive(runs, atoms, recipe)
    seconds = known.get("seconds", 0) + round(child_seconds() - start)
    return {"ecutwfc_Ry": cutoffs, "cell": cell, "atoms": atoms, "code": version, "seconds": seconds, "runs": runs}


def child_seconds() -> float:
    """Return the CPU seconds of all runs so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def ladder(parameters: GthParameters, recipe: dict[str, Any]) -> list[float]:
    """Return the cutoffs in Ry that are worth a run, lowest first; the last three are always among them."""
    radius = min([parameters.local_radius_bohr, *(channel.radius_bohr for channel in parameters.channels)])
    first = min(recipe["first_cutoff_times_radius_squared"] / radius**2, recipe["ladder_Ry"][-3:][0])
    return [float(ecut) for ecut in recipe["ladder_Ry"] if ecut >= first]


def one_run(
    element: str, ecut: float, scale: float, recipe: dict[str, Any], command: list[str], scratch: Path
) -> tuple[float, ScfResult]:
    """Run one cutoff at one volume; return the edge length in angstrom and the numbers."""
    lattice, edge = recipe["cells"][element]
    settings = recipe["settings"]
    vectors = LATTICES["fcc" if lattice == "diamond" else lattice]
    length = round(edge * scale, 6)
    basis = [(0.0, 0.0, 0.0), (0.25, 0.25, 0.25)] if lattice == "diamond" else [(0.0, 0.0, 0.0)]
    text = scf_input(
        [[length * x for x in row] for row in vectors],
        [(element, position) for position in basis],
        load_family(EMBEDDED_FAMILY).install([element], scratch),
        system={
            "ecutwfc": ecut,
            "ecutrho": ecut * settings["dual"],
            "occupations": "'smearing'",
            "smearing": f"'{settings['smearing']}'",
            "degauss": settings["degauss_Ry"],
        },
        kpoints=settings["kpoints"],
        conv_thr_Ry=settings["conv_thr_Ry"],
    )
    return length, run_scf(command, scratch, text)


def derive(runs: list[Run], atoms: int, recipe: dict[str, Any]) -> dict[str, float | None]:
    """Return the recommended cutoff in Ry by criterion; None where the runs do not prove one."""
    floor, plateau = float(recipe["floor_Ry"]), float(recipe["plateau"])
    found = {name: lowest_good(runs, atoms, criterion, plateau) for name, criterion in recipe["criteria"].items()}
    return {name: None if ecut is None else max(ecut, floor) for name, ecut in found.items()}


def lowest_good(runs: list[Run], atoms: int, criterion: dict[str, Any], plateau: float) -> float | None:
    """Return the lowest cutoff in Ry from which on the criterion holds over the whole plateau, if there is one."""
    by_cutoff: dict[float, list[Run]] = {}
    for run in runs:
        by_cutoff.setdefault(run[0], []).append(run)
    good: float | None = None
    for ecut in sorted(by_cutoff, reverse=True):
        if not _holds(by_cutoff[ecut], by_cutoff[max(by_cutoff)], atoms, criterion):
            break
        good = ecut
    return good if good is not None and max(by_cutoff) >= plateau * good else None


def _holds(pair: list[Run], reference: list[Run], atoms: int, criterion: dict[str, Any]) -> bool:
    to_meV = UNITS.rydberg_to_eV * 1000.0 / atoms
    errors = {
        "difference_meV_per_atom": (pair[1][2] - pair[0][2] - reference[1][2] + reference[0][2]) * to_meV,
        "pressure_kbar": pair[0][3] - reference[0][3],
        "total_meV_per_atom": (pair[0][2] - reference[0][2]) * to_meV,
    }
    return all(criterion[name] is None or abs(error) <= criterion[name] for name, error in errors.items())


def write(path: Path, data: dict[str, Any]) -> None:
    """Write the data file: one line per run, so that a change is readable."""
    text = json.dumps(data, indent=1)
    for record in data["elements"].values():
        for run in record["runs"]:
            text = text.replace(json.dumps(run, indent=1).replace("\n", "\n    "), json.dumps(run), 1)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text + "\n", encoding="utf-8")
    temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main())
