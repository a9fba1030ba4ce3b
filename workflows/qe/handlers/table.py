"""The table of outcomes and cures for people, made from the code; ``python -m`` prints it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hullworks.workflows.qe.handlers import CURES, load_repairs
from hullworks.workflows.qe.outcomes import QeBand, QeOutcome

if TYPE_CHECKING:
    from collections.abc import Iterator

HEAD = ("| outcome | what can be done | cure | takes over at most | at most |", "|---|---|---|---|---|")


@dataclass(frozen=True)
class Treatment:
    """One cure for one outcome.

    Attributes:
        outcome: The outcome.
        cure: Name of the cure; empty when there is none, and the run ends with this cause.
        restart: What the next attempt takes over where the files are whole, for people.
        limit: How often one run may be corrected so.
    """

    outcome: QeOutcome
    cure: str = ""
    restart: str = ""
    limit: int = 0


def treatments() -> Iterator[Treatment]:
    """Yield every outcome but success with each of its cures, in the order in which they are asked."""
    for outcome in QeOutcome:
        if outcome.band is not QeBand.SUCCESS:
            yield from _of(outcome)


def recovery_table() -> str:
    """Return the table in Markdown: one line for each outcome and each of its cures, in the order they are asked."""
    rows = [
        f"| `{item.outcome.value}` | {item.outcome.band.value} | "
        + (
            f"`{item.cure}` | {item.restart} | {item.limit} |"
            if item.cure
            else "none: the run ends with this cause | | |"
        )
        for item in treatments()
    ]
    return "\n".join([*HEAD, *rows]) + "\n"


def _of(outcome: QeOutcome) -> list[Treatment]:
    found = [
        Treatment(outcome, rule.name, CURES[rule.name].restart.value.replace("_", " "), rule.limit)
        for rule in load_repairs().rules
        if outcome in CURES[rule.name].outcomes
    ]
    return found or [Treatment(outcome)]


if __name__ == "__main__":
    sys.stdout.write(recovery_table())
