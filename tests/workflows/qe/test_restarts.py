"""What may be taken over from an attempt, and what a damaged file looks like."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest

from hullworks.workflows.qe.outcomes import QeOutcome
from hullworks.workflows.qe.parser import QeRun
from hullworks.workflows.qe.restarts import DENSITY, LADDER, SCHEMA, RestartKind, carry, choose, density_fault

if TYPE_CHECKING:
    from pathlib import Path


def record(content: bytes) -> bytes:
    """Return a record as Fortran writes it."""
    mark = struct.pack("<i", len(content))
    return mark + content + mark


def density(values: list[float]) -> bytes:
    """Return a file with a density."""
    parts = [struct.pack("<3i", 0, 1, 1), bytes(72), struct.pack("<3i", 0, 0, 0), np.array(values).tobytes()]
    return b"".join(record(part) for part in parts)


@pytest.fixture
def outdir(tmp_path: Path) -> Path:
    """An outdir with a whole density."""
    (tmp_path / DENSITY).parent.mkdir()
    (tmp_path / DENSITY).write_bytes(density([1.0, 0.0]))
    return tmp_path


def ended(outcome: QeOutcome, folder: Path, **known: object) -> QeRun:
    """Return a run that ended so."""
    return QeRun(directory=folder, outcome=outcome, **known)  # type: ignore[arg-type]


def test_a_whole_density_has_no_fault(outdir: Path) -> None:
    """Records that add up, with finite numbers."""
    assert density_fault(outdir) == ""


def test_a_density_that_is_cut_anywhere_is_found(outdir: Path) -> None:
    """Wherever the file ends, except at its end."""
    whole = (outdir / DENSITY).read_bytes()
    for length in range(len(whole)):
        (outdir / DENSITY).write_bytes(whole[:length])
        assert density_fault(outdir) == "the density is cut"


def test_a_density_of_zeros_or_without_meaning_is_found(outdir: Path) -> None:
    """File systems leave zeros of what they lost; a run that diverged leaves what is no number."""
    (outdir / DENSITY).write_bytes(bytes(4096))
    assert density_fault(outdir) == "the density is cut"
    (outdir / DENSITY).write_bytes(density([1.0, float("nan")]))
    assert "no number" in density_fault(outdir)
    (outdir / DENSITY).unlink()
    assert density_fault(outdir) == "there is no density"


@pytest.mark.parametrize("kind", RestartKind)
def test_every_kind_falls_back_to_scratch(kind: RestartKind, tmp_path: Path) -> None:
    """Without files nothing is taken over, and each refusal is told."""
    assert LADDER[kind][0] is kind
    assert LADDER[kind][-1] is RestartKind.SCRATCH
    choice = choose(kind, tmp_path, ended(QeOutcome.WALLTIME_STOP, tmp_path), same_start=True)
    assert choice.kind is RestartKind.SCRATCH
    assert len(choice.faults) == len(LADDER[kind]) - 1
    assert f"    {kind.name}: " in (RestartKind.__doc__ or "")


@pytest.mark.parametrize(
    ("outcome", "known", "fault"),
    [
        (QeOutcome.INTERRUPTED, {}, "not stopped by its own clock"),
        (QeOutcome.WALLTIME_STOP, {"relaxation_ended": True}, "the relaxation had ended"),
        (QeOutcome.WALLTIME_STOP, {}, "XML file of the restart is missing or cut"),
    ],
)
def test_a_full_restart_needs_a_clean_stop_before_the_final_calculation(
    outcome: QeOutcome, known: dict[str, object], fault: str, outdir: Path
) -> None:
    """Otherwise the density alone is taken over."""
    (outdir / SCHEMA).write_text("<cut", encoding="utf-8")
    choice = choose(RestartKind.FULL, outdir, ended(outcome, outdir, **known), same_start=True)
    assert choice.kind is RestartKind.CHARGE_DENSITY
    assert fault in choice.faults[0]


def test_wavefunctions_belong_to_one_cell_and_to_a_run_that_ended_by_itself(outdir: Path) -> None:
    """Another start has another basis; a killed run may have written half of them."""
    (outdir / "pwscf.wfc").write_bytes(bytes(64))
    good = ended(QeOutcome.SCF_NOT_CONVERGED, outdir, n_k_points=2)
    killed = ended(QeOutcome.ABORTED_SILENTLY, outdir, exit_status=-9)
    assert choose(RestartKind.WAVEFUNCTIONS, outdir, good, same_start=True).kind is RestartKind.WAVEFUNCTIONS
    assert choose(RestartKind.WAVEFUNCTIONS, outdir, good, same_start=False).kind is RestartKind.CHARGE_DENSITY
    assert choose(RestartKind.WAVEFUNCTIONS, outdir, killed, same_start=True).kind is RestartKind.CHARGE_DENSITY


def test_only_what_is_needed_is_carried(outdir: Path, tmp_path: Path) -> None:
    """A density without the rest, wavefunctions with it, everything, or nothing."""
    (outdir / "pwscf.wfc").write_bytes(bytes(64))
    (outdir / "pwscf.bfgs").write_text("1.0\n", encoding="utf-8")
    found = {}
    for kind in RestartKind:
        target = tmp_path.with_name(f"{tmp_path.name}-{kind.value}")
        carry(kind, outdir, target)
        found[kind] = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}
    assert found[RestartKind.SCRATCH] == set()
    assert found[RestartKind.CHARGE_DENSITY] == {DENSITY}
    assert found[RestartKind.WAVEFUNCTIONS] == {DENSITY, "pwscf.wfc"}
    assert found[RestartKind.FULL] == {DENSITY, "pwscf.wfc", "pwscf.bfgs"}
