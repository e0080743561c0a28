"""Linear models on data of any kind: refused in one line, or right to rounding.

Right means: what the formulas give in long double, worker by worker; L is above every change of a
gradient; and the fingerprint sees a single bit.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy import sparse

from asgrad.errors import AsgradError
from asgrad.problems import LeastSquares, Logistic, Softmax, load
from asgrad.problems.fingerprint import difference, fingerprint

LONG = np.longdouble
FORMS = (
    np.asarray, np.asfortranarray, sparse.csr_matrix, sparse.csc_array, sparse.coo_matrix,
    lambda a: a.astype("f4"), lambda a: a.astype(">f8"), lambda a: a.astype(LONG),
    lambda a: np.nan_to_num(a).clip(-9, 9).astype("i1"), lambda a: a.tolist(),
    lambda a: np.repeat(a, 2, axis=0)[::2], lambda a: np.ma.masked_greater(a, 2.5),
)  # fmt: skip


def drawn_features(rng: np.random.Generator) -> np.ndarray:
    """A table of odd size and content."""
    shape = tuple(rng.choice([[1, 2, 3, 17, 70, 130], [1, 2, 3, 7, 20, 9]], axis=1))
    features = rng.normal(size=shape)
    changes = (
        lambda a: a, lambda a: a * (rng.random(shape) < 0.2), lambda a: 0 * a,
        lambda a: a[rng.integers(0, 1 + shape[0] // 4, shape[0])], lambda a: np.round(20 * a),
        lambda a: a * 10.0 ** rng.uniform(-300, 141),
        lambda a: a * 10.0 ** rng.uniform(-9, 9, shape),
        lambda a: a * 10.0 ** rng.uniform(-300, 139, shape),
        lambda a: np.where(np.arange(shape[0])[:, None] < shape[0] // 2, 0.0, a),
    )  # fmt: skip
    return changes[rng.integers(len(changes))](features)


def drawn_targets(rng: np.random.Generator, n_rows: int) -> object:
    """Labels or values, some of which nobody can use."""
    y = rng.integers(0, 2, n_rows)
    kinds = (
        2.0 * y - 1, y, (y + 1).tolist(), np.array(["a", "b"])[y], rng.normal(size=n_rows),
        rng.integers(-5, 20, n_rows), np.where(rng.random(n_rows) < 0.1, np.nan, y), y > 0,
        np.ma.masked_array(y, rng.random(n_rows) < 0.1), np.full(n_rows, 3.0), y.astype(">i4"),
        (y + 0.1).astype("f4"), y * 10.0 ** rng.uniform(-300, 141), y[:, None],
        y.astype("u8") * np.uint64(2) ** np.uint64(rng.integers(64)),
    )  # fmt: skip
    return kinds[rng.integers(len(kinds))]


def drawn_options(rng: np.random.Generator) -> dict:
    """Options of a linear model, few of them at odds with one another."""
    strengths = [0, 1e-3, 0.1, 10, 1e-300, 1e140, 1e308]
    return {
        "n_workers": int(rng.choice([1, 1, 2, 3, 7])),
        "split": str(rng.choice(["contiguous", "shuffled", "label", "dirichlet", "shared"])),
        "equal": bool(rng.random() < 0.1),
        "regularizer": str(rng.choice(["l2", "nonconvex"])),
        "strength": float(rng.choice(strengths, p=[0.2] * 4 + [0.1, 0.05, 0.05])),
        "test": None if rng.random() < 0.7 else float(rng.choice([0.2, 0.5, 0.01])),
        "x0": [None, "ones", "normal"][rng.integers(3)],
        "seed": int(rng.integers(1000)),
    }  # fmt: skip


def reference(problem, rows, targets, x, strength):
    """Loss and gradient over some rows, and who is answered right, in long double.

    Then which of the answers rounding may change, and the sizes of what is added up in both.
    """
    rows, x = rows.toarray().astype(LONG), x.astype(LONG)
    z, m = rows @ x.reshape(rows.shape[1], -1), targets.size
    reach = np.abs(rows) @ np.abs(x.reshape(rows.shape[1], -1))
    if isinstance(problem, Softmax):
        index = (np.arange(m), targets.astype(int))
        z = z - z.max(axis=1, keepdims=True)
        slope = np.exp(z)
        losses = np.log(slope.sum(axis=1)) - z[index]
        slope = slope / slope.sum(axis=1, keepdims=True)
        slope[index] -= 1
        rivals = z.copy()
        rivals[index] = -np.inf
        margin = z[index] - rivals.max(axis=1)
    elif isinstance(problem, Logistic):
        margin = targets * z[:, 0]
        losses = np.logaddexp(LONG(0), -margin)
        slope = (-targets * np.exp(-np.logaddexp(LONG(0), margin)))[:, None]
    else:
        slope = z - targets[:, None]
        losses, margin = (slope[:, 0] ** 2) / 2, np.zeros(m)
    q = 1 / (1 + x * x)
    l2 = problem.regularizer == "l2"
    loud = strength * np.square(x).sum()  # x² comes first, also where x²/(1 + x²) is meant
    extra = (x * x / 2 if l2 else x * x * q).sum() * strength
    push = (x if l2 else 2 * x * q * q) * strength
    size = 1 + np.abs(slope).max() + reach.max()
    return (
        losses.mean() + extra,
        (rows.T @ slope / m).ravel() + push,
        margin > 0,
        np.abs(margin) <= 1e-12 * reach.max(axis=1) + 1e-290,
        size * size + loud,
        size * (1 + np.abs(rows).max()) + np.abs(push).max() + loud / np.abs(x).max(initial=1e-300),
    )


def assert_near(got, wanted, size) -> None:
    """Equal to rounding of numbers of that size, unless float64 cannot hold them."""
    if size < 1e290:
        assert np.isfinite(got).all()
        assert (np.abs(got - wanted) <= 1e-11 * size + 1e-300).all()


def check_values(problem, x: np.ndarray) -> None:
    """Losses, gradients and answers at a model, worker by worker."""
    shards = [
        reference(problem, problem.features[a:b], problem.targets[a:b], x, problem.strength)
        for a, b in pairwise(problem.shards.bounds)
    ]
    losses, gradients, right, close, sizes, slopes = zip(*shards, strict=True)
    assert_near(problem.loss(x), np.mean(losses), max(sizes))
    assert_near(problem.full_gradient(x), np.mean(gradients, axis=0), max(slopes))
    for worker in range(problem.n_workers):
        shard = min(worker, len(shards) - 1)
        assert_near(problem.gradient(x, worker), gradients[shard], slopes[shard])
    accuracy, test_loss = problem.accuracy(x), problem.test_loss(x)
    if problem.test_targets.size:
        loss, _, *answers, size, _ = reference(  # a loss without the regulariser
            problem, problem.test_features, problem.test_targets, x, 0.0
        )
        right, close = answers[:1], answers[1:]
        assert_near(test_loss, loss, size)
    else:
        assert np.isnan(test_loss)
    if isinstance(problem, LeastSquares):
        assert np.isnan(accuracy)
    else:
        right, close = np.concatenate(right), np.concatenate(close)
        assert (right & ~close).mean() - 1e-12 <= accuracy <= (right | close).mean() + 1e-12


def check_smoothness(problem, x: np.ndarray, y: np.ndarray) -> None:
    """No gradient changes by more than L times the way; targets of squares drop out of it."""
    for a, b in pairwise(problem.shards.bounds):
        targets = problem.targets[a:b] * (not isinstance(problem, LeastSquares))
        one, two = (
            reference(problem, problem.features[a:b], targets, at, problem.strength)
            for at in (x, y)
        )
        if max(one[5], two[5]) > 1e140:
            continue
        noise = 1e-17 * (one[5] + two[5])
        change = np.sqrt(np.square(one[1] - two[1]).sum()) - noise
        way = np.sqrt(np.square(x.astype(LONG) - y).sum())
        assert change <= problem.smoothness * way * (1 + 1e-7)


def check_problem(seed: int) -> None:
    """Draw data, a model and options; refused in one line, or all of the above."""
    rng = np.random.default_rng(seed)
    table = drawn_features(rng)
    with np.errstate(over="ignore"):
        features = FORMS[rng.integers(len(FORMS))](table)
    targets, options = drawn_targets(rng, len(table)), drawn_options(rng)
    model = (Logistic, Softmax, LeastSquares)[rng.integers(3)]
    said, problem = "", None
    try:
        problem = model((features, targets), **options)
    except AsgradError as error:
        said = str(error)
    if problem is None:
        assert len(said.splitlines()) == 1
        return
    size = np.abs(problem.features.data).max(initial=0.0)
    with np.errstate(all="ignore"):
        for scale in (1.0, 1 / size if size > 1e-150 else 1.0, 1e6):
            x = scale * rng.normal(size=problem.dim)
            check_values(problem, x)
            check_smoothness(problem, x, x + scale * rng.normal(size=problem.dim))
    here = fingerprint(problem)
    assert here == fingerprint(model((features, targets), **options))
    data = load((features, targets))
    if data.features.nnz and not options["equal"]:  # which leaves rows out
        bits = data.features.data.view(np.int64)
        bits[rng.integers(bits.size)] ^= 1
        assert difference(here, fingerprint(model(data, **options))).startswith("other data")


@pytest.mark.parametrize("first", range(0, 400, 50))
def test_any_data_are_refused_or_right(first):
    for seed in range(first, first + 50):
        check_problem(seed)


@pytest.mark.soak
@pytest.mark.parametrize("first", range(1000, 41_000, 1000))
def test_any_data_for_long(first):
    for seed in range(first, first + 1000):
        check_problem(seed)
