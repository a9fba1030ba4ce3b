"""Notices when a run has left the magnetic solution that it was on."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from hullworks.analysis.verdicts import VerdictFlag
from hullworks.workflows.qe.thresholds import thresholds

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hullworks.workflows.qe.parser import QeRun


def find_flags(runs: Iterable[QeRun]) -> tuple[VerdictFlag, ...]:
    """Return what is noticed in the attempts of one run, in their order."""
    moments = [
        moment / len(run.structure)
        for run in runs
        if run.structure is not None
        for moment in run.absolute_magnetizations
    ]
    limits, found = thresholds(), []
    if moments and max(moments) > limits["magnetic_muB_per_atom"] >= moments[-1]:
        found.append(VerdictFlag.MAGNETIC_COLLAPSE)
    if any(abs(after - before) > limits["moment_jump_muB_per_atom"] for before, after in pairwise(moments)):
        found.append(VerdictFlag.SEVERAL_SCF_SOLUTIONS)
    return tuple(found)
