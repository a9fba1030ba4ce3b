"""The reader of the standard output, on lines as pw.x prints them in builds and cases that are not recorded."""

from __future__ import annotations

import pytest

from hullworks.workflows.qe.outcomes import RECOGNISERS, Source
from hullworks.workflows.qe.quantities import CodeFeatures, MemoryEstimate, ScfCycle, Timing
from hullworks.workflows.qe.scanner import HANDLERS, scan_lines
from hullworks.workflows.qe.stdout import TAIL_LINES, clock_of, number_after, values

HEADER = "     Program PWSCF v.7.3 starts on 20Nov2026 at  8:18:17"


def lines(*texts: str) -> list[str]:
    """Return lines as they come from a file."""
    return [text + "\n" for text in texts]


def test_a_build_with_threads_tells_processes_and_threads() -> None:
    """With OpenMP the first line counts cores; processes and threads follow."""
    scan = scan_lines(
        lines(
            HEADER,
            "     Parallel version (MPI & OpenMP), running on      12 processor cores",
            "     Number of MPI processes:                 6",
            "     Threads/MPI process:                     2",
            "     MPI processes distributed on     3 nodes",
            "     K-points division:     npool     =       3",
            "     band groups division:  nbgrp     =       2",
            "     R & G space division:  proc/nbgrp/npool/nimage =       1",
            "     GPU acceleration is ACTIVE.",
            "     scalapack distributed-memory algorithm (size of sub-group:  2*  2 procs)",
        )
    )
    assert scan.features == CodeFeatures(
        mpi=True, openmp=True, gpu=True, processes=6, threads=2, nodes=3, pools=3, band_groups=2,
        diagonalization_processes=4,
    )  # fmt: skip


def test_a_serial_build_with_threads_tells_them() -> None:
    """One process, and the threads that are printed."""
    scan = scan_lines(lines(HEADER, "     Serial multi-threaded version, running on    4 processor cores"))
    assert (scan.features.mpi, scan.features.openmp) == (False, True)
    assert (scan.features.processes, scan.features.threads, scan.features.gpu) == (1, 4, False)


def test_without_a_header_nothing_is_known_of_the_features() -> None:
    """What is not printed is None, not False."""
    assert scan_lines(lines("     iteration #  1     ecut=    20.00 Ry")).features == CodeFeatures()


def test_memory_is_in_megabytes() -> None:
    """Large estimates are printed in GB."""
    scan = scan_lines(
        lines(
            "     Estimated static dynamical RAM per process >       1.00 MB",
            "     Estimated max dynamical RAM per process >       1.50 GB",
            "     Estimated total dynamical RAM >      96.00 GB",
        )
    )
    assert scan.memory == MemoryEstimate(per_process_MB=1536.0, total_MB=98304.0)


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("     48 Sym. Ops., with inversion, found ( 24 have fractional translation)", 48),
        ("      2 Sym. Ops. (no inversion) found", 2),
        ("     No symmetry found", 1),
    ],
)
def test_symmetry_operations_are_counted(line: str, count: int) -> None:
    """With and without inversion, and none at all."""
    assert scan_lines(lines(line)).n_symmetry_operations == count


@pytest.mark.parametrize(
    ("line", "name", "timing"),
    [
        ("init_run     :      0.28s CPU      0.32s WALL (       1 calls)", "init_run", Timing(0.28, 0.32, 1)),
        ("h_psi:calbec :     1m 2.05s CPU  1h 3m WALL (     848 calls)", "h_psi:calbec", Timing(62.05, 3780.0, 848)),
        ("PWSCF        :   1d 2h 3m CPU   2d 0h 1m WALL", "PWSCF", Timing(93780.0, 172860.0)),
        ("electrons    :  10h13m CPU  10h14m WALL (  1 calls)", "electrons", Timing(36780.0, 36840.0, 1)),
    ],
)
def test_clocks_of_any_length_are_read(line: str, name: str, timing: Timing) -> None:
    """Seconds, minutes, hours and days, with and without calls."""
    assert clock_of(line) == (name, timing)


def test_lines_without_clocks_are_none() -> None:
    """Other lines with a colon are no clocks."""
    assert clock_of("Called by init_run:") is None
    assert clock_of("total cpu time spent up to now is        0.4 secs") is None


def test_an_energy_without_its_last_line_ends_a_converged_cycle() -> None:
    """The energy is marked only when the electrons have converged; the line with the iterations may be cut off."""
    scan = scan_lines(
        lines(
            "     iteration #  1     ecut=    20.00 Ry     beta= 0.70",
            "     estimated scf accuracy    <       0.10000000 Ry",
            "     iteration #  2     ecut=    20.00 Ry     beta= 0.70",
            "!    total energy              =    -111.16009318 Ry",
            "     estimated scf accuracy    <          2.3E-09 Ry",
        )
    )
    assert scan.scf_cycles == [ScfCycle(0, 2, 2.3e-9, converged=True)]


def test_more_iterations_than_three_digits_are_counted() -> None:
    """pw.x prints asterisks for the thousandth iteration."""
    texts = [f"     iteration #{number:3}     ecut=    20.00 Ry" for number in range(1, 1000)]
    scan = scan_lines(lines(*texts, "     iteration #***     ecut=    20.00 Ry", "     iteration #***     ecut=  1 Ry"))
    assert scan.scf_cycles == [ScfCycle(0, 1001, None, None)]


def test_parts_of_terms_are_not_summed_twice() -> None:
    """pw.x marks the parts of the one-centre PAW energy by arrows."""
    scan = scan_lines(
        lines(
            "!    total energy              =    -111.16009318 Ry",
            "     The total energy is the sum of the following terms:",
            "     one-electron contribution =      16.81244272 Ry",
            "     one-center paw contrib.   =     -82.91269858 Ry",
            "      -> PAW hartree energy AE =      18.21244272 Ry",
            "     DFT-D3 Dispersion         =      -0.02000000 Ry",
            "",
            "     convergence has been achieved in   5 iterations",
        )
    )
    assert scan.energy_terms_Ry == {
        "one-electron contribution": 16.81244272,
        "one-center paw contrib.": -82.91269858,
        "DFT-D3 Dispersion": -0.02,
    }


def test_magnetization_of_a_cycle_that_was_cut_off_is_not_the_runs() -> None:
    """Values of iterations that follow the last energy mean nothing."""
    scan = scan_lines(
        lines(
            "!    total energy              =    -111.16009318 Ry",
            "     total magnetization       =     2.00 Bohr mag/cell",
            "     absolute magnetization    =     2.10 Bohr mag/cell",
            "     total magnetization       =     0.10 Bohr mag/cell",
            "     absolute magnetization    =     0.20 Bohr mag/cell",
        )
    )
    assert (scan.cycles[0].total_magnetization, scan.cycles[0].absolute_magnetization) == (2.0, 2.1)


def test_no_notice_is_lost_to_a_value() -> None:
    """Words by which an outcome shows are heard though their line may begin like one with a value."""
    for entry in RECOGNISERS:
        if entry.source is Source.NOTICE:
            assert entry.words[:8] in HANDLERS
    scan = scan_lines(
        lines("     convergence NOT achieved after 100 iterations: stopping", "     Program stopped by user request")
    )
    assert len(scan.notices) == 2


def test_the_last_lines_are_kept_with_their_numbers() -> None:
    """As many as are asked for, without blank ones."""
    scan = scan_lines(lines(*(text for number in range(500) for text in (f"line {number}", ""))))
    assert len(scan.tail) == TAIL_LINES
    assert scan.tail[-1] == (999, "line 499")
    assert scan.tail[0] == (921, "line 460")
    assert scan.head[0] == (1, "line 0")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1.0 -2.5E-03 3", [1.0, -2.5e-3, 3.0]),
        ("-0.123-0.456 1.0D-05", [-0.123, -0.456, 1e-5]),
        ("****** 1.0", [1.0]),
        ("nan inf 2.0", [2.0]),
        ("1e999 1e200 1.0", [1.0]),
        ("", []),
    ],
)
def test_numbers_are_read_as_fortran_prints_them(text: str, found: list[float]) -> None:
    """Numbers that touch, exponents with D, rows of asterisks; what is no number is left out."""
    assert values(text) == found


def test_number_after_a_mark() -> None:
    """The first number that follows, whatever stands between."""
    assert number_after("kinetic-energy cutoff     =      20.0000  Ry", "=") == 20.0
    assert number_after("P=69.01 kbar", "P=") == 69.01
    assert number_after("P= ***** kbar", "P=") is None
    assert number_after("no mark", "=") is None
