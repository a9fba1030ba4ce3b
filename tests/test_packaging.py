"""The repository as a product: what is built, locked and shipped."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import hullworks

ROOT = Path(__file__).resolve().parents[1]
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))
ROOMS = ("workflows", "launchers", "analysis", "slurm")
LEFTOVERS = re.compile(r"(^|/)(\.[^/]+|__pycache__|[^/]+\.py[co]|[^/]+~)(/|$)")
FOREIGN_PLACES = re.compile(
    r"(?<![\w.])/(?:home|Users|root|work)/\w|files\.pythonhosted\.org|\bpypi\.org|\bdeb\.debian\.org"
)
"""Folders of somebody's machine and addresses of registries."""


def _project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def _locked(path: Path) -> dict[str, list[Requirement]]:
    """Requirements of a lock file by canonical name; a package may stand there once per Python version."""
    found: dict[str, list[Requirement]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if re.match(r"[A-Za-z0-9]", line):
            requirement = Requirement(line.rstrip("\\ "))
            found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


def _run(*command: str | Path, cwd: Path) -> str:
    """Run a command that must succeed; return what it prints."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def _build(source: Path, target: str, folder: Path) -> Path:
    """Build one distribution with the locked backend."""
    _run(sys.executable, "-m", "hatchling", "build", "-t", target, "-d", folder, cwd=source)
    (built,) = folder.glob("*.whl" if target == "wheel" else "*.tar.gz")
    return built


def _names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this working tree."""
    return _build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution of this working tree."""
    return _build(ROOT, "sdist", tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment with the wheel; the locked packages are seen through a path file."""
    folder = tmp_path_factory.mktemp("installed")
    _run(sys.executable, "-m", "venv", folder, cwd=ROOT)
    python = folder / "bin" / "python"
    offline = ("--no-index", "--no-deps", "--disable-pip-version-check")
    _run(python, "-m", "pip", "install", *offline, wheel, cwd=folder)
    (site,) = folder.glob("lib/python*/site-packages")
    # Path files of the other folder are not read, so the editable install of this repository stays out.
    (site / "locked.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    return python


def test_version_is_one() -> None:
    """The version of the distribution is the one that the package names."""
    assert _project()["project"]["version"] == hullworks.__version__


def test_changelog_knows_the_version() -> None:
    """The changelog has a section for this version, or collects it as unreleased."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[({re.escape(hullworks.__version__)}|Unreleased)\]", text, flags=re.MULTILINE)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_locks_hold_versions_and_hashes_alone(lock: Path) -> None:
    """A lock file names no address and no folder, and every package in it has an exact version and hashes."""
    text = lock.read_text(encoding="utf-8")
    assert not re.search(r"https?:|://|--index|--find-links|@ file|^-e ", text, flags=re.MULTILINE)
    for requirements in _locked(lock).values():
        assert all([specifier.operator for specifier in found.specifier] == ["=="] for found in requirements)
    blocks = re.split(r"\n(?=[A-Za-z0-9])", text)
    assert all("--hash=sha256:" in block for block in blocks if "==" in block)


def test_runtime_lock_satisfies_the_project() -> None:
    """Every dependency of the project and of its embedded parts is locked, at a version that the project accepts."""
    project = _project()["project"]
    locked = _locked(ROOT / "requirements" / "runtime.lock")
    for text in [*project["dependencies"], *project["optional-dependencies"]["embedded"]]:
        wanted = Requirement(text)
        versions = [str(found.specifier).removeprefix("==") for found in locked[canonicalize_name(wanted.name)]]
        assert all(wanted.specifier.contains(version) for version in versions), text


@pytest.mark.parametrize("name", ["runtime", "build"])
def test_development_lock_agrees_with_the_others(name: str) -> None:
    """The development lock holds what the other locks hold, at the same versions, so one environment serves all."""
    wide = _locked(ROOT / "requirements" / "dev.lock")
    narrow = _locked(ROOT / "requirements" / f"{name}.lock")
    pins = {key: {str(found.specifier) for found in requirements} for key, requirements in wide.items()}
    assert {
        key: specifiers
        for key, requirements in narrow.items()
        if (specifiers := {str(found.specifier) for found in requirements}) != pins.get(key)
    } == {}


@pytest.mark.parametrize("room", ROOMS)
def test_wheel_holds_the_room(wheel: Path, room: str) -> None:
    """The wheel holds every file of a room, data included, under the package and nowhere else."""
    shipped = {path.relative_to(ROOT).as_posix() for path in (ROOT / room).rglob("*") if path.is_file()}
    expected = {f"hullworks/{name}" for name in shipped if not LEFTOVERS.search(name)}
    assert expected <= _names(wheel)


def test_wheel_holds_nothing_else(wheel: Path) -> None:
    """The wheel holds the typed package and its metadata: no tests, no scripts, no second copy of a room."""
    names = _names(wheel)
    assert {name.partition("/")[0] for name in names} == {"hullworks", f"hullworks-{hullworks.__version__}.dist-info"}
    assert "hullworks/py.typed" in names
    assert [name for name in names if "test" in Path(name).name.split("_")[0] or LEFTOVERS.search(name)] == []


def test_sdist_builds_the_same_wheel(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    """A wheel built from the source distribution holds the same files as one built from the repository."""
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path)  # noqa: S202 - our own archive; filters came with Python 3.11.4
    (source,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert _names(_build(source, "wheel", tmp_path / "built")) == _names(wheel)


def test_installed_wheel_runs(installed: Path, tmp_path: Path) -> None:
    """The wheel, installed in a fresh environment, gives a ``hullworks`` command that prints its help."""
    shown = _run(installed.parent / "hullworks", "--help", cwd=tmp_path)
    assert "Usage" in shown
    assert "submit" in shown


def test_installed_wheel_is_whole(installed: Path, tmp_path: Path) -> None:
    """Every module of the installed wheel imports, from its own files and not from this repository."""
    code = (
        "import hullworks, importlib, pkgutil\n"
        "for module in pkgutil.walk_packages(hullworks.__path__, 'hullworks.'): importlib.import_module(module.name)\n"
        "print(hullworks.__file__)"
    )
    shown = _run(installed, "-c", code, cwd=tmp_path)
    assert Path(shown.strip()).is_relative_to(installed.parents[1])


def _tracked_texts() -> list[Path]:
    """Text files that the repository holds, or will hold with the next commit."""
    if not (ROOT / ".git").exists():
        pytest.fail("this test needs the repository, not an export of it")
    git = ("git", "-c", f"safe.directory={ROOT}", "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    listed = _run(*git, cwd=ROOT).split("\0")
    paths = [ROOT / name for name in listed if name and (ROOT / name).is_file()]
    return [path for path in paths if b"\0" not in path.read_bytes()[:8192]]


def test_no_file_names_somebodys_machine() -> None:
    """No file of the repository names a folder of its makers' machines or the address of a registry."""
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in _tracked_texts()
        if path != Path(__file__).resolve()
        for match in FOREIGN_PLACES.finditer(path.read_text(encoding="utf-8", errors="replace"))
    ]
    assert found == []


def test_every_ignored_rule_has_its_reason() -> None:
    """Each rule that ruff ignores, and each warning that the tests let pass, stands beside its reason."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = text[text.index("[tool.ruff.lint]") : text.index("[tool.ruff.lint.flake8-annotations]")]
    rules = re.findall(r'^  "[A-Z]+\d*",.*$', section, flags=re.MULTILINE)
    assert rules
    assert [line for line in rules if "#" not in line] == []
