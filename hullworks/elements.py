"""The chemical elements, and the chemical systems that are written with them."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from hullworks.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

_BY_NUMBER: Final = (
    "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr Nb "
    "Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au "
    "Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts "
    "Og"
)

SYMBOLS: Final = tuple(sorted(_BY_NUMBER.split()))
"""The symbols of the 118 elements in alphabetical order."""

ELEMENTS: Final = frozenset(SYMBOLS)
"""The same as a set."""

ISOTOPES: Final[Mapping[str, str]] = MappingProxyType({"D": "H", "T": "H"})
"""Isotopes with a symbol of their own, and their element, whose electrons they share: DFT cannot tell them apart."""

ELEMENTS_AND_ISOTOPES: Final = ELEMENTS | ISOTOPES.keys()
"""Every symbol that pymatgen takes for an element."""


def elements_of(chemsys: str) -> tuple[str, ...]:
    """Return the elements of a chemical system, sorted and each once.

    >>> elements_of("Si - Mg")
    ('Mg', 'Si')

    Args:
        chemsys: Elements joined by hyphens, in any order, with or without spaces.

    Raises:
        InputError: A part is no element; isotopes are none, since every stored entry has their element instead.
    """
    elements = sorted({part.strip() for part in chemsys.split("-")})
    if wrong := [part for part in elements if part not in ELEMENTS]:
        raise InputError(f"{', '.join(wrong) or 'nothing'} is not an element", chemsys, "Write it like Mg-Si-Ge.")
    return tuple(elements)
