"""Parsing of many and of large files by partition, each partition by a process of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from hullworks.analysis.parallel import map_chunks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from hullworks.analysis.clusters import OpenCluster
    from hullworks.analysis.parallel import Mapped

Result = TypeVar("Result")

ONE_RECORD_A_LINE: Final = frozenset({".jsonl", ".ndjson"})
"""Suffixes of files that may be cut at any end of a line. A line of CSV may end within a quoted field, and only the
first part would know the header; what is compressed cannot be read from the middle."""
PARTITION_BYTES: Final = 64 * 2**20
"""Size of a partition: some seconds of parsing, so that starting a task is nothing beside it, and a memory of megabytes
is enough for each process."""


@dataclass(frozen=True)
class Partition:
    """A file, or a run of its lines.

    path: The file, which every node has to see under this name.
    start, stop: Bytes; stop is exclusive.
    first_line: Number of the first line, from 1.
    """

    path: Path
    start: int
    stop: int
    first_line: int

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield the number of each line in the file, and the line without its end; ``.gz`` is decompressed."""
        import gzip

        with gzip.open(self.path) if self.path.suffix == ".gz" else self.path.open("rb") as file:
            file.seek(self.start)
            number, left = self.first_line, self.stop - self.start
            for line in file:
                yield number, line.rstrip(b"\r\n")
                number, left = number + 1, left - len(line)
                if left <= 0 and self.path.suffix != ".gz":
                    return


def partitions(paths: Iterable[Path], partition_bytes: int = PARTITION_BYTES) -> list[Partition]:
    """Cut files into partitions, in their order: files with one record a line where they are large, others not at all.

    Args:
        paths: The files.
        partition_bytes: Size of a partition; each goes on to the end of a line.

    Raises:
        OSError: A file cannot be read.
    """
    return [part for path in paths for part in _cut(path, partition_bytes)]


def parse_partitions(
    paths: Sequence[Path],
    parser: Callable[[Partition], Result],
    cluster: str | OpenCluster | None = None,
    *,
    partition_bytes: int = PARTITION_BYTES,
    progress: Callable[[int], None] = lambda _done: None,
) -> Mapped[Result]:
    """Parse files by partition, and return what the parser makes of each partition, in the order of the files.

    A partition whose parser fails is reported, and the others are parsed. A parser that writes to a database opens its
    own connection: none can be sent to another process.

    Args:
        paths: The files; every node has to see them.
        parser: Called with each partition.
        cluster: Where to work; see `clusters.open_cluster`.
        partition_bytes: Size of a partition; results do not depend on where the work is done, but may on this.
        progress: Called with the number of partitions that are done.

    Raises:
        OSError: A file cannot be read.
        HullWorksError: As `map_chunks`.
    """
    absolute = [Path(path).absolute() for path in paths]
    return map_chunks(parser, partitions(absolute, partition_bytes), cluster, progress=progress)


def _cut(path: Path, partition_bytes: int) -> Iterator[Partition]:
    size = path.stat().st_size
    if path.suffix not in ONE_RECORD_A_LINE or size <= partition_bytes:
        yield Partition(path, 0, size, 1)
        return
    start, line = 0, 1
    with path.open("rb") as file:
        while start < size:
            block = file.read(partition_bytes)
            # The line that is cut goes to this partition whole, however long it is.
            block += b"" if block.endswith(b"\n") else file.readline()
            yield Partition(path, start, start + len(block), line)
            start, line = start + len(block), line + block.count(b"\n")
