"""Runs the steps of the recovery campaign, keeps their results, and judges them against the undisturbed runs."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qe_campaign_arms import ARMS
from qe_campaign_cases import campaign
from qe_campaign_step import Step, run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qe_campaign_cases import Case

HERE: Final = Path(__file__).parent
MAX_LAUNCHES: Final = 4
"""So often a worker that died with its node is started again, as launchers do."""
OWN_DISK: Final = 'mount -t tmpfs -o size="$1"k none "$2" && shift 2 && exec "$@"'

Result = dict[str, Any]


@dataclass(frozen=True)
class Runner:
    """Runs steps in a work folder, where results stay.

    Attributes:
        work: The folder.
        keep: Whether to keep the files of the runs.
    """

    work: Path
    keep: bool = False

    def result(self, case: Case, arm: str) -> Result:
        """Return what an arm made of a case, from an earlier run where there is one."""
        path = self.work / "results" / f"{case.name}-{arm}-{case.key}.json"
        if not path.is_file():
            self._run(case, arm, path)
        read: Result = json.loads(path.read_text(encoding="utf-8"))
        return read

    def forget(self, arm: str) -> None:
        """Drop the results of an arm, so that it runs again."""
        for path in (self.work / "results").glob(f"*-{arm}-*.json"):
            if not path.name.startswith("reference"):
                path.unlink()

    def _run(self, case: Case, arm: str, path: Path) -> None:
        folder = (self.work / "runs" / f"{case.name}-{arm}").absolute()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial").absolute()
        step, start = Step(case.name, arm, str(folder), str(partial)), time.perf_counter()
        for _ in range(MAX_LAUNCHES):
            status = _on_own_disk(step, case.disk_kB) if case.disk_kB else _in_child(step)
            if status >= 0:
                break
        if status:
            raise RuntimeError(f"the step {case.name} in the arm {arm} failed; its files are in {folder}")
        partial.rename(path)
        if not self.keep:
            shutil.rmtree(folder)
            shutil.rmtree(f"{folder}-scratch", ignore_errors=True)
        told = json.loads(path.read_text(encoding="utf-8"))
        say(f"{case.name:32}{arm:10}{time.perf_counter() - start:7.1f} s  {'; '.join(told['story'])[:120]}")


def _in_child(step: Step) -> int:
    """Run a step in a child of this process, which has everything imported, and return its exit status."""
    child = multiprocessing.get_context("fork").Process(target=run, args=(step,))
    child.start()
    child.join()
    return child.exitcode or 0


def _on_own_disk(step: Step, kilobytes: int) -> int:
    """Run a step on a file system of its own that is soon full, and return its exit status."""
    program = [sys.executable, str(HERE / "qe_campaign_step.py"), step.argument]
    command = ["unshare", "-rm", "sh", "-c", OWN_DISK, "sh", str(kilobytes), step.folder, *program]
    return subprocess.run(command, check=False).returncode


def measured(runner: Runner, cases: Sequence[Case], arms: Sequence[str]) -> Result:
    """Run all cases in all arms, each beside its undisturbed run, and return what came out."""
    rows = []
    for number, case in enumerate(cases, 1):
        say(f"{number} of {len(cases)}")
        answer = runner.result(case.reference, "hullworks") if case.recoverable else None
        if answer is not None and not answer["claimed"]:
            raise RuntimeError(f"the undisturbed run {case.reference.name} has no result: {answer['story']}")
        told = {arm: runner.result(case, arm) for arm in arms}
        verdicts = {arm: verdict(case, arm, found, answer) for arm, found in told.items()}
        rows.append({
            "name": case.name, "category": case.category, "version": case.version, "system": case.system,
            "right_end": list(case.causes) or "converged", "reference": answer and _numbers(answer),
            "arms": {arm: _numbers(found) | {"verdict": verdicts[arm]} for arm, found in told.items()},
        })  # fmt: skip
    return {"right": campaign()["right"], "cases": rows}


def verdict(case: Case, arm: str, found: Result, answer: Result | None) -> str:
    """Return how an arm ended.

    ``right``: a result, and the right one. ``wrong``: a result that is not. ``gave up``: no result, though there is
    one. ``named``: no result, rightly, and the right cause. ``failed``: no result, rightly, and no or another cause.
    """
    if answer is None:
        if found["claimed"]:
            return "wrong"
        right = {str(code) for code in case.aiida_codes} if arm == "aiida" else set(case.causes)
        return "named" if found["cause"] in right else "failed"
    if not found["claimed"]:
        return "gave up"
    return "right" if agrees(found, answer) else "wrong"


def agrees(found: Result, answer: Result) -> bool:
    """Return whether energy and volume are those of the undisturbed run, within the campaign's tolerances."""
    if None in {found["energy_eV_per_atom"], found["volume_A3_per_atom"]}:
        return False
    right = campaign()["right"]
    energy = 1e3 * abs(found["energy_eV_per_atom"] - answer["energy_eV_per_atom"])
    volume = abs(found["volume_A3_per_atom"] / answer["volume_A3_per_atom"] - 1.0)
    return bool(energy <= right["energy_meV_per_atom"] and volume <= right["volume_share"])


def _numbers(found: Result) -> Result:
    kept = ("claimed", "energy_eV_per_atom", "volume_A3_per_atom", "cause", "story", "pw_cpu_s", "own_cpu_s")
    return {name: round(found[name], 6) if isinstance(found[name], float) else found[name] for name in kept}


def arms() -> tuple[str, ...]:
    """Return the names of all arms."""
    return tuple(ARMS)


def say(text: str) -> None:
    """Tell how far the campaign is."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
