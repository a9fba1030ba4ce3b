"""Measure how many difficult relaxations end right: ``python tests/benchmarks/qe_campaign.py --help``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qe_campaign_cases import cases
from qe_campaign_report import document, falls_short, tables
from qe_campaign_run import Runner, arms, measured, say

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT: Final = Path(__file__).resolve().parent.parent.parent
DATA: Final = ROOT / "docs" / "data" / "qe_campaign.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; return 1 where the product claims a wrong result, or gives up on a right one."""
    asked = _parser().parse_args(arguments)
    results = json.loads(DATA.read_text(encoding="utf-8")) if asked.from_data else _run(asked)
    for table in tables(results).values():
        sys.stdout.write(f"\n{table}\n")
    if asked.output:
        asked.output.parent.mkdir(parents=True, exist_ok=True)
        asked.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if asked.document:
        document(ROOT / "docs", results)
    short = falls_short(results)
    for line in short:
        say(f"falls short: {line}")
    return int(bool(short))


def _run(asked: argparse.Namespace) -> dict[str, Any]:
    runner = Runner(asked.work, keep=asked.keep)
    for arm in asked.again:
        runner.forget(arm)
    chosen = [case for case in cases() if not asked.cases or any(part in case.name for part in asked.cases)]
    return measured(runner, chosen, asked.arms)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--cases", nargs="*", default=[], metavar="PART", help="only those whose names hold one of these")
    add("--arms", nargs="*", default=arms(), choices=arms(), help="only these")
    add("--again", nargs="*", default=[], choices=arms(), help="forget what these arms made of all cases")
    add("--work", type=Path, default=ROOT / "build" / "qe_campaign",
        help="keeps results; what is there and still asked for does not run again")  # fmt: skip
    add("--keep", action="store_true", help="keep the files of the runs too")
    add("--output", type=Path, metavar="JSON", help=f"write all results, for instance to {DATA.relative_to(ROOT)}")
    add("--from-data", action="store_true", help="run nothing, take the results in docs/data")
    add("--document", action="store_true", help="write the tables into docs/qe_campaign.md")
    return parser


if __name__ == "__main__":
    sys.exit(main())
