"""Reads what pw.x prints once at the start: features, cutoffs, symmetry, pseudopotentials, the first geometry."""

from __future__ import annotations

import re
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import numpy as np

from hullworks.workflows.qe.quantities import MemoryEstimate, Smearing
from hullworks.workflows.qe.reading import AXES, Reading, count_after
from hullworks.workflows.qe.stdout import PseudoRead, number_after, numbers, timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_HEADER = re.compile(r"PWSCF v\.\s*(\S+)(?:.*? starts on\s+(\d{1,2}[A-Za-z]{3}\d{4}) at\s+([\d: ]+))?")
_SITE = re.compile(r"\d+\s+(\S+)\s+tau\(.*?=\s*\((.*)")
_SUB_GROUP = re.compile(r"size of sub-group:\s*(\d+)\*\s*(\d+)")
_SMEARING = re.compile(r"(\S+) smearing, width \(Ry\)=\s*(\S+)")
_MEMORY = re.compile(r"RAM.*>\s*([\d.]+)\s*(MB|GB)")
_MB: Final = MappingProxyType({"MB": 1.0, "GB": 1024.0})
_MOST_OPERATIONS: Final = 48
"""A crystal's point group has no more operations, and pw.x counts none that are pure translations."""


class HeaderLines(Reading):
    """The lines of an output's header."""

    def header(self, text: str) -> None:
        """Take version and start from ``Program PWSCF v.7.2 starts on 20Nov2026 at  8:18:17``."""
        found = _HEADER.search(text)
        if found is None:
            return
        self.scan.version = found[1]
        self.scan.started = timestamp(found[2] or "", found[3] or "")
        # A program that computes on graphics processors says so in one of the next lines.
        self.scan.features = replace(self.scan.features, gpu=False)

    def input_read(self, text: str) -> None:
        """Take the name of the input file; pw.x prints no name when it reads the standard input."""
        if text.startswith("Reading input from") and "standard" not in text:
            self.scan.input_name = text.removeprefix("Reading input from").strip()

    # ------------------------------------------------------------------------------------------------------ features

    def parallel_build(self, text: str) -> None:
        """Take how it was built and how many processes or cores it has."""
        if "running on" not in text:
            return
        count = count_after(text, "running on")
        openmp = "OpenMP" in text
        # With threads the count is that of the cores; the processes are in a line of their own.
        self.scan.features = replace(self.scan.features, mpi=True, openmp=openmp)
        if not openmp:
            self.scan.features = replace(self.scan.features, processes=count, threads=1)

    def serial_build(self, text: str) -> None:
        """Take that it was built without MPI, and its threads."""
        if not text.startswith("Serial"):
            return
        openmp = "multi-threaded" in text
        threads = count_after(text, "running on") if openmp else 1
        features = replace(self.scan.features, mpi=False, openmp=openmp, threads=threads)
        # Nothing can be divided among one process.
        self.scan.features = replace(
            features, processes=1, nodes=1, pools=1, band_groups=1, diagonalization_processes=1
        )

    def processes(self, text: str) -> None:
        """Take on how many nodes the processes run; divisions that are not printed later are by one."""
        if text.startswith("MPI processes distributed on"):
            nodes = count_after(text, "distributed on")
            self.scan.features = replace(self.scan.features, nodes=nodes, pools=1, band_groups=1)

    def threads(self, text: str) -> None:
        """Take the threads of each process."""
        self.scan.features = replace(self.scan.features, threads=count_after(text, "process:"))

    def pools(self, text: str) -> None:
        """Take the groups of processes that share the k points."""
        self.scan.features = replace(self.scan.features, pools=count_after(text, "="))

    def band_groups(self, text: str) -> None:
        """Take the groups of processes that share the bands."""
        if text.startswith("band groups division"):
            self.scan.features = replace(self.scan.features, band_groups=count_after(text, "="))

    def serial_algorithm(self, text: str) -> None:
        """Take that one process diagonalises in the subspace."""
        if text == "a serial algorithm will be used":
            self.scan.features = replace(self.scan.features, diagonalization_processes=1)

    def distributed_algorithm(self, text: str) -> None:
        """Take the processes of ``scalapack distributed-memory algorithm (size of sub-group:  2*  2 procs)``."""
        found = _SUB_GROUP.search(text)
        if found:
            processes = int(found[1]) * int(found[2])
            self.scan.features = replace(self.scan.features, diagonalization_processes=processes)

    def gpu(self, text: str) -> None:
        """Take that it computes on graphics processors."""
        self.scan.features = replace(self.scan.features, gpu="ACTIVE" in text or self.scan.features.gpu)

    def memory(self, text: str) -> None:
        """Take the expected peak of memory, of the largest process and of all; a final SCF prints it again."""
        found = _MEMORY.search(text)
        values = numbers(found[1]) if found else []
        if found is None or not values:
            return
        size = values[0] * _MB[found[2]]
        known = self.scan.memory or MemoryEstimate()
        if text.startswith("Estimated max dynamical"):
            self.scan.memory = replace(known, per_process_MB=size)
        elif text.startswith("Estimated total dynamical"):
            self.scan.memory = replace(known, total_MB=size)

    # -------------------------------------------------------------------------------------------------- calculation

    def counts(self, text: str) -> None:
        """Take the numbers of processes, atoms, k points (with the smearing) and bands."""
        if text.startswith("number of k points"):
            self._k_points(text)
        elif text.startswith("number of atoms/cell"):
            self.scan.n_atoms = count_after(text, "=") or self.scan.n_atoms
        elif text.startswith("number of Kohn-Sham states"):
            self.scan.n_bands = count_after(text, "=") or self.scan.n_bands

    def mpi_count(self, text: str) -> None:
        """Take the processes of a build with threads."""
        if text.startswith("Number of MPI processes"):
            self.scan.features = replace(self.scan.features, processes=count_after(text, ":"))

    def _k_points(self, text: str) -> None:
        self.scan.n_k_points = count_after(text, "=") or self.scan.n_k_points
        found = _SMEARING.search(text)
        width = numbers(found[2]) if found else []
        if found and width:
            self.scan.smearing = Smearing(found[1].lower(), width[0])

    def symmetry(self, text: str) -> None:
        """Take the number of symmetry operations: ``48 Sym. Ops., with inversion, found``."""
        if "Sym. Ops." in text and "found" in text:
            self.scan.n_symmetry_operations = int(text.split(maxsplit=1)[0])

    def no_symmetry(self, text: str) -> None:
        """Take that there is only the identity."""
        if text.startswith("No symmetry found"):
            self.scan.n_symmetry_operations = 1

    def wavefunction_cutoff(self, text: str) -> None:
        """Take the kinetic-energy cutoff."""
        self.scan.ecutwfc_Ry = number_after(text, "=")

    def density_cutoff(self, text: str) -> None:
        """Take the charge density cutoff."""
        if text.startswith("charge density cutoff"):
            self.scan.ecutrho_Ry = number_after(text, "=")

    def exchange_correlation(self, text: str) -> None:
        """Take the functional's name: one word in 6.7 (``PBE``), its four parts in 7.2 (``SLA PW PBE PBE``)."""
        self.scan.functional = " ".join(text.partition("=")[2].split()) or None

    def pseudopotential(self, text: str) -> None:
        """Open the block ``PseudoPot. # 1 for Si read from file:``, path, checksum; a final SCF prints it again."""
        words = text.split()
        if text.endswith("read from file:") and "for" in words and not self.scan.relaxation_ended:
            self.scan.pseudos.append(PseudoRead(words[words.index("for") + 1]))
            self._block = self._pseudopotential_line

    def _pseudopotential_line(self, text: str) -> bool:
        last = self.scan.pseudos[-1]
        if text.startswith("MD5 check sum:"):
            self.scan.pseudos[-1] = replace(last, md5=text.rsplit(maxsplit=1)[-1])
            return True
        if last.path:
            return False
        self.scan.pseudos[-1] = replace(last, path=text)
        return True

    # ----------------------------------------------------------------------------------------------- first geometry

    def lattice_parameter(self, text: str) -> None:
        """Take alat; ``celldm(1)`` comes later and with more digits."""
        if "alat" in text or text.startswith("celldm(1)"):
            self._alat_bohr = number_after(text, "=") or self._alat_bohr

    def crystal_axes(self, text: str) -> None:
        """Open the three cell vectors of the header, in units of alat."""
        if text.startswith("crystal axes") and self.scan.initial is None:
            self._rows, self._block = [], self._axis_row

    def _axis_row(self, text: str) -> bool:
        row = numbers(text.partition("=")[2])
        if not (text.startswith("a(") and len(row) == AXES):
            return False
        self._rows.append(row)
        if len(self._rows) == AXES:
            self._cell, self._block = np.array(self._rows) * self._alat_A, None
        return True

    def sites(self, text: str) -> None:
        """Open the positions of the header, in units of alat."""
        if "(alat units)" in text and self.scan.initial is None:
            self._rows, self._texts, self._block = [], [], self._site_row

    def _site_row(self, text: str) -> bool:
        found = _SITE.match(text)
        row = numbers(found[2]) if found else []
        if found is None or len(row) != AXES:
            return False
        self._rows.append(row)
        self._texts.append(found[1])
        if len(self._rows) == self.scan.n_atoms:
            self._geometry = self._complete(np.array(self._rows) * self._alat_A)
            self.scan.initial, self._block = self._geometry, None
        return True


WORDS: Final[Mapping[str, Callable[[HeaderLines, str], None]]] = MappingProxyType(
    {
        "Program PWSCF": HeaderLines.header,
        "Reading input from": HeaderLines.input_read,
        "Parallel version": HeaderLines.parallel_build,
        "Serial version": HeaderLines.serial_build,
        "Serial multi-threaded": HeaderLines.serial_build,
        "MPI processes distributed": HeaderLines.processes,
        "Number of MPI processes": HeaderLines.mpi_count,
        "Threads/MPI process": HeaderLines.threads,
        "K-points division": HeaderLines.pools,
        "band groups division": HeaderLines.band_groups,
        "a serial algorithm": HeaderLines.serial_algorithm,
        "scalapack distributed": HeaderLines.distributed_algorithm,
        "ELPA distributed": HeaderLines.distributed_algorithm,
        "custom distributed": HeaderLines.distributed_algorithm,
        "GPU acceleration": HeaderLines.gpu,
        "Estimated": HeaderLines.memory,
        "number of": HeaderLines.counts,
        "No symmetry": HeaderLines.no_symmetry,
        "kinetic-energy cutoff": HeaderLines.wavefunction_cutoff,
        "charge density cutoff": HeaderLines.density_cutoff,
        "Exchange-correlation": HeaderLines.exchange_correlation,
        "lattice parameter": HeaderLines.lattice_parameter,
        "celldm(1)": HeaderLines.lattice_parameter,
        "crystal axes": HeaderLines.crystal_axes,
        "site n. ": HeaderLines.sites,
        "PseudoPot.": HeaderLines.pseudopotential,
    }
    | {f"{number} Sym. Ops.": HeaderLines.symmetry for number in range(1, _MOST_OPERATIONS + 1)}
)
"""From the beginning of a line to what reads it."""
