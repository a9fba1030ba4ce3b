"""The project's private MongoDB server, with the real one."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from pydantic import SecretStr
from pymongo import MongoClient, WriteConcern
from pymongo.errors import OperationFailure

from hullworks.database import database_uri
from hullworks.errors import MissingPartError, ServiceError
from hullworks.launchers.services import mongod
from hullworks.launchers.services.connection import Connection, server_folder
from hullworks.launchers.services.mongod import PROCESS_FILE, ServerState
from hullworks.launchers.services.mongod_launch import (
    CONFIG_FILE,
    KEY_FILE,
    LOG_FILE,
    LOG_LIMIT_BYTES,
    config_text,
    explain,
    find_server,
)
from hullworks.launchers.services.parts import find_mongod
from hullworks.launchers.services.processes import ProcessMark
from hullworks.settings import DatabaseSettings, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.mongod

START_SCRIPT = """
import sys
from pathlib import Path
from hullworks.launchers.services import mongod
from hullworks.settings import Settings
folder = Path(sys.argv[1])
settings = Settings(project_dir=folder, data_dir=folder / "data", parts_dir=folder / "parts")
print(mongod.start(settings).port)
"""


@pytest.fixture(autouse=True)
def _needs_mongod(tmp_path: Path, give_up: Callable[[str], NoReturn]) -> None:
    try:
        find_mongod(settings_at(tmp_path))
    except MissingPartError as error:
        give_up(str(error))


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """Settings of an empty project; its server is ended after the test."""
    result = settings_at(tmp_path)
    yield result
    end(result)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, Connection]]:
    """One server for the tests that only look at it."""
    result = settings_at(tmp_path_factory.mktemp("running"))
    yield result, mongod.start(result)
    end(result)


def settings_at(folder: Path, **changes: Any) -> Settings:
    """Return settings of a project that lies in a folder altogether."""
    return Settings(project_dir=folder, data_dir=folder / "data", parts_dir=folder / "parts", **changes)


def end(settings: Settings) -> None:
    """Kill the project's server, if any."""
    mark = find_server(server_folder(settings))
    if mark is not None:
        mark.end(0.0)


def kill(settings: Settings) -> None:
    """Kill the project's server as an accident would."""
    mark = find_server(server_folder(settings))
    assert mark is not None
    os.kill(mark.pid, signal.SIGKILL)
    while mark.is_alive:
        time.sleep(0.01)


def insert(connection: Connection, value: int) -> None:
    """Store a number, in the journal, too."""
    with connection.client(10.0) as client:
        database = client.get_database(connection.database, write_concern=WriteConcern(w=1, j=True))
        database.facts.insert_one({"value": value})


def values(connection: Connection) -> list[int]:
    """Return the numbers that `insert` stored."""
    with connection.client(10.0) as client:
        return [document["value"] for document in client.get_database(connection.database).facts.find()]


def listening(pid: int) -> set[str]:
    """Return the addresses at which a process listens, as the kernel tells (hexadecimal)."""
    sockets = {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    found = set()
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and f"socket:[{inode}]" in sockets:
                found.add(local.split(":")[0])
    return found


def test_start_is_idempotent(running: tuple[Settings, Connection]) -> None:
    """Starting a running server changes nothing and returns its connection."""
    settings, connection = running
    before = mongod.status(settings)
    assert mongod.start(settings) == connection
    assert mongod.ensure(settings) == connection
    assert mongod.status(settings) == before
    assert (before.state, before.version, before.embedded) == (ServerState.RUNNING, "6.0.5", True)


def test_private_files(running: tuple[Settings, Connection]) -> None:
    """The folder is its owner's alone (700), so are its files (600), and the key of the start is gone."""
    folder = server_folder(running[0])
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir() if path.is_file()} == {0o600}
    assert not (folder / KEY_FILE).exists()


def test_listens_at_home_only(running: tuple[Settings, Connection]) -> None:
    """The server listens at 127.0.0.1 and nowhere else, by the kernel's own tables, and has no socket file."""
    mark = find_server(server_folder(running[0]))
    assert mark is not None
    assert listening(mark.pid) == {"0100007F"}
    assert not Path(f"/tmp/mongodb-{running[1].port}.sock").exists()  # noqa: S108 - mongod's own default place


def test_nobody_without_password(running: tuple[Settings, Connection]) -> None:
    """Without the password nothing is read, and no user is made by way of a local login."""
    with MongoClient[dict[str, Any]](running[1].host, running[1].port) as client:
        with pytest.raises(OperationFailure, match="requires authentication"):
            client.list_database_names()
        with pytest.raises(OperationFailure, match="requires authentication"):
            client.admin.command("createUser", "thief", pwd="x", roles=["root"])


def test_wrong_password(running: tuple[Settings, Connection]) -> None:
    """A wrong password is refused."""
    guess = dataclasses.replace(running[1], password=SecretStr("guess"))
    with guess.client(5.0) as client, pytest.raises(OperationFailure, match="Authentication failed"):
        client.list_database_names()


def test_user_makes_no_users(running: tuple[Settings, Connection]) -> None:
    """The project's user may not make further users, so that a leaked password can be withdrawn."""
    with running[1].client(5.0) as client, pytest.raises(OperationFailure, match="not authorized"):
        client.admin.command("createUser", "friend", pwd="x", roles=["root"])


def test_no_javascript(running: tuple[Settings, Connection]) -> None:
    """A query cannot run code on the server."""
    insert(running[1], 1)
    with running[1].client(5.0) as client, pytest.raises(OperationFailure, match="no globalScriptEngine"):
        list(client.get_database(running[1].database).facts.find({"$where": "sleep(1) || true"}))


def test_password_stays_secret(running: tuple[Settings, Connection]) -> None:
    """The password stands in the connection file alone: not in arguments, environment, log, settings or texts."""
    settings, connection = running
    secret = connection.password.get_secret_value()
    mark = find_server(server_folder(settings))
    assert mark is not None
    texts = [Path(f"/proc/{mark.pid}/{name}").read_text() for name in ("cmdline", "environ")]
    texts += [(server_folder(settings) / name).read_text() for name in (CONFIG_FILE, LOG_FILE, PROCESS_FILE)]
    texts += [repr(connection), str(mongod.status(settings))]
    assert not any(secret in text for text in texts)
    assert len(secret) >= 40


def test_spine_reads_connection(running: tuple[Settings, Connection]) -> None:
    """The address that the rest of HullWorks derives from the connection file works."""
    with MongoClient[dict[str, Any]](database_uri(running[0])) as client:
        assert client.get_database("other").facts.count_documents({}) == 0


def test_other_database_same_server(running: tuple[Settings, Connection]) -> None:
    """A change of the database's name needs no restart."""
    settings, connection = running
    other = settings.model_copy(update={"database": DatabaseSettings(name="other")})
    assert mongod.ensure(other) == connection.of_database("other")
    assert mongod.ensure(settings) == connection


def test_restart_keeps_everything(settings: Settings) -> None:
    """After a stop and a start the port, the password and the data are the same; stopping twice is no error."""
    first = mongod.start(settings)
    insert(first, 7)
    assert mongod.stop(settings)
    assert not mongod.stop(settings)
    assert mongod.status(settings).state is ServerState.STOPPED
    second = mongod.start(settings)
    assert second == first
    assert values(second) == [7]


def test_killed_server(settings: Settings) -> None:
    """After kill -9, `ensure` brings the server back at its port with everything that was acknowledged."""
    first = mongod.start(settings)
    insert(first, 8)
    kill(settings)
    assert mongod.status(settings).state is ServerState.DEAD
    assert mongod.ensure(settings) == first
    assert values(first) == [8]
    assert mongod.status(settings).state is ServerState.RUNNING


def test_recycled_pid(settings: Settings) -> None:
    """A process that got the number of a dead server is left alone."""
    mongod.start(settings)
    record = server_folder(settings) / PROCESS_FILE
    kill(settings)
    with subprocess.Popen(["sleep", "60"]) as innocent:
        mark = ProcessMark.of(innocent.pid)
        assert mark is not None
        record.write_text(mark.to_json())
        assert not mongod.stop(settings)
        record.write_text(mark.to_json())
        mongod.start(settings)
        assert innocent.poll() is None
        innocent.kill()


@pytest.mark.parametrize("text", ["", "12345", "{}", "null", '{"pid": "x"}'])
def test_damaged_record(settings: Settings, text: str) -> None:
    """A cut or foreign process record is passed over; the server is found all the same."""
    folder = server_folder(settings)
    folder.mkdir(parents=True, mode=0o700)
    (folder / PROCESS_FILE).write_text(text)
    assert mongod.status(settings).state is ServerState.STOPPED


def test_port_taken(settings: Settings) -> None:
    """When somebody else listens at the server's port, it moves to another and says so in its file."""
    first = mongod.start(settings)
    mongod.stop(settings)
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind((first.host, first.port))
        squatter.listen()
        second = mongod.start(settings)
    assert second.port != first.port
    assert second.at(first.port) == first
    assert Connection.load(server_folder(settings)) == second
    assert values(second) == []


def test_starts_at_once(settings: Settings) -> None:
    """Three processes that start at once get one server."""
    command = [sys.executable, "-c", START_SCRIPT, str(settings.project_dir)]
    starters = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    ports = {starter.communicate()[0].strip() for starter in starters}
    assert [starter.returncode for starter in starters] == [0] * 3
    assert ports == {str(mongod.status(settings).port)}


def test_survives_starter(settings: Settings) -> None:
    """The server outlives the process that started it, and is of a session of its own."""
    command = [sys.executable, "-c", START_SCRIPT, str(settings.project_dir)]
    subprocess.run(command, check=True, capture_output=True, start_new_session=True)
    status = mongod.status(settings)
    assert status.state is ServerState.RUNNING
    assert os.getsid(status.pid) != os.getsid(0)


def key_is_written(settings: Settings) -> bool:
    """Whether the start has come so far that there is a key."""
    return (server_folder(settings) / KEY_FILE).exists()


def process_runs(settings: Settings) -> bool:
    """Whether the start has come so far that there is a server process."""
    return find_server(server_folder(settings)) is not None


def server_listens(settings: Settings) -> bool:
    """Whether the start has come so far that the server answers, though perhaps not yet to its user."""
    connection = Connection.load(server_folder(settings))
    return connection is not None and mongod._listens(connection)


@pytest.mark.parametrize("moment", [key_is_written, process_runs, server_listens])
def test_killed_starter(settings: Settings, moment: Callable[[Settings], bool]) -> None:
    """A start that was killed at any moment is put right by the next one."""
    command = [sys.executable, "-c", START_SCRIPT, str(settings.project_dir)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as starter:
        while not moment(settings):
            assert starter.poll() is None
        starter.kill()
    connection = mongod.start(settings)
    assert values(connection) == []
    assert not (server_folder(settings) / KEY_FILE).exists()
    assert {path.name for path in server_folder(settings).iterdir()} == {
        CONFIG_FILE,
        "connection.json",
        "db",
        "lock",
        LOG_FILE,
        PROCESS_FILE,
    }


def test_lost_connection_file(settings: Settings) -> None:
    """When its connection file was deleted, the server says so, and the next start makes a new password."""
    first = mongod.start(settings)
    insert(first, 9)
    (server_folder(settings) / "connection.json").unlink()
    status = mongod.status(settings)
    assert status.state is ServerState.REFUSING
    assert "connection file is gone" in status.detail
    assert "hullworks up" in status.detail
    second = mongod.start(settings)
    assert second.password != first.password
    assert values(second) == [9]


def test_unknown_password(settings: Settings) -> None:
    """A server whose user has another password than the file is restarted with the file's."""
    first = mongod.start(settings)
    insert(first, 10)
    other = dataclasses.replace(first, password=SecretStr("x" * 43))
    other.save(server_folder(settings))
    assert mongod.status(settings).state is ServerState.REFUSING
    assert mongod.ensure(settings) == other
    assert values(other) == [10]


def test_damaged_connection_file(settings: Settings) -> None:
    """A damaged connection file is an error with the cure, and without the file's text."""
    folder = server_folder(settings)
    folder.mkdir(parents=True, mode=0o700)
    (folder / "connection.json").write_text('{"password": "tell-nobody"')
    with pytest.raises(ServiceError, match="Delete it, then run `hullworks up`") as caught:
        mongod.start(settings)
    assert "tell-nobody" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_deleted_folder(settings: Settings) -> None:
    """A server whose folder was deleted under it can still be stopped."""
    mongod.start(settings)
    shutil.rmtree(settings.data_dir)
    assert mongod.stop(settings)
    assert find_server(server_folder(settings)) is None


def test_destroy(settings: Settings) -> None:
    """`destroy` stops the server and leaves nothing of it."""
    mongod.start(settings)
    mongod.destroy(settings)
    assert not server_folder(settings).exists()
    assert find_server(server_folder(settings)) is None


def test_copied_project(settings: Settings, tmp_path: Path) -> None:
    """The copy of a project gets a server of its own, although it has the original's password and port."""
    original = mongod.start(settings)
    insert(original, 11)
    mongod.stop(settings)
    copy = settings_at(tmp_path / "copy")
    shutil.copytree(settings.data_dir, copy.data_dir)
    mongod.start(settings)
    try:
        second = mongod.ensure(copy)
        assert second is not None
        assert second.port != original.port
        insert(second, 12)
        assert values(second) == [11, 12]
        assert values(original) == [11]
        mongod.stop(copy)
        assert mongod.status(settings).state is ServerState.RUNNING
    finally:
        end(copy)


def test_data_in_use(settings: Settings, tmp_path: Path) -> None:
    """Two servers never share data: the second says who is in the way."""
    mongod.start(settings)
    other = settings_at(tmp_path / "other")
    server_folder(other).mkdir(parents=True, mode=0o700)
    (server_folder(other) / "db").symlink_to(server_folder(settings) / "db")
    with pytest.raises(ServiceError, match="another MongoDB server uses this folder"):
        mongod.start(other)


def test_started_elsewhere(settings: Settings) -> None:
    """A server that another machine started is not touched from here; the error names the machine and the cure."""
    folder = server_folder(settings)
    folder.mkdir(parents=True, mode=0o700)
    (folder / PROCESS_FILE).write_text(ProcessMark(1, 1, "another-boot", "login7").to_json())
    assert mongod.status(settings).state is ServerState.ELSEWHERE
    for act in (mongod.start, mongod.stop):
        with pytest.raises(ServiceError, match=r"login7.*hullworks down.*delete"):
            act(settings)


def test_address_replaces_it(tmp_path: Path) -> None:
    """With an address in the settings there is nothing to ensure, and starting is refused."""
    database = DatabaseSettings(uri=SecretStr("mongodb://user:secret@db.example/"))
    settings = settings_at(tmp_path, database=database)
    assert mongod.ensure(settings) is None
    assert not mongod.status(settings).embedded
    with pytest.raises(ServiceError, match="elsewhere"):
        mongod.start(settings)
    assert not settings.data_dir.exists()


def test_address_and_leftover(settings: Settings) -> None:
    """A private server that still runs after the settings got an address can be stopped."""
    mongod.start(settings)
    elsewhere = settings.model_copy(update={"database": DatabaseSettings(uri=SecretStr("mongodb://db.example/"))})
    assert mongod.status(elsewhere).state is ServerState.RUNNING
    assert mongod.stop(elsewhere)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_foreign_folder(settings: Settings) -> None:
    """The folder of another user is refused, by both owners' numbers."""
    folder = server_folder(settings)
    folder.mkdir(parents=True)
    os.chown(folder, 65534, -1)
    for act in (mongod.start, mongod.stop):
        with pytest.raises(ServiceError, match=r"another user \(number 65534; you are 0\)"):
            act(settings)


def test_unusable_folder(tmp_path: Path) -> None:
    """A data folder that cannot be made is named, with the setting to change."""
    (tmp_path / "data").write_text("a file")
    with pytest.raises(ServiceError, match=r"cannot be used.*data_dir"):
        mongod.start(settings_at(tmp_path))


def test_unwritable_folder(tmp_path: Path) -> None:
    """A data folder without write permission is named, with the setting to change."""
    (tmp_path / "data").mkdir(mode=0o500)
    command = [sys.executable, "-c", START_SCRIPT, str(tmp_path)]
    if os.geteuid() == 0:  # may write anywhere, unless it has put its powers down
        command = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert re.search(r"ServiceError: .*/data/mongod: .*Permission denied.*data_dir", done.stderr)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 200 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small disk needs the right to mount one")
    yield folder
    end(settings_at(folder))
    subprocess.run(["umount", "-l", folder], check=True)


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(2**20)):
            pass


def test_full_disk(small_disk: Path) -> None:
    """A full disk is named as such; after space was made, the server starts with its data."""
    settings = settings_at(small_disk)
    connection = mongod.start(settings)
    insert(connection, 13)
    kill(settings)
    filler = small_disk / "filler"
    fill(filler)
    with pytest.raises(ServiceError, match=r"the disk is full: 0 MiB are free.*Free some space"):
        mongod.start(settings)
    filler.unlink()
    assert values(mongod.start(settings)) == [13]


def test_long_log(settings: Settings) -> None:
    """A log that has grown too long is set aside once, also under a running server, which goes on in a new one."""
    folder = server_folder(settings)
    mongod.start(settings)
    with (folder / LOG_FILE).open("ab") as file:
        file.truncate(LOG_LIMIT_BYTES + 1)
    mongod.start(settings)
    deadline = time.monotonic() + 5.0
    while not (folder / LOG_FILE).exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert (folder / LOG_FILE).stat().st_size < LOG_LIMIT_BYTES
    assert (folder / f"{LOG_FILE}.1").stat().st_size > LOG_LIMIT_BYTES


def test_config_is_text() -> None:
    """The configuration quotes any folder, and lets in nobody without a password."""
    text = config_text(Path('/data/a "b" ü'), 27000, 0.5)
    for expected in (
        r'"/data/a \"b\" ü/db"',
        '"authorization": "enabled"',
        '"bindIp": "127.0.0.1"',
        '"cacheSizeGB": 0.5',
    ):
        assert expected in text


@pytest.mark.parametrize(
    ("output", "meaning"),
    [
        ('{"s":"E","msg":"WiredTiger error","attr":{"error":28,"message":"No space left on device"}}', "disk is full"),
        ("Illegal instruction", "AVX"),
        ('{"s":"E","msg":"WT_PANIC: WiredTiger library panic"}', "damaged"),
        ('{"s":"I","msg":"checksum=on"}\n{"s":"F","msg":"Fatal assertion"}', "Fatal assertion"),
        ("", "exit status 14"),
    ],
)
def test_failures_are_explained(output: str, meaning: str, tmp_path: Path) -> None:
    """The words of mongod become the cause and a cure."""
    error = explain(14, output, tmp_path)
    assert meaning in str(error)
    assert error.next_step
