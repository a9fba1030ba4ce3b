"""Find and record the plane-wave cutoffs of the embedded family: ``converge_cutoffs.py [ELEMENT ...]``.

Each element runs in a small cell at two volumes up a ladder of cutoffs until the criterion in ``convergence.yaml``
holds over a plateau. All numbers go into the data file that the family reads, after each element.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from pw import ScfResult, run_scf, scf_input

import hullworks.workflows.qe.pseudos.family as family_module
from hullworks.units import UNITS
from hullworks.workflows.qe.pseudos import EMBEDDED_FAMILY, GthParameters, gth_parameters, load_family

SETTINGS = Path(__file__).with_name("convergence.yaml")
DATA = Path(family_module.__file__).with_name(family_module.CUTOFFS_NAME)
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("elements", nargs="*", metavar="ELEMENT", help="elements to run; none: all without a record")
    parser.add_argument("--command", default="pw.x", help="command that starts pw.x")
    parser.add_argument("--data", type=Path, default=DATA, help="data file to update")
    parser.add_argument("--max-seconds", type=float, default=120.0, help="time for one element")
    arguments = parser.parse_args()
    data = json.loads(arguments.data.read_text(encoding="utf-8")) if arguments.data.is_file() else {}
    recorded = data.get("elements", {})
    wanted = arguments.elements or [e for e in recipe["cells"] if gth_parameters(e).name not in recorded]
    for element in wanted:
        parameters = gth_parameters(element)
        record = climb(parameters, recipe, shlex.split(arguments.command), arguments.max_seconds)
        recorded[parameters.name] = record
        data = {"about": ABOUT, "criterion": recipe["criterion"], "settings": recipe["settings"], "elements": recorded}
        write(arguments.data, data)
        sys.stdout.write(f"{parameters.name:8s} {record['ecutwfc_Ry']} Ry, {record['seconds']} s\n")
        sys.stdout.flush()
    return 0


def climb(parameters: GthParameters, recipe: dict[str, Any], command: list[str], max_seconds: float) -> dict[str, Any]:
    """Return the record of one element; its cutoff is None when time or ladder ended before the criterion held."""
    start, runs, version, cutoff = time.monotonic(), [], "", None
    atoms = 2 if recipe["cells"][parameters.element][0] == "diamond" else 1
    with tempfile.TemporaryDirectory() as scratch:
        for ecut in ladder(parameters, recipe["settings"]):
            for scale in recipe["settings"]["scales"]:
                edge, result = one_run(parameters.element, ecut, scale, recipe, command, Path(scratch))
                version = result.version
                runs.append([ecut, edge, result.energy_Ry, result.pressure_kbar])
            cutoff = recommended(runs, atoms, recipe["criterion"])
            if cutoff is not None or time.monotonic() - start > max_seconds:
                break
    return {
        "ecutwfc_Ry": cutoff,
        "ecutrho_Ry": None if cutoff is None else cutoff * recipe["settings"]["dual"],
        "cell": recipe["cells"][parameters.element],
        "atoms": atoms,
        "code": f"pw.x {version}",
        "seconds": round(time.monotonic() - start),
        "runs": runs,
    }


def ladder(parameters: GthParameters, settings: dict[str, Any]) -> list[float]:
    """Return the cutoffs in Ry that are worth a run, lowest first."""
    radius = min(parameters.local_radius_bohr, *(channel.radius_bohr for channel in parameters.channels), 1.0)
    first = settings["first_cutoff_times_radius_squared"] / radius**2
    return [float(ecut) for ecut in settings["ladder_Ry"] if ecut >= min(first, settings["ladder_Ry"][-4])]


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


def recommended(runs: list[Run], atoms: int, criterion: dict[str, float]) -> float | None:
    """Return the lowest cutoff in Ry from which on the criterion holds over the whole plateau, if there is one."""
    by_cutoff: dict[float, list[Run]] = {}
    for run in runs:
        by_cutoff.setdefault(run[0], []).append(run)
    cutoffs = sorted(by_cutoff)
    reference = by_cutoff[cutoffs[-1]]
    good: float | None = None
    for ecut in reversed(cutoffs):
        if not _holds(by_cutoff[ecut], reference, atoms, criterion):
            break
        good = ecut
    return good if good is not None and cutoffs[-1] >= criterion["plateau"] * good else None


def _holds(pair: list[Run], reference: list[Run], atoms: int, criterion: dict[str, float]) -> bool:
    difference, expected = pair[1][2] - pair[0][2], reference[1][2] - reference[0][2]
    error_meV = abs(difference - expected) * UNITS.rydberg_to_eV * 1000.0 / atoms
    error_kbar = abs(pair[0][3] - reference[0][3])
    return error_meV <= criterion["energy_meV_per_atom"] and error_kbar <= criterion["pressure_kbar"]


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
