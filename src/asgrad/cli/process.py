"""The command line as a process: its streams, its exit code, and errors as one line.

Nothing slow is imported before `main` runs, so that Ctrl-C is heard from the beginning.
"""

from __future__ import annotations

import codecs
import io
import os
import signal
import sys
import threading
import warnings
from typing import Any, TextIO

from asgrad.errors import AsgradError

__all__ = ["main"]

# What stands for our signs where the output's encoding lacks them: one for one, as tables need it.
_PLAIN = dict(zip("‖∇γλτα→×…≤≥·±−—", "|Dylta>x.<>*+--", strict=True))


def main() -> None:
    """Run the command line; an error is one plain line and exit code 2."""
    hook = sys.unraisablehook
    try:
        _prepare_streams()
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            sys.unraisablehook = _interrupt_again
            _hush_matplotlib()
            from asgrad.cli.app import run

            code = run()
            sys.stdout.flush()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second one ends what is left at once
        code = _say("interrupted.", 130)
    except (AsgradError, Warning) as error:  # a warning is raised under python -W error
        code = _say(str(error), 2)
    except RecursionError:
        code = _say("what was given, or a file of it, is nested too deeply.", 2)
    except BrokenPipeError:  # who reads has read enough: asgrad ... | head
        _discard_output()
        code = 1
    except OSError as error:
        _discard_output()
        where = "" if error.filename is None else f": {error.filename}"
        code = _say(f"{error.strerror or error}{where}.", 2)
    finally:
        sys.unraisablehook = hook
    sys.exit(code)


def _say(text: str, code: int) -> int:
    """Say why the command ends; return its exit code."""
    print(f"asgrad: {' '.join(text.split())}", file=sys.stderr)
    return code


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show a warning as one line, without the place in the code."""
    print(f"asgrad: warning: {' '.join(str(message).split())}", file=file or sys.stderr)


def _interrupt_again(lost: Any) -> None:
    """Deal with an exception that nobody can catch: Ctrl-C is heard a moment later.

    It is lost where it is raised within a function that compiled code calls, as LLVM does ours.
    """
    if lost.exc_type is KeyboardInterrupt:
        threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(lost)


def _hush_matplotlib() -> None:
    """Let it say nothing of caches that it makes for itself where there is no home."""
    import logging

    logging.getLogger("matplotlib").setLevel(logging.ERROR)


def _prepare_streams() -> None:
    """Open the streams that are closed, and let every text be written, whatever the encoding."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            try:
                os.fstat(number)
            except OSError:  # the next file would take its place, and what is printed
                os.open(os.devnull, os.O_RDWR)
            stream = open(os.devnull, "w" if number else "r", encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, stream)
    codecs.register_error("asgrad", _in_plain_signs)
    for output in (sys.stdout, sys.stderr):
        if isinstance(output, io.TextIOWrapper):
            output.reconfigure(errors="asgrad")


def _in_plain_signs(error: Any) -> tuple[str, int]:
    """Replace what cannot be written in the output's encoding, sign by sign."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_PLAIN.get(sign, "?") for sign in lacking), error.end


def _discard_output() -> None:
    """Throw away what is still to be printed, since it cannot be."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # no file at all, as in a notebook
        return
