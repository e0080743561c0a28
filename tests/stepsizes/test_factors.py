"""Stepsizes that depend on the delay, against the formulas of their papers."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest

from asgrad.errors import UnknownNameError
from asgrad.stepsizes import (
    Constant,
    Fleet,
    Hinge,
    Koloskova,
    Mishchenko,
    Polynomial,
    Stepsize,
)

DELAYS = (0, 1, 2, 5, 9, 10, 11, 50, 1000, 10**6)
STEPSIZES = (1e-6, 1e-3, 0.02, 0.5, 10.0)


def stepsize_of(rule: Stepsize, stepsize: float, delay: int, smoothness=1.0, concurrency=1, n=1):
    """γ_t for the tuned γ and a delay τ."""
    parameters = rule.parameters(
        {"smoothness": smoothness, "concurrency": concurrency, "n_workers": n}
    )
    assert parameters.dtype == np.float64
    return stepsize * type(rule).kernel(parameters, stepsize, delay)


@pytest.mark.parametrize("stepsize", STEPSIZES)
def test_a_constant_stepsize_is_constant(stepsize):
    for delay in DELAYS:
        assert stepsize_of(Constant(), stepsize, delay, smoothness=math.nan) == stepsize


@pytest.mark.parametrize("smoothness", [0.1, 1.0, 40.0])
@pytest.mark.parametrize("concurrency", [1, 10, 300])
def test_koloskova_shrinks_to_the_upper_end_beyond_the_concurrency(smoothness, concurrency):
    # η_t = η if τ_t <= τ_C, else min{η, 1/(4 L τ_t)}.
    for stepsize, delay in itertools.product(STEPSIZES, DELAYS):
        stale = delay > concurrency
        wanted = min(stepsize, 1 / (4 * smoothness * delay)) if stale else stepsize
        got = stepsize_of(Koloskova(), stepsize, delay, smoothness, concurrency)
        assert got == pytest.approx(wanted, rel=1e-14)


@pytest.mark.parametrize("concurrency", [1, 10, 300])
def test_koloskova_drops_beyond_the_concurrency(concurrency):
    rule = Koloskova(stale="drop")
    for stepsize, delay in itertools.product(STEPSIZES, DELAYS):
        wanted = 0.0 if delay > concurrency else stepsize
        got = stepsize_of(rule, stepsize, delay, math.nan, concurrency)
        assert got == wanted


def test_koloskova_takes_its_own_constants_before_those_of_the_run():
    rule = Koloskova(concurrency=3, smoothness=2.0)
    for delay in DELAYS:
        got = stepsize_of(rule, 0.5, delay, smoothness=77.0, concurrency=88)
        wanted = 0.5 if delay <= 3 else min(0.5, 1 / (8 * delay))
        assert got == pytest.approx(wanted, rel=1e-14)


@pytest.mark.parametrize("n", [1, 10, 64])
def test_the_practical_form_of_mishchenko(n):
    # γ n / max(n, τ⁺), τ⁺ = τ + 1; no smoothness constant is needed.
    for stepsize, delay in itertools.product(STEPSIZES, DELAYS):
        got = stepsize_of(Mishchenko(), stepsize, delay, math.nan, 5, n)
        assert got == pytest.approx(stepsize * n / max(n, delay + 1), rel=1e-14)


@pytest.mark.parametrize(
    ("setting", "constant"), [("convex", 4), ("nonconvex", 4), ("heterogeneous", 8)]
)
@pytest.mark.parametrize("smoothness", [0.1, 1.0, 40.0])
def test_mishchenko_falls_with_the_delay(setting, constant, smoothness):
    # min{γ, 1/(4 L τ⁺)}, with 8 in place of 4 for unequal data.
    rule = Mishchenko(setting)
    for stepsize, delay in itertools.product(STEPSIZES, DELAYS):
        got = stepsize_of(rule, stepsize, delay, smoothness, 5, 10)
        wanted = min(stepsize, 1 / (constant * smoothness * (delay + 1)))
        assert got == pytest.approx(wanted, rel=1e-14)


@pytest.mark.parametrize("convexity", [1e-3, 0.5])
@pytest.mark.parametrize("n", [1, 10])
def test_mishchenko_falls_exponentially_under_strong_convexity(convexity, n):
    # min{γ, exp(−μ τ⁺/(4 n L))/(4 L τ⁺)}.
    smoothness = 2.0
    rule = Mishchenko("strongly-convex", strong_convexity=convexity)
    for stepsize, delay in itertools.product(STEPSIZES, DELAYS):
        since = delay + 1
        bound = math.exp(-convexity * since / (4 * n * smoothness)) / (4 * smoothness * since)
        got = stepsize_of(rule, stepsize, delay, smoothness, 5, n)
        assert got == pytest.approx(min(stepsize, bound), rel=1e-13)


def test_mishchenko_takes_its_own_smoothness_before_the_problems():
    got = stepsize_of(Mishchenko("convex", smoothness=2.0), 1.0, 3, smoothness=77.0)
    assert got == pytest.approx(1 / (4 * 2 * 4))


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2])
def test_the_polynomial_rule(power):
    for delay in DELAYS:
        got = stepsize_of(Polynomial(power), 0.5, delay, smoothness=math.nan)
        assert got == pytest.approx(0.5 * (delay + 1) ** -float(power), rel=1e-14)


def test_the_hinge_costs_nothing_up_to_its_threshold():
    for delay in DELAYS:
        got = stepsize_of(Hinge(slope=10, max_delay=5), 0.5, delay, smoothness=math.nan)
        assert got == pytest.approx(0.5 if delay <= 5 else 0.5 / (10 * (delay - 5) + 1), rel=1e-14)


@pytest.mark.parametrize("n", [1, 9, 41])
def test_fleet_meets_the_inverse_at_half_its_threshold(n):
    """exp(−β τ) = 1/(τ + 1) at τ = τ_θ/2 = (n + 1)/2, and at 0; above it between, below beyond."""
    half = (n + 1) // 2
    assert stepsize_of(Fleet(), 1.0, half, n=n) == pytest.approx(1 / (half + 1), rel=1e-13)
    assert stepsize_of(Fleet(), 1.0, 0, n=n) == 1.0
    assert stepsize_of(Fleet(), 1.0, 3 * half, n=n) < 1 / (3 * half + 1)
    assert stepsize_of(Fleet(threshold=8.0), 1.0, 4, n=n) == pytest.approx(1 / 5, rel=1e-13)


def test_rules_of_the_delay_alone_take_nothing_else_from_a_run():
    """L and τ_C may take long to find, and what is taken is bound in a live run's trace."""
    for rule in (Constant(), Polynomial(), Hinge()):
        rule.parameters({})
    Fleet().parameters({"n_workers": 3})


RULES = [
    Constant(),
    Polynomial(),
    Polynomial(power=1),
    Hinge(),
    Fleet(),
    Koloskova(),
    Koloskova(stale="drop"),
    *map(Mishchenko, ("practical", "convex", "nonconvex", "heterogeneous")),
    Mishchenko("strongly-convex", strong_convexity=0.1),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.label)
def test_no_rule_raises_a_stepsize_or_turns_it_round(rule):
    for stepsize in STEPSIZES:
        taken = [stepsize_of(rule, stepsize, delay, 1.0, 10, 10) for delay in DELAYS]
        assert all(0 <= got <= stepsize * (1 + 1e-15) for got in taken)
        assert all(a >= b * (1 - 1e-15) for a, b in itertools.pairwise(taken))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.label)
def test_a_rule_is_frozen_and_says_where_it_is_from(rule):
    assert rule.name
    assert rule.reference
    assert rule.label.startswith(rule.name)
    with pytest.raises(dataclasses.FrozenInstanceError):
        rule.smoothness = 3.0


@pytest.mark.parametrize(
    "rule", [Koloskova(), Mishchenko("convex"), Mishchenko("heterogeneous")], ids=lambda r: r.label
)
@pytest.mark.parametrize("smoothness", [math.nan, math.inf, 0.0, -1.0])
def test_an_unknown_smoothness_must_be_given(refused, rule, smoothness):
    text = refused(
        lambda: rule.parameters({"smoothness": smoothness, "concurrency": 1, "n_workers": 1})
    )
    assert text.startswith(f"{type(rule).__name__}: ")
    assert "smoothness=..." in text


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: Koloskova(concurrency=0),
            "Koloskova: concurrency must be an integer >= 1, got 0.",
        ),
        (
            lambda: Koloskova(concurrency=2.5),
            "Koloskova: concurrency must be an integer, got 2.5.",
        ),
        (lambda: Koloskova(smoothness=0), "Koloskova: smoothness must be finite and > 0, got 0."),
        (
            lambda: Koloskova(smoothness=math.nan),
            "Koloskova: smoothness must be finite and > 0, got nan.",
        ),
        (lambda: Polynomial(-1), "Polynomial: power must be finite and >= 0, got -1."),
        (lambda: Hinge(slope=0), "Hinge: slope must be finite and > 0, got 0."),
        (lambda: Hinge(max_delay=-1), "Hinge: max_delay must be an integer >= 0, got -1."),
        (lambda: Fleet(0), "Fleet: threshold must be finite and > 0, got 0."),
        (
            lambda: Mishchenko(smoothness=-2),
            "Mishchenko: smoothness must be finite and > 0, got -2.",
        ),
        (
            lambda: Mishchenko(strong_convexity=float("nan")),
            "Mishchenko: strong_convexity must be finite and > 0, got nan.",
        ),
        (
            lambda: Mishchenko("strongly-convex", strong_convexity=0),
            "Mishchenko: strong_convexity must be finite and > 0, got 0.",
        ),
        (
            lambda: Mishchenko("strongly-convex", strong_convexity="1"),
            "Mishchenko: strong_convexity must be a number, got '1'.",
        ),
    ],
)
def test_a_parameter_that_cannot_be_is_refused(refused, make, text):
    assert refused(make) == text


def test_strong_convexity_must_be_given(refused):
    text = refused(lambda: Mishchenko("strongly-convex"))
    assert text.startswith("Mishchenko: ")
    assert "strong_convexity=" in text


@pytest.mark.parametrize(
    ("make", "guess"),
    [
        (lambda: Koloskova(stale="shrnk"), "'shrink'"),
        (lambda: Koloskova(stale="dropp"), "'drop'"),
        (lambda: Mishchenko("practicl"), "'practical'"),
        (lambda: Mishchenko("non-convex"), "'nonconvex'"),
        (lambda: Mishchenko("strongly_convex"), "'strongly-convex'"),
    ],
)
def test_a_misspelt_choice_gets_the_closest_name(refused, make, guess):
    assert f"Did you mean {guess}?" in refused(make, UnknownNameError)


@pytest.mark.parametrize("wrong", [None, 3])
def test_a_choice_that_is_no_name_is_refused(refused, wrong):
    assert "stale" in refused(lambda: Koloskova(stale=wrong))
    assert "setting" in refused(lambda: Mishchenko(wrong))
