"""The vocabulary of outcomes: its bands, and the words by which outcomes show."""

from __future__ import annotations

import pytest

from hullworks.workflows.qe.outcomes import (
    QeBand,
    QeOutcome,
    Source,
    band,
    is_fatal,
    precedence,
    recognise,
)


@pytest.mark.parametrize("outcome", QeOutcome)
def test_every_outcome_has_a_band_and_a_meaning(outcome: QeOutcome) -> None:
    """Each member is in exactly one band and is explained in the enum's docstring."""
    assert isinstance(outcome.band, QeBand)
    assert band(outcome) is outcome.band
    assert f"    {outcome.name}: " in (QeOutcome.__doc__ or "")


@pytest.mark.parametrize("member", QeBand)
def test_every_band_is_used_and_explained(member: QeBand) -> None:
    """No band is empty."""
    assert any(outcome.band is member for outcome in QeOutcome)
    assert f"    {member.name}: " in (QeBand.__doc__ or "")


def test_only_converged_is_success() -> None:
    """One outcome alone is a success."""
    assert [outcome for outcome in QeOutcome if outcome.band is QeBand.SUCCESS] == [QeOutcome.CONVERGED]


def test_only_a_wrong_input_is_fatal() -> None:
    """What the input asks for in vain is never repeated; everything else may be."""
    assert is_fatal(QeOutcome.PSEUDO_MISSING)
    assert not is_fatal(QeOutcome.SCF_NOT_CONVERGED)
    assert {outcome.band for outcome in QeOutcome if outcome.fatal} == {QeBand.INPUT}


@pytest.mark.parametrize(
    ("words", "source", "outcome"),
    [
        ("readpp (1): file ./pseudo/Nope.UPF not found", Source.ERROR, QeOutcome.PSEUDO_MISSING),
        ("readpp (1): file ./pseudo/Empty.UPF not readable", Source.ERROR, QeOutcome.PSEUDO_UNREADABLE),
        ("setup (1): too few bands", Source.ERROR, QeOutcome.TOO_FEW_BANDS),
        ("cdiaghg (47): S matrix not positive definite", Source.ERROR, QeOutcome.S_MATRIX),
        ("cdiaghg (12): problems computing cholesky", Source.ERROR, QeOutcome.DIAGONALIZATION_FAILED),
        ("c_bands (1): too many bands are not converged", Source.ERROR, QeOutcome.DIAGONALIZATION_FAILED),
        ("cegterg (5014): cannot allocate hpsi", Source.ERROR, QeOutcome.OUT_OF_MEMORY),
        ("mp_start_pools (1): invalid number of pools, out of range", Source.ERROR, QeOutcome.TOO_MANY_POOLS),
        ("setup (1): pools with no k-points", Source.ERROR, QeOutcome.TOO_MANY_POOLS),
        ("ggen (1): too many g-vectors", Source.ERROR, QeOutcome.G_VECTORS),
        ("memory_report (1): more bands than PWs!", Source.ERROR, QeOutcome.BAD_INPUT),
        ("electrons (1): charge is wrong", Source.ERROR, QeOutcome.CHARGE_WRONG),
        ("bfgs (1): dE0s is positive which should never happen", Source.ERROR, QeOutcome.BFGS_DE0S),
        ("checkallsym (2): not orthogonal operation", Source.ERROR, QeOutcome.SYMMETRY_FAILED),
        ("read_conf_from_file (1): bad number of atoms", Source.ERROR, QeOutcome.RESTART_MISMATCH),
        ("read_conf_from_file (4): fatal error reading xml file", Source.ERROR, QeOutcome.CORRUPT_SAVE),
        ("write_rhog (3): error writing file ./charge-density", Source.ERROR, QeOutcome.DISK_FULL),
        ("set_dft_from_name (1): FOO: unrecognized dft", Source.ERROR, QeOutcome.BAD_INPUT),
        ("system_checkin (1): charged plane (gate) to compensate tot_charge of 0", Source.ERROR, QeOutcome.BAD_INPUT),
        ("readpp (2): inconsistent DFT read from PP files", Source.ERROR, QeOutcome.PSEUDO_MIXED_FUNCTIONAL),
        ("ZPOTRF (1): Cholesky failed in invchol.", Source.ERROR, QeOutcome.DIAGONALIZATION_FAILED),
        ("broyden (3): factorization", Source.ERROR, QeOutcome.DIAGONALIZATION_FAILED),
        ("bfgs (1): NR step-length unreasonably short", Source.ERROR, QeOutcome.BFGS_FAILED),
        ("ggen 1 (813): too many g-vectors", Source.ERROR, QeOutcome.G_VECTORS),
        ("history already reset at previous step: exiting", Source.NOTICE, QeOutcome.BFGS_GAVE_UP),
        ("Maximum CPU time exceeded", Source.NOTICE, QeOutcome.WALLTIME_STOP),
        ("slurmstepd: error: Detected 1 oom-kill event(s) in StepId=7.0", Source.STDERR, QeOutcome.OUT_OF_MEMORY),
        ("slurmstepd: error: *** JOB 7 CANCELLED AT 2026-01-01 ***", Source.STDERR, QeOutcome.INTERRUPTED),
        ("Program received signal SIGSEGV: Segmentation fault", Source.STDERR, QeOutcome.SEGMENTATION_FAULT),
        ("/bin/sh: 1: pw.x: command not found", Source.STDERR, QeOutcome.LAUNCH_FAILED),
        ("sh: 1: exec: /opt/bin/mpirun: not found", Source.STDERR, QeOutcome.LAUNCH_FAILED),
        ("/opt/qe/bin/pw.x: No such file or directory", Source.STDERR, QeOutcome.LAUNCH_FAILED),
    ],
)
def test_words_are_recognised(words: str, source: Source, outcome: QeOutcome) -> None:
    """The words of pw.x, of the Fortran library and of the launcher name the outcome."""
    recogniser = recognise(f"     {words}  ", source)
    assert recogniser is not None
    assert recogniser.outcome is outcome


@pytest.mark.parametrize(
    ("words", "source"),
    [
        ("c_bands:  2 eigenvalues not converged", Source.NOTICE),
        ("Minimization algorithm failed to find Fermi energy: reverting to bisection", Source.NOTICE),
        ("convergence has been achieved in  10 iterations", Source.NOTICE),
        ("Note: The following floating-point exceptions are signalling: IEEE_UNDERFLOW_FLAG", Source.STDERR),
        ("STOP 2", Source.STDERR),
        ("cp: cannot stat 'old.xml': No such file or directory", Source.STDERR),
        ("nonsense (1): never heard of", Source.ERROR),
    ],
)
def test_harmless_and_unknown_words_are_not_recognised(words: str, source: Source) -> None:
    """Warnings that a good run prints too, and errors that nobody knows, mean nothing here."""
    assert recognise(words, source) is None


def test_a_cause_outranks_the_abort_that_follows_it() -> None:
    """MPI_ABORT follows every error of a parallel pw.x and must not hide it."""
    cause = recognise("setup (1): too few bands", Source.ERROR)
    abort = recognise("MPI_ABORT was invoked on rank 0 in communicator MPI_COMM_WORLD", Source.STDERR)
    assert cause is not None
    assert abort is not None
    assert precedence(cause) < precedence(abort)
