"""Forecasts: what such runs took, and which steps are begun in the time that is left."""

from __future__ import annotations

from hullworks.launchers.slurm.forecast import fits, forecast_s, forecasts, load_rules

RULES = load_rules()


def test_a_step_that_never_ended_takes_the_default() -> None:
    """It is long."""
    assert forecast_s([], RULES) == RULES.default_s


def test_nine_in_ten_and_half_as_much_again() -> None:
    """One that took ever so long does not keep all others from being begun."""
    times = [100.0] * 9 + [100_000.0]
    assert forecast_s(times, RULES) == 150.0
    assert forecast_s([1.0], RULES) == RULES.least_s


def test_steps_are_told_apart() -> None:
    """Landing runs no code."""
    known = forecasts([("relax 1", 1000.0), ("static", 40.0), ("static", 50.0)], RULES)
    assert known == {"land": 30, "relax 1": 1500.0, "static": 75.0}


def test_only_what_fits_is_begun() -> None:
    """With much time all but what is known to be longer; with little only what is known to be shorter."""
    known = {"relax 1": 7200.0, "static": 75.0}
    assert fits(1e5, known, RULES) == {}
    assert fits(3600.0, known, RULES) == {"name": {"$nin": ["relax 1"]}}
    assert fits(100.0, known, RULES) == {"name": {"$in": ["static"]}}
    assert fits(10.0, known, RULES) == {"name": {"$in": []}}
