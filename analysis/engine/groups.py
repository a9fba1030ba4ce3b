"""Which rows of a growing table have which label, without sorting all of them at each growth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from hullworks.analysis.engine.keys import spans

if TYPE_CHECKING:
    from hullworks.analysis.engine.keys import Array

RADIX_BYTES: Final = 2
"""Labels of at most so many bytes are sorted by radix."""
TAIL: Final = 2000
TAIL_SHARE: Final = 0.05
"""Appended rows are sorted anew at each call until there are this many, or this share of all: sorting them is cheap."""


class Groups:
    """Rows by label. Labels of rows that are there never change."""

    def __init__(self) -> None:
        self._rows = np.zeros(0, dtype=np.int32)
        self._indptr = np.zeros(1, dtype=np.int64)

    def of(self, wanted: Array, labels: Array, n_labels: int) -> tuple[Array, Array]:
        """Return the rows of each wanted label: (rows, place in ``wanted`` of each).

        Args:
            wanted: Labels, (m,).
            labels: The label of every row, (n,).
            n_labels: Labels are below it.
        """
        tail = self._sorted(labels, n_labels)
        place = np.arange(len(wanted))
        known = np.minimum(wanted, len(self._indptr) - 2)
        starts = self._indptr[np.maximum(known, 0)] if len(self._indptr) > 1 else np.zeros(len(wanted), dtype=np.int64)
        ends = self._indptr[known + 1] if len(self._indptr) > 1 else starts
        counts = np.where(wanted < len(self._indptr) - 1, ends - starts, 0)
        rows, which = self._rows[spans(starts, counts)], np.repeat(place, counts)
        return (rows, which) if not tail else self._with_tail(rows, which, wanted, labels)

    def _sorted(self, labels: Array, n_labels: int) -> int:
        """Sort the rows when too many are not; return how many are left at the end."""
        tail = len(labels) - len(self._rows)
        if tail <= max(TAIL, TAIL_SHARE * len(self._rows)):
            return tail
        # Two-byte labels are sorted by radix, others fastest by the processor's vector instructions.
        kind: Literal["stable", "quicksort"] = "stable" if labels.dtype.itemsize <= RADIX_BYTES else "quicksort"
        self._rows = np.argsort(labels, kind=kind).astype(np.int32)
        self._indptr = np.concatenate([[0], np.cumsum(np.bincount(labels, minlength=n_labels))])
        return 0

    def counts(self, labels: Array, n_labels: int) -> Array:
        """Return about how many rows each label has: a few appended ones may be missing."""
        self._sorted(labels, n_labels)
        counts = np.zeros(n_labels, dtype=np.int64)
        counts[: len(self._indptr) - 1] = np.diff(self._indptr)
        return counts

    def _with_tail(self, rows: Array, which: Array, wanted: Array, labels: Array) -> tuple[Array, Array]:
        late = labels[len(self._rows) :]
        order = np.argsort(late, kind="stable")
        ordered = late[order]
        starts = np.searchsorted(ordered, wanted, "left")
        counts = np.searchsorted(ordered, wanted, "right") - starts
        more = order[spans(starts, counts)] + len(self._rows)
        return np.concatenate([rows, more]), np.concatenate([which, np.repeat(np.arange(len(wanted)), counts)])
