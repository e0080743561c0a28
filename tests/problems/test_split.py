"""The ways to deal rows out to workers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from asgrad.problems import Dataset, split

HOW = ("contiguous", "dirichlet", "label", "shuffled")
TARGETS = np.random.default_rng(0).choice([3.0, -1.0, 7.5], 101, p=[0.6, 0.3, 0.1])
DATA = Dataset.of(np.ones((101, 1)), TARGETS)


def parts(how: str, n_workers: int, data: Dataset = DATA, **options) -> list[np.ndarray]:
    """The rows of every worker."""
    if how != "dirichlet":  # alpha is for that one only
        options.pop("alpha", None)
    shards = split(data, n_workers, how, **options)
    assert shards.bounds.shape == (n_workers + 1,)
    return [shards.order[a:b] for a, b in itertools.pairwise(shards.bounds)]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("n_workers", [1, 2, 7, 30])
def test_every_row_goes_to_exactly_one_worker_and_every_worker_has_one(how, n_workers):
    rows = parts(how, n_workers, alpha=2.0)
    assert min(map(len, rows)) > 0
    np.testing.assert_array_equal(np.sort(np.concatenate(rows)), np.arange(101))


@pytest.mark.parametrize("how", HOW)
def test_as_many_workers_as_rows_have_one_each(how):
    data = Dataset.of(np.ones((3, 1)), [1.0, -1.0, 1.0])
    assert sorted(len(rows) for rows in parts(how, 3, data, alpha=50.0)) == [1, 1, 1]


@pytest.mark.parametrize("n_workers", [1, 4, 7, 101])
def test_contiguous_is_the_split_of_array_split(n_workers):
    wanted = np.array_split(np.arange(101), n_workers)
    for rows, slab in zip(parts("contiguous", n_workers), wanted, strict=True):
        np.testing.assert_array_equal(rows, slab)


@pytest.mark.parametrize("how", ["shuffled", "label"])
def test_equal_parts_differ_by_one_row_at_most(how):
    assert [len(rows) for rows in parts(how, 7)] == [15, 15, 15, 14, 14, 14, 14]


def test_label_sorts_by_target_and_keeps_the_order_within():
    rows = np.concatenate(parts("label", 7))
    np.testing.assert_array_equal(TARGETS[rows], np.sort(TARGETS))
    for label in np.unique(TARGETS):
        assert (np.diff(rows[TARGETS[rows] == label]) > 0).all()
    # Three classes over seven workers: two workers at most see more than one class.
    assert sum(np.unique(TARGETS[part]).size > 1 for part in parts("label", 7)) <= 2


@pytest.mark.parametrize("how", ["dirichlet", "shuffled"])
def test_a_random_split_is_fixed_by_its_seed(how):
    first, again, other = (np.concatenate(parts(how, 4, seed=seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("how", ["contiguous", "label"])
def test_a_split_without_chance_ignores_its_seed(how):
    first, other = (np.concatenate(parts(how, 4, seed=seed)) for seed in (1, 2))
    np.testing.assert_array_equal(first, other)


def test_shuffled_is_uniform():
    data = Dataset.of(np.ones((4, 1)), np.zeros(4))
    counts = dict.fromkeys(itertools.permutations(range(4)), 0)
    for seed in range(24 * 60):
        counts[tuple(split(data, 2, "shuffled", seed=seed).order.tolist())] += 1
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


@pytest.mark.parametrize("alpha", [0.6, 5.0])
def test_the_shares_of_a_class_are_dirichlet(alpha):
    # One worker's share of a class is Beta(α, (n − 1) α); shares of two classes are independent.
    targets = np.repeat([0.0, 1.0], 3000)
    data = Dataset.of(np.ones((6000, 1)), targets)
    shares = np.array(
        [
            [np.mean(np.bincount(targets[rows].astype(int), minlength=2)[:, None] / 3000, axis=1)]
            for seed in range(200)
            for rows in parts("dirichlet", 4, data, alpha=alpha, seed=seed)[:1]
        ]
    )[:, 0]
    law = stats.beta(alpha, 3 * alpha)
    for label in (0, 1):
        assert stats.kstest(shares[:, label], law.cdf).pvalue > 1e-3
    assert abs(np.corrcoef(shares.T)[0, 1]) < 4 / np.sqrt(200)


def test_which_rows_of_a_class_a_worker_gets_is_random():
    data = Dataset.of(np.ones((200, 1)), np.zeros(200))
    rows = parts("dirichlet", 3, data, alpha=10.0, seed=4)
    assert all(stats.kstest(part / 200, "uniform").pvalue > 1e-3 for part in rows)


def test_a_smaller_alpha_makes_workers_more_unequal():
    def spread(alpha: float) -> float:
        sizes = [
            [len(rows) for rows in parts("dirichlet", 3, alpha=alpha, seed=s)] for s in range(20)
        ]
        return float(np.std(sizes))

    assert spread(0.1) > spread(1.0) > spread(10.0)


def test_shared_rows_are_one_shard_of_all():
    for n_workers in (1, 5, 10**9):
        shards = split(DATA, n_workers, "shared")
        np.testing.assert_array_equal(shards.order, np.arange(101))
        assert shards.bounds.tolist() == [0, 101]


@pytest.mark.parametrize("how", ["contiguous", "shuffled", "label"])
@pytest.mark.parametrize("n_workers", [1, 2, 7, 30, 101])
def test_equal_shards_leave_out_fewer_rows_than_there_are_workers(how, n_workers):
    rows, equal = parts(how, n_workers), parts(how, n_workers, equal=True)
    for part, cut in zip(rows, equal, strict=True):
        np.testing.assert_array_equal(cut, part[: 101 // n_workers])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"how": "label", "alpha": 0.5}, "alpha is for the split 'dirichlet' only, got 0.5"),
        ({"how": "shared", "alpha": 1.0}, "alpha is for the split 'dirichlet' only, got 1.0"),
        ({"how": "dirichlet", "equal": True}, "got split 'dirichlet'; leave it out"),
        ({"how": "shared", "equal": True}, "got split 'shared'; leave it out"),
        ({"equal": 1}, "equal must be true or false, got 1"),
    ],
)
def test_an_option_of_another_split_is_refused(refused, options, said):
    assert said in refused(lambda: split(DATA, 4, **options))
