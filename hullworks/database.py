"""The connection to MongoDB: the project's private server, or any other by its address."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus

from hullworks.errors import DatabaseError, ServiceError
from hullworks.settings import Settings, read_secret_file

if TYPE_CHECKING:
    from collections.abc import Iterator

QUICK_WAIT_S = 5.0
"""How long a command that a person waits for tries to reach the server, s."""

CONNECTION_FILE = "connection.json"
"""Address and password of the private server, in ``<data_dir>/mongod``, readable by its owner alone."""


def database_uri(settings: Settings) -> str:
    """Return the address of the project's database, password included: never print it.

    Raises:
        ServiceError: The private server was never started.
        SettingsError: The file with the address is unreadable or open to others.
    """
    if settings.database.uri is not None:
        return settings.database.uri.get_secret_value()
    if settings.database.uri_file is not None:
        return read_secret_file(settings.project_dir / settings.database.uri_file.expanduser()).get_secret_value()
    path = settings.data_dir / "mongod" / CONNECTION_FILE
    if not path.is_file():
        raise ServiceError("the private database was never started", str(settings.project_dir), "Run: hullworks up")
    parts = json.loads(read_secret_file(path).get_secret_value())
    user, password = quote_plus(parts["user"]), quote_plus(parts["password"])
    return f"mongodb://{user}:{password}@{parts['host']}:{parts['port']}/?authSource={parts['auth_source']}"


def client_options(wait_s: float) -> dict[str, Any]:
    """Return pymongo's options: wait for the server, and call nothing written that is not in its journal."""
    return {
        "serverSelectionTimeoutMS": int(wait_s * 1000),
        "connectTimeoutMS": 10_000,
        "journal": True,
        "tz_aware": True,
        "uuidRepresentation": "standard",
        "appname": "hullworks",
    }


def connect(settings: Settings, *, wait_s: float = QUICK_WAIT_S, create: bool = True) -> None:
    """Bind the documents to the project's database, for this process.

    Args:
        settings: The project's settings.
        wait_s: How long each operation waits for a server that does not answer, s.
        create: Create missing indexes and the schema record (needs the right to write).

    Raises:
        DatabaseError: The server is unreachable, refuses, or holds another schema version.
        ServiceError: The private server was never started.
    """
    import mongoengine

    from hullworks import __version__, documents

    mongoengine.disconnect()
    mongoengine.connect(settings.database.name, host=database_uri(settings), **client_options(wait_s))
    with database_errors(settings):
        info = documents.SchemaInfo.objects(name="hullworks").first()
        if info is not None and info.version != documents.SCHEMA_VERSION:
            raise DatabaseError(
                f"its documents have schema version {info.version}, this HullWorks writes {documents.SCHEMA_VERSION}",
                f"database {settings.database.name}",
                "Nothing was released with version 1: choose another `[database] name` and submit again."
                if info.version == 1
                else "Use the HullWorks version that made it.",
            )
        if create:
            documents.ensure_indexes()
            documents.SchemaInfo.objects(name="hullworks").update_one(
                set_on_insert__version=documents.SCHEMA_VERSION, set_on_insert__made_by=__version__, upsert=True
            )


@contextmanager
def database_errors(settings: Settings) -> Iterator[None]:
    """Turn the driver's errors into `DatabaseError`, with the next step and without the password."""
    import pymongo.errors

    try:
        yield
    except pymongo.errors.OperationFailure as error:
        reason = (error.details or {}).get("codeName", f"code {error.code}")
        raise DatabaseError(f"the server refuses ({reason})", _where(settings), "Check user and rights.") from None
    except (pymongo.errors.ConnectionFailure, pymongo.errors.ServerSelectionTimeoutError):
        cure = "Run: hullworks up" if settings.embedded_database else "Check the address and that the server runs."
        raise DatabaseError("the server does not answer", _where(settings), cure) from None


def _where(settings: Settings) -> str:
    kind = "private MongoDB" if settings.embedded_database else "MongoDB"
    return f"{kind}, database {settings.database.name}"
