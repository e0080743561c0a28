"""Moments of virtual time: when two are one, what rounding takes, and which worker is next."""

from __future__ import annotations

import numpy as np

from asgrad.kernels import inlined

__all__ = [
    "TREE",
    "finish_place",
    "first_worker",
    "is_later",
    "latest_of",
    "n_leaves",
    "place",
    "put_back",
    "reschedule",
    "rounded_off",
    "time_at",
]

# Moments at most this far apart are one; counted in steps between neighbouring numbers, of which
# 2^52 make a moment twice as late. Sums of the same times in another order, or in other units, come
# out less than half as far apart (`put_back`); random times hardly ever come as near.
_SAME = 512
_KEPT = 2.0**-46  # the share of a moment that its remainder may be: at most 128 such steps
# A tournament over the moments at which the workers finish: the workers are the leaves, node i > 0
# holds the earliest of its children 2i and 2i + 1. A leaf's path to the root is known in advance,
# so its cache misses overlap even with a million workers. The ticket, (starts before this one) *
# leaves + worker, settles ties and names the worker.
TREE = np.dtype([("finish", np.int64), ("ticket", np.int64)])


def n_leaves(n_workers: int) -> int:
    """Return how many leaves the tournament of so many workers has."""
    return max(2, 1 << (n_workers - 1).bit_length())


@inlined
def first_worker(tree):
    """Return the worker that finishes first."""
    return tree[1]["ticket"] & (tree.size // 2 - 1)


@inlined
def place(time):
    """Return the place of `time` >= 0 among all float64 numbers, an int64, in the same order."""
    return np.float64(time).view(np.int64)


@inlined
def time_at(place):
    """Return the float64 number at a place."""
    return np.int64(place).view(np.float64)


@inlined
def is_later(time, moment):
    """Say whether `time` comes after `moment`, by more than what rounding can do."""
    return place(time) > place(moment) + _SAME


def latest_of(times: np.ndarray) -> np.ndarray:
    """Return for each time >= 0 the latest number that is not later, in the sense of `is_later`."""
    places: np.ndarray = np.ascontiguousarray(times, np.float64).view(np.int64) + _SAME
    return places.view(np.float64)


@inlined
def finish_place(tree, worker):
    """Return the place of the moment at which `worker` finishes."""
    return tree[tree.size // 2 + worker]["finish"]


@inlined
def put_back(moment, remainder):
    """Return what of a remainder counts by now, and is to be added to the times that follow."""
    return remainder if abs(remainder) > _KEPT * moment else 0.0


@inlined
def rounded_off(moment, duration):
    """Return what rounding takes from moment + duration, exactly (Knuth's sum without error)."""
    total = moment + duration
    added = total - moment
    return (moment - (total - added)) + (duration - added)


@inlined
def reschedule(counts, tree, worker, time):
    """Set the moment at which `worker` finishes (infinity: never) and replay its matches."""
    leaves = tree.size // 2
    node = leaves + worker
    ticket = counts[0]["started"] * leaves + worker
    counts[0]["started"] += 1
    finish = place(time)
    tree[node]["finish"] = finish
    tree[node]["ticket"] = ticket
    while node > 1:
        rival = tree[node ^ 1]["finish"]
        contender = tree[node ^ 1]["ticket"]
        # Of one moment, the ticket decides. No branch, since who wins cannot be predicted: signs
        # are spread over masks. Compared and chosen, LLVM makes it a branch.
        sooner = (rival + _SAME - finish) >> 63
        near = (rival - _SAME - 1 - finish) >> 63
        loses = sooner | (near & ((contender - ticket) >> 63))
        ticket += (contender - ticket) & loses
        finish = min(finish, rival)
        node >>= 1
        tree[node]["finish"] = finish
        tree[node]["ticket"] = ticket
