"""From a name on the command line to an object: "ringmaster:max_delay=8,stop_stale=true"."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from types import ModuleType
from typing import Any

from asgrad.errors import AsgradError, KindError, check_kind, unknown_name

__all__ = ["build", "catalogue", "label", "references", "resolve", "split"]

_QUOTED = r'"(?:[^"\\]|\\.)*"'


def catalogue(room: ModuleType) -> dict[str, type]:
    """Return the named classes that a package exports, by name, sorted."""
    exported = (getattr(room, name) for name in room.__all__)
    named = {_name_of(cls): cls for cls in exported if isinstance(cls, type) and _name_of(cls)}
    return dict(sorted(named.items()))


def build(kind: str, room: ModuleType, text: str) -> Any:
    """Make the object that `text` describes.

    Parameters
    ----------
    kind : str
        What it is, for error messages: "method", "worker times", ...
    room : module
        The package that exports the classes.
    text : str
        "name" or "name:parameter=value,parameter=value", where "parameter=" may be left out for the
        first parameter; a list of numbers is written 1/2/5. A text may stand in double quotes, as
        in JSON, and must where it holds commas. A value that is itself such an object comes last,
        with its parameters.

    Raises
    ------
    AsgradError
        If the name or a parameter is unknown (the closest valid one is named), or a value refused.
    """
    classes = catalogue(room)
    name, _, said = text.partition(":")
    name = name.strip()
    if name not in classes:
        raise unknown_name(kind, name, classes)
    cls = classes[name]
    defaults = {field.name: _default(field) for field in dataclasses.fields(cls)}
    fields = list(defaults)
    kinds = (str, "str", "str | None")
    texts = [field.name for field in dataclasses.fields(cls) if field.type in kinds]
    values: dict[str, Any] = {}
    parts = [piece.strip() for piece in split(said, ",") if piece.strip()]
    while parts:
        part = parts.pop(0)
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if part.startswith('"'):
            key, equals = "", ""
        if not equals and fields and not values:
            key, equals, value = fields[0], "=", part
        if not equals:
            raise AsgradError(f"{kind} {text!r}: write parameters as name=value, got {part!r}.")
        if key not in fields:
            if not fields:
                raise AsgradError(f"{kind} {text!r}: {name} takes no parameters.")
            raise unknown_name(f"parameter of {name}", key, fields)
        if key in texts:
            values[key] = _unquoted(value)
        # "sqrt" may be a scale or worker times; what follows belongs to the object inside.
        elif dataclasses.is_dataclass(defaults[key]) and value.partition(":")[0] in classes:
            value = ",".join([value, *parts])
            parts = []
            values[key] = build(kind, room, value)
        else:
            values[key] = _value(value)
    try:
        return cls(**values)
    except KindError as error:
        raise AsgradError(f"{kind} {text!r}: {error}") from error


def split(text: str, separator: str) -> list[str]:
    """Return what stands between separators, a regular expression, that are not within quotes."""
    pieces, start = [], 0
    for found in re.finditer(f"{_QUOTED}|(?P<separator>{separator})", text):
        if found["separator"] is not None:
            pieces.append(text[start : found.start()])
            start = found.end()
    return [*pieces, text[start:]]


def resolve(owner: str, parameter: str, said: Any, kind: type, remedy: str) -> Any:
    """Return the object that an argument is: built from a text, or the object given.

    Parameters
    ----------
    owner, parameter : str
        The function and its argument, for error messages.
    said : str or object
    kind : type
        What the object must be; the package that it is from exports the classes.
    remedy : str
        How to make one.
    """
    if isinstance(said, str):
        return build(parameter, import_module(kind.__module__.rpartition(".")[0]), said)
    check_kind(owner, parameter, said, kind, remedy)
    return said


def label(thing: Any) -> str:
    """Return the text from which `build` makes this object: its name, and what is not default."""
    name = getattr(thing, "name", "") or type(thing).__name__  # one set in __init__ counts
    fields = dataclasses.fields(thing) if dataclasses.is_dataclass(thing) else ()
    said = [
        f"{field.name}={_text(value)}"
        for field in fields
        if field.name != "name" and (value := getattr(thing, field.name)) != _default(field)
    ]
    return f"{name}:{','.join(said)}" if said else name


def references(room: ModuleType) -> Iterable[tuple[str, str, str, str]]:
    """Yield name, parameters, first sentence and reference of every class a package exports."""
    for name, cls in catalogue(room).items():
        fields = dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()
        parameters = ", ".join(f"{field.name}={_text(_default(field))}" for field in fields)
        sentence = (cls.__doc__ or "").strip().split("\n")[0]
        yield name, parameters, sentence, getattr(cls, "reference", "")


def _name_of(cls: type) -> str:
    """Return the name by which a class is called up, empty for an abstract one."""
    return getattr(cls, "name", "")


def _default(field: Any) -> Any:
    """Return the default of a dataclass field."""
    made = field.default_factory is not dataclasses.MISSING
    return field.default_factory() if made else field.default


def _text(value: Any) -> str:
    """Return a parameter's value as `_value` reads it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "/".join(repr(number) for number in value) + "/" * (len(value) == 1)
    if isinstance(value, str):
        is_plain = re.fullmatch(r"[\w./~@%:=-]+", value)  # "+" joins the parts of a recipe
        return value if is_plain else json.dumps(value, ensure_ascii=False)
    return label(value) if dataclasses.is_dataclass(value) else str(value)


def _unquoted(text: str) -> str:
    """Return a text without its quotes, if it has some."""
    with suppress(ValueError):
        if text.startswith('"'):
            return str(json.loads(text))
    return text


def _value(text: str) -> Any:
    """Return a parameter's value: true, false, a number, numbers joined by /, else text.

    A list of one number ends with a slash.
    """
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    with suppress(ValueError):
        return _number(text)
    pieces = text.split("/")
    if len(pieces) > 1:
        pieces = pieces[:1] if pieces[1:] == [""] else pieces
        with suppress(ValueError):
            return tuple(_number(piece) for piece in pieces)
    return text


def _number(text: str) -> int | float:
    """Return a number as it is written: counts stay integers."""
    try:
        return int(text)
    except ValueError:
        return float(text)
