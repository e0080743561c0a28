"""Which rows a stochastic gradient takes: uniform, without replacement, from the stream alone."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from asgrad.problems import LeastSquares
from asgrad.streams import Purpose, stream_key

KEY = stream_key(1, Purpose.GRADIENT)


def marked(n_rows: int, batch: int, n_workers: int = 1) -> LeastSquares:
    """A problem whose gradient at 0 is 1/b at the rows of the batch and 0 elsewhere.

    Row j is the j-th unit vector and its target −1: the residual at x = 0 is 1 for every row.
    """
    return LeastSquares(
        (np.eye(n_rows), -np.ones(n_rows)), n_workers=n_workers, split="contiguous", batch=batch
    )


class Sampler:
    """Calls the gradient kernel with buffers that live on from call to call."""

    def __init__(self, problem: LeastSquares, n_lanes: int = 1):
        self.problem = problem
        self.kernel = problem.kernels().gradient
        self.packed = problem.pack(np.float64)
        self.scratch, self.picks = problem.buffers(n_lanes, np.float64)
        self.x = np.zeros((problem.dim, n_lanes))
        self.out = np.empty_like(self.x)

    def __call__(self, draw: int, worker: int = 0, key: int = KEY) -> np.ndarray:
        """Return the gradient; the caller is to be done with it before the next call."""
        self.kernel(
            *self.packed, self.x, worker, draw, key, self.out, self.scratch, self.picks
        )  # fmt: skip
        return self.out


@pytest.mark.parametrize(("n_rows", "batch"), [(1, 1), (7, 1), (7, 3), (7, 6), (7, 7), (200, 130)])
def test_rows_are_drawn_without_replacement(n_rows, batch):
    sample = Sampler(marked(n_rows, batch))
    for draw in range(50):
        # A row that came twice would weigh 2/b.
        got = np.sort(sample(draw)[:, 0])[::-1]
        wanted = np.append(np.full(batch, 1 / batch), np.zeros(n_rows - batch))
        np.testing.assert_array_equal(got, wanted)


def test_picks_are_left_as_they_were():
    sample = Sampler(marked(60, 7, n_workers=4))
    for draw, worker in itertools.product(range(100), range(4)):
        sample(draw, worker)
        np.testing.assert_array_equal(sample.picks, np.arange(15), strict=True)


@pytest.mark.parametrize(("n_rows", "batch"), [(23, 1), (23, 7), (23, 22), (70, 66)])
def test_every_row_is_equally_likely(n_rows, batch):
    sample = Sampler(marked(n_rows, batch))
    n_draws = 6000
    counts = sum((sample(draw)[:, 0] > 0).astype(int) for draw in range(n_draws))
    expected = n_draws * batch / n_rows
    # Without replacement the counts of a draw vary less, by the factor (n − b)/(n − 1).
    statistic = ((counts - expected) ** 2 / expected).sum() * (n_rows - 1) / (n_rows - batch)
    assert 1e-3 < stats.chi2.sf(statistic, n_rows - 1) < 1 - 1e-3


def test_every_pair_of_rows_is_equally_likely():
    sample = Sampler(marked(6, 2))
    counts = dict.fromkeys(itertools.combinations(range(6), 2), 0)
    for draw in range(15 * 400):
        counts[tuple(np.flatnonzero(sample(draw)[:, 0]).tolist())] += 1
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


@pytest.mark.parametrize("what", ["draw", "worker", "key"])
def test_batches_that_differ_in_one_index_are_independent(what):
    # Independent batches of 5 in 20 overlap in a hypergeometric number of rows.
    sample = Sampler(marked(20 * 50, 5, n_workers=50))
    overlaps = np.zeros(6, int)
    for i in range(3000):
        first = {"draw": i, "worker": i % 49, "key": KEY + i // 49}
        second = first | {what: first[what] + 1}
        rows = [np.flatnonzero(sample(**index)[:, 0]) % 20 for index in (first, second)]
        overlaps[np.intersect1d(*rows).size] += 1
    expected = stats.hypergeom(20, 5, 5).pmf(np.arange(6)) * 3000
    merged = [
        (counts[0], counts[1], counts[2], counts[3:].sum()) for counts in (overlaps, expected)
    ]
    assert stats.chisquare(*merged).pvalue > 1e-3


def test_a_batch_follows_from_key_worker_and_draw_alone():
    small = marked(60, 7, n_workers=4)
    jobs = list(itertools.product(range(20), range(4), (KEY, KEY + 1)))
    sample = Sampler(small)
    forward = {job: sample(*job)[:, 0].copy() for job in jobs}
    # In another order, in other buffers, beside other lanes, by another door, in a larger problem.
    many = Sampler(small, n_lanes=3)
    larger = Sampler(marked(90, 7, n_workers=6))
    for job in reversed(jobs):
        draw, worker, key = job
        for lane in many(*job).T:
            np.testing.assert_array_equal(lane, forward[job])
        np.testing.assert_array_equal(
            small.gradient(np.zeros(60), worker, draw, key=key), forward[job]
        )
        np.testing.assert_array_equal(larger(*job)[:60, 0], forward[job])
    assert len({tuple(np.flatnonzero(v) % 15) for v in forward.values()}) > 0.9 * len(jobs)


def test_a_batch_is_unbiased():
    rng = np.random.default_rng(2)
    rows, targets = rng.normal(size=(40, 3)), rng.normal(size=40)
    part = LeastSquares((rows, targets), n_workers=2, batch=4)
    whole = LeastSquares((rows, targets), n_workers=2)
    x, n_draws = rng.normal(size=3), 4000
    for worker in range(2):
        draws = np.array([part.gradient(x, worker, draw, key=KEY) for draw in range(n_draws)])
        error = (draws.mean(axis=0) - whole.gradient(x, worker)) / draws.std(axis=0)
        assert (np.abs(error) < 4 / math.sqrt(n_draws)).all()
