"""The LaunchPad and its configuration: stock commands, double adding, secrets; on a real MongoDB."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fireworks import Firework, ScriptTask, Workflow

from hullworks.database import database_uri
from hullworks.errors import StateError
from hullworks.launchers.bookkeeping.adding import ADDING, add_whole
from hullworks.launchers.configuration import uri_with_database, write_configuration
from hullworks.launchers.launchpad import add_workflow, prepare

if TYPE_CHECKING:
    from fireworks import LaunchPad

    from hullworks.settings import Settings


def _workflow(calculation: str = "calc-1", script: str = "echo hello > said") -> Workflow:
    first = Firework([ScriptTask.from_str(script)], name="first")
    second = Firework([ScriptTask.from_str("true")], name="second", parents=[first])
    return Workflow([first, second], metadata={"calculation_id": calculation, "candidate_id": "cand-1"})


def _stock(command: str, *arguments: str, environment: dict[str, str], folder: Path) -> str:
    program = Path(sys.executable).with_name(command)
    done = subprocess.run(
        [str(program), *arguments],
        env={**os.environ, **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_the_database_name_stands_in_the_address(mongod: Settings) -> None:
    """FireWorks takes it from there; a name that the user's address holds is replaced, the rest is kept."""
    assert f"/{mongod.database.name}?authSource=" in uri_with_database(mongod)
    from pydantic import SecretStr

    for given, expected in (
        ("mongodb://u:p@h1,h2/?replicaSet=r", f"mongodb://u:p@h1,h2/{mongod.database.name}?replicaSet=r"),
        ("mongodb://h1/other?tls=true", f"mongodb://h1/{mongod.database.name}?tls=true"),
        ("mongodb://h1", f"mongodb://h1/{mongod.database.name}"),
    ):
        database = mongod.database.model_copy(update={"uri": SecretStr(given)})
        assert uri_with_database(mongod.model_copy(update={"database": database})) == expected


def test_a_calculation_is_added_once(launchpad: LaunchPad) -> None:
    """The database refuses the second workflow, and leaves no firework of it behind."""
    assert add_workflow(launchpad, _workflow()) == 1
    with pytest.raises(StateError, match="already on the LaunchPad"):
        add_workflow(launchpad, _workflow())
    assert launchpad.fireworks.count_documents({}) == 2
    assert add_workflow(launchpad, _workflow("calc-2")) == 5, "the numbers of the refused one are not used again"
    assert launchpad.workflows.count_documents({}) == 2


def test_many_are_added_at_once_each_calculation_once(launchpad: LaunchPad) -> None:
    """Those that are there, also in the same call, are left out; the others keep their graph and are ready."""
    add_workflow(launchpad, _workflow("calc-2"))
    firsts = add_whole(launchpad, [_workflow(f"calc-{number}") for number in (1, 2, 3, 3)])
    assert firsts == [3, None, 7, None]
    assert add_whole(launchpad, []) == []
    assert add_whole(launchpad, [_workflow("calc-1")]) == [None]
    assert launchpad.get_wf_by_fw_id(7).links == {7: [8], 8: []}
    states = {fw["fw_id"]: fw["state"] for fw in launchpad.fireworks.find({})}
    assert not launchpad.workflows.count_documents({ADDING: True})
    assert states == {1: "READY", 2: "WAITING", 3: "READY", 4: "WAITING", 7: "READY", 8: "WAITING"}


def test_preparing_again_keeps_what_is_there(launchpad: LaunchPad) -> None:
    """Unlike `lpad reset`, which wipes everything."""
    add_workflow(launchpad, _workflow())
    prepare(launchpad)
    assert launchpad.workflows.count_documents({}) == 1


def test_the_stock_commands_work_with_what_is_written(mongod: Settings, launchpad: LaunchPad) -> None:
    """`lpad` lists and `rlaunch` runs the same LaunchPad, from any folder, without a password on their command line."""
    environment = write_configuration(mongod)
    add_workflow(launchpad, _workflow())
    folder = mongod.project_dir / "elsewhere"
    folder.mkdir()
    listed = _stock("lpad", "get_wflows", "-d", "more", environment=environment, folder=folder)
    assert "first" in listed
    assert "READY" in listed
    _stock("rlaunch", "rapidfire", environment=environment, folder=folder)
    assert {doc["state"] for doc in launchpad.fireworks.find()} == {"COMPLETED"}
    assert [path.read_text().strip() for path in folder.rglob("said")] == ["hello"]


def test_secrets_stay_in_private_files(mongod: Settings, launchpad: LaunchPad) -> None:
    """Files with the password are their owner's alone; nothing that goes to the LaunchPad or a screen holds it."""
    environment = write_configuration(mongod)
    password = database_uri(mongod).split(":")[2].split("@")[0]
    assert len(password) > 20
    written = list(mongod.config_dir.iterdir())
    assert len(written) == 5
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in written)
    assert stat.S_IMODE(mongod.config_dir.stat().st_mode) == 0o700
    assert password not in json.dumps(environment)
    add_workflow(launchpad, _workflow())
    stored = [doc for name in ("workflows", "fireworks") for doc in launchpad.db[name].find({}, {"_id": 0})]
    assert password not in json.dumps(stored, default=str)


def test_a_site_s_queue_adapter_is_left_alone(mongod: Settings) -> None:
    """It is copied from the template once; edits survive."""
    write_configuration(mongod)
    adapter = mongod.config_dir / "my_qadapter.yaml"
    assert "_fw_q_type: SLURM" in adapter.read_text()
    adapter.write_text("mine\n")
    write_configuration(mongod)
    assert adapter.read_text() == "mine\n"
