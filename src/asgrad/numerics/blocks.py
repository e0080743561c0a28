"""The numbers of a replay: models, directions, tables, for some lanes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from asgrad.encoders.base import n_remembered
from asgrad.problems.base import Problem
from asgrad.recipes import Parts

__all__ = ["Blocks", "bytes_of_blocks", "keep_lanes", "new_blocks"]

_RUN = 512  # numbers in a run of the stepsizes
_COLUMNS = 64  # models evaluated together
_SNAPSHOT_BYTES = 1 << 26
_WITHOUT_LANES = (
    *("runs", "shares", "table_weights", "snapshots", "scratch", "picks", "encoder_scratch"),
)


class Blocks(NamedTuple):
    """The numbers of a replay; most arrays end with the axis of the lanes."""

    stepsizes: np.ndarray
    """float of shape (n_lanes,)."""
    runs: np.ndarray
    """The stepsizes over and over, float of shape (a multiple of n_lanes,)."""
    scales: np.ndarray
    """Working space, one number a lane."""
    shares: np.ndarray
    """Working space: an entry's old weight, its new one, and 1 if what it holds stays in it."""
    models: np.ndarray
    """Model versions, float of shape (n_slots, dim, n_lanes)."""
    gradient: np.ndarray
    """One job's gradient, (dim, n_lanes)."""
    direction: np.ndarray
    """d_s, (dim, n_lanes)."""
    table: np.ndarray
    """Sums of the gradients held in each entry, (n_entries, dim, n_lanes)."""
    table_sum: np.ndarray
    """Σ weight · entry, (dim, n_lanes); one row suffices when there is no table."""
    encoder_memory: np.ndarray
    """(n_workers, n_blocks, dim, n_lanes); no worker where nothing is remembered."""
    local: np.ndarray
    """A worker's own model within a job, and its gradient there, (2, dim, n_lanes); one row
    suffices where every job is one gradient."""
    correction_memory: np.ndarray
    """(n_blocks, dim, n_lanes)."""
    optimizer_memory: np.ndarray
    """(n_blocks, dim, n_lanes)."""
    table_weights: np.ndarray
    """float64 of shape (n_entries,)."""
    snapshots: np.ndarray
    """Models that wait to be evaluated, (dim, n_columns)."""
    scratch: np.ndarray
    picks: np.ndarray
    encoder_scratch: np.ndarray


def new_blocks(
    problem: Problem,
    parts: Parts,
    stepsizes: np.ndarray,
    dtype: Any,
    n_slots: int,
    n_entries: int,
    *,
    local: bool = False,
) -> Blocks:
    """Allocate the numbers of some lanes; the models are left to be filled in.

    `local`: there are jobs of several gradients.
    """
    dim, lanes = problem.dim, stepsizes.size
    columns = _columns(dim, lanes)
    n_floats, n_picks = problem.workspace(columns)
    n_corrected, n_optimized = _remembered(problem, parts)
    n_encoded = n_remembered(parts.encoder)
    return Blocks(
        stepsizes=stepsizes.astype(dtype),
        runs=_repeated(stepsizes.astype(dtype)),
        scales=np.zeros(lanes, dtype),
        shares=np.zeros(3, dtype),
        models=np.empty((n_slots, dim, lanes), dtype),
        gradient=np.zeros((dim, lanes), dtype),
        direction=np.zeros((dim, lanes), dtype),
        table=np.zeros((n_entries, dim, lanes), dtype),
        table_sum=np.zeros((dim if n_entries else 1, lanes), dtype),
        encoder_memory=np.zeros(
            (problem.n_workers if n_encoded else 0, n_encoded, dim, lanes), dtype
        ),
        local=np.empty((2, dim if local else 1, lanes), dtype),
        correction_memory=np.zeros((n_corrected, dim, lanes), dtype),
        optimizer_memory=np.zeros((n_optimized, dim, lanes), dtype),
        table_weights=np.zeros(n_entries),
        snapshots=np.empty((dim, columns), dtype),
        scratch=np.empty(n_floats, dtype),
        picks=np.arange(n_picks),
        encoder_scratch=np.zeros(parts.encoder.n_scratch(dim) if parts.encoder else 0, np.int64),
    )


def bytes_of_blocks(
    problem: Problem,
    parts: Parts,
    n_lanes: int,
    dtype: Any,
    n_slots: int,
    n_entries: int,
    *,
    local: bool = False,
) -> int:
    """Return how many bytes `new_blocks` takes, and evaluations beside it, nearly."""
    n_blocks = n_slots + 2 + n_entries + (n_entries > 0)  # gradient, direction; the table's sum
    n_blocks += sum(_remembered(problem, parts)) + 2 * local
    n_blocks += problem.n_workers * n_remembered(parts.encoder)
    columns = _columns(problem.dim, n_lanes)
    n_floats, n_picks = problem.workspace(columns)
    evaluated = 3 * problem.dim * columns  # the models that wait, a copy, and their gradients
    size = np.dtype(dtype).itemsize
    n_integers = n_picks + (parts.encoder.n_scratch(problem.dim) if parts.encoder else 0)
    return size * (problem.dim * n_lanes * n_blocks + evaluated + n_floats) + 8 * n_integers


def _remembered(problem: Problem, parts: Parts) -> tuple[int, int]:
    """Return how many model-sized blocks correction and optimizer remember."""
    correction = parts.correction
    corrected = correction.n_blocks(problem.n_workers) if correction else 0
    return corrected, parts.optimizer.n_blocks()


def _columns(dim: int, lanes: int) -> int:
    """Return how many models are evaluated together: some of every lane."""
    room = max(1, _SNAPSHOT_BYTES // (8 * dim * lanes))
    return lanes * min(max(1, _COLUMNS // lanes), room)


def _repeated(stepsizes: np.ndarray) -> np.ndarray:
    """Return the stepsizes over and over: a long run, but one that stays in the fastest cache."""
    return np.tile(stepsizes, max(1, _RUN // max(1, stepsizes.size)))


def keep_lanes(blocks: Blocks, lanes: np.ndarray) -> Blocks:
    """Return the blocks of the lanes that are marked; those that have diverged are left out."""
    n_lanes = int(lanes.sum())
    kept = {
        name: np.ascontiguousarray(array[..., lanes])
        for name, array in blocks._asdict().items()
        if name not in _WITHOUT_LANES
    }
    kept["runs"] = _repeated(kept["stepsizes"])
    columns = blocks.snapshots.shape[1] // lanes.size * n_lanes
    snapshots = np.empty((blocks.snapshots.shape[0], columns), blocks.snapshots.dtype)
    return blocks._replace(snapshots=snapshots, **kept)
