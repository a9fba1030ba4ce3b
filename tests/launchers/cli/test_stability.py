"""The commands on a hull's memory as users and scripts meet them: on a real MongoDB, and on a real terminal."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hullworks.documents import Entry, Lease, Level, StoredVerdict, now
from hullworks.launchers.cli.app import run

if TYPE_CHECKING:
    from collections.abc import Callable

    from hullworks.settings import Settings

HULLWORKS = str(Path(sys.executable).with_name("hullworks"))
ENERGIES = {"Mg": -1.0, "Si": -4.0, "Mg2Si": -2.2, "MgSi": -2.55, "Mg3Si": -1.7}
"""eV/atom; MgSi is 0.2 above the tie line from Mg2Si to Si, and 0.05 below that of the elements."""
ROWS = "id,formula,energy_per_atom,energy_uncertainty_per_atom\n"
LEVEL = "{code: vasp, functional: PBE, protocol: table, correction: some}"


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Runs a command; returns what it prints, read where it is JSON, or the error of one that ends otherwise."""

    def call(*arguments: str, status: int = 0) -> Any:  # noqa: ANN401 - any JSON value
        assert run(list(arguments)) == status, capsys.readouterr()
        out, err = capsys.readouterr()
        if not out:
            return err
        return json.loads(out) if "--json" in arguments else out

    return call


@pytest.fixture
def known(mongod: Settings, cli: Callable[..., Any]) -> dict[str, str]:
    """Five imported entries with errors, at the level of the project, in one version; ids by formula."""
    lines = [f"{formula},{formula},{energy},0.01" for formula, energy in ENERGIES.items()]
    Path("table.csv").write_text(ROWS + "\n".join(lines), encoding="utf-8")
    Path("level.yaml").write_text(LEVEL, encoding="utf-8")
    settings = mongod.project_dir / "hullworks.toml"
    settings.write_text('level = "vasp-pbe-table"\n' + settings.read_text(encoding="utf-8"), encoding="utf-8")
    cli("references", "import", "table.csv", "--define", "level.yaml", "--json")
    return {entry.name: entry.entry_id for entry in Entry.objects}


def published() -> int:
    """Return the published version of the only level."""
    return int(Level.objects.get().published)


def test_a_retraction_says_what_moved(known: dict[str, str], cli: Callable[..., Any]) -> None:
    """The same as the difference of the two versions; again, it changes nothing."""
    start = published()
    data = cli("retract", known["Mg2Si"], "--reason", "twin [of x]", "--yes", "--json")
    assert data["counts"] == {
        "appeared": 0, "gone": 1, "came onto the hull": 1, "left the hull": 1, "other verdict": 1, "moved": 2,
    }  # fmt: skip
    what = {row["reduced_formula"]: row["what"] for row in data["changes"]}
    assert what == {"Mg2Si": "gone from the hull", "MgSi": "came onto the hull", "Mg3Si": "moved"}
    assert {row["name"] for row in data["changes"][:2]} == {"Mg2Si", "MgSi"}
    assert (data["start"], data["end"], data["events"]) == (start, start + 1, {"entry_retracted": 1})
    done = data.pop("done")
    assert done["versions"] == 1
    assert cli("diff", str(start), "--json") == data
    assert cli("retract", known["Mg2Si"], "--reason", "twin", "--yes", "--json")["changes"] == []
    text = cli("diff", str(start + 1), str(start))
    assert "appeared on the hull" in text
    assert "unstable" in text
    assert "1 entry retracted" in text


def test_a_history_tells_every_verdict_and_why(known: dict[str, str], cli: Callable[..., Any]) -> None:
    """Before and after, the events that did it, and the reason that was given."""
    cli("retract", known["Mg2Si"], "--reason", "twin [of x]", "--yes")
    added, moved = cli("history", known["MgSi"], "--json")
    assert (added["before"]["verdict"], added["after"]["verdict"]) == (None, "unstable")
    assert (moved["before"]["verdict"], moved["after"]["verdict"]) == ("unstable", "stable")
    assert moved["after"]["hull_version"] == moved["sequence"] == published()
    (why,) = moved["because"]
    assert (why["kind"], why["entry_id"], why["reason"]) == ("entry_retracted", known["Mg2Si"], "twin [of x]")
    (line,) = [line for line in cli("history", known["MgSi"]).splitlines() if "came onto" in line]
    assert "unstable → stable" in line
    assert line.rstrip().endswith("twin [of x]")


def test_the_past_is_shown_with_its_own_verdicts(known: dict[str, str], cli: Callable[..., Any]) -> None:
    """A hull as of a version says of each entry what was published then."""
    start = published()
    before = {row["entry_id"]: row for row in cli("hull", "Mg-Si", "--json")["entries"]}
    stable = cli("stable", "--json")
    cli("retract", known["Mg2Si"], "--reason", "twin", "--yes")
    then = cli("hull", "Mg-Si", "--as-of", str(start), "--json")
    for row in then["entries"]:
        assert row == {name: value for name, value in before[row["entry_id"]].items() if name in row}
        stored = StoredVerdict.objects.get(entry_id=row["entry_id"], since=start)
        assert (row["verdict"], row["e_above_hull"]) == (stored.kind, stored.e_above_hull_eV_per_atom)
    assert len(then["entries"]) == len(ENERGIES)
    assert f"hull version {start}, as it was then" in cli("hull", "Mg-Si", "--as-of", str(start))
    assert cli("stable", "--as-of", str(start), "--json") == stable
    assert [row["name"] for row in cli("stable", "Si-Mg", "--json")] == ["Mg", "MgSi", "Si"]
    assert "there is no hull version 99" in cli("stable", "--as-of", "99", status=9)
    assert "Xx is not an element" in cli("diff", "0", "--chemsys", "Mg-Xx", status=2)


def test_a_recorrection_takes_an_energy_or_its_parts(known: dict[str, str], cli: Callable[..., Any]) -> None:
    """Parts are added to the uncorrected energy, which stays."""
    data = cli("recorrect", known["MgSi"], "--energy", "-2.8", "--reason", "scheme", "--yes", "--json")
    assert data["events"] == {"entry_recorrected": 1}
    parts = ("--part", "oxide=0.05", "--part", "x = y=-0.1")
    cli("recorrect", known["MgSi"], *parts, "--reason", "other scheme", "--yes")
    entry = Entry.objects.get(entry_id=known["MgSi"])
    assert entry.correction_parts_eV_per_atom == {"oxide": 0.05, "x = y": -0.1}
    assert (entry.uncorrected_energy_eV_per_atom, entry.energy_eV_per_atom) == (-2.55, pytest.approx(-2.6))
    assert [row["reasons"] for row in cli("history", known["MgSi"], "--json")] == [[], ["scheme"], ["other scheme"]]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ([], "as a whole or by its parts"),
        (["--energy", "-1", "--part", "a=1"], "as a whole or by its parts"),
        (["--part", "a=1", "--part", "a=2"], "stands twice"),
        (["--part", "a"], "written as NAME=EV"),
        (["--part", "=1"], "written as NAME=EV"),
        (["--energy", "nan"], "no energy of a solid"),
        (["--energy", "-1", "--reason", " "], "a reason is needed"),
    ],
)
def test_a_recorrection_that_makes_no_sense_is_refused(
    known: dict[str, str], cli: Callable[..., Any], options: list[str], problem: str
) -> None:
    """In one line, and nothing happens."""
    start = published()
    assert problem in cli("recorrect", known["Mg"], "--reason", "r", *options, "--yes", status=2)
    assert published() == start


def test_a_change_asks_first(known: dict[str, str], cli: Callable[..., Any]) -> None:
    """A person on a terminal; where there is none, it wants to be told."""
    assert "Add --yes" in cli("retract", known["Mg"], "--reason", "r", "--json", status=2)
    start = published()
    for answer, wanted in (("n", start), ("y", start + 1)):
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            [HULLWORKS, "retract", known["Mg3Si"], "--reason", "r"], stdin=theirs, stdout=theirs, stderr=theirs
        ) as process:
            os.write(ours, f"{answer}\n".encode())
            process.wait(120)
        os.close(theirs)
        shown = os.read(ours, 10_000).decode()
        os.close(ours)
        assert "Take it back? [y/N]" in shown
        assert "formula Mg3Si" in shown
        assert published() == wanted


def test_a_change_that_another_process_must_publish_is_told(known: dict[str, str], cli: Callable[..., Any]) -> None:
    """It is stored, and not yet in the hull."""
    key = Level.objects.get().key
    Lease(name=f"stability:{key}", holder="another", expires_at=now().replace(year=now().year + 1)).save()
    assert "another process takes it" in cli("retract", known["Mg3Si"], "--reason", "r", "--yes", status=7)
    assert "there is no such entry" in cli("retract", "entry-x", "--reason", "r", "--yes", status=2)


def test_an_audit_proves_repairs_and_exits_with_10(known: dict[str, str], cli: Callable[..., Any]) -> None:
    """A mismatch halts the level, which `levels` tells; a repair puts it right."""
    (sound,) = cli("audit", "--replay", "--json")
    assert (sound["ok"], sound["halted"], sound["repaired"]) == (True, False, None)
    assert sound["checks"][-1] == {"name": "replay", "checked": 1, "problems": []}
    StoredVerdict.objects(entry_id=known["MgSi"]).update(set__kind="stable")
    (wrong,) = cli("audit", "--json", status=10)
    assert not wrong["ok"]
    assert wrong["halted"]
    text = cli("audit", status=10)
    assert known["MgSi"] in text
    assert "Run: hullworks audit --repair" in text
    assert len(cli("hull", "Mg-Si", "--json")["entries"]) == len(ENERGIES)
    assert "audit --repair" in cli("retract", known["Mg"], "--reason", "r", "--yes", status=9)
    assert not Entry.objects.get(entry_id=known["Mg"]).retracted
    (level,) = [row for row in cli("levels", "--json") if row["key"]]
    assert any(known["MgSi"] in problem for problem in level["halted"])
    assert "halted by an audit" in cli("levels")
    assert "every proof holds" in cli("audit", "--repair", "--level", "vasp-pbe-table")
    (level,) = [row for row in cli("levels", "--json") if row["key"]]
    assert (level["halted"], level["hull_version"], level["entries"]) == (None, published(), len(ENERGIES))


@pytest.mark.usefixtures("mongod")
def test_an_audit_of_nothing_says_so(cli: Callable[..., Any]) -> None:
    """No level has a hull."""
    assert "no level has a hull yet" in cli("audit")
    assert cli("audit", "--json") == []


@pytest.mark.usefixtures("known")
def test_how_sure_a_verdict_is_comes_with_its_assumptions(cli: Callable[..., Any]) -> None:
    """Level, version, draws, and whose errors; the same seed gives the same."""
    start = published()
    data = cli("stability", "Mg-Si", "--samples", "50", "--seed", "3", "--json")
    assert (data["hull_version"], data["n_samples"], data["seed"], data["n_carrying"]) == (start, 50, 3, 5)
    by_name = {row["name"]: row for row in data["entries"]}
    assert (by_name["Mg2Si"]["p_stable"], by_name["MgSi"]["p_stable"]) == (1.0, 0.0)
    assert by_name["MgSi"]["sigma_energy"] == pytest.approx(0.01)
    assert by_name["Mg"]["distance"] is None
    assert cli("stability", "Mg-Si", "--samples", "50", "--seed", "3", "--json") == data
    text = cli("stability", "Mg-Si", "--samples", "50")
    assert "5 entries carry errors; 0 are taken as exact. Errors that entries share: none." in text
    assert f"hull version {start}" in text


@pytest.mark.usefixtures("known")
def test_without_errors_there_is_no_probability(cli: Callable[..., Any]) -> None:
    """One must be assumed, and is then named."""
    Entry.objects.update(set__uncertainty_parts_eV_per_atom={})
    assert "no entry carries an uncertainty" in cli("stability", "Mg-Si", status=9)
    text = cli("stability", "Mg-Si", "--assume", "0.02", "--samples", "50")
    assert "5 are assumed to have one of their own, 0.02 eV/atom" in text
