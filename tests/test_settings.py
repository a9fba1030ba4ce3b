"""Settings: file, environment, mistakes, secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hullworks.errors import SettingsError
from hullworks.settings import find_project_dir, known_variables, load_settings, read_secret_file

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder with a settings file."""
    (tmp_path / "hullworks.toml").write_text('level = "qe-pbe-balanced"\n[qe]\ncommand = "mpirun -np 4 pw.x"\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_file_is_read_and_paths_are_relative_to_it(folder: Path) -> None:
    """Not to the folder that the command is called in."""
    settings = load_settings(folder)
    assert settings.level == "qe-pbe-balanced"
    assert settings.qe.command == "mpirun -np 4 pw.x"
    assert settings.data_dir == folder / ".hullworks"
    assert settings.runs_dir.is_relative_to(settings.data_dir)


def test_the_environment_wins_over_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A nested setting uses two underscores, and the file's other settings of that section stay."""
    monkeypatch.setenv("HULLWORKS_LEVEL", "qe-pbe-stringent")
    monkeypatch.setenv("HULLWORKS_QE__THREADS", "3")
    settings = load_settings(folder)
    assert settings.level == "qe-pbe-stringent"
    assert settings.qe.threads == 3
    assert settings.qe.command == "mpirun -np 4 pw.x"


def test_the_project_is_found_from_below(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As git does; and without a file the working folder is the project."""
    below = folder / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert find_project_dir() == folder
    assert load_settings().project_dir == folder


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('levle = "x"\n', "levle"),
        ("[qe]\nthreads = 0\n", "qe.threads"),
        ("[qe]\ncomand = 'x'\n", "qe.comand"),
        ("level = [\n", "cannot be read"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    """The message names the setting, or where the file breaks off."""
    (tmp_path / "hullworks.toml").write_text(text)
    with pytest.raises(SettingsError, match=said):
        load_settings(tmp_path)


def test_a_mistyped_variable_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pydantic alone would pass over it in silence."""
    monkeypatch.setenv("HULLWORKS_LEVLE", "qe-pbe-fast")
    with pytest.raises(SettingsError, match="HULLWORKS_LEVLE"):
        load_settings(folder)


def test_every_setting_has_a_variable() -> None:
    """The list that `hullworks config` shows is complete."""
    assert {"HULLWORKS_LEVEL", "HULLWORKS_QE__COMMAND", "HULLWORKS_DATABASE__URI"} <= known_variables()


def test_a_secret_is_neither_printed_nor_quoted_in_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by repr, nor by JSON, nor when another setting beside it is wrong."""
    monkeypatch.setenv("HULLWORKS_DATABASE__URI", "mongodb://u:hush@example.invalid/")
    settings = load_settings(tmp_path)
    assert "hush" not in repr(settings) + str(settings.model_dump(mode="json")) + settings.model_dump_json()
    assert not settings.embedded_database
    monkeypatch.setenv("HULLWORKS_DATABASE__CACHE_GB", "much")
    with pytest.raises(SettingsError) as caught:
        load_settings(tmp_path)
    assert "hush" not in str(caught.value)


def test_a_secret_file_must_be_private(tmp_path: Path) -> None:
    """Others may not read it, and the cure is in the message."""
    path = tmp_path / "uri"
    path.write_text("mongodb://u:hush@example.invalid/\n")
    path.chmod(0o644)
    with pytest.raises(SettingsError, match="chmod 600"):
        read_secret_file(path)
    path.chmod(0o600)
    assert read_secret_file(path).get_secret_value() == "mongodb://u:hush@example.invalid/"
    with pytest.raises(SettingsError, match="cannot be read"):
        read_secret_file(tmp_path / "none")
