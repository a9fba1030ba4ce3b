"""From the fields of a row to a `ReferenceRow`: pymatgen entries, documents of the Materials Project, flat tables."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from hullworks.workflows.references.rows import ReferenceRow, RefusalCode, RowRefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FORMULA_COLUMNS: Final = (
    "composition",
    "formula",
    "full_formula",
    "formula_pretty",
    "pretty_formula",
    "reduced_formula",
    "Composition",
    "Reduced Formula",
)
"""Columns of a composition, the most detailed first."""
ID_COLUMNS: Final = ("entry_id", "material_id", "task_id", "id", "MaterialId")
"""Columns of a row's own id."""
TOTAL_COLUMNS: Final = ("energy_per_atom",)
"""Columns of a corrected total energy, eV/atom."""
FORMATION_COLUMNS: Final = ("formation_energy_per_atom", "e_form_per_atom", "e_form")
"""Columns of a formation energy, eV/atom."""
SIGMA_COLUMNS: Final = ("energy_uncertainy_per_atom", "energy_uncertainty_per_atom")
"""Columns of the uncertainty of an energy, eV/atom; the first is how the Materials Project spells it."""

WHOLE_CORRECTION: Final = "correction"
"""Name of a correction whose parts are unknown."""
OWN_CORRECTION: Final = "own:correction"
"""Name of its uncertainty: no other entry is known to share it."""

_FACTORS: Final = {"adj_per_atom": ("n_atoms",), "adj_per_deg": ("temp", "n_atoms"), "value": ()}
"""The number that an energy adjustment carries, and what to multiply it by."""
_SIGMAS: Final = {"adj_per_atom": "uncertainty_per_atom", "adj_per_deg": "uncertainty_per_deg", "value": "uncertainty"}
"""Where its uncertainty stands, in the same unit."""
_LABELS: Final[tuple[str, ...]] = ("run_type", "energy_type", "thermo_type")
_UNNAMED: Final = {"ManualEnergyAdjustment": "manual"}


@dataclass(frozen=True)
class Columns:
    """Where a flat row keeps what; None: the known names are tried.

    Attributes:
        energy: Column of the energy, eV/atom.
        formula: Column of the formula.
        id: Column of the row's own id.
        formation: The energies are formation energies.
    """

    energy: str | None = None
    formula: str | None = None
    id: str | None = None
    formation: bool = False

    @property
    def energies(self) -> tuple[str, ...]:
        """Columns of the energy, in the order in which they are tried."""
        if self.energy is not None:
            return (self.energy,)
        return FORMATION_COLUMNS if self.formation else TOTAL_COLUMNS


def row_of(fields: Any, columns: Columns) -> ReferenceRow:  # noqa: ANN401 - any JSON value
    """Return the row that some fields make.

    Raises:
        RowRefusedError: They are no known kind of row, a field is missing or of the wrong type, or a number is not
            finite; ``where`` is the row's own id.
    """
    if not isinstance(fields, dict):
        raise RowRefusedError(RefusalCode.WRONG_SHAPE, f"a row is an object, not a {type(fields).__name__}")
    try:
        return _row_of(fields, columns)
    except RowRefusedError as error:
        own_id = _text(fields, (columns.id,) if columns.id else ID_COLUMNS)
        raise RowRefusedError(error.code, error.what, own_id) from None


def _row_of(fields: dict[str, Any], columns: Columns) -> ReferenceRow:
    if columns.energy is None and not columns.formation:
        if "energy" in fields and "composition" in fields:
            return _from_entry(fields)
        if isinstance(fields.get("entries"), dict) and any(fields["entries"].values()):
            return _from_document(fields, columns)
    return _from_flat(fields, columns)


def _from_entry(fields: dict[str, Any]) -> ReferenceRow:
    """Read a dictionary of pymatgen's ComputedEntry or ComputedStructureEntry; energies are of the whole cell."""
    parts, sigmas = _adjustments(fields)
    data = _mapping(fields, "data")
    labels = {key: data[key] for key in _LABELS if key in data}
    structure, whole = fields.get("structure"), fields.get("correction")
    energy = number(fields["energy"], "energy")
    return ReferenceRow(
        composition=_composition(fields, ("composition",)),
        uncorrected=energy,
        parts=parts,
        sigmas=sigmas,
        is_total=True,
        stated_total=None if whole is None else energy + number(whole, "correction"),
        source_id=_text(fields, ID_COLUMNS) or _text(data, ID_COLUMNS),
        name=_text(fields, ("name",)),
        parameters={**labels, **_mapping(fields, "parameters"), **_schemes(fields)},
        structure=structure if isinstance(structure, dict) else None,
        data=_plain(data),
    )


def _from_document(fields: dict[str, Any], columns: Columns) -> ReferenceRow:
    """Read a document of the Materials Project that holds the entry behind its energy."""
    held = {key: entry for key, entry in fields["entries"].items() if isinstance(entry, dict)}
    chosen = held.get(str(fields.get("energy_type")), next(iter(held.values())) if len(held) == 1 else None)
    if chosen is None:
        text = f"it holds entries of {', '.join(held)}, and its energy_type says not which counts"
        raise RowRefusedError(RefusalCode.INCONSISTENT, text)
    row = _from_entry(chosen)
    labels = {key: fields[key] for key in _LABELS if key in fields}
    source_id = _text(fields, (columns.id,) if columns.id else ("material_id", *ID_COLUMNS)) or row.source_id
    stated = fields.get("energy_per_atom")
    return replace(
        row,
        stated_per_atom=None if stated is None else number(stated, "energy_per_atom"),
        source_id=source_id,
        parameters={**labels, **row.parameters},
        data={**row.data, **_plain(fields)},
    )


def _from_flat(fields: dict[str, Any], columns: Columns) -> ReferenceRow:
    """Read a row of a table, or a document of the Materials Project without entries; energies are per atom."""
    energy = number(_first(fields, columns.energies, "energy"), "the energy")
    before = fields.get("uncorrected_energy_per_atom")
    # A formation energy has its corrections inside; only a total energy can be taken apart.
    uncorrected = energy if _is_empty(before) or columns.formation else number(before, "uncorrected_energy_per_atom")
    sigma = next((fields[key] for key in SIGMA_COLUMNS if not _is_empty(fields.get(key))), None)
    return ReferenceRow(
        composition=_composition(fields, (columns.formula,) if columns.formula else FORMULA_COLUMNS),
        uncorrected=uncorrected,
        parts={WHOLE_CORRECTION: energy - uncorrected} if energy != uncorrected else {},
        sigmas={} if sigma is None else {OWN_CORRECTION: _sigma(number(sigma, "the uncertainty"))},
        source_id=_text(fields, (columns.id,) if columns.id else ID_COLUMNS),
        name=_text(fields, ("name",)),
        parameters={**{key: fields[key] for key in _LABELS if key in fields}, **_mapping(fields, "parameters")},
        structure=fields["structure"] if isinstance(fields.get("structure"), dict) else None,
        data=_plain(fields),
    )


def _adjustments(fields: dict[str, Any]) -> tuple[dict[str, float], dict[str, float]]:
    """Return corrections and known uncertainties by name, eV per cell."""
    listed = fields.get("energy_adjustments") or []
    if not isinstance(listed, list):
        raise RowRefusedError(RefusalCode.WRONG_SHAPE, "energy_adjustments is no list")
    parts: dict[str, float] = defaultdict(float)
    sigmas: dict[str, float] = defaultdict(float)
    for given in listed:
        name, value, sigma = _adjustment(given)
        parts[name] += value
        if sigma:
            sigmas[name] += sigma  # one name is one source of error: its uncertainties add up, not their squares
    whole = fields.get("correction")
    if not listed and whole:
        parts[WHOLE_CORRECTION] = number(whole, "correction")
    return dict(parts), dict(sigmas)


def _adjustment(given: Any) -> tuple[str, float, float]:  # noqa: ANN401 - any JSON value
    """Return name, value and uncertainty of one energy adjustment, eV per cell; the uncertainty is 0 when unknown."""
    kind = next((kind for kind in _FACTORS if isinstance(given, dict) and kind in given), None)
    if kind is None:
        raise RowRefusedError(RefusalCode.WRONG_SHAPE, "an energy adjustment carries no number")
    factor = math.prod(number(given.get(key), key) for key in _FACTORS[kind])
    unknown = given.get(_SIGMAS[kind])
    known = isinstance(unknown, (int, float)) and not math.isnan(unknown)  # pymatgen writes NaN for unknown
    sigma = _sigma(number(unknown, _SIGMAS[kind])) * abs(factor) if known else 0.0
    return _name(given), number(given[kind], kind) * factor, sigma


def _name(given: Mapping[str, Any]) -> str:
    kind = str(given.get("@class", "adjustment"))
    return str(given.get("name") or _UNNAMED.get(kind, kind))


def _schemes(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the correction schemes that made the adjustments, where they say so."""
    makers = [given["cls"] for given in fields.get("energy_adjustments") or [] if isinstance(given.get("cls"), dict)]
    names = sorted({str(maker["@class"]) for maker in makers if maker.get("@class")})
    return {"correction_schemes": names} if names else {}


def number(value: Any, what: str) -> float:  # noqa: ANN401 - any JSON value
    """Return a finite number.

    Raises:
        RowRefusedError: It is none.
    """
    try:
        found = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        raise RowRefusedError(RefusalCode.WRONG_SHAPE, f"{what} is {str(value)[:40]!r}, not a number") from None
    if not math.isfinite(found):
        raise RowRefusedError(RefusalCode.NOT_FINITE, f"{what} is {value}")
    return found


def _sigma(found: float) -> float:
    if found < 0:
        raise RowRefusedError(RefusalCode.INCONSISTENT, f"an uncertainty is negative: {found}")
    return found


def _composition(fields: Mapping[str, Any], columns: Iterable[str]) -> str | Mapping[str, float]:
    given = _first(fields, columns, "composition", RefusalCode.NO_COMPOSITION)
    if not isinstance(given, (str, dict)):
        raise RowRefusedError(RefusalCode.NO_COMPOSITION, f"the composition is a {type(given).__name__}")
    if isinstance(given, dict):
        return {key: value for key, value in given.items() if not key.startswith("@")}
    return given.strip()


def _first(
    fields: Mapping[str, Any], columns: Iterable[str], what: str, code: RefusalCode = RefusalCode.WRONG_SHAPE
) -> Any:  # noqa: ANN401 - any JSON value
    tried = tuple(columns)
    found = next((fields[key] for key in tried if not _is_empty(fields.get(key))), None)
    if found is None:
        raise RowRefusedError(code, f"the row has no {what} ({', '.join(tried)})")
    return found


def _is_empty(value: Any) -> bool:  # noqa: ANN401 - any JSON value
    return value is None or (isinstance(value, (str, dict)) and not value)


def _text(fields: Mapping[str, Any], columns: Iterable[str]) -> str:
    return next((str(fields[key]).strip() for key in columns if not _is_empty(fields.get(key))), "")


def _mapping(fields: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = fields.get(key)
    return found if isinstance(found, dict) else {}


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members that are plain values: numbers, truth values and short texts."""
    return {
        key: value
        for key, value in fields.items()
        if isinstance(value, (int, float, bool)) or (isinstance(value, str) and len(value) <= MAX_TEXT)
    }


MAX_TEXT: Final = 200
"""Characters of a text that is kept with an entry; longer ones stay in the file."""
