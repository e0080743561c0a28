"""The decisions a method can take at an arrival, and how a compiled rule writes them down.

A rule fills a table `out` (float64, one decision a row): out[0, 0] counts the decisions, row i >= 1
holds (code, target, weight). Exactly one of apply, hold and drop must be said of the job that
arrived. Decisions are carried out in the order in which they were written. Beside the count stand
the moment, out[0, 1], and how long the job took, out[0, 2]. When an alarm goes off, nothing is said
of a gradient.
"""

from __future__ import annotations

from asgrad.kernels import inlined

__all__ = [
    "apply",
    "assign",
    "cancel",
    "clear",
    "drop",
    "hold",
    "job_time",
    "moment",
    "restart",
    "set_alarm",
    "take_step",
    "weigh",
]

APPLY = 1
HOLD = 2
DROP = 3
STEP = 4
ASSIGN = 5
CANCEL = 6
WEIGH = 7
CLEAR = 8
RESTART = 9
ALARM = 10


@inlined
def _write(out, code, target, weight):
    """Append one decision."""
    row = int(out[0, 0]) + 1
    out[0, 0] = row
    if row < out.shape[0]:  # what does not fit is refused by whoever carries it out
        out[row, 0] = code
        out[row, 1] = target
        out[row, 2] = weight


@inlined
def apply(out, weight):
    """The arrived gradient enters the direction of the next step, once, with this weight."""
    _write(out, APPLY, 0, weight)


@inlined
def hold(out, entry):
    """The arrived gradient is added to an entry of the server's table and stays until cleared."""
    _write(out, HOLD, entry, 0.0)


@inlined
def drop(out):
    """The arrived gradient is thrown away."""
    _write(out, DROP, 0, 0.0)


@inlined
def take_step(out):
    """The server takes a step: all that is applied, and every weighed entry, is its direction."""
    _write(out, STEP, 0, 0.0)


@inlined
def assign(out, worker, work=0):
    """`worker` gets a job at the current model; if it is busy, the job joins its queue.

    `work` is how many gradients it is made of; 0: as many as the recipe says.
    """
    _write(out, ASSIGN, worker, float(work))


@inlined
def cancel(out, worker):
    """The unfinished jobs of `worker` are called off, the running one and those in its queue."""
    _write(out, CANCEL, worker, 0.0)


@inlined
def weigh(out, entry, weight):
    """From the next step on, the sum in `entry` enters every direction with this weight."""
    _write(out, WEIGH, entry, weight)


@inlined
def clear(out, entry):
    """`entry` is emptied: its gradients enter no later step. Its weight becomes 0."""
    _write(out, CLEAR, entry, 0.0)


@inlined
def restart(out, worker, work=0):
    """The unfinished jobs of `worker` are called off; it gets one at the current model instead."""
    _write(out, RESTART, worker, float(work))


@inlined
def set_alarm(out, alarm, seconds):
    """After so many seconds the rule is asked, unless the alarm is set anew; infinity: never.

    It is then called with worker = −1 − alarm and read_step = −1, and must not say anything of a
    gradient. What arrives at that very moment comes first.
    """
    _write(out, ALARM, alarm, seconds)


@inlined
def moment(out):
    """Return when the job arrived, in seconds since the run began."""
    return out[0, 1]


@inlined
def job_time(out):
    """Return how long the job that arrived took, in seconds, from its start to its arrival."""
    return out[0, 2]
