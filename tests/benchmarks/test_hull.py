"""The benchmark of the hull itself works: its sets, its steps, its document; nothing here is timed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., subprocess.CompletedProcess[str]]

HERE = Path(__file__).parent


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the benchmark's modules be imported, as they are where its script runs."""
    monkeypatch.syspath_prepend(str(HERE))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run the benchmark on a small made set, with its work folder kept from one run to the next."""
    folder = tmp_path_factory.mktemp("hull")

    def runs(*arguments: str) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, str(HERE / "hull.py"), "--work", str(folder / "work"), "--runs", "1"]
        small = ["--sizes", "synthetic:1300", "--peer", "none", "--without-numba", "--output", str(folder / "out.json")]
        return subprocess.run([*program, *small, *arguments], capture_output=True, text=True, check=True)

    return runs


@pytest.mark.usefixtures("beside")
def test_a_smaller_made_set_begins_a_larger_one() -> None:
    """The same settings give the same entries, whatever the size: a set of n is the first n of any larger one."""
    from hull_data import synthetic

    small, large = synthetic(500), synthetic(2000)
    first = large.first(500)
    assert small.formulas() == first.formulas()
    assert np.array_equal(small.energies, first.energies)
    assert len(large) == 2000
    assert len(set(large.formulas())) > 1500


@pytest.mark.usefixtures("beside")
def test_made_entries_are_compositions_with_a_hull() -> None:
    """Every element has an entry at 0 eV/atom, and a good part of the compounds is on the hull, but not all."""
    from hull_data import synthetic

    from hullworks.analysis.convex_hull import ConvexHull

    entries = synthetic(3000)
    hull = ConvexHull(entries.compositions(), entries.energies)
    assert hull.missing_elements == ()
    assert len(hull.elements) == len(entries.symbols)
    assert 0.3 < len(hull.stable) / len(hull) < 0.95


@pytest.mark.usefixtures("beside")
def test_entries_survive_a_file(tmp_path: Path) -> None:
    """What is loaded is what was saved."""
    from hull_data import Entries, synthetic

    entries = synthetic(300)
    entries.save(tmp_path / "entries.npz")
    assert Entries.load(tmp_path / "entries.npz").formulas() == entries.formulas()


@pytest.mark.usefixtures("beside")
def test_pymatgen_agrees_on_a_small_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All steps of the peer run, and its answers are ours, but for those after its update."""
    from hull_agreement import agreement, broken
    from hull_data import synthetic
    from hull_peers import STEPS, run_step
    from hull_sets import Folder
    from hull_tasks import run_task

    from hullworks.analysis.engine.choice import Choice

    monkeypatch.setattr(Choice, "compiled", False)  # put back afterwards: a task chooses for its whole process
    folder, limits = Folder(tmp_path / "set"), {"runs": 1, "spend_s": 1.0}
    folder.write(synthetic(1300))
    ours = {task: run_task(task, folder, "numpy", limits) for task in ("build", "update", "query", "verify")}
    for step in STEPS:
        run_step(step, folder)
    found = agreement(folder, {"numpy": ours}, ["numpy"])
    assert broken({"set": found}) == []
    assert {"PatchedPhaseDiagram: entries", "one PhaseDiagram per system"} < set(found["promised"])


@pytest.mark.slow
def test_a_run_ends_with_all_figures_and_is_not_repeated(run: Run) -> None:
    """Tables come out, the figures are written, and a second run takes them from the first."""
    first, second = run("--keep"), run()
    figures: dict[str, Any] = json.loads((Path(first.args[3]).parent / "out.json").read_text(encoding="utf-8"))
    assert "| 300 | synthetic |" in first.stdout
    assert set(figures["ours"]["synthetic:1300"]["numpy"]) == {
        "build", "update", "query", "verify", "numbers", "pickled"
    }  # fmt: skip
    assert "build" in first.stderr
    assert "build" not in second.stderr


@pytest.mark.usefixtures("beside")
def test_every_table_has_its_place_in_the_document(tmp_path: Path) -> None:
    """The marks between which the benchmark writes are in the document, in pairs; one without them is refused."""
    import hull_report

    text = (HERE.parent.parent / "docs" / hull_report.DOCUMENT).read_text(encoding="utf-8")
    for maker in hull_report.MAKERS:
        begin, end = (mark.format(name=maker.__name__) for mark in hull_report.MARKS)
        assert 0 < text.find(begin) < text.find(end), maker.__name__
    (tmp_path / hull_report.DOCUMENT).write_text("no marks", encoding="utf-8")
    told = {"python": "3", "packages": {}, "processor": "p", "cores": 1, "load_before": 0.0, "load_after": 0.0}
    empty: dict[str, Any] = {"conditions": told} | {
        key: {} for key in ("sets", "ours", "peers", "first_use", "agreement")
    }  # fmt: skip
    with pytest.raises(ValueError, match="no place for conditions"):
        hull_report.document(tmp_path, empty)
