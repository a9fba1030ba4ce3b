"""Work on very many small objects at once."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def without_collector() -> Iterator[None]:
    """Put off Python's search for reference cycles while millions of plain objects are made.

    The search looks at all objects again and again as they grow in number, which doubles the time to read a level, and
    takes longer than reading the rows of an import. What is made here has no cycles, and is freed by reference counts.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
