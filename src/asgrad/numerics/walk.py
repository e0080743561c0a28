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

from asgrad.corrections.base import Correction, correct_nothing, correction_type
from asgrad.encoders.base import Encoder, encode_nothing, encoder_type
from asgrad.kernels import (
    Bound,
    BoundType,
    add_scaled,
    compiled,
    copy_columns,
    inlined,
    multiply,
    set_zero,
)
from asgrad.numerics.blocks import Blocks
from asgrad.numerics.plan import Plan
from asgrad.optimizers.base import Optimizer, optimizer_type
from asgrad.problems.base import Packed, gradient_type
from asgrad.stepsizes.base import FACTOR, Stepsize

__all__ = ["Rules", "bound_kernels", "compiled_walk", "delivered", "plain_kernels", "walk"]

STEP, EVALUATION, TAKEN, PAUSE, N_CURSORS = 0, 1, 2, 3, 4
REFRESH = 256


class Rules(NamedTuple):
    """What the kernels of a run's parts read, float64."""

    stepsize: np.ndarray
    encoder: np.ndarray
    correction: np.ndarray
    optimizer: np.ndarray


def walk(gradient, factor, encoder, correction, optimizer, data, key, plan, rules, blocks, cursor):
    """Go on until the snapshots are full, for cursor[PAUSE] steps, or to the end.

    x_{s+1} = optimizer(x_s, Σ over the rows of step s of weight · factor(τ) ·
    correction(encoder(g))), plus the table's weighted sum. A gradient is computed when a step first
    uses it.
    """
    n_steps = plan.first_row.size - 1
    n_lanes = blocks.stepsizes.size
    n_entries = blocks.table_weights.size
    pause_at = cursor[STEP] + cursor[PAUSE]
    while True:
        step = cursor[STEP]
        x = blocks.models[plan.slot[step]]
        due = cursor[EVALUATION]
        if due < plan.evaluated.size and plan.evaluated[due] == step:
            taken = cursor[TAKEN]
            if taken + n_lanes > blocks.snapshots.shape[1]:
                return
            copy_columns(blocks.snapshots, taken, x)
            cursor[TAKEN] += n_lanes
            cursor[EVALUATION] += 1
        if step == n_steps or step >= pause_at:
            return

        direction = blocks.direction
        empty = True
        for row in range(plan.first_row[step], plan.first_row[step + 1]):
            entry = plan.entry[row]
            starts = row == plan.first_row[step] or plan.entry[row - 1] != entry
            if entry >= 0 and starts:
                # The entry's old share leaves the table's sum; its new one is added below.
                blocks.scales[:] = -blocks.table_weights[entry]
                add_scaled(blocks.table_sum, blocks.scales, blocks.table[entry])
                blocks.table_weights[entry] = plan.weight[row]
                if plan.keeps[row] == 0:
                    set_zero(blocks.table[entry])
            if plan.computes[row] == 1:
                worker = plan.worker[row]
                delay = step - plan.read_step[row]
                weight = plan.weight[row] if entry < 0 else 1.0
                needed = False
                for lane in range(n_lanes):
                    blocks.scales[lane] = weight * factor(
                        rules.stepsize, blocks.stepsizes[lane], delay
                    )
                    needed = needed or blocks.scales[lane] != 0
                if needed:  # a rule may drop a gradient by the factor 0
                    g = direction if empty and entry < 0 else blocks.gradient  # saves a copy
                    x_read = blocks.models[plan.slot[plan.read_step[row]]]
                    gradient(
                        data.values, data.indices, data.layout, x_read, worker, plan.draw[row],
                        key, g, blocks.scratch, blocks.picks,
                    )  # fmt: skip
                    encoder(rules.encoder, g, worker, plan.draw[row], key, blocks.encoder_memory)
                    correction(
                        rules.correction, g, x_read, x, delay, blocks.stepsizes, worker,
                        blocks.correction_memory,
                    )  # fmt: skip
                    if entry >= 0:
                        add_scaled(blocks.table[entry], blocks.scales, g)
                    elif empty:
                        multiply(direction, blocks.scales)
                        empty = False
                    else:
                        add_scaled(direction, blocks.scales, g)
            ends = row + 1 == plan.first_row[step + 1] or plan.entry[row + 1] != entry
            if entry >= 0 and ends:
                blocks.scales[:] = blocks.table_weights[entry]
                add_scaled(blocks.table_sum, blocks.scales, blocks.table[entry])
        if empty:
            set_zero(direction)
        if n_entries > 0:
            if step % REFRESH == 0:  # afresh now and then, so that rounding does not pile up
                set_zero(blocks.table_sum)
                for entry in range(n_entries):
                    blocks.scales[:] = blocks.table_weights[entry]
                    add_scaled(blocks.table_sum, blocks.scales, blocks.table[entry])
            blocks.scales[:] = 1.0
            add_scaled(direction, blocks.scales, blocks.table_sum)
        x_new = blocks.models[plan.slot[step + 1]]
        optimizer(rules.optimizer, blocks.runs, step, direction, blocks.optimizer_memory, x, x_new)
        cursor[STEP] = step + 1


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


def bound_kernels(
    dtype: str,
    gradient: Any,
    stepsize: Stepsize,
    encoder: Encoder | None,
    correction: Correction | None,
    optimizer: Optimizer,
) -> tuple[Bound, ...]:
    """Return what the compiled walk calls, looked up once and not at every pause."""
    f = numba.from_dtype(np.dtype(dtype))
    return (
        Bound(gradient, gradient_type(f)),
        *(Bound(kernel, kind) for kernel, kind in zip(
            plain_kernels(stepsize, encoder, correction, optimizer),
            (FACTOR, encoder_type(f), correction_type(f), optimizer_type(f)),
            strict=True,
        )),
    )  # fmt: skip


def plain_kernels(
    stepsize: Stepsize,
    encoder: Encoder | None,
    correction: Correction | None,
    optimizer: Optimizer,
) -> tuple[Any, ...]:
    """Return the kernels of the parts as they are, for a walk in plain Python."""
    return (
        type(stepsize).kernel,
        type(encoder).kernel if encoder else encode_nothing,
        type(correction).kernel if correction else correct_nothing,
        type(optimizer).kernel,
    )


@cache
def compiled_walk(dtype: str) -> Callable[..., None]:
    """Return `walk` compiled for floats of `dtype`.

    It is the bare entry point: without Numba's dispatch by type, which would take longer than a
    step, its arguments must be of the very types that stand here.
    """
    f = numba.from_dtype(np.dtype(dtype))
    i8 = np.zeros(1, np.int64)
    f8 = np.zeros(1)
    one, two, three = (np.zeros((1,) * axes, dtype) for axes in (1, 2, 3))
    plan = Plan(i8, i8, f8, *(i8 for _ in range(7)))
    blocks = Blocks(
        one, one, one, three, two, two, three, two, three, three, three, f8, two, one, i8
    )
    signature = types.void(
        BoundType(gradient_type(f)),
        BoundType(FACTOR),
        BoundType(encoder_type(f)),
        BoundType(correction_type(f)),
        BoundType(optimizer_type(f)),
        typeof(Packed(one, np.zeros(1, np.int32), i8)),
        types.int64,
        typeof(plan),
        typeof(Rules(f8, f8, f8, f8)),
        typeof(blocks),
        types.int64[::1],
    )
    function: Any = compiled(signature)(walk)
    entry: Callable[..., None] = function.get_compile_result(signature).entry_point
    return entry
