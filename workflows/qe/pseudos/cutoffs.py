"""The recorded cutoffs of the embedded family, and the name of their table in a level of theory."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

CUTOFFS_NAME = "gth_pbe_cutoffs.json"
_SHORT_HASH = 8


@dataclass(frozen=True)
class RecordedCutoffs:
    """The cutoffs of one stringency.

    A level of theory must change when a cutoff does that its energies rest on, and should not when another element gets
    one. So a released table has a version, which is raised when a released cutoff changes and kept when cutoffs are
    added. What somebody recorded on top of the release is named by its content, and makes a level of its own: nobody
    else need find the same cutoffs.

    Attributes:
        version: Version of the released table.
        cutoffs_Ry: Cutoff of the wave functions in Ry by pseudopotential, such as ``Mg-q2``.
        unreleased_Ry: Those that the release does not have, or has with another value.
    """

    version: int
    cutoffs_Ry: Mapping[str, float]
    unreleased_Ry: Mapping[str, float | None]

    @property
    def name(self) -> str:
        """Name of the table: its version, and a hash of what was recorded on top of it."""
        if not self.unreleased_Ry:
            return str(self.version)
        content = json.dumps(sorted(self.unreleased_Ry.items()))
        return f"{self.version} with {hashlib.sha256(content.encode()).hexdigest()[:_SHORT_HASH]}"

    @classmethod
    def load(cls, stringency: str) -> Self:
        """Return the packaged table of a stringency: ``low``, ``normal`` or ``high``."""
        return cls.from_data(packaged_json(CUTOFFS_NAME), stringency)

    @classmethod
    def from_data(cls, data: Mapping[str, Any], stringency: str) -> Self:
        """Return the table of a stringency from the content of the data file."""
        recorded = {name: record["ecutwfc_Ry"].get(stringency) for name, record in data["elements"].items()}
        released = {name: record.get("released_Ry", {}).get(stringency) for name, record in data["elements"].items()}
        return cls(
            version=data["version"],
            cutoffs_Ry={name: cutoff for name, cutoff in recorded.items() if cutoff is not None},
            unreleased_Ry={name: cutoff for name, cutoff in recorded.items() if cutoff != released[name]},
        )


def release(data: dict[str, Any]) -> dict[str, Any]:
    """Return the data file with all its cutoffs released.

    The version is one higher when a cutoff that was released before is now another one or none.
    """
    elements = data["elements"]
    changed = any(
        cutoff is not None and record["ecutwfc_Ry"].get(stringency) != cutoff
        for record in elements.values()
        for stringency, cutoff in record.get("released_Ry", {}).items()
    )
    released = {name: record | {"released_Ry": record["ecutwfc_Ry"]} for name, record in elements.items()}
    return data | {"version": data["version"] + int(changed), "elements": released}


def packaged_json(filename: str) -> dict[str, Any]:
    """Return the content of a JSON file beside this module."""
    text = files("hullworks.workflows.qe.pseudos").joinpath(filename).read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    return content
