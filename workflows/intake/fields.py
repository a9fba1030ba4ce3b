"""From the fields of a row to a `CandidateInput`: what is known is checked, what is not is kept."""

from __future__ import annotations

import difflib
import json
import math
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hullworks.states import Role
from hullworks.workflows.intake.rows import CandidateInput, Prediction, ProblemCode, RowProblemError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pymatgen.core.structure import Structure

    from hullworks.workflows.intake.limits import Limits

KNOWN: Final = ("name", "structure", "cif", "role", "prediction", "source", "parent", "licence")
PREDICTED: Final = frozenset(Prediction.model_fields) | {"predicted_e_hull", "predicted_e_form", "model_id", "hull_id"}
"""Names under which a flat row (extxyz, CSV) carries its prediction."""

_INT64: Final = 2**63
"""Integers from here on do not fit any database."""

_MAX_CHECKED: Final = 50
"""Unknown fields of a row that are compared with the known names."""

_MAX_FAULTS: Final = 3
"""Faults of a row that its reason lists; the rest are counted."""


class _Labels(BaseModel):
    """The fields of a row beside its structure and prediction."""

    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True)

    name: str | None = None
    role: Role | None = None
    source: str | None = None
    parent: str | None = None
    licence: str | None = None


class _Row(BaseModel):
    """Labels and prediction, so that one error tells all the faults of a row."""

    labels: _Labels
    prediction: Prediction = Field(default_factory=Prediction)


def candidate(
    structure: Structure, fields: Mapping[str, Any], default_name: str, limits: Limits
) -> tuple[CandidateInput, tuple[str, ...]]:
    """Return the candidate that a structure and the other fields of its row make, and remarks on them.

    Raises:
        RowProblemError: A known field has a wrong type, the prediction is not of finite numbers, its uncertainty is
            negative, or a value could not be stored.
    """
    fields = {("licence" if key == "license" else key): value for key, value in fields.items()}
    remarks: list[str] = []
    labels = {key: value for key in _Labels.model_fields if (value := fields.get(key)) is not None}
    prediction = _plain(fields.get("prediction"), limits, ProblemCode.BAD_PREDICTION, None) or {}
    extra = {key: value for key, value in fields.items() if key not in KNOWN}
    extra = _plain(extra, limits, ProblemCode.WRONG_SHAPE, remarks)
    remarks += _misspelt(extra)
    row = _validated({"labels": labels, "prediction": prediction})
    texts = {key: _label(key, getattr(row.labels, key), limits) for key in ("source", "parent", "licence")}
    name = _label("name", row.labels.name, limits) or default_name
    role = row.labels.role or Role.CANDIDATE
    return CandidateInput(structure, name, role, row.prediction, extra=extra, **texts), tuple(remarks)


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a flat row with those of a prediction gathered under ``prediction``."""
    fields = {key: value for key, value in flat.items() if key not in PREDICTED}
    prediction = {key: value for key, value in flat.items() if key in PREDICTED}
    return fields | ({"prediction": prediction} if prediction else {})


def _validated(row: dict[str, Any]) -> _Row:
    try:
        return _Row.model_validate(row)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors(include_url=False)]
        predicted = all(fault.startswith("prediction") for fault in faults)
        more = f" and {len(faults) - _MAX_FAULTS} more" if len(faults) > _MAX_FAULTS else ""
        text = "; ".join(fault.removeprefix("labels.") for fault in faults[:_MAX_FAULTS]) + more
        code = ProblemCode.BAD_PREDICTION if predicted else ProblemCode.WRONG_SHAPE
        raise RowProblemError(code, text) from error


def _label(key: str, text: str | None, limits: Limits) -> str:
    text = (text or "").strip()
    if len(text) > limits.max_label_length:
        raise RowProblemError(ProblemCode.WRONG_SHAPE, f"{key} has {len(text)} characters")
    if not text.isprintable():
        raise RowProblemError(ProblemCode.WRONG_SHAPE, f"{key} holds control characters: {json.dumps(text)[:60]}")
    return text


def _misspelt(extra: Mapping[str, Any]) -> list[str]:
    """Return a remark for each unknown field that resembles a known one."""
    unknown = list(extra)[:_MAX_CHECKED]
    close = {key: difflib.get_close_matches(key, KNOWN, n=1, cutoff=0.8) for key in unknown}
    return [f"field {key!r} is not known; is it {match[0]!r}?" for key, match in close.items() if match]


def _plain(value: Any, limits: Limits, code: ProblemCode, remarks: list[str] | None, depth: int = 0) -> Any:  # noqa: ANN401 - any JSON value
    """Return a JSON value that a database can hold.

    A number that is not finite is an error, or None with a remark when ``remarks`` is given.
    """
    if isinstance(value, dict | list) and depth > limits.max_depth:
        raise RowProblemError(code, f"fields are nested deeper than {limits.max_depth}")
    if isinstance(value, dict):
        return {_key(key, code): _plain(item, limits, code, remarks, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, limits, code, remarks, depth + 1) for item in value]
    return _plain_scalar(value, code, remarks)


def _plain_scalar(value: Any, code: ProblemCode, remarks: list[str] | None) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, float) and not math.isfinite(value):
        if remarks is None:
            raise RowProblemError(code, "a number is not finite")
        remarks.append("a number that is not finite was dropped")
        return None
    if isinstance(value, int) and not -_INT64 <= value < _INT64:
        raise RowProblemError(code, "an integer has more than 64 bits")
    if isinstance(value, str) and not _encodable(value):
        raise RowProblemError(code, "a text holds half a surrogate pair")
    return value


def _key(key: str, code: ProblemCode) -> str:
    if "\0" in key or not _encodable(key):
        raise RowProblemError(code, f"a field has an impossible name: {json.dumps(key)[:60]}")
    return key


def _encodable(text: str) -> bool:
    """Return whether a text is valid Unicode: JSON can spell lone surrogates, which no encoding holds."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
