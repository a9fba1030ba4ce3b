"""Checkpoints: what a launch of a step leaves for the next launch of the same step.

A run may end with its allocation, be cancelled, or die with its node. Its step is then launched again, in a folder of
its own. The checkpoint lies outside both, under a name that follows from what is calculated, so that the next launch
finds how far the others got: by their own words, or, where they were killed, in their folders.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pymatgen.core import Structure

from hullworks.workflows.qe.inputs import OUTDIR, Override
from hullworks.workflows.qe.outcomes import QeOutcome
from hullworks.workflows.qe.parser import QeRun, parse_run
from hullworks.workflows.qe.restarts import RestartKind, carry, choose
from hullworks.workflows.qe.run_record import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hullworks.workflows.qe.attempts import Attempt, RunFolder
    from hullworks.workflows.qe.inputs import PwInput

FOLDER: Final = "checkpoints"
"""Folder of all checkpoints below the project's run folders."""
STATE_NAME: Final = "state.json"
_RESUMABLE: Final = frozenset({QeOutcome.WALLTIME_STOP, QeOutcome.INTERRUPTED})


@dataclass(frozen=True)
class Resumed:
    """Where a launch goes on.

    Attributes:
        pw_input: What the first attempt is asked.
        structure: The last one that earlier launches calculated; none when they got nowhere.
        pieces: The earlier launches, oldest first: folder, outcome, attempts.
        outdir: Files for the first attempt; none when it starts from scratch.
    """

    pw_input: PwInput
    structure: Structure | None = None
    pieces: tuple[dict[str, Any], ...] = ()
    outdir: Path | None = None


def checkpoint_folder(runs_dir: Path, pw_input: PwInput, pseudo_hashes: Iterable[str]) -> Path:
    """Return the folder of a step's checkpoint.

    Args:
        runs_dir: The project's run folders.
        pw_input: What the step is asked, before anything is repaired.
        pseudo_hashes: SHA-256 of its pseudopotential files.
    """
    text = "\n".join([pw_input.sha256, *sorted(pseudo_hashes)])
    return runs_dir / FOLDER / hashlib.sha256(text.encode()).hexdigest()[:32]


def resume(checkpoint: Path, pw_input: PwInput) -> Resumed:
    """Return where the next launch of a step goes on; at its beginning when nothing is known of an earlier one.

    Args:
        checkpoint: The step's checkpoint.
        pw_input: What the step is asked.
    """
    state = _read(checkpoint)
    if state is None:
        return Resumed(pw_input)
    found = _told(state, checkpoint) if state["ended"] else _found(state, checkpoint)
    pieces = tuple(state["pieces"])
    asked = replace(pw_input, overrides=tuple(Override(*item) for item in state["overrides"]))
    reached = None if pw_input.calculation == "scf" else found.structure
    # A full restart takes the structure from its files, and its basis from the cell that it began with.
    begins = found.start if found.kind is RestartKind.FULL else reached
    if begins is not None:
        asked = asked.with_structure(begins)
    outdir = None if found.kind is RestartKind.SCRATCH else found.outdir
    return Resumed(replace(asked, restart=found.kind), reached, pieces, outdir)


def begin(checkpoint: Path, folder: RunFolder) -> None:
    """Write down, before an attempt starts, where it is, so that it can be found after a kill."""
    state = _state(folder)
    state["ended"] = False
    _write(checkpoint, state)


def finish(checkpoint: Path, folder: RunFolder, outcome: QeOutcome) -> None:
    """Keep what the next launch of a run that was cut short needs; forget the checkpoint of any other.

    Args:
        checkpoint: The step's checkpoint.
        folder: The run, which has ended; its last outdir is still there.
        outcome: How it ended.
    """
    if outcome not in _RESUMABLE:
        shutil.rmtree(checkpoint, ignore_errors=True)
        return
    run = folder.latest
    if run is None:  # nothing was started: the next launch goes on where this one would have
        return
    last = folder.attempts[-1]
    choice = choose(RestartKind.FULL, last.outdir, run, same_start=False)
    checkpoint.mkdir(parents=True, exist_ok=True)
    new = checkpoint / f"out-{time.time_ns()}"
    carry(choice.kind, last.outdir, new)
    reached = folder.with_progress(run).structure
    state = _state(folder)
    state["ended"] = True
    state["kind"], state["outdir"] = choice.kind.value, new.name
    state["structure"] = None if reached is None else reached.as_dict()
    _write(checkpoint, state)
    for old in checkpoint.glob("out-*"):
        if old != new:
            shutil.rmtree(old, ignore_errors=True)


def _state(folder: RunFolder) -> dict[str, Any]:
    last = folder.attempts[-1]
    return {
        "run_dir": str(folder.directory.resolve()),
        "attempt": last.folder.name,
        "start": last.pw_input.structure.as_dict(),
        "known": None if folder.start is None else folder.start.as_dict(),
        "overrides": [[item.namelist, item.key, item.value] for item in _lasting(last)],
        "pieces": [*folder.pieces, _piece(folder)],
    }


def _lasting(attempt: Attempt) -> list[Override]:
    """Return the settings that the next launch keeps: all but the place of the scratch files."""
    return [item for item in attempt.pw_input.overrides if item.key != "outdir"]


def _piece(folder: RunFolder) -> dict[str, Any]:
    return {
        "run_dir": str(folder.directory.resolve()),
        "attempts": [attempt.as_dict() for attempt in folder.attempts],
        "corrections": [correction.as_dict() for correction in folder.corrections],
    }


@dataclass(frozen=True)
class _Left:
    """What an earlier launch left: its last structure, files, and the structure that those files began with."""

    structure: Structure | None
    kind: RestartKind
    outdir: Path
    start: Structure


def _told(state: dict[str, Any], checkpoint: Path) -> _Left:
    """Return what a launch that ended by itself kept."""
    outdir = checkpoint / state["outdir"]
    kind = RestartKind(state["kind"]) if outdir.is_dir() else RestartKind.SCRATCH
    return _Left(_structure(state["structure"]), kind, outdir, Structure.from_dict(state["start"]))


def _found(state: dict[str, Any], checkpoint: Path) -> _Left:
    """Return what a launch that was killed left in its folder, as far as it can be trusted."""
    start, known = Structure.from_dict(state["start"]), _structure(state["known"])
    folder, kept = Path(state["run_dir"]) / state["attempt"], checkpoint / "out-found"
    if not folder.is_dir():
        return _Left(known, RestartKind.SCRATCH, kept, start)
    run = parse_run(folder)
    # Whatever its last words say, nobody saw the end of it: of its files only a whole density counts. A copy, because
    # its process may still be at work where this machine does not see it, and its folder may be this launch's own.
    choice = choose(RestartKind.CHARGE_DENSITY, folder / OUTDIR, run, same_start=False)
    shutil.rmtree(kept, ignore_errors=True)
    carry(choice.kind, folder / OUTDIR, kept)
    return _Left(_last_structure(folder.parent, run) or known, choice.kind, kept, start)


def _last_structure(directory: Path, run: QeRun) -> Structure | None:
    """Return the structure that the last attempt calculated, or that one before it did."""
    if run.structure is not None:
        return run.structure
    folders = sorted(directory.glob("attempt-*"), key=lambda path: (len(path.name), path.name), reverse=True)
    return next((known for known in (parse_run(folder).structure for folder in folders) if known is not None), None)


def _structure(data: dict[str, Any] | None) -> Structure | None:
    return None if data is None else Structure.from_dict(data)


def _read(checkpoint: Path) -> dict[str, Any] | None:
    """Return the state, none where there is none or it cannot be read: a step then starts at its beginning."""
    try:
        state: dict[str, Any] = json.loads((checkpoint / STATE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return state


def _write(checkpoint: Path, state: dict[str, Any]) -> None:
    checkpoint.mkdir(parents=True, exist_ok=True)
    write_atomically(checkpoint / STATE_NAME, json.dumps(state, indent=1, sort_keys=True) + "\n")
