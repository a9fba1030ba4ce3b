"""The recovery campaign: its cases, what goes wrong in them, the peer's exit codes, and the verdicts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def _beside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The modules of the benchmarks import each other by their bare names."""
    monkeypatch.syspath_prepend(str(HERE))
    yield
    for name in [name for name in sys.modules if name.startswith("qe_campaign")]:
        del sys.modules[name]


def test_there_are_at_least_sixty_cases_each_with_a_right_end() -> None:
    """Names are unique, causes are outcomes of the product, and every input can be written."""
    from qe_campaign_cases import cases

    from hullworks.workflows.qe.inputs import write_pw_input
    from hullworks.workflows.qe.outcomes import QeOutcome

    every = cases()
    assert len({case.name for case in every}) == len(every) >= 60
    assert {case.version for case in every} == {"6.7", "7.2"}
    for case in every:
        assert set(case.causes) <= {outcome.value for outcome in QeOutcome}
        assert write_pw_input(case.pw_input())
        assert case.reference.settings.keys() <= set(case.physics)


def launch(text: str, folder: Path) -> int:
    """Start a program that writes an output of three iterations, with a fault around it."""
    program = ["sh", "-c", "echo iteration '#' 1 >> pw.out; sleep 0.4; echo iteration '#' 2 >> pw.out; sleep 0.4"]
    return subprocess.run(
        ["sh", "-c", text, "sh", *program],
        cwd=folder,
        env={**os.environ, "CAMPAIGN_COUNT": str(folder / "launches")},
        check=False,
    ).returncode


def test_a_fault_is_for_the_launches_that_it_names(tmp_path: Path) -> None:
    """The first launch is killed where the output has got to, and the second is left alone."""
    from qe_campaign_faults import script

    text = script("some case", [{"kind": "kill", "count": 1}])
    assert launch(text, tmp_path) == 128 + 9
    assert (tmp_path / "pw.out").read_text(encoding="utf-8").count("iteration") == 1
    assert launch(text, tmp_path) == 0


def test_a_launch_can_be_dead_without_a_word(tmp_path: Path) -> None:
    """Nothing is started, and the status says so."""
    from qe_campaign_faults import script

    text = script("some case", [{"kind": "dead", "status": 3}])
    assert launch(text, tmp_path) == 3
    assert not (tmp_path / "pw.out").exists()


def test_schedulers_speak_of_the_launches_that_broke() -> None:
    """What AiiDA would be told is told for those alone."""
    from qe_campaign_faults import broken_launches

    faults: list[dict[str, Any]] = [
        {"kind": "node", "launches": [1, 2], "scheduler": 140},
        {"kind": "kill", "launches": [3]},
    ]
    assert broken_launches(faults) == {1: 140, 2: 140}


@pytest.mark.parametrize(
    ("output", "crash", "scheduler", "code"),
    [
        ("", "", 0, 305),
        ("Program PWSCF", "", 120, 503),
        ("Program PWSCF", "", 110, 110),
        ("Maximum CPU time exceeded\nJOB DONE.", "", 0, 400),
        ("Maximum CPU time exceeded", "", 0, 340),
        ("Program PWSCF", "Error in routine electrons (1):\n charge is wrong", 0, 531),
        ("Program PWSCF", "Error in routine setup (1):\n too few bands", 0, 305),
        ("number of Kohn-Sham states= 4\nJOB DONE.", "", 0, 303),
    ],
)
def test_the_peer_knows_the_words_that_its_parser_knows(
    output: str, crash: str, scheduler: int, code: int, tmp_path: Path
) -> None:
    """Without an XML file, from the output, CRASH, and what a scheduler said."""
    from qe_campaign_cases import case
    from qe_campaign_exit_codes import parse

    (tmp_path / "pw.out").write_text(output, encoding="utf-8")
    if crash:
        (tmp_path / "CRASH").write_text(crash, encoding="utf-8")
    assert parse(tmp_path, case("si-stretched").pw_input(), scheduler).exit_code == code


@pytest.mark.parametrize(
    ("name", "arm", "found", "expected"),
    [
        ("si-stretched", "none", {"claimed": False, "cause": "exit status 1"}, "gave up"),
        ("si-stretched", "aiida", {"claimed": True, "energy": -100.0, "volume": 20.1}, "right"),
        ("si-stretched", "aiida", {"claimed": True, "energy": -100.1, "volume": 20.1}, "wrong"),
        ("si-stretched", "aiida", {"claimed": True, "energy": -100.0, "volume": 21.0}, "wrong"),
        ("si-pseudo-cut", "hullworks", {"claimed": False, "cause": "pseudo_unreadable"}, "named"),
        ("si-pseudo-cut", "hullworks", {"claimed": False, "cause": "unknown"}, "failed"),
        ("si-pseudo-cut", "none", {"claimed": True}, "wrong"),
        ("si8-no-memory-67", "aiida", {"claimed": False, "cause": "110"}, "named"),
    ],
)
def test_an_end_is_judged_by_the_right_answer(name: str, arm: str, found: dict[str, Any], expected: str) -> None:
    """A result by the undisturbed run, a failure by its cause."""
    from qe_campaign_cases import case
    from qe_campaign_run import verdict

    told = found | {"energy_eV_per_atom": found.get("energy"), "volume_A3_per_atom": found.get("volume")}
    one = case(name)
    answer = {"energy_eV_per_atom": -100.0, "volume_A3_per_atom": 20.0} if one.recoverable else None
    assert verdict(one, arm, told, answer) == expected
