"""Encoders in general: where they run, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

import asgrad as ag
from asgrad.encoders.base import Encoder
from asgrad.kernels import inlined
from asgrad.registry import catalogue
from asgrad.workers.base import Computation


@inlined
def _mark(parameters, g, worker, draw, key, memory, scratch):
    """g ← 1000 worker + draw + key."""
    for i in range(g.shape[0]):
        for lane in range(g.shape[1]):
            g[i, lane] = 1000 * worker + draw + key


@dataclass(frozen=True)
class Mark(Encoder):
    """Every gradient is what the encoder is told."""

    blocks: int = 0
    kernel: ClassVar = _mark

    def parameters(self) -> np.ndarray:
        return np.zeros(1)

    def n_blocks(self) -> int:
        return self.blocks


PROBLEM = ag.problems.Tridiagonal(3, n_workers=2)


def test_an_encoder_is_told_worker_draw_and_stream():
    """At the worker: what it delivers is encoded already."""
    out = np.empty((3, 1))
    assert Computation(PROBLEM, "float64", 50, 1, Mark())(np.ones((3, 1)), 7, out)
    np.testing.assert_array_equal(out, 1057.0)


def test_a_replay_encodes_as_the_worker_does():
    """Two workers one after the other: x_0 − γ Σ (1000 worker + draw + key), by hand."""
    from asgrad.streams import Purpose, stream_key

    trace = ag.simulate(ag.methods.Pure(), ag.times.Fixed([1.0, 1.5]), n_workers=2, steps=3)
    result = ag.replay(trace, PROBLEM, 0.5, recipe=Mark(), x0=np.zeros(3), evaluations=0)
    key = np.float64(stream_key(0, Purpose.GRADIENT))
    # Arrivals at 1 (worker 0), 1.5 (worker 1), 2 (worker 0, draw 1).
    wanted = 0.0
    for told in (0, 1000, 1):
        wanted = wanted - 0.5 * np.float64(told + key)
    np.testing.assert_allclose(result.models[:, 0], wanted, rtol=1e-12)


def test_what_is_not_finite_is_refused_before_it_is_encoded():
    """An encoder may hide it."""
    out, x = np.empty((3, 1)), np.full((3, 1), np.inf)
    assert not Computation(PROBLEM, "float64", 50, 1, Mark())(x, 7, out)
    assert not np.isfinite(out).all()


@inlined
def _add_up(parameters, g, worker, draw, key, memory, scratch):
    """g ← the sum of all gradients so far, and the number of them in the second block."""
    for i in range(g.shape[0]):
        for lane in range(g.shape[1]):
            memory[0, i, lane] += g[i, lane]
            memory[1, i, lane] += 1
            g[i, lane] = memory[0, i, lane] + 100 * memory[1, i, lane]


@dataclass(frozen=True)
class AddUp(Mark):
    """An encoder that remembers two blocks; a third one with feedback."""

    blocks: int = 2
    feedback: bool = False
    kernel: ClassVar = _add_up


@pytest.mark.parametrize("feedback", [False, True])
def test_an_encoder_of_ones_own_may_remember(feedback):
    """Rennala drops gradients, which it sees as well."""
    recipe = ("rennala:batch=2", AddUp(feedback=feedback))
    run = ag.train(PROBLEM, recipe, 1e-3, workers=ag.Virtual("normal"), steps=15)
    again = ag.replay(run.trace, PROBLEM, 1e-3, recipe=recipe)
    np.testing.assert_array_equal(again.models[:, 0], run.model)
    assert (run.trace.jobs.fate == 2).any()


@pytest.mark.parametrize("name", catalogue(ag.encoders))
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_run_with_an_encoder_replays_bit_for_bit(name, dtype):
    """Encoded by the worker there, by the walk here."""
    problem = ag.problems.Quadratic(np.linspace(0.1, 1, 6), n_workers=3, noise=0.3)
    run = ag.train(problem, f"pure+{name}", 0.3, steps=80, dtype=dtype)
    again = ag.replay(run.trace, problem, 0.3, dtype=dtype)
    np.testing.assert_array_equal(again.models[:, 0], run.model)
    plain = ag.replay(run.trace, problem, 0.3, dtype=dtype, recipe="pure")
    assert (plain.models[:, 0] != run.model).any()
