"""A problem that a user writes in plain Python does in replay what a compiled one does."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from scipy import special

from asgrad.corrections import DelayCompensation
from asgrad.encoders import Clip
from asgrad.methods import ACE, Pure, Rennala, Ringleader, Sync
from asgrad.numerics import replay
from asgrad.optimizers import AMSGrad, HeavyBall
from asgrad.problems import Logistic, Problem, Tridiagonal
from asgrad.simulation import simulate
from asgrad.stepsizes import Koloskova
from asgrad.streams import Purpose, stream_key
from asgrad.times import Exponential, Linear
from asgrad.training import train

N_WORKERS = 3


class OwnLogistic(Problem):
    """Logistic regression with (λ/2) ‖x‖², as a newcomer would write it."""

    def __init__(self, rows, targets, owners, strength):
        self.shards = [(rows[owners == i], targets[owners == i]) for i in range(N_WORKERS)]
        self.n_workers, self.dim, self.strength = N_WORKERS, rows.shape[1], strength

    def gradient(self, x, worker, draw=0, rng=None):
        rows, targets = self.shards[worker]
        slopes = -targets * special.expit(-targets * (rows @ x))
        return rows.T @ slopes / targets.size + self.strength * x

    def loss(self, x):
        losses = [np.logaddexp(0, -y * (rows @ x)).mean() for rows, y in self.shards]
        return np.mean(losses) + self.strength * x @ x / 2

    def full_gradient(self, x):
        return np.mean([self.gradient(x, i) for i in range(self.n_workers)], axis=0)

    def accuracy(self, x):
        right = [np.sign(rows @ x) == y for rows, y in self.shards]
        return np.concatenate(right).mean()


class OwnNoise(Problem):
    """f = 0 with gradients of noise alone; it remembers which numbers it was given."""

    n_workers, dim = N_WORKERS, 2

    def __init__(self):
        self.given = {}

    def gradient(self, x, worker, draw=0, rng=None):
        noise = rng.normal(size=2)
        self.given.setdefault((worker, draw), set()).add(tuple(noise))
        return noise

    def loss(self, x):
        return 0.0

    def full_gradient(self, x):
        return np.zeros(2)


@pytest.fixture(scope="module")
def problems() -> tuple[Logistic, OwnLogistic]:
    """The same problem, compiled and plain."""
    rng = np.random.default_rng(0)
    rows, targets = rng.normal(size=(40, 5)), rng.choice([-1.0, 1.0], 40)
    compiled = Logistic((rows, targets), n_workers=N_WORKERS, split="contiguous", strength=0.05)
    return compiled, OwnLogistic(rows, targets, np.repeat(range(N_WORKERS), [14, 13, 13]), 0.05)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (Pure(), {}),
        (Rennala(batch=2), {"recipe": HeavyBall(0.5)}),
        (Ringleader(), {"recipe": Clip(0.2)}),
        (ACE(), {}),
        (Pure(wait=2), {"recipe": (DelayCompensation(0.5, 0.9), AMSGrad(max_delay=1))}),
        (Pure(), {"recipe": Koloskova(concurrency=1, smoothness=2.0)}),
    ],
)
def test_an_own_problem_gives_what_the_compiled_one_gives(problems, method, options):
    trace = simulate(method, Exponential(), n_workers=N_WORKERS, steps=40)
    options = {"x0": np.linspace(-1, 1, 5), "evaluations": 40, **options}
    wanted, got = (replay(trace, problem, [0.02, 0.5], **options) for problem in problems)
    for name in ("loss", "gradient_norm", "accuracy", "models"):
        np.testing.assert_allclose(getattr(got, name), getattr(wanted, name), rtol=1e-10)
    np.testing.assert_array_equal(got.steps, wanted.steps)
    assert got.status == wanted.status


def test_an_own_problem_needs_neither_accuracy_nor_start_nor_smoothness():
    problem = OwnNoise()
    assert np.isnan(problem.accuracy(np.zeros(2)))
    assert np.isnan(problem.smoothness)
    np.testing.assert_array_equal(problem.x0, np.zeros(2))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dim": 2.0}, "Unfinished: dim must be an integer, got 2.0"),
        ({"dim": 0}, "Unfinished: dim must be an integer >= 1, got 0"),
        ({"n_workers": 0}, "Unfinished: n_workers must be an integer >= 1, got 0"),
        ({"n_workers": None}, "Unfinished: n_workers must be an integer, got None"),
        ({"gradient": lambda self, x: x}, "gradient is called as gradient(x, worker, draw, rng)"),
        ({"gradient": lambda self, x, worker, draw, rng: x[:1]}, "of shape (2,), got float64 of"),
        ({"gradient": lambda self, x, worker, draw, rng: x * 1j}, "real numbers of shape (2,)"),
        ({"gradient": lambda self, x, worker, draw, rng: None}, "real numbers of shape (2,)"),
        (
            {"test_loss": lambda self, x: "low"},
            "what test_loss returns must be a number, got 'low'",
        ),
        ({"loss": lambda self, x: None}, "what loss returns must be a number, got None"),
        ({"accuracy": lambda self, x: "good"}, "what accuracy returns must be a number"),
        ({"full_gradient": lambda self, x: x[:1]}, "full_gradient must return real numbers of"),
        ({"x0": [1.0, 2.0, 3.0]}, "Unfinished: x0 must have shape (2,), got (3,)"),
        ({"x0": ["a", "b"]}, "Unfinished: x0 must be an array of numbers"),
        ({"x0": np.array([0.0, np.nan])}, "Unfinished: x0 must be finite"),
    ],
)
def test_what_is_wrong_with_an_own_problem_is_named(changes, said, refused):
    """In training and in replay, with the class and what was expected."""
    problem = type("Unfinished", (OwnNoise,), changes)()
    assert said in refused(lambda: train(problem, Pure(), 0.1, steps=5))
    trace = simulate(Pure(), Linear(), n_workers=N_WORKERS, steps=5)
    assert said.split(": ")[-1] in refused(lambda: replay(trace, problem, 0.1))


class Careless(OwnLogistic):
    """It changes the models that it is given, and returns arrays that it uses again."""

    def __init__(self, *data):
        super().__init__(*data)
        self.buffer = np.zeros(self.dim)

    def gradient(self, x, worker, draw=0, rng=None):
        found = super().gradient(x, worker)
        x *= 0
        return found

    def loss(self, x):
        found = super().loss(x)
        x -= 1e3
        self.buffer[:] = -7
        return found

    def full_gradient(self, x):
        gradients = [OwnLogistic.gradient(self, x, i) for i in range(N_WORKERS)]
        self.buffer[:] = np.mean(gradients, axis=0)
        x += 5
        return self.buffer

    def accuracy(self, x):
        found = super().accuracy(x)
        x[:] = np.nan
        return found

    def test_loss(self, x):
        return x.sum()


@pytest.mark.parametrize("stepsizes", [0.1, [0.1, 0.2]])
def test_a_problem_that_changes_its_models_gives_what_a_careful_one_gives(stepsizes):
    """In replay and in training."""
    rng = np.random.default_rng(0)
    data = rng.normal(size=(40, 5)), rng.choice([-1.0, 1.0], 40), np.arange(40) % 3, 0.05
    trace = simulate(Pure(), Linear(), n_workers=N_WORKERS, steps=30)
    careful, careless = (
        # In one thread: what Careless returns is used again, which no other thread could know.
        replay(trace, make(*data), stepsizes, x0=np.ones(5), threads=1)
        for make in (OwnLogistic, Careless)
    )
    for name in ("loss", "gradient_norm", "accuracy", "models"):
        np.testing.assert_array_equal(getattr(careless, name), getattr(careful, name))
    np.testing.assert_allclose(careless.test_loss[-1], careful.models.sum(axis=0), rtol=1e-14)
    assert np.isnan(careful.test_loss).all()
    run = train(Careless(*data), Pure(), 0.1, steps=10, x0=np.ones(5))
    again = replay(run.trace, OwnLogistic(*data), 0.1, x0=np.ones(5))
    np.testing.assert_array_equal(run.model, again.models[:, 0])
    assert run.loss[-1] == again.loss[-1, 0]


def test_an_own_problem_may_leave_the_gradient_norm_out(problems):
    """full_gradient is not called then; models, loss and accuracy are the same."""
    trace = simulate(Pure(), Exponential(), n_workers=N_WORKERS, steps=20)
    plain = problems[1]
    cheap = type("Cheap", (OwnLogistic,), {"evaluates_gradient": False, "full_gradient": None})
    lazy = object.__new__(cheap)
    lazy.__dict__.update(plain.__dict__)
    wanted, got = (replay(trace, problem, [0.1, 0.2], evaluations=4) for problem in (plain, lazy))
    for name in ("loss", "accuracy", "models"):
        np.testing.assert_array_equal(getattr(got, name), getattr(wanted, name))
    assert np.isnan(got.gradient_norm).all()
    assert got.status == ["finished", "finished"]


class Failing(OwnNoise):
    """Fails at worker 1's third gradient."""

    def gradient(self, x, worker, draw=0, rng=None):
        if (worker, draw) == (1, 2):
            raise ZeroDivisionError("nothing to divide by")
        return super().gradient(x, worker, draw, rng)


def test_a_gradient_that_fails_on_the_way_is_named(refused):
    """In a replay it ends it; in a live run the job is lost."""
    said = "failed: ZeroDivisionError: nothing to divide by"
    trace = simulate(Pure(), Linear(), n_workers=N_WORKERS, steps=12)
    text = refused(lambda: replay(trace, Failing(), 0.1))
    assert text == f"Failing: the gradient of worker 1, draw 2 {said}"
    run = train(Failing(), Sync(), 0.1, steps=5)
    failure = "worker 1, draw 2: ZeroDivisionError: nothing to divide by"
    assert set(run.failures) == {failure}


def adapted(gradient):
    """A decorator after which a gradient of two arguments takes four."""

    @functools.wraps(gradient)
    def called(self, x, worker, draw, rng):
        return gradient(self, x, worker)

    return called


@pytest.mark.parametrize(
    "gradient",
    [
        adapted(lambda self, x, worker: x),
        lambda self, *arguments: arguments[0],
        staticmethod(lambda x, worker, draw, rng: x),
    ],
)
def test_gradients_of_every_make_are_taken(gradient):
    """Whatever can be called with four arguments."""
    problem = type("Own", (OwnNoise,), {"gradient": gradient})()
    assert train(problem, Pure(), 0.1, steps=5).trace.n_steps == 5


def test_a_gradient_without_a_signature_is_not_refused_for_it():
    """It is only called."""
    problem = type("Own", (OwnNoise,), {"gradient": staticmethod(max)})()
    with pytest.raises(ValueError, match="truth value of an array"):
        train(problem, Pure(), 0.1, steps=5)


def test_a_start_may_be_a_list():
    """As a class attribute, like the sizes."""
    problem = type("Started", (OwnNoise,), {"x0": [1, 2]})()
    assert train(problem, Pure(), 0.1, steps=0).model.tolist() == [1.0, 2.0]


def test_a_stepsize_that_needs_the_smoothness_says_so(refused):
    trace = simulate(Pure(), Linear(), n_workers=N_WORKERS, steps=5)
    text = refused(lambda: replay(trace, OwnNoise(), 0.1, recipe=Koloskova()))
    assert "Koloskova" in text
    assert "smoothness=..." in text


def test_the_random_numbers_of_an_own_problem_follow_from_seed_worker_and_draw():
    trace = simulate(Pure(), Linear(), n_workers=N_WORKERS, steps=12)
    problem = OwnNoise()
    many = replay(trace, problem, [0.1, 0.2], seeds=[3])
    replay(trace, problem, 0.3, seeds=[3])
    # Every lane and every run of the seed was given the same numbers for a job, and no two jobs
    # the same ones; another seed gives others.
    assert all(len(noises) == 1 for noises in problem.given.values())
    assert len(set.union(*problem.given.values())) == len(problem.given) >= 12
    np.testing.assert_allclose(many.models[:, 1], 2 * many.models[:, 0], rtol=1e-12)
    before = set.union(*problem.given.values())
    problem.given.clear()
    replay(trace, problem, 0.1, seeds=[4])
    assert not before & set.union(*problem.given.values())


def test_the_numbers_of_a_job_are_the_same_under_any_method():
    problem = OwnNoise()
    for method in (Pure(), Rennala(batch=2), Ringleader()):
        replay(simulate(method, Linear(), n_workers=N_WORKERS, steps=12), problem, 0.1, seeds=5)
    assert all(len(noises) == 1 for noises in problem.given.values())


def test_a_compiled_gradient_in_replay_is_the_one_of_the_same_key():
    # One worker and one step: x_1 = x_0 − γ g, g that of worker 0, draw 0 and the seed's key.
    problem = Tridiagonal(6, n_workers=1, noise=0.5)
    trace = simulate(Pure(), Linear(), n_workers=1, steps=1)
    result = replay(trace, problem, 0.25, seeds=8)
    g = problem.gradient(problem.x0, 0, 0, key=stream_key(8, Purpose.GRADIENT))
    np.testing.assert_allclose(result.models[:, 0], problem.x0 - 0.25 * g, rtol=0, atol=1e-15)
