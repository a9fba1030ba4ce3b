"""The runs of an allocation: taken from the LaunchPad, begun on a seat, handed over or given back when they end."""

from __future__ import annotations

import gc
import signal
import socket
import sys
import time
import uuid
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Final, Self

import pymongo.errors
from fireworks import FWorker
from fireworks.utilities.fw_serializers import load_object

from hullworks.documents import Candidate
from hullworks.launchers.bookkeeping.look import Look
from hullworks.launchers.bookkeeping.ports import EndedJob, JobEnd
from hullworks.launchers.bookkeeping.runs import HELD, Hands, Loss, settle_lost
from hullworks.launchers.reconcile import real_ports
from hullworks.launchers.slurm import handover
from hullworks.launchers.slurm.clients import AWAY, Clients, patiently
from hullworks.launchers.slurm.forecast import Forecaster
from hullworks.launchers.slurm.handover import HandOver
from hullworks.launchers.slurm.seats import signals_held
from hullworks.launchers.worker import register
from hullworks.settings import JOB_VARIABLE, Settings, get_settings
from hullworks.workflows.codes import CODES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from fireworks import Firework

    from hullworks.launchers.bookkeeping.look import Ports
    from hullworks.launchers.slurm.seats import Seat

NOTE: Final = "hullworks_note"
"""Field of FireWorks' launches: why a launch was given back."""
NEEDED: Final = ("fireworks.core.rocket", "jobflow.managers.fireworks", "jobflow.core.reference", "pymatgen.core")
"""What every run imports, besides its code."""


def import_all() -> None:
    """Import what runs need, once for all of them."""
    for module in (*NEEDED, *CODES.values()):
        import_module(module)
    # FireWorks looks a task up by importing everything that may hold it, its own tests included; half a second each.
    load_object({"_fw_name": "ScriptTask", "script": "true"})
    # What is there now is shared by all runs; the collector would write to it, and so copy it.
    gc.freeze()


@dataclass(frozen=True)
class _Run:
    """A run in hand."""

    fw_id: int
    launch_id: int
    folder: Path
    candidate_id: str


@dataclass
class Runs:
    """What an allocation has in hand.

    Attributes:
        settings: The project's settings.
        clients: The database.
        ports: The same, as the bookkeeping sees it.
        worker: Its name on the LaunchPad.
        job, job_id: Name and number of its queue job, empty outside a queue.
        last: When its runs must have ended, seconds since the epoch; none for never.
        stopping: Why the runs were told to end; empty while they were not.
    """

    settings: Settings
    clients: Clients
    ports: Ports
    worker: str
    last: float | None
    job: str = ""
    job_id: str = ""
    stopping: str = ""
    forecaster: Forecaster = field(default_factory=Forecaster)
    _in_hand: dict[int, _Run] = field(default_factory=dict)
    _ended: list[tuple[_Run, int]] = field(default_factory=list)
    _looked_at: float = field(default_factory=time.monotonic)

    @classmethod
    def open(cls, last: float | None, environ: Mapping[str, str]) -> Self:
        """Connect, and put this process on record.

        Args:
            last: When its runs must have ended, seconds since the epoch; none for never.
            environ: The environment of the job.

        Raises:
            DatabaseError: The database does not answer, refuses, or holds another schema version.
        """
        settings = get_settings()
        clients = Clients.open(settings)
        job, number = environ.get(JOB_VARIABLE, ""), environ.get("SLURM_JOB_ID", "")
        if "SLURM_ARRAY_JOB_ID" in environ:
            number = f"{environ['SLURM_ARRAY_JOB_ID']}_{environ['SLURM_ARRAY_TASK_ID']}"
        worker = patiently(lambda: register(job or None, number or None))
        ports = real_ports(clients.launchpad, lost_after_s=settings.launch.lost_after_s)
        return cls(settings, clients, ports, worker, last, job, number)

    def begin(self, seat: Seat, left_s: float | None, fw_id: int | None = None) -> bool:
        """Begin the next ready run on a seat; return whether there was one.

        Args:
            seat: A free seat.
            left_s: Time that is left for it, s; none for no limit.
            fw_id: The one FireWork to begin; by default any that fits.
        """
        try:
            return self._begin(seat, left_s, fw_id)
        except AWAY:
            return False  # what was taken halfway is given back by `look_after`

    def _begin(self, seat: Seat, left_s: float | None, fw_id: int | None) -> bool:
        first = not self._in_hand and fw_id is None and not self.forecaster.used
        # The first is begun in any case: else a step that takes longer than any allocation would never be.
        query = {} if first else self.forecaster.query(left_s)
        number = self._number_for_checkout(fw_id)
        if fw_id is not None and number is None:
            query = {**query, "fw_id": fw_id}
        launchpad, worker = self.clients.launchpad, FWorker(name=self.worker, query=query)
        if number is None and not launchpad.run_exists(worker):
            return False
        self.forecaster.used = True
        folder = self.settings.runs_dir / time.strftime("%Y-%m-%d") / f"run-{uuid.uuid4().hex[:12]}"
        firework, launch_id = launchpad.checkout_fw(worker, str(folder), fw_id=number, host=socket.gethostname())
        if firework is None:
            return False
        try:
            self._start(seat, firework, launch_id, folder)
        except OSError as error:  # a disk that is full, a file system that is away
            sys.stderr.write(f"{folder}: {error}\n")
            self._drop_strays()
            return False
        return True

    def _number_for_checkout(self, fw_id: int | None) -> int | None:
        """Return the number to ask FireWorks for; none to ask for a ready run by a query.

        By its number FireWorks hands a reserved run to anybody, to two at once as well; a ready one it gives to one.
        """
        if fw_id is None or not self.job or self.ports.pad.reserved_for(fw_id) != self.job:
            return None
        return fw_id

    def _start(self, seat: Seat, firework: Firework, launch_id: int, folder: Path) -> None:
        run = _Run(int(firework.fw_id), int(launch_id), folder, str(firework.spec.get("candidate_id", "")))
        folder.mkdir(parents=True)
        handover.prepare(folder, firework, run.launch_id, handover.inputs_of(firework, self.clients.store))
        ends = {} if self.last is None else {"SLURM_JOB_END_TIME": str(int(self.last))}
        with signals_held():
            seat.start({"folder": str(folder), "environment": ends})
            self._in_hand[seat.fileno()] = run

    def finish(self, seat: Seat) -> None:
        """Take note of the end of a seat's run, and settle it.

        Raises:
            ServiceError: The seat is gone.
        """
        with signals_held():
            status = seat.report()
            self._ended.append((self._in_hand.pop(seat.fileno()), status))
        self.settle()

    def settle(self) -> None:
        """Hand over what ended runs left, or give them back; waits as long as the database is away."""
        while self._ended:
            self._settle(*self._ended[0])
            self._ended.pop(0)

    def _settle(self, run: _Run, status: int) -> None:
        ended = patiently(lambda: self._hand_over(run))
        if ended is HandOver.UNFINISHED:
            patiently(lambda: self._give_back(run, status))
        if ended in {HandOver.DONE, HandOver.KNOWN}:
            handover.clear(run.folder)

    def _hand_over(self, run: _Run) -> HandOver:
        try:
            return handover.hand_over(self.clients.launchpad, self.clients.store, run.folder)
        except RuntimeError as error:
            # FireWorks cannot apply what the run gives, and has marked it as failed.
            sys.stderr.write(f"{run.folder}: {error}\n")
            return HandOver.KNOWN

    def _give_back(self, run: _Run, status: int) -> None:
        """Store why a run ended without a result, and make it ready again, within the budget of its step."""
        how = f"its process ended by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        self._lose(run.fw_id, run.launch_id, Loss(self.stopping or how, self._end_of_job()))

    def _lose(self, fw_id: int, launch_id: int, loss: Loss) -> None:
        """Settle a run that this worker no longer has in hand, unless it was taken away before."""
        (found,) = self.ports.pad.runs_of([fw_id])
        if found.state != "RUNNING" or found.launch is None or found.launch.launch_id != launch_id:
            return
        settle_lost(Look(self.ports), found, loss, Hands([found]))
        self.clients.launchpad.launches.update_one({"launch_id": launch_id}, {"$set": {NOTE: loss.why}})

    def _end_of_job(self) -> EndedJob | None:
        """Return how this job is ending, as far as can be told from inside; none while it is not."""
        if not self.stopping:
            return None
        over = self.last is not None and time.time() >= self.last
        end = JobEnd.TIMEOUT if over else JobEnd.CANCELLED
        return EndedJob(self.job_id, self.job, self.ports.clock.now(), end, source="its worker")

    def look_after(self, seats: Sequence[Seat]) -> None:
        """Say now and then that the runs live, end those that were taken away, give back what was taken halfway."""
        if time.monotonic() - self._looked_at < self.settings.launch.heartbeat_s:
            return
        self._looked_at = time.monotonic()
        try:
            self._ping(seats)
            self._drop_strays()
        except AWAY:
            return  # in an allocation no run is lost for its silence

    def _ping(self, seats: Sequence[Seat]) -> None:
        """Say that the runs live; end those that were given to others, and those whose candidates are held back."""
        launchpad = self.clients.launchpad
        mine = {run.fw_id: run.launch_id for run in self._in_hand.values()}
        rows = launchpad.fireworks.find({"fw_id": {"$in": list(mine)}, "state": "RUNNING"}, {"fw_id": 1, "launches": 1})
        ours = {row["fw_id"] for row in rows if mine[row["fw_id"]] in row["launches"]}
        wanted = {run.candidate_id for run in self._in_hand.values()}
        held = set(Candidate.objects(candidate_id__in=wanted, state__in=list(HELD)).scalar("candidate_id"))
        for seat in seats:
            run = self._in_hand.get(seat.fileno())
            if run is None:
                continue
            if run.fw_id not in ours or run.candidate_id in held:
                seat.signal(signal.SIGTERM)
            else:
                launchpad.ping_launch(run.launch_id)

    def _drop_strays(self) -> None:
        """Give back what this worker took and never began: the database went away in between."""
        mine = [run.launch_id for run in (*self._in_hand.values(), *(run for run, _ in self._ended))]
        query = {"fworker.name": self.worker, "state": "RUNNING", "launch_id": {"$nin": mine}}
        for launch in list(self.clients.launchpad.launches.find(query, {"launch_id": 1, "fw_id": 1})):
            (found,) = self.ports.pad.runs_of([launch["fw_id"]])
            self.ports.pad.give_back(found)

    def close(self) -> None:
        """Give back what was taken and never begun, and close the client."""
        try:
            self._drop_strays()
        except pymongo.errors.PyMongoError:
            pass  # whoever reconciles sees that this job has ended
        finally:
            self.clients.close()
