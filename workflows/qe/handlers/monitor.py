"""Watches a run of pw.x while it goes on, and stops one that gets nowhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from custodian.custodian import ErrorHandler

from hullworks.workflows.qe.attempts import OUTPUT_NAME
from hullworks.workflows.qe.diagnosis import Evidence, stagnates
from hullworks.workflows.qe.outcomes import QeOutcome
from hullworks.workflows.qe.run_files import read_lines
from hullworks.workflows.qe.scanner import scan_lines

if TYPE_CHECKING:
    from hullworks.workflows.qe.attempts import RunFolder


class StuckMonitor(ErrorHandler):
    """A cycle that oscillates or stands would spend all its iterations for nothing.

    It is ended and named; the cures of that name do the rest. Source: aiida-quantumespresso, handler for exit code 150,
    which a monitor of the estimated accuracy leads to.

    Args:
        folder: The run.
    """

    is_monitor = True

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def check(self, directory: str = "./") -> bool:  # noqa: ARG002 - custodian's interface
        """Return whether the cycle that goes on has stopped to improve."""
        if not self.folder.running:
            return False
        output = self.folder.attempts[-1].folder / OUTPUT_NAME
        return stagnates(scan_lines(read_lines(output)).accuracies_Ry)

    def correct(self, directory: str = "./") -> dict[str, Any]:  # noqa: ARG002 - custodian's interface
        """Name the outcome of the attempt, which custodian has ended."""
        evidence = Evidence("", None, "the accuracy of the electrons had stopped to improve")
        self.folder.rename_end(QeOutcome.SCF_STUCK, evidence)
        return self.folder.note(type(self).__name__, ("the run was stopped",)).as_dict()

    def as_dict(self) -> dict[str, Any]:
        """Return what custodian's log says of the handler."""
        kind = type(self)
        return {"@module": kind.__module__, "@class": kind.__name__}
