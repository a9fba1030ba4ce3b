"""Intake: from files that anyone may have written to candidates, or to the reason why a row is none."""

from __future__ import annotations

from hullworks.workflows.intake.limits import Limits, default_limits
from hullworks.workflows.intake.reader import read_rows
from hullworks.workflows.intake.rows import (
    CandidateInput,
    IntakeRow,
    Prediction,
    Problem,
    ProblemCode,
    RowProblemError,
)

__all__ = [
    "CandidateInput",
    "IntakeRow",
    "Limits",
    "Prediction",
    "Problem",
    "ProblemCode",
    "RowProblemError",
    "default_limits",
    "read_rows",
]
