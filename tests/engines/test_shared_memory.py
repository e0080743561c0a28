"""Gradients handed over in place."""

from __future__ import annotations

import gc
import os
import subprocess
import sys

import numpy as np
import pytest

from asgrad.engines import shared_memory
from asgrad.engines.shared_memory import Places, attached

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="no memfd here")

WRITER = """
import sys
from asgrad.engines.shared_memory import Address, attached
machine, path, device, inode, place = sys.argv[1:]
places = attached(Address(machine, path, int(device), int(inode)), 5000, "float64")
places[int(place)][:, 0] = range(5000)
"""


def test_what_another_process_writes_is_read_in_place():
    """Also in the second place, which does not begin on a page of the first's end."""
    places = Places(5000, "float64")
    first, second = places.lend(), places.lend()
    address = [str(part) for part in places.address]
    subprocess.run([sys.executable, "-c", WRITER, *address, str(second.place)], check=True)
    assert second.array.shape == (5000, 1)
    np.testing.assert_array_equal(second.array[:, 0], np.arange(5000.0))
    assert not first.array.any()


def test_a_place_is_lent_again_only_when_nobody_reads_it():
    """A view of its array keeps it, however it was made."""
    places = Places(3, "float32")
    loan = places.lend()
    view = loan.array.reshape(-1)[1:]
    del loan
    gc.collect()
    assert places.lend().place == 1
    del view
    gc.collect()
    assert {places.lend().place for _ in range(3)} <= {0, 1}
    kept = [places.lend() for _ in range(3)]
    assert sorted(loan.place for loan in kept) == [0, 1, 2]


def test_arrays_outlive_the_file():
    """What the server still reads of an actor that is gone stays as it was."""
    places = Places(4, "float64")
    reader = attached(places.address, 4, "float64")
    loan = places.lend()
    reader[loan.place][:] = 7.0
    array = loan.array
    del places, loan, reader
    gc.collect()
    np.testing.assert_array_equal(array, np.full((4, 1), 7.0))


def test_places_that_are_out_of_reach_are_not_attached(monkeypatch):
    """Of another machine, another process, another file; nothing else is ever written to."""
    places = Places(4, "float64")
    address = places.address
    assert attached(address, 4, "float64") is not None
    assert attached(None, 4, "float64") is None
    assert attached(address._replace(machine="another"), 4, "float64") is None
    assert attached(address._replace(path="/proc/0/fd/0"), 4, "float64") is None
    other = Places(4, "float64")
    assert attached(address._replace(path=other.address.path), 4, "float64") is None
    monkeypatch.delattr(os, "memfd_create")
    with pytest.raises(OSError, match="memfd_create"):
        Places(4, "float64")


def test_files_are_closed():
    """None is left when places, loans and readers are gone."""
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        places = Places(4, "float64")
        reader = attached(places.address, 4, "float64")
        reader[places.lend().place][:] = 1.0
        del places, reader
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
    assert shared_memory._machine() == shared_memory._machine() != ""
