"""A stand-in for Ray, of threads: as much of it as asgrad uses, as strict as the real one."""

from __future__ import annotations

import copy
import queue
import threading
import time
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import numpy as np


class Death(BaseException):
    """Raised inside an actor, it ends the actor as SIGKILL would."""


class RayTaskError(Exception):
    """What a task raised."""

    def __init__(self, cause: BaseException):
        super().__init__(f"a long traceback\n{cause}")
        self.cause = cause


class RayActorError(Exception):
    """The actor is dead."""


class Ref:
    """An object, or one that is to come."""

    def __init__(self) -> None:
        self.content: Future = Future()

    def future(self) -> Future:
        """The content as a future; every call gives another, as in Ray."""
        outer: Future = Future()

        def hand_on(inner: Future) -> None:
            if inner.exception():
                outer.set_exception(inner.exception())
            else:
                outer.set_result(inner.result())

        self.content.add_done_callback(hand_on)
        return outer


def stored(value: Any) -> Any:
    """A value as the object store gives it back: a copy, arrays read-only."""
    if isinstance(value, np.ndarray):
        value = value.copy()
        value.flags.writeable = False
        return value
    return copy.deepcopy(value)


class Handle:
    """An actor: a thread that takes calls one by one."""

    def __init__(self, fake: FakeRay, cls: type, arguments: tuple):
        self._fake, self._cls, self._arguments = fake, cls, arguments
        self.calls: queue.SimpleQueue = queue.SimpleQueue()
        self.open: set[Ref] = set()
        self.dead = False
        self.lock = threading.Lock()
        threading.Thread(target=self._work, daemon=True, name="fake-actor").start()

    def __getattr__(self, name: str) -> Any:
        method = SimpleNamespace(remote=lambda *arguments: self._call(name, arguments))
        method.options = lambda **options: method
        return method

    def _call(self, name: str, arguments: tuple) -> Ref:
        ref = Ref()
        with self.lock:
            assert len(self.open) < 1 or name == "ready", "one call in flight"
            if self.dead:
                ref.content.set_exception(RayActorError("the actor is dead"))
                return ref
            self.open.add(ref)
        self.calls.put((ref, name, self._fake.resolved(arguments)))
        return ref

    def _work(self) -> None:
        while not self._fake.takes_room(self):
            time.sleep(0.005)
            if self.dead:
                return
        instance = self._cls(*self._fake.resolved(self._arguments))
        while not self.dead:
            call = self.calls.get()
            if call is None:
                return
            ref, name, arguments = call
            try:
                self.end(ref, stored(getattr(instance, name)(*arguments)))
            except Death:
                self.die()
            except Exception as error:
                self.end(ref, None, RayTaskError(error))

    def end(self, ref: Ref, value: Any, error: Exception | None = None) -> None:
        """End a call, unless the actor has died."""
        with self.lock:
            if ref not in self.open:
                return
            self.open.remove(ref)
        if error:
            ref.content.set_exception(error)
        else:
            ref.content.set_result(value)

    def die(self) -> None:
        """End the actor; its calls fail."""
        self.dead = True
        self.calls.put(None)
        for ref in list(self.open):
            self.end(ref, None, RayActorError("the actor died"))


class FakeRay(SimpleNamespace):
    """The module."""

    def __init__(self) -> None:
        super().__init__()
        self.exceptions = SimpleNamespace(RayTaskError=RayTaskError, RayActorError=RayActorError)
        self.actors: list[Handle] = []
        self.n_puts = 0
        self.room = 10**9
        self._running = False
        self._started: list[Handle] = []
        self._lock = threading.Lock()

    def init(self, **options: Any) -> None:
        """Start."""
        self._running = True

    def shutdown(self) -> None:
        """Stop."""
        self._running = False

    def is_initialized(self) -> bool:
        """Whether it runs."""
        return self._running

    def takes_room(self, actor: Handle) -> bool:
        """Whether an actor may start: as many run as there is room for."""
        with self._lock:
            running = [other for other in self._started if not other.dead]
            if len(running) >= self.room:
                return False
            self._started.append(actor)
            return True

    def cluster_resources(self) -> dict[str, float]:
        """What there is."""
        return {"CPU": float(self.room)}

    def put(self, value: Any) -> Ref:
        """Store a value."""
        self.n_puts += 1
        ref = Ref()
        ref.content.set_result(stored(value))
        return ref

    def resolved(self, arguments: tuple) -> list[Any]:
        """Arguments with references replaced by what they stand for."""
        return [a.content.result() if isinstance(a, Ref) else stored(a) for a in arguments]

    def remote(self, cls: type) -> Any:
        """An actor class."""

        def make(*arguments: Any) -> Handle:
            self.actors.append(Handle(self, cls, arguments))
            return self.actors[-1]

        made = SimpleNamespace(remote=make)
        made.options = lambda **options: made
        return made

    def kill(self, actor: Handle) -> None:
        """Kill an actor."""
        actor.die()
