"""Errors: their text, their parts, their pickles."""

from __future__ import annotations

import pickle

import pytest

from hullworks import errors


def _all_errors() -> list[type[errors.HullWorksError]]:
    return [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.HullWorksError)
    ]


@pytest.mark.parametrize("kind", _all_errors())
def test_every_error_survives_a_pickle(kind: type[errors.HullWorksError]) -> None:
    """Process pools and dask carry errors: text and parts are the same on the other side."""
    error = kind("it is broken", "line 7", "Mend it.")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(copy) is kind
    assert str(copy) == str(error) == "line 7: it is broken. Mend it."
    assert copy.as_dict() == {
        "error": kind.__name__,
        "what": "it is broken",
        "where": "line 7",
        "next_step": "Mend it.",
    }


def test_the_tree_in_the_docstring_names_every_error() -> None:
    """Whoever reads the module's head knows all errors."""
    assert errors.__doc__ is not None
    assert all(kind.__name__ in errors.__doc__ for kind in _all_errors())


def test_empty_parts_leave_no_traces() -> None:
    """A message without place and cure is the bare clause."""
    assert str(errors.InputError("nothing to read")) == "nothing to read"


def test_errors_are_caught_by_their_builtin_parents() -> None:
    """Code that knows nothing of HullWorks can catch them."""
    with pytest.raises(ValueError, match="wrong"):
        raise errors.SettingsError("wrong")
    with pytest.raises(RuntimeError, match="away"):
        raise errors.DatabaseError("away")
