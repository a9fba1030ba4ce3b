"""``hullworks land``: what lies in run folders, told to the database by hand."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from monty.json import MontyDecoder

from hullworks.documents import Candidate, Entry, Level
from hullworks.errors import HullWorksError, InputError
from hullworks.launchers.feeder import context_of
from hullworks.launchers.slurm.clients import job_store
from hullworks.launchers.slurm.handover import HandOver, hand_over, read_steps
from hullworks.levels import LevelOfTheory
from hullworks.workflows.landing import land_result

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from fireworks import LaunchPad

    from hullworks.launchers.slurm.handover import Step
    from hullworks.workflows.codes import CalculationContext

STATIC: Final = "static"
RELAXATION: Final = "relax"
"""How the names of the steps begin whose documents make an entry."""


def land_folders(launchpad: LaunchPad, folders: Iterable[Path]) -> list[dict[str, Any]]:
    """Land what lies in run folders, and below; return a row for each folder and each calculation.

    A run that the LaunchPad waits for is handed over, and its workflow goes on. A calculation whose last relaxation and
    static run are both there, and that has no entry, becomes one, also when the LaunchPad knows nothing of it any more.

    Args:
        launchpad: The project's LaunchPad; the documents must be connected.
        folders: Run folders, or folders above them.

    Raises:
        InputError: None of them holds a run.
    """
    steps = read_steps(folders)
    if not steps:
        raise InputError("no folder with a run's result", next_step="A run's folder holds hullworks_step.json.")
    store = job_store(launchpad.db)
    rows = []
    for folder, step in steps:
        became = hand_over(launchpad, store, folder)
        rows.append({"what": str(folder), "step": step.name, "result": became.value})
    return rows + [_land(calculation, found) for calculation, found in sorted(_by_calculation(steps).items())]


def _by_calculation(steps: Iterable[tuple[Path, Step]]) -> dict[str, list[Step]]:
    found: defaultdict[str, list[Step]] = defaultdict(list)
    for _, step in steps:
        if step.calculation_id and step.state == "COMPLETED":
            found[step.calculation_id].append(step)
    return found


def _land(calculation_id: str, steps: list[Step]) -> dict[str, Any]:
    """Make a calculation's entry of its documents; return the row that says what became of it."""
    row = {"what": calculation_id, "step": "land"}
    if Entry.objects(calculation_id=calculation_id).first() is not None:
        return {**row, "result": HandOver.KNOWN.value}
    static, relaxation = _last(steps, STATIC), _last(steps, RELAXATION)
    if static is None or relaxation is None:
        return {**row, "result": HandOver.UNFINISHED.value}
    try:
        entry = land_result(static, relaxation, _context(steps[0]).as_dict())
    except HullWorksError as error:
        return {**row, "result": f"refused: {error}"}
    return {**row, "result": HandOver.DONE.value, **entry}


def _last(steps: list[Step], name: str) -> Any:  # noqa: ANN401 - a document of whatever code
    """Return what the last job gave whose step's name begins so, as jobflow would hand it on."""
    documents = [document for step in steps if step.name.startswith(name) for document in step.documents]
    newest = max(documents, key=lambda document: str(document["completed_at"]), default=None)
    return None if newest is None else MontyDecoder().process_decoded(newest["output"])


def _context(step: Step) -> CalculationContext:
    """Return who asked for a calculation.

    Raises:
        InputError: The database knows no such candidate, or it asks for another calculation.
    """
    candidate = Candidate.objects(candidate_id=step.candidate_id).first()
    if candidate is None or candidate.calculation_id != step.calculation_id:
        raise InputError("no candidate of this database asks for it", step.calculation_id, "Submit its batch again.")
    return context_of(candidate, LevelOfTheory.from_dict(Level.objects.get(key=candidate.level_key).data))
