"""Codes and levels: what a name stands for, and what is refused before anything is submitted."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from pymatgen.core import Lattice, Structure

from hullworks.errors import LevelError, PseudopotentialError
from hullworks.settings import load_settings
from hullworks.workflows.codes import (
    CODES,
    CalculationContext,
    available_levels,
    build_flow,
    build_level,
    check_structure,
    get_code,
    graph_version,
)
from hullworks.workflows.qe.pseudos import load_family

if TYPE_CHECKING:
    from pathlib import Path

    from hullworks.levels import LevelOfTheory
    from hullworks.settings import Settings

SI = Structure(
    Lattice([[0, 2.73, 2.73], [2.73, 0, 2.73], [2.73, 2.73, 0]]), ["Si", "Si"], [[0.0, 0.0, 0.0], [0.25, 0.25, 0.25]]
)
CUTOFFS = {"Mg": {"cutoff_wfc": 30.0, "cutoff_rho": 120.0}, "Si": {"cutoff_wfc": 35.0, "cutoff_rho": 140.0}}


def _family(project: Settings, name: str, elements: tuple[str, ...] = ("Mg", "Si")) -> Path:
    """Make a folder of UPF files with a cutoff table, and name it in the settings."""
    folder = project.project_dir / f"files of {name}"
    load_family("gth-pbe").install(elements, folder)
    table = {element: CUTOFFS[element] for element in elements}
    (folder / "cutoffs.json").write_text(json.dumps(table), encoding="utf-8")
    with (project.project_dir / "hullworks.toml").open("a", encoding="utf-8") as file:
        file.write(f'[qe.pseudo_families]\n"{name}" = "files of {name}"\n')
    return folder


def _context(level: LevelOfTheory) -> CalculationContext:
    return CalculationContext("cand-1", "calc-1", "struct-1", level.as_dict(), "candidate", "Si")


def test_a_name_stands_for_a_level(project: Settings) -> None:
    """Code, functional and protocol; the key adds a hash of everything that decides an energy."""
    level = build_level("qe-pbe-fast", project)
    assert (level.code, level.functional, level.protocol, level.pseudo_family) == ("qe", "PBE", "fast", "gth-pbe")
    assert level.slug == "qe-pbe-fast"
    assert dict(level.pseudo_hashes)["Si"] == load_family("gth-pbe").pseudo("Si").sha256
    assert build_level(level.key, project) == level
    assert build_level("qe-pbe-balanced", project).key != level.key
    assert graph_version(level) == "qe-2"


def test_a_key_that_the_present_settings_do_not_give_is_refused(project: Settings) -> None:
    """The error names the present key."""
    present = build_level("qe-pbe-fast", project)
    with pytest.raises(LevelError, match=f"this level is {present.key}"):
        build_level("qe-pbe-fast-00000000", project)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("fast", "a level's name is like qe-pbe-fast"),
        ("", "a level's name is like qe-pbe-fast"),
        ("qe-pbe-fast@", "a level's name is like qe-pbe-fast"),
        ("qe-pbe-fast@../up", "a level's name is like qe-pbe-fast"),
        ("abinit-pbe-fast", "abinit: no such electronic-structure code. Known: qe"),
        ("qe-pbe-sloppy", "sloppy"),
        ("qe-pbe-sloppy-00000000", "sloppy"),
        ("qe-lda-fast", "family gth-pbe: the pseudopotentials are of PBE, not of lda"),
        ("qe-pbe-fast@mine", "mine: no such pseudopotential family. Known: gth-pbe"),
        ("qe-pbe-fast@mine-20240101", "mine-20240101: no such pseudopotential family"),
    ],
)
def test_names_that_stand_for_nothing_are_refused(project: Settings, name: str, problem: str) -> None:
    """The message says which part is wrong."""
    with pytest.raises(LevelError) as caught:
        build_level(name, project)
    assert problem in str(caught.value)


def test_a_folder_of_files_is_a_family(project: Settings) -> None:
    """Its level has its own key and its name says so; the same files elsewhere give the same level."""
    folder = _family(project, "mine")
    settings = load_settings(project.project_dir)
    level = build_level("qe-pbe-fast@mine", settings)
    assert level.slug == "qe-pbe-fast@mine"
    assert [element for element, _ in level.pseudo_hashes] == ["Mg", "Si"]
    assert level.key != build_level("qe-pbe-fast", settings).key
    assert build_level(level.key, settings) == level
    assert "qe-pbe-balanced@mine" in available_levels(settings)
    check_structure(SI, level, settings)
    moved = folder.rename(project.project_dir / "moved")
    qe = settings.qe.model_copy(update={"pseudo_families": {"mine": moved}})
    assert build_level("qe-pbe-fast@mine", settings.model_copy(update={"qe": qe})) == level


def test_a_familys_name_may_end_in_a_date(project: Settings) -> None:
    """Eight digits look like the hash of a key, and are none here."""
    _family(project, "mine-20240101")
    settings = load_settings(project.project_dir)
    level = build_level("qe-pbe-fast@mine-20240101", settings)
    assert level.pseudo_family == "mine-20240101"
    assert build_level(level.key, settings) == level


def test_a_folder_that_mixes_functionals_is_refused(project: Settings) -> None:
    """The files of each functional are named."""
    folder = _family(project, "mixed")
    (file,) = folder.glob("Si*")
    file.write_text(file.read_text(encoding="utf-8").replace("PBE", "PBESOL"), encoding="utf-8")
    with pytest.raises(PseudopotentialError, match=r"mixes functionals \(PBE: Mg.*; PBESOL: Si"):
        build_level("qe-pbe-fast@mixed", load_settings(project.project_dir))


def test_missing_elements_are_named_before_anything_is_submitted(project: Settings) -> None:
    """All of them at once, with the folder to put them into; a missing cutoff likewise."""
    folder = _family(project, "mine", ("Mg",))
    settings = load_settings(project.project_dir)
    level = build_level("qe-pbe-fast@mine", settings)
    alloy = Structure(Lattice.cubic(4.0), ["Si", "Ge"], [[0.0] * 3, [0.5] * 3])
    with pytest.raises(PseudopotentialError, match="no pseudopotential for Ge, Si") as caught:
        check_structure(alloy, level, settings)
    assert str(folder) in str(caught.value)
    iron = Structure(Lattice.cubic(2.87), ["Fe"], [[0, 0, 0]])
    with pytest.raises(PseudopotentialError, match="no cutoff is recorded for Fe"):
        check_structure(iron, build_level("qe-pbe-fast", settings), settings)


def test_a_graph_is_built_at_its_level_alone(project: Settings) -> None:
    """Relax, relax, static, land; when other pseudopotentials were stored, it is refused with the present key."""
    level = build_level("qe-pbe-fast", project)
    flow, version = build_flow(SI, level, _context(level), project)
    assert [job.name for job in flow.jobs] == ["relax 1", "relax 2", "static", "land"]
    assert version == get_code("qe").GRAPH_VERSION
    stored = replace(level, pseudo_hashes=(("Si", "0" * 64),))
    with pytest.raises(LevelError, match=f"they now give {level.key}"):
        build_flow(SI, stored, _context(stored), project)


def test_every_code_names_its_levels(project: Settings) -> None:
    """What can be asked for can be built."""
    names = available_levels(project)
    assert {name.split("-")[0] for name in names} == set(CODES)
    assert all(build_level(name, project).slug == name for name in names)
