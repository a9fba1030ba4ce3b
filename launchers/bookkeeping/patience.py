"""How long something may look wrong before it is put right."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from hullworks.shipped import shipped_yaml


@dataclass(frozen=True)
class Patience:
    """The numbers of ``patience.yaml``, which gives the reason of each; s."""

    grace_s: float
    gap_s: float
    plan_s: float
    forgotten_s: float
    silence_s: float
    clock_skew_s: float
    stock_reservation_s: float
    together_s: float


@cache
def load_patience() -> Patience:
    """Return the patience that HullWorks ships."""
    return Patience(**shipped_yaml("hullworks.launchers.bookkeeping", "patience.yaml"))
