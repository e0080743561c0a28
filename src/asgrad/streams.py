"""Independent random streams: (seed, purpose, worker, draw) alone fixes every number.

A stream is a 64-bit key; number `index` of the stream is a hash of key and index, so any number can
be had without the ones before it. That is what lets a job's rows and noise be the same in every
run, and lets a worker be added without disturbing another. The hash is SplitMix64 (Steele,
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
    "N_TOGETHER",
    "Purpose",
    "below",
    "encoder_stream",
    "job_stream",
    "mix",
    "normal",
    "set_normals",
    "shuffle",
    "stream_key",
    "uniform",
]

N_TOGETHER = 64
"""How many normal numbers are made together: some vectors of them."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Purpose(IntEnum):
    """What a stream is for; streams of different purposes are independent."""

    TIMES = 1
    METHOD = 2
    GRADIENT = 3
    SPLIT = 4
    DATA = 5
    START = 6
    TEST = 7
    EVALUATION = 8


def stream_key(seed: int, purpose: Purpose) -> int:
    """Return the 64-bit key of the stream for `purpose` under `seed`, as a signed integer."""
    seed = check_integer("asgrad", "seed", seed, minimum=0)
    words = np.random.SeedSequence(seed, spawn_key=(int(purpose),)).generate_state(1, np.uint64)
    return int(words.view(np.int64)[0])


@inlined
def mix(key, index):
    """Return number `index` of stream `key`: 64 hashed bits, as uint64."""
    return _scramble(np.uint64(key) + np.uint64(index + 1) * _GOLDEN)


@inlined
def _scramble(z):
    """Return SplitMix64's hash of a state; states stand _GOLDEN apart."""
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
def encoder_stream(key, worker, draw):
    """Return the stream of what an encoder does to a job's gradient; its rows are of another."""
    return job_stream(np.int64(mix(key, -2)), worker, draw)  # no worker has that number


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
    """sqrt(−2 ln u) for 2^-32 <= u <= 1 to within 1e-6 of itself."""
    # Exponent and mantissa split so that the mantissa lies in [√½, √2). Numba widens sums and
    # shifts of 32-bit integers; rounded back at once, they stay as narrow as the rest.
    bits = np.float32(u).view(np.int32)
    k = np.int32(np.int32(bits - np.int32(0x3F3504F3)) >> np.int32(23))
    m = np.int32(bits - (k << np.int32(23))).view(np.float32)
    s = (m - np.float32(1.0)) / (m + np.float32(1.0))
    q = s * s
    p = np.float32(8.2592746e-1) * q + np.float32(1.3330444)
    p = p * q + np.float32(4.0000005)  # s p = 4 artanh s = 2 ln m
    return np.float32(math.sqrt(np.float32(-2.0 * math.log(2.0)) * np.float32(k) - s * p))


@inlined
def _sin_cos(angle):
    """sin and cos of an angle in [−π/2, π/2] to within 1.1e-6."""
    q = angle * angle
    s = np.float32(-1.8488140e-4) * q + np.float32(8.3118998e-3)
    s = s * q - np.float32(1.6665554e-1)
    s = s * q + np.float32(9.9999906e-1)
    c = np.float32(2.3153932e-5) * q - np.float32(1.3853704e-3)
    c = c * q + np.float32(4.1663585e-2)
    c = c * q - np.float32(4.9999905e-1)
    c = c * q + np.float32(9.9999995e-1)
    return angle * s, c


@inlined
def set_normals(key, first, count, out):
    """out[:count] = standard normal numbers `first` and on of stream `key`, in float32.

    `first` is a multiple of N_TOGETHER, and `out` holds `count` rounded up to a multiple of it.
    Box and Muller's pairs, numbers i and i + 32 of every 64: of the 64 bits of a hash 31 make the
    radius, so that no number is larger than 6.7, one its sign, and 32 an angle in [−π/2, π/2].
    In single precision and by minimax polynomials, in forms that LLVM can vectorise: a normal
    number that is wrong by its rounding is noise all the same.
    """
    half = N_TOGETHER // 2
    state = np.uint64(key) + np.uint64(first // 2) * _GOLDEN
    for start in range(0, count, N_TOGETHER):
        ones, others = out[start:], out[start + half :]
        for i in range(half):
            state += _GOLDEN
            z = _scramble(state)
            ones[i] = np.int32(z).view(np.float32)
            others[i] = np.int32(z >> np.uint64(32)).view(np.float32)
    # A loop of its own: numbers read right after they were stored cost half as much again.
    for start in range(0, count, N_TOGETHER):
        ones, others = out[start:], out[start + half :]
        for i in range(half):
            angle, bits = np.float32(ones[i]).view(np.int32), np.float32(others[i]).view(np.int32)
            u = (np.float32(bits & np.int32(0x7FFFFFFF)) + np.float32(0.5)) * np.float32(2.0**-31)
            radius = np.float32(math.copysign(_radius(u), others[i]))
            sine, cosine = _sin_cos(np.float32(angle) * np.float32(math.pi * 2.0**-32))
            ones[i] = radius * cosine
            others[i] = radius * sine
