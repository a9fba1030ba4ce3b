"""What the entries of a hull say of the errors of their own energies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hullworks.analysis.uncertainty import OWN, EnergyErrors
from hullworks.documents import Entry
from hullworks.errors import HullError, InputError

if TYPE_CHECKING:
    from hullworks.analysis.hull_view import HullView


@dataclass(frozen=True, eq=False)
class CarriedErrors:
    """The errors of the n entries of a hull.

    errors: By entry index; an entry without any is taken as exact.
    n_carrying: How many entries carry errors of their own accord.
    shared: Names of the sources that several entries may share, such as a correction.
    """

    errors: EnergyErrors
    n_carrying: int
    shared: tuple[str, ...]


def carried_errors(view: HullView, assumed_eV: float | None = None) -> CarriedErrors:
    """Return the errors that the entries of a view carry; a correction's is shared by all entries that got it.

    Args:
        view: The entries; errors are those that their documents have now.
        assumed_eV: One standard deviation in eV/atom of an independent error for each entry that carries none.

    Raises:
        InputError: The assumed error is negative or no number.
        HullError: No entry carries an error, and none is assumed.
    """
    if assumed_eV is not None and not 0 <= assumed_eV < math.inf:
        raise InputError("an assumed error is a number of eV/atom, not below 0", str(assumed_eV))
    fields = {"uncertainty_parts_eV_per_atom": 1}
    found = Entry.collection().find({"_id": {"$in": view.ids}}, fields)
    stored = {doc["_id"]: doc.get("uncertainty_parts_eV_per_atom") or {} for doc in found}
    parts = [stored.get(name, {}) for name in view.ids]
    n_carrying = sum(any(row.values()) for row in parts)
    if not n_carrying and not assumed_eV:
        raise HullError(
            "no entry carries an uncertainty",
            f"{'-'.join(view.elements)} at {view.version}",
            "Assume one for each entry: --assume 0.01 (eV/atom).",
        )
    assumed = {f"{OWN}assumed": assumed_eV} if assumed_eV else {}
    errors = EnergyErrors.from_parts([row if any(row.values()) else assumed for row in parts])
    shared = sorted({name for row in parts for name in row if not name.startswith(OWN)})
    return CarriedErrors(errors, n_carrying, tuple(shared))
