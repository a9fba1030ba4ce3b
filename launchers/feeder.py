"""The feeder: tops the LaunchPad up with the best-ranked candidates, within its window."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from jobflow.managers.fireworks import flow_to_workflow
from pymatgen.core import Structure

from hullworks.documents import SCHEMA_VERSION, Calculation, Candidate, Level, Reason, now
from hullworks.errors import HullWorksError, StateError
from hullworks.launchers.launchpad import CALCULATION_FIELD, add_workflow
from hullworks.leases import lease
from hullworks.levels import LevelOfTheory
from hullworks.states import IN_FLIGHT, CandidateState
from hullworks.workflows.codes import CalculationContext, build_flow

if TYPE_CHECKING:
    from fireworks import LaunchPad, Workflow

    from hullworks.settings import Settings

LEASE_S = 60.0
CHUNK = 50
"""Candidates fed under one lease; a chunk takes seconds."""


def feed(launchpad: LaunchPad, settings: Settings) -> Counter[str]:
    """Put queued candidates on the LaunchPad until its window is full or none is left.

    Safe beside other feeders, and after one that was killed: a candidate is first moved by compare-and-set, and the
    LaunchPad refuses a second workflow of one calculation.

    Returns:
        How many candidates were submitted, and how many could not be.
    """
    done: Counter[str] = Counter()
    with lease("feeder", LEASE_S) as held:
        room = settings.launch.window - Candidate.objects(state__in=list(IN_FLIGHT)).count()
        if not held or room <= 0:  # a limit of 0 would mean none to MongoDB
            return done
        queue = Candidate.objects(state=CandidateState.QUEUED).order_by("rank", "candidate_id")
        for candidate in queue.limit(min(room, CHUNK)):
            done[_feed_one(launchpad, candidate, settings)] += 1
    return done


def _feed_one(launchpad: LaunchPad, candidate: Candidate, settings: Settings) -> str:
    """Submit one candidate; return what became of it."""
    try:
        workflow = build_workflow(candidate, settings)
    except HullWorksError as error:
        reason = Reason(code=type(error).__name__, text=error.what, next_step=error.next_step)
        moved = _moved(candidate, CandidateState.REJECTED, str(error), reason=reason)
        return "refused" if moved else "taken"
    if not _moved(candidate, CandidateState.SUBMITTED, "fed to the LaunchPad"):
        return "taken"
    workflow_id = _store(launchpad, workflow)
    Candidate.objects(candidate_id=candidate.candidate_id).update_one(set__workflow_id=workflow_id, inc__attempts=1)
    Calculation.objects(calculation_id=candidate.calculation_id).update_one(set__workflow_id=workflow_id)
    return "submitted"


def _moved(candidate: Candidate, new: CandidateState, why: str, **fields: Any) -> bool:
    """Move a queued candidate; return False when it was paused, cancelled or fed by somebody else in the meantime."""
    try:
        Candidate.move(candidate.candidate_id, new, why, only_from={CandidateState.QUEUED}, **fields)
    except StateError:
        return False
    return True


def _store(launchpad: LaunchPad, workflow: Workflow) -> int:
    """Add the workflow, or find the one that a killed feeder left behind."""
    calculation_id = workflow.metadata["calculation_id"]
    try:
        return add_workflow(launchpad, workflow)
    except StateError:
        present = launchpad.workflows.find_one({CALCULATION_FIELD: calculation_id}, {"nodes": 1})
        return int(min(present["nodes"]))


def build_workflow(candidate: Candidate, settings: Settings) -> Workflow:
    """Return the FireWorks workflow of a candidate, and note its calculation.

    Raises:
        HullWorksError: The graph cannot be built: a pseudopotential is missing, the level has changed, ...
    """
    level = LevelOfTheory.from_dict(Level.objects.get(key=candidate.level_key).data)
    context = CalculationContext(
        candidate_id=candidate.candidate_id,
        calculation_id=candidate.calculation_id,
        structure_id=candidate.structure_id,
        level=level.as_dict(),
        role=candidate.role.value,
        name=candidate.name or candidate.reduced_formula,
    )
    flow, version = build_flow(Structure.from_dict(candidate.structure), level, context, settings)
    Calculation.objects(calculation_id=candidate.calculation_id).update_one(
        upsert=True,
        set_on_insert__schema_version=SCHEMA_VERSION,
        set_on_insert__created_at=now(),
        set_on_insert__structure_id=candidate.structure_id,
        set_on_insert__level_key=candidate.level_key,
        set_on_insert__graph_version=version,
        set_on_insert__candidate_id=candidate.candidate_id,
    )
    metadata = {"batch": candidate.batch, "candidate_id": candidate.candidate_id}
    return flow_to_workflow(flow, metadata={**metadata, "calculation_id": candidate.calculation_id})
