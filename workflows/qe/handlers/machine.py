"""Cures for what the machine did not give: memory, room on the disk, processes that fit the k-points."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hullworks.workflows.qe.handlers.base import Cure, Remedy, change, go_on
from hullworks.workflows.qe.outcomes import QeOutcome

if TYPE_CHECKING:
    from hullworks.workflows.qe.inputs import PwInput
    from hullworks.workflows.qe.parser import QeRun

SCRATCH_VARIABLE = "ESPRESSO_TMPDIR"
"""pw.x's own name for the site's folder of scratch files."""


class FewerPools(Cure):
    """A pool is a share of the processes for a share of the k-points; more pools than either leave some empty.

    From scratch, because nothing was calculated. Source: pw.x stops at once; aiida-quantumespresso knows the outcome
    (exit code 481) and has no cure.
    """

    outcomes = frozenset({QeOutcome.TOO_MANY_POOLS})

    def remedy(self, run: QeRun, asked: PwInput) -> Remedy | None:  # noqa: ARG002 - no attempt got anywhere
        """Use one pool, which fits whatever there is."""
        if self.folder.pools == 1:
            return None
        return Remedy(asked, ("pools of k-points: 1",), pools=1)


class LessMemory(Cure):
    """Each pool holds the whole density, and Davidson's workspace several times the wavefunctions.

    One pool first, because it costs time alone; then the smaller workspace; then the solver that needs none. When the
    node is still too small, the run ends with that cause. From scratch: what a killed process wrote may be cut.
    Sources: pw.x's documentation of ``diago_david_ndim`` and ``diagonalization = 'cg'``; aiida-quantumespresso gives
    up (scheduler's exit code 110).
    """

    outcomes = frozenset({QeOutcome.OUT_OF_MEMORY})

    def remedy(self, run: QeRun, asked: PwInput) -> Remedy | None:
        """Take the next step that has not been taken."""
        numbers = self.rule.numbers
        if self.folder.pools is not None and self.folder.pools > 1:
            return go_on(run, Remedy(asked, ("pools of k-points: 1",), pools=1))
        mixed = asked.setting("ELECTRONS", "mixing_ndim")
        if mixed is None:
            smaller = change(
                asked,
                ELECTRONS__diago_david_ndim=int(numbers["diago_david_ndim"]),
                ELECTRONS__mixing_ndim=int(numbers["mixing_ndim"]),
            )
            return go_on(run, smaller)
        if asked.setting("ELECTRONS", "diagonalization") != "cg":
            return go_on(run, change(asked, ELECTRONS__diagonalization="cg"))
        return None


class OtherScratch(Cure):
    """A disk that is full stays so; the site may name another for scratch files, by pw.x's own variable.

    Without one the run ends with that cause. From scratch: what was written last is cut. Source: recorded runs;
    pw.x's documentation of ``outdir``.
    """

    outcomes = frozenset({QeOutcome.DISK_FULL})

    def remedy(self, run: QeRun, asked: PwInput) -> Remedy | None:
        """Write the scratch files where the site says, in a folder of this run's own."""
        elsewhere = os.environ.get(SCRATCH_VARIABLE, "")
        if not elsewhere or not Path(elsewhere).is_dir() or self.folder.scratch is not None:
            return None
        own = hashlib.sha256(str(self.folder.directory.resolve()).encode()).hexdigest()[:16]
        scratch = Path(elsewhere) / f"hullworks-qe-{own}"
        return replace(go_on(run, Remedy(asked, (f"scratch files: in {scratch}",))), scratch=scratch)
