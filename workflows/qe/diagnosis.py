"""Decides how a run ended, from its words first and from its numbers where it says nothing.

Each rule is one small function that returns a `Finding` or None; the first that finds something decides. Words come
before numbers, because a run that names its trouble is believed; the exit status is only heard where there is nothing
else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from hullworks.units import UNITS
from hullworks.workflows.qe.evaluations import same_energy
from hullworks.workflows.qe.geometry import closest_pair, element_of
from hullworks.workflows.qe.outcomes import QeOutcome, Recogniser, Source, precedence, recognise
from hullworks.workflows.qe.run_files import read_bytes
from hullworks.workflows.qe.stdout import Message, Scan, error_of
from hullworks.workflows.qe.thresholds import thresholds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from hullworks.workflows.qe.geometry import Geometry
    from hullworks.workflows.qe.run_files import RunFiles
    from hullworks.workflows.qe.xml_output import XmlRun

_O = QeOutcome
_RELAXATIONS: Final = frozenset({"relax", "vc-relax"})
_BOX_LINE = re.compile(r"%{20,}")


@dataclass(frozen=True)
class Evidence:
    """One thing that led to an outcome.

    Args:
        file: The file as seen from the run's folder, empty when it is not about one file.
        line: Line number, counted from 1; None when it is not about one line.
        text: The line, or what was found.
    """

    file: str
    line: int | None
    text: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.text}" if place else self.text


@dataclass(frozen=True)
class Finding:
    """An outcome with the evidence for it."""

    outcome: QeOutcome
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, eq=False)
class Facts:
    """All that is known of a run when its outcome is decided.

    Args:
        files: Its files.
        scan: Its standard output, None where there is none.
        xml: Its XML file, None where there is no whole one of this run.
        xml_name: The name of it.
        cut_xmls: Names of XML files that are cut.
        stale_xmls: Names of XML files of another run.
        calculation: ``scf``, ``relax``, ``vc-relax``, ...
        initial: The geometry it started from.
        exit_status: Exit status, where somebody saw it; negative for a signal.
    """

    files: RunFiles
    scan: Scan | None
    xml: XmlRun | None = None
    xml_name: str = ""
    cut_xmls: tuple[str, ...] = ()
    stale_xmls: tuple[str, ...] = ()
    calculation: str = "scf"
    initial: Geometry | None = None
    exit_status: int | None = None

    @property
    def output_name(self) -> str:
        """The output's name as seen from the run's folder."""
        return "" if self.files.output is None else self.files.name(self.files.output)

    def in_output(self, message: Message) -> Evidence:
        """Return a line of the output as evidence."""
        return Evidence(self.output_name, message.line, message.text)


def is_stale(xml: XmlRun, scan: Scan | None) -> bool:
    """Return whether an XML file was written before the run began and does not hold the run's energy.

    Local clocks may be set back (summer time); the energy, printed in both, then speaks for the file.
    """
    if scan is None or scan.started is None or xml.created is None:
        return False
    if xml.created >= scan.started - timedelta(seconds=thresholds()["clock_slack_seconds"]):
        return False
    return not _energies_agree(xml, scan)


def _energies_agree(xml: XmlRun, scan: Scan) -> bool:
    return bool(scan.cycles) and same_energy(scan.cycles[-1], xml.last)


# ------------------------------------------------------------------------------------------------------------- words


def _words(facts: Facts) -> Iterator[tuple[Recogniser | None, Evidence]]:
    """Yield everything that the run said about its end, with what it is recognised as."""
    scan = facts.scan
    if scan is not None:
        yield from ((recogniser, facts.in_output(message)) for recogniser, message in scan.notices)
        yield from ((recognise(error.text, Source.ERROR), facts.in_output(error)) for error in scan.errors)
    if scan is None or not scan.errors:
        yield from _crashes(facts)
    for file, line, text in _stderr_lines(facts):
        recogniser = recognise(text, Source.STDERR)
        if recogniser is not None:
            yield recogniser, Evidence(file, line, text)


def _crashes(facts: Facts) -> Iterator[tuple[Recogniser | None, Evidence]]:
    """Yield the newest box of each CRASH file, to which pw.x appends."""
    for path in facts.files.crashes:
        lines = read_bytes(path).decode(errors="replace").splitlines()
        borders = [number for number, line in enumerate(lines) if _BOX_LINE.search(line)]
        if len(borders) > 1:
            text = error_of(lines[borders[-2] + 1 : borders[-1]])
            yield recognise(text, Source.ERROR), Evidence(facts.files.name(path), borders[-2] + 1, text)


def _stderr_lines(facts: Facts) -> Iterator[tuple[str, int, str]]:
    for path in facts.files.stderr:
        for number, line in enumerate(read_bytes(path).decode(errors="replace").splitlines(), 1):
            yield facts.files.name(path), number, line.strip()
    if facts.scan is not None:
        ends = dict(facts.scan.head) | dict(facts.scan.tail)
        yield from ((facts.output_name, number, text) for number, text in ends.items())


_DEATHS: Final = frozenset({_O.SEGMENTATION_FAULT, _O.INTERRUPTED, _O.ABORTED_SILENTLY})


def said_by_the_run(facts: Facts) -> Finding | None:
    """Follow the run's own words, the most telling first; an error that nobody knows yet stays unknown."""
    words = list(_words(facts))
    if facts.scan is not None and facts.scan.job_done:
        # A launcher that complains after a regular end says nothing about the run.
        words = [(entry, evidence) for entry, evidence in words if entry is None or entry.outcome not in _DEATHS]
    known = [(entry, evidence) for entry, evidence in words if entry is not None and evidence.text]
    unknown = [evidence for entry, evidence in words if entry is None and evidence.text]
    best = min((entry for entry, _ in known), key=precedence, default=None)
    if unknown and (best is None or best.source is Source.STDERR):
        return Finding(_O.UNKNOWN, tuple(unknown))
    if best is None:
        return None
    evidence = tuple(evidence for entry, evidence in known if entry.outcome is best.outcome)
    return _in_context(Finding(best.outcome, evidence), facts)


def _in_context(finding: Finding, facts: Facts) -> Finding:
    """Correct words that mislead: the same words mean another thing in another place."""
    for misleading in _MISLEADING:
        better = misleading(finding, facts)
        if better is not None:
            return replace(finding, outcome=better[0], evidence=(*finding.evidence, better[1]))
    return finding


def _smearing_after_restart(finding: Finding, facts: Facts) -> tuple[QeOutcome, Evidence] | None:
    """A restart inside the final SCF of a vc-relax loses charge and blames the occupations."""
    if finding.outcome is not _O.SMEARING_NEEDED or facts.scan is None or not facts.scan.restarted:
        return None
    return _O.RESTART_MISMATCH, Evidence(facts.output_name, None, "the run was a restart")


def _stop_before_start(finding: Finding, facts: Facts) -> tuple[QeOutcome, Evidence] | None:
    """A stop file from before makes a dry run of it."""
    if finding.outcome is not _O.USER_STOP or facts.scan is None or facts.scan.calculated:
        return None
    return _O.STOPPED_AT_START, Evidence(facts.output_name, None, "no self-consistent cycle was begun")


def _abort_in_restart(finding: Finding, facts: Facts) -> tuple[QeOutcome, Evidence] | None:
    """6.7 aborts without a word while it reads a damaged XML file."""
    last = [] if facts.scan is None else list(facts.scan.tail)[-2:]
    reading = next(((number, text) for number, text in last if "read from directory" in text), None)
    if finding.outcome is not _O.ABORTED_SILENTLY or reading is None:
        return None
    return _O.CORRUPT_SAVE, Evidence(facts.output_name, *reading)


_VAGUE: Final = _DEATHS | {_O.SCF_NOT_CONVERGED}


def stagnates(accuracies_Ry: Sequence[float]) -> bool:
    """Return whether a self-consistent cycle has stopped to improve: it oscillates, or stands.

    Args:
        accuracies_Ry: Estimated error of the energy after each iteration, Ry.
    """
    window = int(thresholds()["stuck_iterations"])
    before, lately = accuracies_Ry[:-window], accuracies_Ry[-window:]
    return bool(before) and min(lately) > thresholds()["stuck_share"] * min(before)


def _stuck(finding: Finding, facts: Facts) -> tuple[QeOutcome, Evidence] | None:
    """More iterations help a cycle that converges slowly, not one that has stopped to improve."""
    accuracies = [] if facts.scan is None else facts.scan.accuracies_Ry
    if finding.outcome is not _O.SCF_NOT_CONVERGED or not stagnates(accuracies):
        return None
    text = f"no better than {min(accuracies)} Ry in {len(accuracies)} iterations"
    return _O.SCF_STUCK, Evidence(facts.output_name, None, text)


def _vague_death_of_overlap(finding: Finding, facts: Facts) -> tuple[QeOutcome, Evidence] | None:
    """Atoms on top of each other break the eigensolver in many ways."""
    overlap = overlapping_atoms(facts) if finding.outcome in _VAGUE else None
    return None if overlap is None else (overlap.outcome, overlap.evidence[0])


_MISLEADING: Final = (
    _smearing_after_restart,
    _stop_before_start,
    _abort_in_restart,
    _vague_death_of_overlap,
    _stuck,
)


# ----------------------------------------------------------------------------------------------------------- numbers


def no_output(facts: Facts) -> Finding | None:
    """Nothing was written."""
    if facts.scan is not None:
        return None
    return Finding(_O.NOT_STARTED, (Evidence("", None, "no output of pw.x in the folder"),))


_SIGNALS: Final = {11: _O.SEGMENTATION_FAULT, 7: _O.SEGMENTATION_FAULT, 6: _O.ABORTED_SILENTLY}


def cut_short(facts: Facts) -> Finding | None:
    """The output ends without the end mark."""
    scan = facts.scan
    if scan is None or scan.job_done:
        return None
    status = facts.exit_status
    # A shell reports death by signal n as 128 + n, Python as -n.
    signal = 0 if status is None else -status if status < 0 else status - 128
    where = tuple(Evidence(facts.output_name, number, text) for number, text in list(scan.tail)[-1:])
    told = () if status is None else (Evidence("", None, f"exit status {status}"),)
    finding = Finding(_SIGNALS.get(signal, _O.INTERRUPTED), (*where, *told))
    return _in_context(finding, facts)


def nothing_calculated(facts: Facts) -> Finding | None:
    """A regular end without one self-consistent cycle: a dry run."""
    scan = facts.scan
    if scan is None or scan.calculated or scan.job_done is None:
        return None
    return Finding(_O.STOPPED_AT_START, (facts.in_output(scan.job_done),))


def overlapping_atoms(facts: Facts) -> Finding | None:
    """Two atoms of the start are closer than any bond."""
    pair = None if facts.initial is None else closest_pair(facts.initial)
    if pair is None or pair[2] >= thresholds()["overlap_A"]:
        return None
    text = f"atoms {pair[0]} and {pair[1]} are {pair[2]:.3f} Angstrom apart"
    return Finding(_O.BAD_STRUCTURE, (Evidence("", None, text),))


def wrong_pseudopotential(facts: Facts) -> Finding | None:
    """pw.x checks neither the element of a file nor, when the file is missing, the folder that it takes it from."""
    if facts.scan is None:
        return None
    wanted = list(facts.files.parsed_input.pseudo_files.items())
    folder = facts.files.parsed_input.keywords.get("pseudo_dir")
    for (label, _), read in zip(wanted, facts.scan.pseudos, strict=False):
        if element_of(read.element) not in {None, element_of(label)}:
            text = f"{read.path} is for {read.element}, not for {label}"
            return Finding(_O.PSEUDO_WRONG, (Evidence(facts.output_name, None, text),))
        if folder and read.path and PurePosixPath(read.path).parent != PurePosixPath(folder):
            text = f"{read.path} was read, not the file in {folder}"
            return Finding(_O.PSEUDO_WRONG, (Evidence(facts.output_name, None, text),))
    return None


def xml_cut(facts: Facts) -> Finding | None:
    """An XML file is cut, though the run ended regularly: the disk was full at the end."""
    if not facts.cut_xmls:
        return None
    return Finding(_O.XML_TRUNCATED, tuple(Evidence(name, None, "is cut") for name in facts.cut_xmls))


def xml_absent(facts: Facts) -> Finding | None:
    """No XML file of this run."""
    if facts.xml is not None and facts.xml.closed:
        return None
    stale = tuple(Evidence(name, None, "was written by an earlier run") for name in facts.stale_xmls)
    missing = Evidence(facts.xml_name, None, "no complete XML file of this run")
    return Finding(_O.XML_MISSING, stale or (missing,))


def xml_disagrees(facts: Facts) -> Finding | None:
    """Output and XML file end with different energies: they are not of one run."""
    if facts.xml is None or facts.scan is None or _energies_agree(facts.xml, facts.scan):
        return None
    printed = [
        Evidence(facts.output_name, cycle.line, f"total energy {cycle.energy_Ry * UNITS.rydberg_to_eV:.6f} eV")
        for cycle in facts.scan.cycles[-1:]
    ]
    return Finding(
        _O.XML_MISSING, (*printed, Evidence(facts.xml_name, None, f"total energy {facts.xml.last.energy_eV} eV"))
    )


def not_converged(facts: Facts) -> Finding | None:
    """The XML file says that the electrons or the atoms did not converge."""
    xml = facts.xml
    if xml is None:
        return None
    if not xml.last.scf_converged:
        return Finding(_O.SCF_NOT_CONVERGED, (Evidence(facts.xml_name, None, "scf_conv is not true"),))
    if xml.claims_too_much:
        text = f"scf_error {xml.last.scf_error_Ha} Ha exceeds conv_thr {xml.conv_thr_Ha} Ha"
        return Finding(_O.SCF_NOT_CONVERGED, (Evidence(facts.xml_name, None, text),))
    if facts.calculation in _RELAXATIONS and not xml.opt_converged:
        return Finding(_O.NSTEP_EXHAUSTED, (Evidence(facts.xml_name, None, "opt_conv is not true"),))
    if xml.exit_status:
        return Finding(_O.UNKNOWN, (Evidence(facts.xml_name, None, f"exit_status is {xml.exit_status}"),))
    return None


def charge_off(facts: Facts) -> Finding | None:
    """pw.x warns that electrons are missing or too many, and ends as if nothing were wrong."""
    cycle = facts.scan.cycles[-1] if facts.scan is not None and facts.scan.cycles else None
    if cycle is None or cycle.charge is None:
        return None
    counted, expected = cycle.charge
    if abs(counted - expected) <= thresholds()["charge_share"] * expected:
        return None
    text = f"{counted} electrons counted, {expected} expected"
    return Finding(_O.CHARGE_WRONG, (Evidence(facts.output_name, cycle.line, text),))


def highest_band_occupied(facts: Facts) -> Finding | None:
    """The highest band holds electrons, so those above it would too."""
    top = None if facts.xml is None else facts.xml.highest_occupation
    if top is None or top <= thresholds()["highest_occupation"]:
        return None
    text = f"the highest band is occupied by {top:.4f}"
    return Finding(_O.HIGHEST_BAND_OCCUPIED, (Evidence(facts.xml_name, None, text),))


def converged(facts: Facts) -> Finding:
    """Nothing speaks against it."""
    done = [] if facts.scan is None or facts.scan.job_done is None else [facts.in_output(facts.scan.job_done)]
    return Finding(_O.CONVERGED, (*done, Evidence(facts.xml_name, None, "scf and relaxation converged")))


RULES: Final[tuple[Callable[[Facts], Finding | None], ...]] = (
    said_by_the_run,
    no_output,
    cut_short,
    nothing_calculated,
    overlapping_atoms,
    wrong_pseudopotential,
    xml_cut,
    xml_absent,
    not_converged,
    xml_disagrees,
    charge_off,
    highest_band_occupied,
)
"""In order; the first that finds something decides."""


def diagnose(facts: Facts) -> Finding:
    """Return how the run ended."""
    for rule in RULES:
        finding = rule(facts)
        if finding is not None:
            return finding
    return converged(facts)
