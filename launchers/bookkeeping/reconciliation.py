"""LaunchPad, queue and candidates brought together: at any time, any number of times, by several processes."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from hullworks.launchers.bookkeeping.candidates import check_cases, check_locks, check_unfinished
from hullworks.launchers.bookkeeping.look import Look
from hullworks.launchers.bookkeeping.runs import check_hands, look_at_hands, record_finished

if TYPE_CHECKING:
    from hullworks.launchers.bookkeeping.look import Ports

LEASE_S: Final = 30.0
"""One look takes seconds; a killed one holds up the next for so long. Nothing but effort is saved by the lease: each
step is a compare-and-set with what was seen, so that two at once do no harm."""


def reconcile(ports: Ports) -> Look | None:
    """Bring everything together once.

    FireWorks' state is the truth about runs, the queue's about jobs, the candidate's about what its user wants. What is
    added is whether there is still somebody behind a run, and why it ended.

    Returns:
        What was found and done; none when another process is at it.
    """
    with ports.book.lease("reconcile", LEASE_S) as held:
        if not held:
            return None
        look = Look(ports)
        record_finished(look)
        check_locks(look)
        hands = look_at_hands(look)
        check_hands(look, hands)
        check_cases(look, hands)
        check_unfinished(look, hands)
        look.close()
        look.done += Counter()  # drops what was done no times
        return look
