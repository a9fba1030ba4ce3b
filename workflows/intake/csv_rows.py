"""Rows in CSV tables with a ``cif`` or ``structure`` column; other columns are fields of the row."""

from __future__ import annotations

import csv
import hashlib
from typing import TYPE_CHECKING, Any, BinaryIO

from hullworks.workflows.intake.fields import candidate, nested
from hullworks.workflows.intake.json_rows import decode, structure_of
from hullworks.workflows.intake.pieces import Piece, lines, piece, text_of
from hullworks.workflows.intake.rows import ProblemCode, RowProblemError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hullworks.workflows.intake.limits import Limits
    from hullworks.workflows.intake.rows import CandidateInput


def split(stream: BinaryIO, limits: Limits) -> Iterator[Piece]:
    """Yield the records below the header, each numbered by its last line, with its cells by column name."""
    feed = _Feed(stream, limits)
    reader = csv.reader(feed)
    header: list[str] | None = None
    while True:
        try:
            record = next(reader)
        except StopIteration:
            yield from feed.faults()
            return
        except csv.Error as error:
            yield feed.take(fault=RowProblemError(ProblemCode.SYNTAX, f"the record cannot be read: {error}"))
            continue
        yield from feed.faults()
        if header is None:
            header = [cell.strip() for cell in record]
            feed.forget()
        elif any(record):
            yield _record(feed, header, record)


def parse(row: Piece, default_name: str, limits: Limits) -> tuple[CandidateInput, tuple[str, ...]]:
    """Return the candidate of one record, and remarks; empty cells count as missing.

    Raises:
        RowProblemError: The record holds no crystal, or a cell has a wrong type.
    """
    fields: dict[str, Any] = dict(row.payload)
    for key in ("structure", "prediction"):
        if str(fields.get(key, "")).lstrip().startswith("{"):
            fields[key] = decode(fields[key].encode("utf-8", "replace"))
    structure, remarks = structure_of(fields, limits)
    rest = {key: value for key, value in fields.items() if key not in {"structure", "cif"}}
    built, more = candidate(structure, nested(rest) | _given(rest), default_name, limits)
    return built, remarks + more


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {"prediction": fields["prediction"]} if "prediction" in fields else {}


def _record(feed: _Feed, header: list[str], record: list[str]) -> Piece:
    if len(record) != len(header):
        text = f"the record has {len(record)} cells, the header {len(header)}"
        return feed.take(fault=RowProblemError(ProblemCode.SYNTAX, text))
    return feed.take({key: cell for key, cell in zip(header, record, strict=True) if key and cell})


class _Feed:
    """Hands lines to the csv reader, and remembers which ones made the present record."""

    def __init__(self, stream: BinaryIO, limits: Limits) -> None:
        self._lines = lines(stream, limits.max_row_bytes)
        self._used: list[bytes] = []
        self._faulty: list[Piece] = []
        self._number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        for line in self._lines:
            self._number = line.number
            try:
                text = None if line.fault else text_of(line.raw)
            except RowProblemError as error:
                line = piece("line", line.number, line.raw, fault=error)  # noqa: PLW2901 - the same line, judged
                text = None
            if text is not None:
                self._used.append(line.raw)
                return text + "\n"
            self._faulty.append(line)
        raise StopIteration

    def faults(self) -> Iterator[Piece]:
        """Yield the lines that could not be handed on, once."""
        while self._faulty:
            yield self._faulty.pop(0)

    def forget(self) -> None:
        """Forget the lines of the present record."""
        self._used.clear()

    def take(self, payload: dict[str, str] | None = None, fault: RowProblemError | None = None) -> Piece:
        """Return the present record as a piece, and start the next."""
        raw = b"\n".join(self._used)
        self.forget()
        return Piece("line", self._number, raw, hashlib.sha256(raw).hexdigest(), payload, fault)
