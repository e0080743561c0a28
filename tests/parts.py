"""What each part of a recipe is said to do, a row each: the table of the laws in tests/recipes.

A row says with which settings its part goes through the laws, and what the part does where one
worker computes alone, in plain NumPy: without a delay x_read is x_now.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import reference

Take = Callable[[np.ndarray], np.ndarray]
"""The worker's next stochastic gradient, at a model."""


def a_gradient(part: Any) -> Callable[[np.ndarray, Take], np.ndarray]:
    """A job delivers the gradient at the model that it read."""
    return lambda x, take: take(x)


def one(part: Any, gamma: float) -> float:
    """The stepsize is γ."""
    return 1.0


N = 4
"""How many workers there are, where it is not one."""


class Descent:
    """x − γ d."""

    def __call__(self, x: np.ndarray, d: np.ndarray, gamma: float, delay: int) -> np.ndarray:
        """Return the next model."""
        return x - gamma * d


class HeavyBall:
    """x − γ m, m = Σ β^age d."""

    def __init__(self, momentum: float) -> None:
        """Nothing is seen yet."""
        self.momentum, self.m = momentum, 0.0

    def __call__(self, x: np.ndarray, d: np.ndarray, gamma: float, delay: int) -> np.ndarray:
        """Return the next model."""
        self.m = self.momentum * self.m + d
        return x - gamma * self.m


class Row(NamedTuple):
    """What a part does."""

    settings: tuple[str, ...] = ("",)
    """Its parameters as a recipe's text has them; a list has one number for each of N workers."""
    delivers: Callable[[Any], Callable[[np.ndarray, Take], np.ndarray]] = a_gradient
    """Of a part: what a job at x is to the server, made of gradients of its worker's."""
    factor: Callable[[Any, float], float] = one
    """Of a part and γ: the factor on what is delivered."""
    moves: Callable[[Any], Callable[..., np.ndarray]] = lambda part: Descent()
    """Of a part: the next model from x, d, γ and the delay, 0."""


def clipped(part: Any) -> Callable[[np.ndarray, Take], np.ndarray]:
    """min(1, c/‖g‖) g."""

    def delivered(x: np.ndarray, take: Take) -> np.ndarray:
        g = take(x)
        return min(1.0, part.threshold / math.sqrt(g @ g)) * g

    return delivered


def local_steps(part: Any) -> Callable[[np.ndarray, Take], np.ndarray]:
    """(y_0 − y_Q)/η, as the sum of the gradients, which is one for η = 0 as well."""

    def delivered(x: np.ndarray, take: Take) -> np.ndarray:
        total, y = np.zeros_like(x), x
        for _ in range(np.atleast_1d(part.n)[0]):  # the one worker's
            g = take(y)
            total, y = total + g, y - part.stepsize * g
        return total

    return delivered


def top_k(part: Any) -> Callable[[np.ndarray, Take], np.ndarray]:
    """The K largest of a = g + e; e = a less those, with feedback."""
    error: Any = 0.0

    def delivered(x: np.ndarray, take: Take) -> np.ndarray:
        nonlocal error
        a = take(x) + error
        c = np.zeros_like(a)
        places = np.argsort(-abs(a), kind="stable")[: part.k]
        c[places] = a[places]
        error = a - c if part.feedback else 0.0
        return c

    return delivered


SMOOTHNESS = 2.0
ROWS: dict[str, Row] = {
    "constant": Row(),
    "fleet": Row(("", "threshold=1.5")),
    "hinge": Row(("", "slope=0.5,max_delay=1")),
    "koloskova": Row(("", "drop,concurrency=1", f"smoothness={SMOOTHNESS},concurrency=2")),
    "mishchenko": Row(
        ("", f"nonconvex,smoothness={SMOOTHNESS}", "heterogeneous,smoothness=9"),
        # γ n / max(n, 1) in practice; else min{γ, 1/(4 L)}, or 8 for 4.
        factor=lambda part, gamma: {
            "practical": 1.0,
            "nonconvex": min(1.0, 1 / (4 * SMOOTHNESS * gamma)),
            "heterogeneous": min(1.0, 1 / (8 * 9 * gamma)),
        }[part.setting],
    ),
    "polynomial": Row(("", "power=0", "power=1")),
    "local-steps": Row(
        ("n=3,stepsize=0.2", "n=2,stepsize=0", "n=3/1/2/5,stepsize=0.2"),
        local_steps,
    ),
    "clip": Row(("threshold=0.5", "threshold=1e9"), clipped),
    "top-k": Row(("k=2", "k=1,feedback=true", "k=3,feedback=true"), top_k),
    "rand-k": Row(("k=6", "share=1,feedback=true")),  # all six: nothing is lost
    "delay-compensation": Row(("strength=0.5", "strength=0.5,decay=0.9")),
    "mixing": Row(
        ("", "local_stepsize=0.7"), lambda part: lambda x, take: part.local_stepsize * take(x)
    ),
    "adam": Row(
        ("", "momentum=0.5,decay=0.7,epsilon=0.01"),
        moves=lambda part: reference.Adam(part.momentum, part.decay, part.epsilon),
    ),
    "amsgrad": Row(
        ("", "decay=0.5,max_delay=1"),
        moves=lambda part: reference.AMSGrad(part.momentum, part.decay, part.epsilon),
    ),
    "heavy-ball": Row(("", "momentum=0.3"), moves=lambda part: HeavyBall(part.momentum)),
    "nesterov": Row(("", "momentum=0.3"), moves=lambda part: reference.Nesterov(part.momentum)),
    "sgd": Row(),
}

NAMED: dict[str, dict[str, str]] = {
    "dc-asgd": {
        "": "pure+delay-compensation:0.04",
        "strength=0.5,decay=0.9": "pure+delay-compensation:strength=0.5,decay=0.9",
    },
    "fadas": {
        "size=3,max_delay=0": "buffered:3+amsgrad:max_delay=0",
        "size=2": "buffered:2+amsgrad:max_delay=1",
        "size=2,local_steps=3": "buffered:2+amsgrad:max_delay=1+local-steps:n=3,stepsize=0.01",
    },
    "fedasync": {
        "": "pure+polynomial:0.5+mixing:1",
        "local_stepsize=0.3,rule=hinge,max_delay=1": "pure+hinge:10,max_delay=1+mixing:0.3",
        "local_stepsize=0.3,local_steps=2": (
            "pure+polynomial:0.5+mixing:0.3+local-steps:n=2,stepsize=0.3"
        ),
    },
    "fedbuff": {
        "size=3": "buffered:3+polynomial:0.5",
        "size=2,power=1": "buffered:2+polynomial:1",
        "size=2,local_steps=3/1/2/5,local_stepsize=0.2": (
            "buffered:2+polynomial:0.5+local-steps:n=3/1/2/5,stepsize=0.2"
        ),
    },
}
"""What recipes with a name of their own stand for, written out, setting by setting."""


def spelt(name: str, setting: str) -> str:
    """Return a name with its parameters, as a text."""
    return f"{name}:{setting}" if setting else name


PARTS = [spelt(name, setting) for name, row in ROWS.items() for setting in row.settings]
RECIPES = {spelt(name, said): same for name, rows in NAMED.items() for said, same in rows.items()}
