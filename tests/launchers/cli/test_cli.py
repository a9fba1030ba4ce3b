"""The commands as users and scripts meet them: exit statuses, JSON, tables, one-line errors; on a real MongoDB."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pymatgen.core import Composition, Lattice, Structure
from pymongo.errors import AutoReconnect

from hullworks import __version__
from hullworks.analysis.stability import update_all
from hullworks.database import database_uri
from hullworks.documents import Candidate, Entry
from hullworks.launchers.cli.app import run
from hullworks.states import CandidateState, Cause

if TYPE_CHECKING:
    from hullworks.settings import Settings

S = CandidateState
HULLWORKS = str(Path(sys.executable).with_name("hullworks"))
MG = Structure(Lattice.hexagonal(3.19, 5.2), ["Mg", "Mg"], [[1 / 3, 2 / 3, 1 / 4], [2 / 3, 1 / 3, 3 / 4]])
SI = Structure(Lattice([[0, 2.73, 2.73], [2.73, 0, 2.73], [2.73, 2.73, 0]]), ["Si", "Si"], [[0.0] * 3, [0.25] * 3])
MGSI = Structure(Lattice.cubic(3.4), ["Mg", "Si"], [[0.0] * 3, [0.5] * 3])
ENERGIES = {"Mg": -1.0, "Si": -4.0, "MgSi": -2.3}
"""eV/atom; the tie line from Mg to Si passes MgSi at -2.5."""
ROWS = [
    json.dumps({"name": "Mg", "role": "reference", "structure": MG.as_dict()}),
    json.dumps({"name": "Si", "role": "reference", "structure": SI.as_dict()}),
    json.dumps({"name": "proposed [b]", "structure": MGSI.as_dict(), "prediction": {"e_above_hull": 0.02}}),
    json.dumps({"name": "Si", "structure": (SI * (2, 1, 1)).as_dict()}),
    '{"name": "cut off", "structure": {',
]
COUNTS = {"queued": 3, "duplicate": 1, "quarantined": 1}


class Cli:
    """Runs commands and keeps what they print."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *arguments: str, status: int = 0) -> str:
        """Return a command's output."""
        assert run(list(arguments)) == status, self.capsys.readouterr()
        out, self.errors = self.capsys.readouterr()
        return out

    def json(self, *arguments: str, status: int = 0) -> Any:  # noqa: ANN401 - any JSON value
        """Return what a command prints with ``--json``, read strictly; nothing else may be printed."""

        def refuse(constant: str) -> None:
            raise AssertionError(constant)

        text = self(*arguments, "--json", status=status)
        assert self.errors == ""
        return json.loads(text, parse_constant=refuse)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """The commands, run in this process."""
    return Cli(capsys)


@pytest.fixture
def batch(project: Settings) -> Path:
    """A file with references, a proposal, a duplicate and a broken row, in a folder of the project."""
    path = project.project_dir / "given" / "batch.jsonl"
    path.parent.mkdir()
    path.write_text("\n".join(ROWS), encoding="utf-8")
    return path


@pytest.fixture
def submitted(mongod: Settings, batch: Path, cli: Cli) -> dict[str, str]:
    """The batch, submitted; candidate ids by place in the file."""
    assert mongod.project_dir in batch.parents
    report = cli.json("submit", str(batch), "--batch", "b")
    return {str(number): row["candidate_id"] for number, row in enumerate(report["rows"], 1)}


def _enter(name: str) -> str:
    """Store an entry of a queued candidate as landing does, and return its id."""
    candidate = Candidate.objects.get(name=name, state=S.QUEUED)
    composition = Composition(candidate.reduced_formula)
    Entry(
        entry_id=f"entry-{composition.reduced_formula}",
        calculation_id=candidate.calculation_id,
        candidate_id=candidate.candidate_id,
        level_key=candidate.level_key,
        name=name,
        role=candidate.role,
        formula=composition.formula,
        reduced_formula=composition.reduced_formula,
        chemsys=composition.chemical_system,
        elements=sorted(composition.get_el_amt_dict()),
        composition=composition.get_el_amt_dict(),
        n_atoms=2,
        uncorrected_energy_eV_per_atom=0.0,
        energy_eV_per_atom=ENERGIES[composition.reduced_formula],
        structure=candidate.structure,
        structure_id=candidate.structure_id,
        initial_structure_id=candidate.structure_id,
        valid=True,
    ).save(force_insert=True)
    Candidate.move(candidate.candidate_id, S.LANDED, entry_id=f"entry-{composition.reduced_formula}")
    update_all()
    return f"entry-{composition.reduced_formula}"


@pytest.fixture
def judged(submitted: dict[str, str]) -> dict[str, str]:
    """The batch with an entry and a verdict for each crystal; candidate ids by place in the file."""
    for name in ("Mg", "Si", "proposed [b]"):
        _enter(name)
    return submitted


def test_the_version_and_the_help_need_nothing(cli: Cli, project: Settings) -> None:
    """Neither a database nor a project."""
    assert cli("--version").strip() == f"hullworks {__version__}"
    assert "submit" in cli("--help")
    assert "--dry-run" in cli("submit", "-h")
    assert not project.data_dir.exists()


def test_a_dry_run_says_what_would_become_of_each_row(cli: Cli, project: Settings, batch: Path) -> None:
    """Without a database, which this project never had; nothing is stored."""
    report = cli.json("submit", str(batch), "--dry-run")
    assert (report["counts"], report["dry_run"], report["batch"]) == (COUNTS, True, "batch")
    text = cli("submit", str(batch), "--dry-run")
    assert "a dry run: nothing is stored" in text
    assert not project.data_dir.exists()


def test_a_submission_shows_files_by_name(cli: Cli, mongod: Settings, batch: Path) -> None:
    """Not by their long folders; with two files of one name, as far up as they differ."""
    text = cli("submit", str(batch), "--batch", "b")
    assert "\n batch.jsonl, line 1 " in text
    assert str(mongod.project_dir) not in text
    assert "1 duplicate, 1 quarantined, 3 queued" in text
    other = batch.parent.parent / "later" / "batch.jsonl"
    other.parent.mkdir()
    other.write_text(ROWS[-1], encoding="utf-8")
    text = cli("submit", str(batch), str(other), "--batch", "b")
    assert "\n given/batch.jsonl, line 5 " in text
    assert "\n later/batch.jsonl, line 1 " in text
    assert "quarantined (known)" in text
    (row,) = [c.candidate_id for c in Candidate.objects(state=S.QUARANTINED, source_file=str(batch))]
    assert f"hullworks why {row}" in text


def test_a_large_submission_shows_what_needs_a_look(cli: Cli, project: Settings) -> None:
    """Beyond a screenful, the rows with a reason alone."""
    crystals = (MGSI.copy().scale_lattice(40.0 + 0.1 * number) for number in range(70))
    lines = [json.dumps({"name": f"c{i}", "structure": crystal.as_dict()}) for i, crystal in enumerate(crystals)]
    path = project.project_dir / "many.jsonl"
    path.write_text("\n".join([*lines, ROWS[-1]]), encoding="utf-8")
    policy = project.project_dir / "policy.yaml"
    policy.write_text("match_near_duplicates: false\n", encoding="utf-8")
    text = cli("submit", "many.jsonl", "--dry-run", "--policy", "policy.yaml")
    assert [line.split(",")[0].strip() for line in text.splitlines() if "many.jsonl" in line] == ["many.jsonl"]
    assert "1 quarantined, 70 queued" in text


@pytest.mark.parametrize(("rows", "status"), [(ROWS, 10), (ROWS[:4], 0)], ids=["with a broken row", "sound"])
def test_strict_tells_scripts_of_rows_that_were_not_taken(
    cli: Cli, project: Settings, rows: list[str], status: int
) -> None:
    """Status 10, with the whole report; without the option 0."""
    path = project.project_dir / "rows.jsonl"
    path.write_text("\n".join(rows), encoding="utf-8")
    assert len(cli.json("submit", str(path), "--dry-run", "--strict", status=status)["rows"]) == len(rows)
    cli("submit", str(path), "--dry-run")


def test_every_listing_prints_valid_json(cli: Cli, judged: dict[str, str]) -> None:
    """Read strictly: no NaN, nothing beside it."""
    (listed,) = cli.json("batches")
    assert (listed["name"], listed["total"]) == ("b", 5)
    assert listed["counts"] == {"duplicate": 1, "quarantined": 1, "verified": 3}
    assert cli.json("status")["counts"] == cli.json("status", "b")["counts"] == listed["counts"]
    assert [row["name"] for row in cli.json("candidates")] == ["Mg", "Si", "proposed [b]", "Si", None]
    assert {row["state"] for row in cli.json("candidates", "--state", "verified", "--batch", "b")} == {"verified"}
    assert [row["reduced_formula"] for row in cli.json("candidates", "--chemsys", "Si-Mg")] == ["MgSi"]
    assert len(cli.json("candidates", "--limit", "2")) == 2
    hull = cli.json("hull", "Si-Mg")
    assert [entry["name"] for entry in hull["entries"]] == ["Mg", "Si", "proposed [b]"]
    assert hull["entries"][2]["e_above_hull"] == pytest.approx(0.2)
    assert [row["name"] for row in cli.json("stable")] == ["Mg", "Si"]
    assert [row["name"] for row in cli.json("stable", "Si-Ge", "--level", "qe-pbe-fast")] == ["Si"]
    newest = hull["entries"][0]["hull_version"]
    levels = {row["slug"]: row for row in cli.json("levels")}
    assert (levels["qe-pbe-fast"]["candidates"], levels["qe-pbe-fast"]["entries"]) == (5, 3)
    assert levels["qe-pbe-balanced"]["key"] is None
    story = cli.json("why", judged["3"])
    assert (story["verdict"], story["hull_version"], story["flags"]) == ("unstable", newest, [])
    assert [row["what"] for row in cli.json("history", "entry-MgSi")] == ["added, above the hull"]
    assert cli.json("config")["settings"]["level"] == "qe-pbe-fast"


def test_every_listing_has_a_table(cli: Cli, judged: dict[str, str]) -> None:
    """With names as they are: brackets are no markup."""
    assert "3 verified" in cli("batches")
    assert "3 verified" in cli("status", "b")
    assert "proposed [b]" in cli("candidates")
    assert "the first 2; --limit shows more" in cli("candidates", "--limit", "2")
    hull = cli("hull", "Mg-Si")
    assert re.search(r"hull version \d+; energies in eV/atom", hull)
    (line,) = [line for line in hull.splitlines() if "proposed [b]" in line]
    assert line.split()[2:7] == ["MgSi", "candidate", "0.2000", "0.2000", "unstable"]
    assert "-0.0000" not in hull
    assert "entry-Si" in cli("stable", "Mg-Si")
    assert "qe-pbe-fast-" in cli("levels")
    assert "added, above the hull" in cli("history", "entry-MgSi")
    story = cli("why", judged["3"])
    assert "proposed [b]  MgSi  is verified" in story
    assert "0.2000 eV/atom above the hull of " in story


def test_a_hull_without_a_reference_is_valid_json(cli: Cli, submitted: dict[str, str]) -> None:
    """What is not known is null, and what is missing is named."""
    assert submitted
    _enter("proposed [b]")
    (entry,) = cli.json("hull", "Mg-Si")["entries"]
    assert (entry["verdict"], entry["e_above_hull"]) == ("indeterminate", None)
    assert {"Mg", "Si"} <= {name.split()[0] for name in entry["missing"]}
    assert "indeterminate" in cli("hull", "Mg-Si")


def test_a_hull_of_the_past_and_its_picture(cli: Cli, judged: dict[str, str]) -> None:
    """As of an earlier event; the picture is named."""
    assert judged
    proposed = cli.json("history", "entry-MgSi")[0]["sequence"]
    before = cli.json("hull", "Mg-Si", "--as-of", str(proposed - 1))["entries"]
    assert [entry["name"] for entry in before] == ["Mg", "Si"]
    assert "phase diagram: hull.html" in cli("hull", "Mg-Si", "--plot", "hull.html")
    assert Path("hull.html").stat().st_size > 1000
    cli("hull", "Mg-Si", "--plot", "hull.gif", status=2)
    cli("hull", "Mg-Si", "--as-of", "9", status=9)
    cli("hull", "Mg-Unobtainium", status=2)


@pytest.mark.usefixtures("submitted")
@pytest.mark.parametrize(
    "command", [["candidates", "--state", "failed"], ["stable"], ["hull", "Mg-Si"], ["candidates", "--chemsys", "Ge"]]
)
def test_what_is_empty_says_so(cli: Cli, command: list[str]) -> None:
    """A word instead of a table's bare head; an empty list for scripts."""
    assert cli(*command).splitlines()[-1] == "(none)"
    found = cli.json(*command)
    assert (found["entries"] if isinstance(found, dict) else found) == []


@pytest.mark.usefixtures("mongod")
def test_an_empty_project_lists_nothing(cli: Cli) -> None:
    """No batch, no candidate; the levels that can be asked for."""
    assert cli("batches") == cli("candidates") == "(none)\n"
    assert "nothing yet" in cli("status")
    assert "qe-pbe-fast" in cli("levels")
    cli("stable", status=4)


def test_why_takes_an_id_or_a_name_that_only_one_has(cli: Cli, submitted: dict[str, str]) -> None:
    """An ambiguous name lists the ids to choose from."""
    assert "Mg  is queued" in cli("why", "Mg")
    assert cli.json("why", submitted["4"])["duplicate_of"] == submitted["2"]
    assert f"twin of   {submitted['2']}" in cli("why", submitted["4"])
    cli("why", "Si", status=2)
    assert f"{submitted['2']} (queued)" in cli.errors
    assert f"{submitted['4']} (duplicate)" in cli.errors
    cli("why", "nobody", status=2)
    assert "`hullworks candidates` lists them" in cli.errors


def test_why_of_a_quarantined_row_says_what_and_what_next(cli: Cli, submitted: dict[str, str], batch: Path) -> None:
    """Where it stands, what is wrong, what to do, and how the row begins."""
    story = cli("why", submitted["5"])
    assert f"{batch}:5" in story
    assert "[syntax] JSON cut off" in story
    assert "Write the row again with the program that made it." in story
    assert ROWS[-1] in story
    data = cli.json("why", submitted["5"])
    assert data["raw_snippet"] == ROWS[-1]
    assert data["reason"]["next_step"]


def test_a_duplicate_shows_the_verdict_of_its_twin(cli: Cli, judged: dict[str, str]) -> None:
    """Also when the twin's document was deleted by hand."""
    assert cli.json("why", judged["4"])["verdict"] == "stable"
    Candidate.objects(candidate_id=judged["2"]).delete()
    assert cli.json("why", judged["4"])["state"] == "duplicate"


def test_failed_candidates_make_a_status_that_scripts_see(cli: Cli, submitted: dict[str, str]) -> None:
    """Status 10, the cause and the reason."""
    Candidate.move(submitted["3"], S.SUBMITTED)
    Candidate.move(submitted["3"], S.FAILED, cause=Cause.WALLTIME)
    (failed,) = cli.json("status", "b", status=10)["failed"]
    assert (failed["name"], failed["cause"]) == ("proposed [b]", "walltime")
    assert "failed   proposed [b] (cand-" in cli("status", status=10)


@pytest.mark.usefixtures("mongod")
@pytest.mark.parametrize(
    ("arguments", "status", "problem"),
    [
        (["status", "nosuch"], 2, "nosuch: there is no such batch"),
        (["candidates", "--batch", "nosuch"], 2, "there is no such batch"),
        (["candidates", "--state", "asleep"], 2, "asleep: no such state"),
        (["submit", "nosuch.jsonl"], 2, "no such file or folder"),
        (["submit", "hullworks.toml", "--policy", "nosuch.yaml"], 2, "the policy cannot be read"),
        (["history", "nosuch"], 2, "there is no such entry"),
        (["submit", "hullworks.toml", "--level", "qe-lda-fast"], 4, "not of lda"),
        (["submit", "hullworks.toml", "--level", "nosuch"], 4, "a level's name is like"),
        (["hull", "Mg-Si", "--level", "nosuch"], 4, "no such level"),
    ],
)
def test_errors_are_one_line_or_one_object(cli: Cli, arguments: list[str], status: int, problem: str) -> None:
    """On standard error, with what, where and the next step; nothing on standard output."""
    assert cli(*arguments, status=status) == ""
    assert cli.errors.startswith("error: ")
    assert problem in cli.errors
    assert cli.errors.count("\n") == 1
    assert cli(*arguments, "--json", status=status) == ""
    error = json.loads(cli.errors)
    assert set(error) == {"error", "what", "where", "next_step"}
    assert cli("--debug", *arguments, status=status) == ""
    assert cli.errors.startswith("Traceback")
    assert problem in cli.errors.splitlines()[-1]


@pytest.mark.usefixtures("project")
def test_wrong_usage_ends_with_2(cli: Cli) -> None:
    """An unknown command or option, a missing argument, a number out of range."""
    for arguments in (
        ["fly"],
        ["status", "--fly"],
        ["submit"],
        ["candidates", "--limit", "0"],
        ["launch", "local", "-n", "0"],
    ):
        cli(*arguments, status=2)
        assert cli.errors


@pytest.mark.parametrize("text", ["windw = 3", "[launch]\nwindow = 0", "level = ["])
def test_wrong_settings_end_with_3(cli: Cli, project: Settings, text: str) -> None:
    """Whatever the command."""
    (project.project_dir / "hullworks.toml").write_text(text, encoding="utf-8")
    for command in ("status", "config", "doctor"):
        cli(command, status=3)
        assert "hullworks.toml" in cli.errors


@pytest.mark.usefixtures("project")
def test_a_mistyped_variable_ends_with_3(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would otherwise be passed over in silence."""
    monkeypatch.setenv("HULLWORKS_LEVLE", "x")
    cli("status", status=3)
    assert "HULLWORKS_LEVLE" in cli.errors


def test_a_database_that_was_never_started_ends_with_5(cli: Cli, project: Settings) -> None:
    """The error names the command that starts it."""
    assert project.embedded_database
    for command in (["status"], ["submit", "hullworks.toml"], ["config", "--env"], ["launch", "local"]):
        cli(*command, status=5)
        assert "Run: hullworks up" in cli.errors


@pytest.mark.usefixtures("project")
def test_a_database_that_does_not_answer_ends_with_6(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line within seconds, without the password."""
    monkeypatch.setattr("hullworks.database.connect.__kwdefaults__", {"wait_s": 0.3, "create": True})
    monkeypatch.setenv("HULLWORKS_DATABASE__URI", "mongodb://someone:hunter2@127.0.0.1:9/?authSource=admin")
    cli("batches", status=6)
    assert "the server does not answer" in cli.errors
    assert "hunter2" not in cli.errors


@pytest.mark.usefixtures("mongod")
@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (AutoReconnect("gone"), 6, "the database stopped answering"),
        (RuntimeError("two\nlines"), 1, "unexpected RuntimeError: two lines"),
        (KeyboardInterrupt(), 130, "interrupted; nothing is lost"),
    ],
    ids=["database lost", "unexpected", "interrupted"],
)
def test_what_nobody_foresaw_is_one_line_too(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, raised: BaseException, status: int, said: str
) -> None:
    """And an object for scripts; the trace is for ``--debug``."""

    def fails() -> None:
        raise raised

    monkeypatch.setattr("hullworks.launchers.listings.batches", fails)
    cli("batches", status=status)
    assert said in cli.errors
    assert cli.errors.count("\n") == 1
    cli("batches", "--json", status=status)
    assert status == 130 or set(json.loads(cli.errors)) == {"error", "what", "where", "next_step"}


def test_no_secret_is_shown(cli: Cli, mongod: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by ``config`` in any form, wherever the address stands."""
    address = database_uri(mongod)
    password = address.split("@")[0].rpartition(":")[2]
    shown = [cli("config"), json.dumps(cli.json("config")), cli("config", "--env"), cli("up")]
    monkeypatch.setenv("HULLWORKS_DATABASE__URI", address)
    shown += [cli("config"), json.dumps(cli.json("config"))]
    assert len(password) > 8
    assert not any(password in text for text in shown)
    assert re.search(r"database\.uri_file\s+uri", shown[0])


def test_the_environment_for_stock_commands(cli: Cli, mongod: Settings) -> None:
    """As lines for a shell, or as an object."""
    lines = cli("config", "--env").splitlines()
    variables = cli.json("config", "--env")
    assert set(variables) == {"FW_CONFIG_FILE", "JOBFLOW_CONFIG_FILE", "HULLWORKS_PROJECT_DIR"}
    assert variables["HULLWORKS_PROJECT_DIR"] == str(mongod.project_dir)
    assert len(lines) == 3
    assert all(line.startswith("export ") for line in lines)


def test_the_project_may_be_elsewhere(cli: Cli, mongod: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named by an option, or found from a folder below it."""
    below = mongod.project_dir / "below"
    below.mkdir()
    monkeypatch.chdir(below)
    assert cli.json("config")["settings"]["project_dir"] == str(mongod.project_dir)
    monkeypatch.chdir("/")
    monkeypatch.setenv("HULLWORKS_PROJECT_DIR", "/nowhere")  # so that what the option sets is undone
    assert cli.json("-C", str(mongod.project_dir), "config")["settings"]["project_dir"] == str(mongod.project_dir)


def test_a_watch_can_be_interrupted(submitted: dict[str, str], mongod: Settings) -> None:
    """Ctrl-C ends it with 130 and one line; what it shows into a pipe are plain lines."""
    assert submitted
    with subprocess.Popen(
        [HULLWORKS, "status", "--watch"],
        cwd=mongod.project_dir,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "3 queued" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        errors = process.stderr.read()
    assert process.returncode == 130
    assert errors.strip().splitlines()[-1].startswith("interrupted")


def test_a_watch_ends_when_no_work_is_owed(cli: Cli, submitted: dict[str, str]) -> None:
    """Then it shows how the batch stands, like without it; an unknown batch is refused."""
    Candidate.objects(candidate_id__in=list(submitted.values()), state=S.QUEUED).update(set__state=S.CANCELLED)
    assert "3 cancelled" in cli("status", "b", "--watch")
    cli("status", "nosuch", "--watch", status=2)
