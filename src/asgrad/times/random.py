"""Times drawn anew for every job, all from one stream per worker."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from asgrad.errors import check_positive
from asgrad.kernels import compiled, inlined
from asgrad.streams import mix, normal, uniform
from asgrad.times.base import SECONDS, ScaledTimes, worker_key

__all__ = [
    "Exponential",
    "Gamma",
    "HalfNormal",
    "LogNormal",
    "Normal",
    "Pareto",
    "Poisson",
    "ShiftedExponential",
    "Uniform",
    "Weibull",
]


# Po(μ) is normal to six digits from here on, and logarithms of its weights lose theirs.
_NORMAL = 1e12


@inlined
def _poisson_small(mean, key):
    """Draw from Po(mean) by inverting the distribution function; for small means."""
    u = uniform(key, 0)
    k = 0
    p = math.exp(-mean)
    total = p
    while u > total and k < 1000:
        k += 1
        p *= mean / k
        total += p
    return float(k)


@inlined
def _poisson_large(mean, key):
    """Draw from Po(mean), mean >= 10, by Hörmann's transformed rejection (PTRS, 1993)."""
    b = 0.931 + 2.53 * math.sqrt(mean)
    a = -0.059 + 0.02483 * b
    inverse_alpha = 1.1239 + 1.1328 / (b - 3.4)
    v_r = 0.9277 - 3.6224 / (b - 2.0)
    index = 0
    while True:
        u = uniform(key, index) - 0.5
        v = uniform(key, index + 1)
        index += 2
        us = 0.5 - abs(u)
        k = math.floor((2.0 * a / us + b) * u + mean + 0.43)
        if us >= 0.07 and v <= v_r:
            return float(k)
        if k < 0 or (us < 0.013 and v > us):
            continue
        left = math.log(v * inverse_alpha / (a / (us * us) + b))
        if left <= -mean + k * math.log(mean) - math.lgamma(k + 1.0):
            return float(k)


@compiled(SECONDS)
def _poisson(scales, shape, key, worker, draw, start):
    """Po(s_i)."""
    mean = scales[worker]
    stream = np.int64(mix(worker_key(key, worker), draw))  # a draw takes several numbers
    if mean < 30.0:
        return _poisson_small(mean, stream)
    if mean > _NORMAL:
        return np.floor(mean + math.sqrt(mean) * normal(stream, 0) + 0.5)
    return _poisson_large(mean, stream)


@compiled(SECONDS)
def _normal(scales, shape, key, worker, draw, start):
    """|N(s_i, s_i)| + 1, the second s_i a standard deviation."""
    s = scales[worker]
    return abs(s + s * normal(worker_key(key, worker), draw)) + 1.0


@compiled(SECONDS)
def _uniform(scales, shape, key, worker, draw, start):
    """U(0, s_i)."""
    return scales[worker] * uniform(worker_key(key, worker), draw)


@compiled(SECONDS)
def _exponential(scales, shape, key, worker, draw, start):
    """Exponential with mean s_i."""
    return -scales[worker] * math.log(uniform(worker_key(key, worker), draw))


@compiled(SECONDS)
def _log_normal(scales, shape, key, worker, draw, start):
    """s_i exp(σ N(0, 1)): median s_i."""
    return scales[worker] * math.exp(shape * normal(worker_key(key, worker), draw))


@compiled(SECONDS)
def _half_normal(scales, shape, key, worker, draw, start):
    """s_i + |N(0, s_i)|, the second s_i a variance."""
    s = scales[worker]
    return s + math.sqrt(s) * abs(normal(worker_key(key, worker), draw))


@compiled(SECONDS)
def _shifted_exponential(scales, shape, key, worker, draw, start):
    """s_i (1 + c E), E exponential with mean 1."""
    return scales[worker] * (1.0 - shape * math.log(uniform(worker_key(key, worker), draw)))


@compiled(SECONDS)
def _weibull(scales, shape, key, worker, draw, start):
    """s_i E^{1/k}, E exponential with mean 1."""
    drawn = -math.log(uniform(worker_key(key, worker), draw))
    return scales[worker] * drawn ** (1.0 / shape)


@compiled(SECONDS)
def _pareto(scales, shape, key, worker, draw, start):
    """s_i U^{−1/α}."""
    return scales[worker] * uniform(worker_key(key, worker), draw) ** (-1.0 / shape)


@compiled(SECONDS)
def _gamma(scales, shape, key, worker, draw, start):
    """s_i G/k, G of the gamma law of shape k, by the method of Marsaglia and Tsang (2000).

    For k < 1 a number of shape k + 1 is multiplied by U^{1/k}.
    """
    stream = np.int64(mix(worker_key(key, worker), draw))  # a draw takes several numbers
    d = (shape if shape >= 1.0 else shape + 1.0) - 1.0 / 3.0
    c = 1.0 / math.sqrt(9.0 * d)
    index = 1
    while True:
        x = normal(stream, index)
        v = (1.0 + c * x) ** 3
        u = uniform(stream, -index)
        index += 1
        if v > 0.0 and math.log(u) < 0.5 * x * x + d - d * v + d * math.log(v):
            break
    drawn = d * v
    if shape < 1.0:
        drawn *= uniform(stream, 0) ** (1.0 / shape)
    return scales[worker] * drawn / shape


@dataclass(frozen=True, repr=False)
class Poisson(ScaledTimes):
    """Po(s_i) seconds; zero may come up. AsGrad, arXiv 2310.20452, experiments."""

    name: ClassVar[str] = "poisson"
    kernel: ClassVar = _poisson


@dataclass(frozen=True, repr=False)
class Normal(ScaledTimes):
    """|N(s_i, s_i)| + 1 seconds, s_i mean and standard deviation. AsGrad, arXiv 2310.20452."""

    name: ClassVar[str] = "normal"
    kernel: ClassVar = _normal


@dataclass(frozen=True, repr=False)
class Uniform(ScaledTimes):
    """U(0, s_i) seconds. AsGrad, arXiv 2310.20452, experiments."""

    name: ClassVar[str] = "uniform"
    kernel: ClassVar = _uniform


@dataclass(frozen=True, repr=False)
class Exponential(ScaledTimes):
    """Exponential times with mean s_i seconds."""

    name: ClassVar[str] = "exponential"
    kernel: ClassVar = _exponential


@dataclass(frozen=True, repr=False)
class LogNormal(ScaledTimes):
    """s_i exp(σ N(0, 1)) seconds: median s_i, with a heavy tail.

    Parameters
    ----------
    sigma : float > 0
        σ, the standard deviation of the logarithm.
    """

    sigma: float = 1.0

    name: ClassVar[str] = "log-normal"
    kernel: ClassVar = _log_normal

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("LogNormal", "sigma", self.sigma)

    @property
    def shape(self) -> float:
        """σ."""
        return self.sigma


@dataclass(frozen=True, repr=False)
class HalfNormal(ScaledTimes):
    """s_i + |N(0, s_i)| seconds, the second s_i a variance. Ringmaster, arXiv 2501.16168."""

    name: ClassVar[str] = "half-normal"
    kernel: ClassVar = _half_normal


class _Shaped(ScaledTimes):
    """A distribution with a parameter of its own, `shape_name`, which must be above 0."""

    shape_name: ClassVar[str]

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(type(self).__name__, self.shape_name, getattr(self, self.shape_name))

    @property
    def shape(self) -> float:
        """The parameter."""
        return float(getattr(self, self.shape_name))


@dataclass(frozen=True, repr=False)
class ShiftedExponential(_Shaped):
    """s_i (1 + c E) seconds, E exponential with mean 1: a least time, and chance on top.

    Parameters
    ----------
    tail : float > 0
        c; the mean is s_i (1 + c).
    """

    tail: float = 1.0

    name: ClassVar[str] = "shifted-exponential"
    kernel: ClassVar = _shifted_exponential
    shape_name: ClassVar[str] = "tail"


@dataclass(frozen=True, repr=False)
class Weibull(_Shaped):
    """Weibull times with scale s_i seconds; a heavy tail for k < 1.

    Parameters
    ----------
    power : float > 0
        k; at k = 1 the times are exponential.
    """

    power: float = 0.5

    name: ClassVar[str] = "weibull"
    kernel: ClassVar = _weibull
    shape_name: ClassVar[str] = "power"


@dataclass(frozen=True, repr=False)
class Pareto(_Shaped):
    """s_i U^{−1/α} seconds, at least s_i: the chance of more than t falls as t^−α.

    Parameters
    ----------
    tail : float > 0
        α. The mean, s_i α/(α − 1), is finite for α > 1, the variance for α > 2.
    """

    tail: float = 2.0

    name: ClassVar[str] = "pareto"
    kernel: ClassVar = _pareto
    shape_name: ClassVar[str] = "tail"


@dataclass(frozen=True, repr=False)
class Gamma(_Shaped):
    """Gamma times with mean s_i seconds.

    Parameters
    ----------
    k : float > 0
        The shape: a standard deviation of s_i/√k; at k = 1 the times are exponential.
    """

    k: float = 2.0

    name: ClassVar[str] = "gamma"
    kernel: ClassVar = _gamma
    shape_name: ClassVar[str] = "k"
