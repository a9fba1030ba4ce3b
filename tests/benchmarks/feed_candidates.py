"""What it costs to put candidates on the LaunchPad: HullWorks' feeder, and atomate2's maker with ``add_wf``.

    python tests/benchmarks/feed_candidates.py [--candidates 1000] [--peer-python PYTHON] [--json FILE]

Both write the same crystals of eight atoms to a private MongoDB. HullWorks' share goes from a queued candidate in the
database to its stored workflow of four steps (relax, relax, static, land); the peer's from a structure in memory to its
stored workflow of three (``MPGGADoubleRelaxStaticMaker``, ``flow_to_workflow``, ``LaunchPad.add_wf``). The peer runs in
an environment of its own that has atomate2, since HullWorks does not need it. CPU is that of the process, without
MongoDB's.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Lattice, Structure

from hullworks.database import connect
from hullworks.documents import Candidate
from hullworks.launchers.configuration import uri_with_database, write_configuration
from hullworks.launchers.feeder import feed
from hullworks.launchers.launchpad import open_launchpad
from hullworks.launchers.services import mongod
from hullworks.settings import Settings, load_settings
from hullworks.states import CandidateState
from hullworks.workflows.codes import build_level, graph_version
from hullworks.workflows.references.levels import store_level

WARM = 20
"""Candidates that are fed before the clock starts: imports and caches are paid once for each process."""
PEER = """
import json, sys, time
from atomate2.vasp.flows.mp import MPGGADoubleRelaxStaticMaker
from fireworks import LaunchPad
from jobflow.managers.fireworks import flow_to_workflow
from pymatgen.core import Structure
given = json.load(sys.stdin)
structures = [Structure.from_dict(item) for item in given["structures"]]
launchpad = LaunchPad(host=given["address"], name="peer", uri_mode=True, strm_lvl="ERROR")
launchpad.reset("", require_password=False)
def add(structure):
    launchpad.add_wf(flow_to_workflow(MPGGADoubleRelaxStaticMaker().make(structure)))
add(structures[0])
start = time.process_time(), time.perf_counter()
for structure in structures[1:]:
    add(structure)
cpu, wall = time.process_time() - start[0], time.perf_counter() - start[1]
print(json.dumps({"workflows": len(structures) - 1, "cpu_ms": 1e3 * cpu / (len(structures) - 1),
                  "wall_ms": 1e3 * wall / (len(structures) - 1)}))
"""


def crystals(number: int) -> list[Structure]:
    """Return so many crystals of eight atoms, no two alike."""
    random = np.random.default_rng(0)
    sites = np.array([[x, y, z] for x in (0.0, 0.5) for y in (0.0, 0.5) for z in (0.0, 0.5)])
    return [
        Structure(Lattice.cubic(5.6), ["Mg", "Si"] * 4, sites + random.uniform(-0.03, 0.03, (8, 3)))
        for _ in range(number)
    ]


def queue(structures: list[Structure], settings: Settings) -> None:
    """Store queued candidates of these structures."""
    level = build_level("qe-pbe-fast", settings)
    store_level(level)
    version = graph_version(level)
    Candidate.objects.insert(
        [
            Candidate(
                candidate_id=f"cand-{number}",
                row_id=f"row-{number}",
                batch="b",
                level_key=level.key,
                source_file="f",
                source_row=number,
                reduced_formula="MgSi",
                structure_id=f"s{number}",
                structure=structure.as_dict(),
                calculation_id=f"calc-{number}-{version}",
                state=CandidateState.QUEUED,
                rank=float(number),
            )
            for number, structure in enumerate(structures)
        ]
    )


def ours(structures: list[Structure], settings: Settings) -> dict[str, float]:
    """Feed candidates; return what each costs."""
    launchpad = open_launchpad(settings)
    queue(structures, settings)
    wide = settings.model_copy(update={"launch": settings.launch.model_copy(update={"window": WARM})})
    assert feed(launchpad, wide)["submitted"] == WARM
    wide = settings.model_copy(update={"launch": settings.launch.model_copy(update={"window": len(structures)})})
    start, left = (time.process_time(), time.perf_counter()), len(structures) - WARM
    while feed(launchpad, wide):
        pass
    cpu, wall = time.process_time() - start[0], time.perf_counter() - start[1]
    assert launchpad.workflows.count_documents({}) == len(structures)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    launchpad.connection.close()
    return {"workflows": left, "cpu_ms": 1e3 * cpu / left, "wall_ms": 1e3 * wall / left, "peak_MB": peak}


def peer(python: str, structures: list[Structure], settings: Settings) -> dict[str, float]:
    """Let the peer store workflows; return what each costs."""
    database = settings.database.model_copy(update={"name": "peer"})
    address = uri_with_database(settings.model_copy(update={"database": database}))
    given = json.dumps({"address": address, "structures": [structure.as_dict() for structure in structures]})
    command = [python, "-W", "ignore", "-c", PEER]
    done = subprocess.run(command, input=given, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=1000)
    parser.add_argument("--peer-python", help="a Python that has atomate2")
    parser.add_argument("--peer-flows", type=int, default=100)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "hullworks.toml").touch()
        settings = load_settings(Path(folder))
        mongod.start(settings)
        try:
            write_configuration(settings)
            connect(settings)
            structures = crystals(options.candidates + WARM)
            results["HullWorks, four steps"] = ours(structures, settings)
            if options.peer_python:
                few = structures[: options.peer_flows + 1]
                results["atomate2 and add_wf, three steps"] = peer(options.peer_python, few, settings)
        finally:
            mongod.stop(settings)
    lines = [
        f"{way:34s} {row['workflows']:6.0f} workflows {row['cpu_ms']:8.2f} ms CPU {row['wall_ms']:8.2f} ms wall each"
        for way, row in results.items()
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
