"""One client for all that a worker asks of the database: LaunchPad, documents and job store."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import mongoengine
import pymongo.errors
from fireworks import LaunchPad
from jobflow import JobStore
from maggma.stores import GridFSStore, MongoStore

from hullworks.database import client_options, connect, database_uri
from hullworks.launchers.configuration import BLOBS_COLLECTION, OUTPUTS_COLLECTION, uri_with_database

if TYPE_CHECKING:
    from collections.abc import Callable

    from pymongo.collection import Collection
    from pymongo.database import Database

    from hullworks.settings import Settings

T = TypeVar("T")

ANSWER_S: Final = 10.0
"""How long one question waits for the server, s; then what else happens is looked at, and it is asked again."""
PAUSE_S: Final = 1.0
FEW: Final = {"maxPoolSize": 2, "serverMonitoringMode": "poll"}
"""One thread asks. A thousand allocations are three thousand connections by default, and a thousand so."""
AWAY: Final = (pymongo.errors.ConnectionFailure, pymongo.errors.ExecutionTimeout)


class _SharedBlobs(GridFSStore):
    """maggma's store of large objects on a client that is already there."""

    def __init__(self, database: Database[dict[str, Any]]) -> None:
        super().__init__(database.name, BLOBS_COLLECTION)
        import gridfs

        self._coll = gridfs.GridFS(database, BLOBS_COLLECTION)
        self._files_collection = database[f"{BLOBS_COLLECTION}.files"]
        files: Any = _store_of(self._files_collection)
        files.last_updated_field, files.key = f"metadata.{self.last_updated_field}", self.key
        self._fs = files
        self._chunks_collection = database[f"{BLOBS_COLLECTION}.chunks"]


@dataclass(frozen=True)
class Clients:
    """What a worker asks, all over one client.

    Attributes:
        launchpad: The LaunchPad; its client is the one.
        store: The job store.
    """

    launchpad: LaunchPad
    store: JobStore

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Open them, and bind the documents to the same client.

        Raises:
            DatabaseError: The server does not answer, refuses, or holds another schema version.
        """
        connect(settings, wait_s=settings.database.wait_s, create=False)  # looks at the schema's version
        mongoengine.disconnect()
        launchpad = LaunchPad(
            host=uri_with_database(settings),
            name=settings.database.name,
            uri_mode=True,
            strm_lvl="WARNING",
            mongoclient_kwargs={**client_options(ANSWER_S), **FEW},
        )
        shared = launchpad.connection
        mongoengine.connect(
            settings.database.name, host=database_uri(settings), mongo_client_class=lambda *_args, **_options: shared
        )
        return cls(launchpad, job_store(launchpad.db))

    def close(self) -> None:
        """Close the client."""
        mongoengine.disconnect()
        self.launchpad.connection.close()


def job_store(database: Database[dict[str, Any]]) -> JobStore:
    """Return the project's job store on a client that is already there."""
    return JobStore(_store_of(database[OUTPUTS_COLLECTION]), {"data": _SharedBlobs(database)})


def _store_of(collection: Collection[dict[str, Any]]) -> MongoStore:
    found: MongoStore = MongoStore.from_collection(collection)  # type: ignore[no-untyped-call]
    return found


def patiently(ask: Callable[[], T]) -> T:
    """Return an answer of the database, however long it is away; what waits ends with its allocation.

    Args:
        ask: What is asked; safe to repeat.
    """
    while True:
        try:
            return ask()
        except AWAY:
            time.sleep(PAUSE_S)
