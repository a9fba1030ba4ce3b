"""The feeder of a project: candidates become jobflow flows on its LaunchPad."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobflow.managers.fireworks import flow_to_workflow
from pymatgen.core import Structure

from hullworks.documents import SCHEMA_VERSION, Calculation, Candidate, Level, now
from hullworks.launchers.bookkeeping import feeding
from hullworks.launchers.bookkeeping.launchpad_pad import FireworksGraph, LaunchPadPad
from hullworks.launchers.bookkeeping.mongo_book import MongoBook
from hullworks.levels import LevelOfTheory
from hullworks.workflows.codes import CalculationContext, build_flow

if TYPE_CHECKING:
    from collections import Counter

    from fireworks import LaunchPad, Workflow

    from hullworks.settings import Settings


def feed(launchpad: LaunchPad, settings: Settings) -> Counter[str]:
    """Put queued candidates on the LaunchPad until its window is full or none is left; a chunk at a time.

    See `hullworks.launchers.bookkeeping.feeding.feed`.

    Returns:
        How many candidates were submitted, and how many could not be.
    """

    def build(candidate_id: str) -> FireworksGraph:
        return FireworksGraph(build_workflow(Candidate.objects.get(candidate_id=candidate_id), settings))

    return feeding.feed(MongoBook(), LaunchPadPad(launchpad), build, settings.launch.window)


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
        level=level.as_compact_dict(),
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
