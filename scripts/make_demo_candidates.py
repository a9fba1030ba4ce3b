"""Make the demonstration batch: prototypes, CHGNet predictions, and starting cells off equilibrium.

Two steps, so that the shipped files can be made again, and checked, without the model:

1. ``--predict`` relaxes every phase with CHGNet and writes ``predictions.json`` (cell lengths and energies). It needs
   an environment of its own: ``pip install torch chgnet==0.4.2``.
2. Always: ``predictions.json`` becomes ``mg-si-sn.jsonl`` and the table in ``README.md``. This step is arithmetic with
   a fixed seed and needs pymatgen alone.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.metadata
import json
import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Lattice, Structure

DATA = Path(__file__).resolve().parent.parent / "launchers" / "demo_data"
MODEL_VERSION = "0.3.0"
"""Weights that the chgnet package ships under this name (MPtrj, PBE/PBE+U with the MP2020 corrections)."""
SEED = 20261
"""Any number would do; it fixes the strains."""
LENGTH_STRAIN = (0.02, 0.04)
"""Size of the strain of all cell lengths: more than any predictor is off, less than a cell needs to change phase."""
AXIAL_STRAIN = (0.01, 0.02)
"""Size of the further strain of c in hexagonal cells, so that c/a has to relax too."""
OVERLAP_A = 0.3
"""Distance of the two atoms of the unphysical row, Angstrom: shorter than any bond (H2: 0.74)."""
CUT_AT = 420
"""Characters that survive of the malformed row, as when a writer is killed in the middle of a line."""
LICENCE = "CC0-1.0"
HULL = "CHGNet 0.3.0 hull of this batch and its references"

Vector = tuple[float, float, float]
CellKind = Literal["fcc", "sc", "hex"]
Role = Literal["reference", "candidate", "cut"]


@dataclass(frozen=True)
class Prototype:
    """A structure type whose sites are all fixed by symmetry: one or two lengths describe the cell.

    Attributes:
        label: Strukturbericht symbol and the crystal that names the type.
        cell: Primitive face-centred cubic, simple cubic or hexagonal cell.
        sites: Index into the elements of a phase, and fractional coordinates, of each atom.
    """

    label: str
    cell: CellKind
    sites: tuple[tuple[int, Vector], ...]


_QUARTER, _HALF, _THREE_QUARTERS = (0.25,) * 3, (0.5,) * 3, (0.75,) * 3
_ORIGIN = (0.0, 0.0, 0.0)
_FACES = ((0.0, 0.5, 0.5), (0.5, 0.0, 0.5), (0.5, 0.5, 0.0))

HCP = Prototype("A3 (Mg)", "hex", ((0, (1 / 3, 2 / 3, 0.25)), (0, (2 / 3, 1 / 3, 0.75))))
DIAMOND = Prototype("A4 (diamond)", "fcc", ((0, _ORIGIN), (0, _QUARTER)))
ANTIFLUORITE = Prototype("C1 (antifluorite)", "fcc", ((0, _QUARTER), (0, _THREE_QUARTERS), (1, _ORIGIN)))
ZINCBLENDE = Prototype("B3 (ZnS)", "fcc", ((0, _ORIGIN), (1, _QUARTER)))
CSCL = Prototype("B2 (CsCl)", "sc", ((0, _ORIGIN), (1, _HALF)))
CU3AU = Prototype("L1_2 (Cu3Au)", "sc", (*((0, face) for face in _FACES), (1, _ORIGIN)))
HEUSLER = Prototype("L2_1 (Cu2MnAl)", "fcc", ((0, _QUARTER), (0, _THREE_QUARTERS), (1, _ORIGIN), (2, _HALF)))


@dataclass(frozen=True)
class Phase:
    """One crystal of the demonstration: a prototype with its sites filled.

    Attributes:
        name: Unique within the demonstration.
        prototype: The structure type.
        elements: Elements in the order of the prototype's indices.
        role: ``cut`` marks the phase whose row ships cut off in the middle.
        source: How one came to propose it.
        parent: The known crystal whose elements were replaced, if any.
        guess_A: First guess of a, and of c in hexagonal cells, from which CHGNet relaxes.
    """

    name: str
    prototype: Prototype
    elements: tuple[str, ...]
    role: Role
    source: str
    parent: str | None
    guess_A: tuple[float, ...]


PHASES = (
    Phase("Mg", HCP, ("Mg",), "reference", "elemental reference", None, (3.2, 5.2)),
    Phase("Si", DIAMOND, ("Si",), "reference", "elemental reference", None, (5.45,)),
    Phase("Sn", DIAMOND, ("Sn",), "reference", "elemental reference", None, (6.65,)),
    Phase("Mg2Si", ANTIFLUORITE, ("Mg", "Si"), "reference", "known compound", None, (6.37,)),
    Phase("Mg2Sn", ANTIFLUORITE, ("Mg", "Sn"), "reference", "known compound", None, (6.82,)),
    Phase("MgSi-CsCl", CSCL, ("Mg", "Si"), "candidate", "prototype", "CsCl", (3.2,)),
    Phase("MgSn-CsCl", CSCL, ("Mg", "Sn"), "candidate", "substitution", "MgSi-CsCl", (3.45,)),
    Phase("Mg3Si-Cu3Au", CU3AU, ("Mg", "Si"), "candidate", "prototype", "Cu3Au", (4.3,)),
    Phase("Mg3Sn-Cu3Au", CU3AU, ("Mg", "Sn"), "candidate", "substitution", "Mg3Si-Cu3Au", (4.5,)),
    Phase("SiSn-ZnS", ZINCBLENDE, ("Si", "Sn"), "candidate", "substitution", "SiC", (6.0,)),
    Phase("Mg2SiSn-Cu2MnAl", HEUSLER, ("Mg", "Si", "Sn"), "cut", "prototype", "Cu2MnAl", (6.8,)),
)
"""Everything that CHGNet is asked about; the last ships as the malformed row."""


def cell_matrix(kind: CellKind, lengths_A: tuple[float, ...]) -> Lattice:
    """Return the primitive cell with conventional length a, and c when hexagonal.

    Args:
        kind: Which Bravais lattice.
        lengths_A: ``(a,)``, or ``(a, c)`` for hexagonal cells, Angstrom.
    """
    a = lengths_A[0]
    if kind == "hex":
        half, height = a / 2, a * math.sqrt(3) / 2
        return Lattice([[a, 0, 0], [-half, height, 0], [0, 0, lengths_A[1]]])
    if kind == "sc":
        return Lattice([[a, 0, 0], [0, a, 0], [0, 0, a]])
    return Lattice([[0, a / 2, a / 2], [a / 2, 0, a / 2], [a / 2, a / 2, 0]])


def build(phase: Phase, lengths_A: tuple[float, ...]) -> Structure:
    """Return a phase in a cell with the given lengths (a, or a and c, Angstrom), symmetry exact."""
    species = [phase.elements[index] for index, _ in phase.prototype.sites]
    coords = [list(coord) for _, coord in phase.prototype.sites]
    return Structure(cell_matrix(phase.prototype.cell, lengths_A), species, coords)


def lengths(phase: Phase, structure: Structure) -> tuple[float, ...]:
    """Return a (and c) in Angstrom of a relaxed primitive cell: the numbers that :func:`build` takes."""
    if phase.prototype.cell == "hex":
        return (math.sqrt(structure.lattice.a * structure.lattice.b), structure.lattice.c)
    cells_per_cube = 4 if phase.prototype.cell == "fcc" else 1
    return (math.cbrt(cells_per_cube * structure.volume),)


def strain(name: str, lengths_A: tuple[float, ...]) -> tuple[float, ...]:
    """Move cell lengths off equilibrium, by the same amount each time for the same name.

    All lengths change by 2-4 % up or down, c of a hexagonal cell by a further 1-2 %, so that the space group stays and
    the starting cell is still one that a relaxation has work to do on. Rounded to 1e-10 Angstrom.
    """
    draw = random.Random(f"{SEED}:{name}")  # noqa: S311 - a reproducible stream, not a secret
    signed = [draw.choice((-1.0, 1.0)) * draw.uniform(*bounds) for bounds in (LENGTH_STRAIN, AXIAL_STRAIN)]
    factors = (1 + signed[0], (1 + signed[0]) * (1 + signed[1]))
    return tuple(round(length * factor, 10) for length, factor in zip(lengths_A, factors, strict=False))


def supercell_in_disguise(structure: Structure) -> Structure:
    """Return a face-centred crystal as its conventional cell, moved and with its atoms in another order."""
    disguised = structure.copy()
    disguised.make_supercell([[-1, 1, 1], [1, -1, 1], [1, 1, -1]])
    disguised.translate_sites(range(len(disguised)), (0.37, 0.11, 0.83))
    order = list(range(len(disguised)))
    random.Random(SEED).shuffle(order)  # noqa: S311 - a reproducible order, not a secret
    return Structure.from_sites([disguised[index] for index in order])


def collapsed(phase: Phase, lengths_A: tuple[float, ...]) -> Structure:
    """Return a zincblende cell whose second atom has fallen towards the first along the body diagonal."""
    structure = build(phase, lengths_A)
    offset = OVERLAP_A / (lengths_A[0] * math.sqrt(3))
    structure.replace(1, structure[1].species, [offset] * 3)
    return structure


def predict(folder: Path) -> None:
    """Relax all phases with CHGNet and write ``predictions.json``."""
    chgnet: Any = importlib.import_module("chgnet.model")
    model = chgnet.CHGNet.load(model_name=MODEL_VERSION, use_device="cpu", verbose=False)
    optimizer = chgnet.StructOptimizer(model=model, use_device="cpu")
    record = {
        "model": "CHGNet",
        "model_version": model.version,
        "weights_sha256": weights_sha256(model),
        "chgnet_package": importlib.metadata.version("chgnet"),
        "phases": {phase.name: relax(phase, optimizer) for phase in PHASES},
    }
    (folder / "predictions.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def weights_sha256(model: Any) -> str:  # noqa: ANN401 - CHGNet is no dependency, so its class has no name here
    """Return a hash over the model's parameters, names and values in order."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


def relax(phase: Phase, optimizer: Any) -> dict[str, Any]:  # noqa: ANN401 - see weights_sha256
    """Relax one phase; return its lengths in Angstrom and its energy, rounded to what CHGNet reproduces."""
    result = optimizer.relax(build(phase, phase.guess_A), fmax=0.002, steps=500, verbose=False)
    final: Structure = result["final_structure"]
    energy = float(result["trajectory"].energies[-1]) / len(final)
    return {
        "lengths_A": [round(length, 4) for length in lengths(phase, final)],
        "energy_eV_per_atom": round(energy, 4),
        "space_group": final.get_space_group_info(symprec=0.01)[0],
    }


def hull_distances(record: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return the predicted formation energy and distances to hull of each phase, eV/atom.

    ``e_above_hull`` is the distance to the hull of all phases that ship whole (never negative); ``to_references`` is
    the distance to the hull of the references alone (negative: predicted to be a new stable phase).
    """
    entries = {phase: _pd_entry(phase, record) for phase in PHASES if phase.role != "cut"}
    everything = PhaseDiagram(list(entries.values()))
    references = PhaseDiagram([entry for phase, entry in entries.items() if phase.role == "reference"])
    return {
        phase.name: {
            "e_form": _rounded(references.get_form_energy_per_atom(entry)),
            "e_above_hull": _rounded(everything.get_e_above_hull(entry)),
            "to_references": _rounded(references.get_decomp_and_e_above_hull(entry, allow_negative=True)[1]),
        }
        for phase, entry in entries.items()
    }


def _pd_entry(phase: Phase, record: dict[str, Any]) -> PDEntry:
    composition = build(phase, phase.guess_A).composition
    return PDEntry(composition, record["phases"][phase.name]["energy_eV_per_atom"] * composition.num_atoms)


def _rounded(energy_eV_per_atom: float | None) -> float:
    return round(energy_eV_per_atom or 0.0, 4) + 0.0


def prediction(name: str, record: dict[str, Any]) -> dict[str, Any]:
    """Return the ``prediction`` part of a row, energies in eV/atom; CHGNet gives no uncertainty, so none is claimed."""
    distances = hull_distances(record)[name]
    return {
        "e_above_hull_eV_per_atom": distances["e_above_hull"],
        "e_form_eV_per_atom": distances["e_form"],
        "energy_per_atom": record["phases"][name]["energy_eV_per_atom"],
        "distance_to_reference_hull_eV_per_atom": distances["to_references"],
        "uncertainty_eV_per_atom": None,
        "uncertainty_kind": None,
        "model": record["model"],
        "model_version": record["model_version"],
        "hull": HULL,
    }


def row(phase: Phase, structure: Structure, predicted: dict[str, Any] | None, name: str = "") -> dict[str, Any]:
    """Return one row of a batch file."""
    return {
        "name": name or phase.name,
        "structure": structure.as_dict(),
        "role": "reference" if phase.role == "reference" else "candidate",
        "prediction": predicted,
        "source": phase.source,
        "parent": phase.parent,
        "licence": LICENCE,
    }


def starting_cell(phase: Phase, record: dict[str, Any]) -> Structure:
    """Return a phase with CHGNet's cell lengths, moved off equilibrium."""
    return build(phase, strain(phase.name, tuple(record["phases"][phase.name]["lengths_A"])))


def batch_lines(record: dict[str, Any]) -> list[str]:
    """Return the lines of the batch: references, proposals, a duplicate, an unphysical and a malformed row."""
    whole = [*_whole_rows(record, "reference"), *_whole_rows(record, "candidate")]
    return [*map(_line, [*whole, duplicate_row(record), unphysical_row(record)]), malformed_line(record)]


def duplicate_row(record: dict[str, Any]) -> dict[str, Any]:
    """Return Mg2Si, proposed as if it were new: the starting cell of the reference in another guise."""
    known = _phase("Mg2Si")
    structure = supercell_in_disguise(starting_cell(known, record))
    proposed = row(known, structure, prediction(known.name, record), name="Mg2Si-again")
    return proposed | {"role": "candidate", "source": "prototype", "parent": "CaF2"}


def unphysical_row(record: dict[str, Any]) -> dict[str, Any]:
    """Return SiSn with one atom nearly on top of the other; no model was asked about it."""
    phase = _phase("SiSn-ZnS")
    return row(phase, collapsed(phase, tuple(record["phases"][phase.name]["lengths_A"])), None, name="SiSn-collapsed")


def malformed_line(record: dict[str, Any]) -> str:
    """Return the row that was cut off."""
    phase = next(phase for phase in PHASES if phase.role == "cut")
    return _line(row(phase, starting_cell(phase, record), None))[:CUT_AT]


def _phase(name: str) -> Phase:
    return next(phase for phase in PHASES if phase.name == name)


def _whole_rows(record: dict[str, Any], role: Role) -> list[dict[str, Any]]:
    phases = [phase for phase in PHASES if phase.role == role]
    return [row(phase, starting_cell(phase, record), prediction(phase.name, record)) for phase in phases]


def _line(content: dict[str, Any]) -> str:
    return json.dumps(content, allow_nan=False)


def table(record: dict[str, Any]) -> str:
    """Return the Markdown table of the predictions for ``README.md``."""
    lines = [
        "| name | atoms | type | a, c (Å), CHGNet | start (Å) | E_form | E_hull, all | to references |",
        "|---|---|---|---|---|---|---|---|",
    ]
    distances = hull_distances(record)
    lines += [_table_row(phase, record, distances[phase.name]) for phase in PHASES if phase.name in distances]
    return "\n".join(lines)


def _table_row(phase: Phase, record: dict[str, Any], distances: dict[str, float]) -> str:
    relaxed = tuple(record["phases"][phase.name]["lengths_A"])
    cells = [phase.name, str(len(phase.prototype.sites)), phase.prototype.label]
    cells += [", ".join(f"{length:.3f}" for length in ab) for ab in (relaxed, strain(phase.name, relaxed))]
    cells += [f"{distances['e_form']:+.3f}", f"{distances['e_above_hull']:.3f}", f"{distances['to_references']:+.3f}"]
    return "| " + " | ".join(cells) + " |"


def with_table(text: str, new_table: str) -> str:
    """Return a README with what stands between its two table marks replaced."""
    before, rest = text.split("<!-- table -->\n")
    _, after = rest.split("<!-- end of table -->\n")
    return f"{before}<!-- table -->\n{new_table}\n<!-- end of table -->\n{after}"


def write_files(folder: Path) -> None:
    """Write everything that follows from ``predictions.json``."""
    record = json.loads((folder / "predictions.json").read_text(encoding="utf-8"))
    (folder / "mg-si-sn.jsonl").write_text("\n".join(batch_lines(record)) + "\n", encoding="utf-8")
    readme = folder / "README.md"
    readme.write_text(with_table(readme.read_text(encoding="utf-8"), table(record)), encoding="utf-8")


def main() -> None:
    """Parse the command line and write the files."""
    parser = argparse.ArgumentParser(description="Make the files of the demonstration batch.")
    parser.add_argument("--predict", action="store_true", help="ask CHGNet again first (needs chgnet and torch)")
    parser.add_argument("--folder", type=Path, default=DATA, help="folder of the files (default: the shipped one)")
    arguments = parser.parse_args()
    if arguments.predict:
        predict(arguments.folder)
    write_files(arguments.folder)


if __name__ == "__main__":
    main()
