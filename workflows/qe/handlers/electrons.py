"""Cures for electrons that do not settle."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from hullworks.workflows.qe.handlers.base import Cure, Remedy, change, go_on
from hullworks.workflows.qe.outcomes import QeOutcome
from hullworks.workflows.qe.restarts import RestartKind

if TYPE_CHECKING:
    from hullworks.workflows.qe.inputs import PwInput
    from hullworks.workflows.qe.parser import QeRun


DEFAULT_SOLVER: Final = "david"
"""What pw.x takes when none is asked for."""


class MoreIterations(Cure):
    """The cycle was cut off while it converged: metals and magnets with many states at the Fermi energy are slow.

    Density and wavefunctions were on their way, so they are taken over. Source: recorded runs; pw.x names no limit of
    its own but the default of 100.
    """

    outcomes = frozenset({QeOutcome.SCF_NOT_CONVERGED})
    restart = RestartKind.WAVEFUNCTIONS

    def remedy(self, run: QeRun, asked: PwInput) -> Remedy | None:
        """Allow more iterations, if fewer were."""
        wanted = int(self.rule.numbers["electron_maxstep"])
        present = asked.setting("ELECTRONS", "electron_maxstep")
        if isinstance(present, int) and present >= wanted:
            return None
        return go_on(run, change(asked, ELECTRONS__electron_maxstep=wanted))


class GentlerMixing(Cure):
    """Charge sloshes between iterations when too much of the new density is taken at a time.

    From scratch, where AiiDA restarts in full: a density that sloshed lies further off than that of free atoms. Source:
    aiida-quantumespresso, handler for exit code 410.
    """

    outcomes = frozenset(
        {QeOutcome.SCF_NOT_CONVERGED, QeOutcome.SCF_STUCK, QeOutcome.FERMI_NOT_FOUND, QeOutcome.CHARGE_WRONG}
    )

    def remedy(self, run: QeRun, asked: PwInput) -> Remedy | None:
        """Take a smaller share of the new density, down to a least one."""
        present = asked.setting("ELECTRONS", "mixing_beta")
        beta = present if isinstance(present, float) else asked.protocol.mixing_beta
        wanted = beta * float(self.rule.numbers["factor"])
        if wanted < float(self.rule.numbers["least"]):
            return None
        return go_on(run, change(asked, ELECTRONS__mixing_beta=wanted))


class LocalScreening(Cure):
    """In cells with regions of unlike density the long waves of the charge must be damped by local screening.

    From scratch, as what went before has sloshed. Source: pw.x's documentation of ``mixing_mode = 'local-TF'``, for
    highly inhomogeneous systems.
    """

    outcomes = frozenset({QeOutcome.SCF_NOT_CONVERGED, QeOutcome.SCF_STUCK})

    def remedy(self, run: QeRun, asked: PwInput) -> Remedy | None:
        """Mix with local Thomas-Fermi screening."""
        if asked.setting("ELECTRONS", "mixing_mode") == "local-TF":
            return None
        return go_on(run, change(asked, ELECTRONS__mixing_mode="local-TF"))


class OtherSolver(Cure):
    """Davidson's reduced problem can be ill-conditioned where another eigensolver, which has none, goes through.

    An overlap matrix that is not positive definite is met there only. From scratch: the wavefunctions are what failed.
    Source: aiida-quantumespresso, handler for exit codes 462 to 468.
    """

    outcomes = frozenset({QeOutcome.DIAGONALIZATION_FAILED, QeOutcome.S_MATRIX})

    def remedy(self, run: QeRun, asked: PwInput) -> Remedy | None:
        """Take the next eigensolver of the list."""
        solvers: list[str] = self.rule.numbers["solvers"]
        present = asked.setting("ELECTRONS", "diagonalization") or DEFAULT_SOLVER
        following = solvers[solvers.index(str(present)) + 1 :] if present in solvers else solvers
        if not following:
            return None
        return go_on(run, change(asked, ELECTRONS__diagonalization=following[0]))


class PlainBands(Cure):
    """A number of bands that was set for one cell may be too small for another; pw.x's own choice never is.

    Then no band is left to smear into, and pw.x says so, or finds no Fermi energy. From scratch, because nothing was
    calculated. Source: recorded runs.
    """

    outcomes = frozenset({QeOutcome.TOO_FEW_BANDS, QeOutcome.FERMI_NOT_FOUND})

    def remedy(self, run: QeRun, asked: PwInput) -> Remedy | None:  # noqa: ARG002 - no attempt got anywhere
        """Leave the number of bands to pw.x."""
        if asked.setting("SYSTEM", "nbnd") is None:
            return None
        return change(asked, SYSTEM__nbnd=None)


class SmearOccupations(Cure):
    """Fixed occupations cannot hold an odd number of electrons, nor those of a metal.

    The message also appears, without that meaning, after a restart inside the final calculation of a vc-relax, which
    is another outcome and never asked for here. From scratch: other occupations make another density. Source: recorded
    runs.
    """

    outcomes = frozenset({QeOutcome.SMEARING_NEEDED})

    def remedy(self, run: QeRun, asked: PwInput) -> Remedy | None:
        """Smear the occupations as the protocol says."""
        if asked.setting("SYSTEM", "occupations") == "smearing":
            return None
        protocol = asked.protocol
        smeared = change(
            asked,
            SYSTEM__occupations="smearing",
            SYSTEM__smearing=protocol.smearing,
            SYSTEM__degauss=protocol.degauss_Ry,
        )
        return go_on(run, smeared)


class ProtocolSmearing(Cure):
    """Cold smearing wider than a gap makes the count of electrons no monotonic function of the Fermi energy.

    The search for it then ends beside the right charge. Gaussian smearing, the protocol's, has no such range; what is
    asked beside the protocol gives way to it. From scratch: other occupations make another density. Source: recorded
    runs of Mg2Si with pw.x 7.2.
    """

    outcomes = frozenset({QeOutcome.CHARGE_WRONG})

    def remedy(self, run: QeRun, asked: PwInput) -> Remedy | None:
        """Smear as the protocol says, if anything else was asked."""
        protocol = asked.protocol
        if asked.setting("SYSTEM", "smearing") == protocol.smearing:
            return None
        changed = change(asked, SYSTEM__smearing=protocol.smearing, SYSTEM__degauss=protocol.degauss_Ry)
        return go_on(run, changed)


class MoreBands(Cure):
    """Electrons in the highest band mean that those above it, which were left out, would hold some too.

    The density is nearly right and taken over. Source: aiida-quantumespresso, sanity check of the occupations, which
    adds five per cent and at least four bands.
    """

    outcomes = frozenset({QeOutcome.HIGHEST_BAND_OCCUPIED, QeOutcome.CHARGE_WRONG})
    restart = RestartKind.CHARGE_DENSITY

    def remedy(self, run: QeRun, asked: PwInput) -> Remedy | None:
        """Calculate more bands than there were; pw.x's own choice, where nothing is known of it, is left alone."""
        numbers = self.rule.numbers
        if run.n_bands is None:
            return None
        wanted = run.n_bands + max(int(numbers["least"]), math.ceil(run.n_bands * float(numbers["share"])))
        kind = None if run.outcome is QeOutcome.HIGHEST_BAND_OCCUPIED else RestartKind.SCRATCH
        return replace(go_on(run, change(asked, SYSTEM__nbnd=wanted)), kind=kind)
