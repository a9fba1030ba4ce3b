"""What every cure shares: when it is asked, and how its remedy becomes the next attempt."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from custodian.custodian import ErrorHandler

from hullworks.workflows.qe.attempts import STRUCTURE_ACTION
from hullworks.workflows.qe.restarts import RestartKind

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from hullworks.workflows.qe.attempts import RunFolder
    from hullworks.workflows.qe.inputs import PwInput
    from hullworks.workflows.qe.outcomes import QeOutcome
    from hullworks.workflows.qe.parser import QeRun


@dataclass(frozen=True)
class Rule:
    """What ``repairs.yaml`` says of one cure.

    Attributes:
        name: Name of its class.
        limit: How often one run may be corrected so.
        numbers: The numbers that it uses.
    """

    name: str
    limit: int
    numbers: Mapping[str, Any]


@dataclass(frozen=True)
class Repairs:
    """All of ``repairs.yaml``.

    Attributes:
        max_corrections: Corrections of one run altogether.
        rules: One for each cure, in the order in which they are asked.
        poll_s: So often custodian looks whether pw.x has ended, s.
        watch_s: So often the running cycle is looked at, s.
    """

    max_corrections: int
    rules: tuple[Rule, ...]
    poll_s: float
    watch_s: float


@dataclass(frozen=True)
class Remedy:
    """A changed input.

    Attributes:
        pw_input: What the next attempt is asked.
        actions: What was changed, for people.
        pools: Pools of k-points that pw.x is started with from now on; none leaves the command as it is.
        scratch: Folder for the outdirs from now on; none leaves it as it is.
        kind: What may be taken over from the attempt at most, where that is not what the cure asks for.
    """

    pw_input: PwInput
    actions: tuple[str, ...]
    pools: int | None = None
    scratch: Path | None = None
    kind: RestartKind | None = None


class Cure(ErrorHandler):
    """A handler with one remedy for a few outcomes; the physical reason stands in the docstring of each subclass.

    The remedy is a pure function of how the attempt ended and what it was asked. Only one handler answers an attempt:
    once the next attempt is planned, the others see nothing to do.

    Args:
        folder: The run.
        rule: Limit and numbers.
    """

    outcomes: ClassVar[frozenset[QeOutcome]]
    """The outcomes that the cure is for."""
    restart: ClassVar[RestartKind] = RestartKind.SCRATCH
    """What the next attempt takes over where the files for it are whole; the docstring of the cure says why."""

    def __init__(self, folder: RunFolder, rule: Rule) -> None:
        self.folder = folder
        self.rule = rule
        self.max_num_corrections = rule.limit

    @abstractmethod
    def remedy(self, run: QeRun, asked: PwInput) -> Remedy | None:
        """Return a changed input, or none when there is nothing left to change.

        Args:
            run: How the attempt ended.
            asked: What it was asked.
        """

    def check(self, directory: str = "./") -> bool:  # noqa: ARG002 - custodian's interface
        """Return whether this cure has a remedy for the end of the last attempt."""
        run = self.folder.latest
        if run is None or run.outcome not in self.outcomes or self.folder.planned or not self.folder.time_for_another():
            return False
        return self.remedy(self.folder.with_progress(run), self.folder.current) is not None

    def correct(self, directory: str = "./") -> dict[str, Any]:  # noqa: ARG002 - custodian's interface
        """Plan the next attempt, and return what was wrong and what was changed."""
        run = self.folder.latest
        remedy = None if run is None else self.remedy(self.folder.with_progress(run), self.folder.current)
        if remedy is None:
            return self.folder.note(self.rule.name).as_dict()
        return self.folder.plan(remedy, self.rule.name, remedy.kind or self.restart).as_dict()

    def as_dict(self) -> dict[str, Any]:
        """Return what custodian's log says of the handler."""
        kind = type(self)
        return {"@module": kind.__module__, "@class": kind.__name__, "limit": self.rule.limit}


class NoCure(ErrorHandler):
    """Asked last: ends a run at once, with its outcome named, when it has not succeeded and no cure is left.

    Args:
        folder: The run.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def check(self, directory: str = "./") -> bool:  # noqa: ARG002 - custodian's interface
        """Return whether the last attempt failed and nobody planned another."""
        run = self.folder.latest
        return run is not None and not run.succeeded and not self.folder.planned

    def correct(self, directory: str = "./") -> dict[str, Any]:  # noqa: ARG002 - custodian's interface
        """Name the outcome; without actions custodian gives up."""
        return self.folder.note(type(self).__name__).as_dict()

    def as_dict(self) -> dict[str, Any]:
        """Return what custodian's log says of the handler."""
        kind = type(self)
        return {"@module": kind.__module__, "@class": kind.__name__}


def change(asked: PwInput, **settings: Any) -> Remedy:
    """Return a remedy that changes settings, each given as ``namelist__key``; none leaves a setting to pw.x."""
    actions = []
    for name, value in settings.items():
        namelist, key = name.split("__", 1)
        shown = "left to pw.x" if value is None else value
        actions.append(f"{key}: {asked.setting(namelist, key)} -> {shown}")
        asked = asked.with_setting(namelist, key, value)
    return Remedy(asked, tuple(actions))


def go_on(run: QeRun, remedy: Remedy) -> Remedy:
    """Let a remedy start from the geometry that was calculated last, where the run got that far."""
    if run.structure is None or remedy.pw_input.calculation == "scf":
        return remedy
    # After a restart that got nowhere it is the last one of an earlier attempt.
    step = f"the one of step {run.n_ionic_steps}" if run.n_ionic_steps else "the last one calculated"
    action = f"{STRUCTURE_ACTION}{step}"
    return replace(remedy, pw_input=remedy.pw_input.with_structure(run.structure), actions=(*remedy.actions, action))
