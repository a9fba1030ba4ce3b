"""What any `Queue` must do, for the adapter of a real batch system to be held against; a module of checks, no tests.

A test calls `check_queue` with its queue, a function that makes the text of a script that runs for some seconds and
ends with a status, and a function that waits until something is true.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from hullworks.launchers.bookkeeping.ports import JobEnd, JobRequest, JobState

if TYPE_CHECKING:
    from collections.abc import Callable

    from hullworks.launchers.bookkeeping.ports import EndedJob, LiveJob, Queue


def check_queue(
    queue: Queue, script: Callable[[float, int], str], wait_for: Callable[[Callable[[], bool]], None], comment: str
) -> None:
    """Hold a queue against what the bookkeeping relies on.

    Args:
        queue: The queue; it must be there, with at least one free node.
        script: Makes the text of a script from the seconds that it runs and the status that it ends with.
        wait_for: Waits until a function returns true, and fails after a while.
        comment: By which the queue tells this project's jobs.
    """
    good, bad, gone = (f"conf-{uuid.uuid4().hex[:12]}" for _ in range(3))
    assert queue.ended([good, bad, gone]) == []
    numbers = {
        name: queue.submit(JobRequest(name, comment, script(seconds, status)))
        for name, seconds, status in ((good, 1.0, 0), (bad, 1.0, 3), (gone, 600.0, 0))
    }
    assert len(set(numbers.values())) == len(numbers)
    wait_for(lambda: _live(queue, gone) is not None and _live(queue, gone).state is JobState.RUNNING)  # type: ignore[union-attr]
    running = _live(queue, gone)
    assert running is not None
    assert running.job_id == numbers[gone]
    assert running.started_at is not None
    assert running.submitted_at <= running.started_at
    assert running.nodes
    queue.cancel([numbers[gone], "999999999"])
    wait_for(lambda: {job.name for job in queue.ended([good, bad, gone])} == {good, bad, gone})
    ends = {job.name: job for job in queue.ended([good, bad, gone])}
    _check_ends(ends[good], ends[bad], ends[gone])
    assert not {good, bad, gone} & {job.name for job in queue.live()}
    assert queue.ended([f"conf-{uuid.uuid4().hex}"]) == []


def _live(queue: Queue, name: str) -> LiveJob | None:
    return next((job for job in queue.live() if job.name == name), None)


def _check_ends(good: EndedJob, bad: EndedJob, gone: EndedJob) -> None:
    assert (good.end, good.exit_code) == (JobEnd.COMPLETED, 0)
    assert (bad.end, bad.exit_code) == (JobEnd.FAILED, 3)
    assert gone.end is JobEnd.CANCELLED
    for job in (good, bad, gone):
        assert job.ended_at is not None
        assert job.submitted_at <= job.ended_at
        assert job.source
