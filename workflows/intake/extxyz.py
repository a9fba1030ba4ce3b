"""Crystals in extended XYZ files, one row per frame."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np
from pymatgen.core.periodic_table import Element

from hullworks.workflows.intake.crystal import build_crystal, fractional_of
from hullworks.workflows.intake.fields import candidate, nested
from hullworks.workflows.intake.pieces import Piece, bounded_lines, groups, text_of
from hullworks.workflows.intake.rows import ProblemCode, RowProblemError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pymatgen.core.structure import Structure

    from hullworks.workflows.intake.limits import Limits
    from hullworks.workflows.intake.rows import CandidateInput

_COUNT: Final = re.compile(rb"\s*\d+\s*")
_PAIR: Final = re.compile(
    r"""(?<!\S)(?P<key>[^\s=]+)\s*=\s*(?:"(?P<double>[^"]*)"|'(?P<single>[^']*)'|\{(?P<braces>[^}]{0,2000})\}|(?P<bare>\S*))"""
)
_DEFAULT_COLUMNS: Final = "species:S:1:pos:R:3"
_MOMENT_COLUMNS: Final = ("magmoms", "initial_magmoms", "magmom")
_TRUE: Final = frozenset({"t", "true", "1"})
_HEADER_LINES: Final = 2


def split(stream: BinaryIO, limits: Limits) -> Iterator[Piece]:
    """Yield the frames. A line with a lone whole number starts one, so a broken frame costs only itself."""
    numbered = ((_COUNT.fullmatch(line[0]) is not None, line) for line in bounded_lines(stream, limits.max_row_bytes))
    return (frame for frame in groups(numbered, "frame", limits.max_row_bytes) if frame.raw.strip())


def parse(row: Piece, default_name: str, limits: Limits) -> tuple[CandidateInput, tuple[str, ...]]:
    """Return the candidate of one frame, with the predictions and labels of its comment line, and remarks.

    ``energy``, by convention the total energy of the frame in eV, becomes ``energy_per_atom``.

    Raises:
        RowProblemError: The frame is cut off or malformed, is not periodic, or holds no crystal.
    """
    text = text_of(row.raw).split("\n")
    if not text[0].strip().isdigit():
        raise RowProblemError(ProblemCode.SYNTAX, "the frame does not start with its number of atoms")
    atoms = [line for line in text[_HEADER_LINES:] if line.strip()]
    if len(text) < _HEADER_LINES or text[0].strip().lstrip("0") != str(len(atoms) or ""):
        raise RowProblemError(ProblemCode.SYNTAX, f"{text[0].strip()[:20]} atoms announced, {len(atoms)} lines follow")
    if len(text[1]) > limits.max_comment_length:
        raise RowProblemError(ProblemCode.TOO_LONG, f"the comment line has {len(text[1])} characters")
    info = _info(text[1])
    structure = _structure(info, atoms, limits)
    fields = nested(info)
    if isinstance(energy := fields.pop("energy", None), int | float):
        fields["prediction"] = {"energy_per_atom": energy / len(structure)} | fields.get("prediction", {})
    return candidate(structure, fields, default_name, limits)


def _structure(info: dict[str, Any], atoms: Sequence[str], limits: Limits) -> Structure:
    """Return the crystal of a frame; takes what describes it out of ``info``."""
    matrix = _lattice(info)
    columns = _columns(str(info.pop("Properties", _DEFAULT_COLUMNS)), atoms)
    try:
        symbols = _symbols(columns)
        positions = np.array(columns["pos"], dtype=np.float64).reshape(-1, 3)
        moments = next((_numbers(columns[name]) for name in _MOMENT_COLUMNS if name in columns), None)
    except KeyError as error:
        raise RowProblemError(ProblemCode.WRONG_SHAPE, f"the frame has no column {error}") from error
    except (ValueError, IndexError) as error:
        raise RowProblemError(ProblemCode.SYNTAX, f"a column is not of its type: {error}") from error
    return build_crystal(matrix, symbols, fractional_of(positions, matrix, limits), limits, moments)


def _lattice(info: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
    periodic = [word.lower() in _TRUE for word in str(info.pop("pbc", "T T T")).split()]
    text = str(info.pop("Lattice", ""))
    if not text or not all(periodic):
        raise RowProblemError(ProblemCode.NOT_PERIODIC, "the frame has no Lattice" if not text else "pbc is not T T T")
    try:
        return np.array([float(word) for word in text.split()], dtype=np.float64).reshape(3, 3)
    except ValueError as error:
        raise RowProblemError(ProblemCode.WRONG_SHAPE, f"Lattice is not nine numbers: {text[:60]!r}") from error


def _columns(properties: str, atoms: Sequence[str]) -> dict[str, list[list[str]]]:
    """Return the atoms' words by column, as ``Properties`` names and counts them."""
    parts = properties.split(":")
    if len(parts) % 3 or not all(count.isdigit() for count in parts[2::3]):
        raise RowProblemError(ProblemCode.SYNTAX, f"Properties is not name:type:count: {properties[:60]!r}")
    ends = np.cumsum([min(int(count), 10_000) for count in parts[2::3]]).tolist()
    words = [line.split() for line in atoms]
    for number, line in enumerate(words, start=1):
        if len(line) < ends[-1]:
            raise RowProblemError(ProblemCode.SYNTAX, f"atom {number} has {len(line)} columns instead of {ends[-1]}")
    starts = [0, *ends[:-1]]
    return {
        name: [line[start:end] for line in words] for name, start, end in zip(parts[::3], starts, ends, strict=True)
    }


def _symbols(columns: Mapping[str, list[list[str]]]) -> list[str]:
    """Return the elements, from ``species`` or from atomic numbers in ``Z``."""
    if "species" not in columns and "Z" in columns:
        return [Element.from_Z(int(words[0])).symbol for words in columns["Z"]]
    return [words[0] for words in columns["species"]]


def _numbers(column: list[list[str]]) -> list[float] | None:
    return [float(words[0]) for words in column] if all(len(words) == 1 for words in column) else None


def _info(comment: str) -> dict[str, Any]:
    """Return the ``key=value`` pairs of a comment line; numbers as numbers."""
    found: dict[str, Any] = {}
    for match in _PAIR.finditer(comment):
        text = next(match[group] for group in ("double", "single", "braces", "bare") if match[group] is not None)
        found[match["key"]] = text if match["key"] in {"Lattice", "Properties", "pbc"} else _value(text)
    return found


def _value(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
