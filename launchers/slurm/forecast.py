"""How long the next run will take, by what such runs took here."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from hullworks.documents import Run
from hullworks.shipped import shipped_yaml
from hullworks.states import Cause

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

KEEP_S: Final = 60.0
"""How long what was learned from the database holds, s."""


@dataclass(frozen=True)
class ForecastRules:
    """The numbers of ``forecast.yaml``, which gives the reason of each."""

    sample: int
    quantile: float
    factor: float
    default_s: float
    least_s: float
    steps: Mapping[str, float]


@cache
def load_rules() -> ForecastRules:
    """Return the rules that HullWorks ships."""
    return ForecastRules(**shipped_yaml("hullworks.launchers.slurm", "forecast.yaml"))


def forecast_s(wall_s: Sequence[float], rules: ForecastRules) -> float:
    """Return how long a run will take, s.

    Args:
        wall_s: What runs of the same step took, s.
        rules: How to guess from it.
    """
    if not wall_s:
        return rules.default_s
    place = math.ceil(rules.quantile * len(wall_s)) - 1
    return max(sorted(wall_s)[place] * rules.factor, rules.least_s)


def forecasts(past: Iterable[tuple[str, float]], rules: ForecastRules) -> dict[str, float]:
    """Return how long a run of each known step will take, s.

    Args:
        past: Step and time in s of runs that ended well.
        rules: How to guess from it.
    """
    by_step: defaultdict[str, list[float]] = defaultdict(list)
    for step, wall_s in past:
        by_step[step].append(wall_s)
    return {**rules.steps, **{step: forecast_s(times, rules) for step, times in by_step.items()}}


def fits(left_s: float, known: Mapping[str, float], rules: ForecastRules) -> dict[str, Any]:
    """Return the MongoDB query for the steps that can be done in the time that is left.

    Args:
        left_s: The time, s.
        known: How long a run of each known step will take, s.
        rules: What holds for the others.
    """
    if rules.default_s <= left_s:
        long = sorted(step for step, time_s in known.items() if time_s > left_s)
        return {"name": {"$nin": long}} if long else {}
    return {"name": {"$in": sorted(step for step, time_s in known.items() if time_s <= left_s)}}


@dataclass
class Forecaster:
    """Tells which runs fit, and asks the database now and then.

    Attributes:
        rules: How to guess.
        used: Whether a run was begun by it.
    """

    rules: ForecastRules = field(default_factory=load_rules)
    used: bool = False
    _known: dict[str, float] = field(default_factory=dict)
    _asked: float | None = None

    def query(self, left_s: float | None) -> dict[str, Any]:
        """Return the MongoDB query for the steps that can be done in the time that is left, s; none is for ever."""
        if left_s is None:
            return {}
        if self._asked is None or time.monotonic() - self._asked > KEEP_S:
            ended = Run.objects(cause=Cause.CONVERGED, wall_s__ne=None).order_by("-ended_at").limit(self.rules.sample)
            self._known = forecasts(ended.scalar("step", "wall_s"), self.rules)
            self._asked = time.monotonic()
        return fits(left_s, self._known, self.rules)
