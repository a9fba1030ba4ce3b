"""The peer of the recovery campaign: the repairs of aiida-quantumespresso's PwBaseWorkChain and PwRelaxWorkChain.

Written anew from the documented behaviour of release 5, and from nothing else; no line is taken over. It drives the
same pw.x on the same inputs, and decides by its own exit codes (`qe_campaign_exit_codes`) alone. Where versions
differ, the one that repairs more was taken. Simplified:

- A failure without a handler is repeated once, and given up when it comes twice in a row, as up to aiida-core 2.7;
  later versions give up at once.
- The monitor that ends a calculation whose accuracy repeats is left out: it is off unless a user adds it.
- The diagonalizations are those of release 4, PPCG among them.
- The first, loose relaxation is left out, as it is for the others; the k-point mesh is fixed, as it is for the others.
- What a scheduler would have said of a killed job is handed in with the case, since no scheduler is involved.
- Whole folders are copied for a restart, as it does, and nothing is checked in them.
- When the largest pressure is within 1.1 of its threshold, a relaxation that is converged except in the final
  calculation is not repeated.
- A restart's calculation starts in an empty folder otherwise; no file of an earlier one is in its way.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer
from qe_campaign_exit_codes import Parsed, parse, press_conv_thr, pressure_kbar

from hullworks.workflows.qe.inputs import write_pw_input
from hullworks.workflows.qe.restarts import RestartKind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from pymatgen.core import Structure

    from hullworks.workflows.qe.executable import PwCommand
    from hullworks.workflows.qe.inputs import PwInput

MAX_ITERATIONS: Final = 5
MAX_META_ITERATIONS: Final = 5
UNRECOVERABLE: Final = 310
FEW_SYMMETRIES: Final = 5
EXCEPT_FINAL: Final = 501
FULL, DENSITY, SCRATCH = RestartKind.FULL, RestartKind.CHARGE_DENSITY, RestartKind.SCRATCH


@dataclass(frozen=True)
class Ended:
    """How a chain of calculations ended.

    Attributes:
        exit_code: The chain's own code; 0 is success.
        last: What its last calculation was.
        history: The code of every calculation, in order.
    """

    exit_code: int
    last: Parsed
    history: tuple[int, ...]


@dataclass
class Launcher:
    """Runs calculations in numbered folders.

    Attributes:
        folder: Where.
        command: How to start pw.x.
        environment: Its environment.
        said: What a scheduler says of each launch, by its number.
    """

    folder: Path
    command: PwCommand
    environment: dict[str, str]
    said: Mapping[int, int]
    launches: int = 0

    def calculate(self, asked: PwInput, parent: Path | None) -> tuple[Parsed, Path]:
        """Run one calculation, on a copy of its parent's outdir, and return what was read of it and its folder."""
        self.launches += 1
        folder = self.folder / f"calculation-{self.launches}"
        folder.mkdir(parents=True)
        if parent is not None and (parent / "out").is_dir():
            shutil.copytree(parent / "out", folder / "out")
        (folder / "out").mkdir(exist_ok=True)
        (folder / "pw.in").write_text(write_pw_input(asked), encoding="utf-8")
        with (folder / "pw.out").open("wb") as out, (folder / "pw.err").open("wb") as err:
            subprocess.run(
                self.command.with_input("pw.in"), cwd=folder, env=self.environment, stdin=subprocess.DEVNULL,
                stdout=out, stderr=err, check=False,
            )  # fmt: skip
        return parse(folder, asked, self.said.get(self.launches, 0)), folder


@dataclass
class Base:
    """The chain that repairs: a calculation, the first handler of its code that answers, another calculation.

    Attributes:
        launcher: Runs the calculations.
        asked: What the next calculation is asked.
        parent: Folder that it restarts from.
    """

    launcher: Launcher
    asked: PwInput
    parent: Path | None = None
    untried: list[str] | None = None
    rattled: bool = False
    history: list[int] = field(default_factory=list)

    def run(self) -> Ended:
        """Run until a calculation is accepted, a handler gives up, or the iterations are spent."""
        unhandled = False
        while True:
            parsed, folder = self.launcher.calculate(self.asked, self.parent)
            self.history.append(parsed.exit_code)
            final = self._answer(parsed, folder)
            if final is None and parsed.exit_code == 0:
                final = 0
            if final is None:
                final = 402 if unhandled else None
                unhandled = True
            elif final < 0:
                unhandled, final = False, None
            if final is None and len(self.history) >= MAX_ITERATIONS:
                final = 401
            if final is not None:
                return Ended(final, parsed, tuple(self.history))

    def _answer(self, parsed: Parsed, folder: Path) -> int | None:
        """Ask the handlers: none when none answers, -1 when another calculation is planned, else the chain's code."""
        for codes, handler in HANDLERS:
            if parsed.exit_code in codes and (answer := handler(self, parsed, folder)) is not None:
                return answer
        return None

    def _restart(self, kind: RestartKind, folder: Path, structure: Structure | None = None, **settings: Any) -> int:
        """Plan another calculation."""
        asked = self.asked if structure is None else self.asked.with_structure(structure)
        for name, value in settings.items():
            namelist, key = name.split("__")
            asked = asked.with_setting(namelist, key, value)
        self.asked, self.parent = replace(asked, restart=kind), None if kind is SCRATCH else folder
        return -1

    def _number(self, namelist: str, key: str, default: float) -> float:
        value = self.asked.setting(namelist, key)
        return float(value) if isinstance(value, (int, float)) else default

    def insufficient_bands(self, parsed: Parsed, folder: Path) -> int | None:
        """After success: the highest band holds electrons, so five per cent and at least four bands are added."""
        if not parsed.highest_band_full or self.asked.setting("SYSTEM", "occupations") == "fixed":
            return None
        present = parsed.n_bands or 0
        return self._restart(DENSITY, folder, SYSTEM__nbnd=present + max(int(0.05 * present), 4))

    def bfgs_history(self, parsed: Parsed, folder: Path) -> int | None:
        """BFGS lost its history: other dynamics for atoms alone, shorter steps and then other dynamics for a cell."""
        if self.asked.calculation == "relax":
            return self._bfgs_of_atoms(parsed, folder)
        radius = self._number("IONS", "trust_radius_min", 1e-3)
        if radius > 1e-4:
            shorter = {"IONS__trust_radius_ini": radius, "IONS__trust_radius_min": 0.1 * radius}
            return self._restart(DENSITY, folder, parsed.structure, **shorter)
        damped = {"IONS__ion_dynamics": "damp", "CELL__cell_dynamics": "damp-w"}
        return self._restart(DENSITY, folder, parsed.structure, **damped)

    def _bfgs_of_atoms(self, parsed: Parsed, folder: Path) -> int:
        """Rattle once where there is little symmetry to lose, else take damped dynamics."""
        if len(SpacegroupAnalyzer(parsed.structure, 1e-3).get_symmetry_operations()) >= FEW_SYMMETRIES:
            return self._restart(DENSITY, folder, parsed.structure, IONS__ion_dynamics="damp")
        if self.rattled:
            return UNRECOVERABLE
        self.rattled = True
        moved = parsed.structure.copy()
        moved.perturb(0.01)
        return self._restart(DENSITY, folder, moved, IONS__upscale=None)

    def diagonalization(self, parsed: Parsed, folder: Path) -> int | None:  # noqa: ARG002 - the same inputs again
        """Take the next algorithm that was not tried."""
        present = str(self.asked.setting("ELECTRONS", "diagonalization") or "david")
        if self.untried is None:
            self.untried = [name for name in ("david", "ppcg", "paro", "cg") if name != present]
        if not self.untried:
            return UNRECOVERABLE
        self.asked = self.asked.with_setting("ELECTRONS", "diagonalization", self.untried.pop(0))
        return -1

    def walltime(self, parsed: Parsed, folder: Path) -> int | None:
        """pw.x stopped by its clock: restart in full."""
        return self._restart(FULL, folder, parsed.structure)

    def interrupted(self, parsed: Parsed, folder: Path) -> int | None:
        """The scheduler ended it: from scratch, from the last structure."""
        return self._restart(SCRATCH, folder, parsed.structure)

    def except_final(self, parsed: Parsed, folder: Path) -> int | None:  # noqa: ARG002 - it is taken as it is
        """Converged except in the final calculation: taken as it is, with that code."""
        return EXCEPT_FINAL

    def ionic(self, parsed: Parsed, folder: Path) -> int | None:
        """Atoms did not settle: again from the last structure and the density."""
        return self._restart(DENSITY, folder, parsed.structure)

    def radial_tables(self, parsed: Parsed, folder: Path) -> int | None:
        """The cell outgrew the radial tables: twice the room."""
        factor = 2.0 * self._number("CELL", "cell_factor", 2.0)
        return self._restart(SCRATCH, folder, parsed.structure, CELL__cell_factor=factor)

    def electrons_of_ions(self, parsed: Parsed, folder: Path) -> int | None:
        """A cycle failed within a relaxation: gentler mixing, from scratch, from the last structure."""
        beta = 0.8 * self._number("ELECTRONS", "mixing_beta", 0.7)
        return self._restart(SCRATCH, folder, parsed.structure, ELECTRONS__mixing_beta=beta)

    def electrons(self, parsed: Parsed, folder: Path) -> int | None:  # noqa: ARG002 - the structure stays
        """A cycle failed: gentler mixing, restarted in full."""
        beta = 0.8 * self._number("ELECTRONS", "mixing_beta", 0.7)
        return self._restart(FULL, folder, ELECTRONS__mixing_beta=beta)

    def electrons_allowed(self, parsed: Parsed, folder: Path) -> int | None:  # noqa: ARG002 - nothing follows
        """The input says that electrons need not converge."""
        return 710


HANDLERS: Final[tuple[tuple[frozenset[int], Callable[[Base, Parsed, Path], int | None]], ...]] = (
    (frozenset({520, 521}), Base.bfgs_history),
    (frozenset({462, 463, 464, 465, 466, 467, 468}), Base.diagonalization),
    (frozenset({400}), Base.walltime),
    (frozenset({503}), Base.interrupted),
    (frozenset({501}), Base.except_final),
    (frozenset({500, 502, 520, 521}), Base.ionic),
    (frozenset({542}), Base.radial_tables),
    (frozenset({510, 511}), Base.electrons_of_ions),
    (frozenset({710}), Base.electrons_allowed),
    (frozenset({410}), Base.electrons),
    (frozenset({0}), Base.insufficient_bands),
)
"""By priority."""


def relax(launcher: Launcher, asked: PwInput) -> Ended:
    """Run the relaxation chain: vc-relax until its final calculation agrees, at most five times."""
    history: list[int] = []
    current = asked
    for _ in range(MAX_META_ITERATIONS):
        ended = Base(launcher, current).run()
        history += ended.history
        if ended.exit_code not in {0, EXCEPT_FINAL}:
            return replace(ended, exit_code=401, history=(*history, ended.exit_code))
        if asked.calculation != "vc-relax" or not pressed(ended, current):
            return replace(ended, exit_code=0, history=tuple(history))
        current = asked.with_structure(ended.last.structure).with_setting("SYSTEM", "nbnd", ended.last.n_bands)
    return replace(ended, exit_code=400, history=tuple(history))


def pressed(ended: Ended, asked: PwInput) -> bool:
    """Return whether pressure is left over in the final calculation's basis."""
    stress = ended.last.run.stress_kbar
    if ended.exit_code != EXCEPT_FINAL:
        return False
    return stress is None or abs(pressure_kbar(np.asarray(stress))) > 1.1 * press_conv_thr(asked)
