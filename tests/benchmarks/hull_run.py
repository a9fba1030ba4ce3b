"""The steps of the hull benchmark: each in a fresh process, its figures kept, so that a run that ends early goes on."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hull_clock import conditions
from hull_data import SETTINGS
from hull_sets import Folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

HERE: Final = Path(__file__).parent
ENGINE: Final = HERE.parent.parent / "analysis"
SOURCES: Final = {
    "prepare": [SETTINGS, HERE / "hull_data.py", HERE / "hull_synthesis.py", HERE / "hull_sets.py"],
    "ours": [HERE / "hull_tasks.py", *(ENGINE / name for name in ("convex_hull.py", "compositions.py", "formulas.py"))],
    "peer": [HERE / "hull_peers.py"],
}
"""What the figures of a kind of step follow from, beside the sets; they are taken anew when it changes."""
TASKS: Final = ("build", "update", "query", "verify", "numbers", "pickled")
PEER_STEPS: Final = ("construct", "ask", "update")
CACHE: Final = "numba"
"""Folder of compiled code."""
ONE_THREAD: Final = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Processor seconds are compared, so no library may hide work in threads."""
QUIETLY: Final = {"TQDM_MININTERVAL": "20"}
"""Seconds between two lines of pymatgen's progress."""


@dataclass(frozen=True)
class Step:
    """What one process does.

    Attributes:
        kind: ``prepare`` writes the set, ``ours`` is a task of `hull_tasks`, ``peer`` a step of `hull_peers`.
        name: Of the task or step.
        entry_set: The set's name.
        mode: ``numpy`` or ``numba``; empty for peers.
        runs: At most so many runs for a median; 0 for what the settings say.
    """

    kind: str
    name: str
    entry_set: str
    mode: str = ""
    runs: int = 0

    def key(self, table: bytes) -> str:
        """Return a name that changes with what the figures follow from: the code, and the published table's bytes."""
        versions = json.dumps([asdict(self), conditions()["packages"]]).encode()
        told = hashlib.sha256(_hash_of_code("prepare", self.kind) + versions + table)
        return f"{self.kind}-{self.name}-{self.entry_set.replace(':', '-')}-{self.mode}-{told.hexdigest()[:10]}"


@dataclass(frozen=True)
class Runner:
    """Runs steps in a work folder.

    Attributes:
        work: Holds sets, hulls and figures.
        table: The published table, if there is one.
    """

    work: Path
    table: Path | None

    def folder(self, entry_set: str) -> Folder:
        """Return where a set's files are."""
        return Folder(self.work / "sets" / entry_set.replace(":", "-"))

    def done(self, step: Step) -> bool:
        """Tell whether a step's figures are there."""
        return self._result(step).exists()

    def figures(self, step: Step) -> dict[str, Any]:
        """Return the figures of a step, from an earlier run where it is done."""
        result = self._result(step)
        if not result.exists():
            self._run(step, result)
        read: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        return read

    def _result(self, step: Step) -> Path:
        return self.work / "figures" / f"{step.key(self.table.read_bytes() if self.table else b'')}.json"

    def _run(self, step: Step, result: Path) -> None:
        result.parent.mkdir(parents=True, exist_ok=True)
        partial = result.with_suffix(".partial")
        asked = asdict(step) | {
            "folder": str(self.folder(step.entry_set).path), "table": self.table and str(self.table),
            "result": str(partial),
        }  # fmt: skip
        say(f"{step.kind:8}{step.name:10}{step.entry_set:20}{step.mode:6}", end=" ")
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, HERE / "hull_step.py", json.dumps(asked)],
            env=os.environ | ONE_THREAD | QUIETLY | {"NUMBA_CACHE_DIR": str(self.work.absolute() / CACHE)},
            check=True,
        )
        partial.rename(result)
        say(f"{time.perf_counter() - start:8.1f} s")

    def ours(self, entry_set: str, modes: Sequence[str], tasks: Sequence[str], runs: int) -> dict[str, Any]:
        """Return the figures of our tasks by mode and task."""
        converted = self.figures(Step("ours", "convert", entry_set, "numpy", runs))
        found: dict[str, Any] = {"convert": converted}
        for mode in modes:
            found[mode] = {task: self.figures(Step("ours", task, entry_set, mode, runs)) for task in tasks}
        return found

    def peers(self, entry_set: str, steps: Sequence[str]) -> dict[str, Any]:
        """Return the figures of pymatgen by step."""
        return {step: self.figures(Step("peer", step, entry_set)) for step in steps}

    def first_use(self, entry_set: str, modes: Sequence[str]) -> dict[str, Any]:
        """Return what a process waits for its first small hull: without numba, compiling, and compiled before."""
        step = Step("ours", "first_use", entry_set, "numpy")
        found = {"numpy": self.figures(step)}
        if "numba" in modes:
            # These come first: all later steps find the code compiled. The runs only tell the two apart.
            if not self.done(compiling := replace(step, mode="numba", runs=1)):
                shutil.rmtree(self.work / CACHE, ignore_errors=True)
            found["compiling"] = self.figures(compiling)
            found["from_cache"] = self.figures(replace(step, mode="numba", runs=2))
        return found

    def without_hulls(self, entry_sets: Iterable[str]) -> None:
        """Delete the large files of finished sets; only a run that goes on needs them."""
        for entry_set in entry_sets:
            for path in self.folder(entry_set).path.glob("*.pickle"):
                path.unlink()


def _hash_of_code(*kinds: str) -> bytes:
    """Return a hash of what the figures of some kinds of steps follow from."""
    sources = [path for kind in kinds for path in SOURCES[kind]]
    if "ours" in kinds:
        sources += sorted((ENGINE / "engine").glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).digest()


def measured(runner: Runner, sets: Mapping[str, Sequence[str]], modes: Sequence[str], **options: Any) -> dict[str, Any]:
    """Run all steps; return all figures.

    Args:
        runner: Runs them.
        sets: Names of sets, with the peers' steps for each.
        modes: ``numpy``, ``numba`` or both.
        options: ``runs`` for a median, and whether to ``profile``.

    Raises:
        RuntimeError: The code changed meanwhile, so that the figures are of several versions.
    """
    code = _hash_of_code(*SOURCES)
    found: dict[str, Any] = {"conditions": conditions(), "sets": {}, "ours": {}, "peers": {}}
    tasks = [*TASKS, *(["profile"] if options["profile"] else [])]
    found["first_use"] = runner.first_use(next(iter(sets)), modes)
    for name, steps in sets.items():
        found["sets"][name] = runner.figures(Step("prepare", "write", name))
        found["ours"][name] = runner.ours(name, modes, tasks, options["runs"])
        found["peers"][name] = runner.peers(name, steps)
    if _hash_of_code(*SOURCES) != code:
        raise RuntimeError("the code changed while it was measured; run again, and what is still true is not repeated")
    found["conditions"]["load_after"] = conditions()["load_before"]
    return found


def steps_of_peer(peer: str, *, small: bool, whole: bool) -> list[str]:
    """Return what pymatgen is to do on a set.

    Args:
        peer: ``full``, ``sampled`` or ``none``.
        small: It is a set that pymatgen does in minutes.
        whole: It is the whole published table.
    """
    if peer == "none" or not (small or whole):
        return []
    return [*(PEER_STEPS if small or peer == "full" else ()), "systems"]


def say(text: str, end: str = "\n") -> None:
    """Tell how far the run is."""
    sys.stderr.write(text + end)
    sys.stderr.flush()
