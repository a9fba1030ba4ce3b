"""Doctor's look at the DFT codes: pw.x by a real calculation, MPI, VASP by its settings alone, pseudopotentials."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hullworks.errors import HullWorksError
from hullworks.launchers.services.findings import Answer, Part, PartState, ask, found_version
from hullworks.workflows.qe.executable import PwCommand, pw_command, pw_environment
from hullworks.workflows.qe.pseudos import EMBEDDED_FAMILY, load_family

if TYPE_CHECKING:
    from hullworks.settings import Settings
    from hullworks.workflows.qe.pseudos import Family

PW_WAIT_S = 30.0
QUESTION_WAIT_S = 8.0
MPI_LAUNCHERS: Final = ("mpirun", "mpiexec", "orterun", "mpiexec.hydra")
QUEUE_LAUNCHERS: Final = ("srun", "ibrun", "jsrun", "aprun")
"""Outside an allocation they wait in the queue, or refuse."""
GET_PW = "hullworks doctor --fetch, or set [qe] command"

TRIAL_INPUT = """\
&CONTROL
  calculation = 'scf'
  pseudo_dir = './'
  outdir = './out'
/
&SYSTEM
  ibrav = 2
  celldm(1) = 10.3
  nat = 2
  ntyp = 1
  ecutwfc = 12.0
/
&ELECTRONS
  conv_thr = 1.0d-8
/
ATOMIC_SPECIES
Si 28.085 {pseudo}
ATOMIC_POSITIONS alat
Si 0.00 0.00 0.00
Si 0.25 0.25 0.25
K_POINTS gamma
"""
"""Silicon, far too coarse for anything but to see that the program calculates."""
TRIAL_ENERGY_Ry = -14.450929
"""As pw.x 6.7 and 7.2 give it, with the embedded pseudopotential."""
TRIAL_TOLERANCE_Ry = 1e-4


def check_pw(settings: Settings) -> list[Part]:
    """Run the pw.x that batches would run, on a calculation whose energy is known."""
    try:
        command = pw_command(settings)
    except HullWorksError as error:
        state = PartState.BROKEN if settings.qe.command else PartState.MISSING
        return [Part(name="pw.x", state=state, detail=error.what, where=error.where, how_to_get=GET_PW)]
    found = Part(name="pw.x", state=PartState.WORKS, where=f"{shlex.join(command.argv)} ({command.source})")
    launcher = Path(command.argv[0]).name
    if launcher in QUEUE_LAUNCHERS:
        return [replace(found, detail=f"Not tried: {launcher} starts it inside an allocation only.")]
    started = time.monotonic()
    answer = run_trial(command)
    return [_judged(found, answer, time.monotonic() - started)]


def run_trial(command: PwCommand) -> Answer:
    """Run the trial calculation in a folder that is deleted afterwards."""
    with tempfile.TemporaryDirectory(prefix="hullworks-") as folder:
        pseudo = load_family(EMBEDDED_FAMILY).install(["Si"], folder)["Si"]
        (Path(folder) / "pw.in").write_text(TRIAL_INPUT.format(pseudo=pseudo), encoding="ascii")
        return ask(command.with_input("pw.in"), PW_WAIT_S, environment=pw_environment(), folder=folder)


def check_mpi(settings: Settings) -> list[Part]:
    """Say whether the MPI launcher is there that the settings' commands begin with."""
    used = [name for name in map(_launcher, (settings.qe.command, settings.vasp.command)) if name in MPI_LAUNCHERS]
    name = used[0] if used else MPI_LAUNCHERS[0]
    path = shutil.which(name)
    if path is None:
        state = PartState.MISSING if used else PartState.OPTIONAL_MISSING
        return [Part(name="MPI", state=state, how_to_get="Install Open MPI, or load your site's module.")]
    answer = ask([path, "--version"], QUESTION_WAIT_S)
    version = found_version(r"(\d+(?:\.\d+)+)", answer)
    state = PartState.WORKS if answer.status == 0 else PartState.BROKEN
    detail = "" if used else "The settings' commands do not use it."
    return [Part(name="MPI", state=state, version=version, where=path, detail=detail)]


def check_vasp(settings: Settings) -> list[Part]:
    """Say whether VASP's command and POTCAR files are set up; neither is run or read."""
    return [_vasp(settings.vasp.command), _potcar()]


def check_families(settings: Settings) -> list[Part]:
    """Load the embedded pseudopotential family and the user's own."""
    families = {EMBEDDED_FAMILY: None, **settings.qe.pseudo_families}
    return [_family(name, folder) for name, folder in families.items()]


def _judged(found: Part, answer: Answer, seconds: float) -> Part:
    energy = re.search(r"^!\s+total energy\s+=\s+(\S+) Ry", answer.output, re.MULTILINE)
    found = replace(found, version=found_version(r"Program PWSCF v\.?(\S+)", answer))
    if answer.status != 0 or energy is None or "JOB DONE" not in answer.output:
        return replace(found, state=PartState.BROKEN, detail=_pw_complaint(answer), how_to_get=GET_PW)
    if abs(float(energy[1]) - TRIAL_ENERGY_Ry) > TRIAL_TOLERANCE_Ry:
        detail = f"It gives {energy[1]} Ry for a trial calculation instead of {TRIAL_ENERGY_Ry:.6f} Ry."
        return replace(found, state=PartState.BROKEN, detail=detail, how_to_get=GET_PW)
    return replace(found, detail=f"A trial calculation took {seconds:.1f} s and gave the right energy.")


def _pw_complaint(answer: Answer) -> str:
    if answer.status is None:
        return answer.output
    message = re.search(r"Error in routine.*\n\s*(.*)", answer.output)
    return f"A trial calculation failed (exit status {answer.status}): {message[1] if message else answer.first_line}"


def _launcher(command: str | None) -> str:
    words = (command or "").split()
    return Path(words[0]).name if words else ""


def _vasp(command: str | None) -> Part:
    found = Part(name="VASP", state=PartState.OPTIONAL_MISSING, how_to_get="Set [vasp] command to your vasp_std.")
    if not command:
        return found
    words = command.split()
    programs = {words[0], next((word for word in words if "vasp" in word.lower()), words[0])}
    lost = sorted(program for program in programs if shutil.which(program) is None)
    if lost:
        detail = f"There is no program {' and no '.join(lost)} on this machine."
        return replace(found, state=PartState.BROKEN, where=command, detail=detail)
    return replace(found, state=PartState.WORKS, where=command, detail="Not run.", how_to_get="")


def _potcar() -> Part:
    found = Part(name="POTCAR files", state=PartState.OPTIONAL_MISSING, detail="PMG_VASP_PSP_DIR is not set.")
    cure = "pmg config --add PMG_VASP_PSP_DIR <folder of your licensed POTCAR files>"
    folder = os.environ.get("PMG_VASP_PSP_DIR") or _pymatgen_setting("PMG_VASP_PSP_DIR")
    if not folder:
        return replace(found, how_to_get=cure)
    if not Path(folder).is_dir():
        return replace(found, state=PartState.BROKEN, detail="PMG_VASP_PSP_DIR is no folder.", how_to_get=cure)
    return replace(found, state=PartState.WORKS, detail="PMG_VASP_PSP_DIR is set.")


def _pymatgen_setting(name: str) -> str:
    """Return a setting from pymatgen's own files, without importing pymatgen (1 s)."""
    import yaml

    for path in (Path.home() / ".config" / ".pmgrc.yaml", Path.home() / ".pmgrc.yaml"):
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            continue
        if isinstance(values, dict) and values.get(name):
            return str(values[name])
    return ""


def _family(name: str, folder: Path | None) -> Part:
    found = Part(
        name=f"pseudopotentials {name}", state=PartState.WORKS, where="embedded" if folder is None else str(folder)
    )
    try:
        family = load_family(name) if folder is None else load_family(folder, name=name)
    except HullWorksError as error:
        return replace(found, state=PartState.BROKEN, detail=error.what, how_to_get=error.next_step)
    state = PartState.WORKS if family.pseudos else PartState.BROKEN
    return replace(found, state=state, version=family.functional, detail=_summary(family))


def _summary(family: Family) -> str:
    bare = [pseudo.element for pseudo in family.pseudos if pseudo.ecutwfc_Ry is None]
    parts = [f"{len(family.pseudos)} elements"]
    if bare:
        parts.append(f"{len(bare)} without a recorded cutoff")
    if family.absent:
        parts.append(f"files missing for {', '.join(element for element, _ in family.absent)}")
    return "; ".join(parts) + "."
