"""The fence of an import: rows whose parameters contradict the level, or the settings of its other rows, stay out."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

from hullworks.levels import LevelOfTheory
from hullworks.workflows.references.rows import RefusalCode, RowRefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hullworks.workflows.references.rows import ReferenceRow
    from hullworks.workflows.references.rules import Rules

NONE: Final = "none"
"""What a level says that has no Hubbard U, or no correction scheme."""

_COMPARED: Final = tuple(
    field.name for field in fields(LevelOfTheory) if field.name not in {"code", "pseudo_hashes", "correction"}
)
"""Fields of a level that a row's parameters may name as they are."""
_RUN_TYPES: Final = ("run_type", "energy_type")
"""Parameters that name the run type of one entry; a thermo type names that of a whole set."""
_CODES: Final = ("code", "software")


class Fence:
    """Judges rows of one level one after the other.

    Args:
        level: The level of theory.
        rules: Names of codes and run types.
        settings: What the level's present entries were computed with: {"potcar Fe": "PBE Fe_pv", "U Fe": "5.3", ...}.
    """

    def __init__(self, level: LevelOfTheory, rules: Rules, settings: Mapping[str, str] | None = None) -> None:
        self.level = level
        self.key = level.key  # a hash over all fields: too dear to be taken anew for every row
        self.rules = rules
        self.settings = dict(settings or {})
        self._codes = {alias: code for code, aliases in rules.codes.items() for alias in aliases}
        self._wanted = {name: str(getattr(level, name)).lower() for name in _COMPARED}
        self._hashes = dict(level.pseudo_hashes)

    def settings_of(self, row: ReferenceRow) -> dict[str, str]:
        """Return the settings of a row that all rows of its level must share, and hold the later ones to them.

        Raises:
            RowRefusedError: The row contradicts the level, or one of its settings is not that of the rows before.
        """
        if row.parameters:
            for contradiction in self._contradictions(row.parameters):
                raise RowRefusedError(RefusalCode.OTHER_LEVEL, f"{contradiction}; the level is {self.key}")
        if any(row.parts.values()) and self.level.correction == NONE:
            text = f"it is corrected ({', '.join(row.parts)}), and level {self.key} has no correction scheme"
            raise RowRefusedError(RefusalCode.OTHER_LEVEL, text)
        own = dict(_settings(row.parameters))
        for key, value in own.items():
            if self.settings.get(key, value) != value:
                text = f"{key} is {value!r}, and {self.settings[key]!r} in the level's other entries"
                raise RowRefusedError(RefusalCode.OTHER_SETTINGS, text)
        self.settings |= own
        return own

    def _contradictions(self, given: Mapping[str, Any]) -> Iterator[str]:
        for key in (*_RUN_TYPES, "thermo_type"):
            if given.get(key):
                yield from self._run_type(key, str(given[key]))
        for key in _CODES:
            name = str(given.get(key) or self.level.code).strip().lower()
            if self._codes.get(name, name) != self.level.code.lower():
                yield f"{key} is {given[key]}"
        for key, wanted in self._wanted.items():
            value = given.get(key)
            if isinstance(value, str) and value.lower() != wanted:
                yield f"{key} is {value}"
        if given.get("level_key", self.key) != self.key:
            yield f"level_key is {given['level_key']}"
        yield from self._hubbard(given)
        yield from self._pseudopotentials(given)

    def _run_type(self, key: str, name: str) -> Iterator[str]:
        known = self.rules.run_types.get(name.strip().lower())
        if known is None:
            yield f"{key} {name} is not one that belongs to a level"
        elif self.level.functional.lower() not in known.functionals:
            yield f"{key} is {name}"

    def _hubbard(self, given: Mapping[str, Any]) -> Iterator[str]:
        """A row with a U has no place at a level without; one without may be an intermetallic of a level with."""
        if self.level.hubbard != NONE:
            return
        acting = [f"{element} {value}" for element, value in _potentials(given)]
        named = [self.rules.run_types.get(str(given.get(key, "")).strip().lower()) for key in _RUN_TYPES]
        if given.get("is_hubbard") is True or acting or any(known is not None and known.hubbard for known in named):
            yield f"a Hubbard U acted ({', '.join(acting) or 'by its run type'})"

    def _pseudopotentials(self, given: Mapping[str, Any]) -> Iterator[str]:
        for element, spec in _specs(given) if self._hashes else ():
            found = spec.get("hash")
            if found and self._hashes.get(element, found) != found:
                yield f"the pseudopotential of {element} has hash {found}, not {self._hashes[element]}"


def _settings(given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what all rows of a level must share, by name."""
    for symbol in given.get("potcar_symbols") or ():
        if label := str(symbol).split():
            yield f"potcar {_element(label[-1])}", str(symbol)
    for element, spec in _specs(given):
        yield f"potcar title {element}", str(spec["titel"])
    for element, value in _potentials(given):
        yield f"U {element}", f"{value:g}"
    for scheme in given.get("correction_schemes") or ():
        yield "correction scheme", str(scheme)


def _specs(given: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield element and description of each pseudopotential, such as ``PAW_PBE Fe_pv 06Sep2000``."""
    for spec in given.get("potcar_spec") or ():
        words = str(spec.get("titel") or "").split() if isinstance(spec, dict) else []
        if words:
            yield _element(words[min(1, len(words) - 1)]), spec


def _potentials(given: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the elements on which a Hubbard U acts, and its value, eV."""
    found = given.get("hubbards")
    for element, value in found.items() if isinstance(found, dict) else ():
        if isinstance(value, (int, float)) and value:
            yield str(element), float(value)


def _element(label: str) -> str:
    """Return the element of a potential's label: ``Fe_pv`` is one of Fe, ``H1.25`` one of H."""
    return label.partition("_")[0].rstrip("0123456789.")
