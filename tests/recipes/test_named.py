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
    """For a step the delay of every gradient in it, the model that it read, and its value."""
    rows, jobs = trace.contributions, trace.jobs
    key, found = stream_key(SEED, Purpose.GRADIENT), []
    for job in rows.job[rows.first_step == step].tolist():
        read = models[jobs.read_step[job]]
        g = problem.gradient(read, int(jobs.worker[job]), int(jobs.draw[job]), key=key)
        found.append((step - int(jobs.read_step[job]), read, g))
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
