"""The documents' port, on MongoDB."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from pymongo import UpdateOne

from hullworks.documents import (
    SCHEMA_VERSION,
    Calculation,
    Candidate,
    Doubts,
    Entry,
    QueueJob,
    Run,
    Worker,
    now,
)
from hullworks.launchers.bookkeeping.ports import JobEnd
from hullworks.launchers.bookkeeping.records import Case, Job, Resources, WorkerMark
from hullworks.leases import lease
from hullworks.states import CandidateState, Cause, QueueJobState, check_move
from hullworks.workflows.landing import settle_candidate

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from contextlib import AbstractContextManager

    from hullworks.launchers.bookkeeping.records import EndedRun, Move

_CASE_FIELDS: Final = {
    "calculation_id": 1,
    "state": 1,
    "state_since": 1,
    "batch": 1,
    "resources": 1,
    "budget_since": 1,
}
_RECONCILE: Final = "reconcile"
_JOB_FIELDS: Final = frozenset(Job.__dataclass_fields__) - {"name"}


class MongoBook:
    """`hullworks.launchers.bookkeeping.stores.Book` on the project's documents, which must be connected."""

    # ------------------------------------------------------------------------------------------------------- candidates
    def cases(self, states: Collection[CandidateState], *, batch: str | None = None, limit: int = 0) -> list[Case]:
        """Return candidates by state, best ranked first."""
        query: dict[str, Any] = {"state": {"$in": [state.value for state in states]}}
        if batch is not None:
            query["batch"] = batch
        found = Candidate.collection().find(query, _CASE_FIELDS).sort([("rank", 1), ("_id", 1)]).limit(limit)
        return [_case(item) for item in found]

    def cases_of(self, candidate_ids: Collection[str]) -> dict[str, Case]:
        """Return candidates by id."""
        found = Candidate.collection().find({"_id": {"$in": list(candidate_ids)}}, _CASE_FIELDS)
        return {item["_id"]: _case(item) for item in found}

    def count(self, states: Collection[CandidateState]) -> int:
        """Return how many candidates are in these states."""
        query = {"state": {"$in": [state.value for state in states]}}
        return int(Candidate.collection().count_documents(query))

    def move(self, moves: Sequence[Move]) -> int:
        """Make moves in one bulk write, each by compare-and-set with state and time."""
        return self._move(moves, now())

    def moved(self, moves: Sequence[Move]) -> set[str]:
        """Make moves in one bulk write; ask which were made only when somebody else was faster with one."""
        names = {move.case.candidate_id for move in moves}
        moment = now()
        if self._move(moves, moment) == len(names):
            return names
        made = {"_id": {"$in": list(names)}, "state_since": moment}
        return {item["_id"] for item in Candidate.collection().find(made, {"_id": 1})}

    def _move(self, moves: Sequence[Move], moment: datetime) -> int:
        for move in moves:
            check_move(move.case.state, move.new, move.case.candidate_id)
        if not moves:
            return 0
        updates = [_update(move, moment) for move in moves]
        return int(Candidate.collection().bulk_write(updates, ordered=False).modified_count)

    def note_workflows(self, workflows: Sequence[tuple[Case, int]]) -> None:
        """Note workflows with candidates and calculations."""
        for collection, names in (
            (Candidate.collection(), [(case.candidate_id, number) for case, number in workflows]),
            (Calculation.collection(), [(case.calculation_id, number) for case, number in workflows]),
        ):
            if names:
                updates = [UpdateOne({"_id": name}, {"$set": {"workflow_id": number}}) for name, number in names]
                collection.bulk_write(updates, ordered=False)

    def entered(self, calculation_ids: Collection[str]) -> set[str]:
        """Return the calculations that have an entry."""
        fields = {"calculation_id": 1}
        found = Entry.collection().find({"calculation_id": {"$in": list(calculation_ids)}}, fields)
        return {item["calculation_id"] for item in found}

    def settle(self, calculation_id: str) -> bool:
        """Bring a candidate to where its entry puts it."""
        entry = Entry.objects(calculation_id=calculation_id).first()
        return entry is not None and settle_candidate(entry)

    # ------------------------------------------------------------------------------------------------------------- runs
    def record(self, run: EndedRun) -> None:
        """Store an ended run, once."""
        Run.objects(run_id=run.run_id).update_one(
            upsert=True, **{f"set_on_insert__{name}": value for name, value in _run_fields(run).items()}
        )

    def recorded(self, launch_ids: Collection[int]) -> dict[int, tuple[Cause, str, tuple[str, ...]]]:
        """Return what is stored of launches."""
        keys = [f"run-{launch_id}" for launch_id in launch_ids]
        fields = {"launch_id": 1, "cause": 1, "outcome": 1, "evidence": 1}
        return {
            item["launch_id"]: (Cause(item["cause"]), item.get("outcome", ""), tuple(item.get("evidence", ())))
            for item in Run.collection().find({"_id": {"$in": keys}}, fields)
        }

    def failures(self, candidate_id: str, step: str, since: datetime | None) -> Counter[Cause]:
        """Return how often each cause ended a run of a step."""
        query: dict[str, Any] = {"candidate_id": candidate_id, "step": step}
        if since is not None:
            query["ended_at"] = {"$gte": since}
        return Counter(Cause(item["cause"]) for item in Run.collection().find(query, {"cause": 1}))

    def remedy(self, run: EndedRun, resources: Resources, why: str) -> None:
        """Note with its candidate that a run is started again, once."""
        note = {"run_id": run.run_id, "at": now(), "cause": run.cause.value, "why": why}
        Candidate.collection().update_one(
            {"_id": run.candidate_id, "remedies.run_id": {"$ne": run.run_id}},
            {"$set": {"resources": resources.as_dict()}, "$push": {"remedies": note}},
        )

    def workers(self, worker_ids: Collection[str]) -> dict[str, WorkerMark]:
        """Return workers by name."""
        found = Worker.collection().find({"_id": {"$in": list(worker_ids)}}) if worker_ids else ()
        return {item["_id"]: _worker(item) for item in found}

    # ------------------------------------------------------------------------------------------------------- queue jobs
    def plan(self, job: Job) -> None:
        """Store a queue job before it is submitted."""
        fields = {name: getattr(job, name) for name in _JOB_FIELDS if getattr(job, name) not in {None, "", ()}}
        QueueJob.collection().insert_one({"_id": job.name, "schema_version": SCHEMA_VERSION, **_plain(fields)})

    def jobs(self, states: Collection[QueueJobState]) -> list[Job]:
        """Return queue jobs by state, oldest first."""
        query = {"state": {"$in": [state.value for state in states]}}
        return [_job(item) for item in QueueJob.collection().find(query).sort("planned_at", 1)]

    def jobs_of(self, names: Collection[str]) -> dict[str, Job]:
        """Return queue jobs by name."""
        found = QueueJob.collection().find({"_id": {"$in": list(names)}}) if names else ()
        return {item["_id"]: _job(item) for item in found}

    def note_job(self, job: Job, **changes: object) -> bool:
        """Change fields of a queue job that is in the state it was seen in."""
        same = {"_id": job.name, "state": job.state.value}
        return bool(QueueJob.collection().update_one(same, {"$set": _plain(changes)}).modified_count)

    def planned_since(self, account_key: str, moment: datetime) -> int:
        """Return how many queue jobs of an account were planned since a time."""
        query = {"account_key": account_key, "planned_at": {"$gte": moment}}
        return int(QueueJob.collection().count_documents(query))

    def node_failures(self, moment: datetime) -> Counter[str]:
        """Return how many queue jobs ended by a failure of each node since a time."""
        ends = [JobEnd.NODE_FAIL.value, JobEnd.BOOT_FAIL.value]
        found = QueueJob.collection().find({"end": {"$in": ends}, "ended_at": {"$gte": moment}}, {"ran_on": 1})
        return Counter(node for item in found for node in item.get("ran_on", ()))

    # ------------------------------------------------------------------------------------------------ doubts and leases
    def doubts(self) -> tuple[datetime | None, dict[str, datetime]]:
        """Return the doubts of the last look."""
        found = Doubts._get_collection().find_one({"_id": _RECONCILE})  # noqa: SLF001 - the driver's collection
        return (None, {}) if found is None else (found["at"], dict(found["since"]))

    def keep_doubts(self, at: datetime, doubts: Mapping[str, datetime]) -> None:
        """Store the doubts of this look."""
        stored = {"at": at, "since": [list(item) for item in doubts.items()]}
        Doubts._get_collection().replace_one({"_id": _RECONCILE}, stored, upsert=True)  # noqa: SLF001 - the same

    def lease(self, name: str, seconds: float) -> AbstractContextManager[object]:
        """Try to hold a lease."""
        return lease(name, seconds)


def _case(item: Mapping[str, Any]) -> Case:
    return Case(
        candidate_id=item["_id"],
        calculation_id=item.get("calculation_id") or "",
        state=CandidateState(item["state"]),
        since=item["state_since"],
        batch=item.get("batch", ""),
        resources=Resources(**(item.get("resources") or {})),
        budget_since=item.get("budget_since"),
    )


def _update(move: Move, moment: datetime) -> UpdateOne:
    """Return the compare-and-set of a move."""
    old, new = move.case.state.value, move.new.value
    fields: dict[str, Any] = {"state": new, "state_since": moment}
    if move.cause is not None:
        fields["cause"] = move.cause.value
    if move.reason is not None:
        reason = move.reason
        fields["reason"] = {"code": reason.code, "text": reason.text, "next_step": reason.next_step}
    if move.fresh_budget:
        fields["budget_since"] = moment
    step = {"at": moment, "old": old, "new": new, "reason": move.why}
    update: dict[str, Any] = {"$set": fields, "$push": {"history": step}}
    if move.counts:
        update["$inc"] = {"attempts": 1}
    return UpdateOne({"_id": move.case.candidate_id, "state": old, "state_since": move.case.since}, update)


def _worker(item: Mapping[str, Any]) -> WorkerMark:
    return WorkerMark(
        worker_id=item["_id"],
        started_at=item["started_at"],
        job=item.get("job") or "",
        job_id=item.get("job_id") or "",
        process=(item["pid"], item["process_started"], item["boot_id"], item["host"]),
    )


def _job(item: Mapping[str, Any]) -> Job:
    fields = {name: item[name] for name in _JOB_FIELDS if item.get(name) is not None}
    for name in ("fw_ids", "excluded", "ran_on", "evidence"):
        fields[name] = tuple(fields.get(name, ()))
    cause = fields.get("cause")
    return Job(
        **{
            **fields,
            "name": item["_id"],
            "state": QueueJobState(fields["state"]),
            "cause": None if cause is None else Cause(cause),
        }
    )


def _plain(fields: Mapping[str, object]) -> dict[str, object]:
    """Return fields as MongoDB takes them."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


def _run_fields(run: EndedRun) -> dict[str, Any]:
    report: dict[str, Any] = dict(run.report)
    timings = report.get("timings") or {}
    return {
        "candidate_id": run.candidate_id,
        "calculation_id": run.calculation_id,
        "step": run.step,
        "fw_id": run.fw_id,
        "launch_id": run.launch_id,
        "worker_id": run.worker_id,
        "job": run.job or None,
        "host": run.host,
        "directory": run.directory,
        "started_at": _moment(timings.get("started")),
        "ended_at": _moment(timings.get("ended")) or run.ended_at,
        "wall_s": timings["ended"] - timings["started"] if {"ended", "started"} <= set(timings) else None,
        "code_version": (report.get("code") or {}).get("version"),
        "corrections": list(report.get("corrections", ())),
        "cause": run.cause,
        "outcome": run.outcome,
        "evidence": list(run.evidence),
        "schema_version": SCHEMA_VERSION,
    }


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
