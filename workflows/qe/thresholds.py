"""The numbers of ``diagnosis.yaml``, by which the numerical side of a run is judged."""

from __future__ import annotations

from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from hullworks.shipped import shipped_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping


@cache
def thresholds() -> Mapping[str, float]:
    """Return the numbers by name; reason and source of each stand in the file."""
    table = shipped_yaml("hullworks.workflows.qe", "diagnosis.yaml")
    return MappingProxyType({name: float(entry["value"]) for name, entry in table.items()})
