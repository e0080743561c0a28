"""Where asgrad is started: folders it may not write to, odd streams, few processors, signals."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from numba.core.caching import FunctionCache, IndexDataCacheFile

from asgrad import kernels
from asgrad.cli import main, process
from asgrad.machine import processors
from asgrad.numerics.replay import checked_threads
from asgrad.training.live import ctrl_c_ends

FOLDER = Path(kernels.__file__).parent


@pytest.fixture
def closed(monkeypatch, tmp_path):
    """Numba's own places cannot be written to; temporary files may lie in the folder returned."""
    own = [FOLDER, tmp_path / "home"]
    writable = kernels._is_writable

    def is_writable(folders):
        folders = list(folders)
        return not any(f.is_relative_to(o) for f in folders for o in own) and writable(folders)

    monkeypatch.setattr(kernels, "_is_writable", is_writable)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/proc/nothing")
    monkeypatch.setattr(kernels.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(kernels.numba.config, "reload_config", lambda: None)
    return tmp_path


def test_a_closed_installation_gets_a_private_cache(closed):
    kernels._choose_cache()
    folder = Path(os.environ["NUMBA_CACHE_DIR"])
    assert folder == closed / f"asgrad-numba-{os.getuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700
    kernels._choose_cache()  # as the next process will
    assert os.environ["NUMBA_CACHE_DIR"] == str(folder)


@pytest.mark.parametrize("prepared", ["link", "open", "file", "somebody else's"])
def test_a_cache_that_somebody_else_may_have_prepared_is_left_alone(prepared, closed, monkeypatch):
    """What is loaded from it would be run."""
    folder = closed / f"asgrad-numba-{os.getuid()}"
    if prepared == "link":
        (closed / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(closed / "elsewhere")
    elif prepared == "file":
        folder.write_text("")
    else:
        folder.mkdir(mode=0o700)
    if prepared == "open":
        folder.chmod(0o770)
    if prepared == "somebody else's":
        mine = os.getuid()
        folder.rename(closed / f"asgrad-numba-{mine + 1}")
        monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    kernels._choose_cache()
    assert os.environ["NUMBA_CACHE_DIR"] == "/proc/nothing"


def test_a_writable_place_of_numba_is_used_as_it_is(closed, monkeypatch):
    kept = closed / "kept"
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(kept))
    kernels._choose_cache()
    assert os.environ["NUMBA_CACHE_DIR"] == str(kept)
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(closed / "users"))
    kernels._choose_cache()
    assert "NUMBA_CACHE_DIR" not in os.environ
    monkeypatch.undo()
    assert kernels._is_writable([FOLDER / "__pycache__"])  # as where these tests run


_DOUBLE = """
from numba import types
from asgrad.kernels import compiled

@compiled(types.int64(types.int64))
def double(n):
    return 2 * n
"""


def test_what_is_wrong_with_a_cache_costs_time_and_nothing_else(tmp_path, monkeypatch):
    """Kernels run without any folder, and with damaged files, which make way for whole ones."""
    source = tmp_path / "double.py"
    source.write_text(_DOUBLE)

    def hits() -> int:
        names: dict[str, Any] = {"__name__": "double", "__file__": str(source)}
        exec(compile(_DOUBLE, source, "exec"), names)
        assert names["double"](21) == 42
        return sum(names["double"]._maker._cache_hits.values())

    monkeypatch.setattr(kernels.numba.config, "CACHE_DIR", str(tmp_path / "kept"))
    with monkeypatch.context() as patch:
        patch.setattr(FunctionCache._impl_class, "_locator_classes", [])
        assert hits() == 0
        assert hits() == 0
    assert hits() == 0
    assert hits() == 1
    for ending in ("*.nbi", "*.nbc"):
        (path,) = (tmp_path / "kept").rglob(ending)
        path.write_bytes(path.read_bytes()[:20])
        assert hits() == 0
        assert hits() == 1

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    shutil.rmtree(tmp_path / "kept")
    with monkeypatch.context() as patch:
        patch.setattr(IndexDataCacheFile, "_save_data", full)
        assert hits() == 0
    assert hits() == 0


_BOTH = _DOUBLE.replace(
    "(types.int64(types.int64))", "([types.int64(types.int64), types.f8(types.f8)])"
)


@pytest.fixture
def doubled(tmp_path, monkeypatch):
    """A function that compiles `double` for integers and floats, or loads it, with a cache."""
    source = tmp_path / "double.py"
    source.write_text(_BOTH)
    monkeypatch.setattr(kernels.numba.config, "CACHE_DIR", str(tmp_path / "kept"))

    def doubled() -> Any:
        names: dict[str, Any] = {"__name__": "double", "__file__": str(source)}
        exec(compile(_BOTH, source, "exec"), names)
        names["double"].make()
        return names["double"]

    return doubled


def test_code_for_other_types_than_the_index_says_is_made_again(doubled, tmp_path):
    """What two processes could leave that wrote at once: one file under both entries."""
    assert not doubled()._maker._cache_hits
    one, other = sorted((tmp_path / "kept").rglob("*.nbc"))
    shutil.copy(one, other)
    found = [doubled() for _ in range(3)]
    for double in found:
        assert [type(double(n)) for n in (21, 1.5)] == [int, float]
    assert sum(found[-1]._maker._cache_hits.values()) == 2  # it heals


def test_who_compiles_at_once_writes_one_after_the_other(doubled, monkeypatch):
    """The second comes when the first knows its file's name; both find their own code."""
    double = doubled()
    double._maker._cache.flush()
    caches = [kernels._Cache(double.py_func) for _ in range(2)]
    came = threading.Event()
    save = IndexDataCacheFile._save_index

    def save_late(file, entries):
        if file is caches[0]._cache_file:
            other.start()
            came.wait(0.2)  # it does not come: that is what the lock is for
        save(file, entries)

    def write_other():
        caches[1].save_overload(second.signature, second)
        came.set()

    first, second = double.overloads.values()
    other = threading.Thread(target=write_other)
    with monkeypatch.context() as patch:
        patch.setattr(IndexDataCacheFile, "_save_index", save_late)
        caches[0].save_overload(first.signature, first)
        other.join()
    assert sum(doubled()._maker._cache_hits.values()) == 2


def test_nothing_is_compiled_that_a_run_does_not_need():
    """Importing compiles nothing; a simulation its loop, its method's rule and its times."""
    script = """
    import asgrad as ag
    ag.compare, ag.train, ag.problems, ag.encoders
    from asgrad.kernels import Kernel
    import gc
    def made():
        found = [f for f in gc.get_objects() if isinstance(f, Kernel) and f.overloads]
        print(*sorted(f"{f.__module__}.{f.__name__}" for f in found))
    made()
    ag.simulate("pure", "poisson", n_workers=2, steps=3, record=False)
    made()
    """
    code = "\n".join(line[4:] for line in script.splitlines())
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "",
        "asgrad.methods.pure._rule asgrad.simulation.events.run asgrad.simulation.events.stay "
        "asgrad.times.random._poisson",
    ]


def test_without_compilation_asgrad_refuses_in_one_line(monkeypatch, refused):
    monkeypatch.setattr(kernels.numba.config, "DISABLE_JIT", 1)
    assert "NUMBA_DISABLE_JIT: must be 0 or unset" in refused(kernels._check_compiler)


def test_processors_are_those_that_the_process_may_use(monkeypatch):
    """Of the machine's 64, three by affinity, or as many as the container's quota pays for."""
    quota = ["max 100000"]
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 5, 60})
    monkeypatch.setattr(Path, "read_text", lambda *_: quota[0])
    assert checked_threads("replay", None) == 3
    for quota[0], expected in (("200000 100000", 2), ("50000 100000", 1), ("900000 100000", 3)):
        assert processors() == expected


def run_here(monkeypatch, *arguments: str) -> int:
    """Run the command line in this process; return its exit code."""
    monkeypatch.setattr(sys, "argv", ["asgrad", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_every_encoding_can_be_written(encoding, monkeypatch):
    """Signs that it lacks are replaced one for one, so that columns stay below each other."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding))
    process._prepare_streams()
    print("‖∇f‖ τ_max γ→0 \udcff ☃", file=sys.stdout, flush=True)
    if encoding == "utf-8":
        assert raw.getvalue().decode() == "‖∇f‖ τ_max γ→0 ? ☃\n"
    else:
        assert raw.getvalue() == b"|Df| t_max y>0 ? ?\n"


def test_a_warning_is_one_line(monkeypatch, capsys):
    """Without the place in the code; as an error, where warnings are errors, one line as well."""
    from asgrad.cli import app

    def warn() -> int:
        warnings.warn("this is\nodd", stacklevel=1)
        return 0

    monkeypatch.setattr(app, "run", warn)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert run_here(monkeypatch) == 0
        assert capsys.readouterr().err == "asgrad: warning: this is odd\n"
        warnings.simplefilter("error")
        assert run_here(monkeypatch) == 2
        assert capsys.readouterr().err == "asgrad: this is odd\n"


def test_an_interrupt_that_is_lost_is_heard_later(monkeypatch, capsys):
    """Python cannot raise it out of a function that compiled code has called."""
    from asgrad.cli import app

    class Lost:
        def __del__(self) -> None:
            raise KeyboardInterrupt

    def lose() -> int:
        Lost()
        time.sleep(20)
        return 0

    monkeypatch.setattr(app, "run", lose)
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert run_here(monkeypatch) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == "asgrad: interrupted.\n"


def _run(script: str, **options) -> subprocess.CompletedProcess:
    """Run a shell script in which $ASGRAD is the command line."""
    environment = {**os.environ, "ASGRAD": f"{sys.executable} -m asgrad"}
    return subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env=environment, **options
    )


def test_streams_may_be_closed_or_full(tmp_path):
    """Nothing is said of a reader that has left; a full disk is one line."""
    script = """
    $ASGRAD --help | true; echo "left ${PIPESTATUS[0]}" >&2
    $ASGRAD --version <&- >&-; echo "closed $?" >&2
    $ASGRAD nonsense 2>&-; echo "silent $?" >&2
    $ASGRAD --help >/dev/full; echo "full $?" >&2
    """
    done = _run(script)
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "left 1",
        "closed 0",
        "silent 2",
        "asgrad: No space left on device.",
        "full 2",
    ]


def test_files_of_the_current_folder_are_no_modules(tmp_path):
    """Also where it is started as python -m asgrad; every --help does without numba."""
    for name in ("random", "csv", "email", "numpy", "typer", "trace"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('not ours')\n")
    done = _run("$ASGRAD methods | tail -1; $ASGRAD show nowhere; echo $?", cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "2"
    assert done.stderr == "asgrad: no run of asgrad at nowhere.\n"


def test_ctrl_c_is_one_line_at_any_moment_of_the_start(tmp_path):
    """While the command line is imported, and while the kernels are."""
    script = """
    import sys, signal, threading, time
    signal.signal(signal.SIGINT, signal.default_int_handler)
    at = sys.argv.pop(1)
    class Interrupts:
        def find_spec(self, name, path, target=None):
            if name == at:
                signal.raise_signal(signal.SIGINT)
    sys.meta_path.insert(0, Interrupts())
    from asgrad.cli import main
    main()
    """
    (tmp_path / "start.py").write_text("\n".join(line[4:] for line in script.splitlines()))
    moments = ["asgrad.cli.process", "typer", "numba", "asgrad.simulation.events"]
    found = {}
    for moment in moments:
        done = subprocess.run(
            [sys.executable, "start.py", moment, "simulate", "pure"],
            cwd=tmp_path, capture_output=True, text=True,
        )  # fmt: skip
        found[moment] = done.returncode, done.stdout, done.stderr
    expected = 130, "", "asgrad: interrupted.\n"
    assert found == dict.fromkeys(moments, expected), json.dumps(found, indent=1)


def test_a_run_leaves_ctrl_c_ignored_where_it_was():
    """A shell script that starts it in the background means its own Ctrl-C not to reach it."""
    run = SimpleNamespace(interrupted=False)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with ctrl_c_ends(run):
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert not run.interrupted
