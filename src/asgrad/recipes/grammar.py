"""Recipes as people write them: METHOD:parameters+PART:parameters+…, or the objects themselves.

A part is known by its name, so that parts stand in any order. `1|2|5` in a parameter's place is a
list: the text then stands for a recipe each.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable
from dataclasses import replace
from importlib import import_module
from types import ModuleType
from typing import Any

from asgrad.errors import AsgradError, KindError, UnknownNameError, shown
from asgrad.methods import AnyMethod
from asgrad.recipes.base import KINDS, Named, Parts, Recipe, head_of, kind_of
from asgrad.registry import build, catalogue, split
from asgrad.trace import Header

__all__ = ["GRAMMAR", "parts_of", "recipe_of", "recipes_of", "rooms", "words_of"]

GRAMMAR = "METHOD:name=value,…+PART:name=value,…, in which value|value stands for a recipe each"
"""In one line, for people."""
_PLUS = r"\+(?![\d.])"  # no name begins with a digit: a number may be written 1e+3
_REMEDY = "a text such as 'pure+koloskova', or an object such as ag.methods.Pure()"


def recipes_of(owner: str, said: Any) -> list[Recipe]:
    """Return the recipes that one argument stands for: several, if it is a text with a list.

    Raises
    ------
    AsgradError
        If a name or a parameter is unknown, a value is refused, or it is no recipe.
    """
    if not isinstance(said, str):
        return [_whole(owner, said, _things(owner, said))]
    return [_whole(owner, text, _things(owner, text)) for text in _spelt_out(said)]


def recipe_of(owner: str, said: Any) -> Recipe:
    """Return the recipe that an argument is: a text, a method, a recipe, or a tuple of its parts.

    Raises
    ------
    AsgradError
        As `recipes_of`, and if it stands for several.
    """
    found = recipes_of(owner, said)
    if len(found) > 1:
        raise AsgradError(f"{owner}: {said!r} stands for {len(found)} recipes; give one of them.")
    return found[0]


def parts_of(owner: str, said: Any, header: Header) -> Parts:
    """Return the parts with which a trace is replayed.

    Parameters
    ----------
    owner : str
    said : recipe or parts, as objects or as a text, optional
        By default the recipe of the trace. A method is left out, or is the trace's.
    header : Header
        Of the trace.

    Raises
    ------
    AsgradError
        If it is none, or the recipe of another method.
    """
    if isinstance(said, Parts) and not isinstance(said, Recipe):
        return said
    text = header.recipe if said is None else said
    if isinstance(text, str):
        # The trace's method is not made anew: it may be one that only its user knows.
        rest = text.removeprefix(header.method)
        if rest != text and rest[:1] in ("", "+"):
            if not rest:
                return Parts()
            text = rest[1:]
        if (count := len(_spelt_out(text))) > 1:
            raise AsgradError(f"{owner}: {said!r} stands for {count} recipes; give one of them.")
    try:
        found = _assembled(owner, text, _things(owner, text, begins=False))
    except AsgradError as error:
        if said is not None:
            raise
        raise AsgradError(
            f"{owner}: the trace is of the recipe {shown(header.recipe)}, whose parts cannot be "
            f"made from that; give them as recipe=... ({error})"
        ) from error
    if isinstance(found, Recipe) and found.method.label != header.method:
        raise AsgradError(
            f"{owner}: the trace is of the method {header.method!r}, the recipe of "
            f"{found.method.label!r}; leave the method out to replay the trace with other parts."
        )
    return found


def words_of() -> dict[str, str]:
    """Return every name that a recipe may be written with, and of which kind it is."""
    found: dict[str, str] = {}
    for words, room in rooms().items():
        found.update(dict.fromkeys(catalogue(room), words))
    return found


def rooms() -> dict[str, ModuleType]:
    """Return where names are looked up, by what they name; first what a recipe begins with."""
    bases: dict[str, type] = {"method": AnyMethod, "recipe": Named}
    bases |= {kind.words: kind.base for kind in KINDS.values()}
    return {
        words: import_module(base.__module__.rpartition(".")[0]) for words, base in bases.items()
    }


def _things(owner: str, said: Any, *, begins: bool = True) -> list[Any]:
    """Return the objects that an argument consists of; with `begins` the first is a method."""
    if isinstance(said, str):
        pieces = [piece.strip() for piece in split(said, _PLUS)]
        if not all(pieces):
            raise AsgradError(f"{owner}: recipe {said!r}: a '+' joins two parts; one is missing.")
        return [_built(piece, begins and place == 0) for place, piece in enumerate(pieces)]
    if isinstance(said, tuple):
        return [
            thing
            for place, each in enumerate(said)
            for thing in _things(owner, each, begins=begins and place == 0)
        ]
    return [said]


def _built(text: str, is_method: bool) -> Any:
    """Make the method or part that a piece of a recipe describes; `is_method`: it is to be one."""
    name = text.partition(":")[0].strip()
    known = words_of()
    if name not in known:
        heads = ("method", "recipe")
        valid: dict[str, list[str]] = {}
        for each, words in known.items():
            if (words in heads) == is_method:
                valid.setdefault(words, []).append(each)
        near = difflib.get_close_matches(name[:100], known, n=1, cutoff=0.5)
        hint = ""
        if near:
            kind = "" if is_method and known[near[0]] == "method" else f" ({known[near[0]]})"
            hint = f" Did you mean {near[0]!r}{kind}?"
        listed = "; ".join(f"{words} {', '.join(sorted(names))}" for words, names in valid.items())
        what = "method" if is_method else "part"
        raise UnknownNameError(f"unknown {what} {shown(name)}.{hint} Valid: {listed}.")
    return build(known[name], rooms()[known[name]], text)


def _assembled(owner: str, said: Any, things: Iterable[Any]) -> Parts:
    """Return the recipe that objects make, or the parts where there is no method."""
    head: Recipe | None = None
    parts: dict[str, Any] = {}
    for place, thing in enumerate(things):
        if (begun := head_of(thing)) is not None:
            if place:
                raise AsgradError(
                    f"{owner}: recipe {shown(said)}: {_name(thing)!r} is a method, not a part; a "
                    "recipe has one method, with which it begins."
                )
            head = begun
            continue
        name = kind_of(thing)
        if name is None:
            raise KindError(f"{owner}: a recipe is {_REMEDY}, got {shown(thing)}.")
        if name in parts:
            raise AsgradError(
                f"{owner}: recipe {shown(said)}: {_name(parts[name])!r} and {_name(thing)!r} are "
                f"of one kind; a recipe has one {KINDS[name].words}."
            )
        parts[name] = thing
    return Parts(**parts) if head is None else replace(head, **parts)


def _whole(owner: str, said: Any, things: list[Any]) -> Recipe:
    """Return the recipe that objects make, which begins with a method."""
    found = _assembled(owner, said, things)
    if isinstance(found, Recipe):
        return found
    if not things:
        raise KindError(f"{owner}: a recipe is {_REMEDY}, got {shown(said)}.")
    first = _name(things[0])
    raise AsgradError(
        f"{owner}: recipe {shown(said)}: {first!r} is no method; a recipe begins with one, as in "
        f"pure+{first}."
    )


def _name(thing: Any) -> str:
    """Return the name of a method or part, as it is written."""
    return getattr(thing, "name", "") or type(thing).__name__


def _spelt_out(text: str) -> list[str]:
    """Return the texts that one with lists stands for; the last list runs fastest."""
    slots: list[list[str]] = []
    for piece in split(text, _PLUS):
        name, colon, said = piece.partition(":")
        slots.append([f"+{name}{colon}" if slots else f"{name}{colon}"])
        for place, parameter in enumerate(split(said, ",") if said else []):
            key, equals, value = parameter.partition("=")
            if not equals or parameter.lstrip().startswith('"'):
                key, equals, value = "", "", parameter
            values = split(value, r"\|")
            if len(values) > 1 and not all(each.strip() for each in values):
                raise AsgradError(f"recipe {text!r}: a '|' joins two values; one is missing.")
            comma = "," if place else ""
            slots.append([f"{comma}{key}{equals}{each}" for each in values])
    return ["".join(chosen) for chosen in itertools.product(*slots)]
