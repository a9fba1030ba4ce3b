"""What is noticed of the magnetic solution of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from pymatgen.core import Lattice, Structure

from hullworks.analysis.verdicts import VerdictFlag
from hullworks.workflows.qe.magnetism import find_flags
from hullworks.workflows.qe.outcomes import QeOutcome
from hullworks.workflows.qe.parser import QeRun

IRON = Structure(Lattice.cubic(2.83), ["Fe", "Fe"], [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]])


@pytest.mark.parametrize(
    ("moments", "flags"),
    [
        ((), ()),
        ((4.4, 4.3, 4.3), ()),
        ((0.001, 0.0, 0.0), ()),
        ((0.4, 0.2, 0.01), (VerdictFlag.MAGNETIC_COLLAPSE,)),
        ((4.4, 0.0), (VerdictFlag.MAGNETIC_COLLAPSE, VerdictFlag.SEVERAL_SCF_SOLUTIONS)),
        ((4.4, 2.0, 2.0), (VerdictFlag.SEVERAL_SCF_SOLUTIONS,)),
    ],
)
def test_a_collapse_and_a_jump_are_told(moments: tuple[float, ...], flags: tuple[VerdictFlag, ...]) -> None:
    """Bohr magnetons of a cell of two atoms, from step to step."""
    run = QeRun(Path(), QeOutcome.CONVERGED, structure=IRON, absolute_magnetizations=moments)
    assert find_flags([run]) == flags


@pytest.mark.parametrize("flag", VerdictFlag)
def test_every_flag_is_explained(flag: VerdictFlag) -> None:
    """Each has its meaning in the docstring."""
    assert f"    {flag.name}: " in (VerdictFlag.__doc__ or "")
