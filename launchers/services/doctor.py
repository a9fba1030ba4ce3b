"""Doctor: what is on this machine, whether it works, and how to get what is not."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from hullworks.errors import HullWorksError
from hullworks.launchers.services.doctor_codes import check_families, check_mpi, check_pw, check_vasp
from hullworks.launchers.services.doctor_database import check_mongodb
from hullworks.launchers.services.doctor_machine import (
    check_chromium,
    check_disk,
    check_packages,
    check_python,
    check_slurm,
)
from hullworks.launchers.services.findings import Part, PartState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hullworks.settings import Settings

    Check = Callable[[Settings], list[Part]]

__all__ = ["CHECKS", "Part", "PartState", "examine", "is_ready"]

CHECKS: Final[Mapping[str, Check]] = {
    "Python": check_python,
    "packages": check_packages,
    "MongoDB": check_mongodb,
    "pw.x": check_pw,
    "pseudopotentials": check_families,
    "MPI": check_mpi,
    "VASP": check_vasp,
    "SLURM": check_slurm,
    "Chromium": check_chromium,
    "disk": check_disk,
}
"""What is looked at, in the order of the listing."""
OPTIONAL: Final = frozenset({"MPI", "VASP", "POTCAR files", "SLURM", "Chromium"})
"""Parts whose absence takes nothing from batches that run on this machine with Quantum ESPRESSO."""
CHECK_WAIT_S = 40.0
"""Longer than any program is waited for; only a file system that hangs takes longer."""


def examine(
    settings: Settings, *, wait_s: float = CHECK_WAIT_S, checks: Mapping[str, Check] | None = None
) -> list[Part]:
    """Look at every part that HullWorks uses, all at the same time.

    Nothing is installed, started or changed. A part that hangs is broken, and does not hold the others up.

    Args:
        settings: The project's settings.
        wait_s: Longest time for the whole, s.
        checks: What to look at; by default everything.
    """
    chosen = CHECKS if checks is None else checks
    found: dict[str, list[Part]] = {}
    # Daemons: a thread that hangs in a dead network disk must not keep the program from ending.
    threads = {
        name: threading.Thread(target=_run, args=(name, check, settings, found), name=f"doctor {name}", daemon=True)
        for name, check in chosen.items()
    }
    deadline = time.monotonic() + wait_s
    for thread in threads.values():
        thread.start()
    for thread in threads.values():
        thread.join(max(0.0, deadline - time.monotonic()))
    return [part for name, thread in threads.items() for part in found.get(name) or [_no_answer(thread, name, wait_s)]]


def is_ready(parts: list[Part]) -> bool:
    """Return whether HullWorks can do its work with these parts; a broken part that is optional does not count."""
    return not any(
        part.state is PartState.MISSING or (part.state is PartState.BROKEN and part.name not in OPTIONAL)
        for part in parts
    )


def _run(name: str, check: Check, settings: Settings, found: dict[str, list[Part]]) -> None:
    try:
        found[name] = check(settings)
    except OSError as error:
        detail = f"It could not be looked at ({error.strerror})."
        found[name] = [Part(name=name, state=PartState.BROKEN, where=str(error.filename or ""), detail=detail)]
    except HullWorksError as error:
        cure = error.next_step
        found[name] = [Part(name=name, state=PartState.BROKEN, where=error.where, detail=error.what, how_to_get=cure)]


def _no_answer(thread: threading.Thread, name: str, wait_s: float) -> Part:
    late = f"It did not answer within {wait_s:.0f} s."
    detail = late if thread.is_alive() else "Looking at it failed, which is a fault of HullWorks: please report it."
    return Part(name=name, state=PartState.BROKEN, detail=detail)
