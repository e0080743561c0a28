"""Who finishes first: a tournament over the moments at which the workers finish."""

from __future__ import annotations

import numpy as np

from asgrad.kernels import aligned, inlined, prefetch
from asgrad.moments import SAME, place

__all__ = [
    "ALARMS_LAST",
    "CHANGES_LAST",
    "TREE",
    "finish_place",
    "first_worker",
    "new_tree",
    "prefetch_arrivals",
    "reschedule",
]

# The workers are the leaves, or lines for all kinds of events that a run has. Node i > 0 holds the
# earliest of its children 2i and 2i + 1. A leaf's path to the root is known in advance, so its
# cache misses overlap even with a million workers. The ticket, (starts before this one) * leaves +
# worker, settles ties and names the worker.
TREE = np.dtype([("finish", np.int64), ("ticket", np.int64)])
# Of what falls on one moment, jobs come first, then who goes or comes back, then alarms, the two by
# their numbers: so many starts before them stand in their tickets.
CHANGES_LAST, ALARMS_LAST = 1 << 38, 1 << 39
_LAST = 2**63 - 1  # after all tickets
_NODES_IN_CACHE = 1 << 14  # the top of the tree, which every arrival touches


def new_tree(n_workers: int) -> np.ndarray:
    """Return the tournament of idle workers."""
    leaves = max(2, 1 << (n_workers - 1).bit_length())
    tree = aligned(2 * leaves, TREE)
    tree["finish"], tree["ticket"] = place(np.inf), 0
    return tree


@inlined
def finish_place(tree, worker):
    """Return the place of the moment at which `worker` finishes."""
    return tree[tree.size // 2 + worker]["finish"]


@inlined
def first_worker(tree, moment):
    """Return the worker whose job, of those that finish at `moment`, started first."""
    leaves = tree.size // 2
    worker = tree[1]["ticket"] & (leaves - 1)
    latest = place(moment) + SAME
    if finish_place(tree, worker) > latest:
        # On its way up it met one that is near to both it and the first, which are not near.
        ticket = _LAST
        for node in range(leaves, tree.size):
            if tree[node]["finish"] <= latest:
                ticket = min(ticket, tree[node]["ticket"])
        worker = ticket & (leaves - 1)
    return worker


@inlined
def reschedule(tree, started, worker, time):
    """Set the moment at which `worker` finishes (infinity: never) and replay its matches.

    `started` counts the starts before this one.
    """
    leaves = tree.size // 2
    node = leaves + worker
    ticket = started * leaves + worker
    finish = place(time)
    tree[node]["finish"] = finish
    tree[node]["ticket"] = ticket
    while node > 1:
        rival = tree[node ^ 1]["finish"]
        contender = tree[node ^ 1]["ticket"]
        # Of one moment, the ticket decides. No branch, since who wins cannot be predicted: signs
        # are spread over masks. Compared and chosen, LLVM makes it a branch.
        sooner = (rival + SAME - finish) >> 63
        near = (rival - SAME - 1 - finish) >> 63
        loses = sooner | (near & ((contender - ticket) >> 63))
        ticket += (contender - ticket) & loses
        finish = min(finish, rival)
        node >>= 1
        tree[node]["finish"] = finish
        tree[node]["ticket"] = ticket


@inlined
def prefetch_arrivals(slots, workers, tree, scales, worker):
    """Prefetch what coming arrivals will touch, after `worker` was rescheduled.

    With a million workers an arrival misses the cache a dozen times. The first to finish among a
    64th of the workers arrives some 64 arrivals from now; it can have changed only in the part of
    the tree around `worker`. A job's slot is asked for later, when its worker's record is there.
    """
    leaves = tree.size // 2
    if leaves < _NODES_IN_CACHE:
        return
    leaf = leaves + worker
    coming = tree[leaf * 64 // leaves]["ticket"] & (leaves - 1)
    prefetch(workers, coming)
    prefetch(scales, coming)
    node = leaves + coming
    while node >= _NODES_IN_CACHE:
        prefetch(tree, node)
        node >>= 1
    sooner = tree[leaf * 8 // leaves]["ticket"] & (leaves - 1)
    slot = workers[sooner]["running"] if sooner < workers.size else -1
    if slot >= 0:
        prefetch(slots, slot)
