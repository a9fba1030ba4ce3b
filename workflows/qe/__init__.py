"""Quantum ESPRESSO: input sets, pseudopotentials, makers, the parser of runs and the vocabulary of their outcomes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hullworks.workflows.qe.outcomes import QeOutcome
    from hullworks.workflows.qe.parser import QeRun, parse_run

__all__ = ["QeOutcome", "QeRun", "parse_run"]


def __getattr__(name: str) -> object:
    """Import what this package exports when it is asked for; the parser brings numpy and pymatgen."""
    if name == "QeOutcome":
        from hullworks.workflows.qe.outcomes import QeOutcome

        return QeOutcome
    if name in {"QeRun", "parse_run"}:
        from hullworks.workflows.qe import parser

        return getattr(parser, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
