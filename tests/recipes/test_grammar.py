"""Recipes as texts: what they stand for, that a label says all of it, and what is refused."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import asgrad as ag
from asgrad import corrections, encoders, methods, optimizers, recipes, stepsizes, work
from asgrad.recipes import Recipe, parts_of, recipe_of, recipes_of
from asgrad.recipes.base import KINDS
from asgrad.recipes.grammar import words_of
from asgrad.registry import catalogue, label, split
from asgrad.trace import Header

COUNT = st.one_of(st.none(), st.integers(1, 2**40))
POSITIVE = st.one_of(st.floats(1e-300, 1e300), st.integers(1, 10**30).map(float))
METHODS = st.one_of(
    st.builds(methods.Pure, wait=st.integers(1, 99)),
    st.builds(methods.Shuffled, once=st.booleans(), wait=st.integers(1, 9), concurrency=COUNT),
    st.builds(methods.Ringmaster, max_delay=COUNT, stop_stale=st.booleans()),
    st.builds(methods.MSync, m=COUNT),
    st.just(methods.Sync()),
)
STEPSIZES = st.one_of(
    st.just(stepsizes.Constant()),
    st.builds(
        stepsizes.Koloskova,
        stale=st.sampled_from(["shrink", "drop"]),
        concurrency=COUNT,
        smoothness=st.one_of(st.none(), POSITIVE),
    ),
    st.builds(stepsizes.Mishchenko, st.just("strongly-convex"), POSITIVE, POSITIVE),
)
ENCODERS = st.one_of(st.none(), st.builds(encoders.Clip, threshold=POSITIVE))
CORRECTIONS = st.one_of(
    st.none(),
    st.builds(corrections.Mixing, local_stepsize=POSITIVE),
    st.builds(corrections.DelayCompensation, POSITIVE, st.one_of(st.none(), st.just(0.9))),
)
OPTIMIZERS = st.one_of(
    st.just(optimizers.SGD()),
    st.builds(optimizers.HeavyBall, momentum=st.floats(0, 1, exclude_max=True)),
)
RECIPES = st.builds(
    Recipe, METHODS, stepsize=STEPSIZES, encoder=ENCODERS, correction=CORRECTIONS,
    optimizer=OPTIMIZERS,
)  # fmt: skip


@settings(max_examples=150, deadline=None, derandomize=True)
@given(recipe=RECIPES, order=st.permutations(list(KINDS)))
def test_a_label_is_the_text_of_its_recipe(recipe: Recipe, order: list[str]):
    """Numbers such as 1e+300 included; parts may stand in any order."""
    assert recipe_of("test", recipe.label) == recipe
    assert recipe_of("test", recipe.label).label == recipe.label
    parts = [part for kind in order if (part := getattr(recipe, kind)) is not None]
    pieces = [recipe.method.label, *map(label, parts)]
    assert recipe_of("test", "+".join(pieces)) == recipe
    assert recipe_of("test", tuple(pieces)) == recipe
    assert recipe_of("test", (recipe.method, *parts)) == recipe


@dataclass(frozen=True)
class Spoken(ag.Method):
    """A method with a text for a parameter."""

    text: str = ""
    other: str | None = None

    name: ClassVar[str] = "spoken"

    def start(self, server):
        server.assign(0)

    def arrive(self, server, worker, read_step):
        server.apply()


@pytest.fixture
def offered(monkeypatch):
    """A function that puts a class into a room, as an export does."""

    def offer(room, cls):
        monkeypatch.setattr(room, cls.__name__, cls, raising=False)
        monkeypatch.setattr(room, "__all__", [*room.__all__, cls.__name__])

    return offer


@settings(max_examples=300, deadline=None, derandomize=True)
@given(text=st.text(), other=st.one_of(st.none(), st.text(alphabet='+|,="\\: a1e')))
def test_any_text_survives_its_label_whatever_signs_it_has(text: str, other: str | None):
    """Those with which a recipe is written, too."""
    recipe = Recipe(Spoken(text, other), stepsize=stepsizes.Koloskova("drop"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(methods, "Spoken", Spoken, raising=False)
        patch.setattr(methods, "__all__", [*methods.__all__, "Spoken"])
        assert recipes_of("test", recipe.label) == [recipe]


@pytest.mark.parametrize(
    ("text", "recipe"),
    [
        ("pure", Recipe(methods.Pure())),
        (" pure : 2 + clip ", Recipe(methods.Pure(2), encoder=encoders.Clip())),
        ("pure+clip:1e+3+koloskova", Recipe(methods.Pure(), encoder=encoders.Clip(1000.0),
                                            stepsize=stepsizes.Koloskova())),
        ("pure+constant+sgd", Recipe(methods.Pure())),
        ("pure:wait=+2", Recipe(methods.Pure(2))),
        ("pure+clip:+.5", Recipe(methods.Pure(), encoder=encoders.Clip(0.5))),
        ("ringmaster:3,stop_stale=true+heavy-ball:0.5", Recipe(methods.Ringmaster(3, True),
                                                    optimizer=optimizers.HeavyBall(0.5))),
    ],
)  # fmt: skip
def test_texts_as_a_person_writes_them(text, recipe):
    assert recipe_of("test", text) == recipe


def test_a_label_has_its_parts_in_a_fixed_order_and_no_default():
    recipe = recipe_of("test", "pure:wait=1+heavy-ball:momentum=0.9+sgd"[:-4])
    assert recipe.label == "pure+heavy-ball"
    assert recipe_of("test", "pure+clip+heavy-ball+mishchenko").label == (
        "pure+mishchenko+clip+heavy-ball"
    )


def test_a_list_stands_for_a_recipe_each():
    """Several lists for all combinations, the last running fastest; of any kind of value."""
    found = [recipe.label for recipe in recipes_of("test", "shuffled:wait=1|2|5")]
    assert found == ["shuffled", "shuffled:wait=2", "shuffled:wait=5"]
    text = "ringmaster:2|3,stop_stale=true|false+mishchenko:convex|practical,smoothness=1e+2|3"
    found = recipes_of("test", text)
    wanted = [
        Recipe(methods.Ringmaster(r, stop), stepsize=stepsizes.Mishchenko(setting, smoothness))
        for r in (2, 3)
        for stop in (True, False)
        for setting in ("convex", "practical")
        for smoothness in (100.0, 3)
    ]
    assert found == wanted


def test_a_list_is_for_where_several_recipes_are_taken(refused):
    problem = ag.problems.Tridiagonal(4, n_workers=2)
    found = ag.compare(problem, "linear", ["pure:wait=1|2", "sync"], steps=9, seeds=1,
                       stepsizes=[0.1])  # fmt: skip
    assert {cell.method for cell in found.cells} == {"pure", "pure:wait=2", "sync"}
    one = "'pure:wait=1|2' stands for 2 recipes; give one of them."
    trace = ag.simulate("pure", "linear", n_workers=2, steps=3)
    for owner, call in {
        "simulate": lambda: ag.simulate("pure:wait=1|2", "linear", n_workers=2, steps=3),
        "train": lambda: ag.train(problem, "pure:wait=1|2", 0.1, steps=3),
        "replay": lambda: ag.replay(trace, problem, 0.1, recipe="pure:wait=1|2"),
    }.items():
        assert refused(call) == f"{owner}: {one}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pur", "unknown method 'pur'. Did you mean 'pure'? Valid: method ace, "),
        ("kolskova", "unknown method 'kolskova'. Did you mean 'koloskova' (stepsize rule)?"),
        ("pure+kolskova", "unknown part 'kolskova'. Did you mean 'koloskova' (stepsize rule)? "
                          "Valid: stepsize rule constant, fleet, hinge, "),
        ("pure+clipp:3", "unknown part 'clipp'. Did you mean 'clip' (encoder)?"),
        ("pure+heavyball", "Did you mean 'heavy-ball' (optimizer)?"),
        ("pure+rennla", "unknown part 'rennla'. Did you mean 'rennala' (method)?"),
        ("koloskova", "'koloskova' is no method; a recipe begins with one, as in pure+koloskova."),
        ("koloskova+pure", "'pure' is a method, not a part; a recipe has one method, with"),
        ("pure+sync", "'sync' is a method, not a part"),
        ("pure+koloskova+clip+mishchenko", "'koloskova' and 'mishchenko' are of one kind; a recipe "
                                           "has one stepsize rule."),
        ("pure+clip+clip", "'clip' and 'clip' are of one kind; a recipe has one encoder."),
        ("pure+", "a '+' joins two parts; one is missing."),
        ("pure++clip", "a '+' joins two parts; one is missing."),
        ("", "a '+' joins two parts; one is missing."),
        ("pure:wait=1|", "a '|' joins two values; one is missing."),
        ("pure|sync", "unknown method 'pure|sync'"),
        ("pure+koloskova:stal=drop", "unknown parameter of koloskova 'stal'. Did you mean 'stale'"),
        ("pure+koloskova:stale=dro", "Did you mean 'drop'?"),
        ("pure+clip:threshold=-1", "Clip: threshold must be finite and > 0, got -1."),
        (("pure", 3), "test: a recipe is a text such as 'pure+koloskova', or an object such as"),
        (None, "test: a recipe is a text such as"),
        (methods.Pure, "test: a recipe is a text such as"),
    ],
)  # fmt: skip
def test_what_is_no_recipe_is_refused_in_one_line(text, said, refused):
    assert said in refused(lambda: recipe_of("test", text))


def test_what_is_no_part_is_refused_by_the_recipe_itself(refused):
    assert refused(lambda: Recipe(methods.Pure(), stepsize=0.1)) == (
        "Recipe: stepsize must be a Stepsize, for instance ag.stepsizes.Mishchenko(), got 0.1."
    )
    assert "method must be a Method, for instance ag.methods.Pure(), got 'pure'" in refused(
        lambda: Recipe("pure")
    )


def test_every_name_is_of_one_kind():
    """A part is known by its name alone."""
    rooms = (methods, recipes, stepsizes, work, encoders, corrections, optimizers)
    names = [name for room in rooms for name in catalogue(room)]
    assert sorted(names) == sorted(words_of())


@dataclass(frozen=True)
class Gentle(recipes.Named):
    """Pure asynchronous SGD that ignores stale gradients and clips the others.

    Parameters
    ----------
    threshold : float > 0
    """

    threshold: float = 0.5

    name: ClassVar[str] = "gentle"
    reference: ClassVar[str] = "nowhere"

    def build(self) -> Recipe:
        """Return the recipe."""
        return Recipe(
            methods.Pure(wait=2),
            stepsize=stepsizes.Koloskova("drop", concurrency=1),
            encoder=encoders.Clip(self.threshold),
        )


def test_a_recipe_with_a_name_stands_in_a_methods_place(offered):
    """It keeps its name; parts that are said take the place of its own."""
    offered(recipes, Gentle)
    plain = recipe_of("test", "gentle")
    assert plain == Gentle().build() == recipe_of("test", Gentle())
    assert plain.label == "gentle"
    changed = recipe_of("test", "gentle:threshold=2+constant+heavy-ball")
    assert changed == dataclasses.replace(
        Gentle(2).build(), stepsize=stepsizes.Constant(), optimizer=optimizers.HeavyBall()
    )
    assert changed.label == "gentle:threshold=2+constant+heavy-ball"
    assert recipe_of("test", changed.label) == changed
    assert [each.label for each in recipes_of("test", "gentle:1|2")] == [
        "gentle:threshold=1", "gentle:threshold=2",
    ]  # fmt: skip
    trace = ag.simulate("gentle", "linear", n_workers=3, steps=20)
    assert (trace.header.method, trace.header.recipe) == ("pure:wait=2", "gentle")
    problem = ag.problems.Tridiagonal(4, n_workers=3)
    own, same = (
        ag.replay(trace, problem, 0.3, recipe=said)
        for said in (None, "koloskova:drop,concurrency=1+clip:0.5")
    )
    np.testing.assert_array_equal(own.models, same.models)


HEADER = Header("pure:wait=2", "linear", 3, 0, 1.0, "steps", recipe="pure:wait=2+clip")


@pytest.mark.parametrize(
    ("said", "parts"),
    [
        (None, recipes.Parts(encoder=encoders.Clip())),
        ("pure:wait=2", recipes.Parts()),
        ("pure:2+heavy-ball", recipes.Parts(optimizer=optimizers.HeavyBall())),
        ("heavy-ball", recipes.Parts(optimizer=optimizers.HeavyBall())),
        (optimizers.HeavyBall(), recipes.Parts(optimizer=optimizers.HeavyBall())),
        (recipes.Parts(optimizer=optimizers.HeavyBall()),
         recipes.Parts(optimizer=optimizers.HeavyBall())),
        ((optimizers.HeavyBall(), "clip"),
         recipes.Parts(optimizer=optimizers.HeavyBall(), encoder=encoders.Clip())),
        (Recipe(methods.Pure(2), encoder=encoders.Clip(3.0)),
         recipes.Parts(encoder=encoders.Clip(3.0))),
    ],
)  # fmt: skip
def test_a_replay_takes_the_traces_parts_or_others(said, parts):
    """The method is left out, or is the trace's."""
    found = parts_of("replay", said, HEADER)
    assert {kind: getattr(found, kind) for kind in KINDS} == {
        kind: getattr(parts, kind) for kind in KINDS
    }


def test_a_replay_refuses_the_recipe_of_another_method(refused):
    wanted = "replay: the trace is of the method 'pure:wait=2', the recipe of 'sync'; leave the"
    for said in ("sync+clip", methods.Sync(), Recipe(methods.Sync()), ("sync", "clip")):
        assert wanted in refused(lambda said=said: parts_of("replay", said, HEADER))


def test_a_misspelt_part_of_a_replay_is_looked_for_among_parts(refused):
    for said in ("heavy-bal", "pure:2+heavy-bal", ("clip", "heavy-bal")):
        text = refused(lambda said=said: parts_of("replay", said, HEADER))
        assert text.startswith("unknown part 'heavy-bal'. Did you mean 'heavy-ball' (optimizer)?")


def test_a_method_of_a_users_own_need_not_be_made_anew(refused):
    """Its trace is replayed by the parts; parts of a user's own have to be given."""
    header = dataclasses.replace(HEADER, method="mine:a+b", recipe="mine:a+b+clip:2")
    assert parts_of("replay", None, header) == recipes.Parts(encoder=encoders.Clip(2))
    assert parts_of("replay", "mine:a+b+clip:3", header).encoder == encoders.Clip(3)
    header = dataclasses.replace(header, recipe="mine:a+b+shrink:2")
    assert refused(lambda: parts_of("replay", None, header)).startswith(
        "replay: the trace is of the recipe 'mine:a+b+shrink:2', whose parts cannot be made from "
        "that; give them as recipe=... (unknown part 'shrink'. "
    )
    header = dataclasses.replace(header, method='a|b"c', recipe='a|b"c+clip:2')
    assert parts_of("replay", None, header) == recipes.Parts(encoder=encoders.Clip(2))


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("", [""]),
        ("a,b", ["a", "b"]),
        (",a,,", ["", "a", "", ""]),
        ('"a,b",c', ['"a,b"', "c"]),
        (r'"a\",b",c', [r'"a\",b"', "c"]),
        ('"a,b', ['"a', "b"]),
    ],
)
def test_separators_within_quotes_do_not_separate(text, pieces):
    assert split(text, ",") == pieces
