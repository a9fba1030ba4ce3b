"""Many seeds simulated; a failing one replayed exactly and shrunk to the fewest parts that still fail."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import TYPE_CHECKING

from tests.simulation.campaign import Campaign, Plan, plan_of
from tests.simulation.world import Violation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


@dataclass(frozen=True)
class Outcome:
    """What became of one seed.

    Attributes:
        seed: The seed.
        violation: What does not hold, empty when all does.
        digest: Of every step that was taken; the same for the same seed and plan, in every process.
        steps: How many steps were taken.
        states: In how many final states how many candidates ended.
        causes: Why runs ended.
    """

    seed: int
    violation: str
    digest: int
    steps: int
    states: Counter[str]
    causes: Counter[str]


def play(campaign: Campaign) -> str:
    """Run a campaign to its end; return which rule was broken, or what the product let out, empty when neither."""
    try:
        campaign.world.run()
        campaign.referee.end()
    except Violation as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - whatever product code lets out is a find
        return f"{type(error).__name__}: {error}"
    return ""


def simulate(seed: int, plan: Plan | None = None, mutate: Callable[[Campaign], None] | None = None) -> Outcome:
    """Simulate one seed to its end.

    Args:
        seed: Draws everything.
        plan: What takes part; by default what the seed draws.
        mutate: Breaks something on purpose.
    """
    campaign = Campaign(seed, plan or plan_of(seed), mutate or (lambda _campaign: None))
    violation = play(campaign)
    return Outcome(
        seed=seed,
        violation=violation,
        digest=campaign.world.digest,
        steps=campaign.world.steps,
        states=Counter(case.state.value for case in campaign.book.candidates.values()),
        causes=Counter(run.cause.value for run in campaign.book.runs.values()),
    )


def simulate_many(seeds: Iterable[int], processes: int) -> Iterator[Outcome]:
    """Simulate seeds on several processes, in no particular order."""
    if processes <= 1:
        yield from map(simulate, seeds)
        return
    with get_context("fork").Pool(processes) as pool:
        yield from pool.imap_unordered(simulate, seeds, chunksize=20)


TRIES = 10
"""Seeds that are tried with a smaller plan, as the same seed draws another course with it."""


def shrink(seed: int, mutate: Callable[[Campaign], None] | None = None) -> tuple[int, Plan]:
    """Return a seed and the smallest plan with which it fails: parts are taken away one by one.

    Args:
        seed: A failing seed.
        mutate: Breaks something on purpose.
    """
    found: tuple[int, Plan] | None = (seed, plan_of(seed))
    smallest = (seed, plan_of(seed))
    while found is not None:
        smallest = found
        found = next(_failing(smallest[0], smallest[1], mutate), None)
    return smallest


def _failing(seed: int, plan: Plan, mutate: Callable[[Campaign], None] | None) -> Iterator[tuple[int, Plan]]:
    """Yield smaller plans that fail, with their seeds."""
    for smaller in _smaller(plan):
        for other in (seed, *range(TRIES)):
            if simulate(other, smaller, mutate).violation:
                yield other, smaller
                break


def _smaller(plan: Plan) -> Iterator[Plan]:
    """Yield plans with one part less."""
    if plan.candidates > 1:
        yield replace(plan, candidates=plan.candidates - 1)
    if plan.reconcilers:
        yield replace(plan, reconcilers=plan.reconcilers - 1)
    if plan.loops > 1:
        yield replace(plan, loops=plan.loops - 1)
    if plan.local_workers:
        yield replace(plan, local_workers=0)
    if plan.user:
        yield replace(plan, user=False)
    if plan.outages:
        yield replace(plan, outages=False)
    if plan.faults.delay:
        yield replace(plan, faults=replace(plan.faults, delay=0.0))
    if plan.faults.kills:
        yield replace(plan, faults=replace(plan.faults, kills=plan.faults.kills - 1))
    if plan.faults.until_s > 600:
        yield replace(plan, faults=replace(plan.faults, until_s=plan.faults.until_s / 2))
