"""The XML file of pw.x (``prefix.xml``, ``data-file-schema.xml``), in the schemas of 6.7 and 7.2.

The two differ in what they add (7.2: the stress of every step, a meaningful exit status), not in what they name.
Values are Hartree and bohr in the file, eV, Angstrom and kbar here. The stress keeps the sign of pw.x.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree as ET

import numpy as np

from hullworks.units import UNITS
from hullworks.workflows.qe.geometry import Geometry
from hullworks.workflows.qe.stdout import numbers, timestamp

if TYPE_CHECKING:
    from datetime import datetime

    from numpy.typing import NDArray

_LEVEL_DIGITS_Ha: Final = 1e-6
"""pw.x puts the Fermi energy of an insulator on its highest occupied level; the last digits may go either way."""
_TAG: Final = "{http://www.quantum-espresso.org/ns/qes/qes-1.0}espresso"


@dataclass(frozen=True, eq=False)
class XmlStep:
    """One evaluated geometry; arrays as in `XmlRun`, the error of the energy in Hartree."""

    geometry: Geometry | None
    energy_eV: float | None
    scf_converged: bool | None
    scf_error_Ha: float | None
    forces_eV_per_A: NDArray[np.float64] | None
    stress_kbar: NDArray[np.float64] | None
    smearing_eV: float | None


@dataclass(frozen=True, eq=False)
class XmlRun:
    """What one XML file says; None where it says nothing.

    Args:
        closed: Whether the file ends as pw.x ends it.
        version: Version of pw.x.
        created: Local time of writing.
        exit_status: Always 0 in 6.7; the exit status of the run in 7.2.
        calculation: ``scf``, ``relax``, ``vc-relax``, ...
        initial: The geometry of the input.
        steps: The evaluated geometries of a relaxation, in order.
        last: Geometry, energy, forces (eV/Angstrom, shape (n, 3)) and stress (kbar, shape (3, 3)) at the end. After
            a relaxation that did not converge, the geometry is the *next* one, which was never evaluated.
        opt_converged: Whether the relaxation says it converged.
        conv_thr_Ha: The input's threshold of self-consistency; a relaxation may tighten it, never loosen it.
        fermi_eV: Fermi energy or highest occupied level.
        highest_occupation: Largest occupation of the highest band, 1 for a full one; None unless they are smeared.
        gap_eV: Smallest gap between occupied and empty states on the k points, 0 for a metal, None without empty
            bands.
        total_magnetization: Bohr magnetons per cell.
        ecutwfc_Ry: Cutoff of the wavefunctions.
        ecutrho_Ry: Cutoff of the density.
        functional: Name of the functional.
        n_k_points: Number of symmetry-inequivalent k points.
        k_grid: Monkhorst-Pack divisions and shifts, six numbers.
        pseudo_files: From atomic label to file name.
        wall_seconds: Wall time.
    """

    closed: bool
    version: str | None
    created: datetime | None
    exit_status: int | None
    calculation: str | None
    initial: Geometry | None
    steps: tuple[XmlStep, ...]
    last: XmlStep
    opt_converged: bool | None
    conv_thr_Ha: float | None
    fermi_eV: float | None
    highest_occupation: float | None
    gap_eV: float | None
    total_magnetization: float | None
    ecutwfc_Ry: float | None
    ecutrho_Ry: float | None
    functional: str | None
    n_k_points: int | None
    k_grid: tuple[int, ...] | None
    pseudo_files: dict[str, str]
    wall_seconds: float | None

    @property
    def claims_too_much(self) -> bool:
        """Whether convergence is claimed beyond the threshold, as with ``scf_must_converge=.false.``."""
        error, threshold = self.last.scf_error_Ha, self.conv_thr_Ha
        return error is not None and threshold is not None and error > threshold


def read_xml(text: bytes) -> XmlRun | None:
    """Read the bytes of one file; None when they are cut, or not an XML file of pw.x."""
    try:
        root = ET.fromstring(text)  # noqa: S314 - written by pw.x in the user's own folder
    except (ET.ParseError, LookupError, ValueError):
        return None
    return _run(root) if root.tag in {_TAG, "espresso"} else None


def _run(root: ET.Element) -> XmlRun:
    control, output, bands = "input/control_variables/", "output/", "output/band_structure/"
    creator, created = root.find("general_info/creator"), root.find("general_info/created")
    fermi = _number(root, bands + "fermi_energy")
    fermi = _number(root, bands + "highestOccupiedLevel") if fermi is None else fermi
    status = _number(root, "exit_status")
    return XmlRun(
        closed=root.find("closed") is not None,
        version=None if creator is None else creator.get("VERSION"),
        created=None if created is None else timestamp(created.get("DATE", ""), created.get("TIME", "")),
        exit_status=_integer(_number(root, "status") if status is None else status),
        calculation=_text(root, control + "calculation"),
        initial=_geometry(root.find("input/atomic_structure")),
        steps=tuple(_step(step, "scf_conv/") for step in root.iterfind("step")),
        last=_step(root.find("output"), "convergence_info/scf_conv/"),
        opt_converged=_truth(root, output + "convergence_info/opt_conv/convergence_achieved"),
        conv_thr_Ha=_number(root, "input/electron_control/conv_thr"),
        fermi_eV=_scaled(fermi, UNITS.hartree_to_eV),
        highest_occupation=_highest_occupation(root),
        gap_eV=_gap(root.find("output/band_structure"), fermi),
        total_magnetization=_number(root, output + "magnetization/total"),
        ecutwfc_Ry=_scaled(_number(root, output + "basis_set/ecutwfc"), 2.0),
        ecutrho_Ry=_scaled(_number(root, output + "basis_set/ecutrho"), 2.0),
        functional=_text(root, output + "dft/functional"),
        n_k_points=_integer(_number(root, bands + "nks")),
        k_grid=_k_grid(root.find(bands + "starting_k_points/monkhorst_pack")),
        pseudo_files=_pseudo_files(root),
        wall_seconds=_number(root, "timing_info/total/wall"),
    )


def _step(element: ET.Element | None, scf: str) -> XmlStep:
    element = ET.Element("empty") if element is None else element
    forces, kbar = UNITS.hartree_per_bohr_to_eV_per_angstrom, UNITS.hartree_per_cubic_bohr_to_kbar
    return XmlStep(
        geometry=_geometry(element.find("atomic_structure")),
        energy_eV=_scaled(_number(element, "total_energy/etot"), UNITS.hartree_to_eV),
        scf_converged=_truth(element, scf + "convergence_achieved"),
        scf_error_Ha=_number(element, scf + "scf_error"),
        forces_eV_per_A=_matrix(element.find("forces"), forces),
        stress_kbar=_matrix(element.find("stress"), kbar),
        smearing_eV=_scaled(_number(element, "total_energy/demet"), UNITS.hartree_to_eV),
    )


def _geometry(element: ET.Element | None) -> Geometry | None:
    if element is None:
        return None
    atoms = element.findall("atomic_positions/atom")
    rows = [numbers(atom.text or "") for atom in atoms]
    cell = [numbers(element.findtext(f"cell/a{i}", "")) for i in (1, 2, 3)]
    if not rows or any(len(row) != 3 for row in rows + cell):  # noqa: PLR2004 - Cartesian components
        return None
    factor = UNITS.bohr_to_angstrom
    return Geometry(np.array(cell) * factor, tuple(atom.get("name", "") for atom in atoms), np.array(rows) * factor)


def _matrix(element: ET.Element | None, factor: float) -> NDArray[np.float64] | None:
    """Return rows of three numbers; None where the count does not fit the declared dimensions."""
    if element is None:
        return None
    values, dims = numbers(element.text or ""), numbers(element.get("dims", ""))
    if not values or len(values) % 3 or len(values) != math.prod(dims):
        return None
    return np.array(values).reshape(-1, 3) * factor


def _highest_occupation(root: ET.Element) -> float | None:
    """Return the largest occupation of the highest band over all k points and spins."""
    if _text(root, "input/bands/occupations") != "smearing":
        return None
    up = _integer(_number(root, "output/band_structure/nbnd_up")) or 0
    rows = [numbers(element.text or "") for element in root.iterfind("output/band_structure/ks_energies/occupations")]
    tops = [row[index] for row in rows for index in {up - 1, len(row) - 1} if 0 <= index < len(row)]
    return max(tops, default=None)


def _gap(bands: ET.Element | None, fermi_Ha: float | None) -> float | None:
    """Return the gap over all k points and spins in eV; 0 where a band crosses the Fermi level."""
    if bands is None or fermi_Ha is None:
        return None
    rows = [numbers(element.text or "") for element in bands.iterfind("ks_energies/eigenvalues")]
    if not rows or len({len(row) for row in rows}) != 1:
        return None
    energies = np.array(rows)
    n_up = _integer(_number(bands, "nbnd_up"))
    channels = [energies[:, :n_up], energies[:, n_up:]] if n_up else [energies]
    occupied = [channel <= fermi_Ha + _LEVEL_DIGITS_Ha for channel in channels]
    if any(len(set(counts.sum(axis=1).tolist())) > 1 for counts in occupied):
        return 0.0
    below = np.concatenate([channel[mask] for channel, mask in zip(channels, occupied, strict=True)])
    above = np.concatenate([channel[~mask] for channel, mask in zip(channels, occupied, strict=True)])
    if not (below.size and above.size):
        return None
    return max(0.0, float(above.min() - below.max()) * UNITS.hartree_to_eV)


def _k_grid(element: ET.Element | None) -> tuple[int, ...] | None:
    if element is None:
        return None
    names = ("nk1", "nk2", "nk3", "k1", "k2", "k3")
    values = [number for name in names for number in numbers(element.get(name, ""))]
    return tuple(int(value) for value in values) if len(values) == len(names) else None


def _pseudo_files(root: ET.Element) -> dict[str, str]:
    species = root.findall("output/atomic_species/species") or root.findall("input/atomic_species/species")
    return {item.get("name", ""): (item.findtext("pseudo_file") or "").strip() for item in species}


def _text(root: ET.Element, path: str) -> str | None:
    return (root.findtext(path) or "").strip() or None


def _number(root: ET.Element, path: str) -> float | None:
    found = numbers(root.findtext(path) or "")
    return found[0] if len(found) == 1 and math.isfinite(found[0]) else None


def _integer(value: float | None) -> int | None:
    return None if value is None else int(value)


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _truth(root: ET.Element, path: str) -> bool | None:
    return {"true": True, "false": False}.get((root.findtext(path) or "").strip().lower())
