"""The electronic-structure codes: one folder each, behind one small interface.

A code's folder has a module ``code`` with ``PROTOCOLS``, ``GRAPH_VERSION``, ``build_level``, ``check_structure`` and
``build_flow``; nothing else in HullWorks knows which codes there are.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from hullworks.errors import LevelError
from hullworks.levels import DEFAULT_FAMILY, KEY_HASH_LENGTH

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from jobflow import Flow
    from pymatgen.core import Structure

    from hullworks.levels import LevelOfTheory
    from hullworks.settings import Settings
    from hullworks.workflows.landing import FinishedCalculation

CODES: Final[Mapping[str, str]] = MappingProxyType({"qe": "hullworks.workflows.qe.code"})

_NAME = re.compile(r"(?P<code>[a-z]+)-(?P<functional>[a-z0-9]+)-(?P<protocol>[a-z]+)(@(?P<family>[\w.-]+?))?")
_KEY_HASH = re.compile(rf"-[0-9a-f]{{{KEY_HASH_LENGTH}}}$")


class Code(Protocol):
    """What a code's module offers."""

    GRAPH_VERSION: str
    """Changes when the same input would give another energy; part of a calculation's identity."""

    def protocols(self) -> Iterable[str]:
        """Return the names of the numerical protocols."""
        ...

    def families(self, settings: Settings) -> Mapping[str, str]:
        """Return the pseudopotential families and their functionals."""
        ...

    def build_level(self, functional: str, protocol: str, family: str, settings: Settings) -> LevelOfTheory:
        """Return the level of theory."""
        ...

    def check_structure(self, structure: Structure, level: LevelOfTheory, settings: Settings) -> None:
        """Raise when the level cannot compute the structure."""
        ...

    def build_flow(
        self, structure: Structure, level: LevelOfTheory, context: CalculationContext, settings: Settings
    ) -> Flow:
        """Return the graph of one candidate."""
        ...

    def read_result(self, static: Mapping[str, Any], relaxation: Mapping[str, Any]) -> FinishedCalculation:
        """Return what the documents of the last steps say, in the words that all codes share."""
        ...


@dataclass(frozen=True)
class CalculationContext:
    """Who asks for a calculation; travels with its runs and comes back when it lands.

    Attributes:
        candidate_id: The candidate.
        calculation_id: The calculation.
        structure_id: Content id of the submitted structure.
        level: Its level, as `LevelOfTheory.from_dict` reads it.
        role: ``reference`` or ``candidate``.
        name: For people.
    """

    candidate_id: str
    calculation_id: str
    structure_id: str
    level: dict[str, Any]
    role: str
    name: str

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON types."""
        return asdict(self)


def get_code(name: str) -> Code:
    """Return a code's module.

    Raises:
        LevelError: There is no such code.
    """
    if name not in CODES:
        raise LevelError("no such electronic-structure code", name, f"Known: {', '.join(CODES)}.")
    return cast("Code", import_module(CODES[name]))


def build_level(name: str, settings: Settings) -> LevelOfTheory:
    """Return the level of theory that a name stands for with the present settings.

    Args:
        name: ``code-functional-protocol``, with ``@family`` for another pseudopotential family than the default, or the
            key of a level.
        settings: The project's settings.

    Raises:
        LevelError: The name cannot be read, or is a key that the present settings do not give.
        PseudopotentialError: The family cannot be used.
    """
    readable = _KEY_HASH.sub("", name)
    try:
        level = _build_readable(readable, settings)
    except LevelError:
        if _NAME.fullmatch(name) is None:
            raise
        return _build_readable(name, settings)  # a family's own name may end like a key: in a date
    if name not in {readable, level.key}:
        raise LevelError(
            f"with the present protocols and pseudopotentials this level is {level.key}",
            name,
            "Its hull can still be read; new candidates need the present one.",
        )
    return level


def _build_readable(name: str, settings: Settings) -> LevelOfTheory:
    match = _NAME.fullmatch(name)
    if match is None:
        raise LevelError("a level's name is like qe-pbe-fast", name, "`hullworks levels` lists what can be asked for.")
    family = match["family"] or DEFAULT_FAMILY
    return get_code(match["code"]).build_level(match["functional"], match["protocol"], family, settings)


def available_levels(settings: Settings) -> list[str]:
    """Return the names of the levels that can be asked for."""
    names = []
    for code in CODES:
        module = get_code(code)
        for family, functional in module.families(settings).items():
            suffix = "" if family == DEFAULT_FAMILY else f"@{family}"
            names += [f"{code}-{functional.lower()}-{protocol}{suffix}" for protocol in module.protocols()]
    return names


def graph_version(level: LevelOfTheory) -> str:
    """Return the version of the graph that computes a level."""
    return get_code(level.code).GRAPH_VERSION


def check_structure(structure: Structure, level: LevelOfTheory, settings: Settings) -> None:
    """Raise a `HullWorksError` that names everything that keeps a level from computing a structure."""
    get_code(level.code).check_structure(structure, level, settings)


def build_flow(
    structure: Structure, level: LevelOfTheory, context: CalculationContext, settings: Settings
) -> tuple[Flow, str]:
    """Return the graph of one candidate and the graph's version.

    Raises:
        HullWorksError: The present settings no longer give this level, or cannot compute the structure.
    """
    code = get_code(level.code)
    return code.build_flow(structure, level, context, settings), code.GRAPH_VERSION
