"""What the tests share: a real private MongoDB, a real pw.x, an empty project; and the guard against double names."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fireworks import LaunchPad

    from hullworks.settings import Settings

IN_CI = os.environ.get("CI", "").lower() in {"1", "true", "yes"}
BARE_NAMES = ("workflows", "launchers", "analysis")
PARTS = ("mongod", "qe", "slurm", "browser")


def absent(part: str, how_to_get: str) -> NoReturn:
    """Skip for want of a real part; in CI fail, so that nothing is skipped silently where it must run."""
    do_without(f"{part} is missing: {how_to_get}")


def do_without(message: str) -> NoReturn:
    """Skip with a message; in CI fail with it."""
    if IN_CI:
        pytest.fail(message)
    pytest.skip(message)


def pytest_configure() -> None:
    """Let Ctrl-C reach the programs that tests start: a shell's background jobs, and so theirs, are born deaf to it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test the marker of every real part whose fixture it uses."""
    for item in items:
        for part in PARTS:
            if part in getattr(item, "fixturenames", ()):
                item.add_marker(getattr(pytest.mark, part))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the session when a room was imported under its bare name: its classes would exist twice."""
    bare = [name for name in BARE_NAMES if name in sys.modules]
    if bare:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        sys.stderr.write(f"\nimported by a bare name: {', '.join(bare)}; write hullworks.{bare[0]}\n")


@pytest.fixture(scope="session")
def parts_dir() -> Path:
    """Folder of the embedded parts: the user's own, shared with the demonstration."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "hullworks"


@pytest.fixture(autouse=True)
def _no_project_around() -> Iterator[None]:
    """Keep the settings of whoever runs the tests out of them, and those of one test out of the next."""
    before = {name: value for name, value in os.environ.items() if not name.startswith("HULLWORKS_")}
    os.environ.clear()
    os.environ.update(before)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def give_up() -> Callable[[str], NoReturn]:
    """Skipping a test for want of a real part; in CI it fails, so that nothing is skipped where it must run."""
    return do_without


@pytest.fixture(scope="session")
def dask() -> None:
    """Dask with what starts it on SLURM; a test that asks for it runs where the extra is installed."""
    from hullworks.analysis.clusters import dask_part
    from hullworks.errors import MissingPartError

    try:
        dask_part("dask_jobqueue")
    except MissingPartError as error:
        do_without(str(error))


@pytest.fixture
def project(tmp_path: Path, parts_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """An empty project folder, which the working folder is."""
    from hullworks.settings import get_settings, load_settings

    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "hullworks.toml").write_text(f'parts_dir = "{parts_dir}"\n', encoding="utf-8")
    monkeypatch.chdir(folder)
    get_settings.cache_clear()
    return load_settings(folder)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, parts_dir: Path) -> Iterator[Settings]:
    """One real private MongoDB server for the session, as the settings of a project that owns it."""
    from hullworks.errors import MissingPartError
    from hullworks.launchers.services import mongod
    from hullworks.settings import Settings

    folder = tmp_path_factory.mktemp("server")
    settings = Settings(project_dir=folder, data_dir=folder / ".hullworks", parts_dir=parts_dir)
    try:
        mongod.start(settings)
    except MissingPartError as error:
        absent("MongoDB", str(error))
    yield settings
    mongod.stop(settings)


@pytest.fixture
def mongod(server: Settings, project: Settings) -> Iterator[Settings]:
    """A project on the session's server, with an empty database of its own, documents connected."""
    import mongoengine
    from pydantic import SecretStr
    from pymongo import MongoClient

    from hullworks.database import connect, database_uri

    name = f"t{uuid.uuid4().hex[:12]}"
    uri = database_uri(server)
    uri_file = project.project_dir / "uri"
    uri_file.write_text(uri, encoding="utf-8")
    uri_file.chmod(0o600)
    with (project.project_dir / "hullworks.toml").open("a", encoding="utf-8") as file:
        file.write(f'[database]\nuri_file = "uri"\nname = "{name}"\n')
    database = project.database.model_copy(update={"uri": SecretStr(uri), "name": name})
    settings = project.model_copy(update={"database": database})
    connect(settings)
    yield settings
    mongoengine.disconnect()
    client: MongoClient[dict[str, object]] = MongoClient(uri)
    with client:
        client.drop_database(name)


@pytest.fixture
def launchpad(mongod: Settings) -> Iterator[LaunchPad]:
    """The LaunchPad of the project."""
    from hullworks.launchers.launchpad import open_launchpad

    opened = open_launchpad(mongod)
    yield opened
    opened.connection.close()


@pytest.fixture(scope="session")
def qe(parts_dir: Path) -> list[str]:
    """How to start the embedded pw.x 7.2; it is fetched when it is missing."""
    from hullworks.errors import MissingPartError
    from hullworks.launchers.services.parts import fetch_missing
    from hullworks.settings import Settings
    from hullworks.workflows.qe.executable import embedded_python

    try:
        fetch_missing(Settings(project_dir=parts_dir, parts_dir=parts_dir), lambda _message: None)
    except MissingPartError as error:
        absent("pw.x", str(error))
    return [str(embedded_python(parts_dir)), "-m", "qepy", "--pw.x"]


@pytest.fixture(scope="session")
def system_qe() -> list[str]:
    """How to start the system's pw.x, which is 6.7 with MPI on Debian 12."""
    return [shutil.which("pw.x") or absent("pw.x of the system", "apt-get install quantum-espresso")]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of recorded data beside the repository; tests that use it skip where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("the recorded data is not beside this checkout")
    return folder
