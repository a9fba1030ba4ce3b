"""Cures for runs that were cut short, or whose files were: the same again, as far from the start as can be trusted."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hullworks.workflows.qe.handlers.base import Cure, Remedy, go_on
from hullworks.workflows.qe.outcomes import QeOutcome
from hullworks.workflows.qe.restarts import RestartKind

if TYPE_CHECKING:
    from hullworks.workflows.qe.inputs import PwInput
    from hullworks.workflows.qe.parser import QeRun

_ASK_FOR_FILES = frozenset({"restart_mode", "startingpot", "startingwfc"})
_NEVER_BEGAN = frozenset({QeOutcome.NOT_STARTED, QeOutcome.LAUNCH_FAILED})


class FreshStart(Cure):
    """Files that are cut, or of another calculation, cannot be repaired; an empty folder has none of them.

    The same for a list of plane waves that does not fit its cell. Settings of the caller that ask pw.x for files are
    left out, since the empty folder has none; what attempts take over is decided here alone. Source: recorded runs,
    all of which ended well from an empty folder.
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
        """Start again in an empty folder, without asking for files."""
        kept = tuple(item for item in asked.overrides if item.key not in _ASK_FOR_FILES)
        left_out = [f"{item.key}: left to the restart" for item in asked.overrides if item not in kept]
        return go_on(run, Remedy(replace(asked, overrides=kept), ("an empty folder", *left_out)))


class GoOn(Cure):
    """A run that was killed, or stopped by its clock before the allocation ends, goes on from where it was.

    What pw.x wrote when it stopped by itself belongs together, and it goes on in the middle of a cycle. What a killed
    process wrote last may be cut or of different steps: of it only a whole density is used. What cut it short lies
    outside of the run, so it is repeated as long as it gets on, up to the limit; one that is always killed in its first
    cycle is killed by something that stays. Sources: recorded runs; aiida-quantumespresso, handlers for exit codes 400
    and 503.
    """

    outcomes = frozenset({QeOutcome.INTERRUPTED, QeOutcome.WALLTIME_STOP})
    restart = RestartKind.FULL

    def remedy(self, run: QeRun, asked: PwInput) -> Remedy | None:
        """Go on; a calculation that has neither files nor a geometry and spent its time would spend it again."""
        if run.outcome is QeOutcome.INTERRUPTED and self._gets_nowhere():
            return None
        stopped = run.outcome is QeOutcome.WALLTIME_STOP and not run.ionic_steps
        if stopped and not self.folder.allows(RestartKind.FULL):
            return None
        return go_on(run, Remedy(asked, ("the same again",)))

    def _gets_nowhere(self) -> bool:
        """Whether the last attempts, of as many as count, were all cut short in their first cycle."""
        patience = int(self.rule.numbers["patience"])
        lately = self.folder.runs[-patience:]
        return len(lately) == patience and not any(item.ionic_steps for item in lately)


class OnceMore(Cure):
    """A death without a reason may be the machine's: a node's memory, a network file system, a library.

    Nothing is changed, so one repetition tells; from scratch, as it may have been the files. A launch that never began
    costs nothing, and what stood in its way (a node that comes up, a file system that is mounted late) may take a while
    to go, so there is a second. Source: outcomes of the band "unknown" have no other cure.
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
        """Run the same once more; twice only what never began."""
        before = [item for item in self.folder.corrections if item.handler == self.rule.name]
        if before and run.outcome not in _NEVER_BEGAN:
            return None
        return go_on(run, Remedy(asked, ("the same once more",)))
