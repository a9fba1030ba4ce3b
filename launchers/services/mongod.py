"""The project's private MongoDB server: started, found again, stopped; safe to ask for at any time by anybody."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from hullworks.database import CONNECTION_FILE
from hullworks.errors import ServiceError
from hullworks.launchers.services.connection import Connection, server_folder
from hullworks.launchers.services.mongod_launch import CONFIG_FILE, LOG_FILE, find_server, launch, trim_log
from hullworks.launchers.services.parts import find_mongod
from hullworks.launchers.services.processes import ProcessMark, file_lock, write_private

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hullworks.settings import Settings

LOCK_FILE = "lock"
PROCESS_FILE = "process.json"
PING_WAIT_S = 5.0
"""A living server on a busy machine answers well within it; a dead one refuses at once."""
LOCK_WAIT_S = 200.0
"""Longer than one start may take."""
SHUTDOWN_WAIT_S = 60.0
"""A clean shutdown writes the cache back; after a kill the journal does the same at the next start."""


class ServerState(StrEnum):
    """How the project's private server is.

    RUNNING: it runs and lets the project's user in.
    STOPPED: it was never started, or was stopped.
    DEAD: it was started and not stopped, and yet does not run: killed, or the machine was restarted.
    REFUSING: it runs, but does not answer or does not let the project's user in.
    ELSEWHERE: another machine started it, and did not stop it.
    """

    RUNNING = "running"
    STOPPED = "stopped"
    DEAD = "dead"
    REFUSING = "refusing"
    ELSEWHERE = "elsewhere"


@dataclass(frozen=True, kw_only=True)
class ServerStatus:
    """How the private server is, for display.

    Attributes:
        state: Its state.
        folder: Its folder: data, log, configuration.
        embedded: Whether the settings use it (they do not when they name a database elsewhere).
        host: Where it listens, empty while it does not.
        port: Its port, 0 while it has none.
        pid: Its process, 0 while there is none.
        version: MongoDB's version, empty while it does not answer.
        detail: What a state means here and what cures it; empty when all is well.
    """

    state: ServerState
    folder: Path
    embedded: bool
    host: str = ""
    port: int = 0
    pid: int = 0
    version: str = ""
    detail: str = ""


def start(settings: Settings) -> Connection:
    """Start the private server, or return the connection of the one that runs.

    A server that was killed is started again at its old port when that is free. One that does not let the project's
    user in (its connection file was deleted, or a start was interrupted) is restarted with a password made anew.

    Raises:
        MissingPartError: There is no server program on this machine.
        ServiceError: The settings name a database elsewhere, or the server does not start; the text says why.
    """
    if not settings.embedded_database:
        what = "the settings name a database elsewhere, so there is none to start"
        raise ServiceError(what, "[database] uri", "Take the address out of the settings to use a private server.")
    folder = server_folder(settings)
    with _explained(folder):
        _prepare(folder)
        with _lock(folder, "starting or stopping the private database"):
            return _start_locked(settings, folder)


def ensure(settings: Settings) -> Connection | None:
    """Make sure that the project has a living database, at the price of a ping when it has.

    Returns:
        The private server's connection, none when the settings name a database elsewhere.

    Raises:
        MissingPartError: There is no server program on this machine.
        ServiceError: The private server does not start.
    """
    if not settings.embedded_database:
        return None
    folder = server_folder(settings)
    connection = _load(folder)
    if connection is not None and connection.database == settings.database.name and _version(connection, folder):
        return connection
    return start(settings)


def stop(settings: Settings) -> bool:
    """Stop the private server; its data stays.

    Returns:
        Whether there was one to stop.

    Raises:
        ServiceError: It runs on another machine, belongs to somebody else, or does not end.
    """
    folder = server_folder(settings)
    if not folder.is_dir():
        return _end(folder)
    with _explained(folder):
        _refuse_foreign(folder)
        with _lock(folder, "starting or stopping the private database"):
            _refuse_elsewhere(folder)
            stopped = _end(folder)
            (folder / PROCESS_FILE).unlink(missing_ok=True)
            return stopped


def status(settings: Settings) -> ServerStatus:
    """Say how the private server is; starts and changes nothing.

    Raises:
        ServiceError: Its folder cannot be read.
    """
    folder = server_folder(settings)
    with _explained(folder):
        connection = _load(folder)
        mark = find_server(folder)
        version = _version(connection, folder) if connection is not None and mark is not None else ""
        state, detail = _judge(folder, connection, mark, version)
    return ServerStatus(
        state=state,
        folder=folder,
        embedded=settings.embedded_database,
        host=connection.host if connection is not None and mark is not None else "",
        port=connection.port if connection is not None else 0,
        pid=mark.pid if mark is not None else 0,
        version=version,
        detail=detail,
    )


def destroy(settings: Settings) -> None:
    """Stop the private server and delete all its data: for tests and for starting over.

    Raises:
        ServiceError: The server does not end, or its folder cannot be deleted.
    """
    stop(settings)
    folder = server_folder(settings)
    with _explained(folder):
        if folder.is_dir():
            shutil.rmtree(folder)


def _judge(
    folder: Path, connection: Connection | None, mark: ProcessMark | None, version: str
) -> tuple[ServerState, str]:
    recorded = _recorded(folder)
    if version:
        return ServerState.RUNNING, ""
    if mark is not None:
        reason = "its connection file is gone" if connection is None else f"see {folder / LOG_FILE}"
        return ServerState.REFUSING, f"It runs but does not let us in ({reason}). `hullworks up` restarts it."
    if recorded is None:
        return ServerState.STOPPED, "`hullworks up` starts it."
    if recorded.is_elsewhere:
        return ServerState.ELSEWHERE, f"It was started on {recorded.host}."
    return ServerState.DEAD, "It was killed. `hullworks up` starts it again; nothing that was acknowledged is lost."


def _start_locked(settings: Settings, folder: Path) -> Connection:
    _refuse_elsewhere(folder)
    mark, known = find_server(folder), _load(folder)
    wanted = Connection.new(settings.database.name) if known is None else known.of_database(settings.database.name)
    if mark is not None and known is not None and _version(known, folder):
        return _adopt(folder, mark, known, wanted)
    program = find_mongod(settings)
    _end(folder)
    connection, mark = launch(program, folder, wanted, settings.database.cache_gb)
    write_private(folder / PROCESS_FILE, mark.to_json())
    return connection


def _adopt(folder: Path, mark: ProcessMark, known: Connection, wanted: Connection) -> Connection:
    """Take over a server that runs well, whoever started it, and bring its files up to date."""
    if wanted != known:
        wanted.save(folder)
    if _recorded(folder) != mark:
        write_private(folder / PROCESS_FILE, mark.to_json())
    if trim_log(folder):
        os.kill(mark.pid, signal.SIGUSR1)
    return wanted


def _refuse_elsewhere(folder: Path) -> None:
    recorded = _recorded(folder)
    if recorded is not None and recorded.is_elsewhere:
        what = f"the private database was started on another machine, {recorded.host}, and not stopped there"
        cure = f"Run `hullworks down` there; if that machine is gone, delete {folder / PROCESS_FILE}"
        raise ServiceError(what, str(folder), cure)


def _end(folder: Path) -> bool:
    """End every server process of the folder: a start that was cut short may have left the launching ones, too."""
    ended = False
    while (mark := find_server(folder)) is not None:
        if not mark.end(SHUTDOWN_WAIT_S):
            raise ServiceError("the private database does not end", f"process {mark.pid}", "Its disk may hang.")
        ended = True
    recorded = _recorded(folder)
    if recorded is not None and recorded.is_ending:
        recorded.wait(SHUTDOWN_WAIT_S)
    return ended


def _recorded(folder: Path) -> ProcessMark | None:
    try:
        return ProcessMark.from_json((folder / PROCESS_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def _load(folder: Path) -> Connection | None:
    with _explained(folder):
        return Connection.load(folder)


def _version(connection: Connection, folder: Path) -> str:
    """Return the version of the server when it lets this user in and is the one of this folder, else nothing."""
    from pymongo.errors import PyMongoError

    # A refused port would cost the whole waiting time in the driver, which keeps trying.
    if connection.port == 0 or not _listens(connection):
        return ""
    try:
        with connection.client(PING_WAIT_S) as client:
            # The copy of a project has the password of the original's server, too.
            config = client.admin.command("getCmdLineOpts")["parsed"].get("config")
            return str(client.server_info()["version"]) if config == str(folder / CONFIG_FILE) else ""
    except PyMongoError:
        return ""


def _listens(connection: Connection) -> bool:
    import socket

    try:
        with socket.create_connection((connection.host, connection.port), timeout=PING_WAIT_S):
            return True
    except OSError:
        return False


def _prepare(folder: Path) -> None:
    """Make the server's folder, and see that it is ours alone."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    _refuse_foreign(folder)
    folder.chmod(0o700)
    path = folder / CONNECTION_FILE
    if path.is_file() and stat.S_IMODE(path.stat().st_mode) != stat.S_IRUSR | stat.S_IWUSR:
        path.chmod(0o600)


def _refuse_foreign(folder: Path) -> None:
    owner = folder.stat().st_uid
    if owner != os.geteuid():
        what = f"the private database belongs to another user (number {owner}; you are {os.geteuid()})"
        raise ServiceError(what, str(folder), "Run as that user, or set data_dir to a folder of your own.")


@contextlib.contextmanager
def _lock(folder: Path, purpose: str) -> Iterator[None]:
    with file_lock(folder / LOCK_FILE, LOCK_WAIT_S, purpose):
        yield


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turn what the operating system says about the server's folder into an error with a cure."""
    try:
        yield
    except OSError as error:
        place = str(error.filename or folder)
        raise ServiceError(f"the private database's folder cannot be used ({error.strerror})", place, _CURE) from error


_CURE = "It needs a disk with free space and a folder that you can write to: see data_dir in the settings."
