"""Landing: a finished calculation is validated and becomes an entry, once, however often it lands."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from jobflow import job
from mongoengine.errors import NotUniqueError

from hullworks.analysis.stability import is_halted, published, update_level
from hullworks.analysis.verdicts import VerdictFlag, load_thresholds
from hullworks.database import connect
from hullworks.documents import Calculation, Candidate, Entry, Reason
from hullworks.errors import HullError, LandingError, StateError
from hullworks.levels import LevelOfTheory
from hullworks.settings import get_settings
from hullworks.shipped import shipped_yaml
from hullworks.states import CandidateState, Cause, Role
from hullworks.workflows.codes import CalculationContext, get_code
from hullworks.workflows.identity import entry_id, structure_id
from hullworks.workflows.intake.crystal import closest_contact
from hullworks.workflows.intake.limits import default_limits
from hullworks.workflows.symmetry import space_group

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pymatgen.core import Structure


LARGE_LEVEL: Final = 20_000
"""A level with more events is published by `hullworks launch` alone, which keeps its hull in memory: each run that
loaded 132,000 entries for itself would take 2 s and 470 MB on its node."""


@dataclass(frozen=True)
class FinishedCalculation:
    """What a code's graph hands over, in the same words for every code.

    Attributes:
        structure: The relaxed structure, to which the energy belongs.
        initial_structure: The structure that was submitted.
        energy_eV_per_atom: Total energy, as it goes onto the hull.
        relaxed_energy_eV_per_atom: Energy at the end of the last relaxation; differs by basis set and k-points only.
        convergence_error_eV_per_atom: What is known of the numerical error; None when nothing is.
        succeeded: Whether every step converged within its protocol's thresholds.
        level: The level that the steps say they were computed at.
        results: Numbers for a person and for later use: forces, pressure, gap, magnetisation, k-points, cutoffs.
        provenance: Where it comes from: run folders, code version, input hashes.
        flags: What a reader of the verdict has to know.
        unlike_level: In what the settings that the code itself reports differ from the level.
    """

    structure: Structure
    initial_structure: Structure
    energy_eV_per_atom: float
    relaxed_energy_eV_per_atom: float | None
    convergence_error_eV_per_atom: float | None
    succeeded: bool
    level: LevelOfTheory
    results: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    flags: tuple[VerdictFlag, ...] = ()
    unlike_level: tuple[str, ...] = ()

    @property
    def volume_change(self) -> float:
        """Relative change of the volume per atom from the submitted to the relaxed cell."""
        before = self.initial_structure.volume / len(self.initial_structure)
        return float(self.structure.volume / len(self.structure) / before - 1.0)

    @property
    def energy_drift_eV_per_atom(self) -> float | None:
        """Static energy less the last energy of the relaxation."""
        if self.relaxed_energy_eV_per_atom is None:
            return None
        return self.energy_eV_per_atom - self.relaxed_energy_eV_per_atom


@dataclass(frozen=True)
class LandingRules:
    """The numbers of ``landing.yaml``, which gives the reason and source of each."""

    volume_change_invalid: float
    min_distance_fraction: float
    energy_drift_invalid_eV_per_atom: float
    symmetry_tolerance_A: float


@cache
def load_rules() -> LandingRules:
    """Return the rules that HullWorks ships."""
    return LandingRules(**shipped_yaml("hullworks.workflows", "landing.yaml"))


def violations(finished: FinishedCalculation, level: LevelOfTheory) -> Iterator[Reason]:
    """Yield the reasons why a finished calculation must not move the hull."""
    rules = load_rules()
    if finished.level != level:
        yield Reason(code="level", text=f"it was computed at {finished.level.key}, not at {level.key}")
    for difference in finished.unlike_level:
        yield Reason(code="level", text=f"the code reports otherwise than {level.key}: {difference}")
    if not finished.succeeded:
        yield Reason(code="unconverged", text="a step did not converge within its protocol's thresholds")
    if finished.structure.composition.reduced_formula != finished.initial_structure.composition.reduced_formula:
        yield Reason(code="composition", text="the relaxed crystal has another composition than the submitted one")
    low, high = load_thresholds().energy_bounds_eV
    if not low <= finished.energy_eV_per_atom <= high:
        yield Reason(code="energy", text=f"{finished.energy_eV_per_atom:.3f} eV/atom is no energy of a solid")
    yield from _geometry_violations(finished, rules)


def _geometry_violations(finished: FinishedCalculation, rules: LandingRules) -> Iterator[Reason]:
    if abs(finished.volume_change) > rules.volume_change_invalid:
        yield Reason(code="volume", text=f"the volume changed by {finished.volume_change:+.0%}")
    contact = closest_contact(finished.structure, default_limits()).fraction
    if contact < rules.min_distance_fraction:
        yield Reason(code="distance", text=f"two atoms are at {contact:.2f} of the sum of their covalent radii")
    drift = finished.energy_drift_eV_per_atom
    if drift is not None and abs(drift) > rules.energy_drift_invalid_eV_per_atom:
        yield Reason(code="drift", text=f"static run and relaxation differ by {drift:+.4f} eV/atom")


def build_entry(finished: FinishedCalculation, context: CalculationContext) -> Entry:
    """Return the entry of a finished calculation, valid or with the reasons why not.

    Args:
        finished: The calculation.
        context: Who asked for it.

    Raises:
        LandingError: An energy or the volume is not a number; such a thing is not even stored as invalid.
    """
    _require_numbers(finished, context)
    level = LevelOfTheory.from_dict(context.level)
    composition = finished.structure.composition
    reasons = list(violations(finished, level))
    amounts = composition.get_el_amt_dict()
    return Entry(
        entry_id=entry_id(context.calculation_id),
        calculation_id=context.calculation_id,
        candidate_id=context.candidate_id,
        level_key=level.key,
        name=context.name,
        role=Role(context.role),
        formula=composition.formula.replace(" ", ""),
        reduced_formula=composition.reduced_formula,
        chemsys=composition.chemical_system,
        elements=sorted(amounts),
        composition=amounts,
        n_atoms=len(finished.structure),
        uncorrected_energy_eV_per_atom=finished.energy_eV_per_atom,
        energy_eV_per_atom=finished.energy_eV_per_atom,
        convergence_error_eV_per_atom=finished.convergence_error_eV_per_atom,
        uncertainty_parts_eV_per_atom=_uncertainty_parts(finished),
        structure=finished.structure.as_dict(),
        structure_id=structure_id(finished.structure),
        initial_structure_id=context.structure_id,
        valid=not reasons,
        reasons=reasons,
        flags=_flags(finished),
        results={
            **finished.results,
            **_symmetry(finished.structure),
            "volume_change": finished.volume_change,
            "energy_drift_eV_per_atom": finished.energy_drift_eV_per_atom,
        },
        provenance=finished.provenance,
    )


def _symmetry(structure: Structure) -> dict[str, Any]:
    """Return the space group that a relaxed crystal has come to; both none when it cannot be told."""
    kinds = [site.specie.Z for site in structure]
    found = space_group(structure.lattice.matrix, structure.frac_coords, kinds, load_rules().symmetry_tolerance_A)
    symbol, number = found or (None, None)
    return {"space_group": symbol, "space_group_number": number}


def _require_numbers(finished: FinishedCalculation, context: CalculationContext) -> None:
    energies = (
        finished.energy_eV_per_atom,
        finished.relaxed_energy_eV_per_atom,
        finished.convergence_error_eV_per_atom,
    )
    if not all(number is None or math.isfinite(number) for number in (*energies, finished.volume_change)):
        raise LandingError("an energy or the volume of the result is not a number", context.calculation_id)


def _uncertainty_parts(finished: FinishedCalculation) -> dict[str, float]:
    """Return what is known of the error, by source; ``own:`` is what no other entry shares."""
    error = finished.convergence_error_eV_per_atom
    return {} if error is None else {"own:convergence": error}


def _flags(finished: FinishedCalculation) -> list[str]:
    flags = {flag.value for flag in finished.flags}
    if abs(finished.volume_change) > load_thresholds().volume_change:
        flags.add(VerdictFlag.VOLUME_CHANGE_LARGE.value)
    return sorted(flags)


def store_entry(entry: Entry) -> Entry:
    """Store an entry unless its calculation has one, and bring its candidate along; return the stored one.

    Safe to repeat and to be killed anywhere: the entry's key is that of its calculation.
    """
    try:
        entry.save(force_insert=True)
    except NotUniqueError:
        entry = Entry.objects.get(calculation_id=entry.calculation_id)
    Calculation.objects(calculation_id=entry.calculation_id).update_one(set__entry_id=entry.entry_id)
    settle_candidate(entry)
    return entry


def settle_candidate(entry: Entry) -> bool:
    """Move the candidate of a stored entry to where the entry puts it; return whether it had to be moved."""
    state = CandidateState.LANDED if entry.valid else CandidateState.FAILED
    fields: dict[str, Any] = {"entry_id": entry.entry_id, "cause": Cause.CONVERGED, "reason": None}
    why = f"{entry.entry_id}, {entry.energy_eV_per_atom:.6f} eV/atom"
    if not entry.valid:
        why = "; ".join(reason.text for reason in entry.reasons)
        fields |= {"cause": Cause.INVALID, "reason": Reason(code=entry.reasons[0].code, text=why)}
    try:
        Candidate.move(entry.candidate_id, state, why, **fields)
    except StateError:
        # It landed before, or its user cancelled it; the entry is true all the same.
        return False
    return True


def land_result(static: Mapping[str, Any], relaxation: Mapping[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
    """Validate and store what a graph ended with, and update the hull; the documents must be connected.

    Args:
        static: Output document of the static step.
        relaxation: Output document of the last relaxation.
        context: `CalculationContext.as_dict` of who asked.

    Returns:
        Id and validity of the entry.

    Raises:
        LandingError: The documents lack what an entry needs.
    """
    asked = CalculationContext(**context)
    code = get_code(str(asked.level.get("code", "")))
    try:
        finished = code.read_result(static, relaxation)
    except (KeyError, TypeError, ValueError) as error:
        raise LandingError(f"the result cannot be read ({error!r})", asked.calculation_id) from error
    entry = store_entry(build_entry(finished, asked))
    if entry.valid:
        _update_hull(entry.level_key)
    return {"entry_id": entry.entry_id, "valid": entry.valid, "reasons": [reason.text for reason in entry.reasons]}


def _update_hull(level_key: str) -> None:
    """Bring the hull up to date, unless an audit has stopped it, or others do it: the entry is stored, and waits."""
    if published(level_key) > LARGE_LEVEL:
        return
    try:
        update_level(level_key)
    except HullError:
        if not is_halted(level_key):
            raise


@job
def land(static: dict[str, Any], relaxation: dict[str, Any], context: dict[str, Any]) -> dict[str, Any]:
    """Land a finished graph: the last step of each.

    See `land_result` for arguments and errors.
    """
    settings = get_settings()
    connect(settings, wait_s=settings.database.wait_s, create=False)
    return land_result(static, relaxation, context)
