"""Starting one private mongod process: its configuration, its port, its user, and what its failures mean."""

from __future__ import annotations

import base64
import errno
import json
import random
import secrets
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING, Any, Final

from hullworks.errors import ServiceError
from hullworks.launchers.services.connection import HOST, Connection, client_as
from hullworks.launchers.services.processes import ProcessMark, find_process, write_private

if TYPE_CHECKING:
    from pathlib import Path

    from hullworks.launchers.services.parts import Program

CONFIG_FILE = "mongod.conf"
KEY_FILE = "start.key"
LOG_FILE = "mongod.log"
DATA_FOLDER = "db"

START_WAIT_S = 180.0
"""Recovery after a kill replays the journal, which takes seconds, and more on a slow network disk."""
LOGIN_WAIT_S = 30.0
PORTS: Final = range(21_000, 32_000)
"""Below the range from which the kernel serves outgoing connections, which would sit on the port between two starts."""
PORTS_DRAWN = 200
PORT_TRIES = 20
"""Somebody else may take a free port before the server does."""
PORT_TAKEN = 48
"""mongod's exit status when it cannot listen at its port."""
NEEDED_BYTES = 150 * 1024**2
"""A new data folder takes 31 MB, its journal grows to about 60 MB between two checkpoints; the rest is for data."""
LOG_LIMIT_BYTES = 8 * 1024**2
KEY_BYTES = 48
ROLES: Final = ("readWriteAnyDatabase", "dbAdminAnyDatabase", "clusterMonitor")
"""Everything but making users: a leaked password cannot be used to keep a way in."""

_MEANINGS: Final = (
    ("No space left on device", "the disk is full", "Free some space, then run `hullworks up` again."),
    ("DBPathInUse", "another MongoDB server uses this folder", "Stop it where it runs, then run `hullworks up` again."),
    (
        "Permission denied",
        "the server may not write into its folder",
        "Make its files yours (chown -R), or set another data_dir.",
    ),
    ("Read-only file system", "its file system is read-only", "Set data_dir to a folder that can be written."),
    ("Too many open files", "it may not open enough files", "Raise the limit: ulimit -n 4096"),
    ("Illegal instruction", "this processor lacks the AVX instructions", "Set [database] uri to a MongoDB elsewhere."),
    (
        "UnsupportedFormat",
        "its data was written by another MongoDB version",
        "Use that version through [database] uri.",
    ),
    ("WT_PANIC", "its data is damaged", "Restore a backup, or move the folder away to start empty."),
    ("checksum", "its data is damaged", "Restore a backup, or move the folder away to start empty."),
)
"""What a text in mongod's log means to the user, and the cure; the first that occurs counts."""


def config_text(folder: Path, port: int, cache_gb: float) -> str:
    """Return the server's configuration (JSON, which YAML includes, so that any path is quoted right)."""
    engine = {"cacheSizeGB": cache_gb, "configString": "log=(file_max=10MB)"}  # 31 MB for a new server instead of 301
    config: dict[str, Any] = {
        "net": {"bindIp": HOST, "port": port, "unixDomainSocket": {"enabled": False}},
        "security": {"authorization": "enabled", "keyFile": str(folder / KEY_FILE), "javascriptEnabled": False},
        "storage": {"dbPath": str(folder / DATA_FOLDER), "wiredTiger": {"engineConfig": engine}},
        "systemLog": {
            "destination": "file",
            "path": str(folder / LOG_FILE),
            "logAppend": True,
            "logRotate": "reopen",
            "quiet": True,
        },
        "operationProfiling": {"slowOpThresholdMs": 1000},
        "processManagement": {"fork": True},
        "setParameter": {"diagnosticDataCollectionEnabled": False, "enableLocalhostAuthBypass": False},
    }
    return json.dumps(config, indent=1, ensure_ascii=False)


def launch(program: Program, folder: Path, wanted: Connection, cache_gb: float) -> tuple[Connection, ProcessMark]:
    """Start a server on ``folder`` in which the user of ``wanted`` exists with that password.

    There is no moment at which the server lets anybody in: it starts with authentication on, without the exception for
    local logins, and its user is made by way of a key that this start alone knows. So a start that was killed halfway
    is put right by the next.

    Args:
        program: The server.
        folder: Its private folder.
        wanted: The connection; its port is kept when it is free.
        cache_gb: Memory for its cache, GB.

    Returns:
        The connection with its port, as saved in the folder, and the process.

    Raises:
        ServiceError: It does not start; the text says why.
    """
    check_space(folder)
    (folder / DATA_FOLDER).mkdir(mode=0o700, exist_ok=True)
    trim_log(folder)
    key = base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode("ascii")
    try:
        write_private(folder / KEY_FILE, key)
        connection, mark = _start_at_free_port(program, folder, wanted, cache_gb)
        _provide_user(connection, mark, key)
    finally:
        (folder / KEY_FILE).unlink(missing_ok=True)
    return connection, mark


def find_server(folder: Path) -> ProcessMark | None:
    """Return the living server of a folder, whoever started it and whatever files are lost."""
    return find_process(("--config", str(folder / CONFIG_FILE)))


def check_space(folder: Path) -> None:
    """Refuse to start a server on a disk so full that it would die at once.

    Raises:
        ServiceError: The disk is full.
    """
    free = shutil.disk_usage(folder).free
    if free < NEEDED_BYTES:
        needed = f"{NEEDED_BYTES // 1024**2} MiB"
        what = f"the disk is full: {free // 1024**2} MiB are free, the private database needs {needed}"
        raise ServiceError(what, str(folder), "Free some space, or set data_dir to another disk.")


def trim_log(folder: Path) -> bool:
    """Set the server's log aside when it has grown too long, in place of the one set aside before.

    Returns:
        Whether it did; a running server must then be told to open a new one (SIGUSR1).
    """
    log = folder / LOG_FILE
    if not log.is_file() or log.stat().st_size < LOG_LIMIT_BYTES:
        return False
    log.replace(log.with_suffix(".log.1"))
    return True


def free_port(preferred: int) -> int:
    """Return ``preferred`` when nobody listens there, else another free port of this machine.

    Raises:
        ServiceError: None of many is free.
    """
    drawn = random.SystemRandom().sample(PORTS, k=PORTS_DRAWN)
    for port in (preferred, *drawn) if preferred else drawn:
        if _is_free(port):
            return port
    raise ServiceError(f"none of {PORTS_DRAWN} ports is free", HOST, "See what listens there: ss -ltn")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As mongod does: without it, the last connections of a killed server would block its port for a minute.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True


def _start_at_free_port(
    program: Program, folder: Path, wanted: Connection, cache_gb: float
) -> tuple[Connection, ProcessMark]:
    for attempt in range(PORT_TRIES):
        connection = wanted.at(free_port(wanted.port if attempt == 0 else 0))
        connection.save(folder)
        write_private(folder / CONFIG_FILE, config_text(folder, connection.port, cache_gb))
        status, output = _run(program, folder)
        mark = find_server(folder) if status == 0 else None
        if mark is not None:
            return connection, mark
        if status != PORT_TAKEN:
            raise explain(status, output, folder)
    raise ServiceError(f"no free port after {PORT_TRIES} tries", connection.host)


def _run(program: Program, folder: Path) -> tuple[int, str]:
    """Start the server, which goes into the background itself, and wait until it answers or has failed."""
    command = [str(program.path), "--config", str(folder / CONFIG_FILE)]
    log_start = _log_size(folder)
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=program.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in the terminal is not for the server
            timeout=START_WAIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        if (mark := find_server(folder)) is not None:
            mark.end(grace_s=1.0)
        what = f"the private database did not come up within {START_WAIT_S:.0f} s"
        raise ServiceError(what, str(folder / LOG_FILE), "Its log says what it was doing.") from None
    return done.returncode, done.stdout.decode(errors="replace") + _log_since(folder, log_start)


def _provide_user(connection: Connection, mark: ProcessMark, key: str) -> None:
    """Make the project's user, or give it this password and these rights."""
    from pymongo.errors import PyMongoError

    user: dict[str, Any] = {
        "pwd": connection.password.get_secret_value(),
        "roles": list(ROLES),
        "mechanisms": ["SCRAM-SHA-256"],
    }
    try:
        with client_as(connection, "__system", key, "local", LOGIN_WAIT_S) as client:
            known = client[connection.auth_source].command("usersInfo", connection.user)["users"]
            client[connection.auth_source].command("updateUser" if known else "createUser", connection.user, **user)
    except PyMongoError as error:
        mark.end(grace_s=10.0)
        what = f"the private database started, but its user could not be made ({type(error).__name__})"
        raise ServiceError(what, f"{connection.host}:{connection.port}", "Run `hullworks up` again.") from None


def explain(status: int, output: str, folder: Path) -> ServiceError:
    """Return the error that says why mongod ended.

    Args:
        status: Its exit status.
        output: What it printed and logged in this start.
        folder: Its folder.
    """
    prefix = "the private database does not start"
    complaints = _complaints(output)
    for text, meaning, cure in _MEANINGS:
        if any(text in complaint for complaint in complaints):
            return ServiceError(f"{prefix}: {meaning}", str(folder), cure)
    last = f"exit status {status}, {complaints[-1][:200]}" if complaints else f"exit status {status}"
    return ServiceError(f"{prefix} ({last})", str(folder / LOG_FILE), "Its log tells more.")


def _complaints(output: str) -> list[str]:
    """Return what is not mere information: plain lines, and errors among the log's JSON lines."""
    return [line.strip() for line in output.splitlines() if line.strip() and _severity(line) not in {"I", "W"}]


def _severity(line: str) -> str:
    try:
        record = json.loads(line)
    except ValueError:
        return ""
    return str(record.get("s", "")) if isinstance(record, dict) else ""


def _log_size(folder: Path) -> int:
    log = folder / LOG_FILE
    return log.stat().st_size if log.is_file() else 0


def _log_since(folder: Path, start: int) -> str:
    log = folder / LOG_FILE
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(start)
        return file.read(LOG_LIMIT_BYTES).decode(errors="replace")
