"""The scale of every worker, stragglers, labels, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from asgrad.errors import KindError
from asgrad.times import (
    Exponential,
    Fixed,
    HalfNormal,
    Linear,
    LogNormal,
    Normal,
    Poisson,
    Sqrt,
    Stragglers,
    Times,
    Uniform,
)

SCALED = [Fixed, Linear, Sqrt, Poisson, Normal, Uniform, Exponential, LogNormal, HalfNormal]


@pytest.mark.parametrize("times", SCALED)
@pytest.mark.parametrize(
    ("scale", "wanted"),
    [
        ("linear", [1, 2, 3, 4]),
        ("sqrt", [1, math.sqrt(2), math.sqrt(3), 2]),
        (2, [2, 2, 2, 2]),
        (0.5, [0.5, 0.5, 0.5, 0.5]),
        (np.float64(0.5), [0.5, 0.5, 0.5, 0.5]),
        ((4, 3, 2, 1), [4, 3, 2, 1]),
        ([4, 3.5, 2, 0], [4, 3.5, 2, 0]),
        (np.array([4.0, 3, 2, 1]), [4, 3, 2, 1]),
    ],
)
def test_every_form_of_scale(times, scale, wanted):
    scales = times(scale=scale).begin(4, 0).scales
    np.testing.assert_array_equal(scales, np.array(wanted, np.float64), strict=True)


def test_a_scale_may_be_an_integer_of_numpy():
    assert Fixed(np.int64(3)) == Fixed(3)


@pytest.mark.parametrize("times", [Poisson, Normal, Uniform, Exponential, LogNormal, HalfNormal])
def test_random_times_are_linear_unless_told_otherwise(times):
    assert times() == times(scale="linear")
    np.testing.assert_array_equal(times().begin(3, 0).scales, [1, 2, 3])


def test_times_with_equal_parameters_are_equal():
    assert Fixed([1, 2]) == Fixed((1.0, 2.0))
    assert hash(Fixed([1, 2])) == hash(Fixed((1.0, 2.0)))
    assert LogNormal(1.0, sigma=2.0) != LogNormal(1.0)


@pytest.mark.parametrize(
    ("scale", "words"),
    [
        (-1, ["finite and >= 0", "-1", "worker 0"]),
        (float("nan"), ["finite and >= 0", "nan"]),
        (float("inf"), ["finite and >= 0", "inf"]),
        ((1, 2, -3, 4), ["finite and >= 0", "-3", "worker 2"]),
        ((1, float("nan"), 3, 4), ["nan", "worker 1"]),
        ((1, 2, 3), ["one number for each of the 4 workers", "got 3"]),
        ((1, 2, 3, 4, 5), ["one number for each of the 4 workers", "got 5"]),
        ((), ["one number for each of the 4 workers", "got 0"]),
        ("linaer", ["'linear'", "'sqrt'", "got 'linaer'"]),
        ("", ["'linear'", "'sqrt'"]),
    ],
)
@pytest.mark.parametrize("times", [Fixed, Poisson, LogNormal])
def test_a_scale_that_does_not_fit_is_refused(refused, times, scale, words):
    text = refused(lambda: times(scale=scale).begin(4, 0))
    assert text.startswith(f"{times.__name__}: scale must ")
    assert all(word in text for word in words), text


@pytest.mark.parametrize("scale", [None, {}, ["a", "b"], [[1, 2], [3, 4]], 1j])
def test_a_scale_that_is_no_number_is_refused(refused, scale):
    text = refused(lambda: Uniform(scale=scale).begin(2, 0))
    assert text.startswith("Uniform: scale must ")


@pytest.mark.parametrize(
    ("sigma", "text"),
    [
        (0, "LogNormal: sigma must be finite and > 0, got 0."),
        (-1.5, "LogNormal: sigma must be finite and > 0, got -1.5."),
        (float("nan"), "LogNormal: sigma must be finite and > 0, got nan."),
    ],
)
def test_sigma_must_be_positive(refused, sigma, text):
    assert refused(lambda: LogNormal(sigma=sigma)) == text


@pytest.mark.parametrize(
    ("share", "n_workers", "n_slow"),
    # The last ⌈q n⌉ workers; 0.07 · 100 is 7 workers and not 8, although it rounds to 7.000…01.
    [(0.0, 10, 0), (0.1, 10, 1), (0.1, 11, 2), (0.07, 100, 7), (0.5, 5, 3), (1.0, 4, 4)],
)
def test_the_last_workers_are_the_stragglers(share, n_workers, n_slow):
    scales = Stragglers(share, 5.0).begin(n_workers, 0).scales
    np.testing.assert_array_equal(scales, [1.0] * (n_workers - n_slow) + [5.0] * n_slow)


def test_the_share_of_stragglers_is_rounded_up_for_every_number_of_workers():
    for n_workers in range(1, 120):
        for percent in range(1, 100, 3):
            scales = Stragglers(percent / 100, 2.0).begin(n_workers, 0).scales
            assert (scales == 2).sum() == -(-percent * n_workers // 100)


@pytest.mark.parametrize("times", [Linear(), Exponential((1, 2, 3, 4)), Poisson(40.0)])
def test_a_straggler_has_the_times_of_a_larger_scale(times):
    slowed, plain = Stragglers(0.5, 3.0, times).begin(4, 7), times.begin(4, 7)
    larger = type(times)(tuple(plain.scales * [1, 1, 3, 3])).begin(4, 7)
    for worker in range(4):
        for draw in range(30):
            got, wanted = (
                clock.seconds(clock.scales, clock.shape, clock.key, worker, draw, 0.0)
                for clock in (slowed, larger)
            )
            assert got == wanted


def test_the_times_under_stragglers_are_left_alone():
    times = Linear()
    Stragglers(1.0, 3.0, times).begin(4, 0)
    np.testing.assert_array_equal(times.begin(4, 0).scales, [1, 2, 3, 4])


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Stragglers(-0.1), "Stragglers: share must lie in [0, 1], got -0.1."),
        (lambda: Stragglers(1.5), "Stragglers: share must lie in [0, 1], got 1.5."),
        (lambda: Stragglers(slowdown=0), "Stragglers: slowdown must be finite and > 0, got 0."),
        (
            lambda: Stragglers(slowdown=float("inf")),
            "Stragglers: slowdown must be finite and > 0, got inf.",
        ),
    ],
)
def test_stragglers_out_of_range_are_refused(refused, make, text):
    assert refused(make) == text


@pytest.mark.parametrize("times", [3, None, "linear", Stragglers()])
def test_stragglers_need_times_with_a_scale(refused, times):
    text = refused(lambda: Stragglers(times=times), KindError)
    assert text.startswith("Stragglers: times must be worker times with a scale")


@pytest.mark.parametrize("times", [*(kind() for kind in SCALED), Stragglers()])
def test_times_say_their_name_in_their_label(times: Times):
    assert times.name
    assert times.label.startswith(times.name)


def test_a_label_holds_every_parameter():
    assert "0.5" in Uniform(0.5).label
    assert "sqrt" in Uniform("sqrt").label
    assert "sigma=2.5" in LogNormal(1.0, sigma=2.5).label
    label = Stragglers(0.25, 7.0, Linear()).label
    assert all(part in label for part in ("share=0.25", "slowdown=7", "linear"))


@pytest.mark.parametrize("kind", [Fixed, Normal, Poisson])
def test_times_with_many_scales_are_shown_in_one_short_line(kind):
    times = kind(scale=np.ones(100_000))
    assert repr(times).startswith(f"{kind.__name__}(scale=(1.0, 1.0, ")
    for thing in (times, Stragglers(0.1, 2.0, times)):
        assert len(repr(thing)) < 200
    assert repr(kind(scale="sqrt")).startswith(f"{kind.__name__}(scale='sqrt'")
