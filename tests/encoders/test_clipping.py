"""Clipping at the worker, against plain NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from asgrad.encoders import Clip, Encoder

both_precisions = pytest.mark.parametrize("dtype", [np.float64, np.float32])


def encoded(encoder: Encoder, g: np.ndarray) -> np.ndarray:
    """What the kernel makes of a gradient."""
    out = np.ascontiguousarray(g).copy()
    memory = np.zeros((0, *g.shape), g.dtype)
    type(encoder).kernel(encoder.parameters(), out, 2, 7, 11, memory, np.zeros(0, np.int64))
    assert out.dtype == g.dtype
    return out


def gradients(dtype, n_lanes: int) -> np.ndarray:
    """Gradients of norms from about 0.01 to 1000."""
    rng = np.random.default_rng(n_lanes)
    sizes = 10.0 ** rng.uniform(-2, 3, n_lanes)
    return (sizes * rng.normal(size=(11, n_lanes))).astype(dtype)


@both_precisions
@pytest.mark.parametrize("threshold", [1e-3, 1.0, 20.0])
@pytest.mark.parametrize("n_lanes", [1, 2, 9])
def test_clip_is_the_formula_lane_by_lane(dtype, threshold, n_lanes):
    g = gradients(dtype, n_lanes)
    norms = np.linalg.norm(g.astype(np.float64), axis=0)
    wanted = np.minimum(1, threshold / norms) * g
    precision = 1e-14 if dtype == np.float64 else 1e-6
    np.testing.assert_allclose(encoded(Clip(threshold), g), wanted, rtol=precision)


@both_precisions
def test_clip_leaves_what_is_short_enough_to_the_bit(dtype):
    g = gradients(dtype, 5)
    np.testing.assert_array_equal(encoded(Clip(1e6), g), g)
    np.testing.assert_array_equal(encoded(Clip(1.0), np.zeros((4, 2), dtype)), 0)
    edge = np.array([[3.0], [4.0]], dtype)
    np.testing.assert_array_equal(encoded(Clip(5.0), edge), edge)


@both_precisions
def test_a_clipped_lane_is_that_of_the_lane_alone(dtype):
    g = gradients(dtype, 7)
    together = encoded(Clip(0.5), g)
    for lane in range(7):
        alone = encoded(Clip(0.5), g[:, lane : lane + 1].copy())
        assert together[:, lane].tobytes() == alone.tobytes()


def test_a_lane_that_blew_up_leaves_the_others_alone():
    g = gradients(np.float64, 3)
    wanted = encoded(Clip(0.5), g)
    for poison in (np.nan, np.inf):
        ill = g.copy()
        ill[:, 1] = poison
        np.testing.assert_array_equal(encoded(Clip(0.5), ill)[:, [0, 2]], wanted[:, [0, 2]])
        assert not np.isfinite(encoded(Clip(0.5), ill)[:, 1]).any()


def test_single_precision_gradients_of_any_size_are_clipped():
    g = np.array([[3e37], [4e37]], np.float32)
    np.testing.assert_allclose(encoded(Clip(5.0), g), [[3.0], [4.0]], rtol=1e-6)


def test_clipping_remembers_nothing():
    assert Clip().n_blocks() == 0
    assert Clip().name == "clip"
    assert Clip().parameters().dtype == np.float64


@pytest.mark.parametrize(
    ("threshold", "text"),
    [
        (0, "Clip: threshold must be finite and > 0, got 0."),
        (-1, "Clip: threshold must be finite and > 0, got -1."),
        (math.nan, "Clip: threshold must be finite and > 0, got nan."),
        (math.inf, "Clip: threshold must be finite and > 0, got inf."),
        ("1", "Clip: threshold must be a number, got '1'."),
        (None, "Clip: threshold must be a number, got None."),
    ],
)
def test_a_threshold_that_cannot_be_is_refused(refused, threshold, text):
    assert refused(lambda: Clip(threshold)) == text
