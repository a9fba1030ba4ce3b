"""What doctor says about this machine and about others."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest
from pydantic import SecretStr

from hullworks.database import database_uri
from hullworks.errors import MissingPartError
from hullworks.launchers.services import doctor_database, doctor_machine, mongod
from hullworks.launchers.services.doctor import CHECKS, examine, is_ready
from hullworks.launchers.services.doctor_codes import check_families, check_mpi, check_vasp
from hullworks.launchers.services.doctor_database import check_mongodb, listening_addresses
from hullworks.launchers.services.doctor_machine import check_chromium, check_disk, check_slurm
from hullworks.launchers.services.findings import Part, PartState, ask
from hullworks.launchers.services.mongod_launch import find_server, free_port
from hullworks.launchers.services.parts import find_mongod
from hullworks.settings import DatabaseSettings, QeSettings, Settings, VaspSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of an empty project."""
    return Settings(project_dir=tmp_path, data_dir=tmp_path / "data", parts_dir=tmp_path / "parts")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, give_up: Callable[[str], NoReturn]) -> Iterator[Settings]:
    """Settings of a project whose private server runs."""
    folder = tmp_path_factory.mktemp("doctor")
    result = Settings(project_dir=folder, data_dir=folder / "data", parts_dir=folder / "parts")
    try:
        find_mongod(result)
    except MissingPartError as error:
        give_up(str(error))
    mongod.start(result)
    yield result
    mongod.stop(result)


@pytest.fixture
def empty_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder of the path, without any program."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PMG_VASP_PSP_DIR", raising=False)
    return folder


def program(folder: Path, name: str, script: str) -> Path:
    """Make a program in a folder."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def at(uri: str, settings: Settings) -> Settings:
    """Return the settings with a database elsewhere."""
    return settings.model_copy(update={"database": DatabaseSettings(uri=SecretStr(uri))})


def states(parts: list[Part]) -> dict[str, PartState]:
    """Return the parts' states by their names."""
    return {part.name: part.state for part in parts}


@pytest.mark.mongod
def test_this_machine(running: Settings) -> None:
    """Every part has a name of its own and a state, and what does not work has a cure or an explanation."""
    parts = examine(running)
    assert len({part.name for part in parts}) == len(parts) >= len(CHECKS)
    assert all(part.how_to_get or part.detail for part in parts if part.state is not PartState.WORKS)
    found = states(parts)
    assert found["MongoDB"] is PartState.WORKS
    assert found["pseudopotentials gth-pbe"] is PartState.WORKS
    assert {found[name] for name in ("Python", "hullworks", "FireWorks", "jobflow", "pymatgen")} == {PartState.WORKS}
    assert [part.as_dict()["state"] for part in parts] == [part.state.value for part in parts]


def test_empty_machine(settings: Settings, empty_path: Path) -> None:
    """With an empty path only what cannot be done without is missing, and each says how to get it."""
    assert not list(empty_path.iterdir())
    parts = examine(settings)
    found = states(parts)
    assert found["pw.x"] is PartState.MISSING
    assert {found[name] for name in ("MPI", "VASP", "POTCAR files", "SLURM", "Chromium")} == {
        PartState.OPTIONAL_MISSING
    }
    assert all(part.how_to_get for part in parts if part.state is not PartState.WORKS)
    assert not is_ready(parts)
    assert is_ready([part for part in parts if part.name != "pw.x"])


def test_hanging_part(settings: Settings) -> None:
    """A part that hangs is broken after the waiting time, and the others are there all the same."""

    def hang(_settings: Settings) -> list[Part]:
        time.sleep(30.0)
        return []

    def fail(_settings: Settings) -> list[Part]:
        raise PermissionError(13, "Permission denied", "/secret")

    started = time.monotonic()
    parts = examine(settings, wait_s=0.3, checks={"slow": hang, "denied": fail, "disk": check_disk})
    assert time.monotonic() - started < 3.0
    assert states(parts) == {"slow": PartState.BROKEN, "denied": PartState.BROKEN, "disk": PartState.WORKS}
    assert "did not answer" in parts[0].detail
    assert "Permission denied" in parts[1].detail


def test_hanging_program(empty_path: Path) -> None:
    """A program that hangs is killed with its children."""
    path = program(empty_path, "hang", "/bin/sleep 77.75 & /bin/sleep 77.75")
    answer = ask([str(path)], 0.3)
    assert (answer.status, answer.output) == (None, "it did not answer within 0 s")
    time.sleep(0.1)
    lines = [p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline") if os.access(p, os.R_OK)]
    assert not any(b"77.75" in line for line in lines)


@pytest.mark.mongod
def test_private_server(running: Settings) -> None:
    """A private server that runs shows its version and address, and that it needs a password and stays at home."""
    (part,) = check_mongodb(running)
    port = mongod.status(running).port
    assert (part.state, part.version, part.where) == (PartState.WORKS, "6.0.5", f"127.0.0.1:{port}")
    assert part.detail == "It listens at this machine alone, with a password."


@pytest.mark.mongod
def test_stopped_and_killed_server(settings: Settings, running: Settings) -> None:
    """A private server that was not started yet is no fault; one that was killed is, until it is started again."""
    assert mongod.status(running).state is mongod.ServerState.RUNNING
    (part,) = check_mongodb(settings)
    assert (part.state, part.how_to_get) == (PartState.WORKS, "hullworks up")
    mongod.start(settings)
    mark = find_server(settings.data_dir / "mongod")
    assert mark is not None
    assert mark.end(0.0)
    (part,) = check_mongodb(settings)
    assert (part.state, part.how_to_get) == (PartState.BROKEN, "hullworks up")


@pytest.mark.mongod
def test_server_by_address(running: Settings, settings: Settings) -> None:
    """A server given by its address is judged in the same way, and its password is not shown."""
    uri = database_uri(running)
    (part,) = check_mongodb(at(uri, settings))
    assert (part.state, part.version) == (PartState.WORKS, "6.0.5")
    assert uri.split(":")[2].split("@")[0] not in repr(part)


@pytest.mark.mongod
def test_refusing_server(running: Settings, settings: Settings) -> None:
    """A server that does not let us in is broken, and neither password nor address is shown."""
    port = mongod.status(running).port
    for uri in (f"mongodb://127.0.0.1:{port}/", f"mongodb://me:hush@127.0.0.1:{port}/?authSource=admin"):
        (part,) = check_mongodb(at(uri, settings))
        assert (part.state, part.how_to_get) == (PartState.BROKEN, "Check [database] uri.")
        assert "hush" not in repr(part)


def test_no_server_there(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address where nobody listens, and one that is none, are broken without being shown."""
    monkeypatch.setattr(doctor_database, "WAIT_S", 0.3)
    for uri in ("mongodb://me:hush@127.0.0.1:1/", "mongodb://me:hush@host:port/", "mongodb://me:hu@sh@host/"):
        (part,) = check_mongodb(at(uri, settings))
        assert part.state is PartState.BROKEN
        assert "hu" not in repr(part).replace("hullworks", "")


@pytest.mark.mongod
def test_open_server(running: Settings, tmp_path: Path) -> None:
    """A server of this machine without passwords works, and doctor says who can get in."""
    port = free_port(0)
    server = find_mongod(running)
    command = [
        str(server.path),
        "--dbpath",
        str(tmp_path),
        "--port",
        str(port),
        "--bind_ip",
        "127.0.0.1",
        "--nounixsocket",
    ]
    with subprocess.Popen(command, env=server.environment, stdout=subprocess.DEVNULL) as process:
        (part,) = check_mongodb(at(f"mongodb://127.0.0.1:{port}/", running))
        process.terminate()
    assert part.state is PartState.WORKS
    assert "every user of this machine can read and change it" in part.detail
    assert part.how_to_get == "Turn on its authentication."


def test_open_to_the_network() -> None:
    """A server that the network reaches and that asks for no password is said to be open to anybody."""
    detail, cure = doctor_database._access(open_to_all=True, reachable=["10.0.0.1"])
    assert "10.0.0.1" in detail
    assert "anybody on the network" in detail
    assert cure


def test_addresses_from_the_kernel() -> None:
    """Listening addresses are read from the kernel's tables, for both families, and only while somebody listens."""
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "127.0.0.2"), (socket.AF_INET6, "::1")):
        with socket.socket(family) as listener:
            listener.bind((address, 0))
            port = listener.getsockname()[1]
            assert listening_addresses(port) == set()
            listener.listen()
            assert listening_addresses(port) == {address}
    assert doctor_database._reachable_at([("db.example", 27017), ("127.0.0.1", 1)]) == {"db.example"}


def test_vasp_is_looked_for_only(settings: Settings, empty_path: Path) -> None:
    """VASP's command is checked word by word, and never run."""
    trace = empty_path / "ran"
    program(empty_path, "vasp_std", f": > {trace}")
    own = settings.model_copy(update={"vasp": VaspSettings(command="mpirun -np 4 vasp_std")})
    part = check_vasp(own)[0]
    assert (part.state, part.detail) == (PartState.BROKEN, "There is no program mpirun on this machine.")
    program(empty_path, "mpirun", f": > {trace}")
    assert check_vasp(own)[0].state is PartState.WORKS
    assert not trace.exists()


def test_potcar_setting(settings: Settings, empty_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The POTCAR folder is taken from the environment or pymatgen's file, and its path is not shown."""
    assert empty_path.is_dir()
    (tmp_path / ".config").mkdir()
    (tmp_path / ".config" / ".pmgrc.yaml").write_text(f"PMG_VASP_PSP_DIR: {tmp_path}\n")
    part = check_vasp(settings)[1]
    assert part.state is PartState.WORKS
    assert str(tmp_path) not in repr(part)
    monkeypatch.setenv("PMG_VASP_PSP_DIR", "/no/such/folder")
    assert check_vasp(settings)[1].state is PartState.BROKEN


def test_mpi_in_use(settings: Settings, empty_path: Path) -> None:
    """An MPI launcher that a command begins with must be there; else it is optional."""
    own = settings.model_copy(update={"qe": QeSettings(command="mpiexec -n 2 pw.x")})
    assert check_mpi(own)[0].state is PartState.MISSING
    program(empty_path, "mpiexec", "echo 'mpiexec (OpenRTE) 4.1.4'")
    assert (check_mpi(own)[0].state, check_mpi(own)[0].version) == (PartState.WORKS, "4.1.4")
    assert check_mpi(settings)[0].state is PartState.OPTIONAL_MISSING


def test_slurm_answers(settings: Settings, empty_path: Path) -> None:
    """SLURM works when its controller answers; its version is told also when the controller does not."""
    program(empty_path, "sinfo", 'test "$1" = --version && echo slurm-wlm 22.05.8 || printf "main\\nlong\\nmain\\n"')
    (part,) = check_slurm(settings)
    assert (part.state, part.version, part.detail) == (PartState.WORKS, "22.05.8", "Partitions: long, main.")
    program(empty_path, "sinfo", 'test "$1" = --version && echo slurm 23.02.1 && exit; echo no route; exit 1')
    (part,) = check_slurm(settings)
    assert (part.state, part.version) == (PartState.BROKEN, "23.02.1")
    assert "no route" in part.detail


def test_chromium(settings: Settings, empty_path: Path) -> None:
    """A browser's version is found behind the complaints of its start script."""
    program(empty_path, "google-chrome", "echo '9: unexpected operator' >&2; echo Google Chrome 131.0.6778.85")
    (part,) = check_chromium(settings)
    assert (part.state, part.version) == (PartState.WORKS, "131.0.6778.85")
    program(empty_path, "google-chrome", "exit 1")
    assert check_chromium(settings)[0].state is PartState.BROKEN


def test_disk(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk of the data folder is looked at before the folder exists; too little space is a fault."""
    assert not settings.data_dir.exists()
    (part,) = check_disk(settings)
    assert (part.state, part.where) == (PartState.WORKS, str(settings.data_dir.parent))
    monkeypatch.setattr(doctor_machine, "LOW_SPACE_BYTES", 2**80)
    assert check_disk(settings)[0].state is PartState.BROKEN


def test_families(settings: Settings, tmp_path: Path) -> None:
    """The embedded family is listed with its functional, and a family that cannot be loaded with the reason."""
    own = settings.model_copy(update={"qe": QeSettings(pseudo_families={"mine": tmp_path / "nowhere"})})
    embedded, mine = check_families(own)
    assert (embedded.state, embedded.version, embedded.where) == (PartState.WORKS, "PBE", "embedded")
    assert "elements" in embedded.detail
    assert (mine.name, mine.state) == ("pseudopotentials mine", PartState.BROKEN)
    assert mine.how_to_get
