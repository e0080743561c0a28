"""The walk along a trace that does its numerical work, compiled, many lanes at a time.

The same source runs as plain Python when the problem is a plain Python class.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import typeof, types

from asgrad.corrections.base import correct_nothing, correction_type
from asgrad.encoders.base import encode_job, encode_nothing, encoder_type
from asgrad.kernels import (
    Bound,
    BoundType,
    add_scaled,
    compiled,
    copy_columns,
    inlined,
    multiply,
    piece,
    set_zero,
)
from asgrad.numerics.blocks import Blocks
from asgrad.numerics.plan import SEEN, USED, Plan
from asgrad.optimizers.base import optimizer_type
from asgrad.problems.base import Packed, gradient_type
from asgrad.recipes import Parts
from asgrad.stepsizes.base import FACTOR
from asgrad.work.base import add_up_gradients

__all__ = [
    "Calls",
    "Rules",
    "bound",
    "calls_of",
    "compiled_walk",
    "delivered",
    "refresh_after",
    "walk",
]

STEP, EVALUATION, TAKEN, PAUSE, N_CURSORS = 0, 1, 2, 3, 4
_REFRESH = 256  # steps; where there are many workers, so many a worker:
_REFRESH_A_WORKER = 4


class Calls(NamedTuple):
    """The kernels that the walk calls: functions, or the addresses of compiled ones."""

    gradient: Any
    """Of the problem, or `delivered`."""
    factor: Any
    encoder: Any
    correction: Any
    optimizer: Any


class Rules(NamedTuple):
    """What the kernels of a run's parts read, float64."""

    stepsize: np.ndarray
    encoder: np.ndarray
    correction: np.ndarray
    optimizer: np.ndarray
    encodes: bool
    """Whether there is an encoder: calling one that does nothing takes as long as a small step."""
    corrects: bool
    feedback: int
    """Of the encoder, as `feedback_of` says."""
    local_stepsize: float
    """η of a job of several gradients."""
    refresh: int
    """After so many steps the table is summed up afresh."""


def refresh_after(n_workers: int) -> int:
    """Return after how many steps the table's sum is taken afresh.

    That reads an entry for every worker, so it is done the less often the more there are: it costs
    a quarter of an entry a step. A step rounds the sum once or twice for an entry that it changes,
    so that in between the sum strays by at most 8 n u M where a step changes one of n > 64 entries,
    u the unit roundoff and M the largest that the sum and its terms were: what adding up n entries
    may come to itself, n u M, times a constant.
    """
    return max(_REFRESH, _REFRESH_A_WORKER * n_workers)


def walk(calls, data, key, plan, rules, blocks, cursor):
    """Go on until the snapshots are full, for cursor[PAUSE] steps, or to the end.

    x_{s+1} = optimizer(x_s, Σ over the rows of step s of weight · factor(τ) ·
    correction(encoder(g))), plus the table's weighted sum. A gradient is computed when a step first
    uses it: gradients that no step uses cost nothing, and none has to be kept until its step. Only
    an encoder that remembers has to see them too.
    """
    n_steps = plan.first_row.size - 1
    pause_at = cursor[STEP] + cursor[PAUSE]
    while True:
        step = cursor[STEP]
        x = blocks.models[plan.slot[step]]
        # A full buffer ends the walk before the step: the next call finds the same model again.
        if not _photographed(plan, blocks, cursor, x) or step == n_steps or step >= pause_at:
            return

        empty = True
        largest_delay = 0
        for row in range(plan.first_row[step], plan.first_row[step + 1]):
            held = plan.entry[row] >= 0
            begins, ends = held and _begins(plan, step, row), held and _ends(plan, step, row)
            if begins and not ends:
                _open_entry(plan, blocks, row)
            # The first gradient of a step is computed where it will stand, which saves a copy.
            g = blocks.direction if empty and not held else blocks.gradient
            computed = False
            if plan.computes[row] == SEEN:
                _deliver(calls, data, key, plan, rules, blocks, row, blocks.gradient)
            if plan.computes[row] == USED:
                largest_delay = max(largest_delay, step - plan.read_step[row])
                computed = _compute(calls, data, key, plan, rules, blocks, step, row, g)
            if begins and ends:
                _change_entry(plan, blocks, row, computed)
            elif computed and held:
                add_scaled(blocks.table[plan.entry[row]], blocks.scales, g)
            elif computed and empty:
                multiply(g, blocks.scales)
                empty = False
            elif computed:
                add_scaled(blocks.direction, blocks.scales, g)
            if ends and not begins:
                _add_share(blocks, plan.entry[row], blocks.table_weights[plan.entry[row]])
        d = blocks.table_sum if _is_of_table(rules, blocks, step, empty) else blocks.direction
        calls.optimizer(
            rules.optimizer, blocks.runs, step, largest_delay, d, blocks.optimizer_memory, x,
            blocks.models[plan.slot[step + 1]],
        )  # fmt: skip
        cursor[STEP] = step + 1


@piece
def _photographed(plan, blocks, cursor, x):
    """Copy x_s to the snapshots if it is to be evaluated; say False if they have no room for it."""
    due, taken = cursor[EVALUATION], cursor[TAKEN]
    if due == plan.evaluated.size or plan.evaluated[due] != cursor[STEP]:
        return True
    if taken + x.shape[1] > blocks.snapshots.shape[1]:
        return False
    copy_columns(blocks.snapshots, taken, x)
    cursor[TAKEN] += x.shape[1]
    cursor[EVALUATION] += 1
    return True


@piece
def _begins(plan, step, row):
    """Say whether a row is the first of its entry in the step; those of an entry stand together."""
    return row == plan.first_row[step] or plan.entry[row - 1] != plan.entry[row]


@piece
def _ends(plan, step, row):
    """Say whether a row is the last of its entry in the step."""
    return row + 1 == plan.first_row[step + 1] or plan.entry[row + 1] != plan.entry[row]


@piece
def _open_entry(plan, blocks, row):
    """Take an entry's old share out of the table's sum, and empty it unless it is added to.

    `_add_share` puts the new one in once the step's gradients are there. So a step costs what it
    changes, not what the table holds.
    """
    entry = plan.entry[row]
    _add_share(blocks, entry, -blocks.table_weights[entry])
    blocks.table_weights[entry] = plan.weight[row]
    if plan.keeps[row] == 0:
        set_zero(blocks.table[entry])


@piece
def _add_share(blocks, entry, weight):
    """Add weight · entry to the table's sum."""
    blocks.shares[0] = weight
    size = blocks.gradient.size
    total, held = blocks.table_sum.reshape(size), blocks.table[entry].reshape(size)
    for i in range(size):
        total[i] += blocks.shares[0] * held[i]


@piece
def _change_entry(plan, blocks, row, computed):
    """Do what `_open_entry`, a gradient if one was `computed`, and `_add_share` do, in one pass.

    For the only row of its entry in a step. With the same bits (but for the sign of a zero that is
    held), since a live run has one sum where a replay has several rows.
    """
    entry, shares = plan.entry[row], blocks.shares
    shares[0], shares[1] = blocks.table_weights[entry], plan.weight[row]
    shares[2] = plan.keeps[row]
    blocks.table_weights[entry] = plan.weight[row]
    if computed:
        multiply(blocks.gradient, blocks.scales)
    else:
        set_zero(blocks.gradient)
    size = blocks.gradient.size
    g, total = blocks.gradient.reshape(size), blocks.table_sum.reshape(size)
    held = blocks.table[entry].reshape(size)
    for i in range(size):
        new = shares[2] * held[i] + g[i]
        total[i] = (total[i] - shares[0] * held[i]) + shares[1] * new
        held[i] = new


@piece
def _compute(calls, data, key, plan, rules, blocks, step, row, g):
    """Compute a row's gradient into `g`, and into `scales` what it is to be multiplied by.

    Returns whether there is any: else no lane needs it.
    """
    entry, worker = plan.entry[row], plan.worker[row]
    delay = step - plan.read_step[row]
    # What a table holds is weighted as often as a step uses it, all else only here.
    weight = plan.weight[row] if entry < 0 else 1.0
    # A rule may drop a gradient by the factor 0. A correction that remembers sees it all the same:
    # else what a lane remembers would depend on the lanes beside it. So does an encoder.
    needed = blocks.correction_memory.shape[0] > 0
    for lane in range(blocks.scales.size):
        blocks.scales[lane] = weight * calls.factor(rules.stepsize, blocks.stepsizes[lane], delay)
        needed = needed or blocks.scales[lane] != 0
    if not needed:
        if blocks.encoder_memory.shape[0] > 0:
            _deliver(calls, data, key, plan, rules, blocks, row, g)
        return False
    _deliver(calls, data, key, plan, rules, blocks, row, g)
    if rules.corrects:
        x_read = blocks.models[plan.slot[plan.read_step[row]]]
        x = blocks.models[plan.slot[step]]
        calls.correction(
            rules.correction, g, x_read, x, delay, blocks.stepsizes, worker,
            blocks.correction_memory,
        )  # fmt: skip
    return True


@piece
def _deliver(calls, data, key, plan, rules, blocks, row, g):
    """Write into `g` what the worker of a row delivered."""
    worker, draw = plan.worker[row], plan.draw[row]
    x_read = blocks.models[plan.slot[plan.read_step[row]]]
    add_up_gradients(
        calls.gradient, data, x_read, worker, draw, plan.work[row], rules.local_stepsize, key, g,
        blocks.local, blocks.scratch, blocks.picks,
    )  # fmt: skip
    if not rules.encodes:
        return
    remembers = blocks.encoder_memory.shape[0] > 0
    if remembers and plan.fresh[row] != 0:
        for block in range(blocks.encoder_memory.shape[1]):
            set_zero(blocks.encoder_memory[worker, block])
    # Where nothing is remembered, any memory without blocks will do.
    memory = blocks.encoder_memory[worker] if remembers else blocks.models[:0]
    encode_job(
        calls.encoder, rules.encoder, rules.feedback, g, worker, draw, key, memory,
        blocks.encoder_scratch,
    )  # fmt: skip


@piece
def _is_of_table(rules, blocks, step, empty):
    """Add Σ weight · entry, which the table's sum is up to rounding, to the direction.

    Returns whether the direction is `empty`, so that the table's sum may stand for it as it is.
    """
    if blocks.table_weights.size == 0:
        if empty:
            set_zero(blocks.direction)
        return False
    if step % rules.refresh == 0:  # afresh now and then, so that rounding does not pile up
        set_zero(blocks.table_sum)
        for entry in range(blocks.table_weights.size):
            _add_share(blocks, entry, blocks.table_weights[entry])
    if not empty:
        size = blocks.direction.size
        d, total = blocks.direction.reshape(size), blocks.table_sum.reshape(size)
        for i in range(size):
            d[i] += total[i]
    return empty


@inlined
def delivered(values, indices, layout, x, worker, draw, key, out, scratch, picks):
    """A gradient that a worker has computed: number `draw` of those that stand in `values`.

    A negative number says that `out` is the gradient already.
    """
    if draw < 0:
        return
    flat = out.reshape(out.size)
    given = values[draw * out.size :]
    for i in range(flat.size):
        flat[i] = given[i]


def calls_of(gradient: Any, parts: Parts) -> Calls:
    """Return what the walk calls, for plain Python."""
    return Calls(
        gradient,
        type(parts.stepsize).kernel,
        type(parts.encoder).kernel if parts.encoder else encode_nothing,
        type(parts.correction).kernel if parts.correction else correct_nothing,
        type(parts.optimizer).kernel,
    )


def bound(calls: Calls, dtype: str) -> Calls:
    """Return what the compiled walk calls, looked up once and not at every pause."""
    kinds = _kinds(dtype)
    return Calls(*(Bound(call, kind) for call, kind in zip(calls, kinds, strict=True)))


def _kinds(dtype: str) -> Calls:
    """Return the signatures of what the walk calls."""
    f = numba.from_dtype(np.dtype(dtype))
    return Calls(gradient_type(f), FACTOR, encoder_type(f), correction_type(f), optimizer_type(f))


@cache
def compiled_walk(dtype: str) -> Callable[..., None]:
    """Return `walk` compiled for floats of `dtype`.

    It is the bare entry point: without Numba's dispatch by type, which would take longer than a
    step, its arguments must be of the very types that stand here.
    """
    i8, f8 = np.zeros(1, np.int64), np.zeros(1)
    one, two, three, four = (np.zeros((1,) * axes, dtype) for axes in (1, 2, 3, 4))
    plan = Plan(i8, i8, f8, *(i8 for _ in range(9)))
    blocks = Blocks(
        one,
        one,
        one,
        one,
        three,
        two,
        two,
        three,
        two,
        four,
        three,
        three,
        three,
        f8,
        two,
        one,
        i8,
        i8,
    )
    signature = types.void(
        types.NamedTuple([BoundType(kind) for kind in _kinds(dtype)], Calls),
        typeof(Packed(one, np.zeros(1, np.int32), i8)),
        types.int64,
        typeof(plan),
        typeof(Rules(f8, f8, f8, f8, False, False, 0, 0.0, 1)),
        typeof(blocks),
        types.int64[::1],
    )
    function: Any = compiled(signature)(walk)
    entry: Callable[..., None] = function.get_compile_result(signature).entry_point
    return entry
