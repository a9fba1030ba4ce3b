"""The numbers and lists of `rules.yaml`, which gives the reason and source of each."""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import cache
from typing import TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from hullworks.shipped import shipped_yaml

Window: TypeAlias = tuple[float, float]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CodeWindow(_Frozen):
    """The energies that a code can give, eV/atom."""

    code: str
    window: Window


class RunType(_Frozen):
    """What a run type says of an energy."""

    functionals: tuple[str, ...]
    """Functionals that a level may have, in lower case."""
    hubbard: bool
    """Whether a Hubbard U may have acted."""


class Rules(_Frozen):
    """What an import refuses."""

    energy_windows_eV_per_atom: tuple[CodeWindow, ...]
    formation_window_eV_per_atom: Window
    same_energy_eV_per_atom: float = Field(gt=0.0)
    same_sum_eV_per_atom: float = Field(gt=0.0)
    zero_tolerance_eV_per_atom: float = Field(gt=0.0)
    max_row_bytes: int = Field(gt=0)
    max_document_bytes: int = Field(gt=0)
    codes: dict[str, tuple[str, ...]]
    run_types: dict[str, RunType]

    def window(self, code: str, *, formation: bool) -> Window:
        """Return the lowest and the highest energy of a code that is no mistake, eV/atom."""
        if formation:
            return self.formation_window_eV_per_atom
        return next(known.window for known in self.energy_windows_eV_per_atom if fnmatchcase(code, known.code))


@cache
def load_rules() -> Rules:
    """Return the rules that HullWorks ships."""
    return Rules.model_validate(shipped_yaml("hullworks.workflows.references", "rules.yaml"))
