"""The embedded Quantum ESPRESSO, fetched for real, once."""

from __future__ import annotations

import shutil
import threading
from typing import TYPE_CHECKING, NoReturn

import pytest

from hullworks.errors import HullWorksError, MissingPartError
from hullworks.launchers.services.doctor_codes import check_pw
from hullworks.launchers.services.findings import PartState
from hullworks.launchers.services.parts import QE_PART, embedded_qe, fetch_missing, pw_version
from hullworks.settings import DatabaseSettings, QeSettings, Settings
from hullworks.workflows.qe.executable import pw_command

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.qe, pytest.mark.slow]


@pytest.fixture(scope="module")
def fetched(
    tmp_path_factory: pytest.TempPathFactory, give_up: Callable[[str], NoReturn]
) -> tuple[Settings, list[tuple[str, ...]]]:
    """Settings with the part in place, and what each of two fetches at the same time returned."""
    folder = tmp_path_factory.mktemp("qe")
    database = DatabaseSettings(uri="mongodb://db.example/")
    settings = Settings(project_dir=folder, data_dir=folder / "data", parts_dir=folder / "parts", database=database)
    (settings.parts_dir / ".qe-7.2-interrupted" / "bin").mkdir(parents=True)
    results: list[tuple[str, ...]] = []
    errors: list[HullWorksError] = []

    def fetch() -> None:
        try:
            results.append(fetch_missing(settings, str))
        except HullWorksError as error:
            errors.append(error)

    threads = [threading.Thread(target=fetch) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        give_up(str(errors[0]))
    return settings, results


def test_fetched_once(fetched: tuple[Settings, list[tuple[str, ...]]]) -> None:
    """Of two fetches at once, one fetches; a third has nothing to do; leftovers of an interrupted one are gone."""
    settings, results = fetched
    assert sorted(results) == [(), (QE_PART,)]
    assert fetch_missing(settings, str) == ()
    assert not (settings.parts_dir / ".qe-7.2-interrupted").exists()


def test_is_the_one_that_runs(fetched: tuple[Settings, list[tuple[str, ...]]]) -> None:
    """Workflows find the embedded pw.x, and it says that it is 7.2."""
    command = pw_command(fetched[0])
    assert command.source == "embedded"
    assert command.argv[0] == str(embedded_qe(fetched[0].parts_dir).python)
    assert pw_version(command.argv) == "7.2"


def test_doctor_runs_it(fetched: tuple[Settings, list[tuple[str, ...]]]) -> None:
    """Doctor has it calculate, and the energy is right."""
    (part,) = check_pw(fetched[0])
    assert (part.state, part.version) == (PartState.WORKS, "7.2"), part
    assert "right energy" in part.detail


@pytest.mark.skipif(shutil.which("pw.x") is None, reason="there is no other pw.x to compare with")
def test_other_builds_agree(tmp_path: Path) -> None:
    """Another version of pw.x gives the same energy for doctor's trial calculation."""
    (part,) = check_pw(Settings(project_dir=tmp_path, parts_dir=tmp_path, qe=QeSettings(command="pw.x")))
    assert part.state is PartState.WORKS, part


def test_broken_pw(tmp_path: Path) -> None:
    """A pw.x that fails, or calculates something else, is broken, and doctor says how."""
    for script, words in {
        "exit 3": "exit status 3",
        "echo '!    total energy              =     -14.00000000 Ry'; echo JOB DONE": "-14.00000000 Ry",
        "printf ' Error in routine setup (2):\\n  too few bands\\n'; exit 1": "too few bands",
    }.items():
        program = tmp_path / "pw.x"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        (part,) = check_pw(Settings(project_dir=tmp_path, parts_dir=tmp_path, qe=QeSettings(command=str(program))))
        assert part.state is PartState.BROKEN
        assert words in part.detail


def test_no_pw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any pw.x doctor says that it is missing, and a command that gets it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    settings = Settings(project_dir=tmp_path, parts_dir=tmp_path)
    (part,) = check_pw(settings)
    assert (part.state, bool(part.how_to_get)) == (PartState.MISSING, True)
    with pytest.raises(MissingPartError):
        pw_command(settings)
    (part,) = check_pw(settings.model_copy(update={"qe": QeSettings(command="/no/such/pw.x")}))
    assert part.state is PartState.BROKEN


def test_queue_launcher_is_not_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that would wait for an allocation is not started by doctor."""
    launcher = tmp_path / "srun"
    launcher.write_text("#!/bin/sh\nsleep 60\n")
    launcher.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    (part,) = check_pw(Settings(project_dir=tmp_path, parts_dir=tmp_path, qe=QeSettings(command="srun pw.x")))
    assert part.state is PartState.WORKS
    assert part.detail.startswith("Not tried")
