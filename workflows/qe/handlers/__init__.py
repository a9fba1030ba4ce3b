"""Cures: one small custodian handler for each, asked in the order of ``repairs.yaml``."""

from __future__ import annotations

from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from hullworks.shipped import shipped_yaml
from hullworks.workflows.qe.handlers.base import Cure, NoCure, Remedy, Repairs, Rule
from hullworks.workflows.qe.handlers.electrons import (
    GentlerMixing,
    LocalScreening,
    MoreBands,
    MoreIterations,
    OtherSolver,
    PlainBands,
    ProtocolSmearing,
    SmearOccupations,
)
from hullworks.workflows.qe.handlers.interruptions import FreshStart, GoOn, OnceMore
from hullworks.workflows.qe.handlers.ions import (
    DampedDynamics,
    MoreSteps,
    NewSymmetry,
    TightTrustRadius,
    WiderCell,
)
from hullworks.workflows.qe.handlers.machine import FewerPools, LessMemory, OtherScratch
from hullworks.workflows.qe.handlers.monitor import StuckMonitor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hullworks.workflows.qe.attempts import RunFolder

__all__ = ["CURES", "Cure", "NoCure", "Remedy", "Repairs", "Rule", "build_handlers", "load_repairs"]

CURES: Final[Mapping[str, type[Cure]]] = MappingProxyType(
    {
        cure.__name__: cure
        for cure in (
            MoreIterations,
            GentlerMixing,
            LocalScreening,
            OtherSolver,
            PlainBands,
            SmearOccupations,
            ProtocolSmearing,
            MoreBands,
            TightTrustRadius,
            DampedDynamics,
            WiderCell,
            MoreSteps,
            NewSymmetry,
            FewerPools,
            LessMemory,
            OtherScratch,
            FreshStart,
            GoOn,
            OnceMore,
        )
    }
)
"""Every cure by its name in ``repairs.yaml``, which orders and bounds them."""


def build_handlers(folder: RunFolder) -> list[StuckMonitor | Cure | NoCure]:
    """Return the handlers for a run, in the order in which they are asked; the last names the end of all others."""
    cures = [CURES[rule.name](folder, rule) for rule in load_repairs().rules]
    return [StuckMonitor(folder), *cures, NoCure(folder)]


@cache
def load_repairs() -> Repairs:
    """Return the order and the bounds of the cures."""
    table = shipped_yaml("hullworks.workflows.qe", "repairs.yaml")
    rules = tuple(Rule(item["name"], item["limit"], MappingProxyType(item["numbers"])) for item in table["handlers"])
    return Repairs(table["max_corrections"], rules, table["poll_s"], table["watch_s"])
