"""The LaunchPad's port for whoever reconciles a project on SLURM: a result that lies in its folder is no lost run."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from hullworks.documents import now
from hullworks.launchers.bookkeeping.launchpad_pad import LaunchPadPad
from hullworks.launchers.slurm.clients import job_store
from hullworks.launchers.slurm.handover import HandOver, hand_over

if TYPE_CHECKING:
    from collections.abc import Collection

    from fireworks import LaunchPad

    from hullworks.launchers.bookkeeping.records import Launch, PadRun


class ResultsFirstPad(LaunchPadPad):
    """A LaunchPad that takes up the results of runs whose worker could not tell them.

    Args:
        launchpad: The project's LaunchPad.
        heartbeat_s: How often a living worker says that its runs live, s; the folders of such runs are not looked into.
    """

    def __init__(self, launchpad: LaunchPad, heartbeat_s: float) -> None:
        super().__init__(launchpad)
        self._launchpad = launchpad
        self._store = job_store(launchpad.db)
        self._silent_for = timedelta(seconds=1.5 * heartbeat_s)

    def runs(self, states: Collection[str]) -> list[PadRun]:
        """Return all fireworks in these states, but for those that have just turned out to be done."""
        return [run for run in super().runs(states) if not self._took_up(run)]

    def take_up(self, run: PadRun) -> bool:
        """Store the result that a run left in its folder, if there is one."""
        return run.launch is not None and self._hand_over(run.launch)

    def _took_up(self, run: PadRun) -> bool:
        launch = run.launch
        if run.state != "RUNNING" or launch is None or now() - launch.last_sign < self._silent_for:
            return False
        return self._hand_over(launch)

    def _hand_over(self, launch: Launch) -> bool:
        try:
            return hand_over(self._launchpad, self._store, Path(launch.directory)) is HandOver.DONE
        except RuntimeError:  # FireWorks cannot apply what the run gives, and has marked it as failed
            return True
