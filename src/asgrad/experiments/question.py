"""What a comparison asks, checked; its traces, its grids, and what its replays come to."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from asgrad.errors import (
    AsgradError,
    KindError,
    as_number,
    check_integer,
    check_positive,
    n_axes,
    shown,
)
from asgrad.experiments.choice import MEASURES, Rule, gains, moves, windowed
from asgrad.experiments.grid import Cell, Panel, cells_of, choice_among
from asgrad.experiments.work import Horizon, Key, Work
from asgrad.machine import check_memory
from asgrad.methods import AnyMethod, Pure
from asgrad.numerics import Result, replay
from asgrad.numerics.blocks import bytes_of_blocks
from asgrad.numerics.prepared import checked_dtype
from asgrad.numerics.replay import bound_to, rules_of
from asgrad.problems import Problem
from asgrad.problems.base import check_problem
from asgrad.problems.fingerprint import fingerprint
from asgrad.recipes import Named, Parts, Recipe, is_part, recipe_of, recipes_of
from asgrad.simulation import simulate
from asgrad.simulation.simulate import expected_cost
from asgrad.stepsizes.base import usable_smoothness
from asgrad.times import AnyTimes, Fixed, times_of
from asgrad.trace import Trace

__all__ = ["Question", "ask", "default_stepsizes"]

_GRID = range(-5, 3)  # powers of two, over L
_WIDEN = 6  # stepsizes on either side of it
_AT_ONCE = 2  # of them
_BASELINE = "sync"
_LONG = 7200.0  # seconds that are asked about first
_ROW_BYTES = 300  # of an evaluation in a result, and in the table that becomes metrics.parquet
_FEWER = "ask for fewer evaluations, methods, seeds or stepsizes, or insist"
_REMEDY = (
    "compare fewer methods, seeds or stepsizes, lower the limit, or insist: insist=True, on the "
    "command line --insist"
)


def default_stepsizes(smoothness: float) -> list[float]:
    """Return the default grid: 2^k / L for k = −5, ..., 2.

    Raises
    ------
    AsgradError
        If L is not known.
    """
    remedy = "the stepsizes, on the command line as in --stepsizes 0.01,0.1"
    usable_smoothness("compare", smoothness, remedy)
    return [2.0**k / smoothness for k in _GRID]


@dataclass(frozen=True)
class Question:
    """Everything that a comparison was asked, checked."""

    problems: dict[str, Problem]
    times: AnyTimes
    recipes: list[Recipe]
    given: np.ndarray | None
    """The stepsizes that the user gave; None: the default grid."""
    extra: np.ndarray
    """What was added to the default grid."""
    most_wider: int
    seeds: list[int]
    horizon: Horizon
    rule: Rule
    panels: list[Panel]
    """With the targets that were asked for."""

    def identity(self) -> dict[str, Any]:
        """Return what must not change when a comparison goes on."""
        return {
            "problems": {name: fingerprint(each) for name, each in self.problems.items()},
            "times": self.times.label,
            **dataclasses.asdict(self.horizon),
        }

    def asked(self) -> dict[str, Any]:
        """Return what may be added to when a comparison goes on."""
        return {
            "methods": [recipe.label for recipe in self.recipes],
            "stepsizes": None if self.given is None else self.given.tolist(),
            "extra": self.extra.tolist(),
            "seeds": self.seeds,
        }

    def check_cost(self, threads: int) -> None:
        """Refuse what memory cannot hold, or what takes hours, before it begins.

        Both are guessed: the jobs from the first of every method, their gradients from a few.
        """
        first = next(iter(self.problems.values()))
        n_seeds, n_lanes = len(self.seeds), max(self.base(name).size for name in self.problems)
        n_rows = n_seeds * n_lanes * len(self.recipes) * len(self.problems)
        n_rows *= self.horizon.most_moments
        check_memory("compare", f"{n_rows:.2g} evaluations", n_rows * _ROW_BYTES, _FEWER)
        costs = [
            expected_cost(
                recipe,
                self.times_for(recipe),
                n_workers=first.n_workers,
                steps=self.horizon.steps,
                until_time=self.horizon.until_time,
                seed=self.seeds[0],
            )
            for recipe in self.recipes
        ]
        jobs = n_seeds * sum(cost.jobs for cost in costs)
        if math.isinf(jobs):  # nothing is known of one that comes no nearer to its limit
            return
        gradients = jobs * n_lanes * len(self.problems)
        # A part of the dropped and cancelled jobs' gradients is not computed: an upper bound.
        seconds = n_seeds * sum(cost.seconds for cost in costs)
        seconds += sum(self._job_seconds(name) * jobs for name in self.problems) / threads
        n_bytes = n_seeds * sum(cost.n_bytes for cost in costs)
        n_bytes += threads * max(self._replay_bytes(name) for name in self.problems)
        said = f"about {jobs:.2g} jobs, {gradients:.2g} gradients, {_hours(seconds)}"
        check_memory("compare", said, n_bytes, _REMEDY)
        if not seconds <= _LONG:
            raise AsgradError(
                f"compare: this would take {said} and {n_bytes / 1e9:.2g} GB of memory (guessed "
                f"from its beginning); {_REMEDY}."
            )

    def _replay_bytes(self, panel: str) -> int:
        """Return the most that a replay of a panel takes at all its stepsizes."""
        problem = self.problems[panel]
        n_lanes, dtype = self.base(panel).size, checked_dtype(problem, None)
        return max(
            bytes_of_blocks(
                problem, recipe, n_lanes, dtype, problem.n_workers + 1,
                recipe.method.begin(problem.n_workers, self.seeds[0]).n_entries,
                local=recipe.work is not None,
            )
            for recipe in self.recipes
        )  # fmt: skip

    def _job_seconds(self, panel: str) -> float:
        """Return how long the gradients of a job take at all stepsizes of a panel, measured."""
        problem, few = self.problems[panel], 4
        trace = simulate(Pure(), Fixed(), n_workers=problem.n_workers, steps=few)
        took = []
        for _ in range(2):  # the first may compile
            start = time.perf_counter()
            replay(trace, problem, self.base(panel), evaluations=0, threads=1)
            took.append(time.perf_counter() - start)
        return min(took) / few

    def times_for(self, recipe: Recipe) -> AnyTimes:
        """Return the worker times, with the bytes of the messages that links carry."""
        problem = next(iter(self.problems.values()))
        itemsize = np.dtype(checked_dtype(problem, None)).itemsize
        return self.times.sized(recipe.code_bytes, problem.dim, itemsize)

    def simulate(self, insist: bool) -> dict[tuple[str, int], Trace]:
        """Return the traces by method and seed."""
        return {
            (recipe.label, seed): simulate(
                recipe,
                self.times_for(recipe),
                n_workers=next(iter(self.problems.values())).n_workers,
                steps=self.horizon.steps,
                until_time=self.horizon.until_time,
                seed=seed,
                insist=insist,
            )
            for recipe in self.recipes
            for seed in self.seeds
        }

    def base(self, panel: str) -> np.ndarray:
        """Return the grid with which every method of a panel begins."""
        if self.given is not None:
            return self.given
        default = np.array(default_stepsizes(self.problems[panel].smoothness))
        return unite_stepsizes([default, self.extra])

    def first_grids(self, known: Mapping[Key, Any]) -> dict[tuple[str, str], np.ndarray]:
        """Return the first stepsizes of every panel and method, those that are known included."""
        grids = {}
        for panel in self.problems:
            for recipe in self.recipes:
                pair = panel, recipe.label
                mine = [known[key].stepsizes for key in known if key[:2] == pair]
                grids[pair] = unite_stepsizes([*mine, self.base(panel)])
        return grids

    def widen(self, work: Work, pair: tuple[str, str]) -> np.ndarray:
        """Return the stepsizes that a method is to be tried at as well.

        They lie beyond the edge at which its best lies, unless the grid has grown enough there, or
        the smallest stepsize hardly moves the model already.
        """
        panel = next(panel for panel in self.panels if panel.name == pair[0])
        base = self.base(pair[0])
        results = [work.results[Key(*pair, seed)] for seed in self.seeds]
        traces = [work.traces[pair[1], seed] for seed in self.seeds]
        grid = results[0].stepsizes
        best = choice_among(results, traces, self.rule, panel.targets)
        measure = self.rule.judged
        down = best is None
        if best == 0:
            ends = [windowed(getattr(r, measure.name), self.rule.window)[0] for r in results]
            down = moves(panel.start[measure.name], float(np.median(ends)))
        more: list[float] = []
        if down:
            room = self.most_wider - int((grid < base[0]).sum())
            ratio = base[1] / base[0] if base.size > 1 else 2.0
            more = [grid[0] / ratio**k for k in range(1, min(room, _AT_ONCE) + 1)]
        elif best == grid.size - 1:
            room = self.most_wider - int((grid > base[-1]).sum())
            ratio = base[-1] / base[-2] if base.size > 1 else 2.0
            more = [grid[-1] * ratio**k for k in range(1, min(room, _AT_ONCE) + 1)]
        return np.sort(np.array(more))

    def conclude(self, work: Work) -> tuple[list[Panel], list[Cell]]:
        """Choose targets and stepsizes; return the panels and the whole grid."""
        panels = [self._with_targets(panel, work) for panel in self.panels]
        cells = []
        for panel in panels:
            for label in self._finished(panel, work):
                results = [work.results[Key(panel.name, label, seed)] for seed in self.seeds]
                traces = [work.traces[label, seed] for seed in self.seeds]
                best = choice_among(results, traces, self.rule, panel.targets)
                for seed, result, trace in zip(self.seeds, results, traces, strict=True):
                    cells += cells_of(panel, label, seed, result, trace, best, self.rule)
        return panels, cells

    def _finished(self, panel: Panel, work: Work) -> list[str]:
        """Return the methods that were finished on a panel."""
        labels = [recipe.label for recipe in self.recipes]
        return [
            label
            for label in labels
            if all(Key(panel.name, label, seed) in work.results for seed in self.seeds)
        ]

    def _with_targets(self, panel: Panel, work: Work) -> Panel:
        """Return the panel with a target of its own where none was asked for."""
        if panel.targets:
            return panel
        measure = self.rule.judged
        ends: dict[str, float] = {}
        for label in self._finished(panel, work):
            results = [work.results[Key(panel.name, label, seed)] for seed in self.seeds]
            traces = [work.traces[label, seed] for seed in self.seeds]
            best = choice_among(results, traces, self.rule, [])
            if best is not None:
                last = [windowed(getattr(r, measure.name), self.rule.window)[best] for r in results]
                ends[label] = float(np.median(last))
        ends = {k: v for k, v in ends.items() if gains(measure, panel.start[measure.name], v)}
        if not ends:
            return dataclasses.replace(panel, target_source="no method gains: there is no target")
        whose = _BASELINE if _BASELINE in ends else min(ends, key=lambda k: measure.sign * ends[k])
        target = self.rule.target(panel.start[measure.name], ends[whose])
        return dataclasses.replace(
            panel, targets=[target], target_source=f"near what tuned {whose} reaches"
        )

    def in_order(self, results: Mapping[Key, Result]) -> dict[Key, Result]:
        """Return results in the order in which panels, methods and seeds were asked for."""
        keys = (
            Key(panel, recipe.label, seed)
            for panel in self.problems
            for recipe in self.recipes
            for seed in self.seeds
        )
        return {key: results[key] for key in keys if key in results}

    def notes(self, panels: Sequence[Panel]) -> list[str]:
        """Return how the numbers came about, in sentences."""
        found = [f"Horizon: {self.horizon.words}.", self.rule.sentence(len(self.seeds))]
        if self.given is None:
            grid = f"Grid: 2^k/L, k = {_GRID[0]}..{_GRID[-1]}"
            grid += "".join(f", {stepsize:.4g}" for stepsize in self.extra)
        else:
            grid = f"Grid: {', '.join(f'{s:.4g}' for s in self.given)}"
        if self.most_wider:
            grid += f", grown by up to {self.most_wider} on a side where the best is at the edge"
        found.append(f"{grid}.")
        for panel in panels:
            name = f" ({panel.name})" if len(panels) > 1 else ""
            if not math.isnan(panel.smoothness):
                found.append(f"L = {panel.smoothness:.4g}{name}: {panel.smoothness_source}.")
            found.append(f"Target{name}: {panel.target_source}.")
        n_workers = next(iter(self.problems.values())).n_workers
        said = {r.label: r.method.defaults(n_workers) for r in self.recipes}
        settled = [f"{label} {text}" for label, text in said.items() if text]
        if settled:
            found.append(f"By default: {'; '.join(settled)}.")
        return list(dict.fromkeys(found))


def ask(
    problem: Any,
    times: Any,
    methods: Any,
    *,
    stepsizes: Any,
    extra_stepsizes: Any,
    widen: int | None,
    seeds: Any,
    horizon: Horizon,
    best: str | None,
    window: float,
    target: Any,
    before: dict[str, Any] | None,
) -> Question:
    """Check what `compare` was asked; add what was asked `before` by the run that goes on."""
    before = before or {}
    problems = _checked_problems(problem)
    times = times_of("compare", times)
    horizon = horizon.checked()
    recipes = _recipes(methods, before.get("methods", []))
    seed_list = list(dict.fromkeys([*before.get("seeds", []), *_checked_seeds(seeds)]))
    given = None if stepsizes is None else _checked_grid(stepsizes)
    extra = np.array(before.get("extra", []))
    if extra_stepsizes is not None:
        extra = unite_stepsizes([extra, _checked_grid(extra_stepsizes)])
    if before and given is not None and before["stepsizes"] is None:
        extra, given = unite_stepsizes([extra, given]), None  # beside the default grid
    elif before and given is not None:
        given = unite_stepsizes([np.array(before["stepsizes"]), given])
    elif before and before["stepsizes"] is not None:
        given = np.array(before["stepsizes"])
    if given is not None:
        given, extra = unite_stepsizes([given, extra]), extra[:0]
    most_wider = check_integer(
        "compare", "widen", (0 if given is not None else _WIDEN) if widen is None else widen,
        minimum=0,
    )  # fmt: skip
    rule = Rule.of(best, window, next(iter(problems.values())).measure)
    for each in problems.values():
        if given is None:
            default_stepsizes(each.smoothness)
        for recipe in recipes:  # a rule that needs an unknown L is refused before any work
            rules_of(recipe, bound_to(each, lambda: 1, {}), each.n_workers)
    return Question(
        problems=problems,
        times=times,
        recipes=recipes,
        given=given,
        extra=extra,
        most_wider=most_wider,
        seeds=seed_list,
        horizon=horizon,
        rule=rule,
        panels=[_panel(name, each, rule, target, given) for name, each in problems.items()],
    )


def _panel(name: str, problem: Problem, rule: Rule, target: Any, given: np.ndarray | None) -> Panel:
    """Return a panel: the problem at its start, and the targets that were asked for."""
    trace = simulate(Pure(), Fixed(), n_workers=problem.n_workers, steps=1)
    first = replay(trace, problem, 1.0, evaluations=[0])
    start = {measure: float(getattr(first, measure)[0, 0]) for measure in MEASURES}
    if math.isnan(start[rule.measure]):
        why = f"its {rule.judged.words} is not defined."
        if rule.measure == "gradient_norm" and not problem.evaluates_gradient:
            why = "its evaluations leave it out; build it with gradient_norm=True."
        raise AsgradError(
            f"compare: best must be a measure that the problem has, got {rule.best!r}: {why}"
        )
    return Panel(
        name=name,
        problem=str(getattr(problem, "label", problem.name)),
        smoothness=float(problem.smoothness),
        smoothness_source=str(problem.smoothness_source),
        in_units=given is None,
        start=start,
        targets=[] if target is None else rule.checked_targets(target, start[rule.measure]),
        target_source="as given",
    )


def _hours(seconds: float) -> str:
    """Return a duration in words."""
    if seconds < 120:
        return f"{seconds:.2g} seconds"
    return f"{seconds / 60:.2g} minutes" if seconds < 7200 else f"{seconds / 3600:.2g} hours"


def unite_stepsizes(grids: Iterable[np.ndarray]) -> np.ndarray:
    """Return all stepsizes, rising; of those that differ in their last bits that of the first grid.

    L may differ in its last bit on another machine; what is stored keeps its stepsize.
    """
    parts = list(grids)
    every = np.concatenate(parts)
    rank = np.repeat(np.arange(len(parts)), [part.size for part in parts])
    order = np.argsort(every, kind="stable")
    group = np.cumsum(np.append(0, np.diff(every[order]) > 1e-12 * every[order][1:]))
    order = order[np.lexsort((rank[order], group))]  # within a group the first grid's
    united: np.ndarray = every[order][np.unique(group, return_index=True)[1]]
    return united


def _checked_problems(problem: Any) -> dict[str, Problem]:
    """Return the problems by name; a single one has none."""
    problems = dict(problem) if isinstance(problem, Mapping) else {"": problem}
    if not problems:
        raise AsgradError("compare: give at least one problem.")
    for name, each in problems.items():
        if not isinstance(name, str):
            raise KindError(f"compare: problems are named by texts, got {shown(name)}.")
        _check_printable("problem", name)
        check_problem("compare", each)
        as_number(type(each).__name__, "smoothness", each.smoothness)
    sizes = {each.n_workers for each in problems.values()}
    measures = {each.measure for each in problems.values()}
    if len(sizes) > 1 or len(measures) > 1:
        raise AsgradError(
            "compare: problems that stand side by side must have the same number of workers and "
            f"one natural measure, got {sorted(sizes)} and {sorted(measures)}."
        )
    return problems


def _recipes(methods: Any, before: Sequence[str]) -> list[Recipe]:
    """Return the recipes, those of the run that goes on first."""
    one = isinstance(methods, str | AnyMethod | Parts | Named) or (
        isinstance(methods, tuple) and any(is_part(each) for each in methods)
    )
    if not one and not isinstance(methods, Iterable):
        raise KindError(f"compare: methods must be a list of methods, got {shown(methods)}.")
    several = [methods] if one else list(methods)
    asked = [recipe for said in several for recipe in recipes_of("compare", said)]
    new = {recipe.label: recipe for recipe in asked}
    if len(new) < len(asked):
        labels = [recipe.label for recipe in asked]
        twice = next(label for label in labels if labels.count(label) > 1)
        raise AsgradError(
            f"compare: method {twice!r} is given twice; a method of your own with parameters "
            "needs a name of its own, or to be a dataclass."
        )
    found = []
    for label in before:
        try:
            found.append(new.pop(label) if label in new else recipe_of("compare", label))
        except AsgradError as error:
            raise AsgradError(
                f"compare: the run that goes on has the method {label!r}, which is none of "
                "asgrad's; give it again among the methods."
            ) from error
    found += new.values()
    for recipe in found:
        _check_printable("method", recipe.label)
    if not found:
        raise AsgradError("compare: give at least one method.")
    return found


def _check_printable(what: str, name: str) -> None:
    """Refuse a name that would break tables and files."""
    if not name.isprintable():
        raise AsgradError(
            f"compare: a {what}'s name must be in one line and of signs that can be printed, got "
            f"{shown(name)}."
        )


def _checked_grid(stepsizes: Sequence[float]) -> np.ndarray:
    """Return the stepsizes, checked and rising."""
    if n_axes(stepsizes) != 1:
        raise KindError(f"compare: stepsizes must be a list of numbers, got {shown(stepsizes)}.")
    grid = sorted({check_positive("compare", "stepsize", s) for s in stepsizes})
    if not grid:
        raise AsgradError("compare: give at least one stepsize.")
    return unite_stepsizes([np.array(grid)])


def _checked_seeds(seeds: int | Sequence[int]) -> list[int]:
    """Return the seeds as a list, checked."""
    if not isinstance(seeds, str) and n_axes(seeds) == 1:
        found = [
            check_integer("compare", "seed", seed, minimum=0) for seed in np.asarray(seeds).tolist()
        ]
        if not found or len(set(found)) < len(found):
            raise AsgradError("compare: give at least one seed, each only once.")
        return found
    return list(range(check_integer("compare", "seeds", seeds, minimum=1, maximum=10**6)))
