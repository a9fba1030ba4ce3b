"""The feeder of a project: candidates become jobflow flows on its LaunchPad."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobflow.managers.fireworks import flow_to_workflow
from pymatgen.core import Structure
from pymongo import UpdateOne

from hullworks.documents import SCHEMA_VERSION, Calculation, Candidate, Level, now
from hullworks.errors import HullWorksError
from hullworks.launchers.bookkeeping import feeding
from hullworks.launchers.bookkeeping.launchpad_pad import FireworksGraph, LaunchPadPad
from hullworks.launchers.bookkeeping.mongo_book import MongoBook
from hullworks.levels import LevelOfTheory
from hullworks.workflows.codes import CalculationContext, build_flow, graph_version

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Mapping, Sequence

    from fireworks import LaunchPad, Workflow

    from hullworks.launchers.bookkeeping.stores import Build, Graph
    from hullworks.settings import Settings


def feed(launchpad: LaunchPad, settings: Settings) -> Counter[str]:
    """Put queued candidates on the LaunchPad until its window is full or none is left; a chunk at a time.

    See `hullworks.launchers.bookkeeping.feeding.feed`.

    Returns:
        How many candidates were submitted, and how many could not be.
    """
    return feeding.feed(MongoBook(), LaunchPadPad(launchpad), builder(settings), settings.launch.window)


def builder(settings: Settings) -> Build:
    """Return what makes the workflows of candidates with the present settings."""

    def build(candidate_ids: Sequence[str]) -> dict[str, Graph | HullWorksError]:
        candidates = list(Candidate.objects(candidate_id__in=list(candidate_ids)))
        keys = {candidate.level_key for candidate in candidates}
        levels = {level.key: LevelOfTheory.from_dict(level.data) for level in Level.objects(key__in=list(keys))}
        built: dict[str, Graph | HullWorksError] = {}
        for candidate in candidates:
            try:
                graph = FireworksGraph(build_workflow(candidate, levels[candidate.level_key], settings))
                built[candidate.candidate_id] = graph
            except HullWorksError as error:
                built[candidate.candidate_id] = error
        sound = [candidate for candidate in candidates if isinstance(built[candidate.candidate_id], FireworksGraph)]
        _note(sound, {key: graph_version(level) for key, level in levels.items()})
        return built

    return build


def build_workflow(candidate: Candidate, level: LevelOfTheory, settings: Settings) -> Workflow:
    """Return the FireWorks workflow of a candidate.

    Args:
        candidate: The candidate.
        level: The level that it is to be verified at.
        settings: The project's settings.

    Raises:
        HullWorksError: The graph cannot be built: a pseudopotential is missing, the level has changed, ...
    """
    structure = Structure.from_dict(candidate.structure)
    flow, _version = build_flow(structure, level, context_of(candidate, level), settings)
    metadata = {"batch": candidate.batch, "candidate_id": candidate.candidate_id}
    return flow_to_workflow(flow, metadata={**metadata, "calculation_id": candidate.calculation_id})


def context_of(candidate: Candidate, level: LevelOfTheory) -> CalculationContext:
    """Return who asks for the calculation of a candidate."""
    return CalculationContext(
        candidate_id=candidate.candidate_id,
        calculation_id=candidate.calculation_id,
        structure_id=candidate.structure_id,
        level=level.as_compact_dict(),
        role=candidate.role.value,
        name=candidate.name or candidate.reduced_formula,
    )


def _note(candidates: Sequence[Candidate], versions: Mapping[str, str]) -> None:
    """Note the calculations of candidates, each once."""
    moment = now()
    updates = [
        UpdateOne(
            {"_id": candidate.calculation_id},
            {
                "$setOnInsert": {
                    "schema_version": SCHEMA_VERSION,
                    "created_at": moment,
                    "structure_id": candidate.structure_id,
                    "level_key": candidate.level_key,
                    "graph_version": versions[candidate.level_key],
                    "candidate_id": candidate.candidate_id,
                }
            },
            upsert=True,
        )
        for candidate in candidates
    ]
    if updates:
        Calculation.collection().bulk_write(updates, ordered=False)
