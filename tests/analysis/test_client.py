"""The client for notebooks and scripts: whole levels, past and present, with rights to read alone."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import mongoengine
import numpy as np
import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from hullworks.analysis.client import StabilityDB, connect
from hullworks.analysis.stability import recorrect, retract, update_all
from hullworks.documents import Candidate, StoredVerdict
from hullworks.errors import HullError, InputError, LevelError
from hullworks.launchers.services.mongod_launch import free_port
from hullworks.launchers.services.parts import find_mongod
from hullworks.states import CandidateState, Role

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from hullworks.settings import Settings
    from tests.analysis.conftest import Lab

LEVEL = "qe-pbe-fast"


@pytest.fixture
def site_server(server: Settings, tmp_path: Path) -> Iterator[str]:
    """Address of a server as a site runs one, with its administrator; the private one lets nobody make users."""
    program, port = find_mongod(server), free_port(0)
    (tmp_path / "db").mkdir()
    command = [program.path, "--auth", "--dbpath", tmp_path / "db", "--port", port, "--bind_ip", "127.0.0.1"]
    command += ["--nounixsocket", "--wiredTigerCacheSizeGB", "0.25", "--logpath", tmp_path / "log"]
    with subprocess.Popen([str(part) for part in command], env=dict(program.environment)) as process:
        client: MongoClient[dict[str, object]] = MongoClient("127.0.0.1", port, serverSelectionTimeoutMS=60_000)
        with client:  # as long as there is no user, one from this machine may make the first
            client.admin.command("createUser", "admin", pwd="rule", roles=["root"])
        yield f"127.0.0.1:{port}"
        process.terminate()


@pytest.fixture
def reading(site_server: str, project: Settings, new_lab: Callable[[], Lab]) -> Iterator[StabilityDB]:
    """The client, connected as a user that may read this database and nothing else."""
    name = project.database.name
    address = f"mongodb://admin:rule@{site_server}/?authSource=admin"
    connect(address)
    lab = new_lab()
    lab.enter_all()
    lab.declare("MgSi", CandidateState.LANDED, Role.CANDIDATE)
    update_all()
    admin: MongoClient[dict[str, object]] = MongoClient(address)
    with admin:
        admin[name].command("createUser", "reader", pwd="look", roles=["read"])
    yield connect(f"mongodb://reader:look@{site_server}/?authSource={name}", read_only=True)
    mongoengine.disconnect()


def test_a_reader_needs_no_right_to_write(reading: StabilityDB) -> None:
    """Every question is answered, and nothing can be changed."""
    with pytest.raises(OperationFailure, match="not authorized"):
        StoredVerdict.collection().delete_many({})
    assert len(reading.levels()) == 2
    assert list(reading.hull("Si-Mg", level=LEVEL).stable["name"]) == ["Mg", "Si", "Mg2Si"]
    assert list(reading.stable(LEVEL, "Mg-Si-Ge")["entry_id"]) == ["entry-Mg-fast", "entry-Mg2Si-fast", "entry-Si-fast"]
    assert reading.stable("qe-pbe-balanced").empty
    assert reading.e_above_hull(["MgSi", "Mg2Si"], [-2.3, -2.5], level=LEVEL) == pytest.approx([0.35, -0.3])
    assert [step.what for step in reading.history("entry-MgSi-fast")] == ["added"]
    assert len(reading.diff(0, level=LEVEL).appeared) == 5
    (row,) = reading.candidates().to_dict("records")
    assert (row["state"], row["verdict"], row["hull_version"]) == ("verified", "unstable", 6)


def test_a_verdict_names_its_level_versions_and_flags(lab: Lab, mongod: Settings) -> None:
    """The version that made it, and the one at which it still holds."""
    lab.enter_all()
    candidate = lab.declare("MgSi", CandidateState.LANDED, Role.CANDIDATE)
    db = StabilityDB(mongod)
    assert db.verdict(candidate.candidate_id) is None
    update_all()
    lab.enter("Mg9Si", -1.2)
    update_all()
    verdict = db.verdict(candidate.candidate_id)
    assert verdict is not None
    assert (verdict["level"], verdict["hull_version"], verdict["read_at"], verdict["flags"]) == (lab.key, 6, 7, [])
    assert verdict["decomposition"] == ["0.250 Si", "0.750 Mg2Si"]
    Candidate.objects.update(set__duplicate_of="cand-Mg2Si-fast")
    twin = db.verdict(candidate.candidate_id)
    assert twin is not None
    assert twin["verdict"] == "stable"
    with pytest.raises(InputError, match="no such candidate"):
        db.verdict("cand-x")


def test_hulls_are_read_as_of_any_event(lab: Lab, mongod: Settings) -> None:
    """The past hull is rebuilt exactly, and its verdicts quote its own version."""
    for formula in ("Mg", "Si", "Mg2Si", "MgSi"):
        lab.enter(formula)
        update_all()
    db = StabilityDB(mongod)
    now = db.hull("Si-Mg", level=LEVEL)
    assert list(now.stable["name"]) == ["Mg", "Si", "Mg2Si"]
    diagram = now.phase_diagram()
    proposed = next(entry for entry in diagram.all_entries if entry.reduced_formula == "MgSi")
    assert diagram.get_e_above_hull(proposed) == pytest.approx(0.35, abs=1e-8)
    then = db.hull("Mg-Si", level=LEVEL, as_of=3)
    assert [row["name"] for row in then.rows()] == ["Mg", "Si"]
    assert {row["hull_version"] for row in then.rows()} == {3}
    assert now.as_of(3).view.ids == then.view.ids
    with pytest.raises(HullError, match="no event 9"):
        db.hull("Mg-Si", level=LEVEL, as_of=9)
    with pytest.raises(LevelError, match="no such level"):
        db.hull("Mg-Si", level="vasp")


def test_the_cached_hull_of_a_level_follows_every_change(lab: Lab, mongod: Settings) -> None:
    """Additions, re-corrections and retractions by others are caught up with; within a version it is the same one."""
    lab.enter_all()
    update_all()
    db = StabilityDB(mongod)
    asked = ["MgSi", "Mg3Si"], [-2.3, -1.8]
    before = db.e_above_hull(*asked, level=LEVEL)
    assert db.engine(LEVEL) is db.engine(LEVEL)
    lab.enter("Mg5Si", -2.0)
    update_all()
    recorrect("entry-Mg2Si-fast", -2.1, {}, "why")
    moved = db.e_above_hull(*asked, level=LEVEL)
    assert (moved != before).all()
    assert moved.tolist() == StabilityDB(mongod).e_above_hull(*asked, level=LEVEL).tolist()
    recorrect("entry-Mg2Si-fast", -2.2, {}, "why not")
    retract("entry-Mg5Si-fast", "wrong")
    assert db.e_above_hull(*asked, level=LEVEL).tolist() == before.tolist()
    assert np.isnan(db.e_above_hull(["GeMg"], [-1.0], level=LEVEL)).all()


def test_duplicates_of_a_database_of_the_same_name_are_not_mixed_up(lab: Lab, mongod: Settings) -> None:
    """A level that was emptied and filled again has another history, however many events it has."""
    lab.enter_all()
    update_all()
    db = StabilityDB(mongod)
    assert db.e_above_hull(["MgSi"], [-2.3], level=LEVEL) == pytest.approx([0.35])
    lab.empty()
    lab.enter("Mg2Si", -2.1)
    for formula in ("Mg", "Si", "MgSi", "Mg3Si"):
        lab.enter(formula)
    update_all()
    assert db.e_above_hull(["MgSi"], [-2.3], level=LEVEL) == pytest.approx([0.275])
