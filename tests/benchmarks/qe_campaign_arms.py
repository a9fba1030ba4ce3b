"""The arms of the recovery campaign: a plain script, the peer's repairs, and the product as it is.

Each returns what it claims: whether it has a result, its energy and volume, and the cause that it names otherwise.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from pymatgen.core import Structure
from qe_campaign_aiida import Launcher, relax
from qe_campaign_cases import family
from qe_campaign_exit_codes import NAMES
from qe_campaign_faults import COUNT, WORKER, broken_launches

from hullworks.errors import InputError, RunError
from hullworks.workflows.qe.cells import check_structure
from hullworks.workflows.qe.checkpoints import checkpoint_folder
from hullworks.workflows.qe.executable import pw_environment
from hullworks.workflows.qe.inputs import write_pw_input
from hullworks.workflows.qe.jobs import another_round
from hullworks.workflows.qe.parser import parse_run
from hullworks.workflows.qe.run import FinishedRun, run_pw
from hullworks.workflows.qe.run_record import read_record, write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qe_campaign_cases import Case

    from hullworks.workflows.qe.inputs import PwInput
    from hullworks.workflows.qe.parser import QeRun

ROUNDS: Final = "rounds.json"
"""Structures that finished rounds of the product's relaxation ended with: the documents of its finished jobs."""


@dataclass(frozen=True)
class Claim:
    """What an arm says in the end.

    Attributes:
        claimed: Whether it says that it has a result.
        energy_eV_per_atom: The result.
        volume_A3_per_atom: The result.
        cause: Why it has none: an outcome of the product's vocabulary, or an exit code of the peer.
        story: What happened, in short words and in order.
    """

    claimed: bool
    energy_eV_per_atom: float | None = None
    volume_A3_per_atom: float | None = None
    cause: str = ""
    story: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)


def environment(folder: Path, *, worker: bool) -> dict[str, str]:
    """Return pw.x's environment, the product's own for all arms, with what the faults need.

    Args:
        folder: Folder of the case and arm.
        worker: Whether the process that drives pw.x dies with the node.
    """
    result = pw_environment() | {COUNT: str(folder / "launches")}
    return result | ({WORKER: str(os.getpid())} if worker else {})


def plain(case: Case, folder: Path) -> Claim:
    """Start pw.x once, as a script does, and believe its exit status and ``JOB DONE``."""
    asked, attempt = case.pw_input(), folder / "run"
    family().install([species.element for species in asked.species], folder / "pseudo")
    (attempt / "out").mkdir(parents=True)
    (attempt / "pw.in").write_text(write_pw_input(asked), encoding="utf-8")
    with (attempt / "pw.out").open("wb") as out, (attempt / "pw.err").open("wb") as err:
        done = subprocess.run(
            case.command().with_input("pw.in"), cwd=attempt, env=environment(folder, worker=False),
            stdin=subprocess.DEVNULL, stdout=out, stderr=err, check=False,
        )  # fmt: skip
    said = "JOB DONE" in (attempt / "pw.out").read_text(encoding="utf-8", errors="replace")
    story = [f"exit status {done.returncode}", "JOB DONE" if said else "no JOB DONE"]
    if done.returncode or not said:
        return Claim(claimed=False, cause=story[0], story=story)
    return _claim(parse_run(attempt), story)


def peer(case: Case, folder: Path) -> Claim:
    """Let the peer's work chains drive pw.x."""
    asked = case.pw_input()
    family().install([species.element for species in asked.species], folder / "pseudo")
    launcher = Launcher(
        folder, case.command(), environment(folder, worker=False), broken_launches(case.faults)
    )  # fmt: skip
    try:
        ended = relax(launcher, asked)
    except OSError as error:
        # It cannot write its input, and pauses the calculation until a person comes.
        return Claim(claimed=False, cause="paused", story=[str(error.strerror)])
    story = [f"{code} {NAMES[code]}" if code in NAMES else str(code) for code in ended.history]
    if ended.exit_code:
        return Claim(claimed=False, cause=str(ended.last.exit_code), story=story)
    return _claim(ended.last.run, story)


def product(case: Case, folder: Path) -> Claim:
    """Run the product: its gate, `run_pw` with a checkpoint, and rounds of relaxation until they agree."""
    asked, story = case.pw_input(), _story(folder)
    try:
        check_structure(asked.structure)
    except InputError as error:
        return Claim(claimed=False, cause="bad_structure", story=[str(error)])
    known = _rounds(folder)
    while len(known) < asked.protocol.max_rounds:
        start = asked.with_structure(known[-1]) if known else asked
        number = len(known) + 1
        try:
            finished = _round(case, start, folder, number)
        except RunError:
            return _failed(folder, number, story)
        story += _corrections(finished.record)
        known.append(finished.run.structure or start.structure)
        _keep(folder, known, story)
        reason = another_round(finished, asked.protocol) if asked.calculation == "vc-relax" else ""
        if not reason:
            return _claim(finished.run, story)
        story.append("another round")
    return Claim(claimed=False, cause="final_scf_inconsistent", story=[*story, "the cell did not settle"])


ARMS: Final[dict[str, Callable[[Case, Path], Claim]]] = {"none": plain, "aiida": peer, "hullworks": product}


def _round(case: Case, asked: PwInput, folder: Path, number: int) -> FinishedRun:
    """Run one round as one job; a launch after a lost node has a folder of its own, and finds the checkpoint."""
    launch = len(list(folder.glob(f"round-{number}-*"))) + 1
    hashes = [family().pseudo(species.element).sha256 for species in asked.species]
    place = {name: value.format(scratch=f"{folder}-scratch") for name, value in case.environment.items()}
    for value in place.values():
        os.makedirs(value, exist_ok=True)  # noqa: PTH103 - a value of an environment
    os.environ.update(place)
    return run_pw(
        folder / f"round-{number}-{launch}",
        asked,
        family=family(),
        command=case.command(),
        environment=environment(folder, worker=True) | place,
        checkpoint=checkpoint_folder(folder, asked, hashes),
    )


def _claim(run: QeRun, story: list[str]) -> Claim:
    volume = None if run.structure is None else run.structure.volume / len(run.structure)
    return Claim(True, run.energy_per_atom_eV, volume, story=story)


def _failed(folder: Path, number: int, story: list[str]) -> Claim:
    latest = max(folder.glob(f"round-{number}-*"), key=lambda path: path.stat().st_mtime)
    record = read_record(latest)
    ended = [*story, *_corrections(record), f"ended: {record['outcome']}"]
    return Claim(claimed=False, cause=record["outcome"], story=ended)


def _corrections(record: dict[str, Any]) -> list[str]:
    """Return what was found and done in all launches of a run."""
    every = [item for piece in record["pieces"] for item in piece["corrections"]] + record["corrections"]
    lost = [f"launch {number} lost" for number, _ in enumerate(record["pieces"], 1)]
    return lost + [f"{item['errors'][0]}: {item['handler']}" for item in every]


def _story(folder: Path) -> list[str]:
    return list(_kept(folder)["story"])


def _rounds(folder: Path) -> list[Structure]:
    return [Structure.from_dict(item) for item in _kept(folder)["structures"]]


def _kept(folder: Path) -> dict[str, Any]:
    path = folder / ROUNDS
    known: dict[str, Any] = {"structures": [], "story": []}
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else known


def _keep(folder: Path, structures: list[Structure], story: list[str]) -> None:
    kept = {"structures": [item.as_dict() for item in structures], "story": story}
    write_atomically(folder / ROUNDS, json.dumps(kept))
