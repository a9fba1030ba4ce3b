"""The client for notebooks and scripts: hulls, verdicts and candidates of a project, read out of its database."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from hullworks.analysis.events import published
from hullworks.analysis.history import HistoryStep, HullDiff, diff, history
from hullworks.analysis.hull_points import EntryText, HullPoints
from hullworks.analysis.hull_view import HullView, load_view
from hullworks.analysis.published import candidate_rows, verdict_on, verdict_row, verdicts_of_level
from hullworks.analysis.resident import Residents
from hullworks.database import connect as connect_documents
from hullworks.documents import Candidate, Level
from hullworks.elements import elements_of
from hullworks.errors import HullError, InputError
from hullworks.levels import resolve_level
from hullworks.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt
    import pandas as pd
    import plotly.graph_objects as go
    from pymatgen.analysis.phase_diagram import PhaseDiagram
    from pymatgen.core import Composition

    from hullworks.analysis.convex_hull import ConvexHull
    from hullworks.analysis.ensembles import Stability
    from hullworks.analysis.verdicts import VerdictResult


def connect(uri: str | None = None, *, project: str | Path | None = None, read_only: bool = False) -> StabilityDB:
    """Connect to a project's stability database.

    Args:
        uri: MongoDB address; by default that of the project's settings.
        project: Project folder; by default found from the working folder upwards.
        read_only: Write nothing, not even missing indexes, so that a user without the right to write can connect.

    Raises:
        DatabaseError: The server is unreachable, refuses, or holds another schema version.
        ServiceError: The project's private server was never started.
    """
    settings = load_settings(Path(project) if project is not None else None)
    if uri is not None:
        settings = settings.model_copy(
            update={"database": settings.database.model_copy(update={"uri": SecretStr(uri), "uri_file": None})}
        )
    connect_documents(settings, create=not read_only)
    return StabilityDB(settings)


class StabilityDB:
    """The stability database of a project; the documents must be connected.

    It only reads. Every answer is of one published hull version, and names it.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._hulls = Residents()
        self._catching_up = threading.Lock()

    def levels(self) -> list[str]:
        """Return the keys of the levels of theory."""
        return sorted(level.key for level in Level.objects.only("key"))

    def hull(self, chemsys: str, *, level: str | None = None, as_of: int | None = None) -> Hull:
        """Return the hull of a chemical system.

        Args:
            chemsys: Elements joined by hyphens, in any order.
            level: Key or readable name of the level; by default the project's.
            as_of: Number of the hull event to go back to; by default the published version.

        Raises:
            LevelError: The level is unknown or its name ambiguous.
            InputError: The chemical system cannot be read.
            HullError: There is no such event.
        """
        key = self._level(level)
        newest = published(key)
        if as_of is not None and as_of > newest:
            raise HullError(f"there is no event {as_of}, the newest is {newest}", key)
        asked = newest if as_of is None else as_of
        return Hull(load_view(key, elements_of(chemsys), as_of=asked), is_present=asked == newest)

    def e_above_hull(
        self, compositions: Sequence[str | Composition], energies_per_atom: npt.ArrayLike, *, level: str | None = None
    ) -> npt.NDArray[np.float64]:
        """Return signed distances from the hull of any compositions, float64, (m,), in eV/atom; negative is below.

        The first call loads the whole level, seconds for 100,000 entries; later ones only what has changed since.

        Args:
            compositions: m formulas or pymatgen Compositions.
            energies_per_atom: Shape (m,), total energies in eV/atom of exactly this level of theory.
            level: Key or readable name of the level; by default the project's.

        Returns:
            NaN where an elemental reference is missing.

        Raises:
            LevelError: The level is unknown or its name ambiguous.
            HullError: A composition cannot be read, or an energy is not finite.
        """
        return self.engine(level).query(compositions, energies_per_atom)

    def engine(self, level: str | None = None) -> ConvexHull:
        """Return the hull engine over all entries of a level, total energies in eV/atom; not to be changed.

        Args:
            level: Key or readable name of the level; by default the project's.

        Raises:
            LevelError: The level is unknown or its name ambiguous.
        """
        key = self._level(level)
        with self._catching_up:
            hull = self._hulls.take(key, published(key))
            self._hulls.give_back(hull)
        return hull.engine

    def candidates(self, batch: str | None = None) -> pd.DataFrame:
        """Return candidates with state, prediction and verdict, one row each; energies in eV/atom."""
        import pandas as pd

        found = Candidate.objects(**({"batch": batch} if batch else {})).order_by("rank", "source_row")
        return pd.DataFrame(candidate_rows(found.exclude("structure", "history")))

    def stable(self, level: str | None = None, chemsys: str | None = None) -> pd.DataFrame:
        """Return the stable entries of a level, one row each; energies in eV/atom.

        Args:
            level: Key or readable name of the level; by default the project's.
            chemsys: Only entries within this chemical system.

        Raises:
            LevelError: The level is unknown or its name ambiguous.
            InputError: The chemical system cannot be read.
        """
        import pandas as pd

        key = self._level(level)
        version, system = published(key), "-".join(elements_of(chemsys)) if chemsys else None
        found = verdicts_of_level(key, version, chemsys=system, kind="stable")
        rows = [{"entry_id": each["entry_id"], "chemsys": each["chemsys"], **verdict_row(each)} for each in found]
        return pd.DataFrame(rows).assign(read_at=version) if rows else pd.DataFrame()

    def verdict(self, candidate_id: str) -> dict[str, Any] | None:
        """Return the present verdict on a candidate, of its twin for a duplicate; None while it has none.

        It names its level, the hull version that made it (``hull_version``), the one that it is read at, its flags, and
        what it is made of; energies in eV/atom.

        Raises:
            InputError: There is no such candidate.
        """
        candidate = Candidate.objects(candidate_id=candidate_id).first()
        if candidate is None:
            raise InputError("there is no such candidate", candidate_id)
        found = verdict_on(candidate)
        return None if found is None else {"entry_id": found["entry_id"], **verdict_row(found)}

    def history(self, entry_id: str) -> list[HistoryStep]:
        """Return all that happened to an entry on its level's hull, oldest first.

        Raises:
            InputError: No hull knows the entry.
        """
        return history(entry_id)

    def diff(self, start: int, end: int | None = None, *, level: str | None = None) -> HullDiff:
        """Compare what two hull versions of a level say.

        Args:
            start: The one version.
            end: The other; by default the published one.
            level: Key or readable name of the level; by default the project's.

        Raises:
            LevelError: The level is unknown or its name ambiguous.
            HullError: There is no such version.
        """
        key = self._level(level)
        return diff(key, start, published(key) if end is None else end)

    def _level(self, level: str | None) -> str:
        return resolve_level(level or self.settings.level, self.levels())


@dataclass(frozen=True, eq=False)
class Hull:
    """An immutable view of one chemical system at one level and hull version.

    Attributes:
        view: The entries.
        is_present: Whether it is the newest version; verdicts are made for that one.
    """

    view: HullView
    is_present: bool = True

    @property
    def level_key(self) -> str:
        """Key of the level of theory."""
        return self.view.level_key

    @property
    def elements(self) -> tuple[str, ...]:
        """The chemical system."""
        return self.view.elements

    @property
    def sequence(self) -> int:
        """Number of the newest hull event contained."""
        return self.view.sequence

    @property
    def version(self) -> str:
        """Name of the hull version."""
        return self.view.version

    @property
    def engine(self) -> ConvexHull:
        """The hull engine over the entries."""
        return self.view.hull

    def verdicts(self) -> list[VerdictResult]:
        """Judge every entry by this very hull; in the order of the entries."""
        return self.view.verdicts()

    def rows(self) -> list[dict[str, Any]]:
        """Return the entries with their numbers as plain rows; energies in eV/atom."""
        return [_row(self.view, i, verdict) for i, verdict in enumerate(self.verdicts())]

    @property
    def entries(self) -> pd.DataFrame:
        """All entries with energies (eV/atom), verdict, flags and decomposition."""
        import pandas as pd

        return pd.DataFrame(self.rows())

    @property
    def stable(self) -> pd.DataFrame:
        """The entries that are stable."""
        entries = self.entries
        return entries if entries.empty else entries[entries["verdict"] == "stable"]

    def p_stable(
        self, n_samples: int = 1000, seed: int = 0, *, assumed_eV: float | None = None, cluster: str | None = None
    ) -> Stability:
        """Return how often each entry is stable when the errors that entries carry are drawn many times.

        Args:
            n_samples: Hulls to build.
            seed: Seed of the draws; the same gives the same bytes.
            assumed_eV: One standard deviation in eV/atom of an independent error for each entry that carries none.
            cluster: Where to work: None for this process, ``local:N`` or ``slurm:N`` with the extra ``dask``.

        Raises:
            HullError: No entry carries an error, and none is assumed.
        """
        from hullworks.analysis.ensembles import p_stable
        from hullworks.analysis.entry_errors import carried_errors

        errors = carried_errors(self.view, assumed_eV).errors
        return p_stable(self.engine, errors, n_samples, seed, cluster=cluster)

    def phase_diagram(self) -> PhaseDiagram:
        """Return pymatgen's phase diagram of the same entries.

        Raises:
            HullError: An element has no entry.
        """
        from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram

        if self.engine.missing_elements or {e for s in self.view.entries for e in s.composition} != set(self.elements):
            raise HullError("an element has no entry at this level", "-".join(self.elements), "Compute it first.")
        entries = [
            PDEntry(row.reduced_formula, row.energy_eV_per_atom * _atoms(row.reduced_formula), name=row.entry_id)
            for row in self.view.entries
        ]
        return PhaseDiagram(entries)

    def points(self) -> HullPoints:
        """Return what the figures draw; entries without an energy above hull are left out."""
        return HullPoints.of(
            self.engine,
            self.elements,
            [EntryText(row.entry_id, row.reduced_formula, row.role) for row in self.view.entries],
            level_key=self.level_key,
            hull_version=str(self.sequence),
        )

    def plot(self) -> go.Figure:
        """Return the interactive phase diagram."""
        from hullworks.analysis.interactive import interactive_figure

        return interactive_figure(self.points())

    def save_plot(self, path: Path) -> Path:
        """Write the phase diagram as ``.png``, ``.svg``, ``.pdf``, or as self-contained, interactive ``.html``.

        Raises:
            InputError: The file's ending is none of these.
        """
        if path.suffix == ".html":
            from hullworks.analysis.interactive import write_interactive

            return write_interactive(self.points(), path)
        if path.suffix not in {".png", ".svg", ".pdf"}:
            raise InputError("a plot is written as .png, .svg, .pdf or .html", str(path), "Name the file so.")
        from hullworks.analysis.plots import plot_phase_diagram

        return plot_phase_diagram(self.points(), path)

    def as_of(self, sequence: int) -> Hull:
        """Return the same system as of an earlier hull event."""
        return replace(self, view=load_view(self.level_key, self.elements, as_of=sequence), is_present=False)


def _row(view: HullView, i: int, verdict: VerdictResult) -> dict[str, Any]:
    entry = view.entries[i]
    return {
        "entry_id": entry.entry_id,
        "candidate_id": entry.candidate_id,
        "name": entry.name,
        "role": entry.role.value,
        "formula": entry.formula,
        "reduced_formula": entry.reduced_formula,
        "chemsys": entry.chemsys,
        "energy_eV_per_atom": entry.energy_eV_per_atom,
        "formation_energy": verdict.formation_energy_eV,
        "e_above_hull": verdict.e_above_hull_eV,
        "e_below_others": verdict.e_to_hull_of_others_eV,
        "verdict": verdict.kind.value,
        "level": view.level_key,
        "hull_version": view.sequence,
        "decomposition": [f"{part.fraction:.3f} {part.formula}" for part in verdict.decomposition],
        "missing": list(verdict.missing),
        "flags": [flag.value for flag in verdict.flags],
    }


def _atoms(formula: str) -> float:
    from pymatgen.core import Composition

    return float(Composition(formula).num_atoms)
