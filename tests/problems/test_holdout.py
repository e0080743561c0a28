"""Rows kept for testing: chosen from the seed, measured apart from f, and never trained on."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

import asgrad as ag
from asgrad.errors import KindError
from asgrad.problems import LeastSquares, Logistic, Softmax, Tridiagonal, load

RNG = np.random.default_rng(0)
ROWS, LABELS = RNG.normal(size=(90, 4)), RNG.choice([2.0, 5.0, 9.0], 90)
OTHER, NAMES = RNG.normal(size=(31, 4)), RNG.choice([2.0, 5.0, 9.0], 31)
SAID = {"n_workers": 3, "split": "contiguous", "strength": 0.1}


def test_accuracy_and_test_loss_are_those_of_the_test_rows():
    """The test loss has no regulariser; loss and gradient are as without test rows, bit for bit."""
    x = np.random.default_rng(1).normal(size=12)
    plain = Softmax(ROWS, LABELS, **SAID)
    problem = Softmax(ROWS, LABELS, test=(OTHER, NAMES), **SAID)
    scores, right = OTHER @ x.reshape(4, 3), np.searchsorted([2, 5, 9], NAMES)
    losses = special.logsumexp(scores, axis=1) - scores[np.arange(31), right]
    assert problem.test_loss(x) == pytest.approx(losses.mean(), rel=1e-13)
    assert problem.accuracy(x) == (scores.argmax(axis=1) == right).mean()
    assert problem.loss(x) == plain.loss(x)
    np.testing.assert_array_equal(problem.full_gradient(x), plain.full_gradient(x))
    for worker in range(3):
        np.testing.assert_array_equal(problem.gradient(x, worker), plain.gradient(x, worker))
    assert problem.smoothness == plain.smoothness
    assert np.isnan(plain.test_loss(x))
    assert problem.notes == ("31 rows of data are for testing",)


def test_the_test_loss_of_values_and_of_two_classes():
    x = np.array([1.0, -2.0, 0.5, 0.25])
    problem = LeastSquares(ROWS, LABELS, test=(OTHER, NAMES), **SAID)
    assert problem.test_loss(x) == pytest.approx(((OTHER @ x - NAMES) ** 2).mean() / 2, rel=1e-13)
    assert np.isnan(problem.accuracy(x))
    signs = np.where(NAMES > 2, 1.0, -1.0)
    problem = Logistic(ROWS, LABELS > 2, test=(OTHER, NAMES > 2), **SAID)
    margins = signs * (OTHER @ x)
    assert problem.test_loss(x) == pytest.approx(np.logaddexp(0, -margins).mean(), rel=1e-13)
    assert problem.accuracy(x) == (margins > 0).mean()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_replay_carries_the_test_loss_of_every_lane(dtype):
    problem = Softmax(ROWS, LABELS, test=0.3, batch=4, **SAID)
    trace = ag.simulate(ag.methods.Pure(), ag.times.Linear(), n_workers=3, steps=40)
    result = ag.replay(trace, problem, [0.01, 0.5, 1e30], evaluations=4, dtype=dtype)
    for lane in (0, 1):
        model = result.models[:, lane].astype(float)
        assert result.test_loss[-1, lane] == pytest.approx(problem.test_loss(model), rel=1e-5)
        assert result.accuracy[-1, lane] == problem.accuracy(model)
    assert result.test_loss[0] == pytest.approx(np.log(3))
    assert np.isnan(result.test_loss[-1, 2])  # it has diverged
    none = ag.replay(trace, Tridiagonal(8, n_workers=3), 0.1, evaluations=4)
    assert none.test_loss.shape == none.loss.shape
    assert np.isnan(none.test_loss).all()


def test_compare_keeps_the_test_loss_of_all_lanes():
    problem = Softmax(ROWS, LABELS, test=0.3, **SAID)
    found = ag.compare(problem, ag.times.Linear(), ["sync"], steps=5, seeds=1, threads=2)
    result = found.results["", "sync", 0]
    assert result.test_loss.shape == result.loss.shape
    assert np.isfinite(result.test_loss[-1, 0])


def test_a_share_is_drawn_from_the_seed_and_leaves_the_rest_in_order():
    """Row k has the feature k: the rows can be told from each other."""
    rows, targets = np.arange(1.0, 41.0)[:, None], np.arange(40.0)

    def parts(seed):
        problem = LeastSquares(rows, targets, test=0.25, n_workers=2, split="contiguous", seed=seed)
        training, test = problem.features.toarray()[:, 0], problem.test_features.toarray()[:, 0]
        np.testing.assert_array_equal(problem.targets, training - 1)
        np.testing.assert_array_equal(problem.test_targets, test - 1)
        return training, test

    training, test = parts(0)
    assert test.size == 10
    assert (np.diff(training) > 0).all()
    np.testing.assert_array_equal(np.sort(np.concatenate([training, test])), rows[:, 0])
    np.testing.assert_array_equal(parts(0)[1], test)
    assert set(parts(1)[1]) != set(test)
    counts = np.zeros(41)
    for seed in range(200):
        counts[parts(seed)[1].astype(int)] += 1
    assert stats.chisquare(counts[1:]).pvalue > 1e-3


def test_a_share_says_how_many_rows_it_is():
    problem = Softmax("digits", test=0.2, n_workers=4)
    assert problem.notes == ("359 of 1797 rows, drawn at random, are for testing",)
    assert problem.label == "softmax on digits, 4 workers, split shuffled, 359 test rows"
    assert problem.targets.size == 1438


TRAINING = "1 1:1 3:2\n-1 2:1\n1 1:3\n-1 3:1\n"


@pytest.mark.parametrize(
    ("text", "rows", "said"),
    [
        ("1 1:5\n-1 2:7\n", [[5, 0, 0], [0, 7, 0]], ""),  # fewer features
        ("1 1:5 3:1\n-1 9:7\n", [[5, 0, 1], [0, 0, 0]], ", without 6 features that no training"),
    ],
)
def test_a_test_file_has_the_features_of_the_training_file(tmp_path, text, rows, said):
    (tmp_path / "a.svm").write_text(TRAINING)
    (tmp_path / "a.t").write_text(text)
    problem = Logistic(tmp_path / "a.svm", test=str(tmp_path / "a.t"), n_workers=2)
    np.testing.assert_array_equal(problem.test_features.toarray(), rows)
    assert problem.notes[-1].startswith(f"2 rows of a are for testing{said}")
    given = load(tmp_path / "a.t")
    before = given.features.toarray()
    Logistic(tmp_path / "a.svm", test=given, n_workers=2)
    np.testing.assert_array_equal(given.features.toarray(), before)  # it is the user's


def test_files_that_count_from_zero(tmp_path, refused):
    """A test file without index 0 counts as its training file does."""
    (tmp_path / "zero.svm").write_text("1 0:1 2:2\n-1 1:1\n")
    (tmp_path / "one.svm").write_text("1 1:5\n-1 2:7\n")
    problem = Logistic(tmp_path / "zero.svm", test=tmp_path / "one.svm", n_workers=2)
    np.testing.assert_array_equal(problem.test_features.toarray(), [[0, 5, 0], [0, 0, 7]])
    text = refused(lambda: Logistic(tmp_path / "one.svm", test=tmp_path / "zero.svm", n_workers=2))
    assert "got index 0 in zero, and none in one" in text


@pytest.mark.parametrize(
    ("test", "said"),
    [
        (0.0, "test as a share must lie between 0 and 1, got 0"),
        (1, "test as a share must lie between 0 and 1, got 1"),
        (-0.5, "test as a share must lie between 0 and 1, got -0.5"),
        (float("nan"), "test as a share must lie between 0 and 1, got nan"),
        (0.001, "rows for training and for testing, got 0 of 90 rows for testing"),
        (0.999, "rows for training and for testing, got 90 of 90 rows for testing"),
        ("nowhere.t", "no file nowhere.t"),
        ((OTHER[:, :3], NAMES), "must have the 4 features of the training rows, got 3"),
        ((OTHER, NAMES + 1), "must be labels of the data, got "),
        ((OTHER, NAMES[:-1]), "one target a row"),
    ],
)
def test_test_rows_that_are_none_are_refused(refused, test, said):
    assert said in refused(lambda: Softmax(ROWS, LABELS, test=test, **SAID))


@pytest.mark.parametrize("test", [True, OTHER, [OTHER, NAMES], {"rows": 3}])
def test_test_rows_of_another_kind_are_refused(refused, test):
    text = refused(lambda: Softmax(ROWS, LABELS, test=test, **SAID), KindError)
    assert text.startswith("Softmax: test must be a share such as 0.2, a name, a path or")


def test_a_share_that_leaves_one_class_is_refused(refused):
    labels = np.array([1.0] + [-1.0] * 9)
    seeds = range(20)

    def outcome(seed):
        try:
            return Logistic(ROWS[:10], labels, test=0.5, n_workers=2, seed=seed).targets.max()
        except ag.AsgradError as error:
            return str(error)

    found = {outcome(seed) for seed in seeds}
    assert found == {
        1.0,
        "Logistic: the training rows that test leaves are of one class only; take a smaller share, "
        "or another seed.",
    }
