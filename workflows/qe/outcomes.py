"""How a pw.x run can end: the vocabulary of outcomes, what can be done about each, and the words by which they show.

An outcome is one member of `QeOutcome` with a line in `_BANDS`, and as many recognisers in `RECOGNISERS` as the code
has words for it. What shows only in numbers (a pressure left over, atoms on top of each other) is not here but in
`hullworks.workflows.qe.diagnosis`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


class QeBand(StrEnum):
    """What can be done about an outcome.

    SUCCESS: nothing is left to do.
    CONTINUE: the run was cut short; go on from its last complete step, with the same settings.
    ELECTRONIC: the electrons did not settle; other mixing, solver, occupations or bands.
    IONIC: the atoms or the cell did not settle; other optimiser settings, or again from the last good structure.
    FILES: a file of the run was lost, cut or of another calculation; start afresh in an empty folder.
    INPUT: the run can never succeed as it was asked for; give up, or ask for something else.
    RESOURCES: the machine did not give what the run needs; more memory, room on a disk, another launcher.
    UNKNOWN: the run left no reason; run it once more, unbuffered, to learn it.
    """

    SUCCESS = "success"
    CONTINUE = "continue"
    ELECTRONIC = "electronic"
    IONIC = "ionic"
    FILES = "files"
    INPUT = "input"
    RESOURCES = "resources"
    UNKNOWN = "unknown"


class QeOutcome(StrEnum):
    """How a run ended.

    CONVERGED: a regular end with everything that the input asked for converged.
    WALLTIME_STOP: pw.x stopped by itself when ``max_seconds`` was spent.
    USER_STOP: pw.x stopped because it found a ``prefix.EXIT`` file.
    STOPPED_AT_START: a dry run: a ``prefix.EXIT`` file from before, or ``nstep=0``; nothing was calculated.
    NOT_STARTED: pw.x wrote nothing at all.
    INTERRUPTED: the output ends in the middle without a message: killed, or the node went away.
    NSTEP_EXHAUSTED: the optimiser spent all its steps.
    SCF_NOT_CONVERGED: at least one self-consistent cycle ended without convergence.
    SCF_STUCK: and its accuracy had not improved for many iterations, so that more of them would not help.
    DIAGONALIZATION_FAILED: the eigensolver gave up.
    S_MATRIX: the overlap matrix is not positive definite; atoms too close, or a pseudopotential with ghosts.
    SMEARING_NEEDED: fixed occupations cannot hold these electrons (odd number, or metallic).
    CHARGE_WRONG: the occupations do not add up to the electrons of the cell, as with cold smearing wider than a gap.
    TOO_FEW_BANDS: ``nbnd`` is too small for the electrons.
    HIGHEST_BAND_OCCUPIED: converged, but the highest band holds electrons, so bands above it are missing.
    FERMI_NOT_FOUND: the search for the Fermi energy failed.
    BFGS_GAVE_UP: BFGS reset its history twice in a row and stopped, though pw.x then prints "bfgs converged".
    BFGS_FAILED: another internal error of BFGS.
    BFGS_DE0S: the BFGS line search met an energy that rises along the descent ("dE0s is positive").
    VOLUME_CHANGE: the cell outgrew the table of radial Fourier transforms (``cell_factor``).
    FINAL_SCF_INCONSISTENT: converged, but stress is left over in the final SCF's basis.
    FORCES_LEFT_OVER: converged, but a force exceeds the caller's threshold.
    G_VECTORS: the list of plane waves does not fit the cell.
    SYMMETRY_FAILED: the symmetry found and the atoms or the FFT grid do not fit together.
    DISK_FULL: a file could not be written.
    CORRUPT_SAVE: a file that a restart needs is cut or unreadable.
    RESTART_MISMATCH: the files of a restart belong to another calculation, or are inconsistent with each other.
    XML_MISSING: a regular end without the XML file of this run.
    XML_TRUNCATED: a regular end with an XML file that is cut.
    BAD_INPUT: the input file is wrong.
    BAD_STRUCTURE: the cell is singular, or atoms overlap.
    PSEUDO_MISSING: a pseudopotential file is not there.
    PSEUDO_UNREADABLE: a pseudopotential file is empty, cut or not a pseudopotential.
    PSEUDO_MIXED_FUNCTIONAL: the pseudopotentials were made for different functionals.
    PSEUDO_WRONG: pw.x read a pseudopotential of another element, or from another folder than the input names.
    OUT_OF_MEMORY: memory could not be had, or the system killed the run for it.
    TOO_MANY_POOLS: pw.x was started with more pools than it has processes or k-points.
    LAUNCH_FAILED: mpirun, srun or the shell could not start pw.x.
    SEGMENTATION_FAULT: the process died of a memory access.
    ABORTED_SILENTLY: the process aborted and its message was lost in a buffer.
    UNKNOWN: pw.x named an error that this vocabulary does not have yet.
    """

    CONVERGED = "converged"
    WALLTIME_STOP = "walltime_stop"
    USER_STOP = "user_stop"
    STOPPED_AT_START = "stopped_at_start"
    NOT_STARTED = "not_started"
    INTERRUPTED = "interrupted"
    NSTEP_EXHAUSTED = "nstep_exhausted"
    SCF_NOT_CONVERGED = "scf_not_converged"
    SCF_STUCK = "scf_stuck"
    DIAGONALIZATION_FAILED = "diagonalization_failed"
    S_MATRIX = "s_matrix"
    SMEARING_NEEDED = "smearing_needed"
    CHARGE_WRONG = "charge_wrong"
    TOO_FEW_BANDS = "too_few_bands"
    HIGHEST_BAND_OCCUPIED = "highest_band_occupied"
    FERMI_NOT_FOUND = "fermi_not_found"
    BFGS_GAVE_UP = "bfgs_gave_up"
    BFGS_FAILED = "bfgs_failed"
    BFGS_DE0S = "bfgs_de0s_positive"
    VOLUME_CHANGE = "volume_change"
    FINAL_SCF_INCONSISTENT = "final_scf_inconsistent"
    FORCES_LEFT_OVER = "forces_left_over"
    G_VECTORS = "g_vectors"
    SYMMETRY_FAILED = "symmetry_failed"
    DISK_FULL = "disk_full"
    CORRUPT_SAVE = "corrupt_save"
    RESTART_MISMATCH = "restart_mismatch"
    XML_MISSING = "xml_missing"
    XML_TRUNCATED = "xml_truncated"
    BAD_INPUT = "bad_input"
    BAD_STRUCTURE = "bad_structure"
    PSEUDO_MISSING = "pseudo_missing"
    PSEUDO_UNREADABLE = "pseudo_unreadable"
    PSEUDO_MIXED_FUNCTIONAL = "pseudo_mixed_functional"
    PSEUDO_WRONG = "pseudo_wrong"
    OUT_OF_MEMORY = "out_of_memory"
    TOO_MANY_POOLS = "too_many_pools"
    LAUNCH_FAILED = "launch_failed"
    SEGMENTATION_FAULT = "segmentation_fault"
    ABORTED_SILENTLY = "aborted_silently"
    UNKNOWN = "unknown"

    @property
    def band(self) -> QeBand:
        """What can be done about it."""
        return _BAND_OF[self]

    @property
    def fatal(self) -> bool:
        """Whether no repetition of the same calculation can succeed."""
        return self.band is QeBand.INPUT


_O = QeOutcome

_BANDS: Final[Mapping[QeBand, frozenset[QeOutcome]]] = MappingProxyType(
    {
        QeBand.SUCCESS: frozenset({_O.CONVERGED}),
        QeBand.CONTINUE: frozenset(
            {
                _O.WALLTIME_STOP,
                _O.USER_STOP,
                _O.STOPPED_AT_START,
                _O.NOT_STARTED,
                _O.INTERRUPTED,
                _O.NSTEP_EXHAUSTED,
            }
        ),
        QeBand.ELECTRONIC: frozenset(
            {
                _O.SCF_NOT_CONVERGED,
                _O.SCF_STUCK,
                _O.DIAGONALIZATION_FAILED,
                _O.S_MATRIX,
                _O.SMEARING_NEEDED,
                _O.CHARGE_WRONG,
                _O.TOO_FEW_BANDS,
                _O.HIGHEST_BAND_OCCUPIED,
                _O.FERMI_NOT_FOUND,
            }
        ),
        QeBand.IONIC: frozenset(
            {
                _O.BFGS_GAVE_UP,
                _O.BFGS_FAILED,
                _O.BFGS_DE0S,
                _O.VOLUME_CHANGE,
                _O.FINAL_SCF_INCONSISTENT,
                _O.FORCES_LEFT_OVER,
                _O.SYMMETRY_FAILED,
            }
        ),
        QeBand.FILES: frozenset({_O.CORRUPT_SAVE, _O.RESTART_MISMATCH, _O.G_VECTORS, _O.XML_MISSING, _O.XML_TRUNCATED}),
        QeBand.INPUT: frozenset(
            {
                _O.BAD_INPUT,
                _O.BAD_STRUCTURE,
                _O.PSEUDO_MISSING,
                _O.PSEUDO_UNREADABLE,
                _O.PSEUDO_MIXED_FUNCTIONAL,
                _O.PSEUDO_WRONG,
            }
        ),
        QeBand.RESOURCES: frozenset({_O.OUT_OF_MEMORY, _O.DISK_FULL, _O.TOO_MANY_POOLS, _O.LAUNCH_FAILED}),
        QeBand.UNKNOWN: frozenset({_O.SEGMENTATION_FAULT, _O.ABORTED_SILENTLY, _O.UNKNOWN}),
    }
)

_BAND_OF: Final[Mapping[QeOutcome, QeBand]] = MappingProxyType(
    {outcome: band for band, outcomes in _BANDS.items() for outcome in outcomes}
)


def band(outcome: QeOutcome) -> QeBand:
    """Return what can be done about ``outcome``."""
    return outcome.band


def is_fatal(outcome: QeOutcome) -> bool:
    """Return whether no repetition of the same calculation can succeed."""
    return outcome.fatal


class Source(StrEnum):
    """Where words of pw.x are found.

    NOTICE: a line of the standard output that begins with the words.
    ERROR: the box of per cent signs in the standard output or the CRASH file, as ``routine (code): text``.
    STDERR: a line of the standard error, or of the very end of an output that standard error was merged into.
    """

    NOTICE = "notice"
    ERROR = "error"
    STDERR = "stderr"


@dataclass(frozen=True)
class Recogniser:
    """Words by which one outcome shows.

    Args:
        outcome: What the words mean.
        source: Where they are found.
        words: For a notice the literal beginning of the line, without leading blanks; else a regular expression,
            searched without regard to case.
        seen_in: Versions of pw.x with which the words were recorded; empty when they come from its documentation
            alone.
    """

    outcome: QeOutcome
    source: Source
    words: str
    seen_in: tuple[str, ...] = ()
    _pattern: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        text = "^" + re.escape(self.words) if self.source is Source.NOTICE else self.words
        flags = re.NOFLAG if self.source is Source.NOTICE else re.IGNORECASE
        object.__setattr__(self, "_pattern", re.compile(text, flags))

    def matches(self, text: str) -> bool:
        """Return whether ``text`` (stripped of blanks) holds the words."""
        return self._pattern.search(text) is not None


_BOTH = ("6.7", "7.2")
_R = Recogniser
_N, _E, _S = Source.NOTICE, Source.ERROR, Source.STDERR

RECOGNISERS: Final[tuple[Recogniser, ...]] = (
    # The disk first: what a full disk breaks shows as many other errors afterwards.
    _R(_O.DISK_FULL, _E, r"error writing file", _BOTH),
    _R(_O.DISK_FULL, _E, r"no space left|disk full|disk quota"),
    _R(_O.DISK_FULL, _S, r"no space left on device|disk quota exceeded"),
    # Memory that cannot be had, whoever wanted it.
    _R(_O.OUT_OF_MEMORY, _E, r"^(allocate|mem_counter)|cannot allocate|insufficient memory", _BOTH),
    # Pseudopotentials
    _R(_O.PSEUDO_MIXED_FUNCTIONAL, _E, r"^set_dft_from_name.*conflicting values", _BOTH),
    _R(_O.PSEUDO_MIXED_FUNCTIONAL, _E, r"inconsistent dft"),
    _R(_O.PSEUDO_MISSING, _E, r"^(readpp|read_pseudo).*not found", _BOTH),
    _R(
        _O.PSEUDO_UNREADABLE,
        _E,
        r"^(readpp|read_pseudo|read_upf|upf_|scan_begin|read_ncpp|read_uspp|readgth|gth)",
        _BOTH,
    ),
    _R(
        _O.PSEUDO_UNREADABLE,
        _S,
        r"at line \d+ of file (xmltools|gth|read_upf|read_pseudo|upf|read_ncpp)\w*\.f90",
        _BOTH,
    ),
    # Files of an earlier run
    _R(_O.RESTART_MISMATCH, _E, r"^read_conf_from_file.*bad number of atoms", _BOTH),
    _R(_O.RESTART_MISMATCH, _E, r"bad number of (atoms|species|types)|mismatch.*(nat|cell|k.?points)"),
    _R(_O.CORRUPT_SAVE, _E, r"^(read_rhog|read_scf|read_wfc|read_collected|davcio|pw_restart|read_schema|qexsd|qes)"),
    _R(_O.CORRUPT_SAVE, _E, r"error (opening|reading) .*(\.save|charge-density|data-file)"),
    _R(_O.CORRUPT_SAVE, _E, r"^(read_conf_from_file|read_xml|read_pw|readschema|xml_openfile)", ("7.2",)),
    _R(_O.CORRUPT_SAVE, _S, r"at line \d+ of file (bfgs_module|dom|qes_\w*|qexsd\w*|pw_restart\w*|io_\w+)\.f90", _BOTH),
    _R(_O.CORRUPT_SAVE, _S, r"unit = \d+, file = '[^']*\.(bfgs|update|save|mix\d*|restart_\w+)"),
    # Structure
    _R(_O.BAD_STRUCTURE, _E, r"^invmat.*(dgetrf|singular)", _BOTH),
    _R(_O.BAD_STRUCTURE, _E, r"^(volume|recips|cell_base\w*|latgen|check_atoms)\b", _BOTH),
    _R(_O.BAD_STRUCTURE, _E, r"atoms? #? *\d* .*(overlap|differ by lattice vector)|singular cell|^ewald"),
    _R(_O.SYMMETRY_FAILED, _E, r"not orthogonal operation|^(sgam_at|sym_\w+|symmetri\w+|checkallsym|scale_sym)", _BOTH),
    _R(_O.SYMMETRY_FAILED, _E, r"some of the original symmetry operations not satisfied|lone vector"),
    # Electrons
    _R(_O.S_MATRIX, _E, r"S matrix not positive definite", _BOTH),
    _R(_O.TOO_FEW_BANDS, _E, r"too few bands", _BOTH),
    _R(_O.SMEARING_NEEDED, _E, r"charge is wrong: smearing is needed", _BOTH),
    _R(_O.SMEARING_NEEDED, _E, r"fixed occupations and (lsda|odd|an odd)|the system is metallic, specify occupations"),
    _R(_O.CHARGE_WRONG, _E, r"charge is wrong", ("7.2",)),
    _R(_O.DIAGONALIZATION_FAILED, _E, r"problems computing cholesky|eigenvectors failed to converge"),
    _R(
        _O.DIAGONALIZATION_FAILED,
        _E,
        r"too many bands are not converged|^(cdiagh|rdiagh|[cr]diaghg|p?[cr]egterg)",
        _BOTH,
    ),
    _R(_O.DIAGONALIZATION_FAILED, _E, r"cholesky failed|qr\(X, 0\) failed|(hegvd|sygvd|hegvx|sygvx) failed|^broyden"),
    _R(_O.FERMI_NOT_FOUND, _E, r"^efermi|cannot bracket Ef|internal error, cannot", _BOTH),
    # Ions and cell
    _R(_O.G_VECTORS, _E, r"G_par is NOT a reciprocal|^(ggen\w*|n_plane_waves|gk_sort|gvect\w*)\b|g-?vectors"),
    _R(_O.BFGS_DE0S, _E, r"dE0s is positive which should never happen", _BOTH),
    _R(_O.VOLUME_CHANGE, _E, r"^scale_h.*radial FFT|not enough space allocated for radial FFT", _BOTH),
    _R(_O.VOLUME_CHANGE, _E, r"larger cell_factor"),
    _R(_O.BFGS_FAILED, _E, r"^bfgs", _BOTH),
    # Input
    _R(_O.TOO_MANY_POOLS, _E, r"^mp_start_pools|invalid number of pools", ("6.7",)),
    _R(_O.TOO_MANY_POOLS, _E, r"pools with no k-points|npools? too high"),
    _R(
        _O.BAD_INPUT, _E, r"^(read_namelists?|read_cards?|read_card\w*|card_\w+|iosys|input|setup|kpoint_grid)\b", _BOTH
    ),
    _R(_O.BAD_INPUT, _E, r"^\w+_checkin\b|unrecogni[sz]ed dft", _BOTH),
    _R(_O.BAD_INPUT, _E, r"too many k-points|check input|wrong input|bad (line|input)|more bands than PWs"),
    # The machine
    _R(_O.OUT_OF_MEMORY, _S, r"out of memory|oom.?kill|cannot allocate memory|insufficient virtual memory|bad_alloc"),
    _R(_O.OUT_OF_MEMORY, _S, r"exceeded (job |step |its )?memory limit|error allocating \d+ bytes|allocation would"),
    _R(
        _O.LAUNCH_FAILED,
        _S,
        r"mpirun has detected an attempt to run as root|not built with SLURM's? (PMI )?support",
        _BOTH,
    ),
    _R(_O.LAUNCH_FAILED, _S, r"(pw\.x|mpirun|mpiexec|srun)\S*: (not found|no such file|permission denied)", _BOTH),
    _R(_O.LAUNCH_FAILED, _S, r"can ?not load PMIx|orte_init failed|an error occurred in MPI_Init|before MPI_INIT"),
    _R(_O.LAUNCH_FAILED, _S, r"command not found|error while loading shared libraries"),
    _R(_O.LAUNCH_FAILED, _S, r"not enough slots available|unable to launch|execve\(\)|No module named"),
    # Asked to stop; after the errors, because an error ends a run that was asked to stop as well.
    _R(_O.WALLTIME_STOP, _N, "Maximum CPU time exceeded", _BOTH),
    _R(_O.USER_STOP, _N, "Program stopped by user request", _BOTH),
    _R(_O.SCF_NOT_CONVERGED, _N, "convergence NOT achieved", _BOTH),
    _R(_O.BFGS_GAVE_UP, _N, "history already reset at previous step", _BOTH),
    _R(_O.BFGS_GAVE_UP, _N, "bfgs failed after", ("7.2",)),
    _R(_O.NSTEP_EXHAUSTED, _N, "The maximum number of steps has been reached", _BOTH),
    # Deaths without words of pw.x
    _R(_O.SEGMENTATION_FAULT, _S, r"SIGSEGV|segmentation fault|SIGBUS|address not mapped", ("6.7",)),
    _R(_O.INTERRUPTED, _S, r"CANCELLED AT|DUE TO TIME LIMIT|SIGTERM|SIGKILL|SIGXCPU|signal (9|15)\b|\bterminated$"),
    _R(_O.ABORTED_SILENTLY, _S, r"MPI_ABORT was invoked|ORTE_ERROR_LOG|program aborted\. backtrace|SIGABRT", ("6.7",)),
    _R(_O.ABORTED_SILENTLY, _S, r"fortran runtime error|forrtl: severe|error termination", _BOTH),
)
"""From words to outcomes, in order of precedence: of all recognisers that match anywhere in a run, the first one
counts. Words of the code in the version named; the others follow its documentation and published reports."""


def recognise(text: str, source: Source) -> Recogniser | None:
    """Return the first recogniser of ``source`` whose words ``text`` holds."""
    stripped = text.strip()
    return next((entry for entry in RECOGNISERS if entry.source is source and entry.matches(stripped)), None)


def precedence(recogniser: Recogniser) -> int:
    """Return the place of ``recogniser`` in the table; smaller counts more."""
    return RECOGNISERS.index(recogniser)
