"""Folders and files that are written: nothing half-written or mixed, nothing of others lost."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from asgrad import files
from asgrad.errors import AsgradError
from asgrad.files import Kind, check_target, free_name, new_folder, settle_all, write_text

fcntl = pytest.importorskip("fcntl")

BOX = Kind("box", lambda folder: (folder / "box").is_file(), ("box",))


def write(path, text, **options):
    """Write a box; return where it stands."""
    with new_folder(path, BOX, **options) as new:
        write_text(new / "box", text)
    return new.path


def content(folder):
    """What is in a box."""
    return (folder / "box").read_text()


def names(folder):
    """All names in a folder."""
    return sorted(os.listdir(folder))


def test_of_two_that_write_one_name_neither_mixes_nor_loses(tmp_path):
    """The first to end gets the name, the others say where they are."""
    a = tmp_path / "a"
    with new_folder(a, BOX) as one, new_folder(a, BOX) as other, new_folder(a, BOX) as third:
        for text, new in (("one", one), ("other", other), ("third", third)):
            write_text(new / "box", text)
    assert [new.path.name for new in (third, other, one)] == ["a", "a-2", "a-3"]
    assert [content(new.path) for new in (third, other, one)] == ["third", "other", "one"]
    assert names(tmp_path) == ["a", "a-2", "a-3"]


def test_what_is_overwritten_is_what_was_there(tmp_path):
    """Not what another process has written since."""
    write(tmp_path / "a", "old")
    with new_folder(tmp_path / "a", BOX, overwrite=True) as new:
        write_text(new / "box", "slow")
        assert write(tmp_path / "a", "quick", overwrite=True) == tmp_path / "a"
    assert new.path == tmp_path / "a-2"
    assert (content(tmp_path / "a"), content(new.path)) == ("quick", "slow")
    assert names(tmp_path) == ["a", "a-2"]


def test_what_is_finished_is_not_overwritten_unasked(tmp_path, refused):
    """The refusal names the remedy, before any work is done."""
    assert check_target(tmp_path / "a", BOX) == tmp_path / "a"
    write(tmp_path / "a", "old")
    text = refused(lambda: check_target(tmp_path / "a", BOX))
    assert "a holds a box already; choose another name, remove it" in text
    assert "--overwrite" in text
    refused(lambda: write(tmp_path / "a", "new"))
    assert content(tmp_path / "a") == "old"
    assert check_target(tmp_path / "a", BOX, overwrite=True) == tmp_path / "a"
    assert content(write(tmp_path / "a", "new", overwrite=True)) == "new"


@pytest.mark.parametrize("kind", ["file", "folder", "link", "box"])
def test_work_that_is_done_finds_another_name(tmp_path, kind):
    """Where something stands that may not be replaced."""
    target = tmp_path / "a"
    {
        "file": lambda: target.write_text("mine"),
        "folder": lambda: (target / "mine").mkdir(parents=True),
        "link": lambda: target.symlink_to(tmp_path),
        "box": lambda: write(target, "mine"),
    }[kind]()
    assert write(target, "new", elsewhere=True) == tmp_path / "a-2"
    assert content(tmp_path / "a-2") == "new"
    assert names(tmp_path) == ["a", "a-2"]


def test_what_the_dead_left_goes_and_what_the_living_write_stays(tmp_path):
    """A process that is killed gives its lock back."""
    script = (
        "import os, sys; from asgrad.files import Kind, new_folder\n"
        "with new_folder(sys.argv[1], Kind('box', bool, ())) as new:\n"
        "    print(new.folder.name, flush=True); sys.stdin.readline()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "a")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    left = process.stdout.readline().strip()
    assert write(tmp_path / "a", "new") == tmp_path / "a"
    assert names(tmp_path) == sorted([left, "a"])
    process.kill()
    process.communicate()
    write(tmp_path / "a", "newer", overwrite=True)
    assert names(tmp_path) == ["a"]


def test_a_name_that_is_free_stays_free_for_one(tmp_path, monkeypatch):
    """Until something is written there, or its process ends, which leaves no folder."""
    monkeypatch.setattr(files.atexit, "register", lambda *of: ends.append(of))
    ends = []
    found = [free_name(tmp_path / "runs" / "a") for _ in range(3)]
    assert [path.name for path in found] == ["a", "a-2", "a-3"]
    (tmp_path / "runs" / "a-4").write_text("mine")
    (tmp_path / "runs" / "a-5").symlink_to(tmp_path)
    assert free_name(tmp_path / "runs" / "a").name == "a-6"
    assert write(found[1], "new") == found[1]
    for act, *arguments in ends:
        act(*arguments)
    assert names(tmp_path / "runs") == ["a-2", "a-4", "a-5"]
    assert content(found[1]) == "new"


def test_a_name_that_another_process_keeps_is_not_free(tmp_path):
    """One that a dead one had kept is."""
    (tmp_path / "a").mkdir()
    handle = os.open(tmp_path / "a", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    assert free_name(tmp_path / "a").name == "a-2"
    os.close(handle)
    assert free_name(tmp_path / "a").name == "a"


@pytest.mark.parametrize("path", ["file/a", "n" * 400])
def test_a_name_that_cannot_be_had_is_refused(tmp_path, refused, path):
    (tmp_path / "file").write_text("mine")
    assert "cannot write" in refused(lambda: free_name(tmp_path / path))
    assert "cannot write" in refused(lambda: check_target(tmp_path / path, BOX))


def test_a_name_that_has_room_but_not_for_temporary_ones_is_refused_at_once(tmp_path, refused):
    """Not after the work."""
    longest = "n" * os.pathconf(tmp_path, "PC_NAME_MAX")
    assert "name too long" in refused(lambda: check_target(tmp_path / longest, BOX))
    assert write(tmp_path / longest[:-20], "new") == tmp_path / longest[:-20]


def test_links_do_not_lead_out_of_a_folder(tmp_path):
    """Whoever prepared it: what they point to is not written, moved or removed."""
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    write(outside, "mine")
    inside.mkdir()
    for name in (".a.01234567.old", ".a.01234567.writing", ".box.writing"):
        (inside / name).symlink_to(outside)
    (inside / "box").symlink_to(outside / "box")
    write_text(inside / "box", "new")
    assert content(inside) == "new"
    write(inside / "a", "new")
    settle_all(inside, BOX)
    (inside / "a" / "link").symlink_to(outside)
    (inside / "a" / "file").symlink_to(outside / "box")
    files.copy_folder(inside / "a", inside / "b")
    assert (inside / "b" / "link").is_symlink()
    assert (inside / "b" / "file").is_symlink()
    write(inside / "b", "newer", overwrite=True)
    assert names(outside) == ["box"]
    assert content(outside) == "mine"
    assert (outside / "box").stat().st_nlink == 1


def test_a_replacement_that_was_cut_off_is_undone(tmp_path):
    """Killed between the two renames."""
    write(tmp_path / "a", "whole")
    (tmp_path / "a").rename(tmp_path / ".a.01234567.old")
    settle_all(tmp_path, BOX)
    assert names(tmp_path) == ["a"]
    assert content(tmp_path / "a") == "whole"


def test_folders_can_be_written_where_there_are_no_locks(tmp_path, monkeypatch):
    """Network file systems; what others left stays then, for they may live."""

    def no_locks(handle, how):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(files.fcntl, "flock", no_locks)
    (tmp_path / ".a.01234567.writing").mkdir()
    assert write(free_name(tmp_path / "a"), "new") == tmp_path / "a"
    assert free_name(tmp_path / "a").name == "a-2"
    assert free_name(tmp_path / "a").name == "a-3"
    assert ".a.01234567.writing" in names(tmp_path)


def test_errors_of_who_fills_a_folder_leave_nothing(tmp_path):
    full = pytest.raises(AsgradError, match=r"cannot write box .*a: No space left")
    with full, new_folder(tmp_path / "a", BOX):
        raise OSError(28, "No space left on device")
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "a", BOX):
        raise ZeroDivisionError
    assert names(tmp_path) == []
