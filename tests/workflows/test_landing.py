"""Landing: finished calculations become entries, once, and only sound ones move the hull; on a real MongoDB."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from monty.json import MontyDecoder, jsanitize
from pymatgen.core import Lattice, Structure

from hullworks.analysis.hull_view import load_view
from hullworks.analysis.stability import update_all
from hullworks.analysis.verdicts import VerdictFlag
from hullworks.documents import Calculation, Candidate, Entry, HullEvent, Level, StoredVerdict
from hullworks.errors import LandingError
from hullworks.levels import LevelOfTheory
from hullworks.states import CandidateState, Cause, Role
from hullworks.workflows.codes import CalculationContext
from hullworks.workflows.identity import entry_id, structure_id
from hullworks.workflows.landing import (
    FinishedCalculation,
    build_entry,
    land_result,
    load_rules,
    store_entry,
    violations,
)
from hullworks.workflows.qe.task_document import QeTaskDoc, Round

S = CandidateState
LEVEL = LevelOfTheory("qe", "PBE", "fast", pseudo_family="gth-pbe")
OTHER = replace(LEVEL, protocol="balanced")
MG = Structure(Lattice.hexagonal(3.19, 5.2), ["Mg", "Mg"], [[1 / 3, 2 / 3, 1 / 4], [2 / 3, 1 / 3, 3 / 4]])
SI = Structure(Lattice([[0, 2.73, 2.73], [2.73, 0, 2.73], [2.73, 2.73, 0]]), ["Si", "Si"], [[0.0] * 3, [0.25] * 3])
MGSI = Structure(Lattice.cubic(3.4), ["Mg", "Si"], [[0.0] * 3, [0.5] * 3])
RELAXED = MGSI.copy().scale_lattice(38.0)
FINISHED = FinishedCalculation(RELAXED, MGSI, -2.3, -2.301, 0.001, succeeded=True, level=LEVEL)


def _candidate(structure: Structure = MGSI, name: str = "MgSi", role: Role = Role.CANDIDATE) -> CalculationContext:
    """Store a running candidate and its calculation, and return the context that travels with its runs."""
    formula = structure.composition.reduced_formula
    Level.objects(key=LEVEL.key).update_one(
        upsert=True, set__slug=LEVEL.slug, set__data=LEVEL.as_dict(), set__schema_version=1
    )
    identity = structure_id(structure)
    Candidate(
        candidate_id=f"cand-{name}",
        row_id=f"row-{name}",
        batch="b",
        level_key=LEVEL.key,
        source_file="f",
        source_row=1,
        name=name,
        role=role,
        reduced_formula=formula,
        chemsys=structure.composition.chemical_system,
        state=S.RUNNING,
        calculation_id=f"calc-{name}",
    ).save(force_insert=True)
    Calculation(
        calculation_id=f"calc-{name}",
        structure_id=identity,
        level_key=LEVEL.key,
        graph_version="qe-2",
        candidate_id=f"cand-{name}",
    ).save(force_insert=True)
    return CalculationContext(f"cand-{name}", f"calc-{name}", identity, LEVEL.as_dict(), role.value, name)


def _document(task: str, structure: Structure, energy: float, **changes: Any) -> Any:  # noqa: ANN401 - what monty makes
    """Return the document of a step as it comes back from the job store."""
    n_atoms = len(structure)
    fields: dict[str, Any] = {
        "task": task,
        "outcome": "converged",
        "structure": structure,
        "initial_structure": structure,
        "energy_eV_per_atom": energy,
        "free_energy_eV_per_atom": energy - 0.001,
        "smearing_eV_per_atom": -0.002,
        "forces_eV_per_A": [[0.0] * 3] * n_atoms,
        "stress_kbar": [[0.0] * 3] * 3,
        "pressure_kbar": 0.1,
        "max_force_eV_per_A": 0.0,
        "gap_eV": None,
        "total_magnetization_muB": None,
        "mesh": {"counts": [4, 4, 4], "shifts": [0, 0, 0]},
        "n_k_points": 10,
        "ecutwfc_Ry": 30.0,
        "ecutrho_Ry": 120.0,
        "level": LEVEL.as_dict(),
        "protocol": {},
        "run_dir": f"/runs/{task}",
        "host": "here",
        "code_version": "7.2",
        "input_sha256": "0" * 64,
        "n_attempts": 1,
        "n_ionic_steps": 1,
        "corrections": [],
        "timings": {},
    }
    stored = jsanitize(QeTaskDoc(**(fields | changes)), strict=True, enum_values=True, allow_bson=True)
    return MontyDecoder().process_decoded(stored)


def _round(run_dir: str) -> Round:
    return Round(
        energy_eV_per_atom=-1.0, pressure_kbar=0.0, max_force_eV_per_A=0.0, mesh={}, reason="", run_dir=run_dir
    )


def _land(
    structure: Structure, energy: float, name: str, role: Role = Role.REFERENCE, **changes: Any
) -> dict[str, Any]:
    context = _candidate(structure, name, role)
    static = _document("static", structure, energy, **changes)
    return land_result(static, _document("relax 2", structure, energy + 0.001), context.as_dict())


def _elements() -> None:
    _land(MG, -1.0, "Mg")
    _land(SI, -4.0, "Si")


@pytest.mark.usefixtures("mongod")
def test_a_sound_result_becomes_a_verified_candidate() -> None:
    """Running, landed, verified; entry, hull event and verdict are there, and the calculation names its entry."""
    _elements()
    static = _document("static", RELAXED, -2.3, initial_structure=MGSI)
    relaxation = _document(
        "relax 2", RELAXED, -2.301, rounds=[_round("/runs/a"), _round("/runs/b")], convergence_error_eV_per_atom=0.002
    )
    landed = land_result(static, relaxation, _candidate().as_dict())
    assert landed == {"entry_id": entry_id("calc-MgSi"), "valid": True, "reasons": []}
    candidate = Candidate.objects.get(name="MgSi")
    assert [move.new for move in candidate.history] == [S.LANDED, S.VERIFIED]
    assert (candidate.state, candidate.entry_id, candidate.cause) == (S.VERIFIED, landed["entry_id"], Cause.CONVERGED)
    entry = Entry.objects.get(entry_id=landed["entry_id"])
    assert (entry.formula, entry.chemsys, entry.n_atoms, entry.level_key) == ("Mg1Si1", "Mg-Si", 2, LEVEL.key)
    assert (entry.energy_eV_per_atom, entry.convergence_error_eV_per_atom) == (-2.3, 0.002)
    assert entry.uncertainty_parts_eV_per_atom == {"own:convergence": 0.002}
    assert entry.results["volume_change"] == pytest.approx(38.0 / 3.4**3 - 1)
    assert entry.results["energy_drift_eV_per_atom"] == pytest.approx(0.001)
    assert (entry.results["space_group"], entry.results["space_group_number"]) == ("Pm-3m", 221)
    assert entry.provenance["static_dir"] == "/runs/static"
    assert entry.provenance["relax_dirs"] == ["/runs/a", "/runs/b"]
    assert entry.provenance["code_version"] == "7.2"
    assert Structure.from_dict(entry.structure) == RELAXED
    assert entry.structure_id == structure_id(RELAXED)
    assert entry.initial_structure_id == structure_id(MGSI)
    assert Calculation.objects.get(calculation_id="calc-MgSi").entry_id == entry.entry_id
    verdict = StoredVerdict.objects.get(entry_id=entry.entry_id)
    # MgSi between Mg at -1 and Si at -4: the tie line is at -2.5
    assert verdict.e_above_hull_eV_per_atom == pytest.approx(0.2)
    assert (verdict.level_key, verdict.hull_sequence) == (LEVEL.key, 4)


@pytest.mark.usefixtures("mongod")
def test_landing_twice_leaves_one_entry() -> None:
    """Also with another energy the second time: the first stands, and no event is appended."""
    _elements()
    context = _candidate().as_dict()
    first = land_result(_document("static", MGSI, -2.3), _document("relax 2", MGSI, -2.3), context)
    history = Candidate.objects.get(name="MgSi").history
    again = land_result(_document("static", MGSI, -2.31), _document("relax 2", MGSI, -2.31), context)
    assert again == first
    assert Entry.objects(calculation_id="calc-MgSi").count() == 1
    assert Entry.objects.get(calculation_id="calc-MgSi").energy_eV_per_atom == -2.3
    assert HullEvent.objects(kind="entry_added").count() == 3
    assert Candidate.objects.get(name="MgSi").history == history


@pytest.mark.parametrize("killed_at", ["Calculation.objects", "Candidate.move", "update_level"])
@pytest.mark.usefixtures("mongod")
def test_a_landing_killed_between_its_writes_is_completed(monkeypatch: pytest.MonkeyPatch, killed_at: str) -> None:
    """After the entry, the calculation or the candidate: landing again does the rest, once."""
    _elements()
    land_again = partial(
        land_result, _document("static", MGSI, -2.3), _document("relax 2", MGSI, -2.3), _candidate().as_dict()
    )

    def dies(*_arguments: Any, **_fields: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"hullworks.workflows.landing.{killed_at}", dies)
    with pytest.raises(KeyboardInterrupt):
        land_again()
    monkeypatch.undo()
    assert Entry.objects(candidate_id="cand-MgSi").count() == 1, "the kill came after the first write"
    assert Candidate.objects.get(name="MgSi").state is not S.VERIFIED
    assert land_again()["valid"]
    assert Entry.objects(candidate_id="cand-MgSi").count() == 1
    assert Calculation.objects.get(calculation_id="calc-MgSi").entry_id == entry_id("calc-MgSi")
    assert Candidate.objects.get(name="MgSi").state is S.VERIFIED
    assert HullEvent.objects(kind="entry_added").count() == 3


def _closer(structure: Structure) -> Structure:
    return Structure(structure.lattice, structure.species, [[0.0] * 3, [0.25, 0.25, 0.2]])


INVALID: dict[str, FinishedCalculation] = {
    "level": replace(FINISHED, level=OTHER),
    "unconverged": replace(FINISHED, succeeded=False),
    "composition": replace(FINISHED, initial_structure=MG),
    "energy": replace(FINISHED, energy_eV_per_atom=60.0, relaxed_energy_eV_per_atom=None),
    "volume": replace(FINISHED, structure=MGSI.copy().scale_lattice(2.1 * MGSI.volume)),
    "distance": replace(FINISHED, structure=_closer(MGSI)),
    "drift": replace(FINISHED, relaxed_energy_eV_per_atom=-2.36),
}


@pytest.mark.parametrize("code", INVALID)
def test_each_rule_has_its_reason(code: str) -> None:
    """A result that breaks one rule gets that reason alone, with the number concerned."""
    (reason,) = violations(INVALID[code], LEVEL)
    assert reason.code == code
    assert reason.text
    assert not list(violations(FINISHED, LEVEL))


def test_a_run_that_differs_from_its_level_is_invalid() -> None:
    """What the code itself reports counts, not what was asked for."""
    unlike = replace(FINISHED, unlike_level=("the cutoff of the density was 56.0 Ry, not 120.0 Ry",))
    (reason,) = violations(unlike, LEVEL)
    assert reason.code == "level"
    assert reason.text.endswith("the cutoff of the density was 56.0 Ry, not 120.0 Ry")


def test_what_lies_just_within_the_rules_is_valid() -> None:
    """Each rule is a limit, not an estimate."""
    rules = load_rules()
    nearly = [
        replace(FINISHED, structure=MGSI.copy().scale_lattice(1.99 * MGSI.volume)),
        replace(FINISHED, relaxed_energy_eV_per_atom=-2.3 - 0.99 * rules.energy_drift_invalid_eV_per_atom),
        replace(FINISHED, relaxed_energy_eV_per_atom=None),
    ]
    assert [list(violations(finished, LEVEL)) for finished in nearly] == [[], [], []]


def _deepened(finished: FinishedCalculation) -> FinishedCalculation:
    """Return a result with energies that would push everything else off the hull; one that is too high stays so."""
    if finished.relaxed_energy_eV_per_atom is None:
        return finished
    return replace(
        finished,
        energy_eV_per_atom=finished.energy_eV_per_atom - 30.0,
        relaxed_energy_eV_per_atom=finished.relaxed_energy_eV_per_atom - 30.0,
    )


@pytest.mark.parametrize("code", INVALID)
@pytest.mark.usefixtures("mongod")
def test_an_invalid_result_is_stored_and_never_moves_the_hull(code: str) -> None:
    """Its candidate fails with the cause `invalid` and the reasons; the hull stays as it was."""
    _elements()
    before = load_view(LEVEL.key, ["Mg", "Si"]).ids
    entry = store_entry(build_entry(_deepened(INVALID[code]), _candidate()))
    assert not entry.valid
    assert [reason.code for reason in Entry.objects.get(entry_id=entry.entry_id).reasons] == [code]
    candidate = Candidate.objects.get(name="MgSi")
    assert (candidate.state, candidate.cause, candidate.reason.code) == (S.FAILED, Cause.INVALID, code)
    assert candidate.entry_id == entry.entry_id
    _land(MGSI.copy().scale_lattice(45.0), -2.2, "another")
    assert load_view(LEVEL.key, ["Mg", "Si"]).ids == [*before, entry_id("calc-another")]
    assert HullEvent.objects(entry_id=entry.entry_id).count() == 0
    assert StoredVerdict.objects(entry_id=entry.entry_id).count() == 0


@pytest.mark.usefixtures("mongod")
def test_an_invalid_result_of_documents_says_why() -> None:
    """The run's output lists the reasons, for whoever reads the job store; a deep energy changes no verdict."""
    _elements()
    landed = _land(MGSI, -30.0, "MgSi", Role.CANDIDATE, level=OTHER.as_dict(), succeeded=False)
    assert not landed["valid"]
    assert landed["reasons"] == [reason.text for reason in Entry.objects.get(valid=False).reasons]
    assert [reason.split()[-1] for reason in landed["reasons"]] == [LEVEL.key, "thresholds"]
    kinds = {v.candidate_id: v.kind for v in StoredVerdict.objects}
    assert kinds == {"cand-Mg": "stable", "cand-Si": "stable"}


@pytest.mark.parametrize(
    "broken", ["energy_eV_per_atom", "relaxed_energy_eV_per_atom", "convergence_error_eV_per_atom"]
)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_never_lands(broken: str, value: float) -> None:
    """NaN passes every comparison with a limit, and would poison the hull."""
    finished = FinishedCalculation(**{**FINISHED.__dict__, broken: value})
    with pytest.raises(LandingError, match="not a number"):
        build_entry(finished, CalculationContext("c", "calc-1", "s", LEVEL.as_dict(), "candidate", "MgSi"))


@pytest.mark.usefixtures("mongod")
def test_documents_that_cannot_be_read_are_named() -> None:
    """The calculation is named, and nothing is stored."""
    context = _candidate().as_dict()
    with pytest.raises(LandingError, match="calc-MgSi: the result cannot be read"):
        land_result({"task": "static"}, {}, context)
    assert Entry.objects.count() == 0
    assert Candidate.objects.get().state is S.RUNNING


@pytest.mark.usefixtures("mongod")
def test_a_result_lands_although_an_audit_has_stopped_the_hull() -> None:
    """Its entry is stored and waits; nobody computes it again."""
    _elements()
    Level.objects.update(set__halted={"evidence": ["a number is wrong"]})
    landed = _land(MGSI, -2.3, "MgSi")
    assert landed["valid"]
    assert Entry.objects.get(entry_id=landed["entry_id"]).hull_sequence is None
    Level.objects.update(unset__halted=True)
    _land(MGSI.copy().scale_lattice(45.0), -2.2, "another")
    assert StoredVerdict.objects(entry_id=landed["entry_id"]).count() == 1


@pytest.mark.usefixtures("mongod")
def test_at_a_large_level_a_result_lands_and_the_launcher_publishes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run does not load a hundred thousand entries on its node for one verdict."""
    _elements()
    monkeypatch.setattr("hullworks.workflows.landing.LARGE_LEVEL", 2)
    landed = _land(MGSI, -2.3, "MgSi")
    assert StoredVerdict.objects(entry_id=landed["entry_id"]).count() == 0
    assert update_all()["verdicts"] >= 1
    assert StoredVerdict.objects(entry_id=landed["entry_id"]).count() == 1


def test_a_large_change_of_volume_is_flagged() -> None:
    """Large, yet within the rules: the verdict carries the flag; flags of the calculation are kept."""
    grown = replace(FINISHED, structure=MGSI.copy().scale_lattice(1.6 * MGSI.volume))
    entry = build_entry(grown, CalculationContext("c", "calc-1", "s", LEVEL.as_dict(), "candidate", "MgSi"))
    assert entry.valid
    assert entry.flags == [VerdictFlag.VOLUME_CHANGE_LARGE.value]


@pytest.mark.parametrize(
    ("state", "after"), [(S.CANCELLED, S.CANCELLED), (S.FAILED, S.VERIFIED), (S.SUBMITTED, S.VERIFIED)]
)
@pytest.mark.usefixtures("mongod")
def test_a_result_is_true_whatever_became_of_its_candidate(state: CandidateState, after: CandidateState) -> None:
    """The entry is stored; a cancelled candidate stays cancelled, one that was given up too early is verified."""
    context = _candidate(MG, "Mg", Role.REFERENCE)
    Candidate.objects.update(set__state=state)
    landed = land_result(_document("static", MG, -1.0), _document("relax 2", MG, -1.0), context.as_dict())
    assert landed["valid"]
    assert Candidate.objects.get().state is after
    assert StoredVerdict.objects.get().kind == "stable"
