"""One case in one arm, in a process of its own, so that what it costs is known, and so that it may die."""

from __future__ import annotations

import json
import resource
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from qe_campaign_arms import ARMS
from qe_campaign_cases import case


@dataclass(frozen=True)
class Step:
    """What one process does.

    Attributes:
        case: Name of the case, or of a reference.
        arm: Name of the arm.
        folder: Where it runs.
        result: Where the claim and what it cost are written.
    """

    case: str
    arm: str
    folder: str
    result: str

    @property
    def argument(self) -> str:
        """The step as an argument of this script."""
        return json.dumps(asdict(self))


def run(step: Step) -> None:
    """Run a step in the present process."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    claim = ARMS[step.arm](case(step.case), Path(step.folder))
    pw, own = resource.getrusage(resource.RUSAGE_CHILDREN), resource.getrusage(resource.RUSAGE_SELF)
    figures = {
        "pw_cpu_s": pw.ru_utime + pw.ru_stime,
        "own_cpu_s": own.ru_utime + own.ru_stime - before.ru_utime - before.ru_stime,
        "wall_s": time.perf_counter() - start,
    }
    Path(step.result).write_text(json.dumps(claim.as_dict() | figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    run(Step(**json.loads(sys.argv[1])))
