"""The standard output of pw.x, read in one pass, line by line.

An output may be cut anywhere, hold rows of asterisks or bytes that are no text: what cannot be read is left out, and
nothing is raised. Lines are sorted out by their first eight characters, so that long outputs cost little.
"""

from __future__ import annotations

from collections import deque
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeAlias

from hullworks.workflows.qe import cycle_lines, end_lines, header_lines
from hullworks.workflows.qe.cycle_lines import CycleLines
from hullworks.workflows.qe.end_lines import NOTICES, EndLines
from hullworks.workflows.qe.header_lines import HeaderLines
from hullworks.workflows.qe.stdout import TAIL_LINES, Scan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_KEY: Final = 8
_RECENT_LINES: Final = 8 * TAIL_LINES
"""So many raw lines are kept; enough to hold `TAIL_LINES` that are not blank in anything that pw.x prints."""


class Scanner(HeaderLines, CycleLines, EndLines):
    """Reads the lines of one output into a `Scan`."""

    def read(self, lines: Iterable[str]) -> Scan:
        """Read all lines and return what they say."""
        handlers, head, number = dict(HANDLERS).get, self.scan.head, 0
        recent: deque[str] = deque(maxlen=_RECENT_LINES)
        for number, line in enumerate(lines, 1):
            recent.append(line)
            text = line.strip()
            if number <= TAIL_LINES and text:
                head.append((number, text))
            if self._block is not None and text:
                self._line = number
                if self._block(text):
                    continue
                self._block = None
            handler = handlers(text[:_KEY])
            if handler is not None:
                self._line = number
                handler(self, text)
        self._end_cycle(None)
        numbered = enumerate((line.strip() for line in recent), number - len(recent) + 1)
        self.scan.tail = [entry for entry in numbered if entry[1]][-TAIL_LINES:]
        return self.scan


Handler: TypeAlias = "Callable[[Scanner, str], None]"

_WORDS: Final[Mapping[str, Handler]] = MappingProxyType({**header_lines.WORDS, **cycle_lines.WORDS, **end_lines.WORDS})


def _handlers() -> Mapping[str, Handler]:
    """Return what reads a line, by its first eight characters; a line may be a value and a notice at once."""
    readers: dict[str, Handler] = {words[:_KEY]: reader for words, reader in _WORDS.items()}
    notices = {entry.words[:_KEY] for entry in NOTICES}
    readers |= {key: _and_notice(readers[key]) if key in readers else Scanner.notice for key in notices}
    return MappingProxyType(readers)


def _and_notice(reader: Handler) -> Handler:
    def read(scanner: Scanner, text: str) -> None:
        reader(scanner, text)
        scanner.notice(text)

    return read


HANDLERS: Final = _handlers()


def scan_lines(lines: Iterable[str]) -> Scan:
    """Read the lines of an output."""
    return Scanner().read(lines)
