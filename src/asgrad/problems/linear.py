"""The kernels of linear models: one pass over sparse rows for many lanes at once.

A model of F features and K outputs is a flat vector; entry (feature, output) stands at
feature · K + output, so that a block of lanes is a table of F rows and W = K · lanes contiguous
columns. Rows are taken in tiles: scores z = A x of the tile, then coefficients dℓ/dz in place, then
out += Aᵀ z.
"""

from __future__ import annotations

import numpy as np

from asgrad.kernels import exp_nonpositive, inlined
from asgrad.streams import job_stream, mix

__all__ = ["HEAD", "TILE", "evaluate", "gradient"]

TILE = 64  # rows

# layout: sizes and offsets, then bounds of the shards' rows and of the test rows, which come last,
# then row pointers. A worker has the shard of its number, or all share the only one.
N_SHARDS, N_FEATURES, N_OUTPUTS, BATCH, LOSS, REGULARIZER, N_STORED, HEAD = range(8)
LOGISTIC, SOFTMAX, SQUARES = 0, 1, 2
L2, NONCONVEX = 0, 1
# Rows of the metrics; the last holds a product of a tile before it gets the test loss.
LOSS_SUM, NORM, CORRECT, PRODUCT, TEST_LOSS = 0, 1, 2, 3, 3
# What a pass computes: only gradients; losses and right answers, too; only these, of test rows.
GRADIENT, EVALUATION, TEST = 0, 1, 2
# A product is taken to the logarithm before it can overflow: a factor is below 2^32.
_FULL = 1e290
# values: the regulariser's strength, the stored features, the targets
STRENGTH, FEATURES = 0, 1


@inlined
def _scores(values, indices, starts, x, first, picks, begin, end, z):
    """z[r] = a_row · x for the picked rows begin, ..., end − 1."""
    width = x.shape[1]
    for r in range(end - begin):
        row = first + picks[begin + r]
        for w in range(width):
            z[r, w] = 0
        for p in range(starts[row], starts[row + 1]):
            value = values[FEATURES + p]
            feature = indices[p]
            for w in range(width):
                z[r, w] += value * x[feature, w]


@inlined
def _spread(values, indices, starts, z, first, picks, begin, end, out):
    """Add Aᵀ z over the picked rows to `out`."""
    width = out.shape[1]
    for r in range(end - begin):
        row = first + picks[begin + r]
        for p in range(starts[row], starts[row + 1]):
            value = values[FEATURES + p]
            feature = indices[p]
            for w in range(width):
                out[feature, w] += value * z[r, w]


@inlined
def _logistic(targets, first, picks, begin, end, scale, z, metrics, wanted):
    """Scores to coefficients of log(1 + exp(−y z)); with `wanted`, add losses and right answers."""
    for r in range(end - begin):
        y = targets[first + picks[begin + r]]
        for w in range(z.shape[1]):
            t = y * z[r, w]
            e = exp_nonpositive(-abs(t))
            z[r, w] = -y * scale * ((e if t >= 0 else 1.0) / (1.0 + e))
            if wanted:
                metrics[PRODUCT, w] *= 1.0 + e
                metrics[LOSS_SUM, w] += scale * max(-t, 0.0)
                metrics[CORRECT, w] += t > 0


@inlined
def _softmax(targets, first, picks, begin, end, scale, z, metrics, wanted, aux):
    """Scores to coefficients of the cross-entropy; with `wanted`, add losses and right answers."""
    n_lanes = aux.size // 2
    n_outputs = z.shape[1] // n_lanes
    top, total = aux[:n_lanes], aux[n_lanes:]
    for r in range(end - begin):
        label = int(targets[first + picks[begin + r]])
        for lane in range(n_lanes):
            top[lane] = z[r, lane]
            total[lane] = 0
        for k in range(1, n_outputs):
            for lane in range(n_lanes):
                top[lane] = max(top[lane], z[r, k * n_lanes + lane])
        if wanted:
            for lane in range(n_lanes):
                score = z[r, label * n_lanes + lane]
                rivals = 0
                for k in range(n_outputs):
                    rivals += z[r, k * n_lanes + lane] >= score
                metrics[LOSS_SUM, lane] += scale * (top[lane] - score)
                metrics[CORRECT, lane] += rivals == 1  # a tie is no right answer
        for k in range(n_outputs):
            for lane in range(n_lanes):
                e = exp_nonpositive(z[r, k * n_lanes + lane] - top[lane])
                z[r, k * n_lanes + lane] = e
                total[lane] += e
        for k in range(n_outputs):
            for lane in range(n_lanes):
                z[r, k * n_lanes + lane] *= scale / total[lane]
        for lane in range(n_lanes):
            z[r, label * n_lanes + lane] -= scale
            if wanted:
                metrics[PRODUCT, lane] *= total[lane]
                if metrics[PRODUCT, lane] > _FULL:
                    metrics[LOSS_SUM, lane] += scale * np.log(metrics[PRODUCT, lane])
                    metrics[PRODUCT, lane] = 1.0


@inlined
def _squares(targets, first, picks, begin, end, scale, z, metrics, wanted):
    """Scores to coefficients of (z − y)²/2; with `wanted`, add losses."""
    for r in range(end - begin):
        y = targets[first + picks[begin + r]]
        for w in range(z.shape[1]):
            residual = z[r, w] - y
            z[r, w] = scale * residual
            if wanted:
                metrics[LOSS_SUM, w] += 0.5 * scale * residual * residual


@inlined
def _pass(values, indices, layout, x, shard, picks, count, scale, out, metrics, wanted, scratch):
    """Add scale · Σ over `count` picked rows of a shard of the loss's gradient to `out`."""
    n_shards, n_outputs = layout[N_SHARDS], layout[N_OUTPUTS]
    bounds = layout[HEAD : HEAD + n_shards + 2]
    starts = layout[HEAD + n_shards + 2 :]
    targets = values[FEATURES + layout[N_STORED] :]
    width = x.shape[1]
    n_lanes = width // n_outputs
    z = scratch[: TILE * width].reshape(TILE, width)
    aux = scratch[TILE * width : TILE * width + 2 * n_lanes]
    first = bounds[shard]
    for begin in range(0, count, TILE):
        end = min(begin + TILE, count)
        _scores(values, indices, starts, x, first, picks, begin, end, z)
        if wanted:
            for lane in range(n_lanes):
                metrics[PRODUCT, lane] = 1.0
        if layout[LOSS] == LOGISTIC:
            _logistic(targets, first, picks, begin, end, scale, z, metrics, wanted)
        elif layout[LOSS] == SOFTMAX:
            _softmax(targets, first, picks, begin, end, scale, z, metrics, wanted, aux)
        else:
            _squares(targets, first, picks, begin, end, scale, z, metrics, wanted)
        if wanted:
            # The logarithm of a product: one logarithm a tile instead of one a row.
            for lane in range(n_lanes):
                metrics[LOSS_SUM, lane] += scale * np.log(metrics[PRODUCT, lane])
        if wanted != TEST:
            _spread(values, indices, starts, z, first, picks, begin, end, out)


@inlined
def _regularize(kind, strength, x, out, metrics, wanted):
    """Add the regulariser's gradient to `out`; with `wanted`, its value to the losses."""
    for i in range(x.shape[0]):
        for lane in range(x.shape[1]):
            v = x[i, lane]
            if kind == L2:  # (λ/2) ‖x‖²
                out[i, lane] += strength * v
                if wanted:
                    metrics[LOSS_SUM, lane] += 0.5 * strength * v * v
            else:  # λ Σ x²/(1 + x²)
                q = 1.0 / (1.0 + v * v)
                out[i, lane] += 2.0 * strength * v * q * q
                if wanted:
                    metrics[LOSS_SUM, lane] += strength * v * v * q


@inlined
def _pick(stream, i, size):
    """Return a number in [i, size) that follows from the stream and i."""
    span = np.uint64(size - i)
    return i + np.int64(((mix(stream, i) >> np.uint64(32)) * span) >> np.uint64(32))


@inlined
def _swap_in(stream, picks, size, count):
    """Bring `count` of the first `size` picks to the front: a uniform draw without replacement."""
    for i in range(count):
        j = _pick(stream, i, size)
        picks[i], picks[j] = picks[j], picks[i]


@inlined
def _swap_back(stream, picks, size, count):
    """Undo `_swap_in`."""
    for i in range(count - 1, -1, -1):
        j = _pick(stream, i, size)
        picks[i], picks[j] = picks[j], picks[i]


@inlined
def gradient(values, indices, layout, x, worker, draw, key, out, scratch, picks):
    """Gradient of f_worker over its whole data, or over a batch drawn without replacement."""
    n_features, n_outputs = layout[N_FEATURES], layout[N_OUTPUTS]
    width = n_outputs * x.shape[1]
    table, sums = x.reshape(n_features, width), out.reshape(n_features, width)
    shard = min(worker, layout[N_SHARDS] - 1)
    size = layout[HEAD + shard + 1] - layout[HEAD + shard]
    count = size if layout[BATCH] == 0 else min(size, layout[BATCH])
    stream = job_stream(key, worker, draw)
    for i in range(out.shape[0]):
        for lane in range(out.shape[1]):
            out[i, lane] = 0
    if count < size:
        _swap_in(stream, picks, size, count)
    scale = 1.0 / count
    _pass(values, indices, layout, table, shard, picks, count, scale, sums, out, GRADIENT, scratch)
    if count < size:
        _swap_back(stream, picks, size, count)
    if values[STRENGTH] > 0:
        _regularize(layout[REGULARIZER], values[STRENGTH], x, out, out, False)


@inlined
def evaluate(values, indices, layout, x, metrics, out, scratch, picks):
    """f, ‖∇f‖², share of right answers, test loss, and ∇f, for every column of `x`."""
    n_shards, n_features = layout[N_SHARDS], layout[N_FEATURES]
    width = layout[N_OUTPUTS] * x.shape[1]
    table, sums = x.reshape(n_features, width), out.reshape(n_features, width)
    for i in range(out.shape[0]):
        for lane in range(out.shape[1]):
            out[i, lane] = 0
    for i in range(4):
        for lane in range(metrics.shape[1]):
            metrics[i, lane] = 0
    n_test = layout[HEAD + n_shards + 1] - layout[HEAD + n_shards]
    n_rows = layout[HEAD + n_shards]
    for shard in range(n_shards + (n_test > 0)):
        size = layout[HEAD + shard + 1] - layout[HEAD + shard]
        scale, wanted = 1.0 / (n_shards * size), EVALUATION
        if shard == n_shards:  # the test rows, whose answers count; f waits in a row that is free
            scale, wanted, n_rows = 1.0 / size, TEST, size
            for lane in range(metrics.shape[1]):
                metrics[NORM, lane] = metrics[LOSS_SUM, lane]
                metrics[LOSS_SUM, lane] = 0.0
                metrics[CORRECT, lane] = 0.0
        _pass(
            values,
            indices,
            layout,
            table,
            shard,
            picks,
            size,
            scale,
            sums,
            metrics,
            wanted,
            scratch,
        )
    for lane in range(metrics.shape[1]):
        metrics[TEST_LOSS, lane] = np.nan
        if n_test > 0:
            metrics[TEST_LOSS, lane] = metrics[LOSS_SUM, lane]
            metrics[LOSS_SUM, lane] = metrics[NORM, lane]
            metrics[NORM, lane] = 0.0
    if values[STRENGTH] > 0:
        _regularize(layout[REGULARIZER], values[STRENGTH], x, out, metrics, True)
    for i in range(out.shape[0]):
        for lane in range(out.shape[1]):
            metrics[NORM, lane] += np.float64(out[i, lane]) ** 2
    for lane in range(metrics.shape[1]):
        metrics[CORRECT, lane] /= n_rows
        if layout[LOSS] == SQUARES:
            metrics[CORRECT, lane] = np.nan
