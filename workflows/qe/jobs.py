"""The steps of the graph for Quantum ESPRESSO, as jobflow Makers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from jobflow import Job, Maker, Response, job
from pymatgen.core import Structure  # noqa: TC002 - jobflow reads the annotations

from hullworks.errors import LevelError, PseudopotentialError, RunError
from hullworks.levels import LevelOfTheory
from hullworks.settings import get_settings
from hullworks.units import UNITS
from hullworks.workflows.qe.archive import archive_run
from hullworks.workflows.qe.as_ran import differences
from hullworks.workflows.qe.checkpoints import checkpoint_folder
from hullworks.workflows.qe.executable import pw_command, pw_environment
from hullworks.workflows.qe.hubbard import check_level
from hullworks.workflows.qe.inputs import Override, build_pw_input
from hullworks.workflows.qe.kpoints import mesh_from_distance
from hullworks.workflows.qe.outcomes import QeOutcome
from hullworks.workflows.qe.parser import check_convergence
from hullworks.workflows.qe.protocols import INITIAL_RELAX, Protocol, load_protocol
from hullworks.workflows.qe.run import FinishedRun, allocation_end, run_pw
from hullworks.workflows.qe.task_document import QeTaskDoc, Round

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hullworks.workflows.qe.inputs import Calculation
    from hullworks.workflows.qe.pseudos import Family

LARGE = "trajectory"
"""The part of a document that goes to the job store's additional store ``data``: it grows with atoms and steps."""


@dataclass
class QeMaker(Maker):
    """What the steps share: they know their level as data, and check it against what this machine has.

    Attributes:
        name: Name of the job.
        level: The level, as `LevelOfTheory.from_dict` reads it.
        stage: Stage of the protocol; empty where the energy counts.
        overrides: Settings of pw.x that differ from the protocol's, as (namelist, key, value).
    """

    calculation: ClassVar[Calculation] = "scf"

    name: str = "static"
    level: dict[str, Any] = field(default_factory=dict)
    stage: str = ""
    overrides: list[list[Any]] = field(default_factory=list)

    @property
    def protocol(self) -> Protocol:
        """The numbers of this step.

        Raises:
            LevelError: The protocol that this machine has is not the one of the level.
        """
        level = LevelOfTheory.from_dict(self.level)
        check_level(level)
        protocol = load_protocol(level.protocol)
        if protocol.content_hash != level.protocol_hash:
            raise LevelError(
                f"the protocol '{level.protocol}' of this installation has other numbers than the level",
                level.key,
                "Run it with the version of HullWorks that submitted it, or submit it again.",
            )
        return load_protocol(level.protocol, self.stage) if self.stage else protocol

    def _run(self, structure: Structure) -> FinishedRun:
        """Run pw.x in the working folder, and archive the folder."""
        settings = get_settings()
        family = level_family(LevelOfTheory.from_dict(self.level), {site.specie.symbol for site in structure})
        overrides = tuple(Override(*item) for item in self.overrides)
        pw_input = build_pw_input(self.calculation, structure, self.protocol, family, overrides)
        command = pw_command(settings)
        hashes = [family.pseudo(species.element).sha256 for species in pw_input.species]
        directory = Path.cwd()
        try:
            return run_pw(
                directory,
                pw_input,
                family=family,
                command=command,
                environment=pw_environment(threads=settings.qe.threads),
                deadline=allocation_end(settings.qe.walltime_s),
                checkpoint=checkpoint_folder(settings.runs_dir, pw_input, hashes),
            )
        finally:
            # Failures too: they are the ones that people look at, and the ones that pile up.
            archive_run(directory)


@dataclass
class QeRelaxMaker(QeMaker):
    """Relaxes atoms and cell.

    A relaxation with a variable cell keeps the plane waves of the cell that it began with. In the basis of the final
    cell stress is left over, and its k-points may have become too sparse. So the step repeats itself from its result,
    each time as a job of its own, until neither is the case.

    >>> maker = QeRelaxMaker(level=level.as_dict())
    >>> relax = maker.make(structure)
    >>> relax.output.structure, relax.output.convergence_error_eV_per_atom

    Attributes:
        name: Name of the job.
        repeat: Whether to repeat; the first relaxation of a graph need not.
    """

    calculation: ClassVar[Calculation] = "vc-relax"

    name: str = "relax"
    repeat: bool = True

    @job(data=[LARGE], output_schema=QeTaskDoc)
    def make(
        self,
        structure: Structure,
        initial_structure: Structure | None = None,
        prev: list[dict[str, Any]] | None = None,
    ) -> Response[QeTaskDoc]:
        """Relax a structure.

        Args:
            structure: Where to start.
            initial_structure: The structure that the graph began with; by default ``structure``.
            prev: Earlier rounds of the same relaxation, as `Round` documents.

        Raises:
            RunError: pw.x did not converge, or stress is left over after the most rounds that the protocol allows.
        """
        finished = self._run(structure)
        document = QeTaskDoc.from_run(finished, "relax", self.level, initial_structure)
        reason = another_round(finished, self.protocol)
        document.rounds = [*(Round.model_validate(item) for item in prev or []), _round(document, reason)]
        document.convergence_error_eV_per_atom = energy_change(document.rounds)
        if not (self.repeat and reason):
            return Response(output=document)
        if len(document.rounds) >= self.protocol.max_rounds:
            what = f"the cell did not settle in {len(document.rounds)} rounds of relaxation: {reason}"
            raise RunError(what, document.run_dir, "Look at the rounds' pressures; a larger cutoff lowers the stress.")
        return Response(output=document, replace=self._next(document))

    def _next(self, document: QeTaskDoc) -> Job:
        rounds = [item.model_dump() for item in document.rounds]
        following: Job = replace(self).make(document.structure, document.initial_structure, rounds)
        return following


@dataclass
class QeStaticMaker(QeMaker):
    """Calculates the energy of a structure as it is; the energy that goes onto the hull.

    >>> static = QeStaticMaker(level=level.as_dict()).make(relax.output.structure, relax.output.initial_structure)
    >>> static.output.energy_eV_per_atom

    Attributes:
        name: Name of the job.
    """

    name: str = "static"

    @job(data=[LARGE], output_schema=QeTaskDoc)
    def make(self, structure: Structure, initial_structure: Structure | None = None) -> Response[QeTaskDoc]:
        """Calculate a structure.

        Args:
            structure: The structure.
            initial_structure: The structure that the graph began with; by default ``structure``.

        Raises:
            RunError: pw.x did not converge.
        """
        finished = self._run(structure)
        document = QeTaskDoc.from_run(finished, "static", self.level, initial_structure)
        level = LevelOfTheory.from_dict(self.level)
        family = level_family(level, {site.specie.symbol for site in structure})
        document.unlike_level = differences(finished.run, level, self.protocol, family)
        return Response(output=document)


def initial_relax_maker(level: dict[str, Any], overrides: list[list[Any]] | None = None) -> QeRelaxMaker:
    """Return the Maker of a graph's first relaxation: loose, and not repeated."""
    return QeRelaxMaker(name="relax 1", level=level, stage=INITIAL_RELAX, overrides=overrides or [], repeat=False)


def level_family(level: LevelOfTheory, elements: Iterable[str]) -> Family:
    """Return the pseudopotentials of a level, proven to be the same files for the elements that are used.

    Raises:
        PseudopotentialError: This machine has other files than the level, other cutoffs, or none.
    """
    # At call time, because that module imports this one to build the graph.
    from hullworks.workflows.qe.code import get_family

    family = get_family(level.pseudo_family, get_settings(), load_protocol(level.protocol).cutoffs)
    wanted = dict(level.pseudo_hashes)
    family.require(elements)
    unlike = [element for element in sorted(elements) if family.pseudo(element).sha256 != wanted.get(element)]
    if unlike:
        what = f"the pseudopotentials of {', '.join(unlike)} are not those of the level {level.key}"
        raise PseudopotentialError(what, f"family {family.name}", "Restore the files, or submit at the present level.")
    if family.cutoff_rule != level.cutoff_rule:
        what = f"the cutoffs are '{family.cutoff_rule}', those of the level {level.key} '{level.cutoff_rule}'"
        next_step = "Run it with the table that it was submitted with, or submit it again."
        raise PseudopotentialError(what, f"family {family.name}", next_step)
    return family


def another_round(finished: FinishedRun, protocol: Protocol) -> str:
    """Return why a relaxation has to be repeated from its result; empty when it has not."""
    run, asked = finished.run, finished.folder.current
    limit = protocol.forc_conv_thr_Ry_per_bohr * UNITS.rydberg_per_bohr_to_eV_per_angstrom
    # Forces settle with the same tolerance as the stress; both scatter between basis sets.
    finding = check_convergence(run, limit * protocol.press_tolerance_factor, protocol.press_limit_kbar)
    if finding.outcome is not QeOutcome.CONVERGED:
        return "; ".join(str(item) for item in finding.evidence)
    if run.structure is not None:
        wanted = mesh_from_distance(run.structure.lattice, protocol.kpoints_distance)
        if wanted.denser_than(asked.mesh):
            return f"the final cell needs {wanted.divisions} k-points instead of {asked.mesh.divisions}"
    return ""


def energy_change(rounds: list[Round]) -> float | None:
    """Return the change of the energy between the last two rounds, eV/atom; none with one round."""
    if len(rounds) < 2:  # noqa: PLR2004 - a difference takes two
        return None
    return rounds[-1].energy_eV_per_atom - rounds[-2].energy_eV_per_atom


def _round(document: QeTaskDoc, reason: str) -> Round:
    return Round(
        energy_eV_per_atom=document.energy_eV_per_atom,
        pressure_kbar=document.pressure_kbar,
        max_force_eV_per_A=document.max_force_eV_per_A,
        mesh=document.mesh,
        reason=reason,
        run_dir=document.run_dir,
    )
