"""Pseudopotentials: the embedded PBE family, families of the user's own files, and the checks on both."""

from __future__ import annotations

from hullworks.workflows.qe.pseudos.convert import gth_to_upf
from hullworks.workflows.qe.pseudos.family import EMBEDDED_FAMILY, Family, Pseudo, load_family
from hullworks.workflows.qe.pseudos.functionals import normalised_functional
from hullworks.workflows.qe.pseudos.gth import GthParameters, gth_elements, gth_parameters, gth_valences
from hullworks.workflows.qe.pseudos.upf import UpfHeader, read_upf_header

__all__ = [
    "EMBEDDED_FAMILY",
    "Family",
    "GthParameters",
    "Pseudo",
    "UpfHeader",
    "gth_elements",
    "gth_parameters",
    "gth_to_upf",
    "gth_valences",
    "load_family",
    "normalised_functional",
    "read_upf_header",
]
