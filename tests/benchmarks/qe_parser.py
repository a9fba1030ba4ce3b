"""What parsing costs: ``python tests/benchmarks/qe_parser.py [--mb 100] [--repeats 20] [--json FILE]``.

Long outputs are recorded relaxations whose ionic step is repeated; each is parsed in a fresh process, which reports
seconds of processor time and the largest resident memory. Small runs are the recorded ones. What `run_pw` costs around
pw.x is measured with a program in pw.x's place that copies the files of a recorded run. Imports are measured apart.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Callable

RECORDED = Path(__file__).parent.parent
LONG = {
    "vc-relax, 2 atoms, lines between the iterations cut out": "fixtures/qe/converged/6.7-vc_relax",
    "vc-relax, 2 atoms": "workflows/qe/unabridged/7.2/variable_cell",
    "relax, 2 atoms, spin": "workflows/qe/unabridged/6.7/magnetic",
}
STAND_IN = "fixtures/qe/converged/7.2-scf"
STEP_BEGINS = "     NEW-OLD atomic charge density"
STEPS_END = "     bfgs converged"
XML_STEP = re.compile(r"  <step[ >].*?</step>\n", re.DOTALL)
CHILD = """
import json, resource, sys, time
from hullworks.workflows.qe import parse_run
parse_run(sys.argv[2])
start = time.process_time()
run = parse_run(sys.argv[1])
spent = time.process_time() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"steps": run.n_ionic_steps, "outcome": run.outcome, "cpu_s": spent, "peak_MB": peak}))
"""
"""Parses a small run first, so that imports are not counted."""
IMPORTS = """
import time
start = time.process_time()
from hullworks.workflows.qe import parse_run
from hullworks.workflows.qe import run
print(time.process_time() - start)
"""


def read(path: Path) -> str:
    """Return the text of a packed file."""
    return gzip.decompress(path.read_bytes()).decode()


def write_long_run(source: Path, target: Path, megabytes: int, *, with_xml: bool) -> None:
    """Write a run whose output has so many megabytes; its XML file has as many steps."""
    head, mark, tail = read(source / "pw.out.gz").partition(STEP_BEGINS)
    step, end, tail = (mark + tail).partition(STEPS_END)
    count = step.count("\n!") * (repeats := megabytes * 2**20 // len(step.encode()))
    with (target / "pw.out").open("w", encoding="utf-8") as stream:
        stream.write(head)
        for _ in range(repeats):
            stream.write(step)
        stream.write(end + tail)
    if not with_xml:
        return
    xml = read(source / "out" / "pwscf.xml.gz")
    steps = XML_STEP.findall(xml)
    before, after = xml[: xml.index(steps[0])], xml[xml.rindex(steps[-1]) + len(steps[-1]) :]
    with (target / "pwscf.xml").open("w", encoding="utf-8") as stream:
        stream.write(before + steps[0])
        for _ in range(count // (len(steps) - 1)):
            stream.write("".join(steps[1:]))
        stream.write(after)


def measure_long(name: str, source: Path, megabytes: int, *, with_xml: bool) -> dict[str, Any]:
    """Parse a long run in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        write_long_run(source, Path(folder), megabytes, with_xml=with_xml)
        sizes = {path.name: path.stat().st_size / 2**20 for path in Path(folder).iterdir()}
        arguments = [sys.executable, "-c", CHILD, folder, str(RECORDED / STAND_IN)]
        answer = subprocess.run(arguments, capture_output=True, text=True, check=True)
    return {"name": name, "xml_MB": sizes.get("pwscf.xml", 0.0), "MB": sizes["pw.out"], **json.loads(answer.stdout)}


def small_runs() -> list[Path]:
    """Return the recorded runs whose outcome their files alone tell, and the unabridged ones."""
    told = yaml.safe_load((RECORDED / "fixtures" / "qe" / "outcomes.yaml").read_text(encoding="utf-8"))["recorded"]
    short = [path for name in told for path in RECORDED.glob(f"fixtures/qe/*/*-{name}")]
    return sorted([*short, *RECORDED.glob("workflows/qe/unabridged/*/*")])


def measure_small(repeats: int) -> dict[str, Any]:
    """Parse every recorded run some times; milliseconds of processor time."""
    from hullworks.workflows.qe import parse_run

    folders = small_runs()
    for folder in folders:
        parse_run(folder)
    spent = {"/".join(folder.parts[-2:]): _mean_ms(partial(parse_run, folder), repeats) for folder in folders}
    slowest = max(spent, key=lambda name: spent[name])
    return {
        "runs": len(folders),
        "mean_ms": statistics.mean(spent.values()),
        "largest_ms": spent[slowest],
        "slowest": slowest,
    }


def _mean_ms(action: Callable[[], object], repeats: int) -> float:
    start = time.process_time()
    for _ in range(repeats):
        action()
    return 1000.0 * (time.process_time() - start) / repeats


def measure_run(repeats: int) -> dict[str, Any]:
    """Run a program in pw.x's place under `run_pw`; milliseconds of processor time apart from that program's."""
    from hullworks.workflows.qe.executable import PwCommand
    from hullworks.workflows.qe.inputs import build_pw_input
    from hullworks.workflows.qe.parser import parse_run
    from hullworks.workflows.qe.protocols import load_protocol
    from hullworks.workflows.qe.pseudos import load_family
    from hullworks.workflows.qe.run import run_pw

    family = load_family("gth-pbe")
    structure = parse_run(RECORDED / STAND_IN).structure
    assert structure is not None
    asked = build_pw_input("scf", structure, load_protocol("fast"), family)
    with tempfile.TemporaryDirectory() as folder:
        command = PwCommand(("/bin/sh", str(write_stand_in(Path(folder))), str(family.name)), "benchmark")

        def start() -> None:
            subprocess.run(command.with_input("pw.in"), cwd=folder, check=True, stdout=subprocess.DEVNULL)

        def drive() -> None:
            with tempfile.TemporaryDirectory(dir=folder) as target:
                assert run_pw(Path(target), asked, family=family, command=command).run.succeeded

        drive()
        alone, driven = _both_ms(start, repeats), _both_ms(drive, repeats)
    return {
        "worker_ms": driven["self"],
        "supervisor_ms": driven["children"] - alone["children"],
        "stand_in_ms": alone["children"],
    }


def write_stand_in(folder: Path) -> Path:
    """Write a script that leaves the files of a recorded run, and return its path."""
    source = RECORDED / STAND_IN
    output = re.sub(r"\./pseudo/\S+", "PSEUDO", read(source / "pw.out.gz"))
    (folder / "recorded.out").write_text(output, encoding="utf-8")
    (folder / "recorded.xml").write_text(read(source / "out" / "pwscf.xml.gz"), encoding="utf-8")
    script = folder / "stand_in.sh"
    script.write_text(
        f"mkdir -p out\ncp {folder}/recorded.xml out/pwscf.xml\n"
        f"pseudo=$(sed -n \"s/.*pseudo_dir *= *'\\(.*\\)'.*/\\1/p\" pw.in 2> /dev/null)\n"
        f'sed "s|PSEUDO|${{pseudo%/}}/Si.upf|" {folder}/recorded.out\n',
        encoding="utf-8",
    )
    return script


def _both_ms(action: Callable[[], object], repeats: int) -> dict[str, float]:
    kinds = {"self": resource.RUSAGE_SELF, "children": resource.RUSAGE_CHILDREN}
    before = {name: resource.getrusage(kind) for name, kind in kinds.items()}
    for _ in range(repeats):
        action()
    after = {name: resource.getrusage(kind) for name, kind in kinds.items()}
    return {
        name: 1000.0 * (after[name].ru_utime + after[name].ru_stime - used.ru_utime - used.ru_stime) / repeats
        for name, used in before.items()
    }


def measure_imports() -> float:
    """Return the seconds of processor time to import the parser and `run_pw` in a fresh process."""
    answer = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True)
    return float(answer.stdout)


def table(results: dict[str, Any]) -> str:
    """Return the results as lines of text."""
    rows = [f"{'output':58} {'MB':>5} {'XML MB':>6} {'steps':>6} {'CPU s':>6} {'peak MB':>7}"]
    rows += [
        f"{one['name']:58} {one['MB']:5.0f} {one['xml_MB']:6.0f} {one['steps']:6} {one['cpu_s']:6.2f} "
        f"{one['peak_MB']:7.0f}"
        for one in results["long"]
    ]
    small, run = results["small"], results["run_pw"]
    mean, largest, worker, between = small["mean_ms"], small["largest_ms"], run["worker_ms"], run["supervisor_ms"]
    rows.append(f"{small['runs']} small runs: {mean:.1f} ms each, at most {largest:.1f} ms ({small['slowest']})")
    rows.append(f"run_pw: {worker:.0f} ms in the worker, {between:.0f} ms in the process between it and pw.x")
    rows.append(f"imports, once for each process: {results['imports_s']:.2f} s")
    return "\n".join(rows)


def main() -> None:
    """Measure everything, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=100, help="megabytes of a long output")
    parser.add_argument("--repeats", type=int, default=20, help="repetitions of what is short")
    parser.add_argument("--json", type=Path, help="where to write the results")
    asked = parser.parse_args()
    results = {
        "long": [
            measure_long(name, RECORDED / source, asked.mb, with_xml=with_xml)
            for name, source in LONG.items()
            for with_xml in (False, True)
        ],
        "small": measure_small(asked.repeats),
        "run_pw": measure_run(asked.repeats),
        "imports_s": measure_imports(),
    }
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(table(results) + "\n")


if __name__ == "__main__":
    main()
