"""The rule by which a stepsize is chosen, and the targets that follow from it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from asgrad.experiments.choice import MEASURES, Rule, choose, gains, windowed

NORM = Rule.of(None, 0.2, "gradient_norm")
LOSS = Rule.of("loss", 0.2, "gradient_norm")
ACCURACY = Rule.of("accuracy", 0.2, "loss")


def test_best_is_the_least_median_among_stepsizes_that_no_seed_diverged_at():
    """By hand: medians 3, 1, 0.5, but one seed diverged at the third stepsize."""
    norms = np.array([[3.0, 9.0, 0.5], [3.0, 1.0, np.nan], [3.0, 1.0, 0.5]])
    diverged = np.isnan(norms)
    assert choose(diverged, norms) == 1
    assert choose(diverged[:, 2:], norms[:, 2:]) is None


def test_a_second_score_decides_where_the_first_ties():
    """Times 5, 5 and never: the norms choose among the first two, and never is no tie with them."""
    times = np.array([[5.0, 5.0, np.inf]])
    norms = np.array([[0.3, 0.2, 0.1]])
    none = np.zeros((1, 3), bool)
    assert choose(none, times, norms) == 1
    never = np.full((1, 3), np.inf)
    assert choose(none, never, norms) == 2
    assert choose(none, never, never) == 0


def test_an_oscillating_run_is_judged_by_its_window():
    """The last of ten evaluations is low by chance; the median of the last four is not."""
    values = np.array([9.0, 5, 5, 5, 5, 5, 4, 8, 4, 8, 0.1])[:, None]
    assert windowed(values, 0.4)[0] == np.median([8, 4, 8, 0.1])
    assert windowed(values, 0.01)[0] == 0.1  # at least one
    assert windowed(values, 1.0)[0] == 5.0  # all but the start
    assert windowed(values[:1], 0.4)[0] == 9.0


@pytest.mark.parametrize(
    ("rule", "start", "reached", "target"),
    [
        (NORM, 1.0, 0.1, 0.125),  # 1.25 times
        (NORM, 1.0, 0.9, math.sqrt(0.9)),  # 1.125 would be met by the start
        (NORM, 2.0, 1e-12, 2e-6),  # rounding is no goal
        (LOSS, 2.0, 1.0, 1.1),  # nine tenths of the way
        (LOSS, -1.0, -3.0, -2.8),
        (ACCURACY, 0.1, 0.9, 0.82),
    ],
)
def test_own_target_lies_between_the_start_and_what_is_reached(rule, start, reached, target):
    assert rule.target(start, reached) == pytest.approx(target, rel=1e-12)
    assert math.isnan(rule.target(start, start))
    assert math.isnan(rule.target(reached, start))


def test_targets_that_the_start_meets_are_refused(refused):
    """For norms and losses those not below it, for accuracies those not above it."""
    assert NORM.checked_targets([0.1, 0.4], 0.5) == [0.4, 0.1]
    assert ACCURACY.checked_targets([0.9, 0.5], 0.1) == [0.5, 0.9]
    assert LOSS.checked_targets(-3.0, -1.0) == [-3.0]
    text = refused(lambda: NORM.checked_targets([0.1, 0.5], 0.5))
    assert "target must be below the gradient norm of the start, 0.5, got 0.5" in text
    assert "must be above the accuracy" in refused(lambda: ACCURACY.checked_targets(0.1, 0.1))
    assert "finite and > 0" in refused(lambda: NORM.checked_targets(-1.0, 0.5))
    assert "must be a number" in refused(lambda: LOSS.checked_targets("low", 0.5))


def test_first_evaluation_that_meets_a_target():
    """At or below; for an accuracy at or above."""
    assert NORM.first(np.array([3.0, 2.0, 1.0, 1.0]), 1.0) == 2
    assert NORM.first(np.array([3.0, np.nan]), 1.0) is None
    assert ACCURACY.first(np.array([0.1, 0.5, 0.7]), 0.5) == 1


def test_gaining_is_more_than_noise():
    """A hundredth of the start at least, in the direction of the measure."""
    assert gains(MEASURES["gradient_norm"], 1.0, 0.98)
    assert not gains(MEASURES["gradient_norm"], 1.0, 0.995)
    assert gains(MEASURES["loss"], -1.0, -1.5)
    assert gains(MEASURES["accuracy"], 0.1, 0.2)
    assert not gains(MEASURES["accuracy"], 0.5, 0.2)
    assert not gains(MEASURES["loss"], 1.0, math.nan)


def test_rules_are_checked_and_said(refused):
    """A misspelt measure names the closest; the sentence says window, seeds and direction."""
    assert "Did you mean 'gradient_norm'" in refused(lambda: Rule.of("gradient-norm", 0.2, "loss"))
    assert "window must lie in (0, 1], got 2" in refused(lambda: Rule.of("loss", 2.0, "loss"))
    assert Rule.of(None, 0.2, "loss").measure == "loss"
    by_time = Rule.of("time_to_target", 0.2, "gradient_norm")
    assert (by_time.by_time, by_time.measure) == (True, "gradient_norm")
    assert "highest median over 3 seeds of the accuracy" in ACCURACY.sentence(3)
    assert "the last 20% of the run" in NORM.sentence(1)
    assert "time to the first target" in by_time.sentence(3)
