"""Level of theory: the hard fence between energies that may meet on a hull and energies that may not."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self

from hullworks.errors import LevelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

KEY_HASH_LENGTH = 8
DEFAULT_FAMILY = "gth-pbe"
"""The embedded pseudopotential family; a level with another one says so in its name."""


@dataclass(frozen=True)
class LevelOfTheory:
    """Everything that decides what an energy means.

    Two energies may be compared on a hull if, and only if, their levels are equal. The key changes with any field, so
    that a new pseudopotential or cutoff rule makes a new level instead of silently joining an old one.

    >>> level = LevelOfTheory(code="qe", functional="PBE", protocol="fast", pseudo_family="gth-pbe")
    >>> level.slug
    'qe-pbe-fast'

    Attributes:
        code: Electronic-structure code: ``qe`` or ``vasp``.
        functional: Exchange-correlation functional, for example ``PBE`` or ``r2SCAN``.
        protocol: Name of the numerical protocol.
        protocol_hash: Content hash of the protocol's numbers.
        pseudo_family: Name of the pseudopotential family.
        pseudo_hashes: (element, sha256) of every pseudopotential of the family, sorted by element.
        hubbard: Hubbard-U scheme, with its projector where the code needs one; ``none`` without.
        spin_rule: How magnetic moments are started.
        kpoint_rule: How the k-point mesh follows from the cell.
        cutoff_rule: How the plane-wave cutoff follows from the elements.
        correction: Energy correction scheme with its library version; ``none`` without.
    """

    code: str
    functional: str
    protocol: str
    protocol_hash: str = ""
    pseudo_family: str = ""
    pseudo_hashes: tuple[tuple[str, str], ...] = ()
    hubbard: str = "none"
    spin_rule: str = "none"
    kpoint_rule: str = ""
    cutoff_rule: str = ""
    correction: str = "none"

    def __post_init__(self) -> None:
        object.__setattr__(self, "pseudo_hashes", tuple(sorted((str(e), str(h)) for e, h in self.pseudo_hashes)))

    @property
    def slug(self) -> str:
        """Readable name, as users type it; several levels may share it."""
        name = f"{self.code}-{self.functional}-{self.protocol}".lower()
        return f"{name}@{self.pseudo_family}" if self.pseudo_family not in {"", DEFAULT_FAMILY} else name

    @property
    def content_hash(self) -> str:
        """SHA-256 of the canonical JSON of all fields, hexadecimal."""
        text = json.dumps(self.as_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def key(self) -> str:
        """Slug and a short content hash: the name under which entries of this level are stored."""
        return f"{self.slug}-{self.content_hash[:KEY_HASH_LENGTH]}"

    def as_dict(self) -> dict[str, Any]:
        """Return all fields as plain JSON types."""
        return {**self._texts(), "pseudo_hashes": [list(pair) for pair in self.pseudo_hashes]}

    def as_compact_dict(self) -> dict[str, Any]:
        """Return all fields with the hashes as one text: what travels with each job of a graph.

        Whoever stores a job walks through it several times, and a family has a hundred hashes.
        """
        return {**self._texts(), "pseudo_hashes": " ".join(f"{element}:{sha}" for element, sha in self.pseudo_hashes)}

    def _texts(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Build a level from `as_dict` or `as_compact_dict` output.

        Raises:
            LevelError: A field is unknown.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(data) - known)
        if unknown:
            raise LevelError(f"unknown field {', '.join(unknown)}", "level of theory", "Upgrade HullWorks.")
        values = dict(data)
        hashes = values.get("pseudo_hashes", ())
        pairs = [item.split(":", 1) for item in hashes.split()] if isinstance(hashes, str) else hashes
        values["pseudo_hashes"] = tuple(tuple(pair) for pair in pairs)
        return cls(**values)


def require_one_level(keys: Iterable[str], where: str) -> str:
    """Return the only level key among ``keys``.

    Raises:
        LevelError: There is none, or more than one: energies of different levels never meet on one hull.
    """
    distinct = sorted(set(keys))
    if len(distinct) == 1:
        return distinct[0]
    if not distinct:
        raise LevelError("there is no entry", where, "`hullworks levels` lists the levels that have entries.")
    raise LevelError(
        f"energies of different levels of theory cannot meet on one hull ({', '.join(distinct)})",
        where,
        "Ask for one level, or compare formation energies.",
    )


def resolve_level(name: str, known: Iterable[str]) -> str:
    """Return the key among ``known`` that a user means by ``name``: a whole key, or a slug that only one key has.

    Raises:
        LevelError: No key fits, or several do.
    """
    keys = sorted(set(known))
    if name in keys:
        return name
    fitting = [key for key in keys if key.rpartition("-")[0] == name]
    if len(fitting) == 1:
        return fitting[0]
    listing = ", ".join(fitting or keys) or "none yet; the first `hullworks submit` at a level makes it"
    problem = "several levels have this name" if fitting else "no such level"
    raise LevelError(problem, name, f"Known: {listing}.")
