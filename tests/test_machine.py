"""What the machine offers, and what is refused because it does not fit."""

from __future__ import annotations

import math

import pytest

from asgrad import machine
from asgrad.machine import available_memory, check_memory


@pytest.mark.parametrize(
    ("n_bytes", "said"),
    [
        (1001, "1 kB"),
        (8 * 10**12, "8 TB"),
        (8.5 * 10**9, "8.5 GB"),
        (999_600, "1 MB"),
        (8 * 10**300, "8e+282 EB"),
        (math.inf, "inf EB"),
        (math.nan, "nan B"),
    ],
)
def test_what_does_not_fit_into_memory_is_refused(refused, monkeypatch, n_bytes, said):
    monkeypatch.setattr(machine, "available_memory", lambda: 1000)
    check_memory("Thing", "7 rows", 1000)
    text = refused(lambda: check_memory("Thing", "7 rows", n_bytes, "take fewer rows"))
    wanted = f"would take {said} of memory, 1 kB are available; take fewer rows."
    assert text == f"Thing: 7 rows {wanted}"


def test_the_available_memory_is_that_of_a_machine():
    """A megabyte at least, less than any machine has."""
    assert 1e6 < available_memory() < 1e15
