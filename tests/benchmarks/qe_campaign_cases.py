"""The cases of the recovery campaign as `qe_campaign.yaml` describes them: starts, settings, faults, right answers."""

from __future__ import annotations

import hashlib
import random
import shlex
import shutil
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import yaml
from pymatgen.core import Lattice, Structure
from qe_campaign_faults import script

from hullworks.settings import get_settings
from hullworks.workflows.qe.executable import PwCommand, embedded_python
from hullworks.workflows.qe.inputs import Calculation, PwInput, Species
from hullworks.workflows.qe.kpoints import KMesh
from hullworks.workflows.qe.protocols import Protocol, load_protocol
from hullworks.workflows.qe.pseudos import Family, load_family

if TYPE_CHECKING:
    from collections.abc import Mapping

TABLE: Final = Path(__file__).with_name("qe_campaign.yaml")
SYSTEM_VERSION: Final = "6.7"


@dataclass(frozen=True)
class Case:
    """One deliberately difficult relaxation, or the undisturbed one that it is compared with.

    Attributes:
        name: Its name, unique.
        system: The crystal, as the table of systems names it.
        category: What is difficult about it.
        version: Version of pw.x.
        start: How the healthy start is disturbed: ``scale``, ``shear``, ``move_A``, ``seed``, ``positions``.
        settings: Settings of pw.x, by ``namelist__key``.
        physics: Those of the settings that change the right answer, so that the undisturbed run has them too.
        faults: What goes wrong around pw.x; see `qe_campaign_faults`.
        arguments: Further arguments of pw.x.
        before: Program and arguments before pw.x, such as ``mpirun -np 1``.
        environment: Variables; ``{scratch}`` stands for a folder beside that of the case.
        disk_kB: Size of the file system that the case runs on; 0 for an ordinary one.
        causes: Outcomes of which one is the right end; empty when the right end is the undisturbed answer.
        aiida_codes: Exit codes of the peer that name the right cause.
    """

    name: str
    system: str
    category: str
    version: str = "7.2"
    start: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    physics: tuple[str, ...] = ()
    faults: tuple[Mapping[str, Any], ...] = ()
    arguments: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    disk_kB: int = 0
    causes: tuple[str, ...] = ()
    aiida_codes: tuple[int, ...] = ()

    @property
    def recoverable(self) -> bool:
        """Whether the right end is a result."""
        return not self.causes

    @property
    def reference(self) -> Case:
        """The undisturbed run that gives the right answer."""
        settings = {name: value for name, value in self.settings.items() if name in self.physics}
        version = self.version.replace(".", "")
        told = "-".join(f"{name.split('__')[1]}={value}" for name, value in settings.items())
        name = "-".join(["reference", self.system, version, *([told] if told else [])])
        return Case(name, self.system, "reference", self.version, settings=settings)

    @property
    def key(self) -> str:
        """A hash that changes with what the case is, down to the numbers of its system and of the campaign."""
        told = [repr(self), repr(campaign()["systems"][self.system]), repr(campaign()["protocol"])]
        return hashlib.sha256("\n".join(told).encode()).hexdigest()[:10]

    def structure(self) -> Structure:
        """Return the cell that the case starts from."""
        known = campaign()["systems"][self.system]
        healthy = Structure(Lattice(known["lattice_A"]), known["species"], known["positions"])
        return disturbed(healthy, self.start)

    def pw_input(self) -> PwInput:
        """Return what pw.x is asked; nothing is checked, as the structure may be one that no check lets through."""
        known, structure = campaign()["systems"][self.system], self.structure()
        elements = sorted(set(known["species"]))
        found = [family().pseudo(element) for element in elements]
        asked = PwInput(
            calculation=cast("Calculation", known.get("calculation", "vc-relax")),
            structure=structure,
            protocol=protocol(),
            species=tuple(Species(pseudo.element, pseudo.filename, pseudo.z_valence) for pseudo in found),
            ecutwfc_Ry=float(known["ecutwfc_Ry"]),
            ecutrho_Ry=4.0 * known["ecutwfc_Ry"],
            mesh=KMesh(tuple(known["mesh"]), tuple(known["shift"])),
        )
        for name, value in {**known.get("settings", {}), **self.settings}.items():
            namelist, key = name.split("__")
            asked = asked.with_setting(namelist, key, value)
        return asked

    def command(self) -> PwCommand:
        """Return how pw.x is started, with the case's faults around it."""
        around = ("sh", "-c", script(self.name, self.faults), "sh") if self.faults else ()
        return PwCommand((*around, *self.before, *pw_x(self.version), *self.arguments), "campaign")


def disturbed(healthy: Structure, start: Mapping[str, Any]) -> Structure:
    """Return a structure with its cell scaled and sheared and its atoms moved, each as far as ``start`` says."""
    chance = random.Random(start.get("seed", 1))
    shear = float(start.get("shear", 0.0))
    strain = np.zeros((3, 3))
    for i, j in ((0, 1), (0, 2), (1, 2)):
        strain[i, j] = strain[j, i] = chance.choice((-1.0, 1.0)) * shear / 2.0
    matrix = healthy.lattice.matrix @ (np.eye(3) + strain) * float(start.get("scale", 1.0))
    result = Structure(Lattice(matrix), healthy.species, start.get("positions", healthy.frac_coords))
    for index in range(len(result)):
        direction = np.array([chance.gauss(0.0, 1.0) for _ in range(3)])
        shift = float(start.get("move_A", 0.0)) * direction / np.linalg.norm(direction)
        result.translate_sites([index], shift, frac_coords=False)
    return result


def cases() -> list[Case]:
    """Return all cases of the campaign in the order of the file."""
    return [_case(category, item) for category, group in campaign()["cases"].items() for item in group]


def case(name: str) -> Case:
    """Return a case, or the reference of one, by its name."""
    every = cases()
    known = {item.name: item for item in (*every, *(one.reference for one in every))}
    return known[name]


def _case(category: str, item: Mapping[str, Any]) -> Case:
    lists = {"physics", "faults", "arguments", "before", "causes", "aiida_codes"}
    plain: dict[str, Any] = {name: tuple(value) if name in lists else value for name, value in item.items()}
    return Case(**{**plain, "category": category, "version": str(plain.get("version", "7.2"))})


@cache
def campaign() -> dict[str, Any]:
    """Return the whole file."""
    table: dict[str, Any] = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    return table


@cache
def family() -> Family:
    """Return the pseudopotentials of the campaign."""
    return load_family("gth-pbe")


def protocol() -> Protocol:
    """Return the accuracy of the campaign: the product's own for first answers, made cheap."""
    return replace(load_protocol("fast"), **campaign()["protocol"])


def pw_x(version: str) -> list[str]:
    """Return how to start pw.x of a version.

    Raises:
        LookupError: It is not on this machine.
    """
    if version == SYSTEM_VERSION:
        found = shutil.which("pw.x")
        if found is None:
            raise LookupError("pw.x 6.7 is not on the path: apt-get install quantum-espresso on Debian 12")
        return [found]
    python = embedded_python(get_settings().parts_dir)
    if not python.is_file():
        raise LookupError(f"pw.x 7.2 is not at {shlex.quote(str(python))}: hullworks doctor --fetch")
    return [str(python), "-m", "qepy", "--pw.x"]
