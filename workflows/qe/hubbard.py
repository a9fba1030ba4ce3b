"""Hubbard U: refused at the door unless its projector is declared and the pseudopotentials can project.

A U belongs to the functions that it is projected onto. The values of VASP's sets were fitted to energies with its PAW
projectors, so that with any other projector they are other corrections. pw.x would take them: 6.7 then projects onto
whatever atomic wave functions a file has, which may be none.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hullworks.errors import InputError, LevelError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hullworks.levels import LevelOfTheory
    from hullworks.workflows.qe.pseudos import Pseudo

PROJECTORS = ("atomic", "ortho-atomic")
"""Projectors that are declared and known: atomic wave functions as they are, or orthogonalised between atoms."""
NO_HUBBARD = "none"

_SWITCH = "lda_plus_u"
_PROJECTOR = "u_projection_type"
_VALUE = re.compile(r"hubbard_(?:u|u2|j|j0|v|alpha|beta|um)\s*\((\d+)[^)]*\)")
_DECLARE = (
    "Values of VASP's sets were fitted to its own projectors: leave them out, or set U_projection_type to "
    f"{' or '.join(PROJECTORS)} with values that were made for it"
)


def check_hubbard(settings: Mapping[str, object], pseudos: Sequence[Pseudo]) -> None:
    """Refuse a Hubbard U whose projector is not declared, or that nothing can be projected onto.

    Args:
        settings: What is asked of the namelist SYSTEM beside the protocol; None stands for a setting left out.
        pseudos: The pseudopotentials in the order of the species.

    Raises:
        InputError: Names the elements and their values, and what to do.
    """
    given = {key.lower(): value for key, value in settings.items() if value is not None}
    elements = _elements_with_u(given, pseudos)
    if not elements and not _is_on(given.get(_SWITCH)):
        return
    values = ", ".join(elements.values()) or "no element"
    projector = str(given.get(_PROJECTOR, "")).lower()
    if projector not in PROJECTORS:
        declared = f"with the projector '{projector}'" if projector else "without a declared projector"
        raise InputError(f"Hubbard U ({values}) {declared}", "namelist SYSTEM", _DECLARE)
    bare = [pseudo.element for pseudo in pseudos if pseudo.element in elements and not pseudo.n_wavefunctions]
    if bare:
        what = f"Hubbard U ({values}), and the pseudopotentials of {', '.join(bare)} hold no atomic wave functions"
        raise InputError(what, "namelist SYSTEM", "Use a family whose files have them; the embedded one has none")


def check_level(level: LevelOfTheory) -> None:
    """Refuse a level with a Hubbard scheme: no protocol for pw.x has one.

    Raises:
        LevelError: Names the scheme.
    """
    if level.hubbard != NO_HUBBARD:
        what = f"the protocols for pw.x have no Hubbard U, and the level asks for the scheme '{level.hubbard}'"
        raise LevelError(what, level.key, "Values of VASP's sets cannot be taken over; ask for a level without U.")


def _elements_with_u(given: Mapping[str, object], pseudos: Sequence[Pseudo]) -> dict[str, str]:
    """Return the elements that get a value other than zero, with that value as text."""
    found: dict[str, str] = {}
    for key, value in given.items():
        match = _VALUE.fullmatch(key)
        if match is None or not value:
            continue
        index = int(match[1]) - 1
        element = pseudos[index].element if index < len(pseudos) else f"species {match[1]}"
        found[element] = f"{element} {value} eV"
    return found


def _is_on(value: object) -> bool:
    return value is True or str(value).strip(".").lower() in {"true", "t"}
