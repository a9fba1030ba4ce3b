"""One function over many items, on this machine or on a cluster: each for itself, in order, with the same results."""

from __future__ import annotations

import contextlib
import pickle
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

from hullworks.analysis.clusters import dask_part, open_cluster
from hullworks.errors import InputError, RunError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from distributed import Future

    from hullworks.analysis.clusters import OpenCluster

Item = TypeVar("Item")
Result = TypeVar("Result")

POLL_S: Final = 0.02
"""Pause between two looks at what is done, s."""
LONGEST_NAME: Final = 200
"""Characters of an item that a report of its failure shows."""
CANNOT_TRAVEL: Final = (TypeError, AttributeError, pickle.PicklingError)
"""What pickle raises of things that live in one process alone."""


@dataclass(frozen=True)
class Failure:
    """An item whose function ended in an error.

    index, item: Its place in the sequence, and how it prints.
    error: Name and message of the error.
    trace: The error's traceback, or empty where its process was lost.
    """

    index: int
    item: str
    error: str
    trace: str


@dataclass(frozen=True)
class Mapped(Generic[Result]):
    """What came of all items.

    results: One per item, in their order; None in the places of failures.
    failures: The items that failed, in their order.
    """

    results: tuple[Result | None, ...]
    failures: tuple[Failure, ...]

    def all(self) -> list[Result]:
        """Return the results of all items.

        Raises:
            RunError: An item failed; the message names the first.
        """
        if self.failures:
            first = self.failures[0]
            what = f"{len(self.failures)} of {len(self.results)} items failed, first {first.error}"
            raise RunError(what, f"item {first.index}, {first.item}", "`failures` has the trace of each.")
        return list(cast("tuple[Result, ...]", self.results))  # None stands in the places of failures alone


@dataclass(frozen=True)
class _Outcome:
    """What became of an item, as it travels: the result pickled, or the error."""

    index: int
    result: bytes = b""
    error: str = ""
    trace: str = ""


def map_chunks(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    cluster: str | OpenCluster | None = None,
    *,
    chunk_size: int = 1,
    progress: Callable[[int], None] = lambda _done: None,
) -> Mapped[Result]:
    """Call a function for each item, and return the results in the order of the items.

    An error of one item is reported with the item, and the rest is finished; so is an item whose process dies over and
    over. As each item is worked on for itself, the results do not depend on the number of processes or on how items
    are put together. Ctrl-C ends the cluster and its jobs.

    >>> map_chunks(lambda x: 6 // x, [1, 0, 3]).results
    (6, None, 2)

    Args:
        function: Called in other processes, unless there is no cluster: it and the items must be plain data. What lives
            in one process alone, such as a connection to MongoDB, it has to open itself.
        items: What to call it with.
        cluster: None works in this process; otherwise see `clusters.open_cluster`, whose cluster may be given too, so
            that several calls share one cluster.
        chunk_size: Items that travel together, where one of them is little work.
        progress: Called with the number of items that are done, whenever it has grown.

    Raises:
        InputError: The function or an item cannot be sent to another process, or the cluster is none.
        MissingPartError: Dask, or SLURM, is not installed.
        ServiceError: SLURM would not take the jobs, or they end before they have done anything.
    """
    outcomes: list[_Outcome] = []
    with _outcomes(function, items, cluster, chunk_size) as batches:
        for batch in batches:
            outcomes += batch
            progress(len(outcomes))
    outcomes.sort(key=lambda outcome: outcome.index)
    # The bytes were written by our own workers, whose connection is encrypted and lets nobody else in.
    results = tuple(None if outcome.error else pickle.loads(outcome.result) for outcome in outcomes)  # noqa: S301
    failed = [outcome for outcome in outcomes if outcome.error]
    return Mapped(results, tuple(Failure(o.index, _shown(items[o.index]), o.error, o.trace) for o in failed))


@contextlib.contextmanager
def _outcomes(
    function: Callable[[Any], Any], items: Sequence[Any], cluster: str | OpenCluster | None, chunk_size: int
) -> Iterator[Iterator[list[_Outcome]]]:
    """Hand out batches of outcomes, in any order, while the cluster is open."""
    if cluster is None:
        yield ([_attempt(function, i, item)] for i, item in enumerate(items))
        return
    chunks = [range(i, min(i + chunk_size, len(items))) for i in range(0, len(items), chunk_size)]
    with open_cluster(cluster) if isinstance(cluster, str) else contextlib.nullcontext(cluster) as opened:
        yield _on_cluster(opened, function, items, chunks)


def _on_cluster(
    cluster: OpenCluster, function: Callable[[Any], Any], items: Sequence[Any], chunks: Sequence[range]
) -> Iterator[list[_Outcome]]:
    """Yield the outcomes of chunks as they end.

    When a process dies, all that it held is suspect. So what was lost is tried again item by item, and what was lost
    then, alone on the whole cluster: which item kills is certain before it is called a failure.
    """
    # The function, with what it holds, is a task of its own: sent once, and made again where its worker is lost.
    common = cluster.client.submit(pickle.loads, packed(function, "the function"), pure=False)

    def submitted(chunk: range) -> Future[list[_Outcome]]:
        payload = [(i, packed(items[i], f"item {i}")) for i in chunk]
        return cluster.client.submit(_attempt_all, common, payload, pure=False)

    lost = yield from _finished(cluster, submitted, chunks)
    lost = yield from _finished(cluster, submitted, [range(i, i + 1) for chunk in lost for i in chunk])
    for single in lost:
        if (yield from _finished(cluster, submitted, [single])):
            yield [_Outcome(single[0], error="the process died each time it worked on the item")]


def _finished(
    cluster: OpenCluster, submitted: Callable[[range], Future[list[_Outcome]]], chunks: Sequence[range]
) -> Generator[list[_Outcome], None, list[range]]:
    """Yield the outcomes of chunks as they end, and return the chunks whose process died each time."""
    distributed = dask_part("distributed")
    futures = {submitted(chunk): chunk for chunk in chunks}
    ended = distributed.as_completed(futures)
    lost = []
    for _ in chunks:
        while not ended.has_ready():
            cluster.tend(0)
            time.sleep(POLL_S)
        cluster.tend(1)
        chunk = futures.pop(future := next(ended))
        try:
            yield future.result()
        except distributed.KilledWorker:
            lost.append(chunk)
    return sorted(lost, key=lambda chunk: chunk.start)


def packed(thing: object, name: str) -> bytes:
    """Return anything that can be sent to another process, pickled.

    Raises:
        InputError: It holds something that lives in this process alone.
    """
    try:
        data: bytes = dask_part("cloudpickle").dumps(thing)
    except CANNOT_TRAVEL as error:
        what = f"{name} cannot be sent to another process ({error})"
        raise InputError(what, next_step="Pass plain values, and open files and connections in the function.") from None
    return data


def _attempt_all(function: Callable[[Any], Any], payload: Sequence[tuple[int, bytes]]) -> list[_Outcome]:
    """Call the function for each item of a chunk; runs in a worker."""
    return [_attempt(lambda data: function(pickle.loads(data)), i, item) for i, item in payload]  # noqa: S301 - ours


def _attempt(function: Callable[[Any], Any], index: int, item: object) -> _Outcome:
    try:
        return _Outcome(index, pickle.dumps(function(item)))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the one boundary of an item: the others go on
        trace = "".join(traceback.format_exception(error))
        return _Outcome(index, error=f"{type(error).__name__}: {error}", trace=trace)


def _shown(item: object) -> str:
    text = repr(item)
    return text if len(text) <= LONGEST_NAME else f"{text[:LONGEST_NAME]}…"
