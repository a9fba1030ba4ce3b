"""The demonstration batch that ships with the package, and the scripts that made and judge it."""

from __future__ import annotations

import importlib.util
import json
import sys
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Composition, Structure

from hullworks.states import Role
from hullworks.workflows.intake.reader import read_rows
from hullworks.workflows.intake.rows import CandidateInput, ProblemCode
from hullworks.workflows.screening import rank, screen

if TYPE_CHECKING:
    from types import ModuleType

# pymatgen calls spglib in a way that spglib 2.8 announces to drop.
pytestmark = pytest.mark.filterwarnings("ignore:Set OLD_ERROR_HANDLING:DeprecationWarning")

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(str(files("hullworks.launchers").joinpath("demo_data")))
BATCH = DATA / "mg-si-sn.jsonl"
REFERENCES = ["Mg", "Si", "Sn", "Mg2Si", "Mg2Sn"]


def load_script(name: str) -> ModuleType:
    """Import a script of the repository by its path."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    """The script that made the batch."""
    return load_script("make_demo_candidates")


@pytest.fixture(scope="module")
def predictions() -> dict[str, Any]:
    """What CHGNet said, as recorded."""
    record: dict[str, Any] = json.loads((DATA / "predictions.json").read_text(encoding="utf-8"))
    return record


@pytest.fixture(scope="module")
def read() -> dict[str, CandidateInput]:
    """The rows that intake can read, by name."""
    return {row.candidate.name: row.candidate for row in read_rows(BATCH) if row.candidate}


def test_the_batch_holds_what_its_readme_says(read: dict[str, CandidateInput]) -> None:
    """The batch has 13 rows: 5 references first, 5 candidates, a duplicate, and two rows that cannot be used."""
    rows = list(read_rows(BATCH))
    assert len(rows) == 13
    assert list(read)[:5] == REFERENCES
    assert [name for name, row in read.items() if row.role is Role.REFERENCE] == REFERENCES
    assert len(read) == 11
    readme = (DATA / "README.md").read_text(encoding="utf-8")
    assert "5 references: Mg, Si, Sn, Mg2Si, Mg2Sn" in readme
    assert "5 candidates" in readme


def test_one_row_is_unphysical_and_one_malformed() -> None:
    """Intake quarantines the collapsed cell for its overlap and the cut line for its syntax, and nothing else."""
    problems = [row.problem for row in read_rows(BATCH) if row.problem]
    assert [problem.code for problem in problems] == [ProblemCode.OVERLAP, ProblemCode.SYNTAX]
    assert "0.300 A apart" in problems[0].reason
    assert "cut off" in problems[1].reason


def test_the_duplicate_is_mg2si_in_another_guise(read: dict[str, CandidateInput]) -> None:
    """The matcher finds Mg2Si in the shifted, reordered conventional cell, and no other pair in the batch."""
    duplicate, original = read["Mg2Si-again"].structure, read["Mg2Si"].structure
    assert len(duplicate) == 4 * len(original) == 12
    assert duplicate.volume == pytest.approx(4 * original.volume, rel=1e-9)
    matcher = StructureMatcher()
    others = [(name, row.structure) for name, row in read.items() if name != "Mg2Si-again"]
    assert [name for name, structure in others if matcher.fit(duplicate, structure)] == ["Mg2Si"]
    for i, (_, one) in enumerate(others):
        assert not any(matcher.fit(one, other) for _, other in others[:i])


def test_predictions_arrive_complete(read: dict[str, CandidateInput], predictions: dict[str, Any]) -> None:
    """Intake reads energies, model, version and hull of every prediction; CHGNet claims no uncertainty."""
    for name, row in read.items():
        predicted = row.prediction
        assert predicted.e_above_hull is not None, name
        assert predicted.e_above_hull >= 0.0
        assert predicted.formation_energy is not None
        assert -0.5 < predicted.formation_energy < 0.5
        assert predicted.uncertainty is None
        assert (predicted.model, predicted.model_version) == ("CHGNet", predictions["model_version"])
        assert predicted.hull
        assert row.licence == "CC0-1.0"
        assert row.source


def test_the_model_believes_in_a_compound_that_experiment_does_not_know(read: dict[str, CandidateInput]) -> None:
    """Against the references alone CHGNet puts MgSn, and only MgSn, below the hull; it is computed first."""
    distance = {
        name: (row.prediction.model_extra or {})["distance_to_reference_hull_eV_per_atom"]
        for name, row in read.items()
        if row.role is Role.CANDIDATE
    }
    assert [name for name, value in distance.items() if value < 0] == ["MgSn-CsCl"]
    candidates = [row for row in read.values() if row.role is Role.CANDIDATE and row.name != "Mg2Si-again"]
    assert min(candidates, key=lambda row: rank(row.structure, row.prediction, role=row.role)).name == "MgSn-CsCl"


def test_screening_accepts_every_readable_crystal(read: dict[str, CandidateInput]) -> None:
    """No crystal of the batch breaks the default policy or carries a flag; the cells are small and of usual density."""
    for row in read.values():
        result = screen(row.structure, row.prediction, role=row.role)
        assert result.accepted, row.name
        assert result.flags == ()
        assert 1.0 < row.structure.density < 6.0
        assert len(row.structure) <= (12 if row.name == "Mg2Si-again" else 4)


def test_starting_cells_keep_their_symmetry_to_the_last_digit(
    read: dict[str, CandidateInput], predictions: dict[str, Any]
) -> None:
    """At a tolerance of 1e-8 Angstrom each starting cell has the space group that CHGNet found after relaxing."""
    for name, relaxed in predictions["phases"].items():
        if name in read:
            assert read[name].structure.get_space_group_info(symprec=1e-8)[0] == relaxed["space_group"]


def test_starting_cells_are_off_equilibrium(maker: ModuleType, predictions: dict[str, Any]) -> None:
    """Each a is 2 to 4 % away from CHGNet's, up for some and down for others, and c/a of hexagonal cells 1 to 2 %."""
    signs = set()
    for name, relaxed in predictions["phases"].items():
        before, after = relaxed["lengths_A"], maker.strain(name, tuple(relaxed["lengths_A"]))
        change = after[0] / before[0] - 1
        assert 0.02 <= abs(change) <= 0.04
        signs.add(change > 0)
        if len(before) == 2:
            assert 0.01 <= abs((after[1] / after[0]) / (before[1] / before[0]) - 1) <= 0.02
    assert signs == {True, False}


def test_the_script_makes_the_shipped_files_again(maker: ModuleType, tmp_path: Path) -> None:
    """From the recorded predictions, without the model, the script writes the very rows and table that ship."""
    for name in ("predictions.json", "README.md"):
        (tmp_path / name).write_bytes((DATA / name).read_bytes())
    maker.write_files(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "mg-si-sn.jsonl", "predictions.json"]
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == (DATA / "README.md").read_text(encoding="utf-8")
    made, shipped = (path.read_text(encoding="utf-8").splitlines() for path in (tmp_path / BATCH.name, BATCH))
    assert made[-1] == shipped[-1]
    for one, other in zip(made[:-1], shipped[:-1], strict=True):
        assert same(json.loads(one), json.loads(other))


def same(one: Any, other: Any) -> bool:  # noqa: ANN401 - any JSON value
    """Whether two JSON values agree, numbers within what machines may round differently."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == pytest.approx(other, abs=1e-9)) if isinstance(one, float) else bool(one == other)


def test_cell_lengths_survive_building(maker: ModuleType, predictions: dict[str, Any]) -> None:
    """A phase built from lengths gives these lengths back, with the composition that its name says."""
    for phase in maker.PHASES:
        wanted = tuple(predictions["phases"][phase.name]["lengths_A"])
        structure = maker.build(phase, wanted)
        assert maker.lengths(phase, structure) == pytest.approx(wanted, abs=1e-9)
        assert structure.composition.reduced_composition == Composition(phase.name.split("-")[0]).reduced_composition


def test_predicted_energies_above_hull_follow_from_the_recorded_energies(
    maker: ModuleType, predictions: dict[str, Any]
) -> None:
    """MgSi lies above the tie line Mg2Si-Si, and with MgSn in the hull no distance shrinks."""
    energy = {name: phase["energy_eV_per_atom"] for name, phase in predictions["phases"].items()}
    above_line = energy["MgSi-CsCl"] - (0.75 * energy["Mg2Si"] + 0.25 * energy["Si"])
    distances = maker.hull_distances(predictions)
    assert distances["MgSi-CsCl"]["to_references"] == pytest.approx(above_line, abs=1e-4)
    assert all(d["e_above_hull"] >= max(d["to_references"], 0.0) - 1e-9 for d in distances.values())


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    """Published lattice constants and formation energies."""
    values: dict[str, Any] = yaml.safe_load(
        files("hullworks.analysis").joinpath("published_pbe.yaml").read_text("utf-8")
    )
    return values


def test_every_published_number_has_a_source_and_a_status(published: dict[str, Any]) -> None:
    """Each value of the five known phases names a listed source and how far it can be trusted; ranges are ordered."""
    assert list(published["phases"]) == REFERENCES
    for phase in published["phases"].values():
        for entry in [*phase["pbe"].values(), *phase["experiment"].values()]:
            assert entry["source"] in published["sources"]
            assert entry["status"] in {"given", "derived", "quoted", "recalled"}
            ends = entry["value"] if isinstance(entry["value"], list) else [entry["value"]]
            assert ends == sorted(ends)


def test_the_table_measures_the_distance_to_the_nearer_end_of_a_range(published: dict[str, Any]) -> None:
    """-0.153 eV/atom is 20 meV/atom above the range -0.189 to -0.173, -0.18 lies in it; 5.5247 is 1 % over 5.470."""
    script = load_script("physics_table")
    known = published["phases"]["Mg2Si"]["pbe"]["formation_energy"]
    assert script.difference(-0.153, known, energy=True) == "+20 meV/atom"
    assert script.difference(-0.18, known, energy=True) == "+0 meV/atom"
    assert script.difference(5.5247, published["phases"]["Si"]["pbe"]["a"], energy=False) == "+1.00 %"
    assert script.difference(1.0, None, energy=False) == ""


def test_the_table_shows_known_phases_first_and_the_conventional_cell(
    maker: ModuleType, predictions: dict[str, Any], published: dict[str, Any]
) -> None:
    """A primitive cell of Mg2Si is shown by its cubic length; elements have no line for their formation energy."""
    script = load_script("physics_table")
    phases = {phase.name: phase for phase in maker.PHASES}
    built: dict[str, Structure] = {
        name: maker.build(phases[name], tuple(predictions["phases"][name]["lengths_A"]))
        for name in ("SiSn-ZnS", "Mg2Si", "Mg")
    }
    lines = script.table([script.computed(name, s, -0.1, 0.0) for name, s in built.items()], published).splitlines()
    quantities = [tuple(cell.strip() for cell in line.split("|")[1:4]) for line in lines[2:]]
    assert quantities[:2] == [("Mg2Si", "a (Å)", "6.363"), ("Mg2Si", "E_f (eV/atom)", "-0.100")]
    assert quantities[2:4] == [("Mg", "a (Å)", "3.206"), ("Mg", "c (Å)", "5.132")]
    assert quantities[4:] == [("SiSn-ZnS", "a (Å)", "6.059"), ("SiSn-ZnS", "E_f (eV/atom)", "-0.100")]


def test_the_table_replaces_the_one_before(maker: ModuleType, published: dict[str, Any]) -> None:
    """Between the marks of a document stands the newest table with the sources that it names; the rest stays."""
    script = load_script("physics_table")
    phase = next(phase for phase in maker.PHASES if phase.name == "Si")
    report = script.report([script.computed("Si", maker.build(phase, (5.46,)), 0.0, 0.0)], published)
    assert "| Si | a (Å) | 5.460 | 5.470 [acwf, derived] | -0.18 % |" in report
    assert "**acwf**" in report
    assert "**jund**" not in report
    document = "".join(["head\n", script.MARKS[0], "\nold\n", script.MARKS[1], "\ntail\n"])
    once = script.inserted(document, report)
    assert "old" not in once
    assert once.startswith("head\n")
    assert once.endswith("\ntail\n")
    assert script.inserted(once, report) == once
