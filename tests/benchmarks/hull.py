"""Measure the convex hull against pymatgen, and how it grows: ``python tests/benchmarks/hull.py --help``."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hull_agreement import agreement, broken
from hull_data import settings
from hull_report import document, tables
from hull_run import Runner, measured, say, steps_of_peer
from hull_sets import EntrySet

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT: Final = Path(__file__).resolve().parent.parent.parent
SIZES: Final = ("10000", "published", "400000", "1000000", "4000000")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; return 1 where answers do not agree."""
    asked = _parser().parse_args(arguments)
    results = json.loads(asked.from_json.read_text(encoding="utf-8")) if asked.from_json else _run(asked)
    for name, table in tables(results).items():
        sys.stdout.write(f"\n{name}\n{table}\n")
    if asked.output:
        asked.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if asked.document:
        document(ROOT / "docs", results)
    wrong = broken(results["agreement"])
    for line in wrong:
        say(f"does not agree: {line}")
    return int(bool(wrong))


def _run(asked: argparse.Namespace) -> dict[str, Any]:
    if asked.fresh:
        shutil.rmtree(asked.work, ignore_errors=True)
    there = asked.published is not None
    runner = Runner(asked.work, asked.published.resolve(strict=True) if there else None)
    small = [str(EntrySet.named(name, there=there)) for name in settings()["peer"]["sampled"]]
    whole = str(EntrySet.named("published", there=there))
    names = [str(EntrySet.named(name, there=there)) for name in asked.sizes]
    if asked.peer != "none":
        names = [*small, whole, *names]
    sets = {
        name: steps_of_peer(asked.peer, small=name in small, whole=name == whole) for name in dict.fromkeys(names)
    }  # fmt: skip
    modes = ["numpy"] if asked.without_numba else ["numpy", "numba"]
    results = measured(runner, sets, modes, runs=asked.runs, profile=asked.profile)
    results["agreement"] = {
        name: agreement(runner.folder(name), results["ours"][name], modes) for name in sets
    }  # fmt: skip
    if not asked.keep:
        runner.without_hulls(sets)
    return results


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--sizes", nargs="*", default=SIZES, metavar="SET", help="a number, published[:n] or synthetic:n")
    add("--peer", choices=("full", "sampled", "none"), default="sampled",
        help="pymatgen on the small sets in minutes, the whole table too in half an hour, 10 GB, or not")  # fmt: skip
    add("--without-numba", action="store_true", help="measure numpy alone")
    add("--runs", type=int, default=0, help="at most so many runs for a median; 0 for what hull_data.yaml says")
    add("--profile", action="store_true", help="also tell in which functions the builds spend their time")
    add("--published", type=Path, metavar="CSV.GZ",
        help="formulas and formation energies of matbench's mp_e_form; without it all entries are made")  # fmt: skip
    add("--work", type=Path, default=ROOT / "build" / "hull_benchmark",
        help="keeps sets and figures; what is there and still true is not measured again")  # fmt: skip
    add("--fresh", action="store_true", help="measure everything again")
    add("--keep", action="store_true", help="keep the pickled hulls and diagrams, some gigabytes")
    add("--output", type=Path, metavar="JSON", help="write all figures")
    add("--from-json", type=Path, metavar="JSON", help="measure nothing, take the figures of an earlier run")
    add("--document", action="store_true", help="write the tables and the plot into docs/")
    return parser


if __name__ == "__main__":
    sys.exit(main())
