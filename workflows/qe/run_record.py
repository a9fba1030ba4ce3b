"""``hullworks_run.json``: what a run folder says about itself, so that its end can be understood without a database."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hullworks
from hullworks.errors import RunError
from hullworks.states import Cause
from hullworks.workflows.qe.outcomes import QeOutcome

if TYPE_CHECKING:
    from hullworks.workflows.qe.attempts import RunFolder
    from hullworks.workflows.qe.diagnosis import Finding
    from hullworks.workflows.qe.executable import PwCommand

RECORD_NAME = "hullworks_run.json"
SCHEMA_VERSION = 1


def build_record(folder: RunFolder, finding: Finding, command: PwCommand, stopped_by: str = "") -> dict[str, Any]:
    """Return what a run folder says about itself.

    Args:
        folder: The run.
        finding: How it ended.
        command: How pw.x was started.
        stopped_by: What ended the worker itself, if anything did.
    """
    run, asked = folder.latest, folder.asked
    reached = folder.start if run is None else folder.with_progress(run).structure
    return {
        "schema_version": SCHEMA_VERSION,
        "hullworks_version": hullworks.__version__,
        "outcome": finding.outcome.value,
        "band": finding.outcome.band.value,
        "cause": cause_of(finding.outcome, stopped_by).value,
        "succeeded": bool(run is not None and run.succeeded and not stopped_by),
        "stopped_by": stopped_by,
        "evidence": [str(item) for item in finding.evidence],
        "calculation": asked.calculation,
        "formula": asked.structure.composition.reduced_formula,
        "n_atoms": len(asked.structure),
        "protocol": {"name": asked.protocol.name, "stage": asked.protocol.stage},
        "mesh": folder.current.mesh.as_dict(),
        "ecutwfc_Ry": asked.ecutwfc_Ry,
        "ecutrho_Ry": asked.ecutrho_Ry,
        "input_sha256": asked.sha256,
        "code": {"name": "pw.x", "version": run.code_version if run else None, "command": list(command.argv)},
        "host": socket.gethostname(),
        "slurm_job_id": os.environ.get("SLURM_JOB_ID"),
        "results": {} if run is None else run.summary(),
        "last_structure": None if reached is None else reached.as_dict(),
        "timings": _timings(folder),
        "pieces": list(folder.pieces),
        "attempts": [attempt.as_dict() for attempt in folder.attempts],
        "corrections": [correction.as_dict() for correction in folder.corrections],
    }


_CAUSES = {
    QeOutcome.CONVERGED: Cause.CONVERGED,
    QeOutcome.WALLTIME_STOP: Cause.WALLTIME,
    QeOutcome.OUT_OF_MEMORY: Cause.OUT_OF_MEMORY,
    QeOutcome.USER_STOP: Cause.CANCELLED,
}


def cause_of(outcome: QeOutcome, stopped_by: str = "") -> Cause:
    """Return why a run ended, in the words that all codes share.

    Args:
        outcome: How pw.x ended.
        stopped_by: What ended the worker itself, if anything did.
    """
    return Cause.CANCELLED if stopped_by else _CAUSES.get(outcome, Cause.CODE_ERROR)


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all, even when the machine stops in between."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def write_record(directory: Path, record: dict[str, Any]) -> Path:
    """Write ``hullworks_run.json`` and return its path."""
    path = directory / RECORD_NAME
    write_atomically(path, json.dumps(record, indent=1, sort_keys=True) + "\n")
    return path


def read_record(directory: Path) -> dict[str, Any]:
    """Return the record of a run folder.

    Raises:
        RunError: There is none, or it cannot be read: the worker was killed before the end of the run.
    """
    path = directory / RECORD_NAME
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError("the run left no record of its end", str(path), "Its worker was killed; run it again") from error
    return record


def _timings(folder: RunFolder) -> dict[str, float | None]:
    attempts = folder.attempts
    return {
        "started": attempts[0].started if attempts else None,
        "ended": time.time(),
        "pw_seconds": sum(attempt.seconds or 0.0 for attempt in attempts),
        "last_attempt_seconds": attempts[-1].seconds if attempts else None,
    }


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
