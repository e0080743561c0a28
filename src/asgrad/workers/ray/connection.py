"""How the server comes to a Ray: one that runs, or one of its own."""

from __future__ import annotations

import math
import os
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from asgrad.errors import AsgradError, in_one_line
from asgrad.machine import processors
from asgrad.workers.ray.actor import INLINE

__all__ = ["Connection", "connect", "imported"]

_INLINE_HERE = 1_000_000  # as INLINE, in a Ray that is started for this run
_KNOCK = 5.0  # seconds to wait for a cluster's address to answer
_QUIET = {"log_to_driver": False, "logging_level": "error"}
# A process has one Ray at most. Runs at the same time share it, and the last to end stops it, if it
# was started, or connected, for the first.
_changing = threading.Lock()
_sharing: list[Connection] = []


class Connection(NamedTuple):
    """A Ray that is connected."""

    ray: Any
    """The module."""
    inline: int
    """Bytes; a smaller array travels with a call, a larger one through the object store."""

    def close(self) -> None:
        """Stop it, unless it was there before, or is used by another run."""
        with _changing:
            if self in _sharing:
                _sharing.remove(self)
                if not _sharing:
                    self.ray.shutdown()


def imported() -> Any:
    """Return the module ray."""
    try:
        import ray
    except ImportError as error:
        raise AsgradError("workers on Ray need Ray: pip install 'asgrad[ray]'.") from error
    return ray


def connect(ray: Any, address: str | None, n_cpus: float) -> Connection:
    """Connect to the cluster at `address`, or start a Ray here, unless one is connected already."""
    with _changing:
        if _sharing:
            _sharing.append(_sharing[0])
        elif ray.is_initialized():
            return Connection(ray, INLINE)
        elif address is not None:
            _join(ray, address)
            _sharing.append(Connection(ray, INLINE))
        else:
            _start(ray, max(processors(), math.ceil(n_cpus)))  # there may be more than cores
            _sharing.append(Connection(ray, _INLINE_HERE))
        return _sharing[-1]


def _join(ray: Any, address: str) -> None:
    """Connect to a cluster that runs."""
    _knock(address)
    try:
        ray.init(address=address, **_QUIET)
    except Exception as error:  # some are of Ray's own kinds
        reason = in_one_line(error).rstrip(".")
        raise AsgradError(
            f"Ray: no cluster at {address}: {reason}. If it asks for a token, set "
            "RAY_AUTH_MODE=token here too; the token is the one in ~/.ray/auth_token."
        ) from error


def _start(ray: Any, room: int) -> None:
    """Start a Ray with room for so many CPUs."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if not os.access(os.path.expanduser("~"), os.W_OK):  # where Ray would keep its token
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    limits = {
        "max_direct_call_object_size": _INLINE_HERE,
        "task_rpc_inlined_bytes_limit": 100 * _INLINE_HERE,
        "free_objects_batch_size": 1,  # at once: fresh memory costs more than a copy
        "event_stats": False,  # of every small message, for Ray's own developers
    }
    try:
        with _loopback_only():
            ray.init(
                address="local",  # not a cluster that runs here already
                num_cpus=room,
                include_dashboard=False,
                _system_config=limits,
                **_QUIET,
            )
    except Exception as error:  # Ray raises plain Exceptions, too
        reason = in_one_line(error).rstrip(".")
        raise AsgradError(
            f"Ray: none could be started on this machine: {reason}. Where it is busy, try again; "
            "or use ag.Threads."
        ) from error


@contextmanager
def _loopback_only() -> Iterator[None]:
    """Let a Ray that starts listen on the loopback interface only, where nobody else can reach it.

    Ray does so by itself on systems on which it makes no clusters; it has no option for others.
    """
    try:
        from ray._private import ray_constants
    except ImportError:  # another version of Ray: what it listens on is its own choice
        yield
        return
    before = getattr(ray_constants, "ENABLE_RAY_CLUSTER", None)
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _knock(address: str) -> None:
    """Refuse an address where nobody listens; Ray itself would try for more than a minute."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (colon and port.isdecimal()):
        return  # "auto" and the like
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK).close()
    except (OSError, OverflowError, ValueError) as error:
        raise AsgradError(
            f"Ray: no cluster at {address}: {error}. Start one there with ray start --head, or "
            "leave the address out."
        ) from error
