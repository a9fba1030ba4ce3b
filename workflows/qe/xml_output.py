"""The XML file of pw.x (``prefix.xml``, ``data-file-schema.xml``), in the schemas of Quantum ESPRESSO 6.5 to 7.4.

They differ in what they add (7.0: a meaningful exit status and all clocks; 7.2: the stress of every step), in what
they leave out (the total magnetization without spin since 7.0) and in where they put what is not needed here, not in
what they name. Blocks that nobody knows are passed over, and nearly every block may be missing.
Values are Hartree and bohr in the file, eV, Angstrom and kbar here. The stress keeps the sign of pw.x.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree as ET

import numpy as np

from hullworks.units import UNITS
from hullworks.workflows.qe.geometry import Geometry
from hullworks.workflows.qe.quantities import CodeFeatures, EnergyTerms, Smearing, Timing
from hullworks.workflows.qe.stdout import numbers, timestamp, values

if TYPE_CHECKING:
    from datetime import datetime

    from numpy.typing import NDArray

_LEVEL_DIGITS_Ha: Final = 1e-6
"""pw.x puts the Fermi energy of an insulator on its highest occupied level; the last digits may go either way."""
_SMEARINGS: Final = {
    "gaussian": "gaussian",
    "gauss": "gaussian",
    "mp": "methfessel-paxton",
    "mv": "marzari-vanderbilt",
    "cold": "marzari-vanderbilt",
    "fd": "fermi-dirac",
}
"""The names of smearings in the XML file, and those of the output."""
_OTHER_TERMS: Final = {
    "efieldcorr": "electric field correction",
    "potentiostat_contr": "potentiostat contribution",
    "gatefield_contr": "gate field correction",
    "vdW_term": "dispersion",
    "esol": "solvation",
    "levelshift_contr": "level shift",
}
_STEP = re.compile(rb"<step[\s>].*?</step\s*>", re.DOTALL)
_PARALLEL: Final = ("nprocs", "nthreads", "npool", "nbgrp", "ndiag")
_UNNAMED_TERMS: Final = ("output/dft/dftU", "output/dft/hybrid")
"""With these the energy holds terms that the XML file does not name, as with the one-centre terms of PAW."""


@dataclass(frozen=True, eq=False, slots=True)
class XmlStep:
    """One evaluated geometry; arrays as in `XmlRun`, the error of the energy in Hartree."""

    geometry: Geometry | None
    energy_eV: float | None
    scf_converged: bool | None
    scf_iterations: int | None
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
        fermi_eV: Fermi energy or highest occupied level; the higher one where the spins have one each.
        highest_occupation: Largest occupation of the highest band, 1 for a full one; None unless they are smeared.
        gap_eV: Smallest gap between occupied and empty states on the k points, 0 for a metal, None without empty
            bands.
        total_magnetization: Bohr magnetons per cell, the length of the vector where spins are not collinear; None
            without spin.
        absolute_magnetization: Bohr magnetons per cell; None without spin.
        magnetic_moments: Moment in a sphere around each atom, Bohr magnetons; None where it is not written.
        energy_terms: Terms of the energy at the end. The one-electron term is what the others leave, so it is None
            where there are terms that the file does not name.
        ecutwfc_Ry: Cutoff of the wavefunctions.
        ecutrho_Ry: Cutoff of the density.
        functional: Name of the functional.
        n_k_points: Number of symmetry-inequivalent k points.
        k_grid: Monkhorst-Pack divisions and shifts, six numbers.
        n_symmetry_operations: Number of symmetry operations of the crystal.
        smearing: Smearing of the occupations, None without.
        pseudo_files: From atomic label to file name.
        features: How the program ran.
        timings: From the name of a clock to what it measured; only few of them before 7.0.
        cpu_seconds: Processor time until the file was written.
        wall_seconds: Wall time until the file was written.
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
    absolute_magnetization: float | None
    magnetic_moments: tuple[float, ...] | None
    energy_terms: EnergyTerms
    ecutwfc_Ry: float | None
    ecutrho_Ry: float | None
    functional: str | None
    n_k_points: int | None
    k_grid: tuple[int, ...] | None
    n_symmetry_operations: int | None
    smearing: Smearing | None
    pseudo_files: dict[str, str]
    features: CodeFeatures
    timings: dict[str, Timing] = field(default_factory=dict)
    cpu_seconds: float | None = None
    wall_seconds: float | None = None

    @property
    def claims_too_much(self) -> bool:
        """Whether convergence is claimed beyond the threshold, as with ``scf_must_converge=.false.``."""
        error, threshold = self.last.scf_error_Ha, self.conv_thr_Ha
        return error is not None and threshold is not None and error > threshold


def read_xml(text: bytes) -> XmlRun | None:
    """Read the bytes of one file; None when they are cut, or not an XML file of pw.x."""
    try:
        root, steps = _parse(text)
    except (ET.ParseError, LookupError, ValueError):
        return None
    return _run(root, steps) if root.tag == "espresso" else None


def _parse(text: bytes) -> tuple[ET.Element, tuple[XmlStep, ...]]:
    """Return the root without namespaces, and the steps, which are parsed one by one: there may be many.

    Raises:
        ET.ParseError: The file is cut or damaged.
    """
    steps = tuple(_step(_element(found[0]), "scf_conv/") for found in _STEP.finditer(text))
    # Blanks before the declaration would be an error.
    root = _element(_STEP.sub(b"", text).strip())
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root, steps


def _element(text: bytes) -> ET.Element:
    return ET.fromstring(text)  # noqa: S314 - written by pw.x in the user's own folder


def _run(root: ET.Element, steps: tuple[XmlStep, ...]) -> XmlRun:
    control, output, bands = "input/control_variables/", "output/", "output/band_structure/"
    creator, created = root.find("general_info/creator"), root.find("general_info/created")
    fermi = _fermi_levels(root)
    status = _number(root, "exit_status")
    last = _step(root.find("output"), "convergence_info/scf_conv/")
    spin = _spin(root)
    return XmlRun(
        closed=root.find("closed") is not None,
        version=None if creator is None else creator.get("VERSION"),
        created=None if created is None else timestamp(created.get("DATE", ""), created.get("TIME", "")),
        exit_status=_integer(_number(root, "status") if status is None else status),
        calculation=_text(root, control + "calculation"),
        initial=_geometry(root.find("input/atomic_structure")),
        steps=steps,
        last=last,
        opt_converged=_truth(root, output + "convergence_info/opt_conv/convergence_achieved"),
        conv_thr_Ha=_number(root, "input/electron_control/conv_thr"),
        fermi_eV=_scaled(max(fermi, default=None), UNITS.hartree_to_eV),
        highest_occupation=_highest_occupation(root),
        gap_eV=_gap(root.find("output/band_structure"), fermi),
        total_magnetization=_total_magnetization(root) if spin else None,
        absolute_magnetization=_number(root, output + "magnetization/absolute") if spin else None,
        magnetic_moments=_moments(root),
        energy_terms=_energy_terms(root),
        ecutwfc_Ry=_scaled(_number(root, output + "basis_set/ecutwfc"), 2.0),
        ecutrho_Ry=_scaled(_number(root, output + "basis_set/ecutrho"), 2.0),
        functional=_text(root, output + "dft/functional"),
        n_k_points=_integer(_number(root, bands + "nks")),
        k_grid=_k_grid(root.find(bands + "starting_k_points/monkhorst_pack")),
        n_symmetry_operations=_integer(_number(root, output + "symmetries/nsym")),
        smearing=_smearing(root.find(bands + "smearing")),
        pseudo_files=_pseudo_files(root),
        features=_features(root),
        timings=_timings(root),
        cpu_seconds=_number(root, "timing_info/total/cpu"),
        wall_seconds=_number(root, "timing_info/total/wall"),
    )


def _step(element: ET.Element | None, scf: str) -> XmlStep:
    element = ET.Element("empty") if element is None else element
    forces, kbar = UNITS.hartree_per_bohr_to_eV_per_angstrom, UNITS.hartree_per_cubic_bohr_to_kbar
    return XmlStep(
        geometry=_geometry(element.find("atomic_structure")),
        energy_eV=_scaled(_number(element, "total_energy/etot"), UNITS.hartree_to_eV),
        scf_converged=_truth(element, scf + "convergence_achieved"),
        scf_iterations=_integer(_number(element, scf + "n_scf_steps")),
        scf_error_Ha=_number(element, scf + "scf_error"),
        forces_eV_per_A=_matrix(element.find("forces"), forces),
        stress_kbar=_matrix(element.find("stress"), kbar),
        smearing_eV=_scaled(_number(element, "total_energy/demet"), UNITS.hartree_to_eV),
    )


def _geometry(element: ET.Element | None) -> Geometry | None:
    if element is None:
        return None
    cartesian = element.find("atomic_positions")
    atoms = [*(element.find("crystal_positions") or ())] if cartesian is None else [*cartesian]
    vectors = {vector.tag: values(vector.text or "") for vector in element.iterfind("cell/*")}
    rows, cell = [values(atom.text or "") for atom in atoms], [vectors.get(name, []) for name in ("a1", "a2", "a3")]
    if not rows or any(len(row) != 3 for row in rows + cell):  # noqa: PLR2004 - Cartesian components
        return None
    lattice = np.array(cell) * UNITS.bohr_to_angstrom
    positions = np.array(rows) @ lattice if cartesian is None else np.array(rows) * UNITS.bohr_to_angstrom
    return Geometry(lattice, tuple(atom.get("name", "") for atom in atoms), positions)


def _matrix(element: ET.Element | None, factor: float) -> NDArray[np.float64] | None:
    """Return rows of three numbers; None where the count does not fit the declared dimensions."""
    if element is None:
        return None
    found, dims = values(element.text or ""), values(element.get("dims", ""))
    if not found or len(found) % 3 or len(found) != math.prod(dims):
        return None
    return np.array(found).reshape(-1, 3) * factor


def _energy_terms(root: ET.Element) -> EnergyTerms:
    term = {item.tag: numbers(item.text or "") for item in root.iterfind("output/total_energy/*")}
    known = {name: found[0] * UNITS.hartree_to_eV for name, found in term.items() if len(found) == 1}
    others = {_OTHER_TERMS[name]: value for name, value in known.items() if name in _OTHER_TERMS}
    named = EnergyTerms(
        one_electron_eV=0.0,
        hartree_eV=known.get("ehart"),
        xc_eV=known.get("etxc"),
        ewald_eV=known.get("ewald"),
        smearing_eV=known.get("demet"),
        others_eV=others,
    )
    return replace(named, one_electron_eV=_left_over(root, known.get("etot"), named.total_eV))


def _left_over(root: ET.Element, total_eV: float | None, named_eV: float | None) -> float | None:
    """Return what the terms that are named leave of the total energy; None where others are in it too."""
    unnamed = _truth(root, "output/algorithmic_info/paw") is not False
    unnamed = unnamed or any(root.find(block) is not None for block in _UNNAMED_TERMS)
    return None if unnamed or total_eV is None or named_eV is None else total_eV - named_eV


def _spin(root: ET.Element) -> bool:
    return any(_truth(root, f"output/magnetization/{kind}") for kind in ("lsda", "noncolin"))


def _total_magnetization(root: ET.Element) -> float | None:
    """Return the total, or the vector's length; before 7.0 a vector was written as 0, which means nothing."""
    if _truth(root, "output/magnetization/noncolin"):
        vector = numbers(root.findtext("output/magnetization/total_vec") or "")
        return math.hypot(*vector) if vector else None
    return _number(root, "output/magnetization/total")


def _moments(root: ET.Element) -> tuple[float, ...] | None:
    sites = root.iterfind("output/magnetization/Scalar_Site_Magnetic_Moments/SiteMagnetization")
    moments = [numbers(site.text or "") for site in sites]
    return tuple(found[0] for found in moments) if moments and all(len(found) == 1 for found in moments) else None


def _smearing(element: ET.Element | None) -> Smearing | None:
    width = numbers("" if element is None else element.get("degauss", ""))
    if element is None or not width:
        return None
    kind = (element.text or "").strip().lower()
    return Smearing(_SMEARINGS.get(kind, kind), 2.0 * width[0])


def _features(root: ET.Element) -> CodeFeatures:
    counts = {tag: _integer(_number(root, f"parallel_info/{tag}")) for tag in _PARALLEL}
    return CodeFeatures(
        processes=counts["nprocs"],
        threads=counts["nthreads"],
        pools=counts["npool"],
        band_groups=counts["nbgrp"],
        diagonalization_processes=counts["ndiag"],
    )


def _timings(root: ET.Element) -> dict[str, Timing]:
    clocks: dict[str, Timing] = {}
    for element in root.iterfind("timing_info/partial"):
        cpu, wall = _number(element, "cpu"), _number(element, "wall")
        calls = numbers(element.get("calls", ""))
        if cpu is not None and wall is not None:
            clocks[element.get("label", "")] = Timing(cpu, wall, int(calls[0]) if calls else None)
    return clocks


def _fermi_levels(root: ET.Element) -> list[float]:
    """Return the Fermi energy or the highest occupied level, of both spins where they have one each, Hartree."""
    bands = "output/band_structure/"
    for name in ("fermi_energy", "highestOccupiedLevel", "two_fermi_energies"):
        levels = numbers(root.findtext(bands + name) or "")
        if levels:
            return levels
    return []


def _highest_occupation(root: ET.Element) -> float | None:
    """Return the largest occupation of the highest band over all k points and spins."""
    if _text(root, "input/bands/occupations") != "smearing":
        return None
    up = _integer(_number(root, "output/band_structure/nbnd_up")) or 0
    rows = [values(element.text or "") for element in root.iterfind("output/band_structure/ks_energies/occupations")]
    tops = [row[index] for row in rows for index in {up - 1, len(row) - 1} if 0 <= index < len(row)]
    return max(tops, default=None)


def _gap(bands: ET.Element | None, levels_Ha: list[float]) -> float | None:
    """Return the gap over all k points and spins in eV; 0 where a band crosses the Fermi level."""
    if bands is None or not levels_Ha:
        return None
    rows = [values(element.text or "") for element in bands.iterfind("ks_energies/eigenvalues")]
    if not rows or len({len(row) for row in rows}) != 1:
        return None
    energies = np.array(rows)
    n_up = _integer(_number(bands, "nbnd_up"))
    channels = [energies[:, :n_up], energies[:, n_up:]] if n_up else [energies]
    levels = levels_Ha if len(levels_Ha) == len(channels) else [levels_Ha[0]] * len(channels)
    occupied = [channel <= level + _LEVEL_DIGITS_Ha for channel, level in zip(channels, levels, strict=True)]
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
    found = [number for name in names for number in numbers(element.get(name, ""))]
    return tuple(int(value) for value in found) if len(found) == len(names) else None


def _pseudo_files(root: ET.Element) -> dict[str, str]:
    species = root.findall("output/atomic_species/species") or root.findall("input/atomic_species/species")
    return {item.get("name", ""): (item.findtext("pseudo_file") or "").strip() for item in species}


def _text(root: ET.Element, path: str) -> str | None:
    return (root.findtext(path) or "").strip() or None


def _number(root: ET.Element, path: str) -> float | None:
    found = values(root.findtext(path) or "")
    return found[0] if len(found) == 1 and math.isfinite(found[0]) else None


def _integer(value: float | None) -> int | None:
    return None if value is None else int(value)


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _truth(root: ET.Element, path: str) -> bool | None:
    return {"true": True, "false": False}.get((root.findtext(path) or "").strip().lower())
