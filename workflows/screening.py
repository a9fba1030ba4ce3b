"""Screening: which readable crystals deserve a calculation, and in which order."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pymatgen.core.periodic_table import Element

from hullworks.elements import ELEMENTS_AND_ISOTOPES
from hullworks.errors import InputError
from hullworks.states import Role
from hullworks.workflows.identity import MatchTolerances
from hullworks.workflows.intake.crystal import contact_distances
from hullworks.workflows.intake.limits import default_limits
from hullworks.workflows.intake.rows import Prediction

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping

    import numpy.typing as npt
    from pymatgen.core.structure import Structure

    FloatArray = npt.NDArray[np.float64]

POLICY_FILE: Final = "screening.yaml"


class RejectionCode(StrEnum):
    """Why a readable crystal is not computed.

    TOO_MANY_ATOMS: its cell is beyond the policy's size.
    EXCLUDED_ELEMENT: it holds an element that the policy excludes.
    TOO_DENSE: its volume per atom is below that of any crystal.
    TOO_SPARSE: its volume per atom is above that of any crystal.
    TOO_THIN: two opposite faces of its reduced cell nearly touch.
    TOO_LONG: its reduced cell is a needle, a slab or a molecule in vacuum.
    TOO_CLOSE: two atoms are nearer than cores allow.
    ISOLATED_ATOM: an atom has no neighbour.
    ABOVE_WINDOW: its predicted energy above the hull is beyond the policy's window.
    """

    TOO_MANY_ATOMS = "too_many_atoms"
    EXCLUDED_ELEMENT = "excluded_element"
    TOO_DENSE = "too_dense"
    TOO_SPARSE = "too_sparse"
    TOO_THIN = "too_thin"
    TOO_LONG = "too_long"
    TOO_CLOSE = "too_close"
    ISOLATED_ATOM = "isolated_atom"
    ABOVE_WINDOW = "above_window"


class Flag(StrEnum):
    """What a reader of the verdict should know; a flag never rejects.

    RADIOACTIVE: it holds an element without a stable isotope.
    F_ELECTRON: it holds an element whose f shell semilocal DFT treats badly.
    DISORDER_SUSPECT: it holds two elements that share sites in experiment.
    MOLECULAR: two of its atoms are as near as in a free molecule.
    CHARGE_UNBALANCED: common oxidation states do not add up to zero.
    IMPLAUSIBLE_PREDICTION: the predicted energies are outside of what crystals have.
    SKEWED_CELL: the cell as given has an extreme angle.
    """

    RADIOACTIVE = "radioactive"
    F_ELECTRON = "f_electron"
    DISORDER_SUSPECT = "disorder_suspect"
    MOLECULAR = "molecular"
    CHARGE_UNBALANCED = "charge_unbalanced"
    IMPLAUSIBLE_PREDICTION = "implausible_prediction"
    SKEWED_CELL = "skewed_cell"


class ScreeningPolicy(BaseModel):
    """What a campaign computes; `screening.yaml` gives the defaults with their reasons."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    max_e_above_hull: float | None
    """Window of predicted energy above the hull, eV/atom; None: no window."""
    max_atoms: int = Field(gt=0)
    min_contact_fraction: float = Field(ge=0.0, lt=1.0)
    """Of the sum of covalent radii."""
    min_volume_per_atom: float = Field(ge=0.0)
    """Cubic Angstrom."""
    max_volume_per_atom: float = Field(gt=0.0)
    """Cubic Angstrom."""
    max_nearest_neighbour: float = Field(gt=0.0)
    """Angstrom."""
    min_cell_height: float = Field(ge=0.0)
    """Angstrom."""
    max_cell_length: float = Field(gt=0.0)
    """Angstrom."""
    flag_angles: tuple[float, float]
    """Degrees."""
    exclude_elements: frozenset[str]
    radioactive_elements: frozenset[str]
    f_electron_elements: frozenset[str]
    similar_elements: tuple[frozenset[str], ...]
    molecules: dict[str, float]
    """Bond length by element, Angstrom."""
    molecule_tolerance: float = Field(ge=0.0, lt=1.0)
    anions: frozenset[str]
    plausible_formation_energy: tuple[float, float]
    """eV/atom."""
    plausible_below_hull: float = Field(gt=0.0)
    """eV/atom."""
    match_near_duplicates: bool
    match_length: float = Field(gt=0.0)
    match_site: float = Field(gt=0.0)
    match_angle: float = Field(gt=0.0)
    """Degrees."""

    @field_validator("exclude_elements", "radioactive_elements", "f_electron_elements", "anions")
    @classmethod
    def _are_elements(cls, symbols: frozenset[str]) -> frozenset[str]:
        if unknown := sorted(symbols - ELEMENTS_AND_ISOTOPES):
            msg = f"not elements: {', '.join(unknown)}"
            raise ValueError(msg)
        return symbols

    @property
    def tolerances(self) -> MatchTolerances | None:
        """Tolerances for near-duplicates, as `DuplicateIndex` takes them; None: exact duplicates only."""
        matched = MatchTolerances(self.match_length, self.match_site, self.match_angle)
        return matched if self.match_near_duplicates else None


@dataclass(frozen=True)
class Rejection:
    """One reason against a crystal."""

    code: RejectionCode
    text: str
    """One clause, with the value and the limit."""


@dataclass(frozen=True)
class ScreeningResult:
    """What screening found: accepted when nothing speaks against the crystal."""

    reasons: tuple[Rejection, ...]
    flags: tuple[Flag, ...]

    @property
    def accepted(self) -> bool:
        """Whether the crystal may be computed."""
        return not self.reasons


class Rank(NamedTuple):
    """Place in the queue; sorts ascending."""

    group: int
    """Number of elements for a reference, so that elements come before compounds; `CANDIDATE_GROUP` for a candidate."""
    e_above_hull: float
    """Predicted, eV/atom; infinite without a prediction, 0 for a reference."""
    n_atoms: int
    """The smaller cell first: it is cheaper."""


CANDIDATE_GROUP: Final = 1000
"""Candidates queue behind references of any number of elements: without references no verdict is possible."""


def default_policy() -> ScreeningPolicy:
    """Return the policy that ships with HullWorks."""
    return ScreeningPolicy.model_validate(_default_fields())


def load_policy(path: str | os.PathLike[str]) -> ScreeningPolicy:
    """Return the default policy with the changes that a YAML file names.

    Raises:
        InputError: The file cannot be read, is not a YAML mapping, names an unknown field, or has a value out of range.
    """
    try:
        changes = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        said = " ".join(str(error).split())
        raise InputError(f"the policy cannot be read: {said}", str(path), "Give a YAML file.") from error
    if not isinstance(changes, dict):
        raise InputError("the policy is no mapping of names to values", str(path), "Write lines such as max_atoms: 40.")
    try:
        return ScreeningPolicy.model_validate({**_default_fields(), **changes})
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, f['loc']))}: {f['msg']}" for f in error.errors(include_url=False))
        known = ", ".join(ScreeningPolicy.model_fields)
        raise InputError(f"the policy is wrong: {faults}", str(path), f"Known fields: {known}.") from error


def screen(
    structure: Structure,
    prediction: Prediction | None = None,
    policy: ScreeningPolicy | None = None,
    *,
    role: Role = Role.CANDIDATE,
) -> ScreeningResult:
    """Judge a crystal and its prediction by a policy; all reasons are given, not the first alone.

    Args:
        structure: An ordered crystal, as intake gives it.
        prediction: What a model said of it.
        policy: By default `default_policy`.
        role: A reference is never refused for its predicted energy.
    """
    policy = policy or default_policy()
    prediction = prediction or Prediction()
    reasons = [*_composition_reasons(structure, policy), *_geometry_reasons(structure, policy)]
    if role is Role.CANDIDATE:
        reasons += _energy_reasons(prediction, policy)
    flags = tuple(flag for flag, holds in _FLAGS.items() if holds(structure, prediction, policy))
    return ScreeningResult(tuple(reasons), flags)


def rank(structure: Structure, prediction: Prediction | None = None, *, role: Role = Role.CANDIDATE) -> Rank:
    """Return a crystal's place in the queue: references, elements first; then by predicted energy, then by size."""
    if role is Role.REFERENCE:
        return Rank(len(structure.composition.elements), 0.0, len(structure))
    predicted = None if prediction is None else prediction.e_above_hull
    return Rank(CANDIDATE_GROUP, math.inf if predicted is None else predicted, len(structure))


def _composition_reasons(structure: Structure, policy: ScreeningPolicy) -> Iterator[Rejection]:
    if len(structure) > policy.max_atoms:
        yield Rejection(RejectionCode.TOO_MANY_ATOMS, f"{len(structure)} atoms (limit {policy.max_atoms})")
    if excluded := sorted(_elements(structure) & policy.exclude_elements):
        yield Rejection(RejectionCode.EXCLUDED_ELEMENT, f"holds {', '.join(excluded)}, which the policy excludes")


def _energy_reasons(prediction: Prediction, policy: ScreeningPolicy) -> Iterator[Rejection]:
    predicted, window = prediction.e_above_hull, policy.max_e_above_hull
    if predicted is not None and window is not None and predicted > window:
        text = f"predicted {predicted:.3f} eV/atom above the hull (window {window} eV/atom)"
        yield Rejection(RejectionCode.ABOVE_WINDOW, text)


def _geometry_reasons(structure: Structure, policy: ScreeningPolicy) -> Iterator[Rejection]:
    yield from _volume_reasons(structure.volume / len(structure), policy)
    yield from _cell_reasons(structure, policy)
    yield from _contact_reasons(structure, policy)


def _volume_reasons(volume: float, policy: ScreeningPolicy) -> Iterator[Rejection]:
    if volume < policy.min_volume_per_atom:
        text = f"{volume:.2f} cubic Angstrom per atom (at least {policy.min_volume_per_atom})"
        yield Rejection(RejectionCode.TOO_DENSE, text)
    if volume > policy.max_volume_per_atom:
        text = f"{volume:.1f} cubic Angstrom per atom (at most {policy.max_volume_per_atom})"
        yield Rejection(RejectionCode.TOO_SPARSE, text)


def _cell_reasons(structure: Structure, policy: ScreeningPolicy) -> Iterator[Rejection]:
    reduced = np.asarray(structure.lattice.get_lll_reduced_lattice().matrix)
    height = float(1.0 / np.linalg.norm(np.linalg.inv(reduced), axis=0).max())
    length = float(np.linalg.norm(reduced, axis=1).max())
    if height < policy.min_cell_height:
        text = f"opposite faces of the cell are {height:.2f} A apart (at least {policy.min_cell_height})"
        yield Rejection(RejectionCode.TOO_THIN, text)
    if length > policy.max_cell_length:
        text = f"the reduced cell is {length:.1f} A long (at most {policy.max_cell_length})"
        yield Rejection(RejectionCode.TOO_LONG, text)


def _contact_reasons(structure: Structure, policy: ScreeningPolicy) -> Iterator[Rejection]:
    distances = contact_distances(structure)
    symbols = [site.specie.symbol for site in structure]
    radii = np.array([default_limits().covalent_radius(symbol) for symbol in symbols])
    fractions = distances / (radii[:, None] + radii[None, :])
    i, j = np.unravel_index(int(fractions.argmin()), fractions.shape)
    if fractions[i, j] < policy.min_contact_fraction:
        text = (
            f"{symbols[i]} and {symbols[j]} are {distances[i, j]:.2f} A apart, {fractions[i, j]:.2f} of the sum of "
            f"their covalent radii (at least {policy.min_contact_fraction})"
        )
        yield Rejection(RejectionCode.TOO_CLOSE, text)
    nearest = distances.min(axis=1)
    if nearest[lone := int(nearest.argmax())] > policy.max_nearest_neighbour:
        text = f"{symbols[lone]} has no neighbour within {nearest[lone]:.1f} A (limit {policy.max_nearest_neighbour})"
        yield Rejection(RejectionCode.ISOLATED_ATOM, text)


def _is_radioactive(structure: Structure, _prediction: Prediction, policy: ScreeningPolicy) -> bool:
    return bool(_elements(structure) & policy.radioactive_elements)


def _has_f_electrons(structure: Structure, _prediction: Prediction, policy: ScreeningPolicy) -> bool:
    return bool(_elements(structure) & policy.f_electron_elements)


def _is_disorder_suspect(structure: Structure, _prediction: Prediction, policy: ScreeningPolicy) -> bool:
    return any(len(_elements(structure) & similar) > 1 for similar in policy.similar_elements)


def _is_molecular(structure: Structure, _prediction: Prediction, policy: ScreeningPolicy) -> bool:
    symbols = np.array([site.specie.symbol for site in structure])
    if not (present := set(symbols.tolist()) & policy.molecules.keys()):
        return False
    distances = contact_distances(structure)
    shortest = {symbol: float(distances[np.ix_(symbols == symbol, symbols == symbol)].min()) for symbol in present}
    return any(shortest[symbol] <= policy.molecules[symbol] * (1.0 + policy.molecule_tolerance) for symbol in present)


def _is_charge_unbalanced(structure: Structure, _prediction: Prediction, policy: ScreeningPolicy) -> bool:
    counts = {symbol: round(amount) for symbol, amount in structure.composition.get_el_amt_dict().items()}
    anion = max(counts, key=_electronegativity)
    if len(counts) == 1 or anion not in policy.anions:
        return False
    divisor = math.gcd(*counts.values())
    sums = {counts.pop(anion) // divisor * min(_states(anion))}
    for symbol, amount in counts.items():
        sums = _sums(sums, _states(symbol), amount // divisor)
    return 0 not in sums


@cache
def _electronegativity(symbol: str) -> float:
    """Return Pauling's value; 0 for the elements without one (light noble gases, superheavy elements)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymatgen warns of each NaN
        value = Element(symbol).X
    return 0.0 if math.isnan(value) else value


def _states(symbol: str) -> set[int]:
    """Return an element's common oxidation states; neutral where none is common (noble gases)."""
    return {int(state) for state in Element(symbol).common_oxidation_states} or {0}


def _sums(start: set[int], states: set[int], count: int) -> set[int]:
    """Return every total of a start and ``count`` free choices among the states."""
    for _ in range(count):
        start = {total + state for total in start for state in states}
    return start


def _is_implausible(_structure: Structure, prediction: Prediction, policy: ScreeningPolicy) -> bool:
    low, high = policy.plausible_formation_energy
    formation, above = prediction.formation_energy, prediction.e_above_hull
    return (formation is not None and not low <= formation <= high) or (
        above is not None and above < -policy.plausible_below_hull
    )


def _is_skewed(structure: Structure, _prediction: Prediction, policy: ScreeningPolicy) -> bool:
    low, high = policy.flag_angles
    return not all(low <= angle <= high for angle in structure.lattice.angles)


_FLAGS: Final[Mapping[Flag, Callable[[Structure, Prediction, ScreeningPolicy], bool]]] = {
    Flag.RADIOACTIVE: _is_radioactive,
    Flag.F_ELECTRON: _has_f_electrons,
    Flag.DISORDER_SUSPECT: _is_disorder_suspect,
    Flag.MOLECULAR: _is_molecular,
    Flag.CHARGE_UNBALANCED: _is_charge_unbalanced,
    Flag.IMPLAUSIBLE_PREDICTION: _is_implausible,
    Flag.SKEWED_CELL: _is_skewed,
}


def _elements(structure: Structure) -> set[str]:
    return {element.symbol for element in structure.composition.elements}


@cache
def _default_fields() -> dict[str, Any]:
    text = resources.files(__package__).joinpath(POLICY_FILE).read_text(encoding="utf-8")
    fields: dict[str, Any] = yaml.safe_load(text)
    return fields
