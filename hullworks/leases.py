"""Leases: something that one process at a time may do, and that a killed process gives up by itself."""

from __future__ import annotations

import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from hullworks.documents import Lease
from hullworks.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pymongo.collection import Collection

_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass
class Hold:
    """A lease that was asked for; true when it is held.

    Args:
        name: What is leased.
        seconds: How long it lasts without being renewed, s.
    """

    name: str
    seconds: float
    holder: str = field(default_factory=lambda: uuid.uuid4().hex)
    deadline: float = 0.0
    """Until when nobody else can have it, on this process's monotonic clock, s."""

    def __bool__(self) -> bool:
        return self.deadline > 0

    @property
    def left_s(self) -> float:
        """Time left in which nobody else can have the lease, s."""
        return self.deadline - time.monotonic()

    def keep(self, fraction: float = 0.5) -> None:
        """Make sure that at least a fraction of the time is left; renew the lease when there is less.

        Raises:
            StateError: Somebody else has it; what it stood for must not go on.
        """
        if self.left_s >= fraction * self.seconds:
            return
        started = time.monotonic()
        kept = _leases().update_one(
            {"_id": self.name, "holder": self.holder}, [{"$set": {"expires_at": _after(self.seconds)}}]
        )
        if not kept.matched_count:
            raise StateError("the lease ran out, and another process has it", self.name, "It does the work.")
        self.deadline = started + self.seconds

    def take(self) -> None:
        """Take the lease if it is free or has run out."""
        started = time.monotonic()
        free = {"$lt": [{"$ifNull": ["$expires_at", _NEVER]}, "$$NOW"]}
        step = {
            "holder": {"$cond": [free, self.holder, "$holder"]},
            "expires_at": {"$cond": [free, _after(self.seconds), "$expires_at"]},
        }
        try:
            found = _leases().find_one_and_update(
                {"_id": self.name}, [{"$set": step}], upsert=True, return_document=ReturnDocument.AFTER
            )
        except DuplicateKeyError:
            return  # of two that were first at the same moment, the other
        if found is not None and found["holder"] == self.holder:
            self.deadline = started + self.seconds

    def give_up(self) -> None:
        """Let others have the lease at once."""
        if self:
            _leases().delete_one({"_id": self.name, "holder": self.holder})


@contextmanager
def lease(name: str, seconds: float) -> Iterator[Hold]:
    """Try to hold a lease for the length of a ``with`` block.

    The time is that of the database server, so that machines whose clocks differ agree about it.

    Args:
        name: What is leased.
        seconds: Longest time that the block may take unless it renews the lease, s; after it somebody else may hold it.

    Yields:
        The lease, true when it is held; when false, somebody else is at it, and the block must do nothing.
    """
    hold = Hold(name, seconds)
    hold.take()
    try:
        yield hold
    finally:
        hold.give_up()


def _leases() -> Collection[dict[str, Any]]:
    found: Collection[dict[str, Any]] = Lease._get_collection()  # noqa: SLF001 - the way to the driver's collection
    return found


def _after(seconds: float) -> dict[str, Any]:
    return {"$add": ["$$NOW", int(seconds * 1000)]}
