"""Protocols: how accurate a calculation is, read from ``protocols.yaml``."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from functools import cache
from typing import TYPE_CHECKING, Any

from hullworks.errors import LevelError
from hullworks.levels import LevelOfTheory
from hullworks.shipped import shipped_yaml

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hullworks.workflows.qe.pseudos import Family

INITIAL_RELAX = "initial_relax"
"""Name of the stage that brings a predicted cell near its minimum."""


@dataclass(frozen=True)
class Protocol:
    """The numbers of one protocol at one stage; ``protocols.yaml`` gives the reason of each.

    >>> load_protocol("fast").kpoint_rule
    '0.25/A'

    Attributes:
        name: Name of the protocol.
        stage: Step of the graph that the numbers belong to; empty for the steps whose energy counts.
        kpoints_distance: Largest distance between k-points, 1/Angstrom with the factor 2 pi.
        smearing: Smearing function, in QE's words.
        degauss_Ry: Width of the smearing, Ry.
        cutoffs: Column of the family's cutoff table: ``low``, ``normal`` or ``high``.
        conv_thr_Ry_per_atom: Error of the energy at which the charge density is converged, Ry/atom.
        etot_conv_thr_Ry_per_atom: Change of the energy in the last ionic step, Ry/atom.
        forc_conv_thr_Ry_per_bohr: Largest force, Ry/bohr.
        press_conv_thr_kbar: Largest stress, kbar.
        press_tolerance_factor: The final pressure may exceed its threshold by this factor.
        max_rounds: Most rounds of relaxation until cell, basis set and mesh belong together.
        mixing_beta: Share of the new charge density in the mixing.
        electron_maxstep: Most iterations to self-consistency.
        nstep: Most ionic steps of one run.
        upscale: Largest factor by which QE tightens ``conv_thr`` during a relaxation.
    """

    name: str
    stage: str
    kpoints_distance: float
    smearing: str
    degauss_Ry: float
    cutoffs: str
    conv_thr_Ry_per_atom: float
    etot_conv_thr_Ry_per_atom: float
    forc_conv_thr_Ry_per_bohr: float
    press_conv_thr_kbar: float
    press_tolerance_factor: float
    max_rounds: int
    mixing_beta: float
    electron_maxstep: int
    nstep: int
    upscale: float

    @property
    def kpoint_rule(self) -> str:
        """The k-point rule as a level of theory names it."""
        return f"{self.kpoints_distance:.2f}/A"

    @property
    def press_limit_kbar(self) -> float:
        """Largest pressure of a final calculation that needs no further round, kbar."""
        return self.press_conv_thr_kbar * self.press_tolerance_factor

    @property
    def content_hash(self) -> str:
        """SHA-256 of the numbers, hexadecimal; a protocol whose numbers change makes a new level of theory."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def as_dict(self) -> dict[str, Any]:
        """Return all numbers as plain JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class SpinRule:
    """How magnetic moments are started.

    Attributes:
        rule: Name of the rule, as a level of theory names it.
        d_moment_muB: Start of an element with an open d shell, Bohr magnetons.
        f_moment_muB: Start of an element with an open f shell, Bohr magnetons.
        other_moment_muB: Start of the others in a cell that holds a magnetic element, Bohr magnetons.
        band_share: Bands per pair of electrons.
        extra_bands: Least number of bands above those that hold electrons.
        d_elements: Elements with an open d shell.
        f_elements: Elements with an open f shell.
    """

    rule: str
    d_moment_muB: float
    f_moment_muB: float
    other_moment_muB: float
    band_share: float
    extra_bands: int
    d_elements: frozenset[str]
    f_elements: frozenset[str]

    def moments(self, elements: Iterable[str]) -> dict[str, float]:
        """Return the starting moment of each element, Bohr magnetons; empty when none of them is magnetic."""
        ordered = sorted(set(elements))
        if not (self.d_elements | self.f_elements).intersection(ordered):
            return {}
        return {element: self._moment(element) for element in ordered}

    def _moment(self, element: str) -> float:
        if element in self.f_elements:
            return self.f_moment_muB
        return self.d_moment_muB if element in self.d_elements else self.other_moment_muB


@dataclass(frozen=True)
class CellRule:
    """What a cell must fulfil before it is worth a run.

    Attributes:
        min_distance_share: Least distance of two atoms in sums of their covalent radii.
        min_distance_A: Least distance of atoms without a covalent radius, Angstrom.
        min_volume_per_atom_A3: Least volume per atom, Angstrom^3.
        symmetry_tolerance_A: Distance within which a cell is made exactly symmetric, Angstrom.
    """

    min_distance_share: float
    min_distance_A: float
    min_volume_per_atom_A3: float
    symmetry_tolerance_A: float


@dataclass(frozen=True)
class RunRule:
    """How the time of a run is kept.

    Attributes:
        walltime_share: Share of the time left that pw.x may use.
        reserve_s: Seconds kept for what follows pw.x.
        min_attempt_s: No attempt starts with less time than this, s.
        grace_s: Seconds between SIGTERM and SIGKILL.
    """

    walltime_share: float
    reserve_s: float
    min_attempt_s: float
    grace_s: float


def load_protocol(name: str = "", stage: str = "") -> Protocol:
    """Return a protocol.

    Args:
        name: ``fast``, ``balanced`` or ``stringent``; by default the one that ``protocols.yaml`` names.
        stage: ``initial_relax`` for the first relaxation, empty otherwise.

    Raises:
        LevelError: There is no such protocol or stage.
    """
    table = _table()
    chosen = name or table["default"]
    delta = _named(table["protocols"], chosen, "protocol")
    change = _named(table["stages"], stage, "stage") if stage else {}
    return Protocol(name=chosen, stage=stage, **{**table["base"], **delta, **change})


def protocol_names() -> tuple[str, ...]:
    """Return the names of all protocols."""
    return tuple(_table()["protocols"])


def spin_rule() -> SpinRule:
    """Return the rule for starting moments."""
    values = dict(_table()["spin"])
    for key in ("d_elements", "f_elements"):
        values[key] = frozenset(values[key])
    return SpinRule(**values)


def cell_rule() -> CellRule:
    """Return what a cell must fulfil before a run."""
    return CellRule(**_table()["cell"])


def run_rule() -> RunRule:
    """Return how the time of a run is kept."""
    return RunRule(**_table()["run"])


def level_of_theory(protocol: Protocol, family: Family) -> LevelOfTheory:
    """Return the level of theory of a protocol with a pseudopotential family.

    Args:
        protocol: The protocol of the steps whose energy counts.
        family: The pseudopotentials; their content and their cutoffs are part of the level.
    """
    return LevelOfTheory(
        code="qe",
        functional=family.functional,
        protocol=protocol.name,
        protocol_hash=protocol.content_hash,
        pseudo_family=family.name,
        pseudo_hashes=family.hashes,
        spin_rule=spin_rule().rule,
        kpoint_rule=protocol.kpoint_rule,
        cutoff_rule=family.cutoff_rule,
    )


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = shipped_yaml("hullworks.workflows.qe", "protocols.yaml")
    return table


def _named(section: dict[str, dict[str, Any]], name: str, kind: str) -> dict[str, Any]:
    if name not in section:
        raise LevelError(f"there is no such {kind}", name, f"Known: {', '.join(section)}.")
    unknown = sorted(set(section[name]) - {field.name for field in fields(Protocol)})
    if unknown:
        raise LevelError(f"unknown number {', '.join(unknown)}", f"{kind} {name} in protocols.yaml")
    return section[name]
