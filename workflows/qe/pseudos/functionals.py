"""Names of exchange-correlation functionals: what a pseudopotential file says, turned into one name per functional."""

from __future__ import annotations

import re

_COMPONENTS = 4
"""Exchange, correlation, gradient exchange, gradient correlation: the four names that Quantum ESPRESSO combines."""

_SPELLINGS = {
    "PBE": ("SLA+PW+PBX+PBC", "SLA+PW+PBE+PBE"),
    "PBESOL": ("SLA+PW+PSX+PSC",),
    "REVPBE": ("SLA+PW+REVX+PBC", "SLA+PW+RPB+PBC"),
    "RPBE": ("SLA+PW+HHNX+PBC",),
    "WC": ("SLA+PW+WCX+PBC",),
    "PW91": ("SLA+PW+GGX+GGC",),
    "BLYP": ("SLA+LYP+B88+BLYP",),
    "BP": ("SLA+PZ+B88+P86", "B88+P86"),
    "TPSS": ("SLA+PW+TPSS+TPSS",),
    "PZ": ("SLA+PZ+NOGX+NOGC", "SLA+PZ", "LDA"),
    "PW": ("SLA+PW+NOGX+NOGC", "SLA+PW"),
    "VWN": ("SLA+VWN+NOGX+NOGC", "SLA+VWN"),
}
"""Short name: the component lists that mean it, as Quantum ESPRESSO (Modules/funct.f90) and old files spell them."""

_NAMES = {spelling: name for name, spellings in _SPELLINGS.items() for spelling in spellings}


def normalised_functional(text: str) -> str:
    """Return one name for a functional, however the file spells it.

    Unknown functionals keep their own components joined by ``+``, so that two files of the same unknown functional
    still agree with each other and disagree with all others.

    >>> normalised_functional("PBE"), normalised_functional("SLA PW PBX PBC"), normalised_functional("sla+pw+pbe+pbe")
    ('PBE', 'PBE', 'PBE')
    >>> normalised_functional(" SLA  PW   PSX  PSC    PBESOL"), normalised_functional("SLA-PZ-NOGX-NOGC")
    ('PBESOL', 'PZ')
    """
    parts = [part for part in re.split(r"[\s+\-]+", text.upper()) if part]
    joined = "+".join(parts[:_COMPONENTS])
    return _NAMES.get(joined, joined)
