"""The embedded parts: the server's program and its library, locked environments."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from hullworks.errors import MissingPartError
from hullworks.launchers.services import parts
from hullworks.launchers.services.environments import LockedEnvironment, _child_environment
from hullworks.launchers.services.parts import embedded_qe, fetch_missing, find_mongod, pw_version
from hullworks.settings import QeSettings, Settings

if TYPE_CHECKING:
    from collections.abc import Callable

FIND_SCRIPT = """
import sys
from pathlib import Path
from hullworks.launchers.services.parts import find_mongod
from hullworks.settings import Settings
folder = Path(sys.argv[1])
program = find_mongod(Settings(project_dir=folder, parts_dir=folder / "parts"))
print(program.version, program.environment.get("LD_LIBRARY_PATH", ""))
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with an empty folder for parts."""
    return Settings(project_dir=tmp_path, data_dir=tmp_path / "data", parts_dir=tmp_path / "parts")


@pytest.fixture
def program(settings: Settings, give_up: Callable[[str], NoReturn]) -> parts.Program:
    """The server's program."""
    try:
        return find_mongod(settings)
    except MissingPartError as error:
        give_up(str(error))


def libraries(program: Path, library_path: str) -> str:
    """Return what the dynamic loader would load for a program."""
    environment = {"LD_TRACE_LOADED_OBJECTS": "1", "LD_LIBRARY_PATH": library_path}
    return subprocess.run([program], env=environment, capture_output=True, text=True, check=True).stdout


@pytest.mark.mongod
def test_mongod_runs(program: parts.Program) -> None:
    """The server comes from its Python package and says its version."""
    assert program.version == "6.0.5"
    assert not any("HULLWORKS" in name for name in program.environment)


@pytest.mark.mongod
def test_libcurl_of_a_package(settings: Settings, program: parts.Program) -> None:
    """The loader takes the libcurl of the Python package from the folder that is made for it, time after time."""
    library_path = parts._curl_path(settings.parts_dir / "curl")
    assert parts._curl_path(settings.parts_dir / "curl") == library_path
    loaded = libraries(program.path, library_path)
    assert re.search(rf"libcurl\.so\.4 => {re.escape(str(settings.parts_dir))}", loaded)
    assert "not found" not in loaded


@pytest.mark.mongod
def test_no_libcurl_in_the_system(program: parts.Program, tmp_path: Path) -> None:
    """Where the system's libcurl is unusable, the server runs with the package's, for itself alone."""
    found = re.search(r"libcurl\.so\.4 => (\S+)", libraries(program.path, ""))
    if found is None:
        pytest.skip("the system has none to hide, and test_mongod_runs has tried just that")
    hidden = 'mount --bind /dev/null "$1" && exec "$2" -c "$3" "$4"'
    command = ["unshare", "-m", "sh", "-c", hidden, "sh", str(Path(found[1]).resolve()), sys.executable, FIND_SCRIPT]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, check=False)
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip("hiding a file needs the right to mount")
    assert re.fullmatch(rf"6\.0\.5 {re.escape(str(tmp_path / 'parts' / 'curl'))}\S+\n", done.stdout), done.stderr


def test_run_bit_is_set(tmp_path: Path) -> None:
    """A program that a package manager unpacked without its run bit gets it."""
    program = tmp_path / "mongod"
    program.write_bytes(b"")
    program.chmod(0o644)
    assert parts._runnable(program, tmp_path / "parts") == program
    assert stat.S_IMODE(program.stat().st_mode) == 0o755


def test_copy_of_somebody_elses_program(tmp_path: Path) -> None:
    """A program whose run bit is not ours to set is copied, once, and again when it has changed."""
    program, copy = tmp_path / "mongod", tmp_path / "parts" / "mongod"
    program.write_bytes(b"1")
    assert parts._copied(program, copy) == copy
    first = copy.stat().st_ino
    assert parts._copied(program, copy).stat().st_ino == first
    program.write_bytes(b"22")
    assert parts._copied(program, copy).read_bytes() == b"22"
    assert os.access(copy, os.X_OK)


def test_broken_program(tmp_path: Path) -> None:
    """A server that does not start gives no program, and the loader's words."""
    program = tmp_path / "mongod"
    program.write_text("#!/bin/sh\necho 'error while loading shared libraries: libssl.so.3: cannot open'; exit 127\n")
    program.chmod(0o755)
    assert parts._probe(program, {}) == (None, "error while loading shared libraries: libssl.so.3: cannot open")


def test_missing_package() -> None:
    """A package that is not installed is named, with the command that gets it."""
    with pytest.raises(
        MissingPartError, match=r"no-such-package is not installed.*pip install 'hullworks\[embedded\]'"
    ):
        parts._package_file("no-such-package", "file")


def test_requirements_are_locked() -> None:
    """Every package of Quantum ESPRESSO's environment is pinned by version and hash, and no registry is named."""
    text = embedded_qe(Path("parts")).requirements
    pinned = re.findall(r"^([\w.-]+)==\S+ \\$", text, re.MULTILINE)
    assert pinned == ["f90wrap", "numpy", "packaging", "qepy"]
    assert all(f"{name}==" in text for name in pinned)
    assert "://" not in text
    assert not re.search(r"--(index|extra|find|trusted)", text)


@pytest.mark.usefixtures("program")
def test_own_command_needs_no_fetching(settings: Settings) -> None:
    """Who has set a pw.x of his own does not get another."""
    own = settings.model_copy(update={"qe": QeSettings(command="pw.x")})
    said: list[str] = []
    assert fetch_missing(own, said.append) == ()
    assert said == []
    assert not (settings.parts_dir / "qe-7.2").exists()


def test_not_pw() -> None:
    """A program that is not pw.x is called so, with its last words."""
    with pytest.raises(MissingPartError, match=r"pw.x does not run \(surely not\)"):
        pw_version(("echo", "surely not"))
    with pytest.raises(MissingPartError, match="cannot be started"):
        pw_version(("/no/such/program",))


def test_no_python_for_it(tmp_path: Path) -> None:
    """Where no suitable Python is found, the error names the versions and the other way."""
    environment = LockedEnvironment(tmp_path / "x", "", ((2, 6), (2, 7)), "Something", "Or go without.")
    with pytest.raises(MissingPartError, match=r"needs Python 2\.6 or 2\.7.*Or go without\."):
        environment.build(str, str)
    assert [path.name for path in tmp_path.iterdir()] == [".x.lock"]


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package index the error says what could not be got, and nothing is left behind."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    said: list[str] = []
    with pytest.raises(
        MissingPartError, match=r"Quantum ESPRESSO 7\.2 cannot be fetched.*check the network.*\[qe\] command"
    ):
        embedded_qe(tmp_path).build(str, said.append)
    assert said[-1].endswith("fetching its packages")
    assert [path.name for path in tmp_path.iterdir()] == [".qe-7.2.lock"]


def test_no_place_for_it(tmp_path: Path) -> None:
    """A folder for parts that cannot be made is named, with the setting to change."""
    (tmp_path / "file").write_text("")
    with pytest.raises(MissingPartError, match=r"cannot be stored .*parts_dir"):
        embedded_qe(tmp_path / "file").build(str, str)


def test_rebuilt_when_its_python_is_gone(tmp_path: Path) -> None:
    """An environment whose Python was removed by a system update counts as not there."""
    environment = LockedEnvironment(tmp_path / "x", "", (), "Something", "")
    environment.python.parent.mkdir(parents=True)
    environment.python.symlink_to("/no/such/python")
    assert not environment.is_whole


def test_children_get_no_secrets() -> None:
    """Our own variables, and what would lead back into the present environment, are not passed on."""
    given = {"HULLWORKS_DATABASE__URI": "secret", "PYTHONPATH": "x", "VIRTUAL_ENV": "x", "HOME": "/h", "PIP_PROXY": "p"}
    assert _child_environment(given) == {"HOME": "/h", "PIP_PROXY": "p"}
