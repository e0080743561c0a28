"""TopK and RandK against plain NumPy, and what is said of their codes."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare

from asgrad.encoders import Clip, RandK, TopK
from asgrad.encoders.base import Encoder
from asgrad.encoders.sparse import pack, unpack

both_precisions = pytest.mark.parametrize("dtype", [np.float64, np.float32])


def encoded(encoder: Encoder, g: np.ndarray, draw: int = 7) -> np.ndarray:
    """What the kernel makes of a gradient."""
    out = g.copy()
    memory, scratch = np.zeros((0, *g.shape), g.dtype), np.zeros(encoder.n_scratch(len(g)), int)
    type(encoder).kernel(encoder.parameters(), out, 2, draw, 11, memory, scratch)
    return out


def largest(g: np.ndarray, k: int) -> np.ndarray:
    """The k largest of a vector; of equal ones the first."""
    places = np.lexsort((np.arange(g.size), -np.abs(g)))[:k]
    out = np.zeros_like(g)
    out[places] = g[places]
    return out


def gradients(kind: str, dim: int, dtype) -> np.ndarray:
    """Three lanes: without ties, with many, mostly zeros, of all sizes, already sorted."""
    rng = np.random.default_rng(dim)
    g = rng.normal(size=(dim, 3))
    if kind == "ties":
        g = np.round(g)
    elif kind == "zeros":
        g[rng.random(g.shape) < 0.99] = 0.0
    elif kind == "sizes":
        most = 300 if dtype == np.float64 else 37
        g = np.sign(g) * 10.0 ** rng.uniform(-most, most, g.shape)
    elif kind == "sorted":
        g = np.sort(np.abs(g), axis=0)[::-1]
    return np.ascontiguousarray(g, dtype)


@both_precisions
@pytest.mark.parametrize("kind", ["normal", "ties", "zeros", "sizes", "sorted"])
@pytest.mark.parametrize("dim", [1, 2, 50, 4096, 9001])
def test_top_k_keeps_the_largest_and_of_equal_ones_the_first(kind, dim, dtype):
    """In every lane, whatever stands beside it; beyond 4096 numbers a guess comes first."""
    g = gradients(kind, dim, dtype)
    for k in sorted({1, max(1, dim // 100), max(1, dim // 3), dim}):
        found = encoded(TopK(k=k), g)
        assert found.dtype == dtype
        for lane in range(3):
            wanted = largest(g[:, lane], k)
            np.testing.assert_array_equal(found[:, lane], wanted)
            alone = encoded(TopK(k=k), g[:, lane : lane + 1].copy())
            np.testing.assert_array_equal(alone[:, 0], wanted)


def test_a_guess_that_misses_costs_no_number():
    """All that the guess looks at is large, and nothing else is: 4096 of 8192, one in two."""
    g = np.ones((8192, 1))
    g[::2] = 2.0
    g[1] = 3.0
    np.testing.assert_array_equal(encoded(TopK(k=4098), g)[:, 0], largest(g[:, 0], 4098))
    np.testing.assert_array_equal(encoded(TopK(k=20), g)[:, 0], largest(g[:, 0], 20))


def test_rand_k_picks_every_subset_alike():
    """All ten pairs of five, over draws: χ²; and other pairs in another run."""
    g = np.arange(1.0, 6.0)[:, None]
    picked = [tuple(np.flatnonzero(encoded(RandK(k=2), g, draw)[:, 0])) for draw in range(3000)]
    counts = Counter(picked)
    assert set(counts) == set(itertools.combinations(range(5), 2))
    assert chisquare(list(counts.values())).pvalue > 1e-3
    assert picked[0] == tuple(np.flatnonzero(encoded(RandK(k=2), g, 0)[:, 0]))


@both_precisions
def test_rand_k_is_the_same_in_all_lanes_and_scaled_by_d_over_k(dtype):
    g = gradients("normal", 12, dtype)
    found = encoded(RandK(k=3), g)
    kept = found[:, 0] != 0
    assert kept.sum() == 3
    np.testing.assert_array_equal(found[kept], g[kept] * dtype(4))
    assert not found[~kept].any()
    for plain in (RandK(k=3, unbiased=False), RandK(k=3, feedback=True)):
        np.testing.assert_array_equal(encoded(plain, g)[kept], g[kept])


def test_rand_k_is_unbiased_with_its_variance():
    """Over all pairs, that are alike: E C(g) = g, E‖C(g) − g‖² = (d/K − 1) ‖g‖²."""
    g = np.array([[1.0], [-2.0], [0.5], [3.0]])
    codes = {}
    for draw in range(400):
        code = encoded(RandK(k=2), g, draw)
        codes[tuple(np.flatnonzero(code[:, 0]))] = code
    assert len(codes) == 6
    found = np.array(list(codes.values()))
    np.testing.assert_allclose(found.mean(axis=0), g, rtol=1e-15)
    error = np.mean(np.sum((found - g) ** 2, axis=(1, 2)))
    assert np.isclose(error, RandK(k=2).variance(4) * np.sum(g**2), rtol=1e-14)


def test_top_k_contracts_as_it_declares():
    """Tight where all numbers are equal."""
    g = np.ones((10, 1))
    error = np.sum((encoded(TopK(k=3), g) - g) ** 2)
    assert np.isclose(error, TopK(k=3).contraction(10) * np.sum(g**2))
    assert TopK(share=0.3).contraction(10) == RandK(k=3, unbiased=False).contraction(10) == 0.7
    assert np.isnan(TopK().variance(10))
    assert np.isnan(RandK().contraction(10))
    assert np.isnan(Clip().contraction(10))
    assert RandK(share=0.25).variance(8) == 3


@pytest.mark.parametrize(
    ("encoder", "dim", "kept"),
    [(TopK(), 1000, 10), (TopK(), 7, 1), (TopK(share=0.5), 5, 3), (RandK(k=9), 4, 4)],
)
def test_how_many_are_kept_and_how_long_a_code_is(encoder, dim, kept):
    assert encoder.n_kept(dim) == kept
    assert encoder.n_bytes(dim, 8) == 12 * kept
    assert encoder.n_bytes(dim, 4) == 8 * kept
    g = np.random.default_rng(0).normal(size=(dim, 1))
    assert np.count_nonzero(encoded(encoder, g)) == kept
    assert Clip().n_bytes(dim, 4) == 4 * dim


@both_precisions
def test_a_code_comes_back_to_the_bit(dtype):
    """−0 and the least number there is included; its length is what is declared."""
    g = np.zeros((100, 1), dtype)
    g[[3, 5, 99, 40], 0] = [-0.0, np.nextafter(dtype(0), dtype(1)), -7.5, 1e30]
    code = pack(g)
    assert len(code) == TopK(k=4).n_bytes(100, g.itemsize)
    assert unpack(code, 100, g.dtype.name).tobytes() == g.tobytes()
    assert unpack(pack(0 * g), 100, g.dtype.name).dtype == dtype


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (lambda: TopK(share=0), "TopK: share must be finite and > 0, got 0."),
        (lambda: TopK(share=1.5), "TopK: share must lie in (0, 1], got 1.5."),
        (lambda: RandK(k=0), "RandK: k must be an integer >= 1, got 0."),
        (lambda: RandK(0.1, 3), "RandK: give share or k, not both, got share=0.1 and k=3."),
        (lambda: TopK(feedback=1), "TopK: feedback must be true or false, got 1."),
        (lambda: RandK(unbiased=2), "RandK: unbiased must be true or false, got 2."),
    ],
)
def test_what_cannot_be_is_refused(refused, made, text):
    assert refused(made) == text


def test_feedback_of_what_is_scaled_up_is_refused(refused):
    """e − (d/K) e grows; by default what is fed back is not scaled."""
    said = refused(lambda: RandK(feedback=True, unbiased=True))
    assert said.startswith("RandK: unbiased must be false with feedback")
    assert not RandK(feedback=True).is_unbiased
