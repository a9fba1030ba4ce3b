"""What a UPF file says about itself: element, functional, kind and valence; and whether the file is whole."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass

from hullworks.elements import SYMBOLS
from hullworks.errors import PseudopotentialError
from hullworks.workflows.qe.pseudos.functionals import normalised_functional

__all__ = ["SYMBOLS", "UpfHeader", "read_upf_header"]

_HEADER_V2 = re.compile(r"<PP_HEADER\b(?P<attributes>(?:[^>\"']|\"[^\"]*\"|'[^']*')*)/?>", re.DOTALL)
_ATTRIBUTE = re.compile(r"(\w+)\s*=\s*(?:\"([^\"]*)\"|'([^']*)')")
_HEADER_V1 = re.compile(r"<PP_HEADER>(.*?)</PP_HEADER>", re.DOTALL)
_TAG = re.compile(r"<(/?)(PP_\w+(?:\.\d+)*)\b((?:[^>\"']|\"[^\"]*\"|'[^']*')*)>")
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_ONE_PER_MESH_POINT = ("PP_R", "PP_RHOATOM", "PP_LOCAL")
_KINDS = {"NC": "NC", "SL": "NC", "US": "US", "USPP": "US", "PAW": "PAW", "1/r": "NC"}

_DAMAGED = "Get the file again from its source"
_V1_LINES = 11
"""Lines of a version 1 header that are read by position (Modules/read_upf_v1.f90)."""


@dataclass(frozen=True)
class UpfHeader:
    """What the header of a UPF file says.

    Attributes:
        element: Chemical symbol.
        functional: Normalised name of the functional, such as ``PBE``.
        kind: ``NC`` (norm-conserving), ``US`` (ultrasoft) or ``PAW``.
        z_valence: Number of valence electrons.
        mesh_size: Number of radial points.
        fully_relativistic: Whether the file holds spin-orbit terms.
        n_wavefunctions: Number of atomic wave functions.
    """

    element: str
    functional: str
    kind: str
    z_valence: float
    mesh_size: int
    fully_relativistic: bool
    n_wavefunctions: int


def read_upf_header(content: bytes, where: str = "") -> UpfHeader:
    """Return the header of a UPF file of version 1 or 2 after checking that the file is whole.

    pw.x reads a truncated file to its end and stops with a Fortran message, or reads another file of that name; so the
    whole content is checked here: every section is closed, and the radial functions have one number per mesh point.

    Args:
        content: The bytes of the file.
        where: The file's name, for messages.

    Raises:
        PseudopotentialError: Empty, truncated, damaged or not a UPF file of a known version.
    """
    text = _COMMENT.sub("", content.decode("utf-8", errors="replace"))
    if not text.strip():
        raise PseudopotentialError("the pseudopotential file is empty", where, _DAMAGED)
    header = _read_v2(text, where) if "<UPF" in text else _read_v1(text, where)
    _check_sections(text, where)
    _check_arrays(text, header.mesh_size, where)
    return header


def _read_v2(text: str, where: str) -> UpfHeader:
    match = _HEADER_V2.search(text)
    if match is None:
        raise PseudopotentialError("the UPF file has no readable header", where, _DAMAGED)
    if not text.rstrip().endswith("</UPF>"):
        raise PseudopotentialError("the UPF file is truncated: its end </UPF> is missing", where, _DAMAGED)
    found = _ATTRIBUTE.findall(match["attributes"])
    attributes = {name: html.unescape(double or single).strip() for name, double, single in found}
    try:
        kind = "PAW" if _is_true(attributes.get("is_paw", "F")) else _kind(attributes["pseudo_type"], where)
        return UpfHeader(
            element=_symbol(attributes["element"], where),
            functional=normalised_functional(attributes["functional"]),
            kind=kind,
            z_valence=_number(attributes["z_valence"]),
            mesh_size=int(attributes["mesh_size"]),
            fully_relativistic=_is_true(attributes.get("has_so", "F")),
            n_wavefunctions=int(attributes.get("number_of_wfc", "0")),
        )
    except KeyError as error:
        raise PseudopotentialError(f"the UPF header does not say {error.args[0]}", where, _DAMAGED) from None
    except ValueError as error:
        raise _unreadable(error, where) from None


def _read_v1(text: str, where: str) -> UpfHeader:
    match = _HEADER_V1.search(text)
    if match is None:
        next_step = "Convert it with upfconv.x of Quantum ESPRESSO, or use a UPF file"
        raise PseudopotentialError("not a UPF file: no PP_HEADER section", where, next_step)
    lines = [line.split() for line in match[1].strip().splitlines()]
    if len(lines) < _V1_LINES or not all(lines[:_V1_LINES]):
        raise PseudopotentialError("the UPF header is truncated", where, _DAMAGED)
    try:
        return UpfHeader(
            element=_symbol(lines[1][0], where),
            functional=normalised_functional(" ".join(lines[4][:4])),
            kind=_kind(lines[2][0], where),
            z_valence=_number(lines[5][0]),
            mesh_size=int(lines[9][0]),
            fully_relativistic="<PP_ADDINFO>" in text,
            n_wavefunctions=int(lines[10][0]),
        )
    except ValueError as error:
        raise _unreadable(error, where) from None


def _unreadable(error: ValueError, where: str) -> PseudopotentialError:
    """A refusal of ours passes through; a number that cannot be read becomes one."""
    if isinstance(error, PseudopotentialError):
        return error
    return PseudopotentialError(f"the UPF header is damaged: {error}", where, _DAMAGED)


def _check_sections(text: str, where: str) -> None:
    """Every section that opens is closed, in order."""
    open_tags: list[str] = []
    for closing, name, rest in _TAG.findall(text):
        if closing:
            if not open_tags or open_tags.pop() != name:
                raise PseudopotentialError(f"the UPF file is damaged: </{name}> closes nothing", where, _DAMAGED)
        elif not rest.rstrip().endswith("/"):
            open_tags.append(name)
    if open_tags:
        raise PseudopotentialError(f"the UPF file is truncated inside {open_tags[-1]}", where, _DAMAGED)


def _check_arrays(text: str, mesh_size: int, where: str) -> None:
    for name in _ONE_PER_MESH_POINT:
        match = re.search(rf"<{name}\b[^>]*>(.*?)</{name}>", text, re.DOTALL)
        count = _count_numbers(match[1], name, where) if match else 0
        bare_coulomb = name == "PP_LOCAL" and count == 0
        if count != mesh_size and not bare_coulomb:
            what = f"the UPF file is damaged: {name} has {count} numbers for {mesh_size} mesh points"
            raise PseudopotentialError(what, where, _DAMAGED)


def _count_numbers(text: str, name: str, where: str) -> int:
    words = text.split()
    try:
        for word in words:
            _number(word)
    except ValueError:
        raise PseudopotentialError(f"the UPF file is damaged: {name} holds {word!r}", where, _DAMAGED) from None
    return len(words)


def _number(word: str) -> float:
    """Read a Fortran real, whose exponent may be marked with D; NaN and infinity are refused."""
    value = float(word.upper().replace("D", "E"))
    if value - value != 0.0:
        msg = f"{word} is not a finite number"
        raise ValueError(msg)
    return value


def _is_true(word: str) -> bool:
    return word.strip(". ").lower() in {"t", "true"}


def _symbol(word: str, where: str) -> str:
    symbol = word.strip().capitalize()
    if symbol not in SYMBOLS:
        raise PseudopotentialError(f"the UPF header names no element: {word!r}", where, _DAMAGED)
    return symbol


def _kind(word: str, where: str) -> str:
    kind = _KINDS.get(word.strip())
    if kind is None:
        known = ", ".join(_KINDS)
        raise PseudopotentialError(f"unknown kind of pseudopotential {word!r}", where, f"Known kinds: {known}")
    return kind
