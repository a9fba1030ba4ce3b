"""Rows of every format become the same thing, or say why not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from monty.json import MontyEncoder
from pymatgen.core import Lattice, Structure
from pymatgen.entries.computed_entries import (
    CompositionEnergyAdjustment,
    ComputedEntry,
    ComputedStructureEntry,
    ConstantEnergyAdjustment,
    TemperatureEnergyAdjustment,
)

from hullworks.workflows.references.rows import RefusalCode, RowRefusedError
from hullworks.workflows.references.shapes import Columns, row_of

OXIDE = "MP2020 anion correction (oxide)"
ADJUSTMENTS = [
    CompositionEnergyAdjustment(-0.687, 3, uncertainty_per_atom=0.002, name=OXIDE),
    CompositionEnergyAdjustment(-2.256, 2, uncertainty_per_atom=0.01, name="MP2020 GGA/GGA+U mixing correction (Fe)"),
    ConstantEnergyAdjustment(0.5, name="own"),
    TemperatureEnergyAdjustment(-0.0001, 300, 5, uncertainty_per_deg=1e-5, name="heat"),
]


def as_json(entry: ComputedEntry) -> dict[str, Any]:
    """Return an entry as a file holds it."""
    plain: dict[str, Any] = json.loads(json.dumps(entry, cls=MontyEncoder))
    return plain


def fe2o3(**fields: Any) -> dict[str, Any]:
    """A corrected entry of Fe2O3, -33 eV uncorrected."""
    entry = ComputedEntry(
        "Fe2O3", -33.0, energy_adjustments=list(ADJUSTMENTS), entry_id="mp-1", parameters={"run_type": "GGA+U"}
    )
    return {**as_json(entry), **fields}


def test_a_computed_entry_keeps_its_corrections_apart() -> None:
    """By name, as pymatgen adds them up; unknown uncertainties are no uncertainties."""
    row = row_of(fe2o3(), Columns())
    expected = ComputedEntry("Fe2O3", -33.0, energy_adjustments=list(ADJUSTMENTS))
    assert (row.uncorrected, row.is_total, row.source_id) == (-33.0, True, "mp-1")
    assert row.uncorrected + sum(row.parts.values()) == pytest.approx(expected.energy, abs=1e-12)
    assert row.stated_total == pytest.approx(expected.energy, abs=1e-12)
    assert row.parts[OXIDE] == pytest.approx(-2.061)
    assert row.sigmas == pytest.approx({OXIDE: 0.006, "MP2020 GGA/GGA+U mixing correction (Fe)": 0.02, "heat": 0.015})
    assert row.parameters["run_type"] == "GGA+U"


def test_a_correction_without_parts_is_one_part() -> None:
    """As old entries have it, and as pymatgen writes a correction given as a number."""
    given = as_json(ComputedEntry("MgO", -12.0, correction=-0.7))
    assert row_of(given, Columns()).parts == {"manual": -0.7}
    del given["energy_adjustments"]
    assert row_of(given, Columns()).parts == {"correction": -0.7}


def test_the_structure_is_kept_as_it_is() -> None:
    """A ComputedStructureEntry names its composition by its structure alone in no version of pymatgen."""
    structure = Structure(Lattice.cubic(4.2), ["Mg", "O"], [[0.0] * 3, [0.5] * 3])
    given = as_json(ComputedStructureEntry(structure, -12.0, entry_id="a", data={"task_id": "t", "nested": {"x": 1}}))
    row = row_of(given, Columns())
    assert row.structure == given["structure"]
    assert row.composition == {"Mg": 1.0, "O": 1.0}
    assert row.data == {"task_id": "t"}, "plain values only"


def test_a_thermo_document_carries_its_entry() -> None:
    """The entry that its energy type names; the document's own energy is held against it."""
    document = {
        "material_id": "mp-9",
        "thermo_type": "GGA_GGA+U",
        "formula_pretty": "Fe2O3",
        "energy_type": "GGA+U",
        "energy_per_atom": -8.5,
        "entries": {"GGA+U": fe2o3(), "R2SCAN": fe2o3(energy=-50.0)},
    }
    row = row_of(document, Columns())
    assert (row.source_id, row.uncorrected, row.stated_per_atom) == ("mp-9", -33.0, -8.5)
    assert row.parameters["thermo_type"] == "GGA_GGA+U"
    with pytest.raises(RowRefusedError, match="GGA\\+U, R2SCAN"):
        row_of({**document, "energy_type": None}, Columns())


def test_a_thermo_document_without_entries_is_flat() -> None:
    """Its whole correction is one part, whose uncertainty nobody shares."""
    row = row_of(
        {
            "material_id": "mp-9",
            "composition": {"Mg": 1, "O": 1},
            "formula_pretty": "MgO",
            "uncorrected_energy_per_atom": -5.5,
            "energy_per_atom": -6.0,
            "energy_uncertainy_per_atom": 0.002,
            "energy_above_hull": 0.0,
        },
        Columns(),
    )
    assert (row.uncorrected, row.parts, row.sigmas) == (-5.5, {"correction": -0.5}, {"own:correction": 0.002})
    assert (row.is_total, row.composition) == (False, {"Mg": 1, "O": 1})


def test_columns_can_be_named() -> None:
    """For tables with names of their own; formation energies have known names, too."""
    row = row_of({"who": "x1", "what": "MgO", "target": "-3.0"}, Columns("target", "what", "who", formation=True))
    assert (row.source_id, row.composition, row.uncorrected, row.parts) == ("x1", "MgO", -3.0, {})
    assert (
        row_of({"formula": "MgO", "e_form": -3.0, "energy_per_atom": -6.0}, Columns(formation=True)).uncorrected == -3.0
    )


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ([1], RefusalCode.WRONG_SHAPE),
        ({"formula": "MgO"}, RefusalCode.WRONG_SHAPE),
        ({"energy_per_atom": -1.0}, RefusalCode.NO_COMPOSITION),
        ({"energy_per_atom": -1.0, "composition": 3}, RefusalCode.NO_COMPOSITION),
        ({"formula": "MgO", "energy_per_atom": "deep"}, RefusalCode.WRONG_SHAPE),
        ({"formula": "MgO", "energy_per_atom": True}, RefusalCode.NOT_FINITE),
        ({"formula": "MgO", "energy_per_atom": float("nan")}, RefusalCode.NOT_FINITE),
        ({"formula": "MgO", "energy_per_atom": 10**400}, RefusalCode.WRONG_SHAPE),
        ({"formula": "MgO", "energy_per_atom": -1.0, "energy_uncertainy_per_atom": -0.1}, RefusalCode.INCONSISTENT),
        ({"energy": None, "composition": {"Mg": 1}}, RefusalCode.WRONG_SHAPE),
        ({"energy": float("-inf"), "composition": {"Mg": 1}}, RefusalCode.NOT_FINITE),
        ({"energy": 1.0, "composition": {"Mg": 1}, "energy_adjustments": [{"name": "x"}]}, RefusalCode.WRONG_SHAPE),
        ({"energy": 1.0, "composition": {"Mg": 1}, "energy_adjustments": ["x"]}, RefusalCode.WRONG_SHAPE),
        ({"energy": 1.0, "composition": {"Mg": 1}, "energy_adjustments": 3}, RefusalCode.WRONG_SHAPE),
        (
            {"energy": 1.0, "composition": {"Mg": 1}, "energy_adjustments": [{"value": float("nan")}]},
            RefusalCode.NOT_FINITE,
        ),
        (
            {"energy": 1.0, "composition": {"Mg": 1}, "energy_adjustments": [{"adj_per_atom": 1.0}]},
            RefusalCode.WRONG_SHAPE,
        ),
    ],
)
def test_what_is_no_row_is_refused_with_the_reason(given: object, code: RefusalCode) -> None:
    """And with the row's own id, where it has one."""
    with pytest.raises(RowRefusedError) as refused:
        row_of(given, Columns())
    assert refused.value.code is code
    if isinstance(given, dict):
        with pytest.raises(RowRefusedError) as refused:
            row_of({**given, "entry_id": "mp-5"}, Columns())
        assert refused.value.where == "mp-5"
