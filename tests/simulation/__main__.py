"""``python -m tests.simulation --seeds 10000``: look for a seed at which the bookkeeping breaks a rule."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter

from tests.simulation.campaign import Campaign, plan_of
from tests.simulation.search import Outcome, play, shrink, simulate, simulate_many


def main() -> int:
    """Return 1 when a seed fails, else 0."""
    options = _parser().parse_args()
    if options.replay is not None:
        return _replay(options.replay, options.lines)
    began = time.monotonic()
    seeds = range(options.first, options.first + options.seeds)
    failed: list[Outcome] = []
    states: Counter[str] = Counter()
    causes: Counter[str] = Counter()
    steps = 0
    for outcome in simulate_many(seeds, options.processes):
        states, causes, steps = states + outcome.states, causes + outcome.causes, steps + outcome.steps
        if outcome.violation:
            failed.append(outcome)
            sys.stdout.write(f"seed {outcome.seed}: {outcome.violation}\n")
    took_s = time.monotonic() - began
    sys.stdout.write(f"{len(seeds)} seeds, {len(failed)} failed, {steps} steps, {took_s:.0f} s\n")
    sys.stdout.write(f"candidates: {dict(states)}\nruns ended: {dict(causes)}\n")
    if failed:
        seed = min(outcome.seed for outcome in failed)
        sys.stdout.write(f"replay: python -m tests.simulation --replay {seed}\n")
    return int(bool(failed))


def _replay(seed: int, lines: int) -> int:
    """Run one seed again with its smallest plan, and print its last steps."""
    seed, plan = shrink(seed) if simulate(seed).violation else (seed, plan_of(seed))
    campaign = Campaign(seed, plan)
    violation = play(campaign)
    for name, what in campaign.world.trace[-lines:]:
        sys.stdout.write(f"{name:28s} {what}\n")
    sys.stdout.write(f"seed {seed}, {plan}\n{violation or 'every rule was kept'}\n")
    return int(bool(violation))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=500, help="how many seeds")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--replay", type=int, help="run this seed again, shrunk, and print its last steps")
    parser.add_argument("--lines", type=int, default=60, help="how many steps to print")
    return parser


if __name__ == "__main__":
    sys.exit(main())
