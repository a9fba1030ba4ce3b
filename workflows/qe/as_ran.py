"""What a run of pw.x was really computed with, held against what its level of theory says."""

from __future__ import annotations

import hashlib
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from hullworks.workflows.qe.kpoints import mesh_from_distance
from hullworks.workflows.qe.protocols import spin_rule
from hullworks.workflows.qe.pseudos import normalised_functional

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hullworks.levels import LevelOfTheory
    from hullworks.workflows.qe.protocols import Protocol
    from hullworks.workflows.qe.pseudos import Family
    from hullworks.workflows.qe.results import QeRun

_ROUND_Ry = 1e-4
"""Cutoffs come back through hartree, and in older output with two decimals less."""
_ROUND_WIDTH_Ry = 1e-6

_KINDS = {
    "gaussian": "gaussian",
    "gauss": "gaussian",
    "mp": "methfessel-paxton",
    "m-p": "methfessel-paxton",
    "methfessel-paxton": "methfessel-paxton",
    "mv": "marzari-vanderbilt",
    "m-v": "marzari-vanderbilt",
    "cold": "marzari-vanderbilt",
    "marzari-vanderbilt": "marzari-vanderbilt",
    "fd": "fermi-dirac",
    "f-d": "fermi-dirac",
    "fermi-dirac": "fermi-dirac",
}
"""The names that pw.x takes for each smearing function (INPUT_PW, ``smearing``)."""


class AsRan(BaseModel):
    """The settings of a run as pw.x itself reports them; what its files do not tell is None or empty.

    Attributes:
        code_version: Version of pw.x.
        functional: Exchange-correlation functional.
        ecutwfc_Ry: Cutoff of the wavefunctions, Ry.
        ecutrho_Ry: Cutoff of the density, Ry.
        smearing: Smearing function.
        degauss_Ry: Its width, Ry.
        k_grid: Monkhorst-Pack divisions and shifts, six numbers.
        spin: Whether the spins were free.
        pseudos: From element to name and MD5 sum of the file that was read; the name holds the content's SHA-256.
        processes: MPI processes.
        pools: Groups of processes that shared the k-points.
        memory_MB: Estimate of the peak memory of one process, MB.
    """

    model_config = ConfigDict(extra="forbid")

    code_version: str | None
    functional: str | None
    ecutwfc_Ry: float | None
    ecutrho_Ry: float | None
    smearing: str | None
    degauss_Ry: float | None
    k_grid: list[int] | None
    spin: bool
    pseudos: dict[str, list[str]]
    processes: int | None = None
    pools: int | None = None
    memory_MB: float | None = None

    @classmethod
    def of(cls, run: QeRun) -> AsRan:
        """Return what a run reports."""
        smearing = run.smearing
        return cls(
            code_version=run.code_version,
            functional=None if run.functional is None else normalised_functional(run.functional),
            ecutwfc_Ry=run.ecutwfc_Ry,
            ecutrho_Ry=run.ecutrho_Ry,
            smearing=None if smearing is None else smearing.kind,
            degauss_Ry=None if smearing is None else smearing.width_Ry,
            k_grid=None if run.k_grid is None else list(run.k_grid),
            spin=run.absolute_magnetization is not None,
            pseudos={item.element: [PurePath(item.path).name, item.md5] for item in run.pseudos_read},
            processes=run.features.processes,
            pools=run.features.pools,
            memory_MB=None if run.memory is None else run.memory.per_process_MB,
        )


def differences(run: QeRun, level: LevelOfTheory, protocol: Protocol, family: Family) -> list[str]:
    """Return in what a run differs from its level, as pw.x itself reports it; empty when in nothing.

    An input says what was asked for. A repair, a setting of one's own, another file of the same name or another
    version of the code may have made something else of it, and an energy of another level must not meet those of this.

    Args:
        run: A run whose structure and energy are known.
        level: The level that its energy is meant for.
        protocol: The level's protocol.
        family: The level's pseudopotentials.
    """
    ran = AsRan.of(run)
    return [*_settings(run, ran, level, protocol, family), *_pseudos(run, ran, family)]


def _settings(run: QeRun, ran: AsRan, level: LevelOfTheory, protocol: Protocol, family: Family) -> Iterator[str]:
    elements = _elements(run)
    if ran.functional != normalised_functional(level.functional):
        yield f"the functional was {ran.functional}, not {level.functional}"
    names = ("wavefunctions", "density")
    for name, used, wanted in zip(names, (ran.ecutwfc_Ry, ran.ecutrho_Ry), family.cutoffs(elements), strict=True):
        if used is None or abs(used - wanted) > _ROUND_Ry:
            yield f"the cutoff of the {name} was {used} Ry, not {wanted} Ry"
    kind, width = _KINDS[protocol.smearing], protocol.degauss_Ry
    if ran.smearing != kind or ran.degauss_Ry is None or abs(ran.degauss_Ry - width) > _ROUND_WIDTH_Ry:
        yield f"the smearing was {ran.smearing or 'none'}, {ran.degauss_Ry} Ry wide, not {kind}, {width} Ry"
    if run.structure is not None:
        mesh = mesh_from_distance(run.structure.lattice, protocol.kpoints_distance)
        if ran.k_grid != [*mesh.divisions, *mesh.shift]:
            yield f"the k-points were {ran.k_grid}, not {[*mesh.divisions, *mesh.shift]}"
    magnetic = bool(spin_rule().moments(elements))
    if ran.spin is not magnetic:
        yield f"the spins were {'free' if ran.spin else 'paired'}, and the level's rule {level.spin_rule} has them not"


def _pseudos(run: QeRun, ran: AsRan, family: Family) -> Iterator[str]:
    for element in _elements(run):
        pseudo = family.pseudo(element)
        name, printed = ran.pseudos.get(element, ["none that it names", ""])
        # The checksum is of no use against forgery; pw.x prints no other.
        expected = hashlib.md5(pseudo.content(), usedforsecurity=False).hexdigest()
        if name != pseudo.filename or printed not in {"", expected}:
            yield f"the pseudopotential of {element} was {name} {printed}".rstrip() + f", not {pseudo.filename}"


def _elements(run: QeRun) -> list[str]:
    return [] if run.structure is None else sorted({site.specie.symbol for site in run.structure})


def provenance(ran: AsRan | None) -> dict[str, Any]:
    """Return the settings as an entry keeps them."""
    return {} if ran is None else ran.model_dump()
