"""Quadratics with additive Gaussian noise."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from asgrad.errors import AsgradError, check_integer, check_positive, shown
from asgrad.kernels import inlined, set_zero
from asgrad.machine import check_memory
from asgrad.problems.base import CompiledProblem, Kernels, Packed
from asgrad.problems.start import start
from asgrad.streams import Purpose, job_stream, set_normals, stream_key

__all__ = ["Quadratic", "Tridiagonal"]

# layout: workers, dimension, how many vectors b there are (1: all workers share it)
_N_WORKERS, _DIM, _N_B = 0, 1, 2
# values: the noise's standard deviation, then the matrix, then the vectors b, then their mean
_NOISE, _MATRIX = 0, 1
# Coordinates whose noise is made at a time: it stays in the fastest cache.
_TILE = 1024


@inlined
def _finish(b, deviation, stream, first, count, out, noise):
    """out ← (out − b) + N(0, deviation²) noise, the same in every lane; for some coordinates."""
    n_lanes = out.shape[1]
    flat = out.reshape(out.size)
    if deviation > 0:
        set_normals(stream, first, count, noise)
    else:
        set_zero(noise)
    part, run = b[first:], flat[first * n_lanes :]
    if n_lanes == 1:  # one contiguous run: LLVM vectorises over the coordinates
        for i in range(count):
            run[i] = (run[i] - part[i]) + deviation * noise[i]
    else:
        for i in range(count):
            row, shift, noise_i = run[i * n_lanes :], part[i], deviation * noise[i]
            for lane in range(n_lanes):
                row[lane] = (row[lane] - shift) + noise_i


@inlined
def _tridiagonal_product(matrix, first, count, x, out):
    """out = A x, some coordinates of it, for A = tridiag(matrix[1], matrix[0], matrix[1]).

    The dimension is at least 2.
    """
    dim, n_lanes = x.shape
    diagonal, beside = matrix[0], matrix[1]
    size = dim * n_lanes  # the neighbours of an element stand n_lanes before and after it
    flat, result = x.reshape(size), out.reshape(size)
    if first == 0:
        following = flat[n_lanes:]
        for j in range(n_lanes):
            result[j] = diagonal * flat[j] + beside * following[j]
    start, end = max(first, 1), min(first + count, dim - 1)
    # Views instead of index arithmetic: indices that cannot be negative let LLVM vectorise.
    before, middle = flat[(start - 1) * n_lanes :], flat[start * n_lanes :]
    after, inner = flat[(start + 1) * n_lanes :], result[start * n_lanes :]
    for j in range((end - start) * n_lanes):
        inner[j] = diagonal * middle[j] + beside * (before[j] + after[j])
    if first + count == dim:
        last, before = flat[size - n_lanes :], flat[size - 2 * n_lanes :]
        edge = result[size - n_lanes :]
        for j in range(n_lanes):
            edge[j] = diagonal * last[j] + beside * before[j]


@inlined
def _tridiagonal_lane(matrix, b, deviation, key, worker, draw, x, out, scratch):
    """What `_tridiagonal_product` and `_finish` give for one lane with noise, in one pass."""
    dim, diagonal, beside = x.size, matrix[0], matrix[1]
    stream = job_stream(key, worker, draw)
    noise = scratch.view(np.float32)
    flat, result = x.reshape(dim), out.reshape(dim)
    for first in range(0, dim, _TILE):
        count = min(_TILE, dim - first)
        set_normals(stream, first, count, noise)
        if first == 0:
            product = diagonal * flat[0] + beside * flat[1]
            result[0] = (product - b[0]) + deviation * noise[0]
        if first + count == dim:
            product = diagonal * flat[dim - 1] + beside * flat[dim - 2]
            result[dim - 1] = (product - b[dim - 1]) + deviation * noise[count - 1]
        start, end = max(first, 1), min(first + count, dim - 1)
        before, middle, after = flat[start - 1 :], flat[start:], flat[start + 1 :]
        inner, shift, normals = result[start:], b[start:], noise[start - first :]
        for i in range(end - start):
            product = diagonal * middle[i] + beside * (before[i] + after[i])
            inner[i] = (product - shift[i]) + deviation * normals[i]


@inlined
def _dense_product(matrix, x, out):
    """out = A x for a symmetric A, stored row by row."""
    dim, n_lanes = x.shape
    for i in range(dim):
        for lane in range(n_lanes):
            out[i, lane] = 0
    for j in range(dim):
        row = matrix[j * dim : (j + 1) * dim]  # also column j
        for i in range(dim):
            for lane in range(n_lanes):
                out[i, lane] += row[i] * x[j, lane]


@inlined
def _evaluate(b, x, metrics, out):
    """Metrics from out = A x: f = x·(Ax)/2 − b·x, ∇f = Ax − b."""
    for lane in range(x.shape[1]):
        metrics[0, lane] = 0.0
        metrics[1, lane] = 0.0
        metrics[2, lane] = np.nan
        metrics[3, lane] = np.nan
    for i in range(x.shape[0]):
        for lane in range(x.shape[1]):
            v, ax = np.float64(x[i, lane]), np.float64(out[i, lane])
            slope = ax - b[i]
            metrics[0, lane] += v * (0.5 * ax - b[i])
            metrics[1, lane] += slope * slope
            out[i, lane] = slope


@inlined
def _start_of_b(layout, size, worker):
    """Return where the vector b of a worker stands after a matrix of `size`; n: their mean."""
    return _MATRIX + size + (worker if layout[_N_B] > 1 else 0) * layout[_DIM]


@inlined
def _tridiagonal_gradient(values, indices, layout, x, worker, draw, key, out, scratch, picks):
    """A x − b_worker + noise."""
    b = values[_start_of_b(layout, 2, worker) :]
    if x.shape[1] == 1 and values[_NOISE] > 0:
        _tridiagonal_lane(values[_MATRIX:], b, values[_NOISE], key, worker, draw, x, out, scratch)
        return
    stream, noise, dim = job_stream(key, worker, draw), scratch.view(np.float32), x.shape[0]
    for first in range(0, dim, _TILE):  # a tile stays in the cache in between
        count = min(_TILE, dim - first)
        _tridiagonal_product(values[_MATRIX:], first, count, x, out)
        _finish(b, values[_NOISE], stream, first, count, out, noise)


@inlined
def _tridiagonal_evaluate(values, indices, layout, x, metrics, out, scratch, picks):
    """f, ‖∇f‖², NaN, NaN."""
    _tridiagonal_product(values[_MATRIX:], 0, x.shape[0], x, out)
    _evaluate(values[_start_of_b(layout, 2, layout[_N_WORKERS]) :], x, metrics, out)


@inlined
def _dense_gradient(values, indices, layout, x, worker, draw, key, out, scratch, picks):
    """A x − b_worker + noise."""
    _dense_product(values[_MATRIX:], x, out)
    b = values[_start_of_b(layout, x.shape[0] * x.shape[0], worker) :]
    stream, noise, dim = job_stream(key, worker, draw), scratch.view(np.float32), x.shape[0]
    for first in range(0, dim, _TILE):
        _finish(b, values[_NOISE], stream, first, min(_TILE, dim - first), out, noise)


@inlined
def _dense_evaluate(values, indices, layout, x, metrics, out, scratch, picks):
    """f, ‖∇f‖², NaN, NaN."""
    _dense_product(values[_MATRIX:], x, out)
    start = _start_of_b(layout, x.shape[0] * x.shape[0], layout[_N_WORKERS])
    _evaluate(values[start:], x, metrics, out)


class _Quadratic(CompiledProblem):
    """f_i(x) = xᵀAx/2 − b_i·x, gradients with N(0, noise² I) added; concrete classes choose A."""

    noise: float
    vectors: np.ndarray
    """float64 of shape (1, dim) or (n_workers, dim): b, or every b_i."""

    def parts(self) -> dict[str, Any]:
        """Return the settings of which a change is to be named."""
        return {"noise": self.noise}

    def pack(self, dtype: Any) -> Packed:
        """Return the data that the kernels read, with floats of `dtype`."""
        vectors = self.vectors
        if vectors.shape[0] > 1:
            vectors = np.concatenate([vectors, vectors.mean(axis=0, keepdims=True)])
        values = np.concatenate([[self.noise], self._matrix(), vectors.ravel()])
        layout = np.array([self.n_workers, self.dim, vectors.shape[0]], np.int64)
        return Packed(values.astype(dtype), np.zeros(1, np.int32), layout)

    def workspace(self, n_columns: int) -> tuple[int, int]:
        """Return how many floats and how many integers the kernels need beside their arguments."""
        return _TILE, 1

    @property
    def label(self) -> str:
        """The problem in a few words."""
        return f"{self.name}, dimension {self.dim}, {self.n_workers} workers"

    def _matrix(self) -> np.ndarray:
        """Return what the kernels read of A."""
        raise TypeError("a concrete quadratic gives its matrix")


class Tridiagonal(_Quadratic):
    """The classic hard quadratic: A = tridiag(−1, 2, −1)/4, b = (−1, 0, …, 0)/4, x_0 = (√d, 0, …).

    All workers share it. L = (1 − cos(π d/(d + 1)))/2, a little below 1.

    Parameters
    ----------
    dim : int >= 2
    n_workers : int >= 1
    noise : float >= 0
        Standard deviation, in every coordinate, of the Gaussian noise added to a gradient.
    x0 : str, path or array, optional
        Where a run starts: by default (√d, 0, …, 0), or "zeros", "ones", "normal" (x_0 ~ N(0, I)
        under `seed`), a .npy file, or numbers of shape (dim,).
    seed : int >= 0
        Fixes a random start.

    References
    ----------
    As in the experiments of Ringmaster ASGD, arXiv 2501.16168.
    """

    name: ClassVar[str] = "tridiagonal"

    def __init__(
        self,
        dim: int = 1000,
        *,
        n_workers: int = 10,
        noise: float = 0.0,
        x0: Any = None,
        seed: int = 0,
    ):
        self.dim = check_integer("Tridiagonal", "dim", dim, minimum=2)
        self.n_workers = check_integer("Tridiagonal", "n_workers", n_workers, minimum=1)
        self.noise = check_positive("Tridiagonal", "noise", noise, zero=True)
        # The least that a run takes: b twice, x0, a model and a gradient.
        check_memory("Tridiagonal", f"vectors of dimension {dim}", 5 * 8 * self.dim)
        self.vectors = np.zeros((1, self.dim))
        self.vectors[0, 0] = -0.25
        self._x0 = start("Tridiagonal", x0, self.dim, seed)
        if self._x0 is None:
            self._x0 = np.zeros(self.dim)
            self._x0[0] = math.sqrt(self.dim)

    @property
    def smoothness(self) -> float:
        """L, exact."""
        return 0.5 * (1.0 - math.cos(math.pi * self.dim / (self.dim + 1)))

    def kernels(self) -> Kernels:
        """Return what computes gradients and evaluations."""
        return Kernels(_tridiagonal_gradient, _tridiagonal_evaluate)

    def _matrix(self) -> np.ndarray:
        return np.array([0.5, -0.25])


class Quadratic(_Quadratic):
    """A random quadratic with a given spectrum: A = Q diag(spectrum) Qᵀ, Q a random rotation.

    The workers share A and differ in b_i: b_i = b + heterogeneity · z_i, z_i standard normal with
    Σ z_i = 0, so that ‖∇f_i − ∇f‖ is the same everywhere.

    Parameters
    ----------
    spectrum : sequence of float >= 0
        The eigenvalues of A; their number is the dimension.
    n_workers : int >= 1
    heterogeneity : float >= 0
    noise : float >= 0
        Standard deviation, in every coordinate, of the Gaussian noise added to a gradient.
    x0 : str, path or array, optional
        Where a run starts: "zeros" (the default), "ones", "normal" (x_0 ~ N(0, I) under `seed`), a
        .npy file, or numbers of shape (dim,).
    seed : int >= 0
        Fixes Q, the b_i and a random start.
    """

    name: ClassVar[str] = "quadratic"

    def __init__(
        self,
        spectrum: Any,
        *,
        n_workers: int = 10,
        heterogeneity: float = 0.0,
        noise: float = 0.0,
        x0: Any = None,
        seed: int = 0,
    ):
        try:
            eigenvalues = np.asarray(spectrum, np.float64)
        except (TypeError, ValueError, OverflowError):
            raise AsgradError(
                f"Quadratic: spectrum must be a list of numbers, got {shown(spectrum)}."
            ) from None
        if eigenvalues.ndim != 1 or eigenvalues.size < 1:
            raise AsgradError("Quadratic: spectrum must be a list of at least one eigenvalue.")
        if not (np.isfinite(eigenvalues) & (eigenvalues >= 0)).all():
            raise AsgradError("Quadratic: every eigenvalue must be finite and >= 0.")
        self.dim = eigenvalues.size
        self.n_workers = check_integer("Quadratic", "n_workers", n_workers, minimum=1)
        self.noise = check_positive("Quadratic", "noise", noise, zero=True)
        self.spectrum = eigenvalues
        spread = check_positive("Quadratic", "heterogeneity", heterogeneity, zero=True)
        # The rotation, its product and the matrix; every b_i and what it is made of.
        n_numbers = 4 * self.dim**2 + 3 * self.n_workers * self.dim
        check_memory(
            "Quadratic",
            f"dimension {self.dim} and {self.n_workers} workers",
            8 * n_numbers,
            "take fewer, or Tridiagonal, whose workers share one b",
        )
        rng = np.random.default_rng(stream_key(seed, Purpose.DATA) & (2**63 - 1))
        rotation = np.linalg.qr(rng.normal(size=(self.dim, self.dim)))[0]
        self.matrix = (rotation * eigenvalues) @ rotation.T
        self.matrix = 0.5 * self.matrix + 0.5 * self.matrix.T  # the sum alone could overflow
        apart = rng.normal(size=(self.n_workers, self.dim))
        with np.errstate(over="ignore"):
            self.vectors = rng.normal(size=self.dim) + spread * (apart - apart.mean(axis=0))
        if not (np.isfinite(self.vectors).all() and np.isfinite(self.matrix).all()):
            raise AsgradError(
                "Quadratic: the numbers overflow; take smaller eigenvalues or heterogeneity."
            )
        self._x0 = start("Quadratic", x0, self.dim, seed)

    @cached_property
    def smoothness(self) -> float:
        """L, exact: the largest eigenvalue."""
        return float(self.spectrum.max())

    def kernels(self) -> Kernels:
        """Return what computes gradients and evaluations."""
        return Kernels(_dense_gradient, _dense_evaluate)

    def _matrix(self) -> np.ndarray:
        return self.matrix.ravel()
