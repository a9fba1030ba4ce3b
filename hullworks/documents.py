"""Every stored document: the vocabulary that the rooms share.

Each collection carries a schema version per document. Indexes are made by `ensure_indexes`, never as a side effect of a
query. Energies are eV or eV/atom as the field's name says, times are UTC.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Self

from mongoengine import (
    BooleanField,
    DateTimeField,
    DictField,
    Document,
    EmbeddedDocument,
    EmbeddedDocumentField,
    EmbeddedDocumentListField,
    EnumField,
    FloatField,
    IntField,
    ListField,
    StringField,
)

from hullworks.errors import StateError
from hullworks.states import CandidateState, Cause, Role, check_move, sources_of

if TYPE_CHECKING:
    from collections.abc import Collection

SCHEMA_VERSION = 1


def now() -> datetime:
    """Return the present time in UTC, to the millisecond that MongoDB keeps."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


class Versioned(Document):
    """Base of all documents: a schema version, strict fields."""

    meta: ClassVar[dict[str, Any]] = {"abstract": True, "auto_create_index": False, "strict": True}
    schema_version = IntField(default=SCHEMA_VERSION, required=True)


class SchemaInfo(Document):
    """The schema version that this database was made for; one document."""

    meta: ClassVar[dict[str, Any]] = {"collection": "schema_info", "auto_create_index": False}
    name = StringField(primary_key=True)
    version = IntField(required=True)
    made_by = StringField(required=True)


class Level(Versioned):
    """A level of theory that has candidates or entries; `data` is `LevelOfTheory.as_dict`."""

    meta: ClassVar[dict[str, Any]] = {"collection": "levels", "indexes": ["slug"]}
    key = StringField(primary_key=True)
    slug = StringField(required=True)
    data = DictField(required=True)
    verdicts_sequence = IntField(default=0)
    missing_references = ListField(ListField(StringField()))
    created_at = DateTimeField(default=now, required=True)


class Batch(Versioned):
    """Candidates submitted together."""

    meta: ClassVar[dict[str, Any]] = {"collection": "batches", "indexes": ["level_key", "-created_at"]}
    name = StringField(primary_key=True)
    level_key = StringField(required=True)
    policy = DictField()
    owner = StringField()
    sources = ListField(StringField())
    created_at = DateTimeField(default=now, required=True)


class Prediction(EmbeddedDocument):
    """What a model said of a candidate before any DFT; energies in eV/atom."""

    e_form_eV_per_atom = FloatField()
    e_above_hull_eV_per_atom = FloatField()
    uncertainty_eV_per_atom = FloatField(min_value=0.0)
    uncertainty_kind = StringField(choices=("std", "iqr"))
    model = StringField()
    model_version = StringField()
    hull = StringField()
    extra = DictField()


class Reason(EmbeddedDocument):
    """Why something is as it is, for a person: what, and what to do next."""

    code = StringField(required=True)
    text = StringField(required=True)
    next_step = StringField(default="")


class StateMove(EmbeddedDocument):
    """One move of a candidate, with its time and reason."""

    at = DateTimeField(required=True)
    old = EnumField(CandidateState)
    new = EnumField(CandidateState, required=True)
    reason = StringField(default="")


class Candidate(Versioned):
    """One row of a batch: a proposed crystal on its way to a verdict, or the reason why it has none."""

    meta: ClassVar[dict[str, Any]] = {
        "collection": "candidates",
        "indexes": [
            {"fields": ["row_id"], "unique": True},
            ("batch", "state"),
            ("level_key", "state", "rank"),
            ("level_key", "structure_id"),
            ("level_key", "reduced_formula"),
            ("level_key", "chemsys", "role"),
            "calculation_id",
            "duplicate_of",
        ],
    }
    candidate_id = StringField(primary_key=True)
    row_id = StringField(required=True)
    batch = StringField(required=True)
    level_key = StringField(required=True)
    source_file = StringField(required=True)
    source_row = IntField(required=True)
    raw_snippet = StringField()
    name = StringField()
    role = EnumField(Role, default=Role.CANDIDATE)
    reduced_formula = StringField()
    chemsys = StringField()
    n_atoms = IntField()
    structure_id = StringField()
    structure = DictField()
    prediction = EmbeddedDocumentField(Prediction)
    source = StringField()
    parent = StringField()
    licence = StringField()
    extra = DictField()
    remarks = ListField(StringField())
    flags = ListField(StringField())
    rank = FloatField(default=0.0)
    state = EnumField(CandidateState, required=True)
    state_since = DateTimeField(default=now, required=True)
    reason = EmbeddedDocumentField(Reason)
    history = EmbeddedDocumentListField(StateMove)
    duplicate_of = StringField()
    calculation_id = StringField()
    workflow_id = IntField()
    entry_id = StringField()
    cause = EnumField(Cause)
    attempts = IntField(default=0)

    @classmethod
    def move(
        cls,
        candidate_id: str,
        new: CandidateState,
        why: str = "",
        *,
        only_from: Collection[CandidateState] | None = None,
        **fields: Any,
    ) -> Self:
        """Move a candidate to another state by compare-and-set, and return it as it is afterwards.

        Args:
            candidate_id: The candidate.
            new: The state to move to.
            why: Why, for the history.
            only_from: States from which this move is meant; by default all that the table of moves allows.
            fields: Other fields to set in the same step.

        Raises:
            StateError: The candidate does not exist or is in none of those states; nothing was changed.
        """
        sources = sources_of(new) if only_from is None else sources_of(new) & frozenset(only_from)
        while True:
            old = cls.state_of(candidate_id)
            if old not in sources:
                check_move(old, new, candidate_id)
                wanted = ", ".join(sorted(sources)) or "no state"
                raise StateError(f"it is {old}, and the move to {new} is meant from {wanted}", candidate_id)
            moment = now()
            updated: Self | None = cls.objects(candidate_id=candidate_id, state=old).modify(
                set__state=new,
                set__state_since=moment,
                push__history=StateMove(at=moment, old=old, new=new, reason=why),
                new=True,
                **{f"set__{name}": value for name, value in fields.items()},
            )
            if updated is not None:
                return updated

    @classmethod
    def state_of(cls, candidate_id: str) -> CandidateState:
        """Return the state of a candidate.

        Raises:
            StateError: There is no such candidate.
        """
        present = cls.objects(candidate_id=candidate_id).only("state").first()
        if present is None:
            raise StateError("no such candidate", candidate_id, "`hullworks candidates` lists them.")
        state: CandidateState = present.state
        return state


class Calculation(Versioned):
    """One structure at one level under one version of the graph: computed at most once, whoever asks."""

    meta: ClassVar[dict[str, Any]] = {"collection": "calculations", "indexes": ["structure_id", "level_key"]}
    calculation_id = StringField(primary_key=True)
    structure_id = StringField(required=True)
    level_key = StringField(required=True)
    graph_version = StringField(required=True)
    candidate_id = StringField(required=True)
    workflow_id = IntField()
    entry_id = StringField()
    created_at = DateTimeField(default=now, required=True)


class Run(Versioned):
    """One launch of one step of a graph, with the cause of its end and the evidence for it."""

    meta: ClassVar[dict[str, Any]] = {
        "collection": "runs",
        "indexes": ["candidate_id", "calculation_id", ("cause", "-ended_at"), "fw_id"],
    }
    run_id = StringField(primary_key=True)
    candidate_id = StringField(required=True)
    calculation_id = StringField(required=True)
    step = StringField(required=True)
    fw_id = IntField()
    launch_id = IntField()
    worker_id = StringField()
    host = StringField()
    directory = StringField()
    started_at = DateTimeField()
    ended_at = DateTimeField()
    cause = EnumField(Cause, required=True)
    outcome = StringField()
    evidence = ListField(StringField())
    corrections = ListField(DictField())
    code_version = StringField()
    wall_s = FloatField()


class Entry(Versioned):
    """One validated calculation of one structure at one level; immutable but for its retraction."""

    meta: ClassVar[dict[str, Any]] = {
        "collection": "entries",
        "indexes": [
            {"fields": ["calculation_id"], "unique": True},
            ("level_key", "chemsys"),
            ("level_key", "reduced_formula"),
            ("level_key", "elements"),
            ("level_key", "hull_sequence"),
            "structure_id",
            "candidate_id",
        ],
    }
    entry_id = StringField(primary_key=True)
    calculation_id = StringField(required=True)
    candidate_id = StringField(required=True)
    level_key = StringField(required=True)
    name = StringField()
    role = EnumField(Role, default=Role.CANDIDATE)
    formula = StringField(required=True)
    reduced_formula = StringField(required=True)
    chemsys = StringField(required=True)
    elements = ListField(StringField(), required=True)
    composition = DictField(required=True)
    n_atoms = IntField(required=True, min_value=1)
    uncorrected_energy_eV_per_atom = FloatField(required=True)
    correction_parts_eV_per_atom = DictField()
    energy_eV_per_atom = FloatField(required=True)
    convergence_error_eV_per_atom = FloatField()
    structure = DictField(required=True)
    structure_id = StringField(required=True)
    initial_structure_id = StringField(required=True)
    valid = BooleanField(required=True)
    reasons = EmbeddedDocumentListField(Reason)
    flags = ListField(StringField())
    results = DictField()
    provenance = DictField()
    retracted = BooleanField(default=False)
    hull_sequence = IntField()
    landed_at = DateTimeField(default=now, required=True)


class HullEvent(Versioned):
    """One appended fact about the hull of a level; never changed afterwards."""

    meta: ClassVar[dict[str, Any]] = {
        "collection": "hull_events",
        "indexes": [
            {"fields": ["level_key", "sequence"], "unique": True},
            {"fields": ["level_key", "kind", "entry_id"], "unique": True},
        ],
    }
    level_key = StringField(required=True)
    sequence = IntField(required=True, min_value=1)
    kind = StringField(required=True, choices=("entry_added", "entry_retracted"))
    entry_id = StringField(required=True)
    chemsys = StringField(required=True)
    entered = ListField(StringField())
    left = ListField(StringField())
    moved = DictField()
    libraries = DictField()
    at = DateTimeField(default=now, required=True)


class StoredVerdict(Versioned):
    """What the hull of a level says of an entry, as of a hull version."""

    meta: ClassVar[dict[str, Any]] = {
        "collection": "verdicts",
        "indexes": [("level_key", "kind"), ("level_key", "chemsys"), "candidate_id"],
    }
    entry_id = StringField(primary_key=True)
    candidate_id = StringField(required=True)
    level_key = StringField(required=True)
    chemsys = StringField(required=True)
    hull_sequence = IntField(required=True)
    kind = StringField(required=True)
    e_above_hull_eV_per_atom = FloatField()
    formation_energy_eV_per_atom = FloatField()
    e_below_others_eV_per_atom = FloatField()
    decomposition = ListField(DictField())
    missing = ListField(StringField())
    flags = ListField(StringField())
    made_at = DateTimeField(default=now, required=True)


class Worker(Versioned):
    """A process that works through the LaunchPad; tells a dead one from a live one at once on its own machine."""

    meta: ClassVar[dict[str, Any]] = {"collection": "workers", "indexes": ["host"]}
    worker_id = StringField(primary_key=True)
    host = StringField(required=True)
    boot_id = StringField(required=True)
    pid = IntField(required=True)
    process_started = IntField(required=True)
    started_at = DateTimeField(default=now, required=True)


class Lease(Document):
    """Something that one process at a time may do, until a time."""

    meta: ClassVar[dict[str, Any]] = {"collection": "leases", "auto_create_index": False}
    name = StringField(primary_key=True)
    holder = StringField(required=True)
    expires_at = DateTimeField(required=True)


DOCUMENTS: tuple[type[Document], ...] = (
    Level,
    Batch,
    Candidate,
    Calculation,
    Run,
    Entry,
    HullEvent,
    StoredVerdict,
    Worker,
)


def ensure_indexes() -> None:
    """Create every index; free when they exist."""
    for document in DOCUMENTS:
        document.ensure_indexes()
