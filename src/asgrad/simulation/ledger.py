"""The ledger: jobs, queues, batch, table, and what a server's decisions do to them. Compiled.

The simulator and the server of a live run both keep it, so a decision means the same to both.

A job lives in a slot from its assignment until its fate is settled; then the slot is used again.
`link` chains slots into lists: a worker's queue, the batch of the coming step, an entry of the
table, the free slots. With `record`, what happens to a job is also written to the tables of a
trace; with `live`, whoever drives the ledger is told what he has to do (`ACTS`).
"""

from __future__ import annotations

import numpy as np

from asgrad.kernels import inlined
from asgrad.methods.decisions import (
    ALARM,
    APPLY,
    ASSIGN,
    CANCEL,
    CLEAR,
    DROP,
    HOLD,
    RESTART,
    STEP,
    WEIGH,
)
from asgrad.simulation.arrays import Act
from asgrad.times.links import delivered_at, received_at
from asgrad.trace.tables import Fate

__all__ = [
    "arrive_job",
    "assign_job",
    "carry_out",
    "give_out_waiting",
    "job_at",
    "join_worker",
    "leave_worker",
    "lacks_room",
    "lose_job",
    "n_acts_at_most",
    "next_delivery",
    "next_job",
    "note_leaving",
    "send_job",
    "unlink_job",
    "weigh_entry",
    "wrong_decision",
]

_IN_FLIGHT = int(Fate.IN_FLIGHT)
_APPLIED = int(Fate.APPLIED)
_DROPPED = int(Fate.DROPPED)
_CANCELLED = int(Fate.CANCELLED)
_LOST = int(Fate.LOST)
_LAST_VERDICT = max(APPLY, HOLD, DROP)  # whose codes come before all others

_TELL_ASSIGNED = int(Act.ASSIGNED)
_TELL_CANCELLED = int(Act.CANCELLED)
_TELL_ROW = int(Act.ROW)
_TELL_SHOWN = int(Act.SHOWN)
_TELL_STEP = int(Act.STEP)
_TELL_FINISHED = int(Act.FINISHED)
_TELL_APPLIED = int(Act.APPLIED)
_TELL_HELD = int(Act.HELD)
_TELL_CLEARED = int(Act.CLEARED)


@inlined
def _act(ledger, code, slot, entry, weight, flag):
    """Tell the driver what to do; `lacks_room` has seen to it that there is room."""
    row = ledger.counts[0]["n_acts"]
    ledger.acts[row]["code"] = code
    ledger.acts[row]["slot"] = slot
    ledger.acts[row]["entry"] = entry
    ledger.acts[row]["weight"] = weight
    ledger.acts[row]["flag"] = flag
    ledger.counts[0]["n_acts"] = row + 1


@inlined
def _free_slot(ledger, slot):
    """Give back the slot of a job whose fate is settled."""
    ledger.slots[slot]["link"] = ledger.counts[0]["free"]
    ledger.counts[0]["free"] = slot
    ledger.counts[0]["n_free"] += 1


@inlined
def assign_job(ledger, record, live, worker, work, now):
    """Append a job at the current model to a worker's queue; work 0 is what it is by default."""
    counts, slots, workers, jobs = ledger.counts, ledger.slots, ledger.workers, ledger.jobs
    slot = counts[0]["free"]
    counts[0]["free"] = slots[slot]["link"]
    counts[0]["n_free"] -= 1
    row = counts[0]["assigned"]
    draw = workers[worker]["draws"]
    if work == 0:
        work = ledger.works[worker] if ledger.works.size > 0 else 1
    slots[slot]["worker"] = worker
    slots[slot]["work"] = work
    slots[slot]["row"] = row
    slots[slot]["read_step"] = counts[0]["steps"]
    slots[slot]["draw"] = draw
    slots[slot]["arrived"] = 0
    slots[slot]["applied"] = 0
    slots[slot]["start_time"] = np.nan
    slots[slot]["link"] = -1
    if record:
        jobs.worker[row] = worker
        jobs.read_step[row] = counts[0]["steps"]
        jobs.draw[row] = draw
        jobs.assign_time[row] = now
        jobs.start_time[row] = np.nan
        jobs.arrival_time[row] = np.nan
        jobs.fate[row] = _IN_FLIGHT
        if jobs.work.size > 0:
            jobs.work[row] = work
        if jobs.finish_time.size > 0:
            jobs.finish_time[row] = np.nan
        if jobs.fresh.size > 0:
            jobs.fresh[row] = 0
    if workers[worker]["head"] < 0:
        workers[worker]["head"] = slot
    else:
        slots[workers[worker]["tail"]]["link"] = slot
    workers[worker]["tail"] = slot
    if ledger.links.size > 0 and ledger.presence[worker]["away"] == 0:
        ready = received_at(ledger.links, ledger.server, worker, now)
        ledger.transit[slot]["ready"] = ready
        ledger.transit[slot]["delivered"] = np.nan
    workers[worker]["draws"] = draw + work
    counts[0]["assigned"] = row + 1
    counts[0]["flying"] += 1
    if live:
        ledger.acts[counts[0]["n_acts"]]["work"] = work
        _act(ledger, _TELL_ASSIGNED, slot, worker, float(draw), row)


@inlined
def _give_up(ledger, record, live, slot, now, fate):
    """End a job that has not arrived."""
    if record:
        row = ledger.slots[slot]["row"]
        ledger.jobs.arrival_time[row] = now
        ledger.jobs.fate[row] = fate
        if ledger.links.size > 0 and ledger.jobs.start_time[row] > now:
            ledger.jobs.start_time[row] = np.nan  # its model was still on the way
    if live:
        _act(ledger, _TELL_FINISHED, slot, -1, 0.0, fate)
    ledger.counts[0]["lost"] += fate == _LOST
    ledger.counts[0]["flying"] -= 1
    _free_slot(ledger, slot)


@inlined
def _strike_out(ledger, worker):
    """Take a worker off the list of those that may start: what was assigned now is called off."""
    kept = 0
    for i in range(ledger.counts[0]["n_starting"]):
        ledger.starting[kept] = ledger.starting[i]
        kept += ledger.starting[i] != worker
    ledger.counts[0]["n_starting"] = kept


@inlined
def _gather(ledger, record, worker, now):
    """Put the running job of a worker, and the gradients on their way from it, into its queue.

    They are to be given up there: the worker stops, and its links are free.
    """
    slots, workers, links = ledger.slots, ledger.workers, ledger.links
    slot = workers[worker]["running"]
    if slot >= 0:
        if not record:
            workers[worker]["busy"] += max(0.0, now - slots[slot]["start_time"])
        workers[worker]["running"] = -1
        slots[slot]["link"] = workers[worker]["head"]
        workers[worker]["head"] = slot
    if links.size > 0:
        if links[worker]["head"] >= 0:
            slots[links[worker]["tail"]]["link"] = workers[worker]["head"]
            workers[worker]["head"] = links[worker]["head"]
            links[worker]["head"] = -1
        links[worker]["down_free"] = min(links[worker]["down_free"], now)
        links[worker]["up_free"] = min(links[worker]["up_free"], now)


@inlined
def _cancel_jobs(ledger, record, live, worker, now):
    """Call off the running job of a worker and those in its queue, and what waits for it."""
    counts, slots, workers = ledger.counts, ledger.slots, ledger.workers
    slot = workers[worker]["running"]
    if slot < 0 and workers[worker]["head"] >= 0 and not live:
        _strike_out(ledger, worker)
    _gather(ledger, record, worker, now)
    slot = workers[worker]["head"]
    while slot >= 0:
        following = slots[slot]["link"]
        if live:
            _act(ledger, _TELL_CANCELLED, slot, -1, 0.0, 0)
        _give_up(ledger, record, live, slot, now, _CANCELLED)
        counts[0]["cancelled"] += 1
        slot = following
    workers[worker]["head"] = -1
    kept = 0
    for i in range(counts[0]["n_waiting"]):
        ledger.waiting[kept]["worker"] = ledger.waiting[i]["worker"]
        ledger.waiting[kept]["work"] = ledger.waiting[i]["work"]
        kept += ledger.waiting[i]["worker"] != worker
    counts[0]["n_waiting"] = kept


@inlined
def _drop_job(ledger, record, live, slot):
    """Throw an arrived job away."""
    if record:
        ledger.jobs.fate[ledger.slots[slot]["row"]] = _DROPPED
    if live:
        _act(ledger, _TELL_FINISHED, slot, -1, 0.0, _DROPPED)
    ledger.counts[0]["dropped"] += 1
    _free_slot(ledger, slot)


@inlined
def _use_gradient(ledger, record, slot, entry, first_step, end_step, weight):
    """Note that a job's gradient entered steps first_step <= s < end_step with this weight."""
    counts, slots, workers, rows = ledger.counts, ledger.slots, ledger.workers, ledger.rows
    if slots[slot]["applied"] == 0:
        slots[slot]["applied"] = 1
        if not record:  # in a trace the contributions say which jobs were applied
            worker = slots[slot]["worker"]
            delay = first_step - slots[slot]["read_step"]
            workers[worker]["applied"] += 1
            workers[worker]["delay"] += delay
            counts[0]["max_delay"] = max(counts[0]["max_delay"], delay)
    if record:
        row = counts[0]["rows"]
        rows.job[row] = slots[slot]["row"]
        rows.entry[row] = entry
        rows.first_step[row] = first_step
        rows.end_step[row] = end_step
        rows.weight[row] = weight
        counts[0]["rows"] = row + 1


@inlined
def _tell_entry(ledger, entry):
    """Tell what a table entry that has changed brings into the coming step.

    A gradient that starts to count is told; if it counted before, with another weight, its entry
    has it already. Where none starts, an entry that has lost its weight, or its gradients, leaves.
    """
    entries, slots, step = ledger.entries, ledger.slots, ledger.counts[0]["steps"]
    weight = entries[entry]["weight"]
    carried = 0
    slot = entries[entry]["head"]
    while slot >= 0:
        if slots[slot]["applied"] != 0 and slots[slot]["since"] <= step:
            carried = 1
        slot = slots[slot]["link"]
    starts = False
    slot = entries[entry]["head"]
    while slot >= 0 and weight != 0:
        if slots[slot]["since"] == step:
            code = _TELL_ROW if slots[slot]["applied"] == 0 else _TELL_SHOWN
            _act(ledger, code, slot, entry, weight, carried)
            starts = True
        slot = slots[slot]["link"]
    gone = weight == 0 or entries[entry]["head"] < 0
    if not starts and entries[entry]["shown"] != 0 and gone:
        _act(ledger, _TELL_SHOWN, -1, entry, 0.0, 1)
    entries[entry]["shown"] = 0.0 if gone else weight


@inlined
def _finish_entry(ledger, entry):
    """Note, after a step, which of an entry's gradients it has used for the first time."""
    slots, step = ledger.slots, ledger.counts[0]["steps"]
    slot = ledger.entries[entry]["head"]
    while slot >= 0 and ledger.entries[entry]["weight"] != 0:
        if slots[slot]["since"] == step and slots[slot]["applied"] == 0:
            slots[slot]["applied"] = 1
            ledger.entries[entry]["used"] = 1
            _act(ledger, _TELL_FINISHED, slot, entry, 0.0, _APPLIED)
        slot = slots[slot]["link"]
    ledger.entries[entry]["touched"] = 0


@inlined
def _take_step(ledger, record, live, now):
    """Take a step: the jobs of the batch are applied and the batch is emptied."""
    counts, slots = ledger.counts, ledger.slots
    step = counts[0]["steps"]
    if live:
        slot = counts[0]["batch_head"]
        while slot >= 0:
            _act(ledger, _TELL_ROW, slot, -1, slots[slot]["weight"], 0)
            slot = slots[slot]["link"]
        for entry in range(ledger.entries.size):
            if ledger.entries[entry]["touched"] != 0:
                _tell_entry(ledger, entry)
        _act(ledger, _TELL_STEP, -1, -1, 0.0, 0)
    slot = counts[0]["batch_head"]
    while slot >= 0:
        following = slots[slot]["link"]
        _use_gradient(ledger, record, slot, -1, step, step + 1, slots[slot]["weight"])
        if live:
            _act(ledger, _TELL_FINISHED, slot, -1, 0.0, _APPLIED)
        _free_slot(ledger, slot)
        counts[0]["kept"] -= 1
        slot = following
    counts[0]["batch_head"] = -1
    if live:
        for entry in range(ledger.entries.size):
            if ledger.entries[entry]["touched"] != 0:
                _finish_entry(ledger, entry)
    if record:
        ledger.step_times[step] = now
    counts[0]["steps"] = step + 1


@inlined
def _apply_job(ledger, live, slot, weight):
    """Put an arrived job into the batch of the coming step."""
    counts, slots = ledger.counts, ledger.slots
    if live:
        _act(ledger, _TELL_APPLIED, slot, -1, weight, 0)
    slots[slot]["weight"] = weight
    slots[slot]["link"] = -1
    if counts[0]["batch_head"] < 0:
        counts[0]["batch_head"] = slot
    else:
        slots[counts[0]["batch_tail"]]["link"] = slot
    counts[0]["batch_tail"] = slot
    counts[0]["kept"] += 1


@inlined
def _hold_job(ledger, live, slot, entry):
    """Add an arrived job to an entry of the table."""
    slots, entries = ledger.slots, ledger.entries
    if live:
        _act(ledger, _TELL_HELD, slot, entry, 0.0, entries[entry]["used"])
    slots[slot]["link"] = -1
    slots[slot]["since"] = ledger.counts[0]["steps"] if entries[entry]["weight"] != 0 else -1
    if entries[entry]["head"] < 0:
        entries[entry]["head"] = slot
    else:
        slots[entries[entry]["tail"]]["link"] = slot
    entries[entry]["tail"] = slot
    entries[entry]["touched"] = 1
    ledger.counts[0]["kept"] += 1


@inlined
def weigh_entry(ledger, record, entry, weight):
    """Change the weight of an entry from the coming step on; rows with the old one are closed."""
    slots, entries, step = ledger.slots, ledger.entries, ledger.counts[0]["steps"]
    old = entries[entry]["weight"]
    slot = entries[entry]["head"]
    while slot >= 0:
        since = slots[slot]["since"]
        if old != 0 and since < step:
            _use_gradient(ledger, record, slot, entry, since, step, old)
        slots[slot]["since"] = step if weight != 0 else -1
        slot = slots[slot]["link"]
    entries[entry]["weight"] = weight
    entries[entry]["touched"] = 1


@inlined
def _clear_entry(ledger, record, live, entry):
    """Empty an entry; a job that never entered a step is dropped."""
    slots, entries = ledger.slots, ledger.entries
    weigh_entry(ledger, record, entry, 0.0)
    slot = entries[entry]["head"]
    while slot >= 0:
        following = slots[slot]["link"]
        if slots[slot]["applied"] == 0:
            _drop_job(ledger, record, live, slot)
        else:
            _free_slot(ledger, slot)
        ledger.counts[0]["kept"] -= 1
        slot = following
    entries[entry]["head"] = -1
    entries[entry]["used"] = 0
    if live:
        _act(ledger, _TELL_CLEARED, -1, entry, 0.0, 0)


@inlined
def wrong_decision(ledger):
    """Return the place in `out` of a decision that cannot be carried out; 0 if there is none.

    A rule that is compiled is not looked after: it may name a worker, an entry or an alarm that is
    not there, or say not one thing of the gradient that arrived, or one where none did.
    """
    if ledger.counts[0]["trusted"] != 0:
        return 0
    out, limits = ledger.out, ledger.limits
    n_decisions = int(out[0, 0])
    n_verdicts = 0
    for i in range(1, n_decisions + 1):
        code, target = int(out[i, 0]), int(out[i, 1])
        if code < 0 or code >= limits.size or target < 0 or target >= limits[code]:
            return i
        n_verdicts += code <= _LAST_VERDICT
    if n_verdicts != (1 if ledger.counts[0]["arriving"] >= 0 else 0):
        return n_decisions + 1
    return 0


@inlined
def _assign(ledger, record, live, deferred, worker, work, now):
    """Assign a job, or, `deferred`, note that it waits; an idle worker is to start it."""
    counts = ledger.counts
    if deferred:
        ledger.waiting[counts[0]["n_waiting"]]["worker"] = worker
        ledger.waiting[counts[0]["n_waiting"]]["work"] = work
        counts[0]["n_waiting"] += 1
        return
    heir = worker
    if counts[0]["n_away"] > 0 and ledger.presence[worker]["away"] != 0:
        # It was given a job all the same, says the trace; that is lost at once.
        assign_job(ledger, record, live, worker, work, now)
        slot = ledger.workers[worker]["tail"]
        unlink_job(ledger, worker, slot)
        _give_up(ledger, record, live, slot, now, _LOST)
        heir = _heir_of(ledger, worker, work)
    if heir >= 0:
        assign_job(ledger, record, live, heir, work, now)
        if not live and ledger.workers[heir]["running"] < 0:
            ledger.starting[counts[0]["n_starting"]] = heir
            counts[0]["n_starting"] += 1


@inlined
def _heir_of(ledger, worker, work):
    """Return who gets a job in place of one that `worker` has lost; −1: it is owed.

    The worker itself, if it is there. If it is gone, a method with `any_worker` has the job given
    to one of the workers that are there, each in its turn, since the queue of a worker that goes
    would otherwise grow from heir to heir. For other methods one, and no more, is owed to it.
    """
    counts, presence = ledger.counts, ledger.presence
    if presence[worker]["away"] == 0:
        return worker
    if counts[0]["any_worker"] == 0:
        presence[worker]["owed"] = max(1, work)
        return -1
    for _ in range(presence.size):
        heir = counts[0]["heir"]
        counts[0]["heir"] = (heir + 1) % presence.size
        if presence[heir]["away"] == 0:
            return heir
    counts[0]["owed"] += 1
    return -1


@inlined
def carry_out(ledger, record, live, deferred, now):
    """Carry out the decisions in `out`; `starting` then names who may have to start a job.

    They stand in the order of starting: the worker that arrived goes on with its queue at once,
    before what is assigned now. `deferred`: what is assigned waits for `give_out_waiting`.
    """
    counts, workers, out, starting = ledger.counts, ledger.workers, ledger.out, ledger.starting
    slot = counts[0]["arriving"]
    arrived = ledger.slots[slot]["worker"] if slot >= 0 else -1
    counts[0]["n_starting"] = 0
    counts[0]["n_alarmed"] = 0
    n_cancels = 0
    if arrived >= 0 and workers[arrived]["head"] >= 0:
        starting[0] = arrived
        counts[0]["n_starting"] = 1
    for i in range(1, int(out[0, 0]) + 1):
        code = int(out[i, 0])
        target = int(out[i, 1])
        if code == APPLY:
            _apply_job(ledger, live, slot, out[i, 2])
        elif code == STEP:
            _take_step(ledger, record, live, now)
        elif code == ASSIGN:
            _assign(ledger, record, live, deferred, target, int(out[i, 2]), now)
        elif code == DROP:
            _drop_job(ledger, record, live, slot)
        elif code in (CANCEL, RESTART):
            _cancel_jobs(ledger, record, live, target, now)
            n_cancels += 1
            if code == RESTART:
                _assign(ledger, record, live, deferred, target, int(out[i, 2]), now)
        elif code == HOLD:
            _hold_job(ledger, live, slot, target)
        elif code == WEIGH:
            weigh_entry(ledger, record, target, out[i, 2])
        elif code == CLEAR:
            _clear_entry(ledger, record, live, target)
        elif code == ALARM:
            ledger.alarms[target] = now + out[i, 2]
            ledger.alarmed[counts[0]["n_alarmed"]] = target
            counts[0]["n_alarmed"] += 1
    # Last those that may be left without work.
    n_starting = counts[0]["n_starting"]
    for i in range(1, int(out[0, 0]) + 1 if n_cancels > 0 else 1):
        if int(out[i, 0]) == CANCEL:
            starting[n_starting] = int(out[i, 1])
            n_starting += 1
    if arrived >= 0:
        starting[n_starting] = arrived
        n_starting += 1
    counts[0]["n_starting"] = n_starting


@inlined
def give_out_waiting(ledger, record, live, now):
    """Assign, at the current model, the jobs that wait; in the order in which they were named."""
    ledger.counts[0]["n_starting"] = 0
    n_waiting = ledger.counts[0]["n_waiting"]
    ledger.counts[0]["n_waiting"] = 0
    for i in range(n_waiting):
        waiting = ledger.waiting[i]
        _assign(ledger, record, live, False, waiting["worker"], waiting["work"], now)


@inlined
def next_job(ledger, record, worker, now):
    """Take the next job of an idle worker off its queue; return its slot, −1 for none."""
    slots, workers = ledger.slots, ledger.workers
    slot = workers[worker]["head"]
    if slot >= 0:
        workers[worker]["head"] = slots[slot]["link"]
        workers[worker]["running"] = slot
        if ledger.links.size > 0:  # once its model is there
            now = max(now, ledger.transit[slot]["ready"])
        slots[slot]["start_time"] = now
        if record:
            ledger.jobs.start_time[slots[slot]["row"]] = now
    return slot


@inlined
def send_job(ledger, record, worker, now):
    """Send the gradient of the job that `worker` has computed; return the job's slot."""
    slots, workers, links = ledger.slots, ledger.workers, ledger.links
    slot = workers[worker]["running"]
    workers[worker]["running"] = -1
    if slots[slot]["start_time"] > now:  # by rounding: it began at the moment that is now
        slots[slot]["start_time"] = now
        if record:
            ledger.jobs.start_time[slots[slot]["row"]] = now
    if record:
        ledger.jobs.finish_time[slots[slot]["row"]] = now
    else:
        workers[worker]["busy"] += now - slots[slot]["start_time"]
    delivered = delivered_at(links, ledger.server, worker, now)
    ledger.transit[slot]["delivered"] = delivered
    slots[slot]["link"] = -1
    if links[worker]["head"] < 0:
        links[worker]["head"] = slot
    else:
        slots[links[worker]["tail"]]["link"] = slot
    links[worker]["tail"] = slot
    return slot


@inlined
def next_delivery(ledger, worker):
    """Return when the next gradient that is on its way from `worker` arrives; infinity for none."""
    slot = ledger.links[worker]["head"]
    return ledger.transit[slot]["delivered"] if slot >= 0 else np.inf


@inlined
def arrive_job(ledger, record, worker, now):
    """Take the finished job of `worker` off it, or off its link; return the job's slot."""
    counts, slots, workers, log = ledger.counts, ledger.slots, ledger.workers, ledger.log
    if ledger.links.size > 0:
        slot = ledger.links[worker]["head"]
        ledger.links[worker]["head"] = slots[slot]["link"]
    else:
        slot = workers[worker]["running"]
        workers[worker]["running"] = -1
        if not record:
            workers[worker]["busy"] += now - slots[slot]["start_time"]
    slots[slot]["arrived"] = 1
    if record:
        log[counts[0]["arrived"]]["row"] = slots[slot]["row"]
        log[counts[0]["arrived"]]["time"] = now
        if ledger.jobs.fresh.size > 0:
            ledger.jobs.fresh[slots[slot]["row"]] = ledger.presence[worker]["forgot"]
            ledger.presence[worker]["forgot"] = 0
    counts[0]["flying"] -= 1
    counts[0]["arrived"] += 1
    counts[0]["arriving"] = slot
    return slot


@inlined
def job_at(ledger, worker, row):
    """Return the slot of a worker's unfinished job by its row, −1 if there is none."""
    slot = ledger.workers[worker]["head"]
    while slot >= 0 and ledger.slots[slot]["row"] != row:
        slot = ledger.slots[slot]["link"]
    return slot


@inlined
def unlink_job(ledger, worker, slot):
    """Take a job off its worker's queue, wherever it stands there."""
    slots, workers = ledger.slots, ledger.workers
    before, following = -1, workers[worker]["head"]
    while following != slot:
        before, following = following, slots[following]["link"]
    if before < 0:
        workers[worker]["head"] = slots[slot]["link"]
    else:
        slots[before]["link"] = slots[slot]["link"]
    if workers[worker]["tail"] == slot:
        workers[worker]["tail"] = before


@inlined
def lose_job(ledger, record, live, slot, now):
    """End a job whose worker failed; another in its place is given out, or owed."""
    counts, slots = ledger.counts, ledger.slots
    worker, work = int(slots[slot]["worker"]), int(slots[slot]["work"])
    unlink_job(ledger, worker, slot)
    counts[0]["n_starting"] = 0
    _replace_job(ledger, record, live, slot, worker, work, now)


@inlined
def _replace_job(ledger, record, live, slot, worker, work, now):
    """Mark a job as lost, and give its heir one in its place."""
    _give_up(ledger, record, live, slot, now, _LOST)
    heir = _heir_of(ledger, worker, work)
    if heir >= 0:
        _assign(ledger, record, live, False, heir, work, now)


@inlined
def note_leaving(ledger, record, worker, now):
    """Note that a worker takes no more jobs."""
    counts, presence = ledger.counts, ledger.presence
    if presence[worker]["away"] == 0:
        presence[worker]["away"] = 1
        counts[0]["n_away"] += 1
        presence[worker]["forgot"] = 1
        if record:
            row = counts[0]["n_absences"]
            ledger.absences[row]["worker"] = worker
            ledger.absences[row]["begin"] = now
            ledger.absences[row]["end"] = np.nan
            presence[worker]["row"] = row
            counts[0]["n_absences"] = row + 1


@inlined
def leave_worker(ledger, record, worker, now):
    """Let a simulated worker go; all that it has is lost, the oldest first."""
    slots, workers = ledger.slots, ledger.workers
    note_leaving(ledger, record, worker, now)
    ledger.counts[0]["n_starting"] = 0
    _gather(ledger, record, worker, now)
    slot = workers[worker]["head"]
    workers[worker]["head"] = -1
    while slot >= 0:
        following, work = slots[slot]["link"], int(slots[slot]["work"])
        _replace_job(ledger, record, False, slot, worker, work, now)
        slot = following


@inlined
def join_worker(ledger, record, live, worker, now):
    """Let a worker that was away be given jobs again, and at once what could not be given out."""
    counts, presence = ledger.counts, ledger.presence
    if presence[worker]["away"] != 0:
        presence[worker]["away"] = 0
        counts[0]["n_away"] -= 1
        if record:
            ledger.absences[presence[worker]["row"]]["end"] = now
    work = presence[worker]["owed"]
    n_jobs = 1 if work > 0 else 0
    presence[worker]["owed"] = 0
    if counts[0]["any_worker"] != 0:
        n_jobs, work = counts[0]["owed"], 0
        counts[0]["owed"] = 0
    else:
        for i in range(counts[0]["n_waiting"]):
            if ledger.waiting[i]["worker"] == worker:  # it gets its job there
                n_jobs = 0
    counts[0]["n_starting"] = 0
    for _ in range(n_jobs):
        _assign(ledger, record, live, False, worker, work, now)


@inlined
def lacks_room(ledger, record, live):
    """Say whether the arrays are too small for the decisions in `out`."""
    counts, out = ledger.counts, ledger.out
    n_decisions = int(out[0, 0])
    n_coming = n_decisions + counts[0]["n_waiting"] + counts[0]["owed"] + counts[0]["n_orphans"]
    n_coming += 1  # what is owed to a worker that joins
    if counts[0]["n_orphans"] + 2 > ledger.starting.size:
        return True
    if not (record or live):
        return counts[0]["n_free"] < n_coming
    n_steps = 0
    if counts[0]["kept"] > 0 or live:
        for i in range(1, n_decisions + 1):
            n_steps += int(out[i, 0]) == STEP
    # Between two steps each kept job's row can be closed at most once.
    counts[0]["needed_rows"] = (
        counts[0]["rows"] + (n_steps + 1) * (counts[0]["kept"] + 1) + n_decisions
    )
    if live and n_acts_at_most(ledger, n_steps) > ledger.acts.size:
        return True
    return counts[0]["n_free"] < n_coming or (
        record
        and (
            # One that is given to a worker which is away is lost, and another in its place.
            counts[0]["assigned"] + 2 * n_coming > ledger.jobs.worker.size
            or counts[0]["n_absences"] + 1 > ledger.absences.size
            or counts[0]["steps"] + n_decisions > ledger.step_times.size
            or counts[0]["arrived"] + 1 > ledger.log.size  # the next arrival's place
            or counts[0]["needed_rows"] > ledger.rows.job.size
        )
    )


@inlined
def n_acts_at_most(ledger, n_steps):
    """Return how many acts the decisions in `out` can lead to, with so many steps among them.

    A step tells of every kept job twice, of every entry once, and of itself. Besides, every job in
    flight may be called off, in two acts, and every decision give one out, which may be lost at
    once and have an heir, which may be called off.
    """
    counts = ledger.counts
    of_a_step = 2 * (counts[0]["kept"] + 1) + ledger.entries.size + 1
    n_decisions = int(ledger.out[0, 0]) + counts[0]["n_waiting"] + counts[0]["owed"] + 1
    return n_steps * of_a_step + 2 * counts[0]["flying"] + 5 * n_decisions + counts[0]["kept"]
