"""Pseudopotential families: which file stands for which element, proven by content hashes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from hullworks.errors import PseudopotentialError
from hullworks.workflows.qe.pseudos.convert import gth_to_upf
from hullworks.workflows.qe.pseudos.cutoffs import RecordedCutoffs, packaged_json
from hullworks.workflows.qe.pseudos.gth import GthParameters, gth_elements, gth_parameters
from hullworks.workflows.qe.pseudos.tables import TableEntry, check_stringency, find_table, read_table
from hullworks.workflows.qe.pseudos.upf import SYMBOLS, read_upf_header

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

EMBEDDED_FAMILY = "gth-pbe"
"""Name of the family that HullWorks carries itself."""

HASHES_NAME = "gth_pbe_sha256.json"
CUTOFF_SCRIPT = "scripts/pseudopotentials/converge_cutoffs.py"

_NORM_CONSERVING_DUAL = 4.0
"""ecutrho / ecutwfc of a norm-conserving pseudopotential: the density holds products of two wave functions."""
_SHORT_HASH = 8
_LABEL = re.compile(r"^([A-Za-z]{1,2})(?=[._\-])")


@dataclass(frozen=True)
class Pseudo:
    """One pseudopotential of a family.

    Attributes:
        element: Chemical symbol, as the file itself says.
        sha256: Digest of the file's content, hexadecimal.
        functional: Normalised functional, as the file itself says.
        kind: ``NC``, ``US`` or ``PAW``.
        z_valence: Number of valence electrons.
        ecutwfc_Ry: Recommended cutoff of the wave functions; None when nobody recorded one.
        ecutrho_Ry: Recommended cutoff of the density; None when nobody recorded one.
        source: The user's file, or the parameters from which the file is made.
        n_wavefunctions: Number of atomic wave functions in the file, onto which a Hubbard U is projected.
    """

    element: str
    sha256: str
    functional: str
    kind: str
    z_valence: float
    ecutwfc_Ry: float | None
    ecutrho_Ry: float | None
    source: Path | GthParameters
    n_wavefunctions: int = 0

    @property
    def filename(self) -> str:
        """Name under which the file is installed: it holds the hash, so no other file of the machine can have it."""
        return f"{self.element}.{self.sha256[:_SHORT_HASH]}.upf"

    def content(self) -> bytes:
        """Return the bytes of the UPF file, verified by their hash.

        Raises:
            PseudopotentialError: The file is gone or is no longer the one that the family was loaded with.
        """
        if isinstance(self.source, GthParameters):
            content, where = gth_to_upf(self.source), ""
            next_step = "The converter and its shipped digests disagree: install HullWorks again, or report it"
        else:
            content, where = _read(self.source), str(self.source)
            next_step = "Load the family again to accept the change"
        if hashlib.sha256(content).hexdigest() != self.sha256:
            what = f"the pseudopotential of {self.element} is not the one of this family (expected {self.filename})"
            raise PseudopotentialError(what, where, next_step)
        return content


@dataclass(frozen=True)
class Family:
    """Pseudopotentials of one functional, at most one per element.

    >>> family = load_family("gth-pbe")
    >>> family.functional, family.pseudo("Mg").z_valence
    ('PBE', 2.0)

    Attributes:
        name: Name of the family, part of a level of theory.
        functional: The functional of all its files.
        pseudos: Its members, sorted by element.
        folder: Where a user's files lie; None for the embedded family.
        absent: Elements whose file the table names and the folder lacks, as (element, file name).
        cutoff_table: Name of the cutoff table where its maintainers give it one; empty where its content names it.
    """

    name: str
    functional: str
    pseudos: tuple[Pseudo, ...]
    folder: Path | None = None
    absent: tuple[tuple[str, str], ...] = ()
    cutoff_table: str = ""

    @cached_property
    def _by_element(self) -> dict[str, Pseudo]:
        return {pseudo.element: pseudo for pseudo in self.pseudos}

    @property
    def elements(self) -> tuple[str, ...]:
        """Symbols of all elements of the family, sorted."""
        return tuple(pseudo.element for pseudo in self.pseudos)

    @property
    def hashes(self) -> tuple[tuple[str, str], ...]:
        """Pairs (element, sha256) of all members, sorted by element."""
        return tuple((pseudo.element, pseudo.sha256) for pseudo in self.pseudos)

    @property
    def fingerprint(self) -> str:
        """Digest of the functional and all contents; it depends on neither name, place nor cutoffs."""
        return hashlib.sha256(json.dumps([self.functional, self.hashes]).encode()).hexdigest()

    @property
    def cutoff_rule(self) -> str:
        """How the cutoffs follow from the elements, as a level of theory says it.

        A table without a name is named by its content, so that it changes with every cutoff. A released table keeps its
        name when elements are added, so that the entries of the others stay where they are.
        """
        cutoffs = [(pseudo.element, pseudo.ecutwfc_Ry, pseudo.ecutrho_Ry) for pseudo in self.pseudos]
        content = hashlib.sha256(json.dumps(cutoffs).encode()).hexdigest()
        return f"largest of the elements in table {self.cutoff_table or content[:_SHORT_HASH]}"

    def pseudo(self, element: str) -> Pseudo:
        """Return the member for an element.

        Raises:
            PseudopotentialError: The family has none.
        """
        self._require_files([element])
        return self._by_element[element]

    def require(self, elements: Iterable[str]) -> None:
        """Check that all elements have a file and a cutoff, before anything is submitted.

        Raises:
            PseudopotentialError: Names all elements without a file, or all without a cutoff, and what to do.
        """
        wanted = sorted(set(elements))
        self._require_files(wanted)
        bare = [e for e in wanted if None in (self._by_element[e].ecutwfc_Ry, self._by_element[e].ecutrho_Ry)]
        if bare:
            what = f"no cutoff is recorded for {', '.join(bare)}"
            raise PseudopotentialError(what, f"family {self.name}", self._how_to_get_cutoffs(bare))

    def cutoffs(self, elements: Iterable[str]) -> tuple[float, float]:
        """Return (ecutwfc, ecutrho) in Ry: the largest of each among the elements.

        Raises:
            PseudopotentialError: As :meth:`require`, or no element is given.
        """
        wanted = set(elements)
        if not wanted:
            raise PseudopotentialError("cutoffs of no elements", f"family {self.name}")
        self.require(wanted)
        members = [self._by_element[element] for element in wanted]
        return max(p.ecutwfc_Ry or 0.0 for p in members), max(p.ecutrho_Ry or 0.0 for p in members)

    def install(self, elements: Iterable[str], folder: str | Path) -> dict[str, str]:
        """Write the verified UPF files of some elements into a folder, which is made where it is missing.

        Files that are there and whole are left alone; a damaged one is replaced. Each file appears at once or not at
        all, so several runs may share the folder.

        Returns:
            File name by element.

        Raises:
            PseudopotentialError: An element is missing, or a user's file has changed; nothing is written then.
        """
        wanted = sorted(set(elements))
        self._require_files(wanted)
        target = Path(folder)
        missing = [p for p in map(self.pseudo, wanted) if not _holds(target / p.filename, p.sha256)]
        contents = {pseudo.filename: pseudo.content() for pseudo in missing}
        target.mkdir(parents=True, exist_ok=True)
        for filename, content in contents.items():
            _write_at_once(target / filename, content)
        return {element: self._by_element[element].filename for element in wanted}

    def _require_files(self, elements: Sequence[str]) -> None:
        missing = [element for element in elements if element not in self._by_element]
        if not missing:
            return
        named = dict(self.absent)
        shown = [f"{e} (the table names {named[e]}, which is not there)" if e in named else e for e in missing]
        where = f"family {self.name}" if self.folder is None else str(self.folder)
        next_step = (
            "Use a family of UPF files that has them"
            if self.folder is None
            else f"Add {self.functional} files for them to the folder, or use another family"
        )
        raise PseudopotentialError(f"no pseudopotential for {', '.join(shown)}", where, next_step)

    def _how_to_get_cutoffs(self, elements: Sequence[str]) -> str:
        if self.folder is None:
            return f"Record convergence runs with {CUTOFF_SCRIPT} {' '.join(elements)}, or use a family that has them"
        return f'Add {{"{elements[0]}": {{"cutoff_wfc": Ry, "cutoff_rho": Ry}}}} to a JSON table in {self.folder}'


def load_family(
    name_or_folder: str | Path,
    *,
    table: str | Path | None = None,
    stringency: str = "normal",
    name: str | None = None,
    valences: Mapping[str, int] | None = None,
) -> Family:
    """Return a family by its name, or from a folder of UPF files.

    Args:
        name_or_folder: ``gth-pbe``, or a folder.
        table: Cutoff table of the folder; None takes the one that lies in the folder, if any.
        stringency: Which cutoffs, of the embedded family or of PseudoDojo's table: low, normal or high.
        name: Name of a folder's family; None takes the folder's name.
        valences: Other valences than the default for elements of the embedded family, such as ``{"Mg": 10}``.

    Raises:
        PseudopotentialError: No such family or folder; a file is damaged, of another element than its label, or of
            another functional than the rest; two files for one element; a digest of the table does not match.
    """
    if str(name_or_folder) == EMBEDDED_FAMILY:
        return _embedded_family(stringency, tuple(sorted((valences or {}).items())))
    folder = Path(name_or_folder).expanduser()
    if not folder.is_dir():
        next_step = f"Name a folder of UPF files, or the embedded family {EMBEDDED_FAMILY}"
        raise PseudopotentialError("no such pseudopotential family or folder", str(name_or_folder), next_step)
    entries = find_table(folder, stringency) if table is None else read_table(Path(table), stringency)
    return _folder_family(folder.resolve(), entries, name or folder.resolve().name)


@lru_cache(maxsize=8)
def _embedded_family(stringency: str, valences: tuple[tuple[str, int], ...]) -> Family:
    check_stringency(stringency, f"family {EMBEDDED_FAMILY}")
    chosen = dict(valences)
    hashes, table = packaged_json(HASHES_NAME), RecordedCutoffs.load(stringency)
    members = []
    for element in sorted(gth_elements()):
        parameters = gth_parameters(element, chosen.pop(element, None))
        ecutwfc = table.cutoffs_Ry.get(parameters.name)
        members.append(
            Pseudo(
                element=element,
                sha256=hashes[parameters.name],
                functional="PBE",
                kind="NC",
                z_valence=float(parameters.valence),
                ecutwfc_Ry=ecutwfc,
                ecutrho_Ry=None if ecutwfc is None else _NORM_CONSERVING_DUAL * ecutwfc,
                source=parameters,
            )
        )
    if chosen:
        raise PseudopotentialError(f"no pseudopotential for {', '.join(chosen)}", f"family {EMBEDDED_FAMILY}")
    return Family(EMBEDDED_FAMILY, "PBE", tuple(members), cutoff_table=f"{EMBEDDED_FAMILY} {table.name}")


def _folder_family(folder: Path, entries: Mapping[str, TableEntry], name: str) -> Family:
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".upf" and path.is_file())
    named = {entry.filename: element for element, entry in entries.items() if entry.filename}
    if named:
        paths = [path for path in paths if path.name in named]
    if not paths:
        raise PseudopotentialError("the folder holds no UPF file of the family", str(folder), "Put UPF files there")
    members = [_member(path, entries, named.get(path.name)) for path in paths]
    _refuse_doubles(members, folder)
    present = {path.name for path in paths}
    absent = tuple(sorted((element, file) for file, element in named.items() if file not in present))
    pseudos = tuple(sorted(members, key=lambda pseudo: pseudo.element))
    return Family(name, _one_functional(members, folder), pseudos, folder, absent)


def _member(path: Path, entries: Mapping[str, TableEntry], label: str | None) -> Pseudo:
    content = _read(path)
    header = read_upf_header(content, str(path))
    _check_label(path, header.element, label)
    entry = entries.get(header.element, TableEntry())
    if entry.md5 and hashlib.md5(content, usedforsecurity=False).hexdigest() != entry.md5.lower():
        what = f"the file is not the one of the cutoff table (MD5 {entry.md5} expected)"
        raise PseudopotentialError(what, str(path), "Get the file again, or the table that belongs to it")
    rho = entry.ecutrho_Ry
    if rho is None and entry.ecutwfc_Ry is not None and header.kind == "NC":
        rho = _NORM_CONSERVING_DUAL * entry.ecutwfc_Ry
    return Pseudo(
        element=header.element,
        sha256=hashlib.sha256(content).hexdigest(),
        functional=header.functional,
        kind=header.kind,
        z_valence=header.z_valence,
        ecutwfc_Ry=entry.ecutwfc_Ry,
        ecutrho_Ry=rho,
        source=path,
        n_wavefunctions=header.n_wavefunctions,
    )


def _check_label(path: Path, element: str, label: str | None) -> None:
    """The file's own element against the table's, or against the beginning of its name where that is an element."""
    if label is None:
        match = _LABEL.match(path.name)
        label = match[1].capitalize() if match else ""
        label = label if label in SYMBOLS else element
    if label != element:
        what = f"the file is labelled {label}, but its content is a pseudopotential of {element}"
        raise PseudopotentialError(what, str(path), "pw.x would not notice: rename or remove the file")


def _refuse_doubles(members: Sequence[Pseudo], folder: Path) -> None:
    files_of: dict[str, list[str]] = defaultdict(list)
    for member in members:
        files_of[member.element].append(Path(str(member.source)).name)
    doubles = [f"{element}: {', '.join(names)}" for element, names in files_of.items() if len(names) > 1]
    if doubles:
        what = f"several files for one element ({'; '.join(doubles)})"
        raise PseudopotentialError(what, str(folder), "Keep one file per element, or add a table with file names")


def _one_functional(members: Sequence[Pseudo], folder: Path) -> str:
    files_of: dict[str, list[str]] = defaultdict(list)
    for member in members:
        files_of[member.functional].append(Path(str(member.source)).name)
    if len(files_of) > 1:
        groups = "; ".join(f"{functional}: {', '.join(names)}" for functional, names in sorted(files_of.items()))
        next_step = "Keep the files of one functional in the folder"
        raise PseudopotentialError(f"the folder mixes functionals ({groups})", str(folder), next_step)
    return next(iter(files_of))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        what = f"the pseudopotential file cannot be read: {error.strerror}"
        raise PseudopotentialError(what, str(path), "Restore the file or its permissions") from None


def _holds(path: Path, sha256: str) -> bool:
    return path.is_file() and hashlib.sha256(_read(path)).hexdigest() == sha256


def _write_at_once(path: Path, content: bytes) -> None:
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    with os.fdopen(handle, "wb") as stream:
        stream.write(content)
    Path(temporary).chmod(0o644)
    Path(temporary).replace(path)
