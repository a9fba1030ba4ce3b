"""The level that imported entries belong to: an existing one, or one that a file declares."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

from hullworks.documents import SCHEMA_VERSION, Level, now
from hullworks.errors import LevelError
from hullworks.levels import LevelOfTheory, resolve_level

if TYPE_CHECKING:
    from pathlib import Path

FORMATION = "formation"
"""In the protocol or correction of a level: its energies are formation energies, with the elements at zero."""


def stored_level(name: str) -> LevelOfTheory:
    """Return a level of the database by its key or readable name.

    Raises:
        LevelError: There is no such level, or several.
    """
    key = resolve_level(name, [level.key for level in Level.objects.only("key")])
    return LevelOfTheory.from_dict(Level.objects.get(key=key).data)


def declared_level(path: Path) -> LevelOfTheory:
    """Return the level that a YAML file declares by the fields of `LevelOfTheory`.

    Raises:
        LevelError: The file cannot be read, or a field is unknown, missing or no text.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise LevelError(f"the file cannot be read ({' '.join(str(error).split())})", str(path)) from None
    example = "Write code, functional and protocol, and what else the energies depend on (hubbard, correction, ...)."
    if not isinstance(data, dict) or not {"code", "functional", "protocol"} <= set(data):
        raise LevelError("it does not name code, functional and protocol", str(path), example)
    wrong = [key for key, value in data.items() if key != "pseudo_hashes" and not isinstance(value, str)]
    if wrong:
        raise LevelError(f"{', '.join(map(str, wrong))} must be text", str(path), "Put it in quotes.")
    try:
        return LevelOfTheory.from_dict(data)
    except LevelError as error:
        raise LevelError(error.what, str(path), example) from None
    except (TypeError, ValueError):
        raise LevelError("pseudo_hashes must be a list of [element, hash]", str(path), example) from None


def store_level(level: LevelOfTheory) -> None:
    """Store a level, or find it stored."""
    Level.objects(key=level.key).update_one(
        upsert=True,
        set_on_insert__schema_version=SCHEMA_VERSION,
        set_on_insert__created_at=now(),
        set_on_insert__slug=level.slug,
        set_on_insert__data=level.as_dict(),
    )


def check_kind(level: LevelOfTheory, *, formation: bool) -> None:
    """Let formation energies meet formation energies only.

    Args:
        level: The level of theory.
        formation: The energies to be imported are formation energies.

    Raises:
        LevelError: They and the level's are not of one kind.
    """
    holds = FORMATION in f"{level.protocol} {level.correction}".lower()
    if formation and not holds:
        cure = "Declare a level whose protocol or correction says `formation`, with --define."
        raise LevelError("it holds total energies, not formation energies", level.key, cure)
    if holds and not formation:
        raise LevelError("it holds formation energies, not total energies", level.key, "Add --formation-energies.")
