"""Readers see one whole version, however many queries they make and whatever is written meanwhile."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from bson import encode

from hullworks.analysis.history import expected_documents
from hullworks.analysis.published import (
    content_of,
    digest_of,
    verdicts_of_candidates,
    verdicts_of_entries,
    verdicts_of_level,
)
from hullworks.analysis.stability import recorrect, update_all
from hullworks.documents import Level

if TYPE_CHECKING:
    from hullworks.settings import Settings
    from tests.analysis.conftest import Lab

READERS = """
import hashlib, json, os, sys, traceback
from pathlib import Path
import pandas, pymongo
from bson import encode
from hullworks.analysis.client import connect
from hullworks.analysis.events import published
from hullworks.analysis.published import content_of, verdicts_of_entries, verdicts_of_level

def read(key):
    db, said = connect(read_only=True), open(f"said-{os.getpid()}", "w")
    while not Path("stop").exists():
        Path(f"reading-{os.getpid()}").touch()
        version = published(key)
        first = {doc["entry_id"] for doc in verdicts_of_level(key, version)}
        second = {}
        for name in sorted(first):
            second |= verdicts_of_entries(key, version, [name])
        contents = [encode(content_of(second[name])) for name in sorted(second)]
        print(json.dumps([version, len(first), hashlib.sha256(b"".join(contents)).hexdigest()]), file=said)
    said.close()

def child(key):
    try:
        read(key)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)

# Processes of their own, each with its own connection, that share what it takes to import.
pids = []
for _ in range(int(sys.argv[2])):
    pids.append(os.fork())
    if pids[-1] == 0:
        child(sys.argv[1])
sys.exit(any([os.waitpid(pid, 0)[1] for pid in pids]))
"""


def _expected(level_key: str) -> dict[int, tuple[int, str]]:
    """Return number and digest of the verdicts that hold at each version, worked out from the events."""
    documents = expected_documents(level_key)
    versions = sorted({since for _, since in documents} | {until for _, until in documents.values() if until < 2**62})
    found = {}
    for version in versions:
        holding = {n: content for (n, since), (content, until) in documents.items() if since <= version < until}
        said = b"".join(encode(holding[name]) for name in sorted(holding))
        found[version] = (len(holding), hashlib.sha256(said).hexdigest())
    return found


@pytest.mark.timeout(500)
@pytest.mark.parametrize("readers", [8, pytest.param(100, marks=pytest.mark.slow)])
def test_no_reader_ever_sees_half_a_version(lab: Lab, mongod: Settings, readers: int) -> None:
    """Processes read version after version entry by entry while one writes; every answer is that of one version."""
    for formula in ("Mg", "Si"):
        lab.enter(formula)
    for n in range(2, 12):
        lab.enter(f"Mg{n}Si", -1.0 - 4.0 / (n + 1))
    update_all()
    command = [sys.executable, "-c", READERS, lab.key, str(readers)]
    process = subprocess.Popen(command, cwd=mongod.project_dir)
    rounds, more = 0, 10
    while more:
        assert process.poll() is None
        recorrect("entry-Mg2Si-fast", -2.3 - 0.01 * (rounds % 7), {}, f"round {rounds}")
        rounds += 1
        more -= len(list(mongod.project_dir.glob("reading-*"))) == readers
    (mongod.project_dir / "stop").touch()
    assert process.wait() == 0
    files = list(mongod.project_dir.glob("said-*"))
    assert len(files) == readers
    lines = [line for file in files for line in file.read_text().splitlines()]
    expected = _expected(lab.key)
    seen = {tuple(json.loads(line)) for line in lines}
    assert len({version for version, *_ in seen}) > 1
    assert {(version, *expected[version]) for version, *_ in seen} == seen


def test_a_reader_of_an_old_version_reads_what_was_said_then(lab: Lab) -> None:
    """Whichever way it asks: by level, by system, by entry."""
    lab.enter_all()
    update_all()
    recorrect("entry-Mg2Si-fast", -2.1, {}, "why")
    name = "entry-MgSi-fast"
    then, now = (verdicts_of_entries(lab.key, version, [name])[name] for version in (6, 7))
    assert then["e_above_hull_eV_per_atom"] == pytest.approx(0.35)
    assert now["e_above_hull_eV_per_atom"] == pytest.approx(0.275)
    assert {doc["entry_id"]: doc for doc in verdicts_of_level(lab.key, 6)}[name] == then
    (only,) = verdicts_of_level(lab.key, 6, chemsys="Mg-Ge")
    assert only["entry_id"] == "entry-Mg-fast"
    assert (
        len(
            list(
                verdicts_of_level(
                    lab.key,
                    6,
                    chemsys="Mg-Si-Al-B-C-Ca-Cl-F-Fe-H-K-Li-N",
                )
            )
        )
        == 5
    )
    stable = {doc["entry_id"] for doc in verdicts_of_level(lab.key, 7, chemsys="Mg-Si", kind="stable")}
    assert stable == {"entry-Mg-fast", "entry-Si-fast", "entry-Mg2Si-fast"}
    assert verdicts_of_candidates({lab.key: ["cand-MgSi-fast"]})["cand-MgSi-fast"]["read_at"] == 7
    assert Level.objects.get(key=lab.other).published == 0


def test_a_digest_does_not_depend_on_the_order_and_on_nothing_but_the_content(lab: Lab) -> None:
    """Nor on the versions between which the verdicts hold; it does depend on each number, and on who is gone."""
    lab.enter_all()
    update_all()
    contents = [content_of(doc) for doc in verdicts_of_level(lab.key, 6)]
    digest = digest_of(contents, ())
    assert digest_of(reversed(contents), ()) == digest
    assert digest_of(contents, ["entry-x"]) != digest
    contents[0] = {**contents[0], "formation_energy_eV_per_atom": 1e-10}
    assert digest_of(contents, ()) != digest
