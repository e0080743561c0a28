"""What a problem's numbers follow from is told from all else, and a change is named."""

from __future__ import annotations

import dataclasses
import struct

import numpy as np
import pytest

import asgrad as ag
from asgrad.problems.fingerprint import difference, fingerprint

ROWS, LABELS = np.random.default_rng(0).normal(size=(60, 4)), np.arange(60) % 2 * 2 - 1.0


def flipped(array: np.ndarray, place: int) -> np.ndarray:
    """A copy with the last bit of one number changed."""
    copy = array.copy()
    raw = struct.unpack("<q", struct.pack("<d", copy.flat[place]))[0] ^ 1
    copy.flat[place] = struct.unpack("<d", struct.pack("<q", raw))[0]
    return copy


def logistic(rows=ROWS, labels=LABELS, **changed) -> ag.Problem:
    """A linear model."""
    said = {"n_workers": 3, "batch": 8, "strength": 0.1, "split": "contiguous"}
    return ag.problems.Logistic((rows, labels), **{**said, **changed})


def tridiagonal(dim=8, **changed) -> ag.Problem:
    """A quadratic."""
    return ag.problems.Tridiagonal(dim, **{"n_workers": 3, "noise": 0.1, **changed})


def quadratic(seed=0) -> ag.Problem:
    """One with a random rotation."""
    return ag.problems.Quadratic([1.0, 2.0], seed=seed)


class Own(ag.Problem):
    """A problem in plain Python, f_i = ‖x − rows_i‖²/2 with noise and a penalty that is 0 at 0."""

    dim, n_workers = 4, 3

    def __init__(self, rows=ROWS[:3], noise=0.1, penalty=0.0, file="here.csv"):
        self._rows, self.noise, self.penalty, self.file = rows, noise, penalty, file
        self.n_calls = 0

    def gradient(self, x, worker, draw=0, rng=None):
        self.n_calls += 1
        return x - self._rows[worker] + self.noise * rng.normal(size=4) + self.penalty * x**3

    def loss(self, x):
        return 0.5 * np.square(x - self._rows).sum(axis=1).mean() + self.penalty * (x**4).sum() / 4

    def full_gradient(self, x):
        return x - self._rows.mean(axis=0) + self.penalty * x**3


class Steep(Own):
    """Another function with the same attributes."""

    def gradient(self, x, worker, draw=0, rng=None):
        return 2 * super().gradient(x, worker, draw, rng)


Steep.__name__ = "Own"  # as if the user had edited it


@dataclasses.dataclass
class Declared(Own):
    """Its fields stand in its head."""

    power: int = 2

    def __post_init__(self):
        super().__init__()


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        (logistic(), logistic(n_workers=4), "n_workers = 3, this one has 4"),
        (logistic(), logistic(batch=None), "batch = 8, this one has 0"),
        (logistic(), logistic(strength=0.2), "strength = 0.1, this one has 0.2"),
        (logistic(), logistic(regularizer="nonconvex"), "regularizer = l2, this one has nonconvex"),
        (logistic(), logistic(split="shuffled"), "other split"),
        (logistic(split="shuffled"), logistic(split="shuffled", seed=1), "other split"),
        (logistic(), logistic(flipped(ROWS, 17)), "other data"),
        (logistic(), logistic(labels=np.roll(LABELS, 1)), "other data"),
        (logistic(), ag.problems.LeastSquares((ROWS, LABELS)), "class = Logistic"),
        (tridiagonal(), tridiagonal(9), "dim = 8, this one has 9"),
        (tridiagonal(), tridiagonal(noise=0.0), "noise = 0.1, this one has 0.0"),
        (quadratic(), quadratic(seed=1), "other data"),
        (Own(), Own(flipped(ROWS[:3], 2)), "other _rows"),
        (Own(), Own(noise=0.2), "noise = 0.1, this one has 0.2"),
        (Own(), Own(penalty=1.0), "penalty = 0.0, this one has 1.0"),
        (Own(), Steep(), "other gradients"),
        (Declared(), Declared(power=3), "power = 2, this one has 3"),
    ],
)  # fmt: skip
def test_a_change_is_named(one, other, said):
    assert said in difference(fingerprint(one), fingerprint(other))


@pytest.mark.parametrize("make", [logistic, tridiagonal, quadratic, Own, Declared])
def test_the_same_problem_made_again_is_the_same(make):
    """Also after it has been used, and its smoothness has been asked for."""
    one, other = make(), make()
    before = fingerprint(one)
    one.gradient(np.ones(one.dim), 0, 0, np.random.default_rng(0))
    assert one.smoothness != 0
    assert before == fingerprint(other)
    assert difference(before, fingerprint(one)) == ""


def test_names_of_files_and_roundings_are_no_difference():
    """Data move; other processors sum in another order."""
    here = fingerprint(Own())
    assert difference(here, fingerprint(Own(file="there.csv"))) == ""
    numbers = [float(text) for text in here["gradients"].removeprefix("numbers:").split()]
    for factor, said in ((1 + 1e-9, ""), (1.01, "other gradients")):
        moved = "numbers:" + " ".join(repr(number * factor) for number in numbers)
        assert difference(here, {**here, "gradients": moved}) == said


def test_what_cannot_be_computed_or_repeated_is_left_out():
    """The run itself says what is wrong with it."""

    class Wild(Own):
        def gradient(self, x, worker, draw=0, rng=None):
            return np.random.default_rng().normal(size=4)

        def loss(self, x):
            raise ValueError("no loss")

    assert not {"gradients", "loss"} & fingerprint(Wild()).keys()


def test_a_torch_problem_is_told_from_others():
    """Parameters, buffers, activation, loss, augment, rows, their types and the split."""
    torch = pytest.importorskip("torch")
    from asgrad.problems.torch import TorchProblem

    def problem(activation=torch.nn.ReLU, loss=torch.nn.functional.cross_entropy, bias=0.0,
                buffer=0.0, pixel=1.0, **changed):  # fmt: skip
        torch.manual_seed(0)
        module = torch.nn.Sequential(torch.nn.Linear(3, 4), activation(), torch.nn.Linear(4, 2))
        torch.nn.init.constant_(module[2].bias, bias)
        module.register_buffer("shift", torch.tensor(buffer))
        inputs = torch.ones(12, 3)
        inputs[5, 1] = pixel
        return TorchProblem(
            module, loss, (inputs, torch.arange(12) % 2), **{"n_workers": 2, "batch": 3, **changed}
        )

    def flip(inputs, rng):
        return inputs.flip(1)

    here = fingerprint(problem())
    assert difference(here, fingerprint(problem())) == ""
    for changed, said in (
        ({"batch": 4}, "batch = 3, this one has 4"),
        ({"loss": torch.nn.functional.multi_margin_loss}, "cross_entropy, this one has torch.nn"),
        ({"loss": torch.nn.CrossEntropyLoss(label_smoothing=0.1)}, "loss = "),
        ({"augment": flip}, "augment = None, this one has "),
        ({"activation": torch.nn.Tanh}, "other module"),
        ({"bias": 0.5}, "another x0"),
        ({"buffer": 0.5}, "other parameters"),
        ({"pixel": 1.0000001}, "other data"),
        ({"split": "contiguous"}, "other data"),
    ):  # fmt: skip
        assert said in difference(here, fingerprint(problem(**changed))), changed
