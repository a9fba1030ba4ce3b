"""Cures for runs that were cut short, or whose files were: the same again, as far from the start as can be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hullworks.workflows.qe.handlers.base import Cure, Remedy, go_on
from hullworks.workflows.qe.outcomes import QeOutcome

if TYPE_CHECKING:
    from hullworks.workflows.qe.inputs import PwInput
    from hullworks.workflows.qe.parser import QeRun


class FreshStart(Cure):
    """Files that are cut, or of another calculation, cannot be repaired; an empty folder has none of them.

    Source: recorded runs, all of which ended well from an empty folder.
    """

    outcomes = frozenset(
        {
            QeOutcome.CORRUPT_SAVE,
            QeOutcome.RESTART_MISMATCH,
            QeOutcome.XML_MISSING,
            QeOutcome.XML_TRUNCATED,
            QeOutcome.STOPPED_AT_START,
        }
    )

    def remedy(self, run: QeRun, asked: PwInput) -> Remedy | None:
        """Start again in an empty folder."""
        return go_on(run, Remedy(asked, ("an empty folder",)))


class GoOn(Cure):
    """A run that was killed, or stopped by its clock before the allocation ends, goes on from its last geometry.

    From scratch, not from its files: what a killed process wrote last may be cut. Sources: recorded runs;
    aiida-quantumespresso, handler for exit code 503.
    """

    outcomes = frozenset({QeOutcome.INTERRUPTED, QeOutcome.WALLTIME_STOP})

    def remedy(self, run: QeRun, asked: PwInput) -> Remedy | None:
        """Go on from the last geometry; a calculation that has none and spent its time would spend it again."""
        if run.outcome is QeOutcome.WALLTIME_STOP and not run.ionic_steps:
            return None
        return go_on(run, Remedy(asked, ("the same again",)))


class OnceMore(Cure):
    """A death without a reason may be the machine's: a node's memory, a network file system, a library.

    Nothing is changed, so one repetition tells. Source: outcomes of the band "unknown" have no other cure.
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
