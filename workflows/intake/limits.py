"""Limits of intake and the table of covalent radii, as `limits.yaml` gives them."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Final

import yaml
from pydantic import BaseModel, ConfigDict, Field

LIMITS_FILE: Final = "limits.yaml"


class Limits(BaseModel):
    """What intake refuses before it looks at a row as a crystal; `limits.yaml` gives the reasons."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_row_bytes: int = Field(gt=0)
    """Longest row (line, block, frame), bytes."""
    max_document_bytes: int = Field(gt=0)
    """Longest file of a kind that is read whole, bytes."""
    max_atoms: int = Field(gt=0)
    """Most atoms in a row's cell."""
    max_cif_length: int = Field(gt=0)
    """Longest CIF block without blank lines and prose, characters."""
    max_symmetry_operations: int = Field(gt=0)
    """Most symmetry operations of a CIF block."""
    max_comment_length: int = Field(gt=0)
    """Longest comment line of an extended XYZ frame, characters."""
    max_depth: int = Field(gt=0)
    """Deepest nesting of the fields beside the structure."""
    max_label_length: int = Field(gt=0)
    """Longest name, source, parent or licence, characters."""
    overlap_fraction: float = Field(gt=0.0, lt=1.0)
    """Contacts below this fraction of the sum of covalent radii are two atoms on one site."""
    min_volume_per_atom: float = Field(gt=0.0)
    """Cells below this have no volume, cubic Angstrom per atom."""
    max_cell_length: float = Field(gt=0.0)
    """Longest component of a lattice vector, Angstrom."""
    max_fractional_coordinate: float = Field(gt=1.0)
    """Coordinates beyond this many cells have lost their digits."""
    covalent_radii: dict[str, float] = Field(repr=False)
    """Covalent radius by element, Angstrom."""
    default_covalent_radius: float = Field(gt=0.0)
    """For elements without one, Angstrom."""

    def covalent_radius(self, symbol: str) -> float:
        """Return an element's covalent radius, Angstrom."""
        return self.covalent_radii.get(symbol, self.default_covalent_radius)


@cache
def default_limits() -> Limits:
    """Return the limits that ship with HullWorks."""
    text = resources.files(__package__).joinpath(LIMITS_FILE).read_text(encoding="utf-8")
    return Limits.model_validate(yaml.safe_load(text))
