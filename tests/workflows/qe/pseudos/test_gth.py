"""The table of Goedecker-Teter-Hutter parameters."""

from __future__ import annotations

import pytest

from hullworks.errors import PseudopotentialError
from hullworks.workflows.qe.pseudos import gth_elements, gth_parameters, gth_valences
from hullworks.workflows.qe.pseudos.gth import GthChannel

ALL = [(element, q) for element in gth_elements() for q in gth_valences(element)]


def test_the_table_holds_every_published_entry() -> None:
    """The table holds 107 pseudopotentials of 87 elements, hydrogen to radon and uranium, in order."""
    numbers = [gth_parameters(element).atomic_number for element in gth_elements()]
    assert len(ALL) == 107
    assert numbers == [*range(1, 87), 92]


@pytest.mark.parametrize(("element", "q"), ALL)
def test_an_entry_is_consistent(element: str, q: int) -> None:
    """The electrons of an entry add up to its q, radii are positive, and each channel is a whole triangle."""
    entry = gth_parameters(element, q)
    assert entry.valence == q
    assert entry.valence <= entry.atomic_number
    assert entry.local_radius_bohr > 0
    for channel in entry.channels:
        assert 0.05 < channel.radius_bohr < 2.0
        assert len(channel.h_hartree) == channel.size * (channel.size + 1) // 2


@pytest.mark.parametrize(
    ("element", "q"), [("Mg", 2), ("Ga", 3), ("Na", 9), ("Li", 3), ("Cu", 11), ("Pb", 4), ("W", 14)]
)
def test_the_default_valence(element: str, q: int) -> None:
    """Elements of the s and p blocks default to their smallest valence, transition metals to the published choice."""
    assert gth_parameters(element).valence == q


def test_silicon_is_the_published_one() -> None:
    """Silicon has the numbers of Krack (2005)."""
    silicon = gth_parameters("Si")
    assert silicon.local_radius_bohr == 0.44
    assert silicon.local_hartree == (-6.26928833,)
    assert silicon.channels[0].matrix() == ((8.95174150, -2.70627082), (-2.70627082, 3.49378060))
    assert silicon.channels[1] == GthChannel(1, 0.49794218, (2.43127673,))


def test_unknown_elements_and_valences_are_refused() -> None:
    """An element that the table lacks is refused, and an unknown valence is answered with the known ones."""
    with pytest.raises(PseudopotentialError, match="Np"):
        gth_parameters("Np")
    with pytest.raises(PseudopotentialError, match="Known valences: 2, 10"):
        gth_parameters("Mg", 3)
