"""Links: models and gradients take time on their way, beside the computation."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from asgrad.errors import AsgradError, as_number, check_positive
from asgrad.kernels import inlined
from asgrad.times.base import (
    LINK,
    SERVER_LINK,
    Clock,
    CodeBytes,
    Scale,
    check_scale,
    scales_of,
)
from asgrad.times.conditions import Condition

__all__ = ["Links", "delivered_at", "received_at"]


@inlined
def received_at(links, server, worker, now):
    """Return when a model that is sent now has reached its worker; the links are busy meanwhile.

    What is sent first goes first: on the worker's own link, and on the server's, if that is shared.
    """
    begin = max(now, links[worker]["down_free"], server[0]["down_free"])
    links[worker]["down_free"] = begin + max(links[worker]["download"], server[0]["download"])
    server[0]["down_free"] = begin + server[0]["download"]
    return links[worker]["down_free"] + links[worker]["latency"]


@inlined
def delivered_at(links, server, worker, now):
    """Return when a gradient that is ready now has reached the server, likewise."""
    begin = max(now, links[worker]["up_free"], server[0]["up_free"])
    links[worker]["up_free"] = begin + max(links[worker]["upload"], server[0]["upload"])
    server[0]["up_free"] = begin + server[0]["upload"]
    return links[worker]["up_free"] + links[worker]["latency"]


@dataclass(frozen=True)
class Links(Condition):
    """A model travels to its worker and a gradient back: latency + bytes/bandwidth each way.

    A link carries one message at a time in each direction, the first first; latency does not occupy
    it. The model of a job is sent when the job is assigned, while its worker may still compute
    another; a gradient is sent while its worker computes its next job, if it has one. The server's
    own link, where it has a bandwidth, carries the messages of all workers one after the other. A
    job that is called off leaves its worker's link at once.

    Parameters
    ----------
    latency : Scale >= 0
        Seconds each way: a number, one a worker, "linear" or "sqrt".
    bandwidth : Scale > 0
        Of every worker's link, in bytes a second; infinite by default.
    server_bandwidth : float > 0
        Of the link that all share.
    size : float >= 0, optional
        Bytes of a model; `compare` and `train` know them, 8 or 4 for each of its numbers.
    upload : float >= 0, optional
        Bytes of a gradient; by default those of the recipe's encoder's code, of as many numbers as
        a model has (of 8 bytes, if `size` is given), or without an encoder those of a model.
    """

    latency: Scale = 0.0
    bandwidth: Scale = math.inf
    server_bandwidth: float = math.inf
    size: float | None = None
    upload: float | None = None

    name: ClassVar[str] = "links"
    about: ClassVar[str] = "links"

    def __post_init__(self) -> None:
        for name in ("latency", "bandwidth"):
            object.__setattr__(self, name, check_scale("Links", name, getattr(self, name)))
        if not as_number("Links", "server_bandwidth", self.server_bandwidth) > 0:
            raise AsgradError(
                f"Links: server_bandwidth must be > 0, got {self.server_bandwidth:g}."
            )
        for name in ("size", "upload"):
            if getattr(self, name) is not None:
                check_positive("Links", name, getattr(self, name), zero=True)

    def sized(self, code: CodeBytes, dim: int | None, itemsize: int) -> Links:
        """Return the same where messages have the bytes that are left open, as far as known."""
        size = self.size
        if size is not None:
            dim, itemsize = max(1, round(size / 8)), 8
        elif dim is not None:
            size = float(dim * itemsize)
        if size is None or dim is None:
            return self
        upload = self.upload
        if upload is None:
            upload = size * float(code(dim, itemsize)) / (dim * itemsize)
        return replace(self, size=size, upload=upload)

    def add_to(self, clock: Clock, n_workers: int) -> Clock:
        """Return the clock with links."""
        links = np.zeros(n_workers, LINK)
        bandwidth = scales_of("Links", "bandwidth", self.bandwidth, n_workers, infinite=True)
        if not (bandwidth > 0).all():
            raise AsgradError(f"Links: bandwidth must be > 0, got {bandwidth.min():g}.")
        limited = bool(np.isfinite(bandwidth).any()) or math.isfinite(self.server_bandwidth)
        if limited and self.size is None:
            raise AsgradError(
                "Links: size must be given where a bandwidth is, the bytes of a model: 8 a number."
            )
        size = self.size or 0.0
        upload = size if self.upload is None else self.upload
        links["latency"] = scales_of("Links", "latency", self.latency, n_workers)
        links["download"], links["upload"] = size / bandwidth, upload / bandwidth
        links["head"] = links["tail"] = -1
        server = np.zeros(1, SERVER_LINK)
        server["download"] = size / self.server_bandwidth
        server["upload"] = upload / self.server_bandwidth
        return clock._replace(links=links, server=server)
