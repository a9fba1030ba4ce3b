"""What the tests of the stability database share: two levels, entries of Mg-Si, and ways to kill a writer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from pymatgen.core import Composition
from pymongo.collection import Collection

from hullworks.analysis.resident import WRITERS
from hullworks.analysis.stability import update_all
from hullworks.documents import DOCUMENTS, Candidate, Entry, Lease, Level, StoredVerdict, now
from hullworks.levels import LevelOfTheory
from hullworks.states import CandidateState, Role

if TYPE_CHECKING:
    from collections.abc import Callable

    from hullworks.settings import Settings

LEVEL = LevelOfTheory("qe", "PBE", "fast")
OTHER = LevelOfTheory("qe", "PBE", "balanced")
ENERGIES = {"Mg": -1.0, "Si": -4.0, "Mg2Si": -2.2, "MgSi": -2.3, "Mg3Si": -1.8}
"""eV/atom; Mg2Si lies 0.2 below its elements, MgSi and Mg3Si above the hull."""
WRITES = ("insert_many", "insert_one", "update_many", "update_one", "bulk_write", "find_one_and_update", "delete_one")


@dataclass
class Lab:
    """Makes entries and candidates, and tells what the hull says of them."""

    key: str = LEVEL.key
    other: str = OTHER.key
    made: int = 0

    def open(self) -> Lab:
        """Store the levels in the database that is connected."""
        WRITERS.forget()
        for level in (LEVEL, OTHER):
            Level(key=level.key, slug=level.slug, data=level.as_dict()).save()
        return self

    def enter(self, formula: str, energy: float | None = None, *, level: str = LEVEL.key, **fields: Any) -> Entry:
        """Store an entry as landing does."""
        composition = Composition(formula)
        self.made += 1
        name = f"{formula}-{'fast' if level == LEVEL.key else 'balanced'}"
        values: dict[str, Any] = {
            "entry_id": f"entry-{name}",
            "calculation_id": f"calc-{name}-{self.made}",
            "candidate_id": f"cand-{name}",
            "level_key": level,
            "name": formula,
            "role": Role.REFERENCE if formula in {"Mg", "Si", "Mg2Si"} else Role.CANDIDATE,
            "formula": formula,
            "reduced_formula": composition.reduced_formula,
            "chemsys": composition.chemical_system,
            "elements": sorted(composition.get_el_amt_dict()),
            "composition": composition.get_el_amt_dict(),
            "n_atoms": int(composition.num_atoms),
            "uncorrected_energy_eV_per_atom": 0.0,
            "energy_eV_per_atom": ENERGIES[formula] if energy is None else energy,
            "valid": True,
            "landed_at": now() + timedelta(seconds=self.made),  # the order is what tests depend on
        }
        entry = Entry(**{**values, **fields})
        entry.save(force_insert=True)
        return entry

    def enter_all(self) -> None:
        """Store the entries of Mg-Si."""
        for formula in ENERGIES:
            self.enter(formula)

    def dethrone(self) -> None:
        """Publish Mg, Si and a stable MgSi (version 4), and then Mg2Si, which takes its place (version 5)."""
        for formula in ("Mg", "Si", "MgSi"):
            self.enter(formula, None if formula != "MgSi" else -2.6)
        update_all()
        self.enter("Mg2Si")
        update_all()

    def declare(self, formula: str, state: CandidateState, role: Role = Role.REFERENCE) -> Candidate:
        """Store a candidate, a reference unless told otherwise."""
        composition = Composition(formula)
        candidate = Candidate(
            candidate_id=f"cand-{formula}-fast",
            row_id=f"row-{formula}",
            batch="b",
            level_key=self.key,
            source_file="f",
            source_row=1,
            name=formula,
            role=role,
            reduced_formula=composition.reduced_formula,
            chemsys=composition.chemical_system,
            state=state,
            entry_id=f"entry-{formula}-fast",
        )
        candidate.save(force_insert=True)
        return candidate

    def verdict(self, formula: str) -> StoredVerdict:
        """Return the published verdict on an entry."""
        version = Level.objects.get(key=self.key).published
        found: StoredVerdict = StoredVerdict.objects.get(
            entry_id=f"entry-{formula}-fast", since__lte=version, until__gt=version
        )
        return found

    def kinds(self) -> dict[str, str]:
        """Return the published verdicts by name of the entry."""
        version = Level.objects.get(key=self.key).published
        found = StoredVerdict.objects(level_key=self.key, since__lte=version, until__gt=version)
        return {verdict.entry_id.split("-")[1]: verdict.kind for verdict in found}

    def restart(self) -> None:
        """Be another process: nothing in memory, and the leases of dead ones have run out."""
        WRITERS.forget()
        Lease.objects.delete()

    def empty(self) -> None:
        """Take everything out of the database but the levels, which are as new."""
        self.restart()
        for document in DOCUMENTS:
            if document is not Level:
                document.objects.delete()
        Level.objects.update(set__published=0, unset__claimed=True, unset__halted=True)


@pytest.fixture
def new_lab() -> Callable[[], Lab]:
    """What makes two levels in the database that is connected."""
    return lambda: Lab().open()


@pytest.fixture
def lab(mongod: Settings) -> Lab:
    """Two levels in an empty database."""
    assert mongod.database.name.startswith("t"), "never anybody's real database"
    return Lab().open()


class Writes:
    """Counts the driver's writes, and does something at one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.act: Callable[[int, str, Callable[[], Any], Any], Any] = lambda _n, _name, write, _documents: write()
        for name in WRITES:
            monkeypatch.setattr(Collection, name, self._watched(name, getattr(Collection, name)))

    def _watched(self, name: str, original: Any) -> Any:  # noqa: ANN401 - the driver's own
        def watched(collection: Any, documents: Any, *args: Any, **more: Any) -> Any:  # noqa: ANN401
            self.count += 1

            def write(given: Any = documents) -> Any:  # noqa: ANN401
                return original(collection, given, *args, **more)

            return self.act(self.count, name, write, documents)

        return watched

    def kill_at(self, number: int) -> None:
        """Die at the numbered write, in the middle of it where it has many documents; a dead process writes no more."""
        self.count = 0

        def act(count: int, name: str, write: Callable[..., Any], documents: Any) -> Any:  # noqa: ANN401
            if count == number and name == "insert_many" and len(documents) > 1:
                write(documents[: len(documents) // 2])
            if count >= number:
                raise KeyboardInterrupt
            return write()

        self.act = act

    def interrupt_at(self, number: int, what: Callable[[], None]) -> None:
        """Let something else happen just before the numbered write, which goes on as if nothing had been."""
        self.count = 0

        def act(count: int, _name: str, write: Callable[..., Any], _documents: Any) -> Any:  # noqa: ANN401
            if count == number:
                what()
            return write()

        self.act = act

    def let(self) -> None:
        """Only count."""
        self.act = lambda _n, _name, write, _documents: write()


@pytest.fixture
def writes(mongod: Settings, monkeypatch: pytest.MonkeyPatch) -> Writes:
    """The driver's writes, to be watched."""
    assert mongod is not None
    return Writes(monkeypatch)
