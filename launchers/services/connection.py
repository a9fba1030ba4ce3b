"""Address and password of the project's private MongoDB server, and the one file that keeps them."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from hullworks.database import CONNECTION_FILE
from hullworks.errors import ServiceError
from hullworks.launchers.services.processes import write_private

if TYPE_CHECKING:
    from pathlib import Path

    from pymongo import MongoClient

    from hullworks.settings import Settings

HOST = "127.0.0.1"
USER = "hullworks"
PASSWORD_BYTES = 32
AUTH_SOURCE = "admin"


@dataclass(frozen=True, kw_only=True)
class Connection:
    """How to reach the private server; its password shows in no text made of it.

    Attributes:
        host: Address that the server listens at.
        port: Its port; 0 while it has none yet.
        user: Name of the user.
        password: The user's password.
        auth_source: Database that knows the user.
        database: Database of the project's documents.
    """

    host: str
    port: int
    user: str
    password: SecretStr
    auth_source: str
    database: str

    @classmethod
    def new(cls, database: str) -> Connection:
        """Return a connection with a fresh password, and without a port yet."""
        password = SecretStr(secrets.token_urlsafe(PASSWORD_BYTES))
        return cls(host=HOST, port=0, user=USER, password=password, auth_source=AUTH_SOURCE, database=database)

    @classmethod
    def load(cls, folder: Path) -> Connection | None:
        """Read the connection from the server's folder; none when there is none.

        Raises:
            ServiceError: The file is not what `save` wrote.
        """
        path = folder / CONNECTION_FILE
        try:
            parts = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{**parts, "password": SecretStr(parts["password"]), "port": int(parts["port"])})
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError):
            # Without the cause: its text would quote the file, and with it the password.
            cure = "Delete it, then run `hullworks up`: a new password is made, and the data stays."
            raise ServiceError("the private server's connection file is damaged", str(path), cure) from None

    def save(self, folder: Path) -> None:
        """Write the connection into the server's folder, readable by its owner alone."""
        parts = {
            "host": self.host,
            "port": self.port,
            "user": self.user,
            "password": self.password.get_secret_value(),
            "auth_source": self.auth_source,
            "database": self.database,
        }
        write_private(folder / CONNECTION_FILE, json.dumps(parts, indent=1))

    def of_database(self, database: str) -> Connection:
        """Return the same connection for another database of the server."""
        return replace(self, database=database)

    def at(self, port: int) -> Connection:
        """Return the same connection at another port."""
        return replace(self, port=port)

    def client(self, wait_s: float) -> MongoClient[dict[str, Any]]:
        """Return a client that is logged in as the project's user.

        Args:
            wait_s: How long each operation waits for the server, s.
        """
        return client_as(self, self.user, self.password.get_secret_value(), self.auth_source, wait_s)


def client_as(
    address: Connection, user: str, password: str, auth_source: str, wait_s: float
) -> MongoClient[dict[str, Any]]:
    """Return a client of the server at ``address`` as any user; it connects when it is first used."""
    from pymongo import MongoClient

    milliseconds = int(wait_s * 1000)
    return MongoClient(
        address.host,
        address.port,
        username=user,
        password=password,
        authSource=auth_source,
        # The only mechanism in which the server proves that it knows the password, too: whoever else listens
        # at the port learns nothing from a login.
        authMechanism="SCRAM-SHA-256",
        directConnection=True,
        serverSelectionTimeoutMS=milliseconds,
        connectTimeoutMS=milliseconds,
        socketTimeoutMS=milliseconds,
        appname="hullworks",
    )


def server_folder(settings: Settings) -> Path:
    """Return the folder of the project's private server."""
    return settings.data_dir / "mongod"
