"""What the commands of SLURM print, read; pure functions of text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Final

from hullworks.launchers.bookkeeping.ports import EndedJob, JobEnd, JobState, LiveJob
from hullworks.shipped import shipped_yaml

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

QUEUE_FORMAT: Final = "%i|%V|%T|%S|%e|%N|%j|%r|%k"
"""For ``squeue --format``. The reason may hold anything but a bar; the comment comes last and may hold anything."""
LIVE_STATES: Final = (
    *("PENDING", "RUNNING", "SUSPENDED", "CONFIGURING", "COMPLETING", "RESIZING", "REQUEUED", "REQUEUE_HOLD"),
    *("REQUEUE_FED", "SIGNALING", "SPECIAL_EXIT", "STAGE_OUT", "STOPPED"),
)
"""All that has not ended; by itself ``squeue`` would leave out what is suspended."""
SACCT_FORMAT: Final = "JobID,Submit,State,Start,End,ExitCode,NodeList,JobName"
"""For ``sacct --format`` with ``--parsable2``."""

_NOTHING: Final = frozenset({"", "N/A", "NONE", "None", "Unknown", "(null)", "None assigned"})
_FIELD: Final = re.compile(r"(?:^| )([A-Za-z][\w/:-]*)=")
_HOSTS: Final = re.compile(r"([^,\[]*)(?:\[([^\]]*)\])?([^,\[]*)(?:,|$)")


@dataclass(frozen=True)
class Answers:
    """The words of SLURM that mean something to us; ``answers.yaml`` gives the source of each."""

    away: tuple[str, ...]
    no_accounting: tuple[str, ...]
    unknown: tuple[str, ...]
    ends: Mapping[str, JobEnd]
    running: frozenset[str]
    ending: frozenset[str]

    def is_away(self, said: str) -> bool:
        """Whether an error means that nobody answered."""
        return any(part.lower() in said.lower() for part in self.away)

    def is_without_accounting(self, said: str) -> bool:
        """Whether an error means that the cluster has no database of jobs, or none for us."""
        return any(part.lower() in said.lower() for part in self.no_accounting)

    def is_unknown_job(self, said: str) -> bool:
        """Whether an error means that a job is forgotten."""
        return any(part.lower() in said.lower() for part in self.unknown)


@cache
def load_answers() -> Answers:
    """Return the words that HullWorks ships."""
    data = shipped_yaml("hullworks.launchers.slurm", "answers.yaml")
    return Answers(
        away=tuple(data["away"]),
        no_accounting=tuple(data["no_accounting"]),
        unknown=tuple(data["unknown"]),
        ends={word: JobEnd(end) for word, end in data["ends"].items()},
        running=frozenset(data["running"]),
        ending=frozenset(data["ending"]),
    )


def read_queue(text: str, comment: str) -> list[LiveJob]:
    """Return the jobs with a comment, from ``squeue --noheader --array --format`` with `QUEUE_FORMAT`."""
    rows = (line.split("|", 8) for line in text.splitlines() if line.count("|") >= 8)  # noqa: PLR2004 - its fields
    return [_live(row) for row in rows if row[8] == comment and _end(row[2]) is None]


def _live(row: list[str]) -> LiveJob:
    job_id, submitted, state, start, end, nodes, name, reason, _ = row
    known = load_answers()
    kind = JobState.PENDING
    if state in known.ending:
        kind = JobState.ENDING
    elif state in known.running:
        kind = JobState.RUNNING
    waits = kind is JobState.PENDING  # what squeue says of its times is a forecast
    return LiveJob(
        job_id=job_id,
        name=name,
        submitted_at=_time(submitted),
        state=kind,
        reason=reason if waits else "",
        started_at=None if waits else moment(start),
        ends_at=None if waits else moment(end),
        nodes=() if waits else expand_hosts(nodes),
    )


def read_sacct(text: str) -> Iterator[EndedJob]:
    """Yield the ended jobs of ``sacct --noheader --parsable2 --allocations`` with `SACCT_FORMAT`."""
    for line in text.splitlines():
        job_id, submitted, state, start, end, code, nodes, name = line.split("|", 7)
        ended = _end(state)
        if ended is not None:
            fields = {"StartTime": start, "EndTime": end, "ExitCode": code, "NodeList": nodes}
            yield _ended(job_id, name, submitted, ended, fields, "sacct")


def read_completion_log(text: str, names: Iterable[str]) -> Iterator[EndedJob]:
    """Yield the named jobs of a log of ``jobcomp/filetxt``; a requeue is noted there too, and is no end."""
    wanted = frozenset(names)
    for line in text.splitlines():
        found = re.search(r" Name=(\S+)", line)
        if found is None or found[1] not in wanted:
            continue
        fields = pairs(line)
        ended = _end(fields.get("JobState", ""))
        if ended is not None and "SubmitTime" in fields:
            yield _ended(_number(fields), fields["Name"], fields["SubmitTime"], ended, fields, "jobcomp")


def read_show_jobs(text: str, names: Iterable[str]) -> Iterator[EndedJob]:
    """Yield the named jobs that have ended of ``scontrol --oneliner show jobs``."""
    wanted = frozenset(names)
    for line in text.splitlines():
        fields = pairs(line)
        ended = _end(fields.get("JobState", ""))
        if fields.get("JobName") in wanted and ended is not None:
            yield _ended(_number(fields), fields["JobName"], fields["SubmitTime"], ended, fields, "scontrol")


def _ended(job_id: str, name: str, submitted: str, end: JobEnd, fields: Mapping[str, str], source: str) -> EndedJob:
    code, _, number = fields.get("ExitCode", "0:0").partition(":")
    nodes = expand_hosts(fields.get("NodeList", ""))
    return EndedJob(
        job_id=job_id,
        name=name,
        submitted_at=_time(submitted),
        end=end,
        # A job that never had a node never started, whatever the log says.
        started_at=moment(fields.get("StartTime", "")) if nodes else None,
        ended_at=moment(fields.get("EndTime", "")),
        exit_code=int(code or 0),
        signal=int(number or 0),
        nodes=nodes,
        source=source,
    )


def _number(fields: Mapping[str, str]) -> str:
    """Return a job's number as ``scancel`` takes it: a task of an array has that of its array."""
    if "ArrayJobId" in fields and fields.get("ArrayTaskId", "").isdecimal():
        return f"{fields['ArrayJobId']}_{fields['ArrayTaskId']}"
    return fields["JobId"]


def _end(state: str) -> JobEnd | None:
    """Return how a job ended; none when it has not. SLURM says ``CANCELLED by 1000`` and ``CANCELLED+`` too."""
    words = state.replace("+", " ").split()
    return load_answers().ends.get(words[0]) if words else None


def pairs(line: str) -> dict[str, str]:
    """Return the fields of a line ``Name=value Name=value``; values may hold blanks."""
    marks = list(_FIELD.finditer(line))
    ends = [*(mark.start() for mark in marks[1:]), len(line)]
    # A line without fields has an end all the same.
    return {mark[1]: line[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=False)}


def moment(text: str) -> datetime | None:
    """Return a time that SLURM prints, which is that of this machine's zone; none for its words for none."""
    return None if text in _NOTHING else _time(text)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def expand_hosts(text: str) -> tuple[str, ...]:
    """Return the names in a list of hosts: ``n[1-3,07]-ib,m4`` are five."""
    if text in _NOTHING:
        return ()
    return tuple(name for found in _HOSTS.finditer(text) if found[0] for name in _hosts(*found.groups()))


def _hosts(before: str, numbers: str | None, after: str) -> Iterator[str]:
    if numbers is None:
        yield before + after
        return
    for part in numbers.split(","):
        first, _, last = part.partition("-")
        for number in range(int(first), int(last or first) + 1):
            yield f"{before}{number:0{len(first)}d}{after}"


def latest(jobs: Iterable[EndedJob]) -> list[EndedJob]:
    """Return the last word on each job: of several with one name and number that which ended last."""
    best: dict[tuple[str, str], EndedJob] = {}
    for job in jobs:
        key = (job.name, job.job_id)
        if key not in best or _ended_at(job) >= _ended_at(best[key]):
            best[key] = job
    return list(best.values())


def _ended_at(job: EndedJob) -> datetime:
    return job.ended_at or job.submitted_at
