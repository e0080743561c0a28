"""The random streams, against SplitMix64 in plain Python integers and against their laws."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from asgrad.errors import KindError
from asgrad.streams import (
    N_TOGETHER,
    Purpose,
    below,
    mix,
    normal,
    set_normals,
    shuffle,
    stream_key,
    uniform,
)

WORD = 2**64
KEYS = [0, 1, -1, 1234567, 2**63 - 1, -(2**63), -8234567890123456789]


def splitmix(key: int, index: int) -> int:
    """Number `index` of SplitMix64 started at `key`, in plain integers."""
    z = (key + (index + 1) * 0x9E3779B97F4A7C15) % WORD
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WORD
    return z ^ (z >> 31)


def unit(key: int, index: int) -> float:
    """The middle of the cell of width 2^-52 that the number's top 52 bits name."""
    return ((splitmix(key, index) >> 12) + 0.5) / 2.0**52


def test_mix_gives_the_published_numbers_of_splitmix64():
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert [mix(1234567, i) for i in range(5)] == published


@pytest.mark.parametrize("key", KEYS)
def test_mix_is_splitmix64_for_any_key(key):
    for index in (0, 1, 2, 63, 10**6, 2**40):
        assert mix(key, index) == splitmix(key, index)


@pytest.mark.parametrize("key", KEYS)
def test_uniform_is_the_middle_of_its_cell(key):
    for index in range(50):
        assert uniform(key, index) == unit(key, index)


def test_uniform_is_uniform_and_never_an_end():
    draws = np.array([uniform(99, i) for i in range(20_000)])
    assert draws.min() > 0.0
    assert draws.max() < 1.0
    assert stats.kstest(draws, "uniform").pvalue > 1e-3
    # Neighbours, in the stream and in the keys, have nothing to do with each other.
    beside = np.array([uniform(100, i) for i in range(20_000)])
    for other in (beside, np.roll(draws, 1)):
        assert abs(np.corrcoef(draws, other)[0, 1]) < 4 / math.sqrt(draws.size)


def test_normal_is_box_and_muller():
    for key, index in itertools.product(KEYS, range(20)):
        u, v = unit(key, 2 * index), unit(key, 2 * index + 1)
        wanted = math.sqrt(-2 * math.log(u)) * math.cos(2 * math.pi * v)
        assert normal(key, index) == pytest.approx(wanted, rel=1e-13, abs=1e-13)


def normals(key: int, count: int, first: int = 0) -> np.ndarray:
    """So many standard normal numbers of a stream."""
    out = np.full(-(-count // N_TOGETHER) * N_TOGETHER, np.nan, np.float32)
    set_normals(key, first, count, out)
    return out[:count].astype(np.float64)


@pytest.mark.parametrize("key", KEYS)
def test_normals_are_box_and_muller(key):
    half, found = N_TOGETHER // 2, normals(key, 10 * N_TOGETHER)
    for i in range(0, found.size // 2, 3):
        block, pair = divmod(i, half)
        bits = splitmix(key, i)
        u = float((np.float32((bits >> 32) % 2**31) + np.float32(0.5)) * np.float32(2.0**-31))
        radius = math.sqrt(-2.0 * math.log(u)) * (-1.0 if bits >> 63 else 1.0)
        low = bits % 2**32
        angle = math.pi * (low - 2**32 * (low >> 31)) / 2.0**32
        wanted = [radius * math.cos(angle), radius * math.sin(angle)]
        pairs = [found[block * N_TOGETHER + pair], found[block * N_TOGETHER + half + pair]]
        assert pairs == pytest.approx(wanted, rel=2e-6, abs=1e-6)


@pytest.mark.parametrize("count", [1, 2, 3, 31, 33, 63, 64, 65, 300])
def test_a_normal_number_does_not_depend_on_how_many_are_made(count):
    for first in (0, N_TOGETHER, 5 * N_TOGETHER):
        wanted = normals(5, 1000)[first : first + count]
        np.testing.assert_array_equal(normals(5, count, first), wanted)


def test_normals_are_normal():
    draws = normals(stream_key(7, Purpose.GRADIENT), 100_000)
    assert stats.kstest(draws, "norm").pvalue > 1e-3
    for bound in (2.0, 3.0, 4.0):
        expected = 2 * stats.norm.sf(bound) * draws.size
        assert abs((np.abs(draws) > bound).sum() - expected) < 4 * math.sqrt(expected)


def test_normals_are_independent_of_each_other():
    # Whatever numbers are made from one hash, at whatever distance, must not be related: neither
    # the numbers nor their squares, nor their signs.
    n = 20_000
    draws = normals(stream_key(8, Purpose.GRADIENT), n)
    first, second = (
        draws[: n // N_TOGETHER * N_TOGETHER].reshape(-1, 2, N_TOGETHER // 2).swapaxes(0, 1)
    )
    first, second = first.ravel(), second.ravel()  # number i of either is made from hash i
    for other in (second, np.roll(first, 1), np.roll(second, 1)):
        for a, b in ((first, other), (first**2, other**2), (abs(first), other), (first, other**2)):
            assert abs(np.corrcoef(a, b)[0, 1]) < 4 / math.sqrt(first.size)


def test_the_first_normals_of_many_streams_are_normal():
    draws = np.array([normals(key, 3) for key in range(5_000)])
    for column in draws.T:
        assert stats.kstest(column, "norm").pvalue > 1e-3


@pytest.mark.parametrize("n", [1, 2, 6, 7, 64, 3 * 2**30, 2**32 - 1])
def test_below_is_the_remainder_after_rejection(n):
    state = np.array([-42, 0], np.int64)
    position = 0
    for _ in range(300):
        while (bits := splitmix(-42, position) >> 32) >= 2**32 // n * n:
            position += 1
        position += 1
        assert below(state, n) == bits % n
        assert state.tolist() == [-42, position]


@pytest.mark.parametrize("n", [2, 6, 7, 100])
def test_below_is_uniform(n):
    state = np.array([stream_key(3, Purpose.METHOD), 0], np.int64)
    counts = np.bincount([below(state, n) for _ in range(200 * n)], minlength=n)
    assert counts.size == n
    assert stats.chisquare(counts).pvalue > 1e-3


def test_every_order_is_equally_likely():
    state = np.array([17, 0], np.int64)
    counts = dict.fromkeys(itertools.permutations(range(4)), 0)
    for _ in range(24 * 200):
        items = np.arange(4)
        shuffle(state, items, 4)
        counts[tuple(items.tolist())] += 1
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_a_part_of_a_shuffle_is_a_draw_without_replacement(count):
    state = np.array([18, 0], np.int64)
    counts = dict.fromkeys(itertools.permutations(range(5), count), 0)
    for _ in range(len(counts) * 200):
        items = np.arange(5)
        shuffle(state, items, count)
        assert sorted(items.tolist()) == [0, 1, 2, 3, 4]
        counts[tuple(items[:count].tolist())] += 1
    if count:
        assert stats.chisquare(list(counts.values())).pvalue > 1e-3


def test_a_shuffle_of_one_item_or_none_leaves_it():
    state = np.array([18, 0], np.int64)
    for size in (0, 1):
        items = np.arange(size)
        shuffle(state, items, size)
        assert items.tolist() == list(range(size))


def test_a_key_belongs_to_one_seed_and_one_purpose():
    keys = {stream_key(seed, purpose) for seed in range(200) for purpose in Purpose}
    assert len(keys) == 200 * len(Purpose)
    assert all(-(2**63) <= key < 2**63 for key in keys)
    assert stream_key(5, Purpose.TIMES) == stream_key(5, Purpose.TIMES)
    assert stream_key(2**62, Purpose.TIMES) != stream_key(2**62 - 1, Purpose.TIMES)


def test_a_seed_must_be_a_whole_number(refused):
    assert "must be an integer >= 0, got -1." in refused(lambda: stream_key(-1, Purpose.DATA))
    text = refused(lambda: stream_key(1.5, Purpose.DATA), KindError)
    assert "must be an integer, got 1.5." in text
