"""Makes the recorded runs beside this file anew: ``python record.py 7.2 --others FOLDER -- pw.x`` for each pw.x.

Norm-conserving pseudopotentials are the product's own. Two runs need files of other kinds, which are taken from
``--others`` (the ultrasoft Fe.pbe-nd-rrkjus.UPF and the LDA Si.pz-vbc.UPF of Quantum ESPRESSO's example set). Nothing
but the input, the packed output and XML, standard error and CRASH is kept; the list of symmetries is cut out of the
XML, and most band energies, the clocks and the name of the machine out of the rest.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hullworks.workflows.qe.pseudos import load_family

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HERE = Path(__file__).parent
FIXED = "occupations='fixed'"
SMEARED = "occupations='smearing', smearing='mv', degauss=0.02"
FCC = ((0.0, 0.5, 0.5), (0.5, 0.0, 0.5), (0.5, 0.5, 0.0))
CUBIC = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
STEPS_BEFORE_STOP = 2
"""So many steps a slow run makes before it is stopped from outside."""
BANDS_KEPT = frozenset({"scf", "metal", "spin"})
"""The runs that keep their band energies, for the tests of gaps."""
XML_LEFT = frozenset({
    "restart_corrupt_bfgs", "restart_other_nat", "cell_factor", "exit_file", "pseudo_wrong_element", "atoms_overlap",
    "scf_not_converged", "sigkill",
})  # fmt: skip
"""The runs whose XML is not kept: what they show is in the output."""


@dataclass(frozen=True)
class Case:
    """One run: what its input says, and what happens to it."""

    calculation: str = "scf"
    a: float = 5.4
    cell: Sequence[Sequence[float]] = FCC
    atoms: Sequence[tuple[str, float, float, float]] = (("Si", 0, 0, 0), ("Si", 0.25, 0.25, 0.25))
    pseudo: str = "Si.UPF"
    ecutwfc: float = 16
    k: str = "2 2 2 0 0 0"
    control: str = ""
    system: str = FIXED
    electrons: str = "conv_thr=1d-8"
    cell_keys: str = ""
    species: str = ""
    after: str = ""
    prepare: Callable[[Path], object] = bool
    stop: Callable[[subprocess.Popen[bytes], Path], object] | None = None
    environment: tuple[tuple[str, str], ...] = ()


def text_of(case: Case) -> str:
    """Return the input file of a case."""
    labels = list(dict.fromkeys(atom[0] for atom in case.atoms))
    species = case.species or "".join(f"{label} 28.0855 {case.pseudo}\n" for label in labels)
    relaxes = case.calculation != "scf"
    return (
        f"&CONTROL\n  calculation='{case.calculation}', outdir='./out', pseudo_dir='./pseudo'\n"
        f"  tprnfor=.true., tstress=.true.\n  {case.control}\n/\n"
        f"&SYSTEM\n  ibrav=0, nat={len(case.atoms)}, ntyp={species.count(chr(10))}, ecutwfc={case.ecutwfc}\n"
        f"  {case.system}\n/\n&ELECTRONS\n  {case.electrons}\n/\n"
        + ("&IONS\n/\n" if relaxes else "")
        + (f"&CELL\n  {case.cell_keys}\n/\n" if case.calculation == "vc-relax" else "")
        + f"ATOMIC_SPECIES\n{species}K_POINTS automatic\n{case.k}\nCELL_PARAMETERS angstrom\n"
        + "".join(" ".join(f"{case.a * x:.10f}" for x in row) + "\n" for row in case.cell)
        + "ATOMIC_POSITIONS crystal\n"
        + "".join(f"{label} {x:.10f} {y:.10f} {z:.10f}\n" for label, x, y, z in case.atoms)
    )


def cut(name: str, size: int) -> Callable[[Path], object]:
    """Return what cuts a file of an earlier run to its first bytes."""

    def prepare(folder: Path) -> None:
        (folder / "out" / "pwscf.xml").unlink(missing_ok=True)
        path = folder / "out" / name
        path.write_bytes(path.read_bytes()[:size])

    return prepare


def without_xml(folder: Path) -> None:
    """Remove the XML file that an earlier run wrote at its end."""
    (folder / "out" / "pwscf.xml").unlink()


def wait_for_steps(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait until a run is in the middle of its work."""
    while process.poll() is None and (folder / "pw.out").read_bytes().count(b"\n!") < STEPS_BEFORE_STOP:
        time.sleep(0.05)


def kill(process: subprocess.Popen[bytes], folder: Path) -> None:
    """End a run in the middle."""
    wait_for_steps(process, folder)
    process.send_signal(signal.SIGKILL)


def ask_to_stop(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Ask a run to stop."""
    wait_for_steps(process, folder)
    (folder / "pwscf.EXIT").touch()


def ask_before_start(folder: Path) -> None:
    """Leave a request to stop behind."""
    (folder / "pwscf.EXIT").touch()


STRAINED = (("Si", 0.0, 0.0, 0.0), ("Si", 0.26, 0.25, 0.25))
SLOW = {"calculation": "vc-relax", "a": 5.2, "atoms": STRAINED, "ecutwfc": 50.0, "k": "2 2 2 1 1 1"}
UNBUFFERED = (("GFORTRAN_UNBUFFERED_ALL", "1"),)
IRON = "Fe 55.845 Fe.pbe-nd-rrkjus.UPF\n"
HCP = ((1.0, 0.0, 0.0), (-0.5, 0.75**0.5, 0.0), (0.0, 0.0, 1.62))

CASES = {
    "scf": Case(system="occupations='fixed', nbnd=6"),
    "relax": Case("relax", atoms=(("Si", 0, 0, 0), ("Si", 0.27, 0.25, 0.24))),
    "vc_relax": Case("vc-relax", a=5.3, atoms=STRAINED),
    "vc_relax_far": Case("vc-relax", a=4.6),
    "metal": Case(
        atoms=(("Mg", 1 / 3, 2 / 3, 0.25), ("Mg", 2 / 3, 1 / 3, 0.75)),
        cell=HCP, a=3.2, pseudo="Mg.UPF", system=SMEARED, k="3 3 2 0 0 0",
    ),
    "spin": Case(
        atoms=(("Fe", 0, 0, 0),), a=2.86, cell=((-0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.5, 0.5, -0.5)), species=IRON,
        ecutwfc=20, k="4 4 4 0 0 0", electrons="conv_thr=1d-6",
        system=f"{SMEARED}, ecutrho=160, nspin=2, starting_magnetization(1)=0.4",
    ),
    "scf_not_converged": Case(electrons="conv_thr=1d-10, electron_maxstep=3"),
    "scf_claimed": Case(
        "vc-relax", a=5.3, control="nstep=4", electrons="conv_thr=1d-8, electron_maxstep=3, scf_must_converge=.false."
    ),
    "nstep_exhausted": Case("vc-relax", a=5.1, control="nstep=2"),
    "max_seconds": Case(**SLOW, control="max_seconds=6"),  # type: ignore[arg-type]
    "exit_file": Case(**SLOW, stop=ask_to_stop, environment=UNBUFFERED),  # type: ignore[arg-type]
    "exit_file_at_start": Case(prepare=ask_before_start),
    "sigkill": Case(**SLOW, stop=kill, environment=UNBUFFERED),  # type: ignore[arg-type]
    "pseudo_missing": Case(pseudo="Nope.UPF"),
    "pseudo_truncated": Case(pseudo="Truncated.UPF"),
    "pseudo_garbage": Case(pseudo="Garbage.UPF"),
    "pseudo_mixed_functional": Case(
        species="Si 28.0855 Si.UPF\nSi2 28.0855 Si.pz-vbc.UPF\n",
        atoms=(("Si", 0, 0, 0), ("Si2", 0.25, 0.25, 0.25)),
    ),
    "pseudo_wrong_element": Case(pseudo="Ge.UPF"),
    "too_few_bands": Case(system="occupations='fixed', nbnd=2"),
    "smearing_needed": Case(system="occupations='fixed', tot_charge=1"),
    "bad_namelist": Case(control="tprnfro=.true."),
    "cell_singular": Case(cell=(FCC[0], FCC[0], FCC[2])),
    "atoms_same": Case(atoms=(("Si", 0, 0, 0), ("Si", 0, 0, 0))),
    "atoms_overlap": Case(atoms=(("Si", 0, 0, 0), ("Si", 0.05, 0.05, 0.05))),
    "s_matrix": Case(
        atoms=(("Fe", 0, 0, 0), ("Fe", 0.1, 0.1, 0.1)), a=3, cell=CUBIC, species=IRON, ecutwfc=20,
        k="1 1 1 0 0 0", system=f"{SMEARED}, ecutrho=160", environment=UNBUFFERED,
    ),
    "cell_factor": Case("vc-relax", a=7.5, cell_keys="cell_factor=1.05"),
    "bfgs_gave_up": Case(
        "relax", atoms=(("Si", 0, 0, 0), ("Si", 0.26, 0.25, 0.245)), electrons="conv_thr=1d-4", ecutwfc=12,
        k="2 2 2 1 1 1", control="etot_conv_thr=1d-8, forc_conv_thr=1d-6, nstep=18",
    ),
    "stale_xml": Case(electrons="conv_thr=1d-10, electron_maxstep=3", after="scf"),
    "restart": Case("vc-relax", a=5.1, control="restart_mode='restart'", after="nstep_exhausted"),
    "restart_corrupt_xml": Case(
        "vc-relax", a=5.1, control="restart_mode='restart'", after="nstep_exhausted",
        prepare=cut("pwscf.save/data-file-schema.xml", 3000),
    ),
    "restart_corrupt_bfgs": Case(
        "vc-relax", a=5.1, control="restart_mode='restart'", after="nstep_exhausted", prepare=cut("pwscf.bfgs", 900)
    ),
    "restart_other_nat": Case(
        "vc-relax", a=5.1, control="restart_mode='restart'", after="nstep_exhausted", prepare=without_xml,
        atoms=(("Si", 0, 0, 0),),
    ),
}  # fmt: skip


def run(command: Sequence[str], case: Case, folder: Path, before: Path) -> int:
    """Run one case in a folder."""
    if case.after:
        shutil.copytree(before / case.after / "out", folder / "out")
    (folder / "pw.in").write_text(text_of(case), encoding="utf-8")
    case.prepare(folder)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **dict(case.environment)}
    with (folder / "pw.out").open("wb") as out, (folder / "pw.err").open("wb") as err:
        process = subprocess.Popen([*command, "-i", "pw.in"], cwd=folder, stdout=out, stderr=err, env=environment)
        if case.stop is not None:
            case.stop(process, folder)
        return process.wait(timeout=300)


def clean(text: bytes) -> bytes:
    """Cut out what is long and says nothing, or names the machine."""
    text = re.sub(rb"<symmetry>.*</symmetry>", b"", text, flags=re.DOTALL)
    text = re.sub(rb"<partial .*</partial>", b"", text, flags=re.DOTALL)
    text = re.sub(rb"\n +k\( *\d+\) = \(.*", b"", text)
    text = re.sub(rb"\n +(?!PWSCF)[\w:]+ +:.*CPU.*WALL.*", b"", text)
    text = re.sub(
        rb"\n +(total cpu time|ethr =|Davidson|negative rho|(one-electron|hartree|xc|ewald) contr).*", b"", text
    )
    text = re.sub(rb"\[[\w.-]+:\d+\] ", b"[node:1] ", text)
    text = re.sub(rb"\n +\d+ MiB available memory.*", b"", text)
    return re.sub(rb"(?<![\w.])/\S*/([\w.-]+\.UPF)", rb"./pseudo/\1", text)


def keep(folder: Path, target: Path, status: int) -> None:
    """Copy what tells about a run, the long files packed."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    whole = folder / "out" / "pwscf.xml"
    xml = whole if whole.exists() else folder / "out" / "pwscf.save" / "data-file-schema.xml"
    for path in (folder / "pw.in", folder / "pw.err", folder / "CRASH", folder / "pw.out", xml):
        if not path.exists() or (path is xml and target.name in XML_LEFT):
            continue
        name = target / path.relative_to(folder)
        name.parent.mkdir(parents=True, exist_ok=True)
        content = clean(path.read_bytes())
        if target.name not in BANDS_KEPT:
            content = re.sub(rb"<ks_energies>.*</ks_energies>", b"", content, flags=re.DOTALL)
            content = re.sub(rb"\n +k =.*bands \(ev\):\s+[\d.\s-]+(?=\n)", b"", content)
        if path.suffix in {".out", ".xml"}:
            name.with_name(name.name + ".gz").write_bytes(gzip.compress(content, mtime=0))
        else:
            name.write_bytes(content)
    (target / "status.json").write_text(json.dumps({"exit_status": status}) + "\n", encoding="utf-8")


def install_pseudos(folder: Path, others: Path) -> None:
    """Put the pseudopotentials of all cases into a folder, damaged ones too."""
    folder.mkdir()
    for element, name in load_family("gth-pbe").install(["Si", "Mg", "Ge"], folder).items():
        (folder / name).rename(folder / f"{element}.UPF")
    content = (folder / "Si.UPF").read_bytes()
    (folder / "Truncated.UPF").write_bytes(content[: len(content) // 2])
    (folder / "Garbage.UPF").write_text("no pseudopotential\n" * 20, encoding="utf-8")
    for name in ("Fe.pbe-nd-rrkjus.UPF", "Si.pz-vbc.UPF"):
        shutil.copy(others / name, folder / name)


def main() -> None:
    """Record the cases named on the command line, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("version", help="folder beside this file")
    parser.add_argument("command", nargs="+", help="how to start pw.x")
    parser.add_argument("--others", type=Path, required=True, help="folder with the files of other kinds")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        install_pseudos(Path(scratch) / "pseudo", arguments.others)
        for name, case in CASES.items():
            folder = Path(scratch) / name
            folder.mkdir()
            (folder / "pseudo").symlink_to(Path(scratch) / "pseudo")
            status = run(arguments.command, case, folder, Path(scratch))
            keep(folder, HERE / arguments.version / name, status)
            print(name, status, flush=True)  # noqa: T201 - a tool's progress


if __name__ == "__main__":
    main()
