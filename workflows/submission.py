"""Submission: rows of a batch become candidates, each in the state that it has earned, and nothing is added twice."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mongoengine.errors import NotUniqueError
from pymatgen.core import Structure

from hullworks.documents import SCHEMA_VERSION, Batch, Candidate, Reason, StateMove, now
from hullworks.documents import Prediction as StoredPrediction
from hullworks.errors import HullWorksError, InputError
from hullworks.states import CandidateState
from hullworks.workflows.codes import check_structure, graph_version
from hullworks.workflows.identity import DuplicateIndex, calculation_id, candidate_id, row_id, structure_id
from hullworks.workflows.intake import CandidateInput, IntakeRow, read_rows
from hullworks.workflows.references.levels import store_level
from hullworks.workflows.screening import Rank, ScreeningPolicy, rank, screen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from hullworks.levels import LevelOfTheory
    from hullworks.settings import Settings

MAX_RANKED_eV = 500.0
"""Predictions above it, and candidates without one, queue last, eV/atom."""
UNRANKED = 1e7
"""Place of what has no place in the queue: behind everything."""
_UNNAMED = {"energy_per_atom", "ensemble"}
"""Fields of a prediction that its stored form has no field of its own for."""
CHUNK = 200
"""Rows written to the database in one go; a killed submission repeats at most so many look-ups."""


@dataclass(frozen=True)
class RowOutcome:
    """What became of one row."""

    where: str
    name: str
    state: str
    candidate_id: str
    reason: str = ""
    next_step: str = ""
    new: bool = True

    def as_dict(self) -> dict[str, Any]:
        """Return the outcome as plain JSON types."""
        return dict(self.__dict__)


@dataclass(frozen=True)
class SubmissionReport:
    """What became of all rows of a submission."""

    batch: str
    level_key: str
    dry_run: bool
    outcomes: list[RowOutcome] = field(default_factory=list)

    @property
    def counts(self) -> Counter[str]:
        """How many rows are in which state; rows that were there before count as ``known``."""
        return Counter(outcome.state if outcome.new else "known" for outcome in self.outcomes)


def submit(
    paths: Iterable[Path],
    level: LevelOfTheory,
    settings: Settings,
    *,
    batch: str,
    policy: ScreeningPolicy,
    dry_run: bool = False,
    owner: str = "",
    on_row: Callable[[RowOutcome], None] = lambda _outcome: None,
) -> SubmissionReport:
    """Read files and folders into a batch.

    Args:
        paths: Files or folders of candidates.
        level: Level of theory to verify them at.
        settings: The project's settings.
        batch: Name of the batch; the same rows submitted to it again add nothing.
        policy: What is refused before any DFT.
        dry_run: Only report; store nothing.
        owner: Who submits.
        on_row: Called with each row's outcome, for a progress display.

    Raises:
        InputError: A path does not exist, or the batch belongs to another level.
    """
    given = list(paths)
    rows = read_rows(given)  # a path that does not exist ends it here, before anything is stored
    if not dry_run:
        _note_batch(batch, level, policy, owner, [_text(path.absolute()) for path in given])
    report = SubmissionReport(batch, level.key, dry_run)
    intake = _Intake(level, settings, batch, policy, stored=not dry_run)
    for chunk in _chunks(rows):
        for document, outcome in intake.take(chunk):
            report.outcomes.append(outcome if dry_run or not outcome.new else _insert(document, outcome))
            on_row(report.outcomes[-1])
    return report


class _Intake:
    """Turns rows into candidate documents, remembering which crystals it has seen."""

    def __init__(
        self, level: LevelOfTheory, settings: Settings, batch: str, policy: ScreeningPolicy, *, stored: bool
    ) -> None:
        self.level = level
        self.settings = settings
        self.batch = batch
        self.policy = policy
        self.stored = stored
        self.index = DuplicateIndex(policy.tolerances)
        self.seeded: set[str] = set()

    def take(self, rows: list[IntakeRow]) -> Iterator[tuple[Candidate, RowOutcome]]:
        """Yield a document and its outcome for each row."""
        keys = [row_id(self.batch, row.raw_sha256, row.occurrence) for row in rows]
        known = {c.row_id: c for c in Candidate.objects(row_id__in=keys)} if self.stored else {}
        for key, row in zip(keys, rows, strict=True):
            present = known.get(key)
            document = present or self._document(key, row)
            yield document, _outcome(_text(row.where), document, new=present is None)

    def _document(self, key: str, row: IntakeRow) -> Candidate:
        moment = now()
        candidate = Candidate(
            candidate_id=key,
            row_id=key,
            batch=self.batch,
            level_key=self.level.key,
            source_file=_text(row.path.absolute()),
            source_row=row.number,
            rank=UNRANKED,
            state_since=moment,
        )
        candidate.remarks = list(row.warnings)
        if row.problem is not None:
            problem = row.problem
            candidate.state = CandidateState.QUARANTINED
            candidate.raw_snippet = problem.snippet
            candidate.reason = Reason(code=problem.code.value, text=problem.reason, next_step=problem.next_step)
        elif row.candidate is not None:
            _describe(candidate, row.candidate)
            self._decide(candidate, row.candidate)
        candidate.history = [StateMove(at=moment, new=candidate.state, reason=f"submitted from {_text(row.where)}")]
        return candidate

    def _decide(self, candidate: Candidate, given: CandidateInput) -> None:
        """Screen a readable crystal: rejected, duplicate or queued."""
        result = screen(given.structure, given.prediction, self.policy, role=given.role)
        candidate.flags = [flag.value for flag in result.flags]
        if not result.accepted:
            self._reject(candidate, result.reasons[0].code.value, "; ".join(reason.text for reason in result.reasons))
            return
        try:
            check_structure(given.structure, self.level, self.settings)
            candidate.structure_id = structure_id(given.structure)
        except HullWorksError as error:
            self._reject(candidate, type(error).__name__, error.what, error.next_step)
            return
        self._seed(candidate.reduced_formula)
        twin = self.index.find(given.structure, candidate.structure_id)
        if twin is not None:
            _mark_duplicate(candidate, twin.key, exact=twin.exact)
            return
        candidate.candidate_id = candidate_id(candidate.structure_id, self.level.key)
        candidate.calculation_id = calculation_id(candidate.structure_id, self.level.key, graph_version(self.level))
        candidate.state = CandidateState.QUEUED
        self.index.add_known(candidate.candidate_id, given.structure, candidate.structure_id)

    @staticmethod
    def _reject(candidate: Candidate, code: str, text: str, next_step: str = "") -> None:
        candidate.state = CandidateState.REJECTED
        candidate.reason = Reason(code=code, text=text, next_step=next_step)

    def _seed(self, reduced_formula: str) -> None:
        """Bring the crystals of one formula that the database holds at this level into the index, once."""
        if not self.stored or reduced_formula in self.seeded:
            return
        self.seeded.add(reduced_formula)
        fields = ("candidate_id", "structure_id", "structure")
        owners = Candidate.objects(
            level_key=self.level.key, reduced_formula=reduced_formula, calculation_id__ne=None
        ).only(*fields)
        for owner in owners:
            self.index.add_known(owner.candidate_id, Structure.from_dict(owner.structure), owner.structure_id)


def _describe(candidate: Candidate, given: CandidateInput) -> None:
    """Copy what the row says into its document."""
    composition = given.structure.composition
    prediction = given.prediction
    candidate.name = given.name
    candidate.role = given.role
    candidate.reduced_formula = composition.reduced_formula
    candidate.chemsys = composition.chemical_system
    candidate.n_atoms = len(given.structure)
    candidate.structure = given.structure.as_dict()
    candidate.rank = _as_number(rank(given.structure, prediction, role=given.role))
    candidate.source, candidate.parent, candidate.licence = given.source, given.parent, given.licence
    candidate.extra = _storable(dict(given.extra))
    candidate.prediction = StoredPrediction(
        e_form_eV_per_atom=prediction.formation_energy,
        e_above_hull_eV_per_atom=prediction.e_above_hull,
        uncertainty_eV_per_atom=prediction.uncertainty,
        uncertainty_kind=prediction.uncertainty_kind,
        model=prediction.model,
        model_version=prediction.model_version,
        hull=prediction.hull,
        extra=_storable(prediction.model_dump(include=_UNNAMED, exclude_none=True) | (prediction.model_extra or {})),
    )


def _storable(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return a user's own fields so that the database takes them for nothing else: ``$set``, ``_cls`` are its own."""
    if isinstance(value, dict):
        return {f"x{key}" if key.startswith(("$", "_")) else key: _storable(item) for key, item in value.items()}
    return [_storable(item) for item in value] if isinstance(value, (list, tuple)) else value


def _mark_duplicate(candidate: Candidate, twin: str, *, exact: bool) -> None:
    likeness = "the same crystal as" if exact else "within the matching tolerances the same crystal as"
    candidate.state, candidate.duplicate_of = CandidateState.DUPLICATE, twin
    candidate.reason = Reason(code="duplicate", text=f"{likeness} {twin}")


def _as_number(place: Rank) -> float:
    """Return a place in the queue as one number that sorts the same way and that an index can hold."""
    return place.group * 1e3 + min(place.e_above_hull, MAX_RANKED_eV) + place.n_atoms * 1e-6


def _insert(document: Candidate, outcome: RowOutcome) -> RowOutcome:
    """Store a new candidate; when another submission was faster with the same crystal, as its duplicate."""
    try:
        document.save(force_insert=True)
    except NotUniqueError:
        present = Candidate.objects(row_id=document.row_id).first()
        if present is not None:
            return _outcome(outcome.where, present, new=False)
        _mark_duplicate(document, document.candidate_id, exact=True)
        document.candidate_id, document.calculation_id = document.row_id, None
        document.history[0].new = CandidateState.DUPLICATE
        return _insert(document, _outcome(outcome.where, document, new=True))
    return outcome


def _outcome(where: str, document: Candidate, *, new: bool) -> RowOutcome:
    reason = document.reason
    return RowOutcome(
        where=where,
        name=document.name or "",
        state=document.state.value,
        candidate_id=document.candidate_id,
        reason=reason.text if reason else "",
        next_step=reason.next_step if reason else "",
        new=new,
    )


def _text(place: Path | str) -> str:
    """Return a place as text that a database holds: names of files need not be Unicode."""
    return str(place).encode("utf-8", "backslashreplace").decode()


def _note_batch(batch: str, level: LevelOfTheory, policy: ScreeningPolicy, owner: str, sources: list[str]) -> None:
    """Store the batch and its level, or find them stored."""
    Batch.objects(name=batch).update_one(
        upsert=True,
        set_on_insert__schema_version=SCHEMA_VERSION,
        set_on_insert__created_at=now(),
        set_on_insert__level_key=level.key,
        set_on_insert__policy=policy.model_dump(mode="json"),
        set_on_insert__owner=owner,
    )
    present = Batch.objects.get(name=batch)
    if present.level_key != level.key:
        raise InputError(
            f"it holds candidates of level {present.level_key}, not {level.key}",
            f"batch {batch}",
            "Name another batch.",
        )
    store_level(level)
    Batch.objects(name=batch).update_one(add_to_set__sources=sources)


def _chunks(rows: Iterable[IntakeRow]) -> Iterator[list[IntakeRow]]:
    chunk: list[IntakeRow] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
