"""Faults that are real: processes and nodes of a Ray cluster are killed while it trains."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
from contextlib import suppress

import numpy as np
import pytest

import asgrad as ag
from accounting import Account
from asgrad.trace import Fate
from asgrad.training import Ending

pytest.importorskip("ray")


@pytest.fixture
def cluster():
    """A cluster of three nodes on this machine: the head without room for workers, two with."""
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    made.nodes = [made.add_node(num_cpus=2), made.add_node(num_cpus=2)]
    ray.init(address=made.address, log_to_driver=False, logging_level="critical")
    yield made
    ray.shutdown()
    made.shutdown()


def small() -> ag.Problem:
    """Four workers on the digits."""
    return ag.problems.Softmax("digits", n_workers=4, split="label", batch=16, strength=0.01)


def large() -> ag.Problem:
    """Gradients of 160 kB, which workers write where the server reads them."""
    return ag.problems.Tridiagonal(20_000, n_workers=4, noise=0.1)


def is_alive(pid: int) -> bool:
    """Say whether a process exists and is no zombie."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


class Killer:
    """Kills, from the run's own callback, at given moments; remembers what it killed."""

    def __init__(self, cluster, plan: list[tuple[float, str]]):
        self.cluster, self.plan = cluster, plan
        self.account = Account(4)
        self.killed: list[int] = []
        self.steps: list[int] = []
        self.n_lost: list[int] = []
        self.last = 0.0
        self.comers: list[threading.Timer] = []
        self.back: set[int] = set()

    def on_open(self, session) -> None:
        """Keep the session; the callback of `train`."""
        self.session = session
        self.account.on_open(session)

    def add_node(self) -> None:
        """Another node joins."""
        self.cluster.nodes.append(self.cluster.add_node(num_cpus=2, wait=False))

    def on_arrival(self, job) -> None:
        """End the run once nothing is left to kill and all workers are back.

        By then the processes of the last killed node are gone. How long that takes depends on when
        Ray sees that a node is dead, and on the machine's load.
        """
        self.account.on_arrival(job)
        if not self.plan and job.assign_time > self.last + 6.0:
            self.back.add(job.worker)
        if len(self.back) == 4:
            self.back.clear()  # a second signal would break it off
            signal.raise_signal(signal.SIGINT)

    def __call__(self, step: int, now: float) -> None:
        if step % 200 == 0 and self.steps:  # again and again after each
            self.n_lost.append(self.account.check_now())
        if not self.plan or now < self.plan[0][0]:
            return
        self.n_lost.append(self.account.check_now())
        _, what = self.plan.pop(0)
        if what == "process":
            alive = [pid for pid in self.session.pids if pid and is_alive(pid)]
            if not alive:  # all are being started anew
                self.plan.insert(0, (now + 0.5, what))
                return
            pid = random.choice(alive)
            os.kill(pid, signal.SIGKILL)
            self.killed.append(pid)
        else:
            node = self.cluster.nodes.pop(random.randrange(len(self.cluster.nodes)))
            raylet = node.all_processes["raylet"][0].process.pid
            assert is_alive(raylet)
            self.cluster.remove_node(node, allow_graceful=False)
            self.killed.append(raylet)
            # Ray starts nodes from the main thread only; there the run waits.
            post = self.session._to_do.put
            self.comers.append(threading.Timer(0.5, post, [(self.add_node, ())]))
            self.comers[-1].start()
        self.steps.append(step)
        self.last = now


def check(run: ag.Training, killer: Killer, problem: ag.Problem) -> None:
    """The faults landed; every job has one fate; the bits come back."""
    for comer in killer.comers:
        comer.join()
    for pid in killer.killed:
        assert not is_alive(pid)
    killer.account.check(run)
    assert killer.n_lost == sorted(killer.n_lost)
    assert killer.n_lost[-1] > 0
    jobs = run.trace.jobs
    counts = {fate: int((jobs.fate == fate).sum()) for fate in Fate}
    assert sum(counts.values()) == run.trace.n_jobs
    assert counts[Fate.LOST] >= 1
    keys = set(zip(jobs.worker.tolist(), jobs.draw.tolist(), strict=True))
    assert len(keys) == run.trace.n_jobs
    assert run.trace.n_steps > max(killer.steps)
    again = ag.replay(run.trace, problem, 0.05, evaluations=1)
    np.testing.assert_array_equal(again.models[:, 0], run.model)


def descendants(pid: int) -> set[int]:
    """A process's children and theirs."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            with suppress(OSError), open(f"/proc/{entry}/stat") as file:
                parents[int(entry)] = int(file.read().rsplit(")", 1)[1].split()[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def listening(pids: set[int]) -> list[str]:
    """The addresses on which processes listen, in hexadecimal digits."""
    sockets = set()
    for pid in pids:
        with suppress(OSError):
            for entry in os.scandir(f"/proc/{pid}/fd"):
                with suppress(OSError):
                    sockets.add(os.readlink(entry.path))
    found = []
    for table in ("tcp", "tcp6"):
        with open(f"/proc/net/{table}") as file:
            rows = [line.split() for line in file.readlines()[1:]]
        found += [row[1].partition(":")[0] for row in rows
                  if row[3] == "0A" and f"socket:[{row[9]}]" in sockets]  # fmt: skip
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_a_ray_of_ones_own_listens_on_loopback_only():
    """Whoever can reach a Ray can run code in it."""
    found = []
    ag.train(
        small(), ag.methods.Pure(), 0.05, workers=ag.Ray(), steps=20,
        on_step=lambda step, now: found.append(listening(descendants(os.getpid()))),
    )  # fmt: skip
    loopback = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
    assert len(found[-1]) >= 5  # of the head, the node, and four workers
    assert set(found[-1]) <= loopback


def test_a_killed_process_and_a_killed_node(cluster):
    """A worker is killed, then a node with its workers; a new node takes their place."""
    killer = Killer(cluster, [(1.0, "process"), (4.0, "node")])
    run = ag.train(
        small(), ag.methods.Pure(), 0.05, workers=ag.Ray(restarts=20), until_time=120.0,
        on_open=killer.on_open, on_step=killer, on_arrival=killer.on_arrival,
    )  # fmt: skip
    assert run.status == Ending.INTERRUPTED
    assert len(killer.killed) == 2
    check(run, killer, small())


@pytest.mark.soak
@pytest.mark.parametrize(
    "method",
    [
        ag.methods.Sync(),
        ag.methods.Random(),
        ag.methods.Ringmaster(max_delay=3),
        ag.methods.Ringleader(),
        ag.methods.Shuffled(wait=2),
    ],
    ids=lambda method: method.label,
)
def test_many_faults_at_random_moments(method, cluster):
    """Processes and nodes die and come; the run goes on, once Ray has seen that nodes are dead."""
    random.seed(method.label)
    plan = []
    now = 1.0
    for _ in range(6):
        what = random.choice(["process", "process", "node"])
        plan.append((now, what))
        now += random.uniform(3.0, 8.0)
    killer = Killer(cluster, plan)
    run = ag.train(
        large(), method, 0.05, workers=ag.Ray(restarts=50), until_time=now + 600,
        on_open=killer.on_open, on_step=killer, on_arrival=killer.on_arrival,
    )  # fmt: skip
    assert run.status == Ending.INTERRUPTED
    assert plan == []
    check(run, killer, large())
