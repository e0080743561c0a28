"""Every distribution of worker times against its law."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
from scipy import stats

from asgrad import times as room
from asgrad.registry import catalogue
from asgrad.times import (
    AnyTimes,
    Conditions,
    Exponential,
    Fixed,
    Gamma,
    HalfNormal,
    Linear,
    LogNormal,
    Normal,
    Outages,
    Pareto,
    Poisson,
    ShiftedExponential,
    Sqrt,
    Times,
    Uniform,
    Weibull,
)

N = 12_000


def sample(times: Times, worker: int = 0, n: int = N, n_workers: int = 1, seed: int = 2):
    """The times of a worker's first n jobs."""
    clock = times.begin(n_workers, seed)
    head = clock.scales, clock.shape, clock.key, worker
    return np.array([clock.seconds(*head, draw, 0.0) for draw in range(n)])


def normal_law(s: float):
    """The distribution function of |N(s, s²)| + 1."""
    return lambda t: stats.norm.cdf((t - 1) / s - 1) - stats.norm.cdf(-(t - 1) / s - 1)


LAWS = {
    "uniform": (Uniform, lambda s: stats.uniform(0, s).cdf),
    "normal": (Normal, normal_law),
    "exponential": (Exponential, lambda s: stats.expon(scale=s).cdf),
    "log-normal": (LogNormal, lambda s: stats.lognorm(1.0, scale=s).cdf),
    # s is the variance of the normal number here.
    "half-normal": (HalfNormal, lambda s: stats.halfnorm(s, math.sqrt(s)).cdf),
}


@pytest.mark.parametrize("s", [0.25, 1.0, 7.0])
@pytest.mark.parametrize("name", LAWS)
def test_times_follow_their_law(name, s):
    times, law = LAWS[name]
    assert stats.kstest(sample(times(s)), law(s)).pvalue > 1e-3


SHAPED = {
    "shifted-exponential": (ShiftedExponential, lambda s, c: stats.expon(s, c * s)),
    "weibull": (Weibull, lambda s, k: stats.weibull_min(k, scale=s)),
    "pareto": (Pareto, lambda s, a: stats.pareto(a, scale=s)),
    "gamma": (Gamma, lambda s, k: stats.gamma(k, scale=s / k)),
}


@pytest.mark.parametrize("shape", [0.2, 0.9, 1.0, 3.7, 50.0])
@pytest.mark.parametrize("name", SHAPED)
def test_times_with_a_shape_follow_their_law(name, shape):
    times, law = SHAPED[name]
    drawn = sample(times(3.0, shape))
    assert (drawn >= 0).all()
    assert stats.kstest(drawn, law(3.0, shape).cdf).pvalue > 1e-3
    assert np.unique(drawn).size == drawn.size
    assert abs(np.corrcoef(drawn.argsort().argsort()[1:], drawn.argsort().argsort()[:-1])[0, 1]) < (
        4 / math.sqrt(N)
    )


@pytest.mark.parametrize("name", SHAPED)
@pytest.mark.parametrize("shape", [0.0, -1.0, math.nan, math.inf, "x"])
def test_a_shape_is_above_0(refused, name, shape):
    times, _ = SHAPED[name]
    assert f"{times.__name__}: {times.shape_name} must be" in refused(lambda: times(1.0, shape))


@pytest.mark.parametrize("sigma", [0.1, 2.5])
def test_log_normal_times_have_the_deviation_of_their_logarithm(sigma):
    logs = np.log(sample(LogNormal(3.0, sigma=sigma)) / 3.0) / sigma
    assert stats.kstest(logs, "norm").pvalue > 1e-3


@pytest.mark.parametrize("mean", [0.01, 0.5, 3.0, 10.0, 17.5, 29.99, 30.0, 40.0, 200.0, 1e4])
def test_poisson_times_follow_their_law(mean):
    times = sample(Poisson(mean))
    assert (times == np.floor(times)).all()
    law = stats.poisson(mean)
    # Forty cells, fewer for small means; every one ends at a whole number.
    edges = np.unique(law.ppf(np.linspace(0, 1, 41)[1:-1]))
    expected = np.diff(np.concatenate([[0.0], law.cdf(edges), [1.0]])) * N
    assert expected.min() > 20
    observed = np.bincount(np.searchsorted(edges, times), minlength=edges.size + 1)
    assert stats.chisquare(observed, expected).pvalue > 1e-3
    assert abs(times.mean() - mean) < 4 * math.sqrt(mean / N)
    # The fourth central moment is 3 m² + m, so a sample variance varies by 2 m² + m.
    assert abs(times.var() - mean) < 4 * math.sqrt((2 * mean**2 + mean) / N)


@pytest.mark.parametrize("mean", [1e11, 1e13, 1e17, 1e300])
def test_poisson_times_of_large_means_are_normal(mean):
    times = sample(Poisson(mean), n=20_000)
    assert (times == np.floor(times)).all()
    standard = (times - mean) / math.sqrt(mean)
    if mean < 1e30:  # beyond, the deviation is less than the last digit
        assert stats.kstest(standard, "norm").pvalue > 1e-3
    assert np.abs(times / mean - 1).max() < 1e-4


def test_poisson_tails_are_those_of_the_law():
    for mean in (5.0, 25.0, 35.0):
        times = sample(Poisson(mean), n=40_000)
        for bound in (stats.poisson(mean).ppf(1 - 2e-3), stats.poisson(mean).ppf(2e-3)):
            expected = 40_000 * stats.poisson(mean).cdf(bound)
            spread = math.sqrt(expected * (1 - expected / 40_000))
            assert abs((times <= bound).sum() - expected) < 4 * spread


@pytest.mark.parametrize("times", [Poisson(0), Uniform(0), Exponential(0), LogNormal(0), Fixed(0)])
def test_a_scale_of_zero_takes_no_time(times):
    assert (sample(times, n=20) == 0).all()


def test_normal_times_of_scale_zero_take_their_one_second():
    assert (sample(Normal(0), n=20) == 1).all()
    assert (sample(HalfNormal(0), n=20) == 0).all()


@pytest.mark.parametrize(
    ("times", "wanted"),
    [
        (Fixed(), [1, 1, 1, 1]),
        (Fixed(2.5), [2.5, 2.5, 2.5, 2.5]),
        (Fixed([3, 1, 4, 1.5]), [3, 1, 4, 1.5]),
        (Fixed("sqrt"), [1, math.sqrt(2), math.sqrt(3), 2]),
        (Linear(), [1, 2, 3, 4]),
        (Sqrt(), [1, math.sqrt(2), math.sqrt(3), 2]),
    ],
)
def test_fixed_times_never_vary(times, wanted):
    for worker, seconds in enumerate(wanted):
        np.testing.assert_array_equal(
            sample(times, worker, n=5, n_workers=4, seed=worker), np.full(5, seconds)
        )


RANDOM = [
    Poisson(20.0),
    Normal(1.0),
    Uniform(1.0),
    Exponential(1.0),
    LogNormal(1.0),
    HalfNormal(1.0),
]


@pytest.mark.parametrize("times", RANDOM, ids=lambda times: times.name)
def test_neighbouring_draws_and_workers_and_seeds_are_unrelated(times):
    n = 4000
    first = sample(times, 0, n, n_workers=3)
    others = {
        "next draw": np.roll(first, 1),
        "next worker": sample(times, 1, n, n_workers=3),
        "next seed": sample(times, 0, n, n_workers=3, seed=3),
    }
    for other in others.values():
        assert abs(stats.spearmanr(first, other).statistic) < 4 / math.sqrt(n)


@pytest.mark.parametrize("times", RANDOM, ids=lambda times: times.name)
def test_times_scale_with_their_worker(times):
    # The same hash behind it: a worker's times have the law of its own scale.
    scaled = type(times)((1.0, 4.0, 20.0))
    for worker, s in enumerate((1.0, 4.0, 20.0)):
        if times.name == "poisson":
            got = sample(scaled, worker, 4000, n_workers=3)
            assert abs(got.mean() - s) < 4 * math.sqrt(s / 4000)
        else:
            law = LAWS[times.name][1](s)
            assert stats.kstest(sample(scaled, worker, 4000, n_workers=3), law).pvalue > 1e-3


@pytest.mark.parametrize("times", RANDOM, ids=lambda times: times.name)
def test_the_moment_of_the_start_does_not_matter(times):
    clock = times.begin(2, 0)
    for worker, draw in itertools.product(range(2), range(20)):
        seconds = {
            clock.seconds(clock.scales, clock.shape, clock.key, worker, draw, start)
            for start in (0.0, 1.5, 1e9)
        }
        assert len(seconds) == 1


FIELDS = [
    (cls, field.name)
    for cls in catalogue(room).values()
    for field in dataclasses.fields(cls)
    if str(field.type) != "str" or not issubclass(cls, AnyTimes)  # names of columns, any text
]


@pytest.mark.parametrize(
    ("cls", "name"), FIELDS, ids=[f"{cls.__name__}-{name}" for cls, name in FIELDS]
)
def test_a_parameter_that_cannot_be_is_refused(cls, name, refused):
    """By the time that a run begins, in one line that says of which class and what."""
    for value in (float("nan"), "pork", [], object(), -7, [[1.0]], [math.nan] * 3):

        def begin(value=value):
            made = cls(**{name: value})
            paces = made if isinstance(made, AnyTimes) else Conditions(Fixed(), (made,))
            return paces.begin(3, 0)

        assert refused(begin).startswith(f"{cls.__name__}: ")


def test_conditions_that_are_none_are_refused(refused):
    for said in (None, Outages(), "outages", (Fixed(),)):
        assert refused(lambda s=said: Conditions(Fixed(), s)).startswith("Conditions: ")
