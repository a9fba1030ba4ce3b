"""The import of reference entries in bulk: rows become entries of one level, or are quarantined with the reason."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final

from hullworks.analysis.bulk import without_collector
from hullworks.analysis.formulas import element_amounts, read_amounts
from hullworks.analysis.partitions import PARTITION_BYTES, parse_partitions, partitions
from hullworks.documents import now
from hullworks.elements import ELEMENTS
from hullworks.errors import HullError
from hullworks.workflows.intake.files import checked_paths, files_of
from hullworks.workflows.references.entries import (
    content_source_id,
    energies_of,
    entry_document,
    formula_of,
    no_word_of_electronegativity,
    provenance_of,
)
from hullworks.workflows.references.fence import Fence
from hullworks.workflows.references.levels import check_kind, store_level
from hullworks.workflows.references.reader import file_sha256, read_file, read_partition
from hullworks.workflows.references.rows import Place, ReferenceRow, Refusal, RefusalCode, RowRefusedError
from hullworks.workflows.references.rules import load_rules
from hullworks.workflows.references.shapes import Columns
from hullworks.workflows.references.store import EntryStore, encode

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from hullworks.levels import LevelOfTheory
    from hullworks.workflows.references.reader import ReadRow
    from hullworks.workflows.references.rules import Window
    from hullworks.workflows.references.store import Document

CHUNK: Final = 2000
"""Rows judged and written in one go; a killed import repeats at most so many look-ups."""

_TICK: Final = timedelta(milliseconds=1)
"""Between the landing times of two rows: MongoDB keeps milliseconds, and the order of entries is that of the file."""


@dataclass
class ImportReport:
    """What became of the rows of an import.

    Attributes:
        level_key: The level that the entries belong to.
        dry_run: Nothing was stored.
        read: Rows read.
        added: Entries stored.
        known: Rows whose entry was there already, or stood before in the files.
        zero_references: Elements that got a reference at 0 eV/atom, since the level holds formation energies.
        refusals: The quarantined rows.
        files: Hash of each file by its path.
        quarantine_file: Where the quarantined rows are listed; None when there are none.
    """

    level_key: str
    dry_run: bool
    read: int = 0
    added: int = 0
    known: int = 0
    zero_references: list[str] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    quarantine_file: str | None = None

    @property
    def reasons(self) -> Counter[str]:
        """How many rows were quarantined for which reason."""
        return Counter(refusal.code.value for refusal in self.refusals)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON types."""
        plain = {key: value for key, value in self.__dict__.items() if key != "refusals"}
        rows = [refusal.as_dict() for refusal in self.refusals]
        return {**plain, "quarantined": len(rows), "reasons": dict(self.reasons), "rows": rows}


def import_references(
    paths: Iterable[str | os.PathLike[str]] | str | os.PathLike[str],
    level: LevelOfTheory,
    *,
    columns: Columns | None = None,
    dry_run: bool = False,
    quarantine: Path | None = None,
    cluster: str | None = None,
    on_progress: Callable[[ImportReport], None] = lambda _report: None,
) -> ImportReport:
    """Store the entries of some files as references of a level; the documents must be connected.

    Importing twice adds nothing, and an import that was killed is completed by running it again: an entry's id follows
    from the level and the row's own id, or its formula and energy when it has none.

    Args:
        paths: Files and folders: JSON lists, JSONL (ComputedEntry dictionaries, documents of the Materials Project) or
            CSV, each also compressed with gzip.
        level: The level of theory; it is stored when it is new.
        columns: Where flat rows keep energy, formula and id, and whether the energies are formation energies.
        dry_run: Only report; store nothing.
        quarantine: File to list quarantined rows in, one JSON object a line; it is written when there are any.
        cluster: Where to parse the files by partition: ``local:N`` or ``slurm:N``, with the extra ``dask``; None for
            this process. The entries are the same.
        on_progress: Called with the report so far, for a progress display.

    Raises:
        InputError: A path does not exist; nothing was stored.
        LevelError: The level's energies and the files' are not of one kind; nothing was stored.
    """
    columns = columns or Columns()
    check_kind(level, formation=columns.formation)
    files = [file for path in checked_paths(paths) for file in files_of(path)]
    if not dry_run:
        store_level(level)
    run = _Import(level, columns, EntryStore(level.key, dry_run=dry_run))
    with no_word_of_electronegativity(), without_collector():
        for path, rows in run.rows_of(files, cluster):
            run.take_file(path, rows, on_progress)
        if columns.formation:
            run.add_zero_references()
    if run.report.refusals and quarantine is not None:
        run.report.quarantine_file = str(write_quarantine(quarantine, run.report.refusals))
    on_progress(run.report)
    return run.report


def write_quarantine(path: Path, refusals: Iterable[Refusal]) -> Path:
    """Write quarantined rows with their reasons, one JSON object a line; return the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(refusal.as_dict()) + "\n" for refusal in refusals), encoding="utf-8")
    return path


class _Import:
    """One import under way."""

    def __init__(self, level: LevelOfTheory, columns: Columns, store: EntryStore) -> None:
        self.level, self.columns, self.store = level, columns, store
        self.rules = load_rules()
        self.fence = Fence(level, self.rules, store.settings())
        self.report = ImportReport(level.key, dry_run=store.dry_run)
        self.moment = store.first_free_moment()
        self.origin: dict[str, Any] = {"imported_at": now()}

    @property
    def window(self) -> Window:
        """The energies that are no mistake, eV/atom."""
        return self.rules.window(self.level.code, formation=self.columns.formation)

    def rows_of(self, files: Sequence[Path], cluster: str | None) -> Iterator[tuple[Path, Iterator[ReadRow]]]:
        """Yield each file with its rows."""
        if cluster is None:
            yield from ((path, read_file(path, self.columns, self.rules)) for path in files)
            return
        names = {path.absolute(): str(path) for path in files}
        parser = partial(read_partition, names=names, columns=self.columns, rules=self.rules)
        parts = partitions(names, PARTITION_BYTES)
        read = parse_partitions(files, parser, cluster, partition_bytes=PARTITION_BYTES).all()
        for path in files:
            own = [rows for part, rows in zip(parts, read, strict=True) if part.path == path.absolute()]
            yield path, chain.from_iterable(own)

    def take_file(self, path: Path, rows: Iterator[ReadRow], on_progress: Callable[[ImportReport], None]) -> None:
        """Import the rows of one file."""
        self.origin["file_sha256"] = self.report.files[str(path)] = file_sha256(path)
        while chunk := list(islice(rows, CHUNK)):
            self.report.read += len(chunk)
            self.store_new(self.documents(chunk))
            on_progress(self.report)

    def documents(self, chunk: Sequence[ReadRow]) -> Iterator[Document]:
        """Yield the entries of the rows that are fit to be references."""
        readable = self._readable(chunk)
        for (place, row), amounts in zip(readable, self._amounts(readable), strict=True):
            try:
                if isinstance(amounts, RowRefusedError):
                    raise amounts
                yield self.document(place, row, amounts)
            except RowRefusedError as error:
                self.refuse(place, error, row.source_id)

    def document(self, place: Place, row: ReferenceRow, amounts: dict[str, float]) -> Document:
        """Return the entry of a row.

        Raises:
            RowRefusedError: Its energy is no energy, or it is of another level.
        """
        energies = energies_of(row, sum(amounts.values()), self.window, self.rules)
        settings = self.fence.settings_of(row)
        source_id = row.source_id or content_source_id(formula_of(amounts), energies.corrected)
        provenance = provenance_of(row, place, source_id, settings, self.origin)
        self.moment += _TICK
        return entry_document(self.report.level_key, source_id, row, amounts, energies, provenance, self.moment)

    def store_new(self, documents: Iterable[Document]) -> None:
        """Store the entries that are not known yet, and quarantine those that contradict what is known."""
        new = self._unknown(list(documents))
        encoded = encode(new.values())
        for key, fault in encoded.faults.items():
            self._refuse_document(new[key], RowRefusedError(RefusalCode.WRONG_SHAPE, f"it cannot be stored: {fault}"))
        taken = self.store.add(encoded.ready)
        self.report.added += len(encoded.ready) - len(taken)
        if taken:  # another import was faster with these; compare them with what it stored
            self._unknown([new[key] for key in taken])

    def add_zero_references(self) -> None:
        """Give every element of the level its reference at zero, where no entry of it lies there."""
        lowest = self.store.lowest_elements()
        limit = self.rules.zero_tolerance_eV_per_atom
        lacking = [e for e in sorted(self.store.elements()) if lowest.get(e, limit) >= limit]
        self.origin.pop("file_sha256", None)
        row_of = {e: ReferenceRow(e, 0.0, source_id=f"zero:{e}", name=e, data={"by_definition": True}) for e in lacking}
        place = Place("by definition of the formation energy", "file", 1)
        self.store_new([self.document(place, row, {element: 1.0}) for element, row in row_of.items()])
        self.report.zero_references = lacking

    def refuse(self, place: Place, error: RowRefusedError, source_id: str = "") -> None:
        """Quarantine a row."""
        self.report.refusals.append(Refusal(place, error.code, error.what, source_id or error.where))

    def _readable(self, chunk: Sequence[ReadRow]) -> list[tuple[Place, ReferenceRow]]:
        readable = []
        for place, row in chunk:
            if isinstance(row, RowRefusedError):
                self.refuse(place, row)
            else:
                readable.append((place, row))
        return readable

    def _amounts(self, rows: Sequence[tuple[Place, ReferenceRow]]) -> list[dict[str, float] | RowRefusedError]:
        """Return atoms per element of each row; formulas are read together."""
        texts = [row.composition for _, row in rows if isinstance(row.composition, str)]
        parsed, faults = read_amounts(texts)
        by_text = iter(range(len(texts)))
        found: list[dict[str, float] | RowRefusedError] = []
        for _, row in rows:
            if isinstance(row.composition, str):
                i = next(by_text)
                fault = RowRefusedError(RefusalCode.NO_COMPOSITION, faults[i]) if i in faults else None
                found.append(fault or parsed[i])
            else:
                found.append(_amounts_of(row.composition))
        return found

    def _unknown(self, documents: Sequence[Document]) -> dict[str, Document]:
        """Return the entries that are not known, by id; count the known ones and quarantine contradictions."""
        known = self.store.present([document["_id"] for document in documents])
        new: dict[str, Document] = {}
        for document in documents:
            first = known.get(document["_id"]) or new.get(document["_id"])
            if first is None:
                new[document["_id"]] = document
            elif self._is_same(first, document):
                self.report.known += 1
            else:
                text = f"known as {_content(first)} ({_place(first)}), here {_content(document)}"
                self._refuse_document(document, RowRefusedError(RefusalCode.CONFLICT, text))
        return new

    def _is_same(self, first: Document, second: Document) -> bool:
        tolerance = self.rules.same_energy_eV_per_atom
        names = ("energy_eV_per_atom", "uncorrected_energy_eV_per_atom")
        close = all(abs(first[name] - second[name]) <= tolerance for name in names)
        return close and bool(first["reduced_formula"] == second["reduced_formula"])

    def _refuse_document(self, document: Document, error: RowRefusedError) -> None:
        self.refuse(_place(document), error, document["provenance"]["source_id"])


def _amounts_of(composition: Any) -> dict[str, float] | RowRefusedError:  # noqa: ANN401 - any JSON object
    """Return atoms per element of a composition dictionary; plain ones without pymatgen."""
    if composition.keys() <= ELEMENTS and all(
        type(n) in {int, float} and 0 < n < float("inf") for n in composition.values()
    ):
        return {symbol: float(n) for symbol, n in composition.items()} or _no_atoms()
    try:
        return element_amounts(composition)
    except HullError as error:
        return RowRefusedError(RefusalCode.NO_COMPOSITION, error.what)


def _no_atoms() -> RowRefusedError:
    return RowRefusedError(RefusalCode.NO_COMPOSITION, "the composition is empty")


def _place(document: Document) -> Place:
    source = document["provenance"]
    return Place(source.get("source_file", "computed"), source.get("unit", "file"), source.get("row", 1))


def _content(document: Document) -> str:
    corrected, before = document["energy_eV_per_atom"], document["uncorrected_energy_eV_per_atom"]
    more = f" ({before!r} before corrections)" if before != corrected else ""
    return f"{document['reduced_formula']} at {corrected!r} eV/atom{more}"
