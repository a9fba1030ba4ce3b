"""Cures for atoms and cells that do not settle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hullworks.workflows.qe.handlers.base import Cure, Remedy, change, go_on
from hullworks.workflows.qe.outcomes import QeOutcome
from hullworks.workflows.qe.restarts import RestartKind

if TYPE_CHECKING:
    from hullworks.workflows.qe.inputs import PwInput
    from hullworks.workflows.qe.parser import QeRun

_BFGS = frozenset({QeOutcome.BFGS_GAVE_UP, QeOutcome.BFGS_FAILED, QeOutcome.BFGS_DE0S})


class TightTrustRadius(Cure):
    """Near a flat minimum noise in the forces exceeds the predicted gain, and BFGS discards its history twice.

    Shorter steps stay where the forces point, and a tighter density lowers their noise. The density is a good start,
    the optimiser's history is what failed. Sources: aiida-quantumespresso, handler for exit codes 520 and 521; recorded
    runs.
    """

    outcomes = _BFGS
    restart = RestartKind.CHARGE_DENSITY

    def remedy(self, run: QeRun, asked: PwInput) -> Remedy | None:
        """Start with the smallest step allowed so far, allow smaller ones, and converge the density further."""
        numbers = self.rule.numbers
        before = asked.setting("IONS", "trust_radius_min")
        radius = before if isinstance(before, float) else float(numbers["radius_bohr"])
        least = radius * float(numbers["factor"])
        threshold = asked.setting("ELECTRONS", "conv_thr")
        # A hair below, because 1e-3 * 0.1 * 0.1 is not 1e-5.
        if not isinstance(threshold, float) or least < 0.99 * float(numbers["least_bohr"]):
            return None
        changed = change(
            asked,
            IONS__trust_radius_ini=radius,
            IONS__trust_radius_min=least,
            ELECTRONS__conv_thr=threshold * float(numbers["conv_thr_factor"]),
        )
        return go_on(run, changed)


class DampedDynamics(Cure):
    """Damped motion needs neither history nor line search, so that a landscape which defeats BFGS does not stop it.

    The density is taken over, BFGS's history is not. Source: aiida-quantumespresso, handler for exit codes 520 and 521.
    """

    outcomes = _BFGS | {QeOutcome.NSTEP_EXHAUSTED}
    restart = RestartKind.CHARGE_DENSITY

    def remedy(self, run: QeRun, asked: PwInput) -> Remedy | None:
        """Leave BFGS for damped dynamics; a run that merely spent its steps only if BFGS was in trouble."""
        if asked.setting("IONS", "ion_dynamics") == "damp":
            return None
        if run.outcome is QeOutcome.NSTEP_EXHAUSTED and not run.bfgs_resets:
            return None
        settings: dict[str, object] = {
            "CONTROL__nstep": int(self.rule.numbers["nstep"]),
            "IONS__ion_dynamics": "damp",
            "IONS__trust_radius_ini": None,
            "IONS__trust_radius_min": None,
        }
        if asked.calculation == "vc-relax":
            settings["CELL__cell_dynamics"] = "damp-w"
        return go_on(run, change(asked, **settings))


class WiderCell(Cure):
    """The radial tables of the pseudopotentials are made for the first cell, and a cell that shrinks outgrows them.

    From scratch: the density is on the grid of a cell far off. Source: aiida-quantumespresso, handler for exit code
    542.
    """

    outcomes = frozenset({QeOutcome.VOLUME_CHANGE})

    def remedy(self, run: QeRun, asked: PwInput) -> Remedy | None:
        """Make room for a larger change of the cell, and go on from where it was."""
        if asked.calculation != "vc-relax":
            return None
        present = asked.setting("CELL", "cell_factor")
        factor = present if isinstance(present, float) else float(self.rule.numbers["cell_factor"])
        return go_on(run, change(asked, CELL__cell_factor=factor * float(self.rule.numbers["factor"])))


class MoreSteps(Cure):
    """A relaxation that spent its steps goes on from the geometry that it calculated last.

    Not from the one that the XML file ends with: that one is the next, never calculated, beside an older energy.
    The density is taken over; a full restart would go on in the basis of the first cell, which is far off by then.
    Too few steps are raised to the protocol's: BFGS begins each attempt without a history, and with two or three steps
    it never gets one. Damped dynamics that the caller asked for, and that spent its steps, gives way to BFGS: it
    knows no curvature, and soft modes beside stiff ones take it hundreds of steps. Sources: recorded runs;
    aiida-quantumespresso, handler for exit codes 500 and 502.
    """

    outcomes = frozenset({QeOutcome.NSTEP_EXHAUSTED})
    restart = RestartKind.CHARGE_DENSITY

    def remedy(self, run: QeRun, asked: PwInput) -> Remedy | None:
        """Go on from the last geometry, with the protocol's steps where they were too few, and with BFGS."""
        if run.structure is None:
            return None
        present, settings = asked.setting("CONTROL", "nstep"), dict[str, object]()
        if isinstance(present, int) and present < int(self.rule.numbers["least"]):
            settings["CONTROL__nstep"] = asked.protocol.nstep
        # Where BFGS had failed, damped dynamics is this run's own cure, and stays.
        if self.folder.asked.setting("IONS", "ion_dynamics") == "damp":
            settings["IONS__ion_dynamics"] = "bfgs"
            settings |= {"CELL__cell_dynamics": "bfgs"} if asked.calculation == "vc-relax" else {}
        return go_on(run, change(asked, **settings) if settings else Remedy(asked, ("more ionic steps",)))


class NewSymmetry(Cure):
    """A cell that moved may keep symmetries that its atoms have left, or lose some that its start had.

    They are found anew from the last structure, first as they are, then not used at all. From scratch: the density was
    made symmetric by the wrong operations. Sources: pw.x's documentation of ``nosym``; aiida-quantumespresso knows the
    outcome (exit code 541) and has no cure.
    """

    outcomes = frozenset({QeOutcome.SYMMETRY_FAILED})

    def remedy(self, run: QeRun, asked: PwInput) -> Remedy | None:
        """Start from the last structure where there is a new one, else without symmetry."""
        moved = run.structure is not None and asked.calculation != "scf" and run.structure != asked.structure
        if moved:
            return go_on(run, Remedy(asked, ("symmetry found anew",)))
        return None if asked.setting("SYSTEM", "nosym") else change(asked, SYSTEM__nosym=True)
