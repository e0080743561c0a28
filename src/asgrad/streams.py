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

__all__ = [
    "Purpose",
    "add_normals",
    "below",
    "job_stream",
    "mix",
    "normal",
    "shuffle",
    "stream_key",
    "uniform",
]


class Purpose(IntEnum):
    """What a stream is for; streams of different purposes are independent."""

    TIMES = 1
    METHOD = 2
    GRADIENT = 3
    SPLIT = 4
    DATA = 5


def stream_key(seed: int, purpose: Purpose) -> int:
    """Return the 64-bit key of the stream for `purpose` under `seed`, as a signed integer."""
    seed = check_integer("asgrad", "seed", seed, minimum=0)
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
def job_stream(key, worker, draw):
    """Return the stream of one job: what it samples follows from (key, worker, draw) alone."""
    return np.int64(mix(np.int64(mix(key, worker)), draw))


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
def _radius(u):
    """sqrt(−2 ln u) for 2^-33 <= u <= 1 to single precision, in a form that LLVM can vectorise.

    Single precision, because double divisions and roots took half of the time of all noise; a
    radius that is wrong by 1e-6 of itself is noise all the same.
    """
    one = np.float32(1.0)
    bits = np.float32(u).view(np.int32)
    # Exponent and mantissa split so that the mantissa lies in [√½, √2).
    k = (bits - np.int32(0x3F3504F3)) >> np.int32(23)
    m = np.int32(bits - (k << np.int32(23))).view(np.float32)
    s = (m - one) / (m + one)
    q = s * s
    p = np.float32(1.0 / 9.0)
    p = p * q + np.float32(1.0 / 7.0)
    p = p * q + np.float32(1.0 / 5.0)
    p = p * q + np.float32(1.0 / 3.0)
    p = p * q + one
    logarithm = np.float32(2.0) * s * p + np.float32(k) * np.float32(0.6931471805599453)
    return np.float32(math.sqrt(max(np.float32(-2.0) * logarithm, np.float32(0.0))))


@inlined
def _sin_cos(angle):
    """sin and cos of an angle in [−π/4, π/4] to within 1e-11."""
    q = angle * angle
    s = -1.0 / 39916800.0
    s = s * q + 1.0 / 362880.0
    s = s * q - 1.0 / 5040.0
    s = s * q + 1.0 / 120.0
    s = s * q - 1.0 / 6.0
    c = 1.0 / 479001600.0
    c = c * q - 1.0 / 3628800.0
    c = c * q + 1.0 / 40320.0
    c = c * q - 1.0 / 720.0
    c = c * q + 1.0 / 24.0
    c = c * q - 0.5
    return angle + angle * q * s, 1.0 + q * c


@inlined
def add_normals(key, scale, out, work):
    """out += scale · standard normal numbers of stream `key`; `work` must hold out.size + 1.

    Box and Muller's pairs: 32 bits of a hash make the radius, the others the angle, so that no
    number is larger than 6.8. Three loops, because one would need more registers than there are.
    """
    half = (out.size + 1) // 2
    n_pairs = out.size - half
    angle = work[half:]
    second = out[half:]
    for i in range(half):
        bits = np.int64(mix(key, i))
        work[i] = (np.float64((bits >> np.int64(32)) & np.int64(0xFFFFFFFF)) + 0.5) * 2.0**-32
        angle[i] = (np.float64(bits & np.int64(0xFFFFFFFF)) + 0.5) * 2.0**-32 - 0.5
    for i in range(half):
        work[i] = scale * _radius(work[i])
    for i in range(n_pairs):
        # A quarter of the angle, doubled twice.
        sine, cosine = _sin_cos(angle[i] * (0.5 * math.pi))
        sine, cosine = 2.0 * sine * cosine, 1.0 - 2.0 * sine * sine
        angle[i] = work[i] * (2.0 * sine * cosine)  # rounded as `work` is, before it is added
        work[i] = work[i] * (1.0 - 2.0 * sine * sine)
        out[i] += work[i]
        second[i] += angle[i]
    if n_pairs < half:
        work[n_pairs] = work[n_pairs] * math.cos(2.0 * math.pi * angle[n_pairs])
        out[n_pairs] += work[n_pairs]
