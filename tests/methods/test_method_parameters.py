"""Parameters that a method cannot have are refused, at its making or by the run they do not fit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from asgrad import methods
from asgrad.methods import Minibatch, MSync, Pure, Random, Rennala, Ringmaster, Shuffled
from asgrad.registry import catalogue
from asgrad.simulation import simulate
from asgrad.times import Fixed

ALL = [kind() for kind in catalogue(methods).values()]
COUNTS = [
    (type(method), field.name)
    for method in ALL
    for field in dataclasses.fields(method)
    if str(field.type).startswith("int")
]
every_count = pytest.mark.parametrize(
    ("method", "name"), COUNTS, ids=lambda part: part if isinstance(part, str) else part.__name__
)


def run(method, n_workers: int = 4, **options):
    """A short run."""
    return simulate(method, Fixed(), n_workers=n_workers, **({"steps": 6} | options))


@every_count
@pytest.mark.parametrize("value", [0, -3])
def test_a_count_below_one_is_refused(refused, method, name, value):
    text = refused(lambda: method(**{name: value}))
    assert text == f"{method.__name__}: {name} must be an integer >= 1, got {value}."


@every_count
@pytest.mark.parametrize("value", [1.0, "2", True, [1], float("nan")])
def test_a_count_that_is_no_integer_is_refused(refused, method, name, value):
    text = refused(lambda: method(**{name: value}))
    assert text == f"{method.__name__}: {name} must be an integer, got {value!r}."


def test_a_count_may_be_an_integer_of_numpy():
    own, plain = (run(Pure(wait=kind(2))) for kind in (np.int64, int))
    np.testing.assert_array_equal(own.step_times, plain.step_times)
    np.testing.assert_array_equal(own.jobs.worker, plain.jobs.worker)


@pytest.mark.parametrize(
    ("method", "name", "limit", "value"),
    [
        (Pure(wait=5), "wait", 4, 5),
        (Random(wait=5), "wait", 4, 5),
        (Random(wait=3, concurrency=2), "wait", 2, 3),
        (Shuffled(wait=5), "wait", 4, 5),
        (Shuffled(wait=3, concurrency=2), "wait", 2, 3),
        (Shuffled(concurrency=5), "concurrency", 4, 5),
        (Minibatch(batch=5), "batch", 4, 5),
        (MSync(m=5), "m", 4, 5),
    ],
)
def test_a_count_larger_than_the_run_is_refused_by_the_run(refused, method, name, limit, value):
    text = refused(lambda: run(method))
    assert text.startswith(f"{type(method).__name__}: {name} must be at most {limit} ")
    assert text.endswith(f"got {value}.")


@pytest.mark.parametrize(
    "method",
    [
        Pure(wait=4),
        Random(wait=4),
        Random(wait=6, concurrency=6),
        Random(concurrency=40),
        Shuffled(wait=4),
        Shuffled(wait=2, concurrency=2, once=True),
        Minibatch(batch=4),
        MSync(m=4),
        Rennala(batch=50),
        Ringmaster(max_delay=1),
        Ringmaster(max_delay=1, stop_stale=True),
        Ringmaster(max_delay=1000),
    ],
    ids=lambda method: method.label,
)
def test_the_largest_and_smallest_counts_that_fit_run(method):
    assert run(method).n_steps == 6


@pytest.mark.parametrize("method", ALL, ids=lambda method: method.name)
def test_every_method_runs_with_one_worker_and_its_defaults(method):
    assert run(method, n_workers=1).n_steps == 6
    assert method.name
    assert method.reference


@pytest.mark.parametrize("method", ALL, ids=lambda method: method.name)
def test_methods_are_frozen(method):
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.wait = 3


@every_count
def test_a_count_beyond_64_bits_is_refused(refused, method, name):
    text = refused(lambda: run(method(**{name: 2**63}), steps=None, jobs=4))
    assert text.startswith(f"{method.__name__}: {name} must be ")
    assert text.endswith(f"got {2**63}.")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"n_workers": 0}, "simulate: n_workers must be an integer >= 1, got 0."),
        ({"n_workers": 2.0}, "simulate: n_workers must be an integer, got 2.0."),
        ({"steps": -1}, "simulate: steps must be an integer >= 0, got -1."),
        ({"steps": 1.5}, "simulate: steps must be an integer, got 1.5."),
        ({"steps": None, "jobs": -1}, "simulate: jobs must be an integer >= 0, got -1."),
        (
            {"steps": None, "until_time": float("nan")},
            "simulate: until_time must be finite and >= 0, got nan.",
        ),
        (
            {"steps": None, "until_time": -0.5},
            "simulate: until_time must be finite and >= 0, got -0.5.",
        ),
        ({"steps": None}, "simulate: give a limit: steps, jobs or until_time."),
    ],
)
def test_a_run_that_cannot_be_is_refused(refused, options, text):
    assert refused(lambda: run(Pure(), **options)) == text


@pytest.mark.parametrize("seed", [-1, 0.5, "1"])
def test_a_seed_that_cannot_be_is_refused(refused, seed):
    text = refused(lambda: run(Pure(), seed=seed))
    assert "seed must be an integer" in text
