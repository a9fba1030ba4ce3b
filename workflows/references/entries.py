"""From a row to the stored form of an entry, without an object per row."""

from __future__ import annotations

import hashlib
import math
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from hullworks.documents import SCHEMA_VERSION
from hullworks.states import Role
from hullworks.workflows.identity import entry_id
from hullworks.workflows.references.rows import RefusalCode, RowRefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from hullworks.workflows.references.rows import Place, ReferenceRow
    from hullworks.workflows.references.rules import Rules, Window

ID_DIGITS: Final = 16
"""64 bits, as in every id of HullWorks."""

INTEGER: Final = 1e-8
"""Amounts nearer to an integer are one, as pymatgen counts them."""


@dataclass(frozen=True, slots=True)
class Energies:
    """Energies of an entry, eV/atom."""

    uncorrected: float
    corrected: float
    parts: dict[str, float]
    sigmas: dict[str, float]


def energies_of(row: ReferenceRow, n_atoms: float, window: Window, rules: Rules) -> Energies:
    """Return the energies of a row per atom.

    Args:
        row: The row.
        n_atoms: Atoms in its composition as written.
        window: The lowest and the highest energy that is no mistake, eV/atom.
        rules: Tolerances.

    Raises:
        RowRefusedError: An energy is absurd, or the row adds up otherwise than it says.
    """
    divisor = n_atoms if row.is_total else 1.0
    parts = {_key(name): value / divisor for name, value in row.parts.items()}
    uncorrected = row.uncorrected / divisor
    corrected = uncorrected + math.fsum(parts.values())
    for what, energy in (("the uncorrected energy", uncorrected), ("the energy", corrected)):
        if not window[0] <= energy <= window[1]:
            raise RowRefusedError(RefusalCode.ABSURD, f"{what} is {energy:.6g} eV/atom, outside {window}")
    stated = row.stated_total / n_atoms if row.stated_total is not None else row.stated_per_atom
    for claim in (stated, row.stated_per_atom):
        if claim is not None and abs(claim - corrected) > rules.same_sum_eV_per_atom:
            text = f"it states {claim:.6f} eV/atom, and its energy and corrections add up to {corrected:.6f}"
            raise RowRefusedError(RefusalCode.INCONSISTENT, text)
    return Energies(uncorrected, corrected, parts, {_key(name): value / divisor for name, value in row.sigmas.items()})


def calculation_id(level_key: str, source_id: str) -> str:
    """Return the id under which a source's entry is known at a level, whoever imports it and however often."""
    return "import-" + hashlib.sha256(f"{level_key}\0{source_id}".encode("utf-8", "replace")).hexdigest()[:ID_DIGITS]


def content_source_id(formula: str, energy: float) -> str:
    """Return what stands for the id of a row that has none: its formula and energy, eV/atom."""
    return f"{formula}@{energy!r}"


def entry_document(
    level_key: str,
    source_id: str,
    row: ReferenceRow,
    amounts: dict[str, float],
    energies: Energies,
    provenance: dict[str, Any],
    landed_at: datetime,
) -> dict[str, Any]:
    """Return an entry as MongoDB stores it, with all the fields that `Entry` writes.

    Args:
        level_key: The level of theory.
        source_id: The row's own id, or what stands for it.
        row: The row.
        amounts: Atoms per element symbol.
        energies: The row's energies.
        provenance: Where it comes from.
        landed_at: Its place in the order of entries.
    """
    calculation, formula = calculation_id(level_key, source_id), formula_of(amounts)
    document = {
        "_id": entry_id(calculation),
        "schema_version": SCHEMA_VERSION,
        "calculation_id": calculation,
        "candidate_id": f"imported:{source_id}",
        "level_key": level_key,
        "name": row.name or source_id,
        "role": Role.REFERENCE.value,
        "formula": formula,
        "reduced_formula": reduced_formula(amounts),
        "chemsys": "-".join(sorted(amounts)),
        "elements": sorted(amounts),
        "composition": amounts,
        "n_atoms": max(1, round(sum(amounts.values()))),
        "uncorrected_energy_eV_per_atom": energies.uncorrected,
        "correction_parts_eV_per_atom": energies.parts,
        "uncertainty_parts_eV_per_atom": energies.sigmas,
        "energy_eV_per_atom": energies.corrected,
        "valid": True,
        "reasons": [],
        "flags": [],
        "results": {},
        "provenance": provenance,
        "retracted": False,
        "landed_at": landed_at,
    }
    return document if row.structure is None else {**document, "structure": row.structure}


def provenance_of(
    row: ReferenceRow, place: Place, source_id: str, settings: dict[str, str], origin: dict[str, Any]
) -> dict[str, Any]:
    """Return where an entry comes from.

    Args:
        row: The row.
        place: Where it stands.
        source_id: Its own id, or what stands for it.
        settings: What it was computed with, as the fence names it.
        origin: Hash of the file and time of the import.
    """
    return {
        "imported": True,
        "source_file": place.file,
        "unit": place.unit,
        "row": place.number,
        "source_id": source_id,
        "settings": settings,
        "data": {_key(key): value for key, value in row.data.items()},
        **origin,
    }


def formula_of(amounts: dict[str, float]) -> str:
    """Return a formula in order of electronegativity with all amounts, as pymatgen writes it, without spaces."""
    from pymatgen.util.string import formula_double_format

    ranks = _ranks()
    ordered = sorted(amounts, key=ranks.__getitem__)
    return "".join(f"{symbol}{formula_double_format(amounts[symbol], ignore_ones=False)}" for symbol in ordered)


def reduced_formula(amounts: dict[str, float]) -> str:
    """Return the reduced formula as pymatgen writes it, without making an object for it."""
    from pymatgen.core.composition import Composition, reduce_formula

    if any(abs(amount - round(amount)) >= INTEGER for amount in amounts.values()):
        return formula_of(amounts)
    formula, _ = reduce_formula({symbol: round(amount) for symbol, amount in amounts.items()})
    return str(Composition.special_formulas.get(formula, formula))


@contextmanager
def no_word_of_electronegativity() -> Iterator[None]:
    """Keep pymatgen from warning, for each formula with a noble gas, that it has no electronegativity to sort by."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No Pauling electronegativity")
        yield


@cache
def _ranks() -> dict[str, tuple[float, str]]:
    """Return what elements are sorted by in a formula: electronegativity, those without one last, then the symbol."""
    from pymatgen.core.periodic_table import Element

    with no_word_of_electronegativity():
        found = {element.symbol: float(element.X) for element in Element}
    return {symbol: (math.inf if math.isnan(x) else x, symbol) for symbol, x in found.items()}


def _key(name: str) -> str:
    """Return a name that a database takes for nothing but a name."""
    safe = name.replace(".", "_").replace("\0", "_")
    return f"x{safe}" if safe.startswith(("$", "_")) else safe
