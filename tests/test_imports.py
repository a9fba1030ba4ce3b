"""What an import costs, what it does, and under which name a module goes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("workflows", "launchers", "analysis")
HEAVY = frozenset({
    "boto3", "custodian", "fireworks", "flask", "jobflow", "maggma", "matplotlib", "mongoengine", "monty", "networkx",
    "numpy", "pandas", "plotly", "pydantic", "pydantic_settings", "pymatgen", "pymongo", "requests", "scipy", "spglib",
})  # fmt: skip
"""Packages that cost more than some hundredths of a second."""

COMPILED = "hullworks.analysis.engine.compiled"
"""Its import is a step of work: numba, which may be absent, finds a place for what it compiles."""

IMPORT_EVERYTHING = """
import importlib, json, pkgutil, sys

seen = []
sys.addaudithook(lambda event, args: seen.append(f"{event} {args!r}") if event in WATCHED else None)
import hullworks

names = [module.name for module in pkgutil.walk_packages(hullworks.__path__, "hullworks.")]
names.remove(COMPILED)
for name in names:
    importlib.import_module(name)
print(json.dumps({"names": names, "seen": seen, "bare": [name for name in ROOMS if name in sys.modules]}))
"""


def _python(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done


def _imported_by(code: str, cwd: Path) -> set[str]:
    """Names of the top-level packages that Python imports while it runs the code."""
    report = _python("-X", "importtime", "-c", code, cwd=cwd).stderr
    modules = re.findall(r"^import time:\s+\d+ \|\s+\d+ \|\s+(\S+)$", report, flags=re.MULTILINE)
    return {module.partition(".")[0] for module in modules}


@pytest.fixture(scope="module")
def everything() -> dict[str, list[str]]:
    """What happens when every module is imported, from the folder where the bare names import too."""
    watched = ("socket.connect", "subprocess.Popen", "os.system", "os.mkdir", "os.remove")
    code = f"WATCHED = {watched!r}\nROOMS = {ROOMS!r}\nCOMPILED = {COMPILED!r}\n{IMPORT_EVERYTHING}"
    found: dict[str, list[str]] = json.loads(_python("-B", "-c", code).stdout)
    return found


def test_import_of_the_package_is_light(tmp_path: Path) -> None:
    """``import hullworks`` imports no heavy package, so it takes far less than the promised 0.3 s."""
    assert _imported_by("import hullworks", tmp_path) & HEAVY == set()


def test_help_is_light(tmp_path: Path) -> None:
    """``hullworks --help`` imports no heavy package, so it takes less than the promised 0.5 s."""
    code = "import sys; sys.argv = ['hullworks', '--help']; from hullworks.launchers.cli import main; main()"
    imported = _imported_by(code, tmp_path)
    assert "typer" in imported
    assert imported & HEAVY == set()


def test_every_module_imports_alone(everything: dict[str, list[str]]) -> None:
    """Every module of every room can be imported under its ``hullworks`` name."""
    assert {name.split(".")[1] for name in everything["names"]} >= set(ROOMS)


def test_imports_do_nothing(everything: dict[str, list[str]]) -> None:
    """No import opens a connection, starts a program, or makes or removes a file."""
    assert everything["seen"] == []


def test_no_module_has_a_second_name(everything: dict[str, list[str]]) -> None:
    """No module imports a room under its bare name, which would make classes that a worker cannot decode."""
    assert everything["bare"] == []


def test_bare_names_are_refused_by_the_linter(tmp_path: Path) -> None:
    """Ruff refuses ``import workflows`` and its like, and takes ``import hullworks.workflows``."""
    sample = tmp_path / "sample.py"
    lines = [f"import {room}\nfrom {room} import x\nimport hullworks.{room}\n" for room in ROOMS]
    sample.write_text("".join(lines), encoding="utf-8")
    command = [
        "-m",
        "ruff",
        "check",
        "--config",
        str(ROOT / "pyproject.toml"),
        "--select",
        "TID251",
        "--output-format",
        "json",
    ]
    checked = subprocess.run([sys.executable, *command, str(sample)], capture_output=True, text=True, check=False)
    assert [finding["location"]["row"] for finding in json.loads(checked.stdout)] == [1, 2, 4, 5, 7, 8]


def test_each_file_is_checked_once() -> None:
    """Ruff sees every module by one path, although the rooms are also linked into the package."""
    listed = _python("-m", "ruff", "check", "--show-files").stdout.splitlines()
    real = [Path(name).resolve() for name in listed]
    assert len(real) == len(set(real))
    assert {ROOT / room / "__init__.py" for room in ROOMS} <= set(real)


@pytest.mark.parametrize("room", [*ROOMS, "slurm"])
def test_rooms_are_relative_links(room: str) -> None:
    """A room stands at the top of the repository, and the package holds a relative link to it."""
    link = ROOT / "hullworks" / room
    assert link.readlink() == Path("..") / room


def test_tests_are_no_package() -> None:
    """No ``__init__.py`` stands under ``tests``: it would bring the bare names of the rooms into the test run."""
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_layers_are_kept() -> None:
    """Launchers may use workflows, workflows may use analysis, all may use the spine, never the other way."""
    checked = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout
