"""HullWorks decides which machine-learned crystal predictions are real."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "connect"]

if TYPE_CHECKING:
    from hullworks.analysis.client import connect

_LAZY = {"connect": "hullworks.analysis.client"}
"""Public names that live in a room: imported on first use, so that ``import hullworks`` stays cheap."""


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the module protocol of PEP 562
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
