"""One look at everything: the ports, the time, and what was in doubt at the looks before."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from hullworks.launchers.bookkeeping.causes import Rules, load_rules
from hullworks.launchers.bookkeeping.patience import Patience, load_patience

if TYPE_CHECKING:
    from datetime import datetime

    from hullworks.launchers.bookkeeping.ports import Clock, Queue
    from hullworks.launchers.bookkeeping.stores import Book, Pad, Site


@dataclass(frozen=True)
class Ports:
    """Everything that the bookkeeping works on.

    Attributes:
        book: The documents.
        pad: The LaunchPad.
        site: This machine's files and processes.
        clock: The time.
        queue: The batch system; none where there is none, and nothing is then said about what runs in one.
        lost_after_s: Silence after which a run is lost of which nothing else is known, s.
        patience: How long something may look wrong.
        rules: What follows from the cause of a run's end.
    """

    book: Book
    pad: Pad
    site: Site
    clock: Clock
    queue: Queue | None = None
    lost_after_s: float = 600.0
    patience: Patience = field(default_factory=load_patience)
    rules: Rules = field(default_factory=load_rules)


class Look:
    """One look; what it found and did.

    Args:
        ports: What to look at.

    Attributes:
        now: When it began.
        done: How many of what were put right.
        locked: Fireworks of workflows that somebody holds for writing: not to be touched, FireWorks would wait for it.
        waits: What stands in the way, for a person.
    """

    def __init__(self, ports: Ports) -> None:
        self.ports = ports
        self.now: datetime = ports.clock.now()
        self.done: Counter[str] = Counter()
        self.locked: set[int] = set()
        self.waits: list[str] = []
        last, seen = ports.book.doubts()
        in_a_row = last is not None and self.now - last <= timedelta(seconds=ports.patience.gap_s)
        self._before = seen if in_a_row else {}
        self._doubts: dict[str, datetime] = {}

    def doubt(self, what: str, patience_s: float) -> bool:
        """Note that something looks wrong; return whether it has done so for long enough to be put right.

        Args:
            what: What looks wrong, with all that would change if it were still worked on.
            patience_s: How long it may, in looks that followed each other without a gap, s.
        """
        since = self._before.get(what, self.now)
        self._doubts[what] = since
        return self.is_older(since, patience_s)

    def is_older(self, moment: datetime, seconds: float) -> bool:
        """Return whether a moment lies further back than some time, s."""
        return self.now - moment >= timedelta(seconds=seconds)

    @property
    def n_doubts(self) -> int:
        """How much is in doubt."""
        return len(self._doubts)

    def close(self) -> None:
        """Keep the doubts for the next look."""
        if self._doubts or self._before:
            self.ports.book.keep_doubts(self.now, self._doubts)
