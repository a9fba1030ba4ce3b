"""The benchmark's sets of entries as files, and what the measuring processes load from them."""

from __future__ import annotations

import hashlib
import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from hull_data import Entries, published, settings, synthetic, unseen

from hullworks.analysis.compositions import CompositionArrays

if TYPE_CHECKING:
    from hull_data import Array

    from hullworks.analysis.convex_hull import ConvexHull


@dataclass(frozen=True)
class EntrySet:
    """A set by name: ``published``, its first n as ``published:n``, or n made entries as ``synthetic:n``."""

    kind: str
    n: int | None

    @classmethod
    def named(cls, name: str, *, there: bool = True) -> Self:
        """Read a name; a bare number is that many published entries, or made ones where there are not so many.

        Args:
            name: The name.
            there: Whether the published table is there; made entries take its place where it is not.
        """
        kind, _, number = name.partition(":")
        all_of_it = int(settings()["published"])
        if kind.isdigit():
            return cls.named(f"{'published' if int(kind) < all_of_it else 'synthetic'}:{kind}", there=there)
        if kind == "published" and not there:
            return cls("synthetic", int(number or all_of_it))
        return cls(kind, int(number) if number else None)

    def __str__(self) -> str:
        return self.kind if self.n is None else f"{self.kind}:{self.n}"

    def made(self, table: str | None) -> Entries:
        """Make the entries, or read them from the published table."""
        if table is None or self.kind == "synthetic":
            return synthetic(self.n or settings()["published"])
        entries = published(Path(table))
        return entries if self.n is None else entries.first(self.n)


@dataclass(frozen=True)
class Folder:
    """Where one set's files are."""

    path: Path

    def write(self, entries: Entries) -> dict[str, Any]:
        """Write entries and unseen compositions, raw and as the hull takes them; the last entries are held back."""
        shutil.rmtree(self.path, ignore_errors=True)  # answers about other entries
        self.path.mkdir(parents=True)
        entries.save(self.path / "entries.npz")
        unseen(entries).save(self.path / "unseen.npz")
        built = len(entries) - settings()["held_back"]
        for name, part in (("built", entries.first(built)), ("held", entries.after(built)), ("unseen", self.unseen())):
            arrays = part.compositions()
            np.savez(self.path / f"{name}_arrays.npz", energies=part.energies, **vars(arrays))
        return {"entries": len(entries), "built": built, "held_back": len(entries) - built}

    def entries(self) -> Entries:
        """Return all entries."""
        return Entries.load(self.path / "entries.npz")

    def unseen(self) -> Entries:
        """Return compositions that are in no entry, at 0 eV/atom."""
        return Entries.load(self.path / "unseen.npz")

    def arrays(self, name: str) -> tuple[CompositionArrays, Array]:
        """Return (compositions, energies in eV/atom) of ``built``, ``held`` or ``unseen``."""
        with np.load(self.path / f"{name}_arrays.npz") as file:
            read = {key: file[key] for key in file.files}
        energies = read.pop("energies")
        return CompositionArrays(elements=tuple(read.pop("elements").tolist()), **read), energies

    def keep_hull(self, hull: ConvexHull, mode: str) -> None:
        """Write a hull for the processes that go on with it."""
        with (self.path / f"hull_{mode}.pickle").open("wb") as file:
            pickle.dump(hull, file, protocol=5)

    def hull(self, mode: str) -> ConvexHull:
        """Return the hull that `keep_hull` wrote."""
        with (self.path / f"hull_{mode}.pickle").open("rb") as file:
            hull: ConvexHull = pickle.load(file)  # noqa: S301 - the benchmark's own file
        return hull

    def keep_answers(self, name: str, **arrays: Any) -> None:
        """Write answers, for the comparison with those of others."""
        np.savez(self.path / f"answers_{name}.npz", **arrays)

    def answers(self, name: str) -> dict[str, Any] | None:
        """Return what `keep_answers` wrote, None where nobody did."""
        path = self.path / f"answers_{name}.npz"
        if not path.exists():
            return None
        with np.load(path) as file:
            return {key: file[key] for key in file.files}


def digest(*arrays: Array) -> str:
    """Return a hash of the bits of arrays."""
    hashed = hashlib.sha256()
    for array in arrays:
        hashed.update(np.ascontiguousarray(array).tobytes())
    return hashed.hexdigest()
