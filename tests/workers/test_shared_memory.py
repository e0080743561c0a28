"""Gradients handed over in place."""

from __future__ import annotations

import gc
import mmap
import os
import subprocess
import sys

import numpy as np
import pytest

from asgrad.workers.ray.shared_memory import OwnPlaces, attach

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="no memfd here")

WRITER = """
import sys
from asgrad.workers.ray.shared_memory import Address, attach
machine, path, device, inode, place = sys.argv[1:]
places = attach(Address(machine, path, int(device), int(inode)), 5000, "float64")
places[int(place)][:, 0] = range(5000)
"""


def test_what_another_process_writes_is_read_in_place():
    """Also in the second place, which does not begin on a page of the first's end."""
    places = OwnPlaces(5000, "float64")
    first, second = places.lend(), places.lend()
    address = [str(part) for part in places.address]
    subprocess.run([sys.executable, "-c", WRITER, *address, str(second.place)], check=True)
    assert second.array.shape == (5000, 1)
    np.testing.assert_array_equal(second.array[:, 0], np.arange(5000.0))
    assert not first.array.any()


def test_a_place_is_lent_again_only_when_nobody_reads_it():
    """A view of its array keeps it, however it was made."""
    places = OwnPlaces(3, "float32")
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
    places = OwnPlaces(4, "float64")
    reader = attach(places.address, 4, "float64")
    loan = places.lend()
    reader[loan.place][:] = 7.0
    array = loan.array
    del places, loan, reader
    gc.collect()
    np.testing.assert_array_equal(array, np.full((4, 1), 7.0))


def test_places_that_are_out_of_reach_are_not_attach(monkeypatch):
    """Of another machine, another process, another file; nothing else is ever written to."""
    places = OwnPlaces(4, "float64")
    address = places.address
    assert attach(address, 4, "float64") is not None
    assert attach(None, 4, "float64") is None
    assert attach(address._replace(machine="another"), 4, "float64") is None
    assert attach(address._replace(path="/proc/0/fd/0"), 4, "float64") is None
    other = OwnPlaces(4, "float64")
    assert attach(address._replace(path=other.address.path), 4, "float64") is None
    monkeypatch.delattr(os, "memfd_create")
    with pytest.raises(OSError, match="memfd_create"):
        OwnPlaces(4, "float64")


def test_no_more_places_than_a_few_and_none_is_lost(monkeypatch):
    """A server that holds many gradients, or may open no more files, gets the others otherwise."""
    places = OwnPlaces(4, "float64")
    held = [places.lend() for _ in range(20)]
    taken = [loan.place for loan in held if loan is not None]
    assert taken == list(range(8))
    del held
    gc.collect()
    again = [places.lend() for _ in range(9)]
    assert sorted(loan.place for loan in again[:8]) == list(range(8))
    assert again[8] is None
    others = OwnPlaces(4, "float64")

    def refuse(*arguments, **options):
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as limited:
        limited.setattr(mmap, "mmap", refuse)
        assert others.lend() is None
    assert [others.lend().place for _ in range(3)] == [0, 0, 0]


def test_files_are_closed():
    """None is left when places, loans and readers are gone."""
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        places = OwnPlaces(4, "float64")
        reader = attach(places.address, 4, "float64")
        reader[places.lend().place][:] = 1.0
        del places, reader
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
