"""The papers' algorithms that have a name of their own, against the papers' own formulas."""

from __future__ import annotations

import numpy as np
import pytest

import asgrad as ag
from asgrad.recipes.grammar import recipe_of
from asgrad.streams import Purpose, stream_key

N, STEPS, SEED = 4, 60, 5


def a_problem() -> ag.Problem:
    """A noisy quadratic."""
    return ag.problems.Quadratic(np.linspace(0.1, 1.0, 6), n_workers=N, noise=0.3)


def gradients(problem: ag.Problem, trace: ag.Trace, models: list[np.ndarray], step: int) -> list:
    """For a step the delay of every job in it, the model that it read, and what it delivers.

    That is the sum of its gradients, each at where the local step before has led.
    """
    rows, jobs = trace.contributions, trace.jobs
    work = recipe_of("test", trace.header.recipe).work
    eta = work.local_stepsize if work else np.nan
    key, found = stream_key(SEED, Purpose.GRADIENT), []
    for job in rows.job[rows.first_step == step].tolist():
        read = models[jobs.read_step[job]]
        y, total = read, np.zeros_like(read)
        for q in range(int(jobs.work[job])):
            g = problem.gradient(y, int(jobs.worker[job]), int(jobs.draw[job]) + q, key=key)
            y, total = y - eta * g, total + g
        found.append((step - int(jobs.read_step[job]), read, total))
    return found


def fedasync(alpha, eta, s):
    """x ← (1 − α s(τ)) x + α s(τ) (x_read − η g)."""

    def step(x, found, memory):
        ((delay, read, g),) = found
        share = alpha * s(delay)
        assert 0 <= share <= 1
        return (1 - share) * x + share * (read - eta * g)

    return step


def fedbuff(gamma, power):
    """x ← x − γ times the mean of (1 + τ)^−p g."""

    def step(x, found, memory):
        weights = [(1 + delay) ** -power for delay, _, _ in found]
        assert max(weights) <= 1
        return x - gamma * np.mean(
            [w * g for w, (_, _, g) in zip(weights, found, strict=True)], axis=0
        )

    return step


def fadas(gamma, threshold):
    """AMSGrad with β = 0.9, 0.999, ε = 1e-8, and min(γ, 1/τ_max) above the threshold."""

    def step(x, found, memory):
        d = np.mean([g for _, _, g in found], axis=0)
        m, v, top = memory.setdefault("m", [np.zeros_like(x) for _ in range(3)])
        m[:] = 0.9 * m + 0.1 * d
        v[:] = 0.999 * v + 0.001 * d * d
        top[:] = np.maximum(top, v)
        late = max(delay for delay, _, _ in found)
        size = min(gamma, 1 / late) if late > threshold else gamma
        return x - size * m / (np.sqrt(top) + 1e-8)

    return step


def dc_asgd(gamma, strength, decay):
    """g + λ g² (x − x_read), λ fixed or λ_0/√(mean square + 1e-7)."""

    def step(x, found, memory):
        ((_, read, g),) = found
        rate = strength
        if decay is not None:
            memory["square"] = decay * memory.get("square", 0.0) + (1 - decay) * g * g
            rate = strength / np.sqrt(memory["square"] + 1e-7)
        return x - gamma * (g + rate * g * g * (x - read))

    return step


CASES = {
    "fedasync": (0.6, fedasync(0.6, 1.0, lambda delay: (delay + 1) ** -0.5)),
    "fedasync:local_stepsize=0.3,slope=1": (0.9, fedasync(0.9, 0.3, lambda d: 1 / (d + 1))),
    "fedasync:rule=hinge,slope=2,max_delay=1": (
        0.6,
        fedasync(0.6, 1.0, lambda delay: 1.0 if delay <= 1 else 1 / (2 * (delay - 1) + 1)),
    ),
    "fedbuff:size=3": (0.3, fedbuff(0.3, 0.5)),
    "fedbuff:size=7,power=0": (0.3, fedbuff(0.3, 0.0)),
    "fadas:size=2": (0.4, fadas(0.4, 1)),
    "fadas:size=3,max_delay=0": (0.7, fadas(0.7, 0)),
    "fedasync:local_stepsize=0.3,local_steps=4": (
        0.6,
        fedasync(0.6, 0.3, lambda d: (d + 1) ** -0.5),
    ),
    "fedbuff:size=3,local_steps=10,local_stepsize=0.1": (0.1, fedbuff(0.1, 0.5)),
    "fedbuff:size=3,local_steps=10/5/2/1,local_stepsize=0.1": (0.1, fedbuff(0.1, 0.5)),
    "fadas:size=2,local_steps=5,local_stepsize=0.2": (0.4, fadas(0.4, 1)),
    "dc-asgd:strength=0.5": (0.3, dc_asgd(0.3, 0.5, None)),
    "dc-asgd:strength=0.5,decay=0.9": (0.3, dc_asgd(0.3, 0.5, 0.9)),
}


@pytest.mark.parametrize("text", CASES)
def test_a_named_recipe_is_the_papers_rule(text):
    """Step by step along the trace, to 1e-10; and a live run of it replays bit for bit."""
    problem, (gamma, rule) = a_problem(), CASES[text]
    trace = ag.simulate(text, "normal", n_workers=N, steps=STEPS, seed=SEED)
    models, memory = [problem.x0], {}
    for step in range(STEPS):
        models.append(rule(models[-1], gradients(problem, trace, models, step), memory))
    result = ag.replay(trace, problem, gamma)
    np.testing.assert_allclose(result.models[:, 0], models[-1], rtol=1e-10, atol=1e-12)
    run = ag.train(problem, text, gamma, steps=30)
    again = ag.replay(run.trace, problem, gamma)
    np.testing.assert_array_equal(again.models[:, 0], run.model)
    assert run.trace.header.recipe == recipe_of("test", text).label


class Bowl(ag.Problem):
    """f = x²/2, from 8."""

    n_workers, dim = 2, 1
    x0 = np.array([8.0])

    def gradient(self, x, worker, draw=0, rng=None):
        return x

    def loss(self, x):
        return float(x @ x / 2)

    def full_gradient(self, x):
        return x


def test_fedbuff_with_local_steps_is_worked_by_hand():
    """K = 2, weights 1/(1 + τ), γ = η = ½; worker 0 takes two local steps of a second each, worker
    1 one of three seconds. At x worker 0 delivers x + x/2, worker 1 x.

    t=2  w0 j0 kept, w0→j2 at x_0
    t=3  w1 j1 step 0: x_1 = 8 − ½ (12 + 8)/2 = 3, w1→j3 at x_1
    t=4  w0 j2 (x_0) kept, w0→j4 at x_1
    t=6  w1 j3 (began at 3) step 1: j2 is one step late, x_2 = 3 − ½ (12/2 + 3)/2 = ¾, w1→j5 at x_2
         w0 j4 (began at 4, x_1) at the same moment: K is met already, kept for the next step; w0→j6
         at x_2
    t=8  w0 j6 (x_2) step 2: j4 is one step late, though two arrivals came between: x_3 =
         ¾ − ½ (4.5/2 + 1.125)/2 = −3/32
    """
    recipe = "fedbuff:size=2,power=1,local_steps=2/1,local_stepsize=0.5"
    trace = ag.simulate(recipe, ag.times.Fixed([1.0, 3.0]), n_workers=2, steps=3)
    jobs, rows = trace.jobs, trace.contributions
    assert jobs.worker.tolist() == [0, 1, 0, 1, 0, 1, 0, 0]
    assert jobs.read_step.tolist() == [0, 0, 0, 1, 1, 2, 2, 3]
    assert jobs.draw.tolist() == [0, 0, 2, 1, 4, 2, 6, 8]
    assert jobs.work.tolist() == [2, 1, 2, 1, 2, 1, 2, 2]
    np.testing.assert_array_equal(jobs.arrival_time, [2, 3, 4, 6, 6, np.nan, 8, np.nan])
    assert rows.job.tolist() == [0, 1, 2, 3, 4, 6]
    assert rows.first_step.tolist() == [0, 0, 1, 1, 2, 2]
    assert rows.weight.tolist() == [0.5] * 6
    assert trace.delays.tolist() == [0, 0, 1, 0, 1, 0]
    assert trace.step_times.tolist() == [3, 6, 8]
    losses = ag.replay(trace, Bowl(), 0.5, evaluations=3).loss[1:, 0]
    assert losses.tolist() == [x * x / 2 for x in (3.0, 0.75, -0.09375)]
    run = ag.train(Bowl(), recipe, 0.5, steps=3, workers=ag.Virtual(ag.times.Fixed([1.0, 3.0])))
    assert run.trace.equals(trace)
    assert run.model.tolist() == [-0.09375]


def test_a_buffered_step_goes_down_and_the_staler_the_less():
    """−γ times the mean of weighted gradients at the models they read, of exactly K; no weight is
    above 1 or grows with the delay, however many steps lie between, and ties fill no buffer over.
    """
    times = ag.times.Fixed([1.0, 1.0, 1.0, 7.0])
    trace = ag.simulate("fedbuff:size=2,power=0.5", times, n_workers=N, steps=STEPS, seed=SEED)
    assert len(np.unique(trace.jobs.arrival_time)) < trace.n_jobs / 2
    assert (np.bincount(trace.contributions.first_step) == 2).all()
    assert trace.delays.max() >= 9  # the slow worker's
    problem, models = a_problem(), [a_problem().x0]
    for step in range(STEPS):
        found = gradients(problem, trace, models, step)
        weights = {delay: (1 + delay) ** -0.5 for delay, _, _ in found}
        by_delay = [weights[delay] for delay in sorted(weights)]
        assert max(by_delay) <= 1
        assert by_delay == sorted(by_delay, reverse=True)
        total = sum(weights[delay] * g for delay, _, g in found)
        models.append(models[-1] - 0.2 * total / 2)
    result = ag.replay(trace, problem, 0.2)
    np.testing.assert_allclose(result.models[:, 0], models[-1], rtol=1e-10, atol=1e-12)


def test_they_are_contended():
    """By name, as methods are."""
    found = ag.compare(a_problem(), "linear", ["pure", "fedbuff:size=2|3", "dc-asgd"], steps=20,
                       seeds=1)  # fmt: skip
    assert {cell.method for cell in found.cells} == {
        "pure", "fedbuff:size=2", "fedbuff:size=3", "dc-asgd",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fedasync:rule=cubic", "cubic"),
        ("fedasync:local_stepsize=0", "FedAsync: local_stepsize must be"),
        ("fedbuff:size=0", "Buffered: size must be"),
        ("fadas:max_delay=-1", "max_delay must be"),
        ("dc-asgd:decay=1", "decay must lie in [0, 1)"),
    ],
)
def test_what_cannot_be_is_refused(refused, text, said):
    assert said in refused(lambda: recipe_of("test", text))
