"""Leases: something that one process at a time may do, and that a killed process gives up by itself."""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from mongoengine.errors import NotUniqueError
from pymongo.errors import DuplicateKeyError

from hullworks.documents import Lease, now

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def lease(name: str, seconds: float) -> Iterator[bool]:
    """Try to hold a lease for the length of a ``with`` block.

    Args:
        name: What is leased.
        seconds: Longest time that the block may take, s; after it somebody else may hold the lease.

    Yields:
        Whether the lease is held; when False, somebody else is at it, and the block must do nothing.
    """
    holder = uuid.uuid4().hex
    held = _take(name, holder, seconds)
    try:
        yield held
    finally:
        if held:
            Lease.objects(name=name, holder=holder).delete()


def _take(name: str, holder: str, seconds: float) -> bool:
    moment = now()
    fields = {"set__holder": holder, "set__expires_at": moment + timedelta(seconds=seconds)}
    try:
        # An unexpired lease does not match, and the insert that follows meets its name.
        Lease.objects(name=name, expires_at__lt=moment).update_one(upsert=True, **fields)
    except (NotUniqueError, DuplicateKeyError):
        return False
    return True
