"""Results first: what a run gives lies in its folder before the database is told, and is told from there.

A run's process has no connection. What it needs is put into its folder, it leaves there what it gives, and whoever has
the database hands it over: the worker at once, or ``hullworks land`` later.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from enum import StrEnum
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bson import json_util
from jobflow import JobStore
from maggma.stores import MemoryStore

from hullworks.errors import RunError
from hullworks.launchers.services.processes import write_private

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fireworks import Firework, FWAction, LaunchPad

STEP_FILE: Final = "hullworks_step.json"
"""Which step of which calculation a folder holds, and the documents that it gave."""
INPUT_FILE: Final = "hullworks_input.json"
FIREWORK_FILE: Final = "FW.json"


class HandOver(StrEnum):
    """What became of a folder.

    DONE: the database knows the result now.
    KNOWN: it knew it before.
    UNFINISHED: there is no result in the folder.
    LATE: the run was given to somebody else meanwhile; its result stays in the folder.
    """

    DONE = "done"
    KNOWN = "known"
    UNFINISHED = "unfinished"
    LATE = "late"


@dataclass(frozen=True)
class Step:
    """What `STEP_FILE` says.

    Attributes:
        fw_id: The FireWork.
        launch_id: Its launch.
        name: Name of the step.
        candidate_id: The candidate, empty when there is none.
        calculation_id: The calculation, empty when there is none.
        updates: Calls of `JobStore.update` that the job made: ``docs``, ``key`` and ``save`` of each.
        state: How it ended: ``COMPLETED`` or ``FIZZLED``; empty before.
        action: What FireWorks is to do then, `FWAction.to_dict`.
    """

    fw_id: int
    launch_id: int
    name: str
    candidate_id: str = ""
    calculation_id: str = ""
    updates: tuple[dict[str, Any], ...] = ()
    state: str = ""
    action: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Step | None:
        """Return what a folder says; none when it says nothing that can be read."""
        data = _load(folder / STEP_FILE)
        if data is None:
            return None
        return cls(**{**data, "updates": tuple(data["updates"])})

    def write(self, folder: Path) -> None:
        """Write it, whole or not at all."""
        _dump(folder / STEP_FILE, {**vars(self), "updates": list(self.updates)})

    @property
    def documents(self) -> list[dict[str, Any]]:
        """The documents that the job gave."""
        return [document for update in self.updates for document in update["docs"]]


class FolderStore(JobStore):
    """A job store that reads what was put into a run's folder, and writes into it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(MemoryStore())
        self.folder = folder
        self.inputs: list[dict[str, Any]] = _load(folder / INPUT_FILE) or []

    def connect(self, force_reset: bool = False) -> None:  # noqa: FBT001, FBT002 - jobflow's interface
        """Do nothing: there is nothing to connect to."""

    def query(
        self,
        criteria: dict[str, Any] | None = None,
        properties: object = None,  # noqa: ARG002 - jobflow's interface
        sort: dict[str, Any] | None = None,
        skip: int = 0,
        limit: int = 0,
        load: object = None,  # noqa: ARG002 - jobflow's interface
    ) -> Iterator[dict[str, Any]]:
        """Yield the documents whose fields have the values of the criteria."""
        wanted = criteria or {}
        found = [each for each in self.inputs if all(each.get(key) == value for key, value in wanted.items())]
        for key, direction in (sort or {}).items():
            found.sort(key=itemgetter(key), reverse=int(direction) < 0)
        yield from found[skip : skip + limit if limit else None]

    def update(self, docs: object, key: object = None, save: object = None) -> None:
        """Add documents to the folder's `STEP_FILE`."""
        from monty.json import jsanitize

        many = docs if isinstance(docs, list) else [docs]
        plain = [jsanitize(each, strict=True, allow_bson=True) for each in many]
        step = Step.read(self.folder)
        if step is not None:
            update = {"docs": plain, "key": key, "save": save}
            replace(step, updates=(*step.updates, update)).write(self.folder)


@dataclass(frozen=True)
class FolderPad:
    """The part of a LaunchPad that FireWorks' `Rocket` uses, for the one run of a folder.

    FireWorks' own way to run without a database, its offline mode, fails with present versions of monty.
    """

    folder: Path

    def get_logdir(self) -> None:
        """Return no folder for logs."""

    def checkout_fw(self, *_arguments: object) -> tuple[Firework, int]:
        """Return the run of the folder."""
        from fireworks import Firework

        step = Step.read(self.folder)
        if step is None:
            raise RunError("the folder holds no run", str(self.folder))
        return Firework.from_file(str(self.folder / FIREWORK_FILE)), step.launch_id

    def change_launch_dir(self, *_arguments: object) -> None:
        """Do nothing: who has the database knows where the run began."""

    def ping_launch(self, *_arguments: object, **_options: object) -> None:
        """Do nothing: who has the database says that the run lives."""

    def restore_backup_data(self, *_arguments: object) -> None:
        """Do nothing: nothing was changed."""

    def complete_launch(self, _launch_id: int, action: FWAction, state: str) -> None:
        """Write down how the run ended."""
        step = Step.read(self.folder)
        if step is not None:
            replace(step, state=state, action=action.to_dict()).write(self.folder)


def prepare(folder: Path, firework: Firework, launch_id: int, inputs: list[dict[str, Any]]) -> None:
    """Put into a folder all that a run needs.

    Args:
        folder: The folder, empty.
        firework: The run.
        launch_id: Its launch.
        inputs: Outputs of earlier jobs that it refers to, with ``uuid``, ``index`` and ``output``.
    """
    spec = firework.spec
    whose = (str(spec.get("candidate_id", "")), str(spec.get("calculation_id", "")))
    Step(int(firework.fw_id), launch_id, str(firework.name), *whose).write(folder)
    if inputs:
        _dump(folder / INPUT_FILE, inputs)
    firework.to_file(str(folder / FIREWORK_FILE))


def run_in_folder(order: dict[str, Any]) -> None:
    """Do the run that was put into a folder; its result lies there afterwards.

    Args:
        order: ``folder``: the folder.
    """
    import jobflow
    from fireworks.core.fworker import FWorker
    from fireworks.core.rocket import Rocket

    folder = Path(order["folder"])
    os.chdir(folder)
    jobflow.SETTINGS.JOB_STORE = FolderStore(folder)
    Rocket(FolderPad(folder), FWorker(), None).run()


def inputs_of(firework: Firework, store: JobStore) -> list[dict[str, Any]]:
    """Return the outputs of earlier jobs that a run refers to, also through one another.

    Args:
        firework: The run.
        store: Where they are.
    """
    from jobflow.core.reference import find_and_get_references

    jobs = [task["job"] for task in firework.tasks if "job" in task]
    waiting = {each.uuid for job in jobs for each in find_and_get_references((job.function_args, job.function_kwargs))}
    found: dict[str, list[dict[str, Any]]] = {}
    while waiting:
        uuid = waiting.pop()
        rows = store.query({"uuid": uuid}, properties=["output"], load=True)
        found[uuid] = [{name: row[name] for name in ("uuid", "index", "output")} for row in rows]
        waiting |= {each.uuid for row in found[uuid] for each in find_and_get_references(row["output"])} - set(found)
    return [row for rows in found.values() for row in rows]


def hand_over(launchpad: LaunchPad, store: JobStore, folder: Path) -> HandOver:
    """Tell the database what a folder holds; safe to repeat, and to be killed anywhere.

    Args:
        launchpad: Where the run came from.
        store: The project's job store.
        folder: A run's folder.

    Raises:
        PyMongoError: The database did not answer; repeat it.
    """
    step = Step.read(folder)
    if step is None or not step.state:
        return HandOver.UNFINISHED
    firework = launchpad.fireworks.find_one({"fw_id": step.fw_id, "launches": step.launch_id}, {"state": 1})
    # Numbers mean nothing in another database; the folder of a launch does.
    ours = {"launch_id": step.launch_id, "launch_dir": str(folder)}
    if firework is None or launchpad.launches.find_one(ours, {"_id": 1}) is None:
        return HandOver.LATE
    if firework["state"] != "RUNNING":
        return HandOver.KNOWN
    _tell(launchpad, store, step)
    return HandOver.DONE


def _tell(launchpad: LaunchPad, store: JobStore, step: Step) -> None:
    from fireworks import FWAction

    for update in step.updates:
        store.update(update["docs"], key=update["key"], save=update["save"])
    launch = launchpad.launches.find_one({"launch_id": step.launch_id}, {"state": 1})
    if launch["state"] == "RUNNING":
        launchpad.complete_launch(step.launch_id, FWAction.from_dict(step.action), step.state)
    else:  # killed after the launch was told, before its workflow was
        launchpad._refresh_wf(step.fw_id)  # noqa: SLF001 - what `lpad detect_lostruns --refresh` does


def clear(folder: Path) -> None:
    """Remove what only carried the run, and the folder when nothing else is left but what the database has."""
    for name in (FIREWORK_FILE, INPUT_FILE):
        (folder / name).unlink(missing_ok=True)
    step = Step.read(folder)
    if [each.name for each in folder.iterdir()] == [STEP_FILE] and step is not None:
        (folder / STEP_FILE).unlink()
        folder.rmdir()


def read_steps(folders: Iterable[Path]) -> list[tuple[Path, Step]]:
    """Return the run folders among, and below, some folders, with what they say."""
    files = {path for folder in folders for path in (folder / STEP_FILE, *folder.rglob(STEP_FILE)) if path.is_file()}
    steps = [(path.parent, Step.read(path.parent)) for path in sorted(files)]
    return [(folder, step) for folder, step in steps if step is not None]


def _load(path: Path) -> Any:  # noqa: ANN401 - JSON
    try:
        return json.loads(path.read_text(encoding="utf-8"), object_hook=json_util.object_hook)
    except (OSError, ValueError):
        return None


def _dump(path: Path, content: object) -> None:
    write_private(path, json.dumps(content, default=json_util.default))
