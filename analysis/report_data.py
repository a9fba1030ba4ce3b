"""What a campaign's report is made of, and how well the predictions did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hullworks.analysis.verdicts import VerdictKind, VerdictResult, load_thresholds
from hullworks.states import Role

if TYPE_CHECKING:
    from datetime import datetime

    from hullworks.analysis.hull_points import HullPoints
    from hullworks.levels import LevelOfTheory


@dataclass(frozen=True)
class IntakeRow:
    """One row that was not accepted: its name, its file and line, what became of it, and why."""

    name: str
    where: str
    state: str
    reason: str


@dataclass(frozen=True)
class Intake:
    """What came in: numbers of rows, and the rows that were not accepted."""

    rows: int
    accepted: int
    duplicates: int = 0
    quarantined: int = 0
    rejected: int = 0
    not_accepted: tuple[IntakeRow, ...] = ()


@dataclass(frozen=True)
class VerdictRow:
    """One entry with its prediction and its verdict; ``run_folder`` is relative to the report."""

    name: str
    formula: str
    role: Role
    verdict: VerdictResult
    predicted_e_above_hull_eV: float | None = None
    predicted_by: str = ""
    run_folder: str = ""

    @property
    def signed_distance_eV(self) -> float | None:
        """Distance from the hull of all others in eV/atom, negative for what is stable; None when undecided."""
        above, others = self.verdict.e_above_hull_eV, self.verdict.e_to_hull_of_others_eV
        return others if above is not None and above <= load_thresholds().stable_eV else above


@dataclass(frozen=True)
class RunRow:
    """One run of a step; ``folder`` is relative to the report, ``note`` says what failed and what to do."""

    name: str
    step: str
    cause: str
    wall_s: float | None = None
    corrections: tuple[str, ...] = ()
    note: str = ""
    folder: str = ""
    usable: bool = True


@dataclass(frozen=True)
class ReportData:
    """All that a report says.

    Attributes:
        title: Heading.
        batch: Name of the batch.
        made_at: When the report was made.
        versions: (part, version) of everything that took part, HullWorks first.
        level: The level of theory.
        hull_version: Name of the hull version of the verdicts.
        cutoffs_Ry: (element, wave function cutoff, density cutoff) in Ry, for the elements of the batch.
        protocol: (name, value) of the numbers that a reader should see.
        intake: What came in.
        verdicts: Entries with their verdicts.
        runs: What ran.
        wall_s: Time from submission to the last verdict in seconds; None while unfinished.
        points: The phase diagrams to show.
        owner: Whose batch it is.
    """

    title: str
    batch: str
    made_at: datetime
    versions: tuple[tuple[str, str], ...]
    level: LevelOfTheory
    hull_version: str
    intake: Intake
    verdicts: tuple[VerdictRow, ...] = ()
    runs: tuple[RunRow, ...] = ()
    points: tuple[HullPoints, ...] = ()
    cutoffs_Ry: tuple[tuple[str, float, float], ...] = ()
    protocol: tuple[tuple[str, str], ...] = ()
    wall_s: float | None = None
    owner: str = ""


@dataclass(frozen=True)
class PredictionErrors:
    """How predicted energies above hull compare with computed ones; energies in eV/atom.

    Attributes:
        n: Number of candidates with both.
        mae_eV: Mean absolute error.
        bias_eV: Mean of predicted less computed: negative when the model promises too much.
        worst_eV: Largest absolute error.
        same_side: How many have prediction and result on the same side of the metastable limit.
        promised: How many were predicted within it, and of those
        kept: how many are.
        within_error_bar: How many verdicts could change within the level's error bar.
    """

    n: int
    mae_eV: float
    bias_eV: float
    worst_eV: float
    same_side: int
    promised: int
    kept: int
    within_error_bar: int


def prediction_errors(rows: tuple[VerdictRow, ...]) -> PredictionErrors | None:
    """Compare predictions with results for the candidates that have both; None when there is none."""
    pairs = [
        (row.predicted_e_above_hull_eV, row.signed_distance_eV, row)
        for row in rows
        if row.role is Role.CANDIDATE
        and row.predicted_e_above_hull_eV is not None
        and row.signed_distance_eV is not None
        and row.verdict.kind in {VerdictKind.STABLE, VerdictKind.METASTABLE, VerdictKind.UNSTABLE}
    ]
    if not pairs:
        return None
    predicted, computed = (np.array(column, dtype=np.float64) for column in list(zip(*pairs, strict=True))[:2])
    errors = predicted - computed
    limit = load_thresholds().metastable_eV
    promised, near = predicted <= limit, computed <= limit
    return PredictionErrors(
        n=len(pairs),
        mae_eV=float(np.abs(errors).mean()),
        bias_eV=float(errors.mean()),
        worst_eV=float(np.abs(errors).max()),
        same_side=int((promised == near).sum()),
        promised=int(promised.sum()),
        kept=int((promised & near).sum()),
        within_error_bar=sum("within_error_bar" in row.verdict.flags for *_, row in pairs),
    )
