"""A single pw.x run for the scripts of this folder: input text, command, and the few numbers that they need."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_VERSION = re.compile(r"Program PWSCF (\S+)")
_ENERGY = re.compile(r"^!\s+total energy\s+=\s+(\S+) Ry", re.MULTILINE)
_STRESS = re.compile(r"total\s+stress.*P=\s*(\S+)\s*\n((?:.*\n){3})")
_VOLUME = re.compile(r"unit-cell volume\s+=\s+(\S+) \(a\.u\.\)\^3")


@dataclass(frozen=True)
class ScfResult:
    """What one converged scf run printed.

    Attributes:
        version: Version of pw.x.
        energy_Ry: Total energy of the cell.
        pressure_kbar: One third of the trace of the printed stress.
        stress_Ry_per_bohr3: Printed stress, three rows of three; positive means compressed.
        volume_bohr3: Volume of the cell.
    """

    version: str
    energy_Ry: float
    pressure_kbar: float
    stress_Ry_per_bohr3: tuple[tuple[float, ...], ...]
    volume_bohr3: float


def scf_input(
    cell: Sequence[Sequence[float]],
    atoms: Sequence[tuple[str, Sequence[float]]],
    files: Mapping[str, str],
    *,
    system: Mapping[str, object],
    kpoints: str,
    conv_thr_Ry: float,
) -> str:
    """Return the input of an scf run; ``cell`` in angstrom, positions in crystal coordinates."""
    fixed: dict[str, object] = {"ibrav": 0, "nat": len(atoms), "ntyp": len(files)}
    lines = [
        "&CONTROL\n  calculation = 'scf'\n  prefix = 'x'\n  outdir = './out'\n  pseudo_dir = '.'",
        "  tstress = .true.\n  disk_io = 'none'\n/\n&SYSTEM",
        *[f"  {key} = {value}" for key, value in (fixed | dict(system)).items()],
        f"/\n&ELECTRONS\n  conv_thr = {conv_thr_Ry:.1e}\n  electron_maxstep = 100\n/\nATOMIC_SPECIES",
        *[f"{element} 1.0 {file}" for element, file in files.items()],
        "CELL_PARAMETERS angstrom",
        *[" ".join(f"{x:.10f}" for x in row) for row in cell],
        "ATOMIC_POSITIONS crystal",
        *[f"{element} " + " ".join(f"{x:.10f}" for x in position) for element, position in atoms],
        f"K_POINTS automatic\n{kpoints}\n",
    ]
    return "\n".join(lines)


def run_scf(command: Sequence[str], folder: Path, text: str) -> ScfResult:
    """Run pw.x once on one thread and return its numbers.

    Raises:
        RuntimeError: The run failed or did not converge; the message shows the end of its output.
    """
    (folder / "pw.in").write_text(text, encoding="ascii")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "-i", "pw.in"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    (folder / "pw.out").write_text(done.stdout, encoding="utf-8")
    whole = "convergence has been achieved" in done.stdout and "JOB DONE" in done.stdout
    if done.returncode != 0 or not whole:
        msg = f"pw.x ended with {done.returncode} in {folder}: {done.stdout[-1500:]}{done.stderr[-500:]}"
        raise RuntimeError(msg)
    return _result(done.stdout)


def _result(output: str) -> ScfResult:
    stress = _STRESS.search(output)
    version, energy, volume = (pattern.search(output) for pattern in (_VERSION, _ENERGY, _VOLUME))
    if stress is None or version is None or energy is None or volume is None:
        msg = "pw.x printed no energy or stress"
        raise RuntimeError(msg)
    rows = tuple(tuple(float(word) for word in line.split()[:3]) for line in stress[2].splitlines())
    return ScfResult(version[1].removeprefix("v."), float(energy[1]), float(stress[1]), rows, float(volume[1]))
