"""TopK: the largest coordinates of every gradient."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from asgrad.encoders.sparse import Sparse, n_kept
from asgrad.kernels import inlined

__all__ = ["TopK"]

_BINS = 1 << 11
_SAMPLE = 4096
_FIRST_IS_LOW = sys.byteorder == "little"


@inlined
def _bits(number):
    """Bits of |number| in double precision; they rise with it, and are below 2^63."""
    return np.float64(abs(number)).view(np.int64)


@inlined
def _threshold(column, places, count, k, bins):
    """Return (t, m): the k largest of |column| at `places` are those of more bits than t, and m of
    those that have just t.

    By 11 bits at a time, from the highest, until all of a bin belong to them.
    """
    prefix, shift, left = 0, 63, k
    while shift > 0:
        above, shift = shift, max(shift - 11, 0)
        for b in range(_BINS):
            bins[b] = 0
        for i in range(count):
            bits = _bits(column[places[i]])
            if bits >> above == prefix:
                bins[(bits >> shift) & ((1 << (above - shift)) - 1)] += 1
        b = (1 << (above - shift)) - 1
        while bins[b] < left:
            left -= bins[b]
            b -= 1
        prefix = (prefix << (above - shift)) | b
        if bins[b] == left:
            return (prefix << shift) - 1, 0
    return prefix, left


@inlined
def _gather(column, low, found, words):
    """Write where |column| >= low into `found`, rising; return how many there are.

    First a byte a number, in vectors; then eight of them at a time, most of which are all zero.
    """
    flags = words.view(np.int8)
    words[words.size - 1] = 0
    for i in range(column.size):
        flags[i] = abs(column[i]) >= low
    count = np.uint64(0)
    for word in range(words.size):
        bits = words[word]
        if bits != 0:
            for i in range(8):
                found[count] = 8 * word + i  # without a branch, which nobody could foresee
                count += np.uint64((bits >> (8 * (i if _FIRST_IS_LOW else 7 - i))) & 1)
    return np.int64(count)


@inlined
def _keep_of_lane(column, k, found, kept, words, bins):
    """Set all but the k largest of a lane to zero; of equal ones the first stay.

    Returns how many stay; where, is in `found`.
    """
    n = column.size
    low = 0.0
    if n > _SAMPLE:  # a guess below the threshold, so that few numbers need a second look
        stride = n // _SAMPLE
        for i in range(_SAMPLE):
            found[i] = i * stride
        share = k * _SAMPLE // n
        wanted = share + 4 * int(math.sqrt(share)) + 8
        if wanted < _SAMPLE:
            bits, _ = _threshold(column, found, _SAMPLE, wanted, bins)
            low = np.int64(max(bits, 0)).view(np.float64)
    count = _gather(column, column.dtype.type(low), found, words)
    if count < k:
        count = _gather(column, column.dtype.type(0.0), found, words)
    least, ties = _threshold(column, found, count, min(k, count), bins)
    n_kept = np.uint64(0)
    for i in range(count):
        number = np.float64(column[found[i]])
        bits = _bits(number)
        stays = bits > least or (bits == least and ties > 0)
        ties -= bits == least
        found[n_kept] = found[i]
        kept[n_kept] = number.view(np.int64)
        n_kept += np.uint64(stays)
    for i in range(n):
        column[i] = 0
    for i in range(np.int64(n_kept)):
        column[found[i]] = np.int64(kept[i]).view(np.float64)
    return np.int64(n_kept)


@inlined
def _keep_largest(parameters, g, worker, draw, key, memory, scratch):
    """Lane by lane; one lane by itself is a contiguous run."""
    dim, lanes = g.shape
    k = n_kept(parameters, dim)
    scratch[0] = -1  # several lanes have several lists
    if k == dim:
        return
    # `found` and `kept` have room for one more: what is written there before it is counted.
    found, kept = scratch[1 : dim + 2], scratch[dim + 2 : 2 * dim + 3]
    bins, words = scratch[2 * dim + 3 :][:_BINS], scratch[2 * dim + 3 + _BINS :]
    if lanes == 1:
        scratch[0] = _keep_of_lane(g.reshape(dim), k, found, kept, words, bins)
    else:
        for lane in range(lanes):
            _keep_of_lane(g[:, lane], k, found, kept, words, bins)


@dataclass(frozen=True)
class TopK(Sparse):
    """Only the K coordinates of largest |g| are sent, of equal ones the first.

    ‖C(g) − g‖² <= (1 − K/d) ‖g‖². It is biased: without error feedback a run may stall where the
    coordinates that are never sent matter. With it, a = g + e is encoded and e ← a − C(a) kept.

    Parameters
    ----------
    share : float in (0, 1], optional
        K/d; at least one coordinate is kept. By default 0.01, unless k is given.
    k : int >= 1, optional
        K; all coordinates, where there are fewer.
    feedback : bool
        Error feedback, at the price of a block of the model's size a worker.

    References
    ----------
    Sparsified asynchronous SGD in Nadiradze et al., arXiv 2001.05918. Deviations: the gradient is
    encoded, not γ times it, which is the same while γ does not change.
    """

    name: ClassVar[str] = "top-k"
    reference: ClassVar[str] = "arXiv 2001.05918"
    kernel: ClassVar = _keep_largest

    def n_scratch(self, dim: int) -> int:
        """Return room for the list, every coordinate's value, the bins, and the flags."""
        return 1 + 2 * (dim + 1) + _BINS + (dim + 7) // 8

    def contraction(self, dim: int) -> float:
        """Return 1 − K/d, by which ‖C(g) − g‖² <= (1 − K/d) ‖g‖²."""
        return 1 - self.n_kept(dim) / dim
