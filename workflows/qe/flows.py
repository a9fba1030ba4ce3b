"""The graph of one candidate: relax, relax again until cell and basis agree, static, land."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jobflow import Flow, Job, Maker, OutputReference

from hullworks.workflows.qe.cells import check_structure, primitive_cell
from hullworks.workflows.qe.jobs import QeRelaxMaker, QeStaticMaker, initial_relax_maker

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from hullworks.levels import LevelOfTheory

Land = Callable[[OutputReference, OutputReference], Job]
"""Makes the job that lands a candidate, from the outputs of the static step and of the last relaxation."""


@dataclass
class QeRelaxRelaxStaticMaker(Maker):
    """One flat graph for one candidate.

    >>> maker = QeRelaxRelaxStaticMaker.at(level)
    >>> flow = maker.make(structure, land=lambda static, relax: land(static, relax, context))

    A gate between the relaxations takes the output of the first, like the second relaxation does.

    Attributes:
        name: Name of the flow.
        first: The loose relaxation.
        second: The relaxation that repeats itself.
        static: The calculation whose energy counts.
    """

    name: str = "relax relax static"
    first: QeRelaxMaker = field(default_factory=QeRelaxMaker)
    second: QeRelaxMaker = field(default_factory=QeRelaxMaker)
    static: QeStaticMaker = field(default_factory=QeStaticMaker)

    @classmethod
    def at(
        cls, level: LevelOfTheory, overrides: list[list[Any]] | None = None, name: str = "relax relax static"
    ) -> QeRelaxRelaxStaticMaker:
        """Return the Maker for a level of theory.

        Args:
            level: The level.
            overrides: Settings of pw.x for all steps, as (namelist, key, value).
            name: Name of the flow.
        """
        data = level.as_compact_dict()
        changed = overrides or []
        return cls(
            name=name,
            first=initial_relax_maker(data, changed),
            second=QeRelaxMaker(name="relax 2", level=data, overrides=changed),
            static=QeStaticMaker(level=data, overrides=changed),
        )

    def make(self, structure: Structure, *, metadata: dict[str, Any] | None = None, land: Land | None = None) -> Flow:
        """Return the graph of a structure, which is reduced to its primitive cell.

        Args:
            structure: The candidate.
            metadata: Written on every job of the graph, also on those that join it later.
            land: Makes the last job.

        Raises:
            InputError: The structure cannot be calculated.
        """
        check_structure(structure)
        relax = self.first.make(primitive_cell(structure))
        again = self.second.make(relax.output.structure, relax.output.initial_structure)
        static = self.static.make(again.output.structure, again.output.initial_structure)
        jobs: list[Flow | Job] = [relax, again, static]
        if land is not None:
            jobs.append(land(static.output, again.output))
        flow = Flow(jobs, output=jobs[-1].output, name=self.name)
        if metadata:
            flow.update_metadata(metadata, dynamic=True)
        return flow
