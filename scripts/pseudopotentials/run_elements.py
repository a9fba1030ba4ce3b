"""Calculate the elemental solids and write the page about elements: ``run_elements.py [ELEMENT ...] [--document]``.

Each solid is a static run through the product's own input set and its own driver of pw.x, repairs included, at its
experimental structure. Results go into the data file after each run; ``--document`` writes the page from it.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import shlex
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from elements_page import PERIODIC_ORDER, with_tables

from hullworks.errors import RunError
from hullworks.workflows.qe.archive import attempt_folders
from hullworks.workflows.qe.attempts import OUTPUT_NAME
from hullworks.workflows.qe.executable import PwCommand
from hullworks.workflows.qe.inputs import build_pw_input
from hullworks.workflows.qe.protocols import load_protocol
from hullworks.workflows.qe.pseudos import EMBEDDED_FAMILY, load_family
from hullworks.workflows.qe.run import run_pw
from hullworks.workflows.qe.run_record import read_record
from hullworks.workflows.qe.task_document import SMEARING_SHARE

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from hullworks.workflows.qe.inputs import PwInput
    from hullworks.workflows.qe.parser import QeRun

ROOT = Path(__file__).resolve().parents[2]
RECIPE = Path(__file__).with_name("elements.yaml")
DATA = ROOT / "docs" / "data" / "qe_elements.json"
PAGE = ROOT / "docs" / "qe_elements.md"
_MEMORY = re.compile(r"Estimated max dynamical RAM per process >\s+([\d.]+) (MB|GB)")
_MB = {"MB": 1.0, "GB": 1024.0}


def main() -> int:
    """Run elements, write the page, or both."""
    recipe = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("elements", nargs="*", metavar="ELEMENT", help="elements to run")
    parser.add_argument("--command", default="pw.x", help="command that starts pw.x")
    parser.add_argument("--protocol", default=recipe["protocol"], help="protocol of the runs")
    parser.add_argument("--data", type=Path, default=DATA, help="data file to update")
    parser.add_argument("--max-seconds", type=float, default=600.0, help="time for one element")
    parser.add_argument("--document", action="store_true", help="write the page from the data file")
    arguments = parser.parse_args()
    command = PwCommand(tuple(shlex.split(arguments.command)), "settings")
    for element in arguments.elements:
        with tempfile.TemporaryDirectory() as folder:
            row = run_element(element, recipe, command, Path(folder), arguments.protocol, arguments.max_seconds)
        record(arguments.data, row)
        sys.stdout.write(f"{element:2s} {row['outcome']} {row['cpu_seconds']} s {row['pressure_kbar']} kbar\n")
        sys.stdout.flush()
    if arguments.document:
        PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8"), load(arguments.data), recipe), encoding="utf-8")
    return 0


def elemental_solid(element: str, recipe: dict[str, Any]) -> Structure:
    """Return the primitive cell of an element's experimental structure.

    Raises:
        KeyError: The recipe does not have the element.
    """
    from pymatgen.core import Lattice, Structure

    from hullworks.workflows.qe.cells import primitive_cell

    entry = recipe["elements"][element]
    kind = recipe["structures"][entry["structure"]]
    lattice = getattr(Lattice, kind["system"])(*entry["edges"])
    site = entry.get("site", kind["site"])
    return primitive_cell(Structure.from_spacegroup(kind["group"], lattice, [element], [site]))


def element_input(element: str, recipe: dict[str, Any], protocol_name: str) -> PwInput:
    """Return the input that the protocol gives for an element, with the recipe's sparser mesh where it asks for one.

    Raises:
        PseudopotentialError: The element has no cutoff at this protocol.
    """
    protocol = load_protocol(protocol_name)
    distance = recipe["elements"][element].get("kpoints_distance", protocol.kpoints_distance)
    family = load_family(EMBEDDED_FAMILY, stringency=protocol.cutoffs)
    protocol = replace(protocol, kpoints_distance=max(distance, protocol.kpoints_distance))
    return build_pw_input("scf", elemental_solid(element, recipe), protocol, family)


def run_element(
    element: str,
    recipe: dict[str, Any],
    command: PwCommand,
    folder: Path,
    protocol_name: str,
    max_seconds: float = 600.0,
) -> dict[str, Any]:
    """Calculate one element and return its row of the data file.

    Args:
        element: Chemical symbol.
        recipe: The content of ``elements.yaml``.
        command: How to start pw.x.
        folder: Where to run; made when it is missing.
        protocol_name: Name of the protocol.
        max_seconds: pw.x is stopped after this time, s.
    """
    pw_input = element_input(element, recipe, protocol_name)
    family = load_family(EMBEDDED_FAMILY, stringency=pw_input.protocol.cutoffs)
    before, message, run = _child_seconds(), "", None
    try:
        finished = run_pw(folder, pw_input, family=family, command=command, deadline=time.time() + max_seconds)
        run = finished.run
    except RunError as error:
        message = error.what
    seconds = _child_seconds() - before
    return _asked(element, recipe, pw_input) | _found(run, read_record(folder), folder, seconds) | {"message": message}


def record(path: Path, row: dict[str, Any]) -> None:
    """Put a row into the data file, in place of an earlier one of the same element, protocol and code."""
    key = _key(row)
    rows = [known for known in load(path) if _key(known) != key]
    rows = sorted([*rows, row], key=lambda item: (PERIODIC_ORDER.index(item["element"]), _key(item)))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("[\n" + ",\n".join(json.dumps(item) for item in rows) + "\n]\n", encoding="utf-8")


def load(path: Path) -> list[dict[str, Any]]:
    """Return the rows of the data file; none where there is no file yet."""
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    return rows


def _key(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["element"], row["protocol"], row["code"]


def _asked(element: str, recipe: dict[str, Any], pw_input: PwInput) -> dict[str, Any]:
    electrons = sum(species.z_valence for species in pw_input.species) * len(pw_input.structure)
    return {
        "element": element,
        "structure": recipe["elements"][element]["structure"],
        "protocol": pw_input.protocol.name,
        "atoms": len(pw_input.structure),
        "electrons": int(electrons),
        "kpoints_distance": pw_input.protocol.kpoints_distance,
        "mesh": list(pw_input.mesh.divisions),
        "ecutwfc_Ry": pw_input.ecutwfc_Ry,
        "spin": pw_input.setting("SYSTEM", "nspin") is not None,
    }


def _found(run: QeRun | None, record: dict[str, Any], folder: Path, seconds: float) -> dict[str, Any]:
    corrections = [item["handler"] for item in record["corrections"] if item["actions"]]
    common = {
        "code": f"pw.x {record['code']['version']}",
        "outcome": record["outcome"],
        "corrections": corrections,
        "cpu_seconds": round(seconds, 1),
        "memory_MB": _memory_MB(folder),
    }
    if run is None or run.energy_eV is None or run.structure is None:
        return common | dict.fromkeys(("n_k_points", "energy_eV_per_atom", "pressure_kbar", "gap_eV", "moment_muB"))
    energy = run.energy_eV - SMEARING_SHARE * (run.smearing_energy_eV or 0.0)
    return common | {
        "n_k_points": run.n_k_points,
        "energy_eV_per_atom": round(energy / len(run.structure), 6),
        "pressure_kbar": None if run.pressure_kbar is None else round(run.pressure_kbar, 1),
        "gap_eV": None if run.gap_eV is None else round(run.gap_eV, 3),
        "moment_muB": None if run.total_magnetization is None else round(run.total_magnetization, 2),
    }


def _memory_MB(folder: Path) -> float | None:
    """The most that pw.x says it needs, over all attempts."""
    outputs = [attempt / OUTPUT_NAME for attempt in attempt_folders(folder)]
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in outputs if path.is_file()]
    found = [float(number) * _MB[unit] for text in texts for number, unit in _MEMORY.findall(text)]
    return round(max(found), 1) if found else None


def _child_seconds() -> float:
    """CPU seconds of all ended child processes."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    sys.exit(main())
