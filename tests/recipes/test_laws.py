"""The laws that every part and every named recipe obeys; the table is tests/parts.py.

Methods have a table of their own, tests/methods/test_laws.py.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import asgrad as ag
from asgrad import methods, recipes
from asgrad.recipes.base import KINDS
from asgrad.recipes.grammar import recipe_of, rooms, words_of
from asgrad.registry import catalogue
from asgrad.streams import Purpose, stream_key
from parts import NAMED, PARTS, RECIPES, ROWS, N

SEED, GAMMA = 5, 0.2
METHODS = [
    "pure",
    "pure:wait=2",  # waits
    "ringmaster:max_delay=2",  # drops
    "m-sync:m=2",  # cancels
    "ringleader",  # has a table
]
TIES = ag.times.Fixed(scale=[0.1, 0.2, 0.3, 0.7])
WHOLE = [*(f"pure+{text}" for text in PARTS), *RECIPES]
every_part = pytest.mark.parametrize("text", PARTS)
every_whole = pytest.mark.parametrize("text", WHOLE)


def a_problem(n_workers: int = N) -> ag.Problem:
    """A noisy quadratic whose workers differ."""
    return ag.problems.Quadratic(
        np.linspace(0.1, 1.0, 6), n_workers=n_workers, heterogeneity=1.0, noise=0.3
    )


def live(text: str, times: ag.times.AnyTimes, **options):
    """A run in virtual time."""
    options = {"seed": SEED, "evaluate_every": None, **options}
    return ag.train(a_problem(), text, GAMMA, workers=ag.Virtual(times), **options)


def test_the_table_has_every_part_and_every_named_recipe():
    """What has no row would escape the laws."""
    for words, room in rooms().items():
        if words == "method":
            continue
        table, what = (NAMED, "NAMED") if room is recipes else (ROWS, "ROWS")
        missing = sorted(set(catalogue(room)) - set(table))
        assert not missing, (
            f"no row for {missing}: in tests/parts.py add to {what} one for each, which says with "
            "which settings it goes through the laws, and "
            + ("which recipe, written out, each of them is." if room is recipes else
               "what it does without a delay, in plain NumPy.")
        )  # fmt: skip
    gone = sorted({*ROWS, *NAMED} - set(words_of()))
    assert not gone, f"rows for what there is no more: {gone}"


@every_whole
def test_equal_seeds_give_equal_traces_and_models(text):
    """Made anew each time; another seed gives other ones."""

    def played(seed):
        trace = ag.simulate(text, "exponential", n_workers=N, steps=40, seed=seed)
        return trace, ag.replay(trace, a_problem(), GAMMA)

    (one, first), (two, second), (other, third) = (played(seed) for seed in (5, 5, 6))
    assert one.equals(two)
    assert not one.equals(other)
    for name in ("models", "loss", "gradient_norm"):
        assert_array_equal(getattr(first, name), getattr(second, name))
    assert (first.models != third.models).any()


@pytest.mark.parametrize("method", ["pure", "ringleader"])
@every_part
def test_a_lane_depends_neither_on_its_neighbours_nor_on_threads(text, method):
    """Three stepsizes and two seeds at once, and each alone."""
    trace = ag.simulate(method, "exponential", n_workers=N, steps=40, seed=SEED)
    gammas, seeds = [0.02, 5.0, 0.3], [5, 6]
    options = {"recipe": text, "evaluations": 8}
    one, two = (
        ag.replay(trace, a_problem(), gammas, seeds=seeds, threads=threads, **options)
        for threads in (1, 2)
    )
    for lane, (seed, gamma) in enumerate(itertools.product(seeds, gammas)):
        alone = ag.replay(trace, a_problem(), gamma, seeds=seed, **options)
        for result in (one, two):
            assert result.status[lane] == alone.status[0]
            assert_array_equal(result.loss[:, lane], alone.loss[:, 0])
            assert_array_equal(result.models[:, lane], alone.models[:, 0])


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    ("name", "setting"),
    [(name, said) for name, row in ROWS.items() for said in row.settings if "/" not in said],
)
def test_one_worker_without_delay_is_a_sequential_loop(name, setting, batch):
    """In plain NumPy, its gradients one after the other, `batch` of them a step."""
    row, problem, steps = ROWS[name], a_problem(1), 30
    recipe = recipe_of("test", f"buffered:{batch}+{name}:{setting}")
    part = next(p for k in KINDS if (p := getattr(recipe, k)) and p.name == name)
    delivered, moved = row.delivers(part), row.moves(part)
    draws, key = itertools.count(), stream_key(SEED, Purpose.GRADIENT)
    x = problem.x0
    for _ in range(steps):
        jobs = [
            delivered(x, lambda y: problem.gradient(y, 0, next(draws), key=key))
            for _ in range(batch)
        ]
        x = moved(x, row.factor(part, GAMMA) * np.mean(jobs, axis=0), GAMMA, 0)
    trace = ag.simulate(recipe, "exponential", n_workers=1, steps=steps, seed=SEED)
    assert not trace.delays.any()
    result = ag.replay(trace, problem, GAMMA)
    assert_allclose(result.models[:, 0], x, rtol=1e-10, atol=1e-12)
    run = ag.train(problem, recipe, GAMMA, steps=steps, seed=SEED, evaluate_every=None)  # threads
    assert_array_equal(run.model, result.models[:, 0])


@pytest.mark.parametrize("method", METHODS)
@every_part
def test_in_virtual_time_a_part_is_what_simulate_and_replay_say(text, method):
    """Bit for bit, under a method of each kind; the live run's header says what it has bound."""
    check_virtual(f"{method}+{text}", TIES)


@pytest.mark.parametrize("text", RECIPES)
def test_in_virtual_time_a_named_recipe_is_what_simulate_and_replay_say(text):
    """Bit for bit."""
    check_virtual(text, TIES)
    check_virtual(text, ag.times.Exponential())


COMBINED = [
    "koloskova:drop+clip:0.5+delay-compensation:strength=0.5,decay=0.9+adam",
    "fleet+mixing+nesterov",
    "mishchenko:nonconvex+clip+amsgrad:max_delay=1",
    "local-steps:n=2,stepsize=0.1+top-k:k=2,feedback=true+mixing:0.1",
]


@pytest.mark.parametrize("parts", COMBINED)
@pytest.mark.parametrize("method", catalogue(methods))
def test_in_virtual_time_every_method_is_what_simulate_and_replay_say(method, parts):
    """With parts of all kinds at once."""
    check_virtual(f"{method}+{parts}", TIES)
    check_virtual(f"{method}+{parts}", ag.times.Exponential(), dtype="float32")


def check_virtual(text: str, times: ag.times.AnyTimes, dtype: str = "float64") -> None:
    """Compare a live run in virtual time with `simulate` and `replay`."""
    run = live(text, times, jobs=60, dtype=dtype)
    trace = ag.simulate(text, times, n_workers=N, seed=SEED, jobs=60)
    knows = dataclasses.replace(trace.header, bound=run.trace.header.bound)
    assert run.trace.equals(dataclasses.replace(trace, header=knows))
    again = ag.replay(trace, a_problem(), GAMMA, evaluations=0, dtype=dtype)
    assert_array_equal(again.models[:, 0], run.model)
    same = ag.replay(run.trace, a_problem(), GAMMA, evaluations=0, dtype=dtype)
    assert_array_equal(same.models[:, 0], run.model)


@pytest.mark.parametrize(("text", "written_out"), RECIPES.items())
def test_a_named_recipe_is_the_parts_that_it_stands_for(text, written_out):
    """The same objects, hence the same run."""
    assert recipe_of("test", text) == recipe_of("test", written_out)


@pytest.mark.parametrize("text", [*(f"pure+{text}" for text in PARTS), *RECIPES])
def test_a_label_reads_back_as_its_recipe(text):
    """Also from the header of a trace; the label is then its own."""
    recipe = recipe_of("test", text)
    assert recipe_of("test", recipe.label) == recipe
    assert recipe_of("test", recipe.label).label == recipe.label
    trace = ag.simulate(recipe, "linear", n_workers=N, steps=2)
    assert recipe_of("test", trace.header.recipe) == recipe


FIELDS = [
    (cls, field)
    for room in rooms().values()
    for cls in catalogue(room).values()
    for field in dataclasses.fields(cls)
]


@pytest.mark.parametrize(
    ("cls", "field"), FIELDS, ids=[f"{cls.__name__}-{field.name}" for cls, field in FIELDS]
)
def test_a_parameter_that_cannot_be_is_refused(cls, field, refused):
    """In one line that names it, or the choices there are; in a text as in Python."""
    is_text = field.type == "str"
    for value in ("pork", *([] if is_text else (float("nan"), -7)), [], object()):
        text = refused(lambda v=value: cls(**{field.name: v}))
        assert f": {field.name} must " in text or "Valid: " in text, text
        if isinstance(value, float | int | str):
            begin = "" if issubclass(cls, recipes.Named | methods.AnyMethod) else "pure+"
            said = f"{begin}{cls.name}:{field.name}={value}"
            assert refused(lambda s=said: recipe_of("test", s)).endswith(text)


@every_whole
def test_a_resumed_run_equals_one_that_was_not_cut_off(text, tmp_path):
    """Cut off in the middle of a batch, too; what parts remember is in the checkpoint."""
    pytest.importorskip("safetensors")
    whole = live(text, TIES, jobs=45)
    kept = ag.Checkpoints(tmp_path / "kept")
    live(text, TIES, jobs=17, checkpoints=kept)
    run = live(text, TIES, jobs=45, checkpoints=kept, resume=True)
    assert run.trace.equals(whole.trace)
    assert run.trace.header == whole.trace.header
    assert_array_equal(run.model, whole.model)
