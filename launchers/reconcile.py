"""Reconciliation of a project: its LaunchPad, its documents and this machine, as often as one likes."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from hullworks.launchers.bookkeeping import reconciliation
from hullworks.launchers.bookkeeping.look import Ports
from hullworks.launchers.bookkeeping.machine import SystemClock, ThisMachine
from hullworks.launchers.bookkeeping.mongo_book import MongoBook
from hullworks.launchers.bookkeeping.patience import Patience, load_patience
from hullworks.launchers.slurm.results_first import ResultsFirstPad
from hullworks.settings import get_settings

if TYPE_CHECKING:
    from fireworks import LaunchPad

    from hullworks.launchers.bookkeeping.ports import Queue


def real_ports(
    launchpad: LaunchPad, *, lost_after_s: float, queue: Queue | None = None, patience: Patience | None = None
) -> Ports:
    """Return the ports of a project, whose documents must be connected.

    Args:
        launchpad: The project's LaunchPad.
        lost_after_s: Silence after which a run of another machine, or of a stock worker, is lost, s.
        queue: The batch system, where there is one. Without it what runs in one is left alone.
        patience: How long something may look wrong; by default as HullWorks ships it.
    """
    return Ports(
        book=MongoBook(),
        pad=ResultsFirstPad(launchpad, get_settings().launch.heartbeat_s),
        site=ThisMachine(),
        clock=SystemClock(),
        queue=queue,
        lost_after_s=lost_after_s,
        patience=patience or load_patience(),
    )


def reconcile(
    launchpad: LaunchPad, *, lost_after_s: float, queue: Queue | None = None, patience: Patience | None = None
) -> Counter[str]:
    """Bring runs, queue jobs and candidates together; arguments as of `real_ports`.

    Returns:
        How many of what were put right; empty when nothing was to do, or another process is at it.
    """
    ports = real_ports(launchpad, lost_after_s=lost_after_s, queue=queue, patience=patience)
    look = reconciliation.reconcile(ports)
    return Counter() if look is None else look.done
