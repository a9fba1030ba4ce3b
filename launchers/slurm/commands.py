"""The SLURM behind the `Queue` port: its commands, called with a time limit, and what they say told apart."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hullworks.errors import JobRejectedError, QueueAwayError
from hullworks.launchers.slurm import records

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from hullworks.launchers.bookkeeping.ports import EndedJob, JobRequest, LiveJob

HISTORY_DAYS: Final = 60
"""How far back accounting is asked; longer than any campaign leaves a job unread."""
AT_ONCE: Final = 200
"""Jobs named in one call; a command line holds many more."""


@dataclass
class SlurmQueue:
    """This project's jobs on a SLURM cluster.

    Args:
        comment: Tells this project's jobs from others.
        answer_s: How long a command may take, s; after it the queue counts as away.
        environ: The environment of the commands; by default that of this process.
    """

    comment: str
    answer_s: float = 10.0
    environ: Mapping[str, str] | None = None
    _accounting: bool | None = field(default=None, init=False, repr=False)
    _log: Path | None = field(default=None, init=False, repr=False)

    def submit(self, request: JobRequest) -> str:
        """Submit a job and return its number; see `Queue.submit`.

        Raises:
            JobRejectedError: SLURM does not take it, and says why.
            QueueAwayError: It did not answer; the job may or may not have been taken.
        """
        command = ["sbatch", "--parsable", f"--job-name={request.name}", f"--comment={request.comment}"]
        if request.n_tasks:
            command.append(f"--array=0-{request.n_tasks - 1}")
        done = self._call(command, request.script)
        if done.returncode:
            raise JobRejectedError(_reason(done.stderr), f"job {request.name}", "The site's file or `[slurm]` asks so.")
        # On a federation the number comes with the cluster's name.
        return done.stdout.split(";")[0].strip()

    def live(self) -> list[LiveJob]:
        """Return all jobs of this project that wait or run; tasks of an array one by one.

        Raises:
            QueueAwayError: SLURM did not answer.
        """
        command = ["squeue", "--noheader", "--me", "--array", f"--format={records.QUEUE_FORMAT}"]
        command.append(f"--states={','.join(records.LIVE_STATES)}")
        return records.read_queue(self._ask(command), self.comment)

    def ended(self, names: Collection[str]) -> list[EndedJob]:
        """Return those of the named jobs that have ended, as far as SLURM still knows.

        Asked are the database of jobs; where there is none, the job-completion log and the controller's memory. They
        say that a job has ended as soon as it is being ended: one that the queue still holds, with processes that may
        live, is left out.

        Raises:
            QueueAwayError: SLURM did not answer.
        """
        if not names:
            return []
        held = {job.job_id for job in self.live()}
        if self._has_accounting():
            found = records.latest(self._from_accounting(names))
        else:
            found = records.latest(chain(self._from_memory(names), self._from_log(names)))
        return [job for job in found if job.job_id not in held]

    def cancel(self, job_ids: Collection[str]) -> None:
        """End jobs; what runs is asked first. Unknown numbers are no error.

        Raises:
            QueueAwayError: SLURM did not answer.
        """
        for some in _some(dict.fromkeys(job_ids)):
            done = self._call(["scancel", "--quiet", *some])
            if done.returncode and not records.load_answers().is_unknown_job(done.stderr):
                raise QueueAwayError(_reason(done.stderr), "scancel")

    def _from_accounting(self, names: Collection[str]) -> list[EndedJob]:
        return list(chain.from_iterable(self._sacct(some) for some in _some(names)))

    def _sacct(self, names: Collection[str]) -> Iterator[EndedJob]:
        command = ["sacct", "--noheader", "--parsable2", "--allocations", f"--format={records.SACCT_FORMAT}"]
        command += [f"--starttime=now-{HISTORY_DAYS}days", f"--name={','.join(names)}"]
        yield from records.read_sacct(self._ask(command))

    def _from_memory(self, names: Collection[str]) -> Iterator[EndedJob]:
        done = self._call(["scontrol", "--oneliner", "show", "jobs"])
        yield from records.read_show_jobs(done.stdout, names)

    def _from_log(self, names: Collection[str]) -> Iterator[EndedJob]:
        if self._log is not None and self._log.is_file():
            text = self._log.read_text(encoding="utf-8", errors="replace")
            yield from records.read_completion_log(text, names)

    def _has_accounting(self) -> bool:
        """Whether the cluster keeps a database of jobs; asked once."""
        if self._accounting is None:
            lines = self._ask(["scontrol", "show", "config"]).splitlines()
            fields = {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines)}
            if fields.get("JobCompType") == "jobcomp/filetxt":
                self._log = Path(fields["JobCompLoc"])
            self._accounting = fields.get("AccountingStorageType", "accounting_storage/none").endswith("slurmdbd")
        return self._accounting

    def _ask(self, command: list[str]) -> str:
        """Return what a command prints.

        Raises:
            QueueAwayError: It did not answer, or failed: what it would have said is not known.
        """
        done = self._call(command)
        if done.returncode:
            raise QueueAwayError(_reason(done.stderr), command[0])
        return done.stdout

    def _call(self, command: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command with a time limit.

        Raises:
            QueueAwayError: It took too long, is not there, or says that nobody answered it.
        """
        try:
            done = subprocess.run(
                command, input=text, capture_output=True, text=True, check=False, timeout=self.answer_s,
                env=None if self.environ is None else dict(self.environ),
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise QueueAwayError(f"it did not answer within {self.answer_s:g} s", command[0]) from None
        except OSError as error:
            cure = "Run it where SLURM jobs are submitted."
            raise QueueAwayError(f"it cannot be started ({error.strerror})", command[0], cure) from None
        if done.returncode and records.load_answers().is_away(done.stderr):
            raise QueueAwayError(_reason(done.stderr), command[0])
        return done


def _some(names: Iterable[str]) -> Iterator[list[str]]:
    everything = list(names)
    return (everything[start : start + AT_ONCE] for start in range(0, len(everything), AT_ONCE))


def _reason(said: str) -> str:
    """Return the last thing that a command said of its failure, without its own name."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1].split("error: ")[-1].rstrip(".") if lines else "it failed without a word"
