"""What an attempt takes over from the one before, and whether the files for it are whole."""

from __future__ import annotations

import re
import shutil
import struct
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, BinaryIO, Final

import numpy as np

from hullworks.workflows.qe.outcomes import QeOutcome
from hullworks.workflows.qe.xml_output import read_xml

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from hullworks.workflows.qe.parser import QeRun


class RestartKind(StrEnum):
    """What an attempt takes over from the one before, besides its structure.

    SCRATCH: nothing; the density is that of free atoms.
    CHARGE_DENSITY: the density, as a start for the electrons (``startingpot = 'file'``).
    WAVEFUNCTIONS: the density and the wavefunctions (``startingwfc = 'file'`` too).
    FULL: everything: pw.x goes on in the middle of a cycle and with the optimiser's history (``restart_mode``).
    """

    SCRATCH = "scratch"
    CHARGE_DENSITY = "charge_density"
    WAVEFUNCTIONS = "wavefunctions"
    FULL = "full"


_K = RestartKind

LADDER: Final[Mapping[RestartKind, tuple[RestartKind, ...]]] = MappingProxyType(
    {
        _K.SCRATCH: (_K.SCRATCH,),
        _K.CHARGE_DENSITY: (_K.CHARGE_DENSITY, _K.SCRATCH),
        _K.WAVEFUNCTIONS: (_K.WAVEFUNCTIONS, _K.CHARGE_DENSITY, _K.SCRATCH),
        _K.FULL: (_K.FULL, _K.CHARGE_DENSITY, _K.SCRATCH),
    }
)
"""What is tried when the files for a kind are not whole."""

SAVE: Final = "pwscf.save"
DENSITY: Final = f"{SAVE}/charge-density.dat"
SCHEMA: Final = f"{SAVE}/data-file-schema.xml"
_BESIDE_DENSITY: Final = (f"{SAVE}/paw.txt", f"{SAVE}/occup.txt", f"{SAVE}/ekin-density.dat")
"""Parts of the density of augmented waves, Hubbard models and meta-functionals."""
_MARKER: Final = struct.Struct("<i")
_DENSITY_HEAD_BYTES: Final = 12
_DENSITY_RECORDS: Final = 4
_BFGS_TOKEN: Final = re.compile(r"[-+]?[\d.]+(?:[eEdD]?[-+]?\d+)?|[TF]|'.*'")


@dataclass(frozen=True)
class Choice:
    """The restart kind that the files allow.

    Attributes:
        kind: The kind.
        faults: Why not more was taken over, for people.
    """

    kind: RestartKind
    faults: tuple[str, ...] = ()

    @property
    def actions(self) -> tuple[str, ...]:
        """What a correction tells of it."""
        return (f"restart: {self.kind.value}", *self.faults)


def choose(wanted: RestartKind, outdir: Path, run: QeRun, *, same_start: bool) -> Choice:
    """Return the most that may be taken over from an attempt that has ended, up to what is wanted.

    Args:
        wanted: What a cure asks for.
        outdir: The attempt's outdir.
        run: How it ended.
        same_start: Whether the next attempt starts from the structure that the attempt started from.
    """
    faults: list[str] = []
    for kind in LADDER[wanted]:
        fault = _fault(kind, outdir, run, same_start=same_start)
        if not fault:
            return Choice(kind, tuple(faults))
        faults.append(f"not {kind.value}: {fault}")
    return Choice(RestartKind.SCRATCH, tuple(faults))


def carry(kind: RestartKind, source: Path, target: Path) -> None:
    """Bring what a restart needs from one outdir into another, which is made; the source keeps its files.

    Args:
        kind: What is taken over.
        source: Outdir of the attempt before.
        target: Outdir of the next.
    """
    if kind is RestartKind.SCRATCH:
        return
    if kind is RestartKind.FULL:
        shutil.copytree(source, target, dirs_exist_ok=True)
        return
    names = [name for name in (DENSITY, *_BESIDE_DENSITY) if (source / name).is_file()]
    if kind is RestartKind.WAVEFUNCTIONS:
        names += [str(path.relative_to(source)) for path in wavefunction_files(source)]
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)


def wavefunction_files(outdir: Path) -> list[Path]:
    """Return the files of wavefunctions: those of a run that ended, else those that it worked with."""
    return sorted(outdir.glob(f"{SAVE}/wfc*.dat")) or sorted(outdir.glob("pwscf.wfc*"))


def density_fault(outdir: Path) -> str:
    """Return what is wrong with the density in an outdir; empty when it is whole.

    The file is a sequence of Fortran records, each between two copies of its length: what was cut, or never reached
    the disk, does not add up. Only files of little-endian machines, and no HDF5, are known; others count as damaged.
    """
    path = outdir / DENSITY
    if not path.is_file():
        return "there is no density"
    records = _records(path)
    if records is None or len(records) < _DENSITY_RECORDS or len(records[0]) != _DENSITY_HEAD_BYTES:
        return "the density is cut"
    numbers = [np.frombuffer(record, dtype=np.float64) for record in records[_DENSITY_RECORDS - 1 :]]
    return "" if all(np.isfinite(item).all() for item in numbers) else "the density holds what is no number"


def _fault(kind: RestartKind, outdir: Path, run: QeRun, *, same_start: bool) -> str:
    """Return why a kind cannot be used; empty when it can."""
    if kind is RestartKind.SCRATCH:
        return ""
    if kind is RestartKind.FULL:
        return _full_fault(outdir, run) or density_fault(outdir)
    if kind is RestartKind.WAVEFUNCTIONS:
        return _wavefunction_fault(outdir, run, same_start=same_start) or density_fault(outdir)
    return density_fault(outdir)


def _full_fault(outdir: Path, run: QeRun) -> str:
    """Only pw.x itself, when it stops by its clock, writes files that belong together.

    And not once the relaxation has ended: a restart inside the final calculation of a vc-relax ends in "charge is
    wrong" (two of three recorded ones), because the basis has changed meanwhile.
    """
    if run.outcome is not QeOutcome.WALLTIME_STOP:
        return "the run was not stopped by its own clock"
    if run.relaxation_ended:
        return "the relaxation had ended"
    schema = outdir / SCHEMA
    xml = read_xml(schema.read_bytes()) if schema.is_file() else None
    if xml is None or not xml.closed:
        return "the XML file of the restart is missing or cut"
    history = outdir / "pwscf.bfgs"
    if history.is_file() and not _is_numeric(history):
        return "the optimiser's history is damaged"
    return ""


def _is_numeric(path: Path) -> bool:
    """Whether a text written by Fortran holds only numbers and flags, down to the end of its last line."""
    text = path.read_bytes().decode(errors="replace")
    return text.endswith("\n") and bool(text.split()) and all(map(_BFGS_TOKEN.fullmatch, text.split()))


def _wavefunction_fault(outdir: Path, run: QeRun, *, same_start: bool) -> str:
    """Wavefunctions belong to one basis, and so to one cell; those of a killed run may be half written."""
    if not same_start:
        return "the basis changes with the structure"
    if run.outcome is QeOutcome.INTERRUPTED or (run.exit_status or 0) < 0:
        return "the run was killed"
    files = wavefunction_files(outdir)
    sizes = [path.stat().st_size for path in files]
    if not files or not all(sizes):
        return "there are no wavefunctions"
    if files[0].parent.name == SAVE:
        return "" if len(files) % (run.n_k_points or len(files)) == 0 else "wavefunctions are missing"
    return "" if sizes[0] % ((run.n_k_points or 1) * 16) == 0 else "the wavefunctions are cut"


def _records(path: Path) -> list[bytes] | None:
    """Return the records of a Fortran file; None when it does not end with a whole one."""
    records: list[bytes] = []
    with path.open("rb") as stream:
        while True:
            head = stream.read(_MARKER.size)
            if not head:
                return records
            record = _record(stream, head)
            if record is None:
                return None
            records.append(record)


def _record(stream: BinaryIO, head: bytes) -> bytes | None:
    length = _MARKER.unpack(head)[0] if len(head) == _MARKER.size else 0
    # Zeros are what a file system leaves of a write that it lost; no record of the density is empty.
    if length <= 0:
        return None
    record = stream.read(length)
    return record if len(record) == length and stream.read(_MARKER.size) == head else None
