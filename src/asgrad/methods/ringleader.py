"""Ringleader ASGD: a table of per-worker means, refreshed in rounds of n steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from asgrad.kernels import compiled, inlined
from asgrad.methods.base import RULE, CompiledMethod, Opening
from asgrad.methods.decisions import assign, clear, hold, take_step, weigh

__all__ = ["Ringleader"]

# state: n, the first entry of the current table (0 or n; the spare one has the other), how many of
# its entries are filled, how many workers are served in this phase 2 (0: phase 1), then for every
# worker the size of its entry in the table, in the spare table, and whether it is served
_N, _TABLE, _FILLED, _SERVED, _ARRAYS = 0, 1, 2, 3, 4


@inlined
def _serve(state, served, worker, out):
    """Take a step with the table; the worker goes on at the new model."""
    take_step(out)
    assign(out, worker)
    served[worker] = 1
    state[_SERVED] += 1


@inlined
def _swap(state, sizes, spare_sizes, served, out):
    """End phase 2: empty the table, let the spare one take its place."""
    n = state[_N]
    filled = 0
    for i in range(n):
        clear(out, state[_TABLE] + i)
        sizes[i] = spare_sizes[i]
        spare_sizes[i] = 0
        served[i] = 0
        filled += sizes[i] > 0
    state[_TABLE] = n - state[_TABLE]
    state[_FILLED] = filled
    state[_SERVED] = 0


@compiled(RULE)
def _rule(state, worker, read_step, step, out):
    """Fill the table (phase 1), then take n steps with it, serving each worker once (phase 2)."""
    n = state[_N]
    table = state[_TABLE]
    sizes = state[_ARRAYS : _ARRAYS + n]
    spare_sizes = state[_ARRAYS + n : _ARRAYS + 2 * n]
    served = state[_ARRAYS + 2 * n :]
    if served[worker] == 1:
        hold(out, n - table + worker)
        spare_sizes[worker] += 1
        assign(out, worker)
        return
    hold(out, table + worker)
    sizes[worker] += 1
    if state[_SERVED] == 0:
        state[_FILLED] += sizes[worker] == 1
        if state[_FILLED] < n:
            assign(out, worker)
            return
        for i in range(n):
            weigh(out, table + i, 1.0 / (n * sizes[i]))
    else:
        weigh(out, table + worker, 1.0 / (n * sizes[worker]))
    _serve(state, served, worker, out)
    if state[_SERVED] == n:
        _swap(state, sizes, spare_sizes, served, out)


@dataclass(frozen=True)
class Ringleader(CompiledMethod):
    """Ringleader ASGD: every step uses the mean over workers of the means of their gradients.

    Per worker a sum G_i and a count b_i. Phase 1: add every arrival to its entry and restart its
    worker at the current model, until every b_i >= 1. Phase 2: exactly n steps
    x ← x − γ (1/n) Σ_i G_i / b_i, the first with the worker that ended phase 1, then one at the
    first arrival of each worker not yet served, whose gradient is added to its entry before the
    step; a served worker restarts at the new model and its further gradients go to a spare table,
    which becomes the table after the n steps.

    The delay is at most 2n − 2. Optimal in time for non-convex problems where the workers hold
    different data. Stepsize: γ = min{1/(8nL), …}.

    References
    ----------
    Maranjyan, Richtárik: Ringleader ASGD, arXiv 2509.22860. Deviations: none.
    """

    name: ClassVar[str] = "ringleader"
    reference: ClassVar[str] = "Ringleader ASGD, arXiv 2509.22860"

    def begin(self, n_workers: int, seed: int) -> Opening:
        """Return the opening: every worker has a job at x_0; the table is empty."""
        state = np.zeros(_ARRAYS + 3 * n_workers, np.int64)
        state[_N] = n_workers
        return Opening(state, np.arange(n_workers), _rule, 2 * n_workers)
