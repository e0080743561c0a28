"""Options of commands, made from the fields of a configuration, and what several commands share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import typer
from typer.models import ArgumentInfo

from asgrad.errors import AsgradError
from asgrad.experiments.config import ProblemConfig
from asgrad.registry import split

__all__ = ["Config", "Insist", "Out", "Overwrite", "numbers", "with_options"]

Config = Annotated[Path | None, typer.Argument(help="CONFIG.toml; options override it.")]
Out = Annotated[str | None, typer.Option(help="Folder to write to.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what --out names.")]
Insist = Annotated[bool, typer.Option("--insist", help="Compute what is guessed to be too large.")]

_ALSO = {"stepsizes": ["--stepsize"]}
"""Other names of an option."""


def with_options(
    config: type[ProblemConfig],
    *,
    only: Collection[str] | None = None,
    leave_out: Collection[str] = (),
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each field of a configuration; it gets them as `said`.

    Parameters
    ----------
    config : class
        An option is named like its field, with dashes; its help is the field's description. A field
        of a kind that no option can say, such as a table, has none.
    only, leave_out : collections of str, optional
        Which fields.

    Returns
    -------
    callable
        A decorator of a function with a parameter `said`: what was typed, by field.
    """
    fields = {
        name: form
        for name, field in config.model_fields.items()
        if (only is None or name in only)
        and name not in leave_out
        and (form := _form_of(field.annotation)) is not None
    }

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = dict(inspect.signature(command, eval_str=True).parameters)
        del own["said"]
        # What is the command's own before the problem's, which is the same everywhere.
        made = [
            _option(config, name, form)
            for name, form in sorted(fields.items(), key=lambda pair: _is_of_problem(pair[0]))
        ]

        def run(**typed: Any) -> None:
            said = {
                name: form.read(name, value)
                for name, form in fields.items()
                if (value := typed.pop(name)) is not None
            }
            command(said=said, **typed)

        arguments = [each for each in own.values() if _is_argument(each)]
        others = [each for each in own.values() if not _is_argument(each)]
        parameters = [
            each.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for each in [*arguments, *made, *others]
        ]
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return run

    return decorate


def _is_of_problem(name: str) -> bool:
    """Say whether a field is one of every problem."""
    return name in ProblemConfig.model_fields


def _is_argument(parameter: inspect.Parameter) -> bool:
    """Say whether a command's parameter is typed without a name."""
    return any(isinstance(each, ArgumentInfo) for each in get_args(parameter.annotation))


def _option(config: type[ProblemConfig], name: str, form: _Form) -> inspect.Parameter:
    """Return the parameter that typer makes a field's option from."""
    words = str(config.model_fields[name].description)
    first = words[0].upper() if words[0].isascii() else words[0]
    option = typer.Option(
        f"--{name.replace('_', '-')}",
        *_ALSO.get(name, []),
        help=f"{first}{words[1:]}{form.words}.",
        rich_help_panel="The problem" if _is_of_problem(name) else None,
    )
    annotation = Annotated[form.kind | None, option]  # type: ignore[name-defined]
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )


class _Form(NamedTuple):
    """How a field is typed."""

    kind: type
    """As which typer takes it."""
    read: Callable[[str, Any], Any]
    """read(name, value) returns what the configuration takes."""
    words: str = ""
    """What its help adds."""


def _form_of(annotation: Any) -> _Form | None:
    """Return how a field of this kind is typed; None if it cannot be."""
    union = get_origin(annotation) in (Union, UnionType)
    members = set(get_args(annotation)) - {NoneType} if union else {annotation}
    if len(members) == 1:
        (single,) = members
        if single in (str, int, float, bool):
            return _Form(single, _as_it_is)
        if get_origin(single) is Literal:
            return _Form(str, _as_it_is)
    several = "; joined by commas"
    forms = [
        ({float, str}, _Form(str, _number_or_text)),
        ({list[float]}, _Form(str, numbers, several)),
        ({float, list[float]}, _Form(str, _one_or_several_numbers, several)),
        ({list[str]}, _Form(str, _words, "; joined by spaces")),
        ({str, list[str]}, _Form(str, _one_or_several_words, "; joined by spaces")),
    ]
    return next((form for kinds, form in forms if kinds == members), None)


def _as_it_is(name: str, value: Any) -> Any:
    """Return what typer has read."""
    return value


def numbers(name: str, text: str) -> list[float]:
    """Return the numbers of a list joined by commas."""
    try:
        return [float(piece) for piece in text.split(",")]
    except ValueError:
        raise AsgradError(f"{name}: write numbers joined by commas, got {text!r}.") from None


def _one_or_several_numbers(name: str, text: str) -> float | list[float]:
    """Return the numbers of a list joined by commas, a single one as it is."""
    found = numbers(name, text)
    return found[0] if len(found) == 1 else found


def _number_or_text(name: str, text: str) -> float | str:
    """Return a number as such, and the name of a file as it is."""
    try:
        return float(text)
    except ValueError:
        return text


def _words(name: str, text: str) -> list[str]:
    """Return texts joined by spaces, which may stand in quotes."""
    words = [word for word in split(text, r"\s+") if word]
    for word in words:
        if "," in word.partition(":")[0]:  # after a colon it stands between parameters
            raise AsgradError(
                f"{name}: write them joined by spaces, got {word!r}: --{name} "
                f'"{word.replace(",", " ")}".'
            )
    return words


def _one_or_several_words(name: str, text: str) -> str | list[str]:
    """Return texts joined by spaces, a single one as it is."""
    words = text.split()
    return words[0] if len(words) == 1 else words
