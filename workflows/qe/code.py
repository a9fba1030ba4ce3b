"""Quantum ESPRESSO as one of the electronic-structure codes: its levels, its checks, its graph."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from hullworks.analysis.verdicts import read_flags
from hullworks.errors import LevelError
from hullworks.levels import DEFAULT_FAMILY, LevelOfTheory
from hullworks.workflows.landing import FinishedCalculation, land
from hullworks.workflows.qe.as_ran import provenance
from hullworks.workflows.qe.flows import QeRelaxRelaxStaticMaker
from hullworks.workflows.qe.hubbard import check_level
from hullworks.workflows.qe.protocols import level_of_theory, load_protocol, protocol_names
from hullworks.workflows.qe.pseudos import Family, load_family
from hullworks.workflows.qe.task_document import QeTaskDoc

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobflow import Flow
    from pymatgen.core import Structure

    from hullworks.settings import Settings
    from hullworks.workflows.codes import CalculationContext

GRAPH_VERSION: Final = "qe-2"


def protocols() -> tuple[str, ...]:
    """Return the names of the protocols."""
    return protocol_names()


def families(settings: Settings) -> dict[str, str]:
    """Return the pseudopotential families and their functionals; a family that cannot be loaded raises."""
    names = [DEFAULT_FAMILY, *settings.qe.pseudo_families]
    return {name: get_family(name, settings, load_protocol().cutoffs).functional for name in names}


def get_family(name: str, settings: Settings, cutoffs: str) -> Family:
    """Return a family by the name that the embedded one or the settings give it.

    Args:
        name: Name of the family.
        settings: The project's settings.
        cutoffs: Column of its cutoff table: ``low``, ``normal`` or ``high``.

    Raises:
        LevelError: There is no such family.
        PseudopotentialError: Its files cannot be used.
    """
    if name == DEFAULT_FAMILY:
        return load_family(name, stringency=cutoffs)
    folder = settings.qe.pseudo_families.get(name)
    if folder is None:
        known = ", ".join([DEFAULT_FAMILY, *settings.qe.pseudo_families])
        raise LevelError("no such pseudopotential family", name, f"Known: {known}. Add it under [qe.pseudo_families].")
    return _folder_family(str(folder), name, cutoffs)


@lru_cache(maxsize=16)
def _folder_family(folder: str, name: str, cutoffs: str) -> Family:
    return load_family(folder, name=name, stringency=cutoffs)


def build_level(functional: str, protocol: str, family: str, settings: Settings) -> LevelOfTheory:
    """Return the level of theory of a functional, protocol and family.

    Raises:
        LevelError: The protocol or family is unknown, or the family is of another functional.
        PseudopotentialError: The family's files cannot be used.
    """
    numbers = load_protocol(protocol)
    members = get_family(family, settings, numbers.cutoffs)
    if members.functional.lower() != functional.lower():
        raise LevelError(
            f"the pseudopotentials are of {members.functional}, not of {functional}",
            f"family {family}",
            "Ask for the level with the family's functional.",
        )
    return level_of_theory(numbers, members)


def check_structure(structure: Structure, level: LevelOfTheory, settings: Settings) -> None:
    """Raise when a level cannot compute a structure: an element without a pseudopotential or a cutoff.

    Raises:
        PseudopotentialError: Names all such elements, and what to do.
    """
    family = get_family(level.pseudo_family, settings, load_protocol(level.protocol).cutoffs)
    family.require(sorted({site.specie.symbol for site in structure}))


def build_flow(structure: Structure, level: LevelOfTheory, context: CalculationContext, settings: Settings) -> Flow:
    """Return relax → relax → static → land for one candidate.

    Raises:
        LevelError: The present protocols and pseudopotentials no longer give this level.
    """
    check_level(level)
    present = build_level(level.functional, level.protocol, level.pseudo_family, settings)
    if present != level:
        raise LevelError(
            f"the protocols or pseudopotentials have changed; they now give {present.key}",
            level.key,
            "Submit the batch again at the present level.",
        )
    maker = QeRelaxRelaxStaticMaker.at(level, name=context.name)
    metadata = {"candidate_id": context.candidate_id, "calculation_id": context.calculation_id}
    return maker.make(structure, metadata=metadata, land=lambda static, relax: land(static, relax, context.as_dict()))


def read_result(static: Mapping[str, Any], relaxation: Mapping[str, Any]) -> FinishedCalculation:
    """Return what the steps' documents say, in the words that all codes share.

    Args:
        static: Document of the static step.
        relaxation: Document of the last round of the last relaxation.

    Raises:
        ValueError: A document is not one of a step.
    """
    last, relaxed = QeTaskDoc.model_validate(static), QeTaskDoc.model_validate(relaxation)
    change = relaxed.convergence_error_eV_per_atom
    return FinishedCalculation(
        structure=last.structure,
        initial_structure=last.initial_structure,
        energy_eV_per_atom=last.energy_eV_per_atom,
        relaxed_energy_eV_per_atom=relaxed.energy_eV_per_atom,
        convergence_error_eV_per_atom=None if change is None else abs(change),
        succeeded=last.succeeded and relaxed.succeeded,
        level=LevelOfTheory.from_dict(last.level),
        results=_results(last, relaxed),
        provenance={
            "static_dir": last.run_dir,
            "relax_dirs": [step.run_dir for step in relaxed.rounds],
            "host": last.host,
            "code_version": last.code_version,
            "input_sha256": last.input_sha256,
            "as_ran": provenance(last.as_ran),
            "corrections": [*relaxed.corrections, *last.corrections],
        },
        unlike_level=tuple(last.unlike_level),
        flags=read_flags([*relaxed.flags, *last.flags]),
    )


def _results(static: QeTaskDoc, relaxed: QeTaskDoc) -> dict[str, Any]:
    return {
        "pressure_kbar": static.pressure_kbar,
        "max_force_eV_per_A": static.max_force_eV_per_A,
        "gap_eV": static.gap_eV,
        "total_magnetization_muB": static.total_magnetization_muB,
        "absolute_magnetization_muB": static.absolute_magnetization_muB,
        "smearing_eV_per_atom": static.smearing_eV_per_atom,
        "k_mesh": static.mesh,
        "n_k_points": static.n_k_points,
        "ecutwfc_Ry": static.ecutwfc_Ry,
        "ecutrho_Ry": static.ecutrho_Ry,
        "relax_rounds": len(relaxed.rounds),
    }
