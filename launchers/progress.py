"""Progress for a person who watches: counts per state, what runs now, how long it took so far."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Self

from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from hullworks.documents import now
from hullworks.launchers import listings
from hullworks.states import OPEN, CandidateState

if TYPE_CHECKING:
    from datetime import datetime
    from types import TracebackType

    from rich.console import Console, RenderableType

WATCH_INTERVAL_S = 1.0
LINE_INTERVAL_S = 15.0
"""Without a terminal, a line so often, or when something changes."""

_COLOURS = {
    CandidateState.VERIFIED: "green",
    CandidateState.LANDED: "green",
    CandidateState.RUNNING: "cyan",
    CandidateState.SUBMITTED: "blue",
    CandidateState.FAILED: "red",
    CandidateState.QUARANTINED: "yellow",
    CandidateState.REJECTED: "yellow",
}


def status_panel(data: dict[str, Any], message: str = "") -> RenderableType:
    """Return how a batch stands as something rich can print."""
    title = f"batch {data['batch']}" if data["batch"] else "all batches"
    counts = data["counts"]
    parts = Text.assemble(
        f"{title}: ",
        *((f"{number} {state}  ", _COLOURS.get(CandidateState(state), "")) for state, number in counts.items()),
    )
    if not counts:
        parts.append("nothing yet")
    lines: list[RenderableType] = [parts]
    lines += [f"  running  {_named(row)} for {_ago(row['since'])}" for row in data["running"]]
    lines += [f"  failed   {_named(row)}: {row['cause']}: {escape(row['reason'])}" for row in data["failed"]]
    if message:
        lines.append(f"  {escape(message)}")
    return Group(*lines)


def _named(row: dict[str, Any]) -> str:
    return escape(f"{row['name'] or ''} ({row['candidate_id']})".strip())


def _ago(moment: datetime) -> str:
    seconds = int((now() - moment).total_seconds())
    minutes, seconds = divmod(max(0, seconds), 60)
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


def watch(console: Console, batch: str | None) -> None:
    """Keep showing how a batch stands until no work is owed."""
    with Display(console, batch) as display:
        while any(listings.state_counts(batch).get(state.value) for state in OPEN):
            display.update("")
            time.sleep(WATCH_INTERVAL_S)


class Display:
    """A live display on a terminal, plain lines elsewhere, nothing when quiet.

    Args:
        console: Where to print.
        batch: The batch to show; all batches when None.
        quiet: Print nothing.
    """

    def __init__(self, console: Console, batch: str | None, *, quiet: bool = False) -> None:
        self.console = console
        self.batch = batch
        self.quiet = quiet
        self._live = Live(console=console, refresh_per_second=4, transient=True) if self._on_terminal else None
        self._last_line = ""
        self._last_time = 0.0

    @property
    def _on_terminal(self) -> bool:
        return self.console.is_terminal and not self.quiet

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, message: str) -> None:
        """Show the present state; ``message`` says what the loop waits for."""
        if self.quiet:
            return
        waits = "" if message in {"working", "done"} else message
        if waits:
            self._show_text(waits)
            return
        data = listings.status(self.batch)
        if self._live is not None:
            self._live.update(status_panel(data))
        else:
            self._line(data)

    def _show_text(self, text: str) -> None:
        if self._live is not None:
            self._live.update(Text(text, style="yellow"))
        else:
            self._print(text)

    def _line(self, data: dict[str, Any]) -> None:
        counts = ", ".join(f"{number} {state}" for state, number in data["counts"].items())
        running = ", ".join(row["name"] or row["candidate_id"] for row in data["running"])
        self._print(counts + (f"; running {running}" if running else ""))

    def _print(self, line: str) -> None:
        """Print a line when it says something new, or after a while."""
        if line == self._last_line and time.monotonic() - self._last_time < LINE_INTERVAL_S:
            return
        self._last_line, self._last_time = line, time.monotonic()
        self.console.print(f"  {now():%H:%M:%S}  {escape(line)}")
