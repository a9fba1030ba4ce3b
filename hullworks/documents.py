"""Every stored document: the vocabulary that the rooms share.

Each collection carries a schema version per document. Indexes are made by `ensure_indexes`, never as a side effect of a
query. Energies are eV or eV/atom as the field's name says, times are UTC.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

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
from pymongo import UpdateOne

from hullworks.errors import InputError, StateError
from hullworks.states import OPEN, CandidateState, Cause, QueueJobState, Role, check_move, sources_of

if TYPE_CHECKING:
    from collections.abc import Collection as Group
    from collections.abc import Mapping

    from pymongo.collection import Collection

SCHEMA_VERSION = 2

OPEN_END: Final = 2**62
"""The hull version at which a verdict ends that still holds."""


def now() -> datetime:
    """Return the present time in UTC, to the millisecond that MongoDB keeps."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


class Versioned(Document):
    """Base of all documents: a schema version, strict fields."""

    meta: ClassVar[dict[str, Any]] = {"abstract": True, "auto_create_index": False, "strict": True}
    schema_version = IntField(default=SCHEMA_VERSION, required=True)

    @classmethod
    def collection(cls) -> Collection[dict[str, Any]]:
        """Return the driver's collection, for reading and writing in bulk without a document object per row."""
        found: Collection[dict[str, Any]] = cls._get_collection()
        return found


class SchemaInfo(Document):
    """The schema version that this database was made for; one document."""

    meta: ClassVar[dict[str, Any]] = {"collection": "schema_info", "auto_create_index": False}
    name = StringField(primary_key=True)
    version = IntField(required=True)
    made_by = StringField(required=True)


class Level(Versioned):
    """A level of theory that has candidates or entries; `data` is `LevelOfTheory.as_dict`.

    published: The hull version that readers see: number of the last hull event contained; 0 before the first.
    claimed: The version that is being written next; set before its first verdict, so that whoever completes it after
        a death writes the very same one.
    halted: Why nothing more is published, when an audit found a wrong number; the published version stays readable.
    """

    meta: ClassVar[dict[str, Any]] = {"collection": "levels", "indexes": ["slug"]}
    key = StringField(primary_key=True)
    slug = StringField(required=True)
    data = DictField(required=True)
    published = IntField(default=0)
    claimed = IntField()
    halted = DictField()
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


class Remedied(EmbeddedDocument):
    """One ended run after which its step was started again: what ended it, and what was changed."""

    run_id = StringField(required=True)
    at = DateTimeField(required=True)
    cause = EnumField(Cause, required=True)
    why = StringField(required=True)


class Candidate(Versioned):
    """One row of a batch: a proposed crystal on its way to a verdict, or the reason why it has none.

    resources: What its runs need by experience, where that is more than usual: walltime_s, memory_MB (per run).
    remedies: Its runs that were started again, and why.
    budget_since: When the count of its failures began anew, by its user's ``retry``.
    """

    meta: ClassVar[dict[str, Any]] = {
        "collection": "candidates",
        "indexes": [
            {"fields": ["row_id"], "unique": True},
            ("batch", "state"),
            ("level_key", "state", "rank"),
            # What the feeder and every look at the books ask for, among millions that are done.
            ("state", "rank", "candidate_id"),
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
    resources = DictField()
    remedies = EmbeddedDocumentListField(Remedied)
    budget_since = DateTimeField()

    @classmethod
    def count_open(cls, batch: str | None = None) -> int:
        """Return how many candidates work is still owed to, of one batch or of all."""
        selection = cls.objects(state__in=list(OPEN))
        return int((selection.filter(batch=batch) if batch else selection).count())

    @classmethod
    def move(
        cls,
        candidate_id: str,
        new: CandidateState,
        why: str = "",
        *,
        only_from: Group[CandidateState] | None = None,
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
    def move_many(cls, old: CandidateState, new: CandidateState, why: Mapping[str, str]) -> int:
        """Move many candidates from one state to another, each by compare-and-set; return how many were moved.

        Args:
            old: The state to move from; a candidate that is no longer in it stays as it is.
            new: The state to move to.
            why: Why, for the history, by candidate id.

        Raises:
            StateError: The table of moves has no such move; nothing was changed.
        """
        check_move(old, new)
        if not why:
            return 0
        moment = now()
        moves = [
            UpdateOne(
                {"_id": candidate_id, "state": old.value},
                {
                    "$set": {"state": new.value, "state_since": moment},
                    "$push": {"history": {"at": moment, "old": old.value, "new": new.value, "reason": reason}},
                },
            )
            for candidate_id, reason in why.items()
        ]
        return int(cls.collection().bulk_write(moves, ordered=False).modified_count)

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
    job = StringField()
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
    """One validated calculation of one structure at one level; immutable but for retraction and re-correction.

    hull_sequence: A hull version that contains what is stored here; None while the hull has yet to hear of it.
    uncertainty_parts_eV_per_atom: 1 sigma of each independent source of error, by the source's name.
    refused: Why the hull does not take the entry, although it is valid.
    retraction, recorrection: Why its user took it back, or gave it another energy.
    recorrections: How often it was given another energy.
    """

    meta: ClassVar[dict[str, Any]] = {
        "collection": "entries",
        "indexes": [
            {"fields": ["calculation_id"], "unique": True},
            ("level_key", "chemsys"),
            ("level_key", "reduced_formula"),
            ("level_key", "elements"),
            ("level_key", "valid", "hull_sequence"),
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
    uncertainty_parts_eV_per_atom = DictField()
    structure = DictField()
    structure_id = StringField()
    initial_structure_id = StringField()
    valid = BooleanField(required=True)
    reasons = EmbeddedDocumentListField(Reason)
    flags = ListField(StringField())
    results = DictField()
    provenance = DictField()
    retracted = BooleanField(default=False)
    retraction = StringField()
    recorrections = IntField(default=0)
    recorrection = StringField()
    refused = EmbeddedDocumentField(Reason)
    hull_sequence = IntField()
    landed_at = DateTimeField(default=now, required=True)

    @classmethod
    def stored(cls, entry_id: str, fields: Mapping[str, int] | None = None) -> dict[str, Any]:
        """Return an entry as the database has it.

        Args:
            entry_id: The entry.
            fields: The driver's projection; by default everything.

        Raises:
            InputError: There is no such entry.
        """
        found = cls.collection().find_one({"_id": entry_id}, fields)
        if found is None:
            raise InputError(
                "there is no such entry", entry_id, "`hullworks hull CHEMSYS` lists entries with their ids."
            )
        return found


class HullEvent(Versioned):
    """One appended fact about the hull of a level; never changed afterwards. All else is derived from the events.

    sequence: 1, 2, ... without gaps within a level.
    token: What makes the event the same one when it is appended again; unique within a level.
    subject: What the hull knows of the entry: composition, energy in eV/atom, name, role, ...
    missing, settled: For ``references_changed``: declared references that now have no entry, and those that are no
        longer missed, as [name, chemical system].
    rules: For ``rules_changed``: the thresholds of verdicts from here on.
    reason: Why an entry was retracted or re-corrected.
    libraries: Versions of the libraries that appended it.
    """

    meta: ClassVar[dict[str, Any]] = {
        "collection": "hull_events",
        "indexes": [
            {"fields": ["level_key", "sequence"], "unique": True},
            {"fields": ["level_key", "token"], "unique": True},
            # An entry is added once, to one level: the database itself refuses a second.
            {"fields": ["entry_id"], "unique": True, "partialFilterExpression": {"kind": "entry_added"}},
            ("level_key", "chemsys", "sequence"),
        ],
    }
    level_key = StringField(required=True)
    sequence = IntField(required=True, min_value=1)
    kind = StringField(
        required=True,
        choices=("entry_added", "entry_retracted", "entry_recorrected", "references_changed", "rules_changed"),
    )
    token = StringField(required=True)
    entry_id = StringField()
    chemsys = StringField(default="")
    subject = DictField()
    missing = ListField(ListField(StringField()))
    settled = ListField(ListField(StringField()))
    rules = DictField()
    reason = StringField()
    libraries = DictField()
    at = DateTimeField(default=now, required=True)


class HullVersion(Versioned):
    """One publication of a level's hull; never changed afterwards.

    version: Number of the last hull event contained.
    previous: The version before; 0 for the first.
    entered, left: Entries that came onto the hull, and that are no longer on it.
    n_judged, n_changed: How many entries were judged, and how many verdicts changed.
    moves: The largest changes of an energy above hull, [{entry_id, change_eV_per_atom}].
    digest: SHA-256, hexadecimal, of all verdicts made by this version.
    audit: What was checked before it was published.
    """

    meta: ClassVar[dict[str, Any]] = {
        "collection": "hull_versions",
        "indexes": [{"fields": ["level_key", "version"], "unique": True}],
    }
    level_key = StringField(required=True)
    version = IntField(required=True, min_value=1)
    previous = IntField(required=True)
    entered = ListField(StringField())
    left = ListField(StringField())
    n_judged = IntField(required=True)
    n_changed = IntField(required=True)
    moves = ListField(DictField())
    digest = StringField(required=True)
    audit = DictField()
    libraries = DictField()
    at = DateTimeField(default=now, required=True)


class StoredVerdict(Versioned):
    """What the hull of a level says of an entry, from one hull version until before another; never overwritten.

    since: The version that made it.
    until: The version that replaced it, or took its entry away; `OPEN_END` while it holds.
    on_hull: Whether the entry lies on the hull, whatever the verdict makes of it.
    """

    meta: ClassVar[dict[str, Any]] = {
        "collection": "verdicts",
        "indexes": [
            {"fields": ["entry_id", "since"], "unique": True},
            # Of one entry only one verdict can hold, and so at one level only.
            {"fields": ["entry_id", "until"], "unique": True},
            ("candidate_id", "since"),
            ("level_key", "chemsys", "since"),
            ("level_key", "since"),
            ("level_key", "until"),
        ],
    }
    entry_id = StringField(required=True)
    candidate_id = StringField(required=True)
    level_key = StringField(required=True)
    chemsys = StringField(required=True)
    since = IntField(required=True)
    until = IntField(required=True)
    kind = StringField(required=True)
    on_hull = BooleanField(required=True)
    e_above_hull_eV_per_atom = FloatField()
    formation_energy_eV_per_atom = FloatField()
    e_below_others_eV_per_atom = FloatField()
    error_bar_eV_per_atom = FloatField()
    decomposition = ListField(DictField())
    missing = ListField(StringField())
    flags = ListField(StringField())

    @property
    def hull_sequence(self) -> int:
        """The hull version that made this verdict."""
        return int(self.since)


class QueueJob(Versioned):
    """A job of the batch system; stored as planned before it is handed over, so that none is ever unknown.

    name: Made before the submission, unlike any other; numbers repeat after a crash of the queue's controller.
    mode: One run per job, many runs packed into one allocation, or an array of single runs.
    account_key: Partition and account, whose throttles it counts for.
    fw_ids: In single mode the firework that is reserved for it.
    walltime_s, memory_MB, cpus, nodes: What it asks for; memory per run.
    excluded: Nodes that it must not run on.
    end: How the queue says that it ended, in SLURM's words.
    cause: The same in the words that all runs share.
    """

    meta: ClassVar[dict[str, Any]] = {
        "collection": "queue_jobs",
        "indexes": ["state", ("account_key", "-planned_at"), ("end", "-ended_at"), "job_id"],
    }
    name = StringField(primary_key=True)
    mode = StringField(required=True, choices=("single", "packed", "array"))
    state = EnumField(QueueJobState, default=QueueJobState.PLANNED, required=True)
    account_key = StringField(default="")
    partition = StringField(default="")
    account = StringField(default="")
    n_tasks = IntField(default=0)
    slots = IntField(default=1)
    fw_ids = ListField(IntField())
    walltime_s = FloatField(required=True)
    memory_MB = FloatField()
    cpus = IntField(default=1)
    nodes = IntField(default=1)
    excluded = ListField(StringField())
    planned_at = DateTimeField(required=True)
    job_id = StringField()
    submitted_at = DateTimeField()
    started_at = DateTimeField()
    ended_at = DateTimeField()
    ran_on = ListField(StringField())
    end = StringField()
    cause = EnumField(Cause)
    evidence = ListField(StringField())


class Worker(Versioned):
    """A process that works through the LaunchPad; tells a dead one from a live one at once on its own machine.

    job: Name of the queue job that it runs in, none outside a queue.
    job_id: The queue's number of that job, ``17_3`` for a task of an array.
    """

    meta: ClassVar[dict[str, Any]] = {"collection": "workers", "indexes": ["host"]}
    worker_id = StringField(primary_key=True)
    host = StringField(required=True)
    boot_id = StringField(required=True)
    pid = IntField(required=True)
    process_started = IntField(required=True)
    started_at = DateTimeField(default=now, required=True)
    job = StringField()
    job_id = StringField()


class Doubts(Document):
    """What reconciliation found odd, and since when; what stays odd over several looks in a row is put right.

    at: When the last look was.
    since: When each was first seen, [[what, when], ...].
    """

    meta: ClassVar[dict[str, Any]] = {"collection": "doubts", "auto_create_index": False}
    name = StringField(primary_key=True)
    at = DateTimeField(required=True)
    since = ListField(ListField())


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
    HullVersion,
    StoredVerdict,
    QueueJob,
    Worker,
)


def ensure_indexes() -> None:
    """Create every index; free when they exist."""
    for document in DOCUMENTS:
        document.ensure_indexes()
