"""Cutoff tables that come with published families: SSSP's JSON, PseudoDojo's JSON and its ``.djrepo`` reports."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hullworks.errors import PseudopotentialError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

STRINGENCIES = ("low", "normal", "high")
"""The three recommended cutoffs of PseudoDojo's tables and of the embedded family."""

_HARTREE_TO_RYDBERG = 2.0
_DOJO_SITE_KEYS = {"low": "hl", "normal": "hn", "high": "hh"}
_EXPECTED = "Expected SSSP's or PseudoDojo's JSON; see docs/pseudopotentials.md for the shape"


@dataclass(frozen=True)
class TableEntry:
    """What a table says about one element; None where it is silent.

    Attributes:
        ecutwfc_Ry: Recommended cutoff of the wave functions.
        ecutrho_Ry: Recommended cutoff of the density.
        filename: The UPF file that the cutoffs belong to.
        md5: The file's MD5 digest, as hexadecimal digits.
    """

    ecutwfc_Ry: float | None = None
    ecutrho_Ry: float | None = None
    filename: str | None = None
    md5: str | None = None


def find_table(folder: Path, stringency: str = "normal") -> dict[str, TableEntry]:
    """Return the cutoff table that lies in a folder, empty when there is none.

    Raises:
        PseudopotentialError: A JSON file cannot be read, or two files are tables.
    """
    tables = {path: read_table(path, stringency) for path in sorted(folder.glob("*.json"))}
    tables = {path: table for path, table in tables.items() if table}
    if len(tables) > 1:
        names = ", ".join(path.name for path in tables)
        raise PseudopotentialError(f"several cutoff tables: {names}", str(folder), "Keep one, or name one")
    if tables:
        return next(iter(tables.values()))
    reports: dict[str, TableEntry] = {}
    for path in sorted(folder.glob("*.djrepo")):
        reports |= read_table(path, stringency)
    return reports


def read_table(path: Path, stringency: str = "normal") -> dict[str, TableEntry]:
    """Return the entries of one table by element, empty when the JSON is something else.

    Args:
        path: SSSP's JSON, PseudoDojo's JSON, or a ``.djrepo`` report of one element.
        stringency: Which of PseudoDojo's cutoffs: low, normal or high.

    Raises:
        PseudopotentialError: The file is not JSON, or a cutoff is not a positive number.
    """
    check_stringency(stringency, str(path))
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PseudopotentialError(f"the cutoff table cannot be read: {error}", str(path), _EXPECTED) from None
    if not isinstance(raw, dict):
        return {}
    if "hints" in raw and "symbol" in raw:
        raw = {str(raw["symbol"]): raw}
    raw = raw.get("pseudos_metadata", raw)
    rows = {element: row for element, row in raw.items() if isinstance(row, dict)}
    entries = {element: _entry(row, stringency, f"{path}: {element}") for element, row in rows.items()}
    return {element: entry for element, entry in entries.items() if entry is not None}


def check_stringency(stringency: str, where: str) -> None:
    """Refuse a stringency that no table has.

    Raises:
        PseudopotentialError: Names the known ones.
    """
    if stringency not in STRINGENCIES:
        known = ", ".join(STRINGENCIES)
        raise PseudopotentialError(f"unknown stringency {stringency!r}", where, f"Choose one of {known}")


def _entry(raw: Mapping[str, Any], stringency: str, where: str) -> TableEntry | None:
    """One element of either kind of table; None when it is neither."""
    if "cutoff_wfc" in raw:
        return TableEntry(
            ecutwfc_Ry=_cutoff(raw["cutoff_wfc"], where),
            ecutrho_Ry=_cutoff(raw.get("cutoff_rho"), where),
            filename=raw.get("filename"),
            md5=raw.get("md5"),
        )
    if "hints" in raw:
        ecut = _cutoff(raw["hints"].get(stringency, {}).get("ecut"), where)
    elif _DOJO_SITE_KEYS[stringency] in raw:
        ecut = _cutoff(raw[_DOJO_SITE_KEYS[stringency]], where)
    else:
        return None
    # PseudoDojo's names and digests are those of the psp8 files, so they say nothing about the UPF files.
    return TableEntry(ecutwfc_Ry=None if ecut is None else _HARTREE_TO_RYDBERG * ecut)


def _cutoff(value: object, where: str) -> float | None:
    """A positive number, or None for a missing one (PseudoDojo writes "na")."""
    if value is None or str(value).lower() in {"na", "nan", ""}:
        return None
    try:
        number = float(str(value))
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise PseudopotentialError(f"a cutoff must be a positive number, not {value!r}", where, _EXPECTED)
    return number
