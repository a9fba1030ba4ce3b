"""The loop of `hullworks launch local`; whole campaigns with it are in `tests/test_campaign.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pymongo.errors import AutoReconnect

from hullworks.launchers.local import LocalLauncher

if TYPE_CHECKING:
    from pathlib import Path

    from fireworks import LaunchPad

    from hullworks.settings import Settings


def test_a_database_that_goes_away_while_progress_is_shown_is_waited_for(
    mongod: Settings, launchpad: LaunchPad, tmp_path: Path
) -> None:
    """The display reads the database as the bookkeeping does; neither may end the launcher."""
    said: list[str] = []

    def show(message: str) -> None:
        said.append(message)
        if message == "working":
            raise AutoReconnect("gone")

    launcher = LocalLauncher(mongod, workers=0, forever=True, on_tick=show)
    assert launcher._tick(launchpad, [], {}, tmp_path / "stop")
    assert said == ["working", "waiting for the database (AutoReconnect)"]
