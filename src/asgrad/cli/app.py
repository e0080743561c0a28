"""The commands put together; errors become one line."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable
from typing import Annotated, Any

import typer

from asgrad.cli.compare import compare, show
from asgrad.cli.methods import methods
from asgrad.cli.replay import replay
from asgrad.cli.simulate import simulate
from asgrad.cli.train import profile, train
from asgrad.errors import AsgradError

__all__ = ["app", "main"]

# Newer releases of typer carry their own copy of click: this is the usage error of either.
_UsageError: Any = typer.BadParameter.__bases__[0]
_show_any = warnings.showwarning

app = typer.Typer(
    help="Plan, run and replay stochastic gradient descent on workers of unequal speed.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line; an error is one plain line and exit code 2."""
    warnings.showwarning = _show_warning
    try:
        sys.exit(app(standalone_mode=False))
    except AsgradError as error:
        print(f"asgrad: {error}", file=sys.stderr)
        sys.exit(2)
    except RecursionError:
        print("asgrad: what was given, or a file of it, is nested too deeply.", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"asgrad: {error.strerror or error}: {error.filename}.", file=sys.stderr)
        sys.exit(2)
    except _UsageError as error:
        print(f"asgrad: {_in_words(error)}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, _Interrupted, typer.Abort):
        print("asgrad: interrupted.", file=sys.stderr)
        sys.exit(130)


class _Interrupted(Exception):
    """Ctrl-C within a command: typer itself would end without a word."""


def _interruptible(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command that ends with `_Interrupted` at Ctrl-C."""

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        try:
            command(*arguments, **options)
        except KeyboardInterrupt as interrupt:
            raise _Interrupted from interrupt

    return run


def _show_warning(message: Any, category: type[Warning], *where: Any, **options: Any) -> None:
    """Show what a person is warned of as one plain line, all else as usual."""
    if issubclass(category, UserWarning):
        print(f"asgrad: {' '.join(str(message).split())}", file=sys.stderr)
    else:
        _show_any(message, category, *where, **options)


def _in_words(error: Any) -> str:
    """Return a usage error as one line: what, the rule, and the value."""
    values = getattr(error.__cause__, "errors", None)  # of pydantic, which typer asks
    if values is None or error.param is None:
        return " ".join(error.format_message().split())
    first = values()[0]
    name = error.param.opts[0]
    rule = first["msg"].partition(",")[0].replace("Input should", "must")
    return f"{name} {rule}, got {first['input']!r}. It means: {error.param.help}"


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Show the version, or the help where no command is given."""
    if version:
        from asgrad import __version__

        print(f"asgrad {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


for command in (compare, simulate, train, profile, replay, show, methods):
    app.command()(_interruptible(command))
