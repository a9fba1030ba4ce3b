"""Cures for runs that were cut short, or whose files were: the same again, as far from the start as can be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hullworks.workflows.qe.handlers.base import Cure, Remedy, go_on
from hullworks.workflows.qe.outcomes import QeOutcome
from hullworks.workflows.qe.restarts import RestartKind

if TYPE_CHECKING:
    from hullworks.workflows.qe.inputs import PwInput
    from hullworks.workflows.qe.parser import QeRun


class FreshStart(Cure):
    """Files that are cut, or of another calculation, cannot be repaired; an empty folder has none of them.

    The same for a list of plane waves that does not fit its cell. Source: recorded runs, all of which ended well from
    an empty folder.
    """

    outcomes = frozenset(
        {
            QeOutcome.CORRUPT_SAVE,
            QeOutcome.RESTART_MISMATCH,
            QeOutcome.XML_MISSING,
            QeOutcome.XML_TRUNCATED,
            QeOutcome.STOPPED_AT_START,
            QeOutcome.G_VECTORS,
        }
    )

    def remedy(self, run: QeRun, asked: PwInput) -> Remedy | None:
        """Start again in an empty folder."""
        return go_on(run, Remedy(asked, ("an empty folder",)))


class GoOn(Cure):
    """A run that was killed, or stopped by its clock before the allocation ends, goes on from where it was.

    What pw.x wrote when it stopped by itself belongs together, and it goes on in the middle of a cycle. What a killed
    process wrote last may be cut or of different steps: of it only a whole density is used. Sources: recorded runs;
    aiida-quantumespresso, handlers for exit codes 400 and 503.
    """

    outcomes = frozenset({QeOutcome.INTERRUPTED, QeOutcome.WALLTIME_STOP})
    restart = RestartKind.FULL

    def remedy(self, run: QeRun, asked: PwInput) -> Remedy | None:
        """Go on; a calculation that has neither files nor a geometry and spent its time would spend it again."""
        stopped = run.outcome is QeOutcome.WALLTIME_STOP and not run.ionic_steps
        if stopped and not self.folder.allows(RestartKind.FULL):
            return None
        return go_on(run, Remedy(asked, ("the same again",)))


class OnceMore(Cure):
    """A death without a reason may be the machine's: a node's memory, a network file system, a library.

    Nothing is changed, so one repetition tells; from scratch, as it may have been the files. Source: outcomes of the
    band "unknown" have no other cure.
    """

    outcomes = frozenset(
        {
            QeOutcome.SEGMENTATION_FAULT,
            QeOutcome.ABORTED_SILENTLY,
            QeOutcome.UNKNOWN,
            QeOutcome.NOT_STARTED,
            QeOutcome.LAUNCH_FAILED,
        }
    )

    def remedy(self, run: QeRun, asked: PwInput) -> Remedy | None:
        """Run the same once more."""
        return go_on(run, Remedy(asked, ("the same once more",)))
