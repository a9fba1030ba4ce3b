"""Compare the stress of the embedded pseudopotentials with finite differences of the energy: ``check_stress.py``.

Each crystal runs twice: with the parameters in Quantum ESPRESSO's own ``.gth`` format, and with the converted UPF.
The table gives dE/ds under a strain s that keeps the volume, from energies and from the printed stress, and the energy.
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pw import ScfResult, run_scf, scf_input

from hullworks.units import UNITS
from hullworks.workflows.qe.pseudos import EMBEDDED_FAMILY, gth_parameters, load_family

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hullworks.workflows.qe.pseudos import GthParameters

SETTINGS = Path(__file__).with_name("stress.yaml")
ROUTES = ("gth", "upf")


@dataclass(frozen=True)
class StressCheck:
    """One crystal by one route.

    Attributes:
        element: What the crystal is made of.
        route: ``gth`` (read directly) or ``upf`` (converted).
        version: Version of pw.x.
        from_energies_eV: dE/ds per cell by central differences.
        from_stress_eV: The same from the printed stress.
        energy_eV: Energy of the strained cell.
    """

    element: str
    route: str
    version: str
    from_energies_eV: float
    from_stress_eV: float
    energy_eV: float

    @property
    def error_eV(self) -> float:
        """How far the stress is from the energies, eV per cell and unit strain."""
        return self.from_stress_eV - self.from_energies_eV


def main() -> int:
    """Print the table for all crystals, both routes and all commands."""
    recipe = yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("elements", nargs="*", help="crystals; none: all")
    parser.add_argument("--command", action="append", help="command that starts pw.x; repeat for several versions")
    arguments = parser.parse_args()
    for command in arguments.command or ["pw.x"]:
        for element in arguments.elements or recipe["cells"]:
            for route in ROUTES:
                check = check_stress(element, route, recipe, shlex.split(command))
                sys.stdout.write(
                    f"{check.version:8s} {element:2s} {route}  energies {check.from_energies_eV:8.4f}"
                    f"  stress {check.from_stress_eV:8.4f} eV  E {check.energy_eV:.6f} eV\n"
                )
                sys.stdout.flush()
    return 0


def check_stress(element: str, route: str, recipe: dict[str, Any], command: Sequence[str]) -> StressCheck:
    """Run one crystal at three strains and compare."""
    strain, step = recipe["settings"]["strain"], recipe["settings"]["step"]
    strains = (strain - step, strain, strain + step)
    with tempfile.TemporaryDirectory() as folder:
        below, middle, above = (strained_run(element, route, s, recipe, command, Path(folder)) for s in strains)
    slope = (above.energy_Ry - below.energy_Ry) / (2.0 * step)
    return StressCheck(
        element=element,
        route=route,
        version=middle.version,
        from_energies_eV=slope * UNITS.rydberg_to_eV,
        from_stress_eV=slope_from_stress(middle) * UNITS.rydberg_to_eV,
        energy_eV=middle.energy_Ry * UNITS.rydberg_to_eV,
    )


def slope_from_stress(result: ScfResult) -> float:
    """Return dE/ds in Ry: minus the volume times the printed stress, contracted with the strain (-1/2, -1/2, 1)."""
    xx, yy, zz = (result.stress_Ry_per_bohr3[i][i] for i in range(3))
    return -result.volume_bohr3 * (zz - (xx + yy) / 2.0)


def strained_run(
    element: str, route: str, s: float, recipe: dict[str, Any], command: Sequence[str], folder: Path
) -> ScfResult:
    """Run one crystal at one strain."""
    cell, settings = recipe["cells"][element], recipe["settings"]
    stretch = (math.exp(-s / 2.0), math.exp(-s / 2.0), math.exp(s))
    text = scf_input(
        [[x * factor for x, factor in zip(row, stretch, strict=True)] for row in cell["lattice"]],
        [(element, position) for position in cell["positions"]],
        {element: pseudopotential_file(element, route, folder)},
        system={
            "ecutwfc": settings["ecutwfc_Ry"],
            "occupations": "'smearing'",
            "smearing": f"'{settings['smearing']}'",
            "degauss": settings["degauss_Ry"],
        },
        kpoints=cell["kpoints"],
        conv_thr_Ry=settings["conv_thr_Ry"],
    )
    return run_scf(command, folder, text)


def pseudopotential_file(element: str, route: str, folder: Path) -> str:
    """Write the pseudopotential by one of the two routes and return its file name."""
    if route == "upf":
        return load_family(EMBEDDED_FAMILY).install([element], folder)[element]
    name = f"{element}.gth"
    (folder / name).write_text(gth_text(gth_parameters(element)), encoding="ascii")
    return name


def gth_text(parameters: GthParameters) -> str:
    """Return the parameters as Quantum ESPRESSO reads them directly: ABINIT's format with pspcod 10, ixc 11 (PBE)."""
    by_l = {channel.angular_momentum: channel for channel in parameters.channels}
    highest = max(by_l, default=0)
    local = parameters.local_hartree
    lines = [
        parameters.name,
        f"{parameters.atomic_number} {parameters.valence} 050101",
        f"10 11 {highest} {highest + 1} 2001 0",
        f"{parameters.local_radius_bohr} {len(local)} {' '.join(map(str, local))}",
        str(highest + 1),
    ]
    for momentum in range(highest + 1):
        if momentum not in by_l:
            lines.append("1.0 0")
            continue
        triangle = [" ".join(map(str, row[i:])) for i, row in enumerate(by_l[momentum].matrix())]
        lines += [f"{by_l[momentum].radius_bohr} {by_l[momentum].size} {triangle[0]}", *triangle[1:]]
        spin_orbit = [" ".join("0.0" for _ in row.split()) for row in triangle]
        lines += spin_orbit if momentum > 0 else []
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
