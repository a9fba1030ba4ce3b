"""Whether compiled code is used."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec


class Choice:
    """Whether compiled code is used where it is there; tests and benchmarks switch it off."""

    compiled = True


def compiled_is_used() -> bool:
    """Tell whether compiled code is used: numba is installed, and nobody has switched it off."""
    return Choice.compiled and _numba_is_there()


@cache
def _numba_is_there() -> bool:
    return find_spec("numba") is not None
