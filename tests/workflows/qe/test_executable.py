"""Where pw.x is, and its environment."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from hullworks.errors import MissingPartError, SettingsError
from hullworks.settings import QeSettings, Settings
from hullworks.workflows.qe.executable import embedded_python, pools_of, pw_command, pw_environment, with_pools

if TYPE_CHECKING:
    from pathlib import Path


def settings_for(folder: Path, command: str | None = None) -> Settings:
    """Return settings with their own folder of parts."""
    return Settings(project_dir=folder, parts_dir=folder / "parts", qe=QeSettings(command=command))


def program(path: Path) -> Path:
    """Make a file that can be executed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_the_settings_come_first(tmp_path: Path) -> None:
    """A site's own command wins over the embedded one, with its arguments."""
    mpirun = program(tmp_path / "mpirun")
    program(embedded_python(tmp_path / "parts"))
    command = pw_command(settings_for(tmp_path, f"{mpirun} -np 4 'pw x' -nk 2"))
    assert command.argv == (str(mpirun), "-np", "4", "pw x", "-nk", "2")
    assert command.source == "settings"
    assert command.with_input("pw.in")[-2:] == ["-i", "pw.in"]


def test_the_embedded_one_comes_before_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a setting the embedded pw.x is taken, then that of the path."""
    on_path = program(tmp_path / "bin" / "pw.x")
    monkeypatch.setenv("PATH", str(on_path.parent))
    assert pw_command(settings_for(tmp_path)).argv == (str(on_path),)
    python = program(embedded_python(tmp_path / "parts"))
    assert pw_command(settings_for(tmp_path)).argv == (str(python), "-m", "qepy", "--pw.x")


def test_without_any_the_error_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the command that fetches the part."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingPartError, match="hullworks doctor --fetch"):
        pw_command(settings_for(tmp_path))


@pytest.mark.parametrize("command", ["no-such-program -np 2", "'unclosed", "   "])
def test_a_command_that_cannot_start_is_a_setting_error(tmp_path: Path, command: str) -> None:
    """A wrong command is found before a run, not by one."""
    with pytest.raises(SettingsError, match=r"qe\.command"):
        pw_command(settings_for(tmp_path, command))


def test_threads_are_one_unless_the_site_says_otherwise() -> None:
    """A site's OMP_NUM_THREADS is left alone."""
    assert pw_environment({}, root=False)["OMP_NUM_THREADS"] == "1"
    assert pw_environment({}, threads=4, root=False)["OMP_NUM_THREADS"] == "4"
    assert pw_environment({"OMP_NUM_THREADS": "2"}, threads=4, root=False)["OMP_NUM_THREADS"] == "2"


def test_output_is_never_buffered() -> None:
    """The last words of a dying run must reach the file."""
    assert pw_environment({}, root=False)["GFORTRAN_UNBUFFERED_ALL"] == "1"


def test_only_root_gets_the_leave_of_open_mpi() -> None:
    """An ordinary user's environment has no OMPI variables."""
    assert not [name for name in pw_environment({}, root=False) if name.startswith("OMPI")]
    assert pw_environment({}, root=True)["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] == "1"


def test_the_environment_of_this_process_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules loaded by the site stay loaded."""
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/qe/lib")
    assert pw_environment()["LD_LIBRARY_PATH"] == "/opt/qe/lib"


def test_the_real_pw_x_answers(qe: list[str], tmp_path: Path) -> None:
    """The command starts a pw.x that reads an input file and complains about an empty one."""
    (tmp_path / "pw.in").write_text("", encoding="utf-8")
    environment = pw_environment(os.environ)
    done = subprocess.run([*qe, "-i", "pw.in"], cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert b"Program PWSCF" in done.stdout
    assert done.returncode != 0


@pytest.mark.parametrize("option", ["-nk", "--npool", "-npools"])
def test_the_number_of_pools_is_read_and_replaced(option: str) -> None:
    """In all the spellings that pw.x knows; the rest of the command line stays."""
    argv = ["mpirun", "-np", "4", "pw.x", option, "4", "-i", "pw.in"]
    assert pools_of(argv) == 4
    assert with_pools(argv, 1) == ["mpirun", "-np", "4", "pw.x", option, "1", "-i", "pw.in"]


def test_a_command_without_pools_stays_as_it_is() -> None:
    """Nothing is added."""
    assert pools_of(["pw.x", "-i", "pw.in"]) is None
    assert with_pools(["pw.x", "-nk"], 1) == ["pw.x", "-nk"]
