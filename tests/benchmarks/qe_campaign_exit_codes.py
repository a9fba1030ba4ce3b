"""The exit code that aiida-quantumespresso's parser gives a calculation of pw.x, from the words that it knows.

Written anew from the documented behaviour of its `PwParser`. What that parser does not recognise has no code here
either. Numbers (forces, stress, occupations) are read by the product's parser, which reads the same files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from hullworks.units import UNITS
from hullworks.workflows.qe.parser import parse_run
from hullworks.workflows.qe.xml_output import read_xml

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from pymatgen.core import Structure

    from hullworks.workflows.qe.inputs import PwInput
    from hullworks.workflows.qe.parser import QeRun
    from hullworks.workflows.qe.xml_output import XmlRun

PREMATURE: Final = (
    ("Maximum CPU time exceeded", 400),
    ("charge is wrong", 531),
    ("not orthogonal operation", 541),
    ("dexx is negative", 461),
    ("problems computing cholesky", 462),
    ("some nodes have no k-points", 481),
    ("too many bands are not converged", 463),
    ("S matrix not positive definite", 464),
    ("zhegvd failed", 465),
    ("[Q, R] = qr(X, 0) failed", 466),
    ("probably because G_par is NOT a reciprocal lattice vector", 360),
    ("eigenvectors failed to converge", 467),
    ("Error in routine broyden", 468),
    ("Not enough space allocated for radial FFT: try restarting with a larger cell_factor", 542),
)
"""Words of pw.x that end the search for a code, in the order in which they are asked for."""
SCF_FAILED: Final = "convergence NOT achieved after"
BFGS_FAILED: Final = "history already reset at previous step: stopping"
FULL_BAND: Final = 0.005
NAMES: Final = {
    0: "finished", 110: "scheduler: out of memory", 120: "scheduler: out of walltime", 140: "scheduler: node failure",
    303: "XML missing", 305: "output and XML unreadable", 312: "output incomplete", 321: "XML unreadable",
    340: "walltime, interrupted", 350: "parser failed", 360: "G_par", 400: "walltime", 410: "scf not converged",
    461: "dexx negative", 462: "cholesky", 463: "bands not converged", 464: "S matrix", 465: "zhegvd", 466: "qr",
    467: "eigenvectors", 468: "broyden", 481: "npools too high", 500: "ionic not converged",
    501: "converged except in final scf", 502: "nstep exceeded", 503: "interrupted, partial trajectory",
    510: "scf failed in ionic cycle", 511: "final scf failed", 520: "BFGS history", 521: "BFGS history and final scf",
    531: "charge is wrong", 541: "non-orthogonal operation", 542: "radial FFT", 710: "scf allowed not to converge",
}  # fmt: skip
"""Its exit codes in short words."""


@dataclass(frozen=True)
class Parsed:
    """What the peer knows of a calculation that has ended.

    Attributes:
        exit_code: The code.
        structure: Its output structure: the one that the XML file ends with, or else the input's.
        n_bands: Bands that were calculated.
        highest_band_full: Whether its check of the occupations would object.
        run: The product's reading of the same files, for numbers alone.
    """

    exit_code: int
    structure: Structure
    n_bands: int | None
    highest_band_full: bool
    run: QeRun


def parse(folder: Path, asked: PwInput, scheduler: int = 0) -> Parsed:
    """Return what the peer makes of a calculation.

    Args:
        folder: Where it ran: ``pw.out``, perhaps ``CRASH``, and the XML file in ``out/pwscf.save``.
        asked: Its input.
        scheduler: What the scheduler plugin said: 110 out of memory, 120 walltime, 140 node failure, 0 nothing.
    """
    xml_file = folder / "out" / "pwscf.save" / "data-file-schema.xml"
    xml = read_xml(xml_file.read_bytes()) if xml_file.is_file() else None
    run = parse_run(folder)
    xml_code = 0 if xml is not None else 321 if xml_file.is_file() else 303
    code = _code(folder, asked, run, xml_code, scheduler)
    moved = None if xml is None or xml.last.geometry is None or asked.calculation == "scf" else xml.last.geometry
    structure = None if moved is None else moved.structure()
    return Parsed(code, structure or asked.structure, run.n_bands, _highest_band_full(xml), run)


def _code(folder: Path, asked: PwInput, run: QeRun, xml_code: int, scheduler: int) -> int:
    output = (folder / "pw.out").read_text(encoding="utf-8", errors="replace")
    crash = "".join(path.read_text(encoding="utf-8", errors="replace") for path in folder.glob("CRASH"))
    text = output + crash
    known = [code for words, code in PREMATURE if words in text]
    incomplete = "JOB DONE" not in output and not crash
    stdout_code = _stdout_code(output, text, known, incomplete=incomplete)
    if (stdout_code or xml_code) and scheduler:
        return 503 if asked.calculation != "scf" and scheduler in {120, 140} else scheduler
    if 400 in known and incomplete:
        return 340
    if known:
        return known[0]
    if stdout_code and xml_code:
        return 305
    return stdout_code or xml_code or _convergence_code(text, asked, run)


def _stdout_code(output: str, text: str, known: list[int], *, incomplete: bool) -> int:
    """Return what is wrong with the output itself: cut short, or without the header and without known words."""
    if incomplete:
        return 312
    headless = "number of Kohn-Sham states" not in output
    return 350 if headless and not known and "Warning:" not in text and SCF_FAILED not in text else 0


def _convergence_code(text: str, asked: PwInput, run: QeRun) -> int:
    electrons = SCF_FAILED not in text
    if asked.calculation == "scf":
        return 0 if electrons else _allowed(asked) or 410
    ions = "ATOMIC_POSITIONS" not in text or "bfgs converged in" in text
    if not (ions or electrons):
        return 510
    if not ions and text.count("number of bfgs steps") == asked.setting("CONTROL", "nstep"):
        return 502
    return _code_at_the_end(text, asked, run, electrons=electrons)


def _code_at_the_end(text: str, asked: PwInput, run: QeRun, *, electrons: bool) -> int:
    """Return the code of a relaxation that ended, by its words and by its own check of forces and pressure."""
    history = BFGS_FAILED in text
    if not electrons:
        final = "A final scf calculation at the relaxed structure" in text
        return 521 if history else 511 if final else 510
    if converged(asked, run):
        return 0
    if history:
        return 520
    return 501 if converged(asked, run, except_final=True) else 500


def _allowed(asked: PwInput) -> int:
    must = asked.setting("ELECTRONS", "scf_must_converge")
    return 710 if must is False or asked.setting("ELECTRONS", "electron_maxstep") == 0 else 0


def converged(asked: PwInput, run: QeRun, *, except_final: bool = False) -> bool:
    """Return whether forces, and for a vc-relax the pressure, are within the input's thresholds.

    A vc-relax must fulfil them in its last step and in its final calculation; ``except_final`` waives the latter.
    """
    if asked.calculation == "relax" or not run.ionic_steps:
        return _settled(asked, run.forces_eV_per_A, None)
    step = run.ionic_steps[-1]
    if not _settled(asked, step.forces_eV_per_A, step.stress_kbar):
        return False
    return except_final or _settled(asked, run.forces_eV_per_A, run.stress_kbar)


def _settled(asked: PwInput, forces: NDArray[np.float64] | None, stress: NDArray[np.float64] | None) -> bool:
    if forces is None or (stress is None and asked.calculation == "vc-relax"):
        return False
    limit = asked.setting("CONTROL", "forc_conv_thr")
    within = np.abs(forces) < float(limit or 1e-3) * UNITS.rydberg_per_bohr_to_eV_per_angstrom
    return bool(within.all()) and (stress is None or abs(pressure_kbar(stress)) < press_conv_thr(asked))


def pressure_kbar(stress: NDArray[np.float64]) -> float:
    """Return a third of the trace."""
    return float(np.trace(stress)) / 3.0


def press_conv_thr(asked: PwInput) -> float:
    """Return the input's threshold of the pressure, kbar."""
    value = asked.setting("CELL", "press_conv_thr") if asked.calculation == "vc-relax" else None
    return float(value) if isinstance(value, float) else 0.5


def _highest_band_full(xml: XmlRun | None) -> bool:
    """Its limit is 0.005 of a band that holds 2 electrons without spin; fixed occupations are not looked at."""
    top = None if xml is None else xml.highest_occupation
    return top is not None and 2.0 * top >= FULL_BAND
