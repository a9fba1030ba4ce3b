"""Runs of a real pw.x: repaired, failed, stopped, killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest
from pymatgen.core import Lattice, Structure

from hullworks.errors import RunError
from hullworks.workflows.qe import supervise
from hullworks.workflows.qe.executable import PwCommand
from hullworks.workflows.qe.handlers import load_repairs
from hullworks.workflows.qe.inputs import PwInput, build_pw_input
from hullworks.workflows.qe.kpoints import KMesh
from hullworks.workflows.qe.protocols import load_protocol
from hullworks.workflows.qe.pseudos import Family, load_family
from hullworks.workflows.qe.run import allocation_end, run_pw
from hullworks.workflows.qe.run_record import read_record, write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from multiprocessing.context import ForkServerContext, ForkServerProcess


@pytest.fixture(scope="module")
def family() -> Family:
    """The embedded pseudopotentials."""
    return load_family("gth-pbe")


@pytest.fixture
def quick(family: Family) -> PwInput:
    """A static calculation of silicon that takes a second: its numbers mean nothing."""
    structure = Structure(
        Lattice([[0, 2.73, 2.73], [2.73, 0, 2.73], [2.73, 2.73, 0]]),
        ["Si", "Si"],
        [[0.0, 0.0, 0.0], [0.25, 0.25, 0.25]],
    )
    pw_input = build_pw_input("scf", structure, load_protocol("fast", "initial_relax"), family)
    return replace(pw_input, mesh=KMesh((2, 2, 2), (1, 1, 1)), ecutwfc_Ry=12.0, ecutrho_Ry=48.0)


@pytest.fixture
def slow(quick: PwInput) -> PwInput:
    """A calculation that takes minutes."""
    heavy = replace(quick, mesh=KMesh((7, 7, 7)), ecutwfc_Ry=60.0, ecutrho_Ry=240.0)
    return heavy.with_setting("SYSTEM", "nosym", True)


def command(argv: list[str]) -> PwCommand:
    """Return the command of a fixture."""
    return PwCommand(tuple(argv), "test")


def record_of(folder: Path) -> dict[str, Any]:
    """Return the record of a run, read as anybody would."""
    record: dict[str, Any] = json.loads((folder / "hullworks_run.json").read_text(encoding="utf-8"))
    return record


def test_a_good_run_leaves_a_record_and_no_scratch(
    qe: list[str], tmp_path: Path, quick: PwInput, family: Family
) -> None:
    """One attempt, converged, with energies, version and input hash; no wavefunctions stay."""
    finished = run_pw(tmp_path, quick, family=family, command=command(qe))
    record = record_of(tmp_path)
    assert finished.run.succeeded
    assert record == json.loads(json.dumps(finished.record))
    assert record["outcome"] == "converged"
    assert record["succeeded"] is True
    assert record["input_sha256"] == quick.sha256
    assert record["code"]["version"]
    assert record["results"]["energy_per_atom_eV"] == pytest.approx(-107, abs=2)
    assert record["corrections"] == []
    assert len(record["attempts"]) == 1
    assert not list(tmp_path.rglob("wfc*"))
    assert not (tmp_path / "attempt-1" / "out").exists()
    assert (tmp_path / "attempt-1" / "pwscf.xml").is_file()


def test_an_scf_that_does_not_converge_is_cured(qe: list[str], tmp_path: Path, quick: PwInput, family: Family) -> None:
    """Three iterations are too few; the cure allows more, in a fresh folder, and the record tells."""
    asked = quick.with_setting("ELECTRONS", "electron_maxstep", 3)
    finished = run_pw(tmp_path, asked, family=family, command=command(qe))
    assert finished.run.succeeded
    first, second = finished.record["attempts"]
    assert (first["outcome"], second["outcome"]) == ("scf_not_converged", "converged")
    assert first["input_sha256"] == asked.sha256
    correction = finished.record["corrections"][0]
    assert correction["handler"] == "MoreIterations"
    assert correction["actions"] == ["electron_maxstep: 3 -> 200", "restart: wavefunctions"]
    assert "convergence NOT achieved" in correction["evidence"][0]


def test_what_cannot_be_cured_ends_as_failed_with_its_outcome(
    qe: list[str], tmp_path: Path, quick: PwInput, family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A threshold below double precision is never met: all cures are tried, none makes a success of it."""
    rules = tuple(replace(rule, numbers=_hasty(rule.numbers)) for rule in load_repairs().rules)
    hasty = replace(load_repairs(), rules=rules)
    monkeypatch.setattr("hullworks.workflows.qe.handlers.load_repairs", lambda: hasty)
    asked = quick.with_setting("ELECTRONS", "conv_thr", 1e-40).with_setting("ELECTRONS", "electron_maxstep", 4)
    with pytest.raises(RunError, match="scf_not_converged") as caught:
        run_pw(tmp_path, asked, family=family, command=command(qe))
    record = record_of(tmp_path)
    assert record["outcome"] == "scf_not_converged"
    assert record["succeeded"] is False
    tried = [item["handler"] for item in record["corrections"]]
    assert tried[0] == "MoreIterations"
    assert tried[-1] == "NoCure"
    assert set(tried) == {"MoreIterations", "GentlerMixing", "LocalScreening", "NoCure"}
    assert len(record["attempts"]) == len(tried)
    assert "hullworks_run.json" in str(caught.value)


def test_a_fatal_outcome_is_not_repeated(qe: list[str], tmp_path: Path, quick: PwInput, family: Family) -> None:
    """A setting that pw.x does not know ends the run after one attempt, with that outcome."""
    asked = quick.with_setting("CONTROL", "no_such_setting", 1)
    with pytest.raises(RunError, match="bad_input after 1 attempt"):
        run_pw(tmp_path, asked, family=family, command=command(qe))
    assert record_of(tmp_path)["band"] == "input"
    assert len(record_of(tmp_path)["attempts"]) == 1


def test_the_end_of_the_allocation_stops_a_run_cleanly(
    qe: list[str], tmp_path: Path, slow: PwInput, family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pw.x gets max_seconds, stops by itself, and the run is no success."""
    rule = replace(_rule(), reserve_s=0.0, min_attempt_s=3.0)
    monkeypatch.setattr("hullworks.workflows.qe.attempts.run_rule", lambda: rule)
    start = time.time()
    with pytest.raises(RunError, match=r"walltime_stop|interrupted"):
        run_pw(tmp_path, slow, family=family, command=command(qe), deadline=start + 5.0)
    assert time.time() - start < 20.0
    assert "max_seconds" in (tmp_path / "attempt-1" / "pw.in").read_text(encoding="utf-8")
    assert record_of(tmp_path)["succeeded"] is False
    assert record_of(tmp_path)["outcome"] in {"walltime_stop", "interrupted"}


def test_without_time_nothing_is_started(tmp_path: Path, quick: PwInput, family: Family) -> None:
    """A run whose allocation is over has no attempt, and says so."""
    with pytest.raises(RunError, match="walltime_stop after 0 attempts"):
        run_pw(tmp_path, quick, family=family, command=PwCommand(("false",), "test"), deadline=time.time() + 1.0)
    assert record_of(tmp_path)["attempts"] == []


def test_a_program_that_is_not_there_is_an_outcome_too(tmp_path: Path, quick: PwInput, family: Family) -> None:
    """The folder tells that nothing started."""
    with pytest.raises(RunError):
        run_pw(tmp_path, quick, family=family, command=PwCommand(("/no/such/pw.x",), "test"))
    assert record_of(tmp_path)["succeeded"] is False
    assert "No such file" in (tmp_path / "attempt-1" / "pw.err").read_text(encoding="utf-8")


def test_a_folder_of_a_killed_run_is_taken_over(qe: list[str], tmp_path: Path, quick: PwInput, family: Family) -> None:
    """Attempts, records and checksums that lie there are not taken for ours."""
    for number in (1, 2, 3):
        (tmp_path / f"attempt-{number}").mkdir()
        (tmp_path / f"attempt-{number}" / "pw.out").write_text("JOB DONE.\n", encoding="utf-8")
    (tmp_path / "hullworks_run.json").write_text('{"succeeded": true}', encoding="utf-8")
    finished = run_pw(tmp_path, quick, family=family, command=command(qe))
    assert [path.name for path in sorted(tmp_path.glob("attempt-*"))] == ["attempt-1"]
    assert finished.record["attempts"][0]["number"] == 1


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """A server that forks workers with everything imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hullworks.workflows.qe.run"])
    return context


def _pids_below(folder: Path) -> set[int]:
    """Return the processes whose working folder lies below a folder."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                where = (entry / "cwd").readlink()
            except OSError:
                continue
            if where.is_relative_to(folder):
                found.add(int(entry.name))
    return found


def _wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def running(
    qe: list[str], tmp_path: Path, slow: PwInput, family: Family, processes: ForkServerContext
) -> Iterator[tuple[ForkServerProcess, Path]]:
    """A worker in the middle of a real run of pw.x."""
    run = tmp_path / "run"
    worker = processes.Process(target=run_pw, args=(run, slow), kwargs={"family": family, "command": command(qe)})
    worker.start()
    output = run / "attempt-1" / "pw.out"
    assert _wait_for(lambda: output.is_file() and b"Self-consistent" in output.read_bytes(), 60.0)
    # The supervisor, and pw.x itself.
    assert len(_pids_below(run)) >= 2
    yield worker, run
    worker.kill()
    worker.join()


def test_sigkill_of_the_worker_leaves_no_pw_x(running: tuple[ForkServerProcess, Path]) -> None:
    """The kernel tells the supervisor, which ends the whole group; nothing goes on beside a repetition."""
    worker, run = running
    worker.kill()
    worker.join()
    assert _wait_for(lambda: not _pids_below(run), 10.0)
    with pytest.raises(RunError, match="no record"):
        read_record(run)


def test_sigkill_of_the_supervisor_ends_pw_x_too(running: tuple[ForkServerProcess, Path]) -> None:
    """Each process dies with its parent; the worker takes it for an interruption and goes on in a new attempt."""
    _, run = running
    supervisor = min(_pids_below(run))
    before = _pids_below(run)
    os.kill(supervisor, signal.SIGKILL)
    assert _wait_for(lambda: not before & _pids_below(run), 10.0)
    assert _wait_for((run / "attempt-2" / "pw.in").is_file, 20.0)


def test_sigterm_of_the_worker_ends_pw_x_and_leaves_a_record(running: tuple[ForkServerProcess, Path]) -> None:
    """A cancelled worker says in the folder what ended it, and dies of the signal as its owner expects."""
    worker, run = running
    worker.terminate()
    worker.join(timeout=30)
    assert worker.exitcode == -signal.SIGTERM
    assert _wait_for(lambda: not _pids_below(run), 10.0)
    record = read_record(run)
    assert record["outcome"] == "interrupted"
    assert record["stopped_by"] == "SIGTERM"
    assert record["succeeded"] is False


def test_more_than_one_sigterm_is_one(running: tuple[ForkServerProcess, Path]) -> None:
    """SLURM signals twice, and a parent with threads that dies signals once for each: the end is the same."""
    worker, run = running
    while worker.is_alive():
        worker.terminate()
        worker.join(timeout=0.02)
    assert worker.exitcode == -signal.SIGTERM
    assert _wait_for(lambda: not _pids_below(run), 10.0)
    assert read_record(run)["stopped_by"] == "SIGTERM"


def _supervised(*command: str, grace: float = 1.0, limit: float = 0.0, parent: int | None = None) -> int:
    guard = [sys.executable, "-I", "-S", supervise.__file__, str(parent or os.getpid()), str(grace), str(limit)]
    return subprocess.run([*guard, *command], capture_output=True, check=False).returncode


def test_the_supervisor_ends_as_the_program_ends() -> None:
    """Exit status and signals are passed on."""
    assert _supervised("/bin/sh", "-c", "exit 3") == 3
    assert _supervised("/bin/sh", "-c", "kill -SEGV $$") == -signal.SIGSEGV
    assert _supervised("/no/such/program") == 127


def test_the_supervisor_ends_a_program_that_hangs(tmp_path: Path) -> None:
    """At the limit first SIGTERM, then, for one that ignores it, SIGKILL for it and its children."""
    assert _supervised("/bin/sleep", "60", limit=0.2) == -signal.SIGTERM
    mark = tmp_path / "pid"
    stubborn = f"trap '' TERM; sh -c 'trap \"\" TERM; echo $$ > {mark}; sleep 60' & wait"
    assert _supervised("/bin/sh", "-c", stubborn, grace=0.3, limit=0.5) == -signal.SIGKILL
    assert _wait_for(lambda: not Path(f"/proc/{mark.read_text(encoding='utf-8').strip()}").exists(), 5.0)


def test_a_supervisor_whose_parent_is_gone_starts_nothing(tmp_path: Path) -> None:
    """The parent may end before the kernel is asked to watch it."""
    assert _supervised("/bin/touch", str(tmp_path / "started"), parent=1) == 127
    assert not (tmp_path / "started").exists()


def test_the_allocation_ends_with_the_first_of_its_limits() -> None:
    """The site's walltime counts from now, SLURM's end is absolute, and without both there is none."""
    now = time.time()
    assert allocation_end(None, {}) is None
    assert allocation_end(100.0, {}) == pytest.approx(now + 100.0, abs=5.0)
    assert allocation_end(1e6, {"SLURM_JOB_END_TIME": str(int(now + 50))}) == int(now + 50)
    assert allocation_end(None, {"SLURM_JOB_END_TIME": "soon"}) is None


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """The old content stays until the new one is complete, and nothing else is left over."""
    path = tmp_path / "record.json"
    write_atomically(path, "old")
    write_atomically(path, "new")
    assert path.read_text(encoding="utf-8") == "new"
    assert list(tmp_path.iterdir()) == [path]


def _hasty(numbers: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a cure's numbers, with few iterations."""
    return MappingProxyType({**numbers, **({"electron_maxstep": 6} if "electron_maxstep" in numbers else {})})


def _rule() -> Any:  # noqa: ANN401 - the frozen rule of the package
    from hullworks.workflows.qe.protocols import run_rule

    return run_rule()
