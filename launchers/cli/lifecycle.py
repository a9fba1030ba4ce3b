"""Commands with which a user holds back, gives up or takes up again what he has submitted; and `reconcile`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hullworks.errors import InputError
from hullworks.launchers.cli.common import JsonOption, connected, emit, say, use_configuration

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from hullworks.launchers.bookkeeping.look import Ports
    from hullworks.launchers.bookkeeping.ports import Queue
    from hullworks.settings import Settings

Operation = Literal["pause", "resume", "cancel", "retry"]
WhatArgument = Annotated[list[str], typer.Argument(metavar="BATCH|CANDIDATE...", help="Batches, or ids of candidates.")]

PAUSE_S = 5.0
"""Between two looks of `reconcile --settle`, s."""


def pause(what: WhatArgument, as_json: JsonOption = False) -> None:
    """Hold batches or candidates back: what waits does not start, what runs stops and is kept for `resume`."""
    _operate("pause", what, as_json)


def resume(what: WhatArgument, as_json: JsonOption = False) -> None:
    """Let paused batches or candidates go on from where they were."""
    _operate("resume", what, as_json)


def cancel(what: WhatArgument, as_json: JsonOption = False) -> None:
    """Give batches or candidates up, with what is queued and what runs of them; `retry` takes them up again."""
    _operate("cancel", what, as_json)


def retry(what: WhatArgument, as_json: JsonOption = False) -> None:
    """Try failed and cancelled candidates again, from their checkpoints."""
    _operate("retry", what, as_json)


def reconcile(
    settle: Annotated[
        bool, typer.Option("--settle", help="Look again until nothing is in doubt; at most some minutes.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Bring LaunchPad, queue and candidates together. Every launch does it too; safe at any time, beside anything."""
    from collections import Counter

    from hullworks.launchers.bookkeeping.patience import load_patience
    from hullworks.launchers.bookkeeping.reconciliation import reconcile as look_once

    done: Counter[str] = Counter()
    waits: list[str] = []
    end = time.monotonic() + 2 * load_patience().plan_s
    with _ports(connected()) as ports:
        while True:
            look = look_once(ports)
            if look is not None:
                done, waits = done + look.done, look.waits
            if not settle or (look is not None and not look.n_doubts) or time.monotonic() > end:
                break
            time.sleep(PAUSE_S)
    left = 0 if look is None else look.n_doubts
    emit({"done": dict(done), "in_doubt": left, "waits": waits}, as_json, lambda: _line(dict(done), "all is in order"))
    if left and not as_json:
        say(f"{left} in doubt: put right if it still looks so in some time; --settle waits for it")
    for wait in waits if not as_json else ():
        say(wait)


def _operate(operation: Operation, what: list[str], as_json: bool) -> None:
    """Do one operation on everything that was named."""
    from collections import Counter

    from hullworks.launchers.bookkeeping import lifecycle

    found = connected()
    batches, candidates = _sorted_out(what)
    operate = getattr(lifecycle, operation)
    done: Counter[str] = Counter()
    with _ports(found) as ports:
        for batch in batches:
            done += operate(ports, batch=batch)
        if candidates:
            done += operate(ports, candidates=candidates)
    emit({"done": dict(done)}, as_json, lambda: _line(dict(done), "nothing was left to do"))


def _sorted_out(what: list[str]) -> tuple[list[str], list[str]]:
    """Return which of the names are batches, and which candidates.

    Raises:
        InputError: A name is neither; nothing was done.
    """
    from hullworks.documents import Batch, Candidate

    batches = [name for name in what if Batch.objects(name=name).first() is not None]
    candidates = [name for name in what if name not in batches]
    unknown = [name for name in candidates if Candidate.objects(candidate_id=name).first() is None]
    if unknown:
        raise InputError("neither a batch nor a candidate", ", ".join(unknown), "`hullworks batches` lists batches.")
    return batches, candidates


def _ports(found: Settings) -> AbstractContextManager[Ports]:
    """Return the project's ports; its LaunchPad is closed at the end of the ``with`` block."""
    from contextlib import contextmanager

    use_configuration(found)

    @contextmanager
    def opened() -> Iterator[Ports]:
        from hullworks.launchers.launchpad import open_launchpad
        from hullworks.launchers.reconcile import real_ports

        launchpad = open_launchpad(found)
        try:
            yield real_ports(launchpad, lost_after_s=found.launch.lost_after_s, queue=_queue(found))
        finally:
            launchpad.connection.close()

    return opened()


def _queue(found: Settings) -> Queue | None:
    """Return the project's queue when it may have jobs there; a project without any may know no queue at all."""
    from hullworks.launchers.bookkeeping.mongo_book import MongoBook
    from hullworks.states import OPEN_JOBS

    if not MongoBook().jobs(OPEN_JOBS):
        return None
    from hullworks.launchers.slurm.commands import SlurmQueue
    from hullworks.launchers.slurm.launch import project_comment
    from hullworks.sites import load_site

    return SlurmQueue(project_comment(found), load_site(found).answer_s)


def _line(done: dict[str, int], nothing: str) -> str:
    return ", ".join(f"{number} {what}" for what, number in sorted(done.items())) or nothing
