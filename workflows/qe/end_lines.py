"""Reads how an output ends: clocks, the end mark, boxes with errors, and words by which an outcome may show."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from hullworks.workflows.qe.outcomes import RECOGNISERS, Source
from hullworks.workflows.qe.reading import Reading
from hullworks.workflows.qe.stdout import clock_of, error_of, timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

BOX: Final = "%" * 8
_LONGEST_BOX: Final = 30
_HEADINGS: Final = ("Called by", "General routines", "Parallel routines", "Hubbard U routines", "EXX routines")
NOTICES: Final = tuple(entry for entry in RECOGNISERS if entry.source is Source.NOTICE)


class EndLines(Reading):
    """The lines that tell how a run ended."""

    def notice(self, text: str) -> None:
        """Keep a line by which an outcome may show."""
        for recogniser in NOTICES:
            if recogniser.matches(text):
                self.scan.notices.append((recogniser, self._message(text)))
                return

    def error_box(self, text: str) -> None:
        """Open a box of per cent signs."""
        if text.strip("%") == "":
            self._texts, self._block = [], self._error_line
            self.scan.errors.append(self._message(""))

    def _error_line(self, text: str) -> bool:
        if not text.startswith(BOX):
            self._texts.append(text)
            self.scan.errors[-1] = replace(self.scan.errors[-1], text=error_of(self._texts))
            return len(self._texts) < _LONGEST_BOX
        self._block = None
        return bool(self._texts)

    def clocks(self, text: str) -> None:
        """Open the table of clocks: ``init_run     :      0.28s CPU      0.32s WALL (       1 calls)``."""
        if self._clock_row(text):
            self._block = self._clock_row

    def _clock_row(self, text: str) -> bool:
        clock = None if text.startswith("PWSCF") else clock_of(text)
        if clock is not None:
            self.scan.timings[clock[0]] = clock[1]
        return clock is not None or text.startswith(_HEADINGS)

    def total_clock(self, text: str) -> None:
        """Take the times of the whole run."""
        clock = clock_of(text)
        if clock is not None:
            self.scan.cpu_seconds, self.scan.wall_seconds = clock[1].cpu_seconds, clock[1].wall_seconds

    def terminated(self, text: str) -> None:
        """Take the time of the end: ``This run was terminated on:   8:18:33  20Nov2026``."""
        words = text.partition("terminated on:")[2].rpartition("  ")
        self.scan.ended = timestamp(words[2], words[0])

    def job_done(self, text: str) -> None:
        """Note the end mark."""
        if text == "JOB DONE.":
            self.scan.job_done = self._message(text)


WORDS: Final[Mapping[str, Callable[[EndLines, str], None]]] = MappingProxyType(
    {
        "init_run": EndLines.clocks,
        "PWSCF   ": EndLines.total_clock,
        "This run was terminated": EndLines.terminated,
        "JOB DONE.": EndLines.job_done,
        BOX: EndLines.error_box,
    }
)
"""From the beginning of a line to what reads it."""
