"""The input of pw.x: a frozen description, and its canonical text."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from pymatgen.core import Element

from hullworks.errors import InputError, PseudopotentialError
from hullworks.workflows.qe.cells import check_structure, fractional, right_handed
from hullworks.workflows.qe.hubbard import check_hubbard
from hullworks.workflows.qe.kpoints import KMesh, mesh_from_distance
from hullworks.workflows.qe.protocols import Protocol, spin_rule
from hullworks.workflows.qe.pseudos import normalised_functional
from hullworks.workflows.qe.restarts import RestartKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pymatgen.core import Structure

    from hullworks.workflows.qe.pseudos import Family

Calculation = Literal["scf", "relax", "vc-relax"]
Value = bool | int | float | str

PREFIX = "pwscf"
PSEUDO_DIR = "../pseudo"
"""Folder of the pseudopotentials as an attempt sees it: beside all attempts, installed once."""
OUTDIR = "./out"

DECIMALS = 12
"""Decimals of cell vectors and positions. pw.x finds a symmetry only if it holds to 1e-5 in crystal coordinates, and
rounding errors of a step accumulate: with 5 decimals hexagonal close-packed cells keep 8 of their 24 symmetries."""

_MOVING = {"scf": (), "relax": ("IONS",), "vc-relax": ("IONS", "CELL")}


@dataclass(frozen=True)
class Species:
    """One element of a calculation.

    Attributes:
        element: Chemical symbol.
        filename: Pseudopotential file in the folder of pseudopotentials.
        z_valence: Number of valence electrons of that pseudopotential.
    """

    element: str
    filename: str
    z_valence: float


@dataclass(frozen=True)
class Override:
    """One setting that differs from what protocol and structure give.

    Attributes:
        namelist: Namelist, such as ``ELECTRONS``.
        key: Setting, such as ``mixing_beta``.
        value: Its value; none leaves the setting out.
    """

    namelist: str
    key: str
    value: Value | None


@dataclass(frozen=True)
class PwInput:
    """Everything that a pw.x input says.

    Attributes:
        calculation: ``scf``, ``relax`` (atoms) or ``vc-relax`` (atoms and cell).
        structure: The cell to start from.
        protocol: The accuracy.
        species: One for each element of the structure.
        ecutwfc_Ry: Cutoff of the wavefunctions, Ry.
        ecutrho_Ry: Cutoff of the density, Ry.
        mesh: The k-points.
        overrides: Settings that differ from the protocol's, as repairs and users ask for; a later one wins.
        max_seconds: pw.x stops by itself after this time, s; none never.
        restart: What is taken over from an earlier attempt, whose files then lie in the outdir.
    """

    calculation: Calculation
    structure: Structure
    protocol: Protocol
    species: tuple[Species, ...]
    ecutwfc_Ry: float
    ecutrho_Ry: float
    mesh: KMesh
    overrides: tuple[Override, ...] = ()
    max_seconds: float | None = None
    restart: RestartKind = RestartKind.SCRATCH

    def setting(self, namelist: str, key: str) -> Value | None:
        """Return a setting as it will be written; none when it is left to pw.x."""
        return namelists(self)[namelist].get(key)

    def with_setting(self, namelist: str, key: str, value: Value | None) -> PwInput:
        """Return a copy with one setting changed."""
        kept = tuple(item for item in self.overrides if (item.namelist, item.key) != (namelist, key))
        return replace(self, overrides=(*kept, Override(namelist, key, value)))

    def with_structure(self, structure: Structure) -> PwInput:
        """Return a copy that starts from another structure of the same cell shape class, with the same k-points."""
        return replace(self, structure=structure)

    @property
    def sha256(self) -> str:
        """Content hash of the input without its time limit, which depends on the allocation and not on the physics."""
        return hashlib.sha256(write_pw_input(replace(self, max_seconds=None)).encode()).hexdigest()


def build_pw_input(
    calculation: Calculation,
    structure: Structure,
    protocol: Protocol,
    family: Family,
    overrides: tuple[Override, ...] = (),
) -> PwInput:
    """Return the input that a protocol gives for a structure.

    Args:
        calculation: ``scf``, ``relax`` or ``vc-relax``.
        structure: The structure.
        protocol: The accuracy.
        family: The pseudopotentials.
        overrides: Settings that differ from the protocol's.

    Raises:
        InputError: The structure cannot be calculated; or what is asked for means nothing here, a Hubbard U or a
            functional that is not the pseudopotentials'.
        PseudopotentialError: An element has no pseudopotential or no cutoff.
    """
    check_structure(structure)
    elements = sorted({site.specie.symbol for site in structure})
    ecutwfc, ecutrho = family.cutoffs(elements)
    found = [family.pseudo(element) for element in elements]
    system = {item.key: item.value for item in overrides if item.namelist == "SYSTEM"}
    check_hubbard(system, found)
    _check_functional(system.get("input_dft"), family)
    return PwInput(
        calculation=calculation,
        structure=structure,
        protocol=protocol,
        species=tuple(Species(pseudo.element, pseudo.filename, pseudo.z_valence) for pseudo in found),
        ecutwfc_Ry=ecutwfc,
        ecutrho_Ry=ecutrho,
        mesh=mesh_from_distance(structure.lattice, protocol.kpoints_distance),
        overrides=overrides,
    )


def write_pw_input(pw_input: PwInput) -> str:
    """Return the text of a pw.x input.

    The text is canonical: the same input gives the same bytes. One setting stands on a line, since several parsers
    read only the first of each.

    Raises:
        InputError: An override names a namelist that the calculation does not have.
        PseudopotentialError: An element of the structure has no pseudopotential.
    """
    _require_species(pw_input)
    blocks = [_namelist_text(name, settings) for name, settings in namelists(pw_input).items()]
    blocks += [_species_text(pw_input), _mesh_text(pw_input.mesh), _structure_text(pw_input.structure)]
    return "\n".join(blocks) + "\n"


def namelists(pw_input: PwInput) -> dict[str, dict[str, Value]]:
    """Return all settings by namelist, overrides included, in the order in which they are written."""
    used = ("CONTROL", "SYSTEM", "ELECTRONS", *_MOVING[pw_input.calculation])
    makers = {"CONTROL": _control, "SYSTEM": _system, "ELECTRONS": _electrons, "IONS": _ions, "CELL": _cell}
    settings = {name: makers[name](pw_input) for name in used}
    for item in pw_input.overrides:
        if item.namelist not in settings:
            where = f"{item.namelist}: {item.key}"
            raise InputError(f"a calculation '{pw_input.calculation}' has no such namelist", where)
        if item.value is None:
            settings[item.namelist].pop(item.key, None)
        else:
            settings[item.namelist][item.key] = item.value
    return settings


def starting_magnetization(pw_input: PwInput) -> dict[str, float]:
    """Return the starting magnetization of each element as a share of its valence electrons, at most 1.

    Empty when no element is magnetic.
    """
    valence = {species.element: species.z_valence for species in pw_input.species}
    moments = spin_rule().moments(valence)
    return {element: round(min(1.0, moment / valence[element]), 4) for element, moment in moments.items()}


def spin_bands(pw_input: PwInput) -> int:
    """Return the number of bands of a spin-polarised calculation.

    With smearing pw.x takes 1.2 bands for each pair of electrons and at least four more than pairs (PW/src/setup.f90),
    which leaves the highest band empty without spin. It does not look at the moment: both spins get as many bands, and
    those of a high-spin manganese or gadolinium cell are fewer than its majority electrons. So there are also four more
    than the majority electrons of the start, which is the highest spin that there can be.
    """
    rule, valence = spin_rule(), {species.element: species.z_valence for species in pw_input.species}
    moments = rule.moments(valence)
    symbols = [site.specie.symbol for site in pw_input.structure]
    electrons = sum(valence[symbol] for symbol in symbols)
    moment = sum(min(moments[symbol], valence[symbol]) for symbol in symbols)
    pairs, majority = electrons / 2.0, (electrons + moment) / 2.0
    return math.ceil(max(rule.band_share * pairs, pairs + rule.extra_bands, majority + rule.extra_bands))


def _check_functional(asked: Value | None, family: Family) -> None:
    if asked is not None and normalised_functional(str(asked)) != family.functional:
        what = f"input_dft asks for {asked}, and the pseudopotentials are of {family.functional}"
        raise InputError(what, f"family {family.name}", "Use a family of that functional.")


def _control(pw_input: PwInput) -> dict[str, Value]:
    protocol, atoms = pw_input.protocol, len(pw_input.structure)
    settings: dict[str, Value] = {
        "calculation": pw_input.calculation,
        "restart_mode": "restart" if pw_input.restart is RestartKind.FULL else "from_scratch",
        "prefix": PREFIX,
        "outdir": OUTDIR,
        "pseudo_dir": PSEUDO_DIR,
        # The density is enough for whoever wants to go on; wavefunctions are large and never read again.
        "disk_io": "low",
        "tprnfor": True,
        "tstress": True,
    }
    if pw_input.calculation != "scf":
        settings["etot_conv_thr"] = protocol.etot_conv_thr_Ry_per_atom * atoms
        settings["forc_conv_thr"] = protocol.forc_conv_thr_Ry_per_bohr
        settings["nstep"] = protocol.nstep
    if pw_input.max_seconds is not None:
        settings["max_seconds"] = math.floor(pw_input.max_seconds)
    return settings


def _system(pw_input: PwInput) -> dict[str, Value]:
    settings: dict[str, Value] = {
        "ibrav": 0,
        "nat": len(pw_input.structure),
        "ntyp": len(pw_input.species),
        "ecutwfc": pw_input.ecutwfc_Ry,
        "ecutrho": pw_input.ecutrho_Ry,
        # Never fixed: a metal with an even number of electrons then gets a wrong energy without a word.
        "occupations": "smearing",
        "smearing": pw_input.protocol.smearing,
        "degauss": pw_input.protocol.degauss_Ry,
    }
    magnetization = starting_magnetization(pw_input)
    if magnetization:
        settings["nspin"] = 2
        settings["nbnd"] = spin_bands(pw_input)
        for index, species in enumerate(pw_input.species, start=1):
            settings[f"starting_magnetization({index})"] = magnetization[species.element]
    return settings


def _electrons(pw_input: PwInput) -> dict[str, Value]:
    protocol = pw_input.protocol
    settings: dict[str, Value] = {
        "conv_thr": protocol.conv_thr_Ry_per_atom * len(pw_input.structure),
        "electron_maxstep": protocol.electron_maxstep,
        "mixing_beta": protocol.mixing_beta,
        "diagonalization": "david",
    }
    if pw_input.restart in {RestartKind.CHARGE_DENSITY, RestartKind.WAVEFUNCTIONS}:
        settings["startingpot"] = "file"
    if pw_input.restart is RestartKind.WAVEFUNCTIONS:
        settings["startingwfc"] = "file"
    return settings


def _ions(pw_input: PwInput) -> dict[str, Value]:
    return {"ion_dynamics": "bfgs", "upscale": pw_input.protocol.upscale}


def _cell(pw_input: PwInput) -> dict[str, Value]:
    return {"cell_dynamics": "bfgs", "cell_dofree": "all", "press_conv_thr": pw_input.protocol.press_conv_thr_kbar}


def _require_species(pw_input: PwInput) -> None:
    known = {species.element for species in pw_input.species}
    missing = sorted({site.specie.symbol for site in pw_input.structure} - known)
    if missing:
        raise PseudopotentialError(f"no pseudopotential for {', '.join(missing)}", "input of pw.x")


def _namelist_text(name: str, settings: Mapping[str, Value]) -> str:
    lines = [f"  {key} = {_literal(value)}" for key, value in settings.items()]
    return "\n".join([f"&{name}", *lines, "/"])


def _literal(value: Value) -> str:
    if isinstance(value, bool):
        return ".true." if value else ".false."
    if isinstance(value, str):
        return f"'{value}'"
    return str(value) if isinstance(value, int) else f"{value:.10g}"


def _species_text(pw_input: PwInput) -> str:
    lines = [
        f"  {species.element} {float(Element(species.element).atomic_mass):.4f} {species.filename}"
        for species in pw_input.species
    ]
    return "\n".join(["ATOMIC_SPECIES", *lines])


def _mesh_text(mesh: KMesh) -> str:
    numbers = " ".join(str(number) for number in (*mesh.divisions, *mesh.shift))
    return f"K_POINTS automatic\n  {numbers}"


def _structure_text(structure: Structure) -> str:
    cell = right_handed(structure)
    vectors = [_row(vector) for vector in cell.lattice.matrix]
    rows = zip(cell, fractional(cell, DECIMALS), strict=True)
    atoms = [f"  {site.specie.symbol} {_row(position)}" for site, position in rows]
    return "\n".join(["CELL_PARAMETERS angstrom", *vectors, "ATOMIC_POSITIONS crystal", *atoms])


def _row(values: object) -> str:
    # Adding zero turns -0.0 into 0.0.
    return "  ".join(f"{float(value) + 0.0:.{DECIMALS}f}" for value in values)  # type: ignore[attr-defined]
