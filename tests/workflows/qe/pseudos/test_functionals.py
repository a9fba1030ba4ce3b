"""Names of functionals."""

from __future__ import annotations

import pytest

from hullworks.workflows.qe.pseudos import normalised_functional


@pytest.mark.parametrize(
    "spelling",
    ["PBE", "pbe", " SLA  PW   PBX  PBC ", "sla+pw+pbx+pbc", "SLA PW PBE PBE", "SLA PW PBE PBE PBE", "SLA-PW-PBX-PBC"],
)
def test_every_spelling_of_pbe_is_pbe(spelling: str) -> None:
    """Old and new component lists, and the short name, all mean PBE."""
    assert normalised_functional(spelling) == "PBE"


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        (" SLA  PW   PSX  PSC", "PBESOL"),
        ("PBESOL", "PBESOL"),
        ("SLA PZ NOGX NOGC", "PZ"),
        ("LDA                 ", "PZ"),
        ("SLA PW NOGX NOGC PW", "PW"),
        (" SLA  LYP  B88  BLYP", "BLYP"),
        (" SLA  PW   TPSS TPSS", "TPSS"),
        ("SLA PW GGX GGC PW91", "PW91"),
    ],
)
def test_other_functionals_keep_their_own_names(spelling: str, name: str) -> None:
    """A functional that is not PBE never becomes PBE."""
    assert normalised_functional(spelling) == name


def test_an_unknown_functional_keeps_its_components() -> None:
    """Two files of one unknown functional agree, whatever their spacing."""
    assert normalised_functional("ABC def") == normalised_functional(" abc+DEF ") == "ABC+DEF"
