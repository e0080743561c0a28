"""Independent random streams: (seed, purpose, worker, draw) alone fixes every number.

A stream is a 64-bit key; number `index` of the stream is a hash of key and index, so any number can
be had without the ones before it. That is what lets a job's rows and noise be the same in every
engine, and lets a worker be added without disturbing another. The hash is SplitMix64 (Steele,
Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014).
"""

from __future__ import annotations

import math
from enum import IntEnum

import numpy as np
from numba import types

from asgrad.errors import check_integer
from asgrad.kernels import compiled, inlined

__all__ = ["Purpose", "below", "mix", "normal", "normals", "shuffle", "stream_key", "uniform"]


class Purpose(IntEnum):
    """What a stream is for; streams of different purposes are independent."""

    TIMES = 1
    METHOD = 2
    GRADIENT = 3
    SPLIT = 4
    DATA = 5
    START = 6


def stream_key(seed: int, purpose: Purpose) -> int:
    """Return the 64-bit key of the stream for `purpose` under `seed`, as a signed integer."""
    seed = check_integer("seed", "seed", seed, minimum=0)
    words = np.random.SeedSequence(seed, spawn_key=(int(purpose),)).generate_state(1, np.uint64)
    return int(words.view(np.int64)[0])


@inlined
def mix(key, index):
    """Return number `index` of stream `key`: 64 hashed bits, as uint64."""
    z = np.uint64(key) + np.uint64(index + 1) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@inlined
def uniform(key, index):
    """Return number `index` of stream `key` as a float64, uniform on the open interval (0, 1)."""
    return (np.float64(np.int64(mix(key, index) >> np.uint64(12))) + 0.5) * 2.220446049250313e-16


@inlined
def normal(key, index):
    """Return a standard normal number from numbers 2 index and 2 index + 1 of the stream."""
    radius = math.sqrt(-2.0 * math.log(uniform(key, 2 * index)))
    return radius * math.cos(2.0 * math.pi * uniform(key, 2 * index + 1))


@inlined
def below(state, n):
    """Return a uniform integer in [0, n); state[0] is the stream's key, state[1] its position."""
    # Rejection keeps it exact: the top 2**32 mod n values of 32 bits are thrown away.
    limit = (np.int64(1) << np.int64(32)) // n * n
    while True:
        bits = np.int64(mix(state[0], state[1]) >> np.uint64(32))
        state[1] += 1
        if bits < limit:
            return bits % n


@compiled(types.void(types.int64[::1], types.int64[::1], types.int64))
def shuffle(state, items, count):
    """Shuffle so that items[:count] is a uniform draw without replacement, in order, in place."""
    for i in range(min(count, items.size - 1)):
        j = i + below(state, items.size - i)
        items[i], items[j] = items[j], items[i]


@inlined
def _log(x):
    """Natural logarithm of a normal x > 0 to within 1e-15, in a form that LLVM can vectorise."""
    bits = np.float64(x).view(np.int64)
    # Exponent and mantissa split so that the mantissa lies in [√½, √2).
    k = (bits - np.int64(0x3FE6A09E667F3BCD)) >> np.int64(52)
    m = np.int64(bits - (k << np.int64(52))).view(np.float64)
    s = (m - 1.0) / (m + 1.0)
    q = s * s
    p = 1.0 / 19.0
    p = p * q + 1.0 / 17.0
    p = p * q + 1.0 / 15.0
    p = p * q + 1.0 / 13.0
    p = p * q + 1.0 / 11.0
    p = p * q + 1.0 / 9.0
    p = p * q + 1.0 / 7.0
    p = p * q + 1.0 / 5.0
    p = p * q + 1.0 / 3.0
    p = p * q + 1.0
    return 2.0 * s * p + k * 0.6931471805599453


@inlined
def _cos_of_turns(u):
    """cos(2πu) for 0 <= u <= 1.25 to within 1e-14, in a form that LLVM can vectorise."""
    # cos(2πu) = −cos(2π(u − 1/2)); near the ends the half-angle formula keeps the series short.
    v = u - np.floor(u) - 0.5
    q = (math.pi * v) ** 2  # half the angle, squared: at most (π/2)²
    p = -1.0 / 51090942171709440000.0
    p = p * q + 1.0 / 121645100408832000.0
    p = p * q - 1.0 / 355687428096000.0
    p = p * q + 1.0 / 1307674368000.0
    p = p * q - 1.0 / 6227020800.0
    p = p * q + 1.0 / 39916800.0
    p = p * q - 1.0 / 362880.0
    p = p * q + 1.0 / 5040.0
    p = p * q - 1.0 / 120.0
    p = p * q + 1.0 / 6.0
    p = 1.0 - p * q
    sine = math.pi * v * p  # sin(πv)
    return 2.0 * sine * sine - 1.0


@inlined
def normals(key, out, count):
    """Fill out[:count] with standard normal numbers of stream `key`; out must hold count + 1.

    Box and Muller's pairs, cosine in the first half and sine in the second.
    """
    half = (count + 1) // 2
    for i in range(half):
        radius = math.sqrt(-2.0 * _log(uniform(key, 2 * i)))
        turn = uniform(key, 2 * i + 1)
        out[i] = radius * _cos_of_turns(turn)
        out[half + i] = radius * _cos_of_turns(turn + 0.75)
