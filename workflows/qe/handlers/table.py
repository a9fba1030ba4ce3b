"""The table of outcomes and cures for people, made from the code; ``python -m`` prints it."""

from __future__ import annotations

import sys

from hullworks.workflows.qe.handlers import CURES, load_repairs
from hullworks.workflows.qe.outcomes import QeBand, QeOutcome

HEAD = ("| outcome | what can be done | cure | takes over at most | at most |", "|---|---|---|---|---|")


def recovery_table() -> str:
    """Return the table in Markdown: one line for each outcome and each of its cures, in the order they are asked."""
    rows = [row for outcome in QeOutcome if outcome.band is not QeBand.SUCCESS for row in _rows(outcome)]
    return "\n".join([*HEAD, *rows]) + "\n"


def _rows(outcome: QeOutcome) -> list[str]:
    start = f"| `{outcome.value}` | {outcome.band.value} |"
    rows = [
        f"{start} `{rule.name}` | {CURES[rule.name].restart.value.replace('_', ' ')} | {rule.limit} |"
        for rule in load_repairs().rules
        if outcome in CURES[rule.name].outcomes
    ]
    return rows or [f"{start} none: the run ends with this cause | | |"]


if __name__ == "__main__":
    sys.stdout.write(recovery_table())
