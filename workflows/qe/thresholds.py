"""The numbers of ``diagnosis.yaml``, by which the numerical side of a run is judged."""

from __future__ import annotations

from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping


@cache
def thresholds() -> Mapping[str, float]:
    """Return the numbers by name; reason and source of each stand in the file."""
    text = resources.files("hullworks.workflows.qe").joinpath("diagnosis.yaml").read_text(encoding="utf-8")
    return MappingProxyType({name: float(entry["value"]) for name, entry in yaml.safe_load(text).items()})
