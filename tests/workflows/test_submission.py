"""Submission: every row becomes one document in the state that it has earned; on a real MongoDB."""

from __future__ import annotations

import json
import os
import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifWriter

from hullworks.documents import Batch, Candidate, Level
from hullworks.errors import InputError
from hullworks.levels import LevelOfTheory
from hullworks.states import CandidateState, Role
from hullworks.workflows.codes import build_level
from hullworks.workflows.intake.rows import SNIPPET_LENGTH
from hullworks.workflows.screening import default_policy
from hullworks.workflows.submission import UNRANKED, SubmissionReport, submit

if TYPE_CHECKING:
    from hullworks.settings import Settings

S = CandidateState
PBE = "qe-pbe-fast"
MG2SI = Structure.from_spacegroup("Fm-3m", Lattice.cubic(6.35), ["Si", "Mg"], [[0, 0, 0], [0.25, 0.25, 0.25]])
SI = Structure.from_spacegroup("Fd-3m", Lattice.cubic(5.47), ["Si"], [[0, 0, 0]]).get_primitive_structure()
MG = Structure.from_spacegroup("P6_3/mmc", Lattice.hexagonal(3.19, 5.2), ["Mg"], [[1 / 3, 2 / 3, 1 / 4]])
MGSI = Structure.from_spacegroup("Pm-3m", Lattice.cubic(3.4), ["Mg", "Si"], [[0, 0, 0], [0.5, 0.5, 0.5]])
FE2O3 = Structure(
    Lattice.cubic(4.2),
    ["Fe", "Fe", "O", "O", "O"],
    [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
)
SQUEEZED = MGSI.copy().scale_lattice(2 * 2.5)


def _row(structure: Structure, name: str = "x", **fields: Any) -> str:
    return json.dumps({"name": name, "structure": structure.as_dict(), **fields})


def _bent(**changes: Any) -> str:
    """Return a row of MgSi with its lattice, or the place or element of its second site, replaced."""
    data = json.loads(json.dumps(MGSI.as_dict()))
    if "matrix" in changes:
        data["lattice"] = {"matrix": changes["matrix"]}
    site = data["sites"][1]
    site["abc"] = changes.get("abc", site["abc"])
    site.pop("xyz", None)
    site["species"][0]["element"] = changes.get("element", "Si")
    site["label"] = site["species"][0]["element"]
    return json.dumps({"name": "bent", "structure": data})


def _permuted(structure: Structure) -> Structure:
    """Return the same crystal as a supercell with its atoms shuffled, its origin moved and its axes renamed."""
    shifted = structure.copy().translate_sites(range(len(structure)), [0.11, 0.2, 0.37])
    bigger = shifted * (1, 2, 1)
    sites = list(bigger)
    random.Random(3).shuffle(sites)
    return Structure.from_sites(sites)


def _file(rows: list[str], name: str = "batch.jsonl") -> Path:
    path = Path(name).absolute()
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def _submit(settings: Settings, *paths: Path, batch: str = "b", **options: Any) -> SubmissionReport:
    options.setdefault("policy", default_policy())
    return submit(paths, build_level(PBE, settings), settings, batch=batch, **options)


def _states() -> Counter[str]:
    return Counter(candidate.state.value for candidate in Candidate.objects)


MIXED = [
    _row(MGSI, "proposed", prediction={"e_above_hull": 0.02, "model": "m", "model_version": "1"}),
    _row(SI, "silicon", role="reference"),
    _row(_permuted(SI), "again"),
    _row(FE2O3, "rust"),
    _row(SQUEEZED, "squeezed"),
    '{"name": "cut off", "structure": {',
]
EARNED = Counter(queued=2, duplicate=1, rejected=2, quarantined=1)


def test_every_row_becomes_one_document_in_the_state_it_earned(mongod: Settings) -> None:
    """The report says the same as the database, which also holds where each row came from and when."""
    path = _file(MIXED)
    report = _submit(mongod, path, owner="ada")
    assert report.counts == EARNED == _states()
    for number, outcome in enumerate(report.outcomes, 1):
        stored = Candidate.objects.get(candidate_id=outcome.candidate_id)
        assert (stored.source_file, stored.source_row) == (str(path), number)
        assert (stored.state.value, stored.batch, stored.level_key) == (outcome.state, "b", report.level_key)
        assert [(move.old, move.new) for move in stored.history] == [(None, stored.state)]
        assert stored.history[0].at == stored.state_since
    batch = Batch.objects.get()
    assert (batch.owner, batch.sources, batch.level_key) == ("ada", [str(path)], report.level_key)
    assert LevelOfTheory.from_dict(Level.objects.get().data) == build_level(PBE, mongod)


def test_what_a_row_says_is_kept(mongod: Settings) -> None:
    """Prediction, source, parent, licence; fields that the database would take for its own come back readable."""
    prediction = {
        "e_above_hull": -0.01,
        "formation_energy": -0.2,
        "uncertainty": 0.03,
        "uncertainty_kind": "std",
        "model": "chgnet",
        "model_version": "0.3.0",
        "hull": "mp-2025",
        "energy_per_atom": -3.25,
        "ensemble": [-3.2, -3.3],
    }
    own = {"$set": 1, "_cls": "Level", "a.b": {"$ref": [{"_id": 2}]}, "": 3}
    row = _row(MGSI, prediction=prediction | own, source="substitution", parent="mp-1", licence="CC-BY-4.0")
    _submit(mongod, _file([row]))
    stored = Candidate.objects.get()
    kept = stored.prediction
    assert (kept.e_above_hull_eV_per_atom, kept.e_form_eV_per_atom) == (-0.01, -0.2)
    assert (kept.uncertainty_eV_per_atom, kept.uncertainty_kind) == (0.03, "std")
    assert (kept.model, kept.model_version, kept.hull) == ("chgnet", "0.3.0", "mp-2025")
    strange = {"x$set": 1, "x_cls": "Level", "a.b": {"x$ref": [{"x_id": 2}]}, "": 3}
    assert dict(kept.extra) == {"energy_per_atom": -3.25, "ensemble": [-3.2, -3.3], **strange}
    assert (stored.source, stored.parent, stored.licence) == ("substitution", "mp-1", "CC-BY-4.0")
    assert Structure.from_dict(stored.structure) == MGSI
    assert (stored.reduced_formula, stored.chemsys, stored.n_atoms) == ("MgSi", "Mg-Si", 2)


def test_the_same_file_twice_adds_nothing(mongod: Settings) -> None:
    """Its rows count as known, in the states that they have by now."""
    path = _file(MIXED)
    first = _submit(mongod, path)
    before = [document.to_mongo() for document in Candidate.objects.order_by("row_id")]
    again = _submit(mongod, path)
    assert again.counts == Counter(known=len(MIXED))
    assert [o.candidate_id for o in again.outcomes] == [o.candidate_id for o in first.outcomes]
    assert [document.to_mongo() for document in Candidate.objects.order_by("row_id")] == before
    assert Batch.objects.get().sources == [str(path)]
    Candidate.move(first.outcomes[0].candidate_id, S.SUBMITTED)
    assert _submit(mongod, path).outcomes[0].state == "submitted"


def test_a_longer_file_adds_its_new_rows_alone(mongod: Settings) -> None:
    """Rows are told by their content, not by their place; a file under another name is no other file."""
    _submit(mongod, _file(MIXED))
    report = _submit(mongod, _file([_row(MG, "magnesium"), *MIXED], "longer.jsonl"))
    assert report.counts == Counter(known=len(MIXED), queued=1)
    assert len(Batch.objects.get().sources) == 2


def test_repeated_crystals_name_their_owner(mongod: Settings) -> None:
    """Inside a file, across batches and against the database: as a supercell, shuffled, moved, or at another volume."""
    first = _submit(mongod, _file([_row(MG2SI, "first"), _row(_permuted(MG2SI), "inside")]))
    swollen = MG2SI.copy().scale_lattice(MG2SI.volume * 1.06)
    later = _submit(
        mongod, _file([_row(MG2SI * (2, 1, 1), "supercell"), _row(swollen, "swollen")], "later.jsonl"), batch="c"
    )
    owner = first.outcomes[0].candidate_id
    repeats = list(Candidate.objects(state=S.DUPLICATE).order_by("batch", "source_row"))
    assert [c.name for c in repeats] == ["inside", "supercell", "swollen"]
    assert {c.duplicate_of for c in repeats} == {owner}
    assert {c.calculation_id for c in repeats} == {None}, "only the owner is computed"
    assert "within the matching tolerances" in later.outcomes[1].reason
    assert owner in later.outcomes[0].reason


def test_rows_with_the_same_bytes_are_told_apart(mongod: Settings) -> None:
    """Two identical lines are two rows, broken ones too."""
    report = _submit(mongod, _file([MIXED[0], MIXED[0], MIXED[-1], MIXED[-1]]))
    assert report.counts == Counter(queued=1, duplicate=1, quarantined=2)
    assert Candidate.objects.count() == 4


def test_levels_do_not_share_candidates(mongod: Settings) -> None:
    """The same crystal at another level is another candidate, not a duplicate."""
    path = _file([_row(SI)])
    _submit(mongod, path)
    other = build_level("qe-pbe-balanced", mongod)
    report = submit([path], other, mongod, batch="balanced", policy=default_policy())
    assert report.counts == Counter(queued=1)
    assert Candidate.objects.count() == Candidate.objects(state=S.QUEUED).count() == 2


@pytest.mark.parametrize("batches", [("b", "c"), ("b", "b")], ids=["two batches", "one batch"])
def test_racing_submissions_leave_one_owner(mongod: Settings, batches: tuple[str, str]) -> None:
    """In two batches each crystal has one owner and one duplicate; in one batch each row is there once."""
    crystals = [MGSI.copy().scale_lattice(2 * volume) for volume in (18.0, 18.4, 18.8)] + [SI, MG]
    path = _file([_row(crystal, f"c{i}") for i, crystal in enumerate(crystals)])
    start = threading.Barrier(2)

    def race(batch: str) -> SubmissionReport:
        start.wait()
        return _submit(mongod, path, batch=batch)

    with ThreadPoolExecutor(2) as racers:
        reports = list(racers.map(race, batches))
    rows = Candidate.objects
    assert {o.candidate_id for report in reports for o in report.outcomes} == {c.candidate_id for c in rows}
    assert len({c.row_id for c in rows}) == len(rows) == len(crystals) * len(set(batches))
    owners = [c for c in rows if c.state is S.QUEUED]
    assert len({c.structure_id for c in owners}) == len(owners)
    assert {c.duplicate_of for c in rows if c.state is S.DUPLICATE} <= {c.candidate_id for c in owners}
    exact = [c for c in rows if c.name in {"c3", "c4"}]
    assert Counter(c.state for c in exact) == Counter({S.QUEUED: 2, S.DUPLICATE: 2 * (len(set(batches)) - 1)})


def test_a_row_that_somebody_else_stored_meanwhile_is_known(mongod: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look-up and the writing: the report tells the state of the stored one."""
    path = _file([_row(SI)])
    original = Candidate.save
    meanwhile: list[SubmissionReport] = []

    def save(self: Candidate, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - mongoengine's own
        if not meanwhile:
            monkeypatch.setattr(Candidate, "save", original)
            meanwhile.append(_submit(mongod, path))
            Candidate.objects.update(set__state=S.CANCELLED)
        return original(self, *args, **options)

    monkeypatch.setattr(Candidate, "save", save)
    report = _submit(mongod, path)
    assert meanwhile[0].counts == Counter(queued=1)
    assert report.counts == Counter(known=1)
    assert report.outcomes[0].state == "cancelled"


def test_a_killed_submission_continues(mongod: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows before the kill are known, the others come out as if nothing had happened."""
    path = _file(MIXED)
    original = Candidate.save
    saved: list[str] = []

    def dies(self: Candidate, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - mongoengine's own
        if len(saved) == 3:
            raise KeyboardInterrupt
        saved.append(self.row_id)
        return original(self, *args, **options)

    monkeypatch.setattr(Candidate, "save", dies)
    with pytest.raises(KeyboardInterrupt):
        _submit(mongod, path)
    monkeypatch.undo()
    assert Candidate.objects.count() == 3
    report = _submit(mongod, path)
    assert report.counts == Counter(known=3, rejected=2, quarantined=1)
    assert _states() == EARNED


@pytest.mark.parametrize(
    ("elements", "problem", "cure"),
    [
        (("Fe", "Co", "O"), "no cutoff is recorded for Co, Fe", "Record convergence runs"),
        (("Pu", "Th", "O"), "no pseudopotential for Pu, Th", "Use a family of UPF files that has them"),
    ],
    ids=["cutoff", "pseudopotential"],
)
def test_elements_that_cannot_be_computed_are_named(
    mongod: Settings, elements: tuple[str, ...], problem: str, cure: str
) -> None:
    """All of them, with what to do about it; nothing is computed for the row."""
    first, second, oxygen = elements
    crystal = FE2O3.copy().replace_species({"Fe": first, "O": oxygen})
    crystal.replace(1, second)
    (outcome,) = _submit(mongod, _file([_row(crystal)])).outcomes
    stored = Candidate.objects.get()
    assert (stored.state, stored.reason.code, stored.reason.text) == (S.REJECTED, "PseudopotentialError", problem)
    assert stored.reason.next_step.startswith(cure)
    assert (outcome.reason, outcome.next_step) == (stored.reason.text, stored.reason.next_step)
    assert stored.calculation_id is None


def test_unphysical_crystals_are_rejected_with_all_reasons(mongod: Settings) -> None:
    """The number and its limit stand in the reason; the crystal is kept."""
    _submit(mongod, _file([_row(SQUEEZED)]))
    stored = Candidate.objects.get()
    assert (stored.state, stored.reason.code) == (S.REJECTED, "too_dense")
    assert "2.50 cubic Angstrom per atom (at least 3.0); Mg and Si are" in stored.reason.text
    assert "(at least 0.65)" in stored.reason.text
    assert stored.reduced_formula == "MgSi"
    assert stored.structure


def test_a_rejected_crystal_may_be_submitted_again_under_another_policy(mongod: Settings) -> None:
    """A rejected row owns nothing: in a batch with a wider window the crystal is queued."""
    path = _file([_row(MGSI, prediction={"e_above_hull": 0.5})])
    narrow = default_policy().model_copy(update={"max_e_above_hull": 0.1})
    assert _submit(mongod, path, policy=narrow).counts == Counter(rejected=1)
    assert _submit(mongod, path, batch="wide").counts == Counter(queued=1)
    assert Batch.objects.get(name="b").policy["max_e_above_hull"] == 0.1


BROKEN = {
    "nan": (_bent(abc=[float("nan"), 0, 0]), "not_finite"),
    "zero volume": (_bent(matrix=[[3, 0, 0], [0, 3, 0], [0, 0, 0]]), "no_volume"),
    "overlap": (_bent(abc=[0.0, 0.0, 0.001]), "overlap"),
    "unknown element": (_bent(element="Xx"), "unknown_element"),
    "negative uncertainty": (_row(SI, prediction={"uncertainty": -0.1}), "bad_prediction"),
    "10 MB line": ('{"name": "long", "notes": "' + "x" * 10_000_000 + '"}', "too_long"),
}


def test_what_cannot_be_read_is_quarantined_and_the_rest_goes_on(mongod: Settings) -> None:
    """Each with the row's beginning, the reason and the next step; the sound rows before and after are queued."""
    folder = Path("folder")
    folder.mkdir()
    _file([_row(SI, "before"), *(row for row, _ in BROKEN.values()), _row(MG, "after")], "folder/rows.jsonl")
    (folder / "empty.jsonl").touch()
    (folder / "broken.cif").write_text("data_broken\n_cell_length_a 4.0\nloop_\n_atom_site_label\n", encoding="utf-8")
    (folder / "sound.cif").write_text(str(CifWriter(MGSI)), encoding="utf-8")
    report = _submit(mongod, folder)
    assert report.counts == Counter(queued=3, quarantined=len(BROKEN) + 2)
    assert {c.name for c in Candidate.objects(state=S.QUEUED)} == {"before", "after", "sound"}
    lines = Candidate.objects(state=S.QUARANTINED, source_file__endswith="rows.jsonl").order_by("source_row")
    assert [c.reason.code for c in lines] == [code for _, code in BROKEN.values()]
    for candidate, (row, _) in zip(lines, BROKEN.values(), strict=True):
        assert row.startswith(candidate.raw_snippet.removesuffix("…"))
        assert 20 < len(candidate.raw_snippet) <= SNIPPET_LENGTH
    files = {
        Path(c.source_file).name: c for c in Candidate.objects(state=S.QUARANTINED, source_file__not__endswith="l")
    }
    assert files["broken.cif"].raw_snippet.startswith("data_broken")
    empty = Candidate.objects.get(source_file__endswith="empty.jsonl")
    assert (empty.reason.code, empty.reason.text) == ("empty", "the file is empty")
    for candidate in Candidate.objects(state=S.QUARANTINED):
        assert candidate.reason.text
        assert candidate.reason.next_step
        assert candidate.rank == UNRANKED


def test_a_file_whose_name_is_no_unicode_is_read(mongod: Settings) -> None:
    """Its name is stored with the odd bytes spelled out."""
    path = Path(os.fsdecode(b"caf\xe9.jsonl")).absolute()
    path.write_text(_row(SI), encoding="utf-8")
    assert _submit(mongod, path).counts == Counter(queued=1)
    assert Candidate.objects.get().source_file.endswith("caf\\udce9.jsonl")


def test_a_path_that_does_not_exist_stores_nothing(mongod: Settings) -> None:
    """Not even the batch."""
    with pytest.raises(InputError, match="absent"):
        _submit(mongod, _file([_row(SI)]), Path("absent.jsonl"))
    assert (Batch.objects.count(), Level.objects.count(), Candidate.objects.count()) == (0, 0, 0)


def test_a_dry_run_stores_nothing_and_needs_no_database(project: Settings) -> None:
    """No connection is bound here: the report is made of the files and the settings alone."""
    report = _submit(project, _file(MIXED), dry_run=True)
    assert report.counts == EARNED
    assert report.dry_run
    assert not project.data_dir.exists()


def test_a_batch_of_another_level_is_refused(mongod: Settings) -> None:
    """Nothing changes in it, and the other level is not stored."""
    _submit(mongod, _file([_row(SI)]))
    other = build_level("qe-pbe-balanced", mongod)
    with pytest.raises(InputError, match=r"level qe-pbe-fast.*Name another batch"):
        submit([_file([_row(MG)], "more.jsonl")], other, mongod, batch="b", policy=default_policy())
    assert (Candidate.objects.count(), Level.objects.count()) == (1, 1)
    assert len(Batch.objects.get().sources) == 1


def test_references_rank_before_candidates_and_elements_first(mongod: Settings) -> None:
    """Then by predicted energy, without one last; what is not queued stands behind."""
    hopeful = MGSI.copy().scale_lattice(2 * 16.0)
    other = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.2), ["Mg", "Si"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    third = Structure.from_spacegroup("F-43m", Lattice.cubic(5.9), ["Mg", "Si"], [[0, 0, 0], [0.25, 0.25, 0.25]])
    rows = [
        MIXED[-1],
        _row(third, "no prediction"),
        _row(other, "poor", prediction={"e_above_hull": 0.3}),
        _row(hopeful, "hopeful", prediction={"e_above_hull": -0.02}),
        _row(MG2SI, "compound", role="reference"),
        _row(MG, "element", role="reference"),
    ]
    _submit(mongod, _file(rows))
    ranked = list(Candidate.objects.order_by("rank"))
    assert [c.name for c in ranked] == ["element", "compound", "hopeful", "poor", "no prediction", None]
    assert all(a.rank < b.rank for a, b in pairwise(ranked))
    assert [c.role for c in ranked[:3]] == [Role.REFERENCE, Role.REFERENCE, Role.CANDIDATE]


def test_each_row_is_reported_as_it_is_stored(mongod: Settings) -> None:
    """A progress display sees a row when it is safe in the database."""
    seen: list[int] = []
    _submit(mongod, _file(MIXED), on_row=lambda _outcome: seen.append(Candidate.objects.count()))
    assert seen == list(range(1, len(MIXED) + 1))


def test_what_a_row_says_beside_the_known_fields_is_kept(mongod: Settings) -> None:
    """A user's own fields, and what the readers remarked, stand in the candidate."""
    path = _file([_row(SI, "Si", campaign={"round": 3}, prediktion=1)])
    _submit(mongod, path)
    candidate = Candidate.objects.get(batch="b")
    assert candidate.extra == {"campaign": {"round": 3}, "prediktion": 1}
    assert any("prediction" in remark for remark in candidate.remarks)
