"""compare: many methods on one problem or several, each with its best stepsize."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from asgrad.errors import AsgradError, check_callable, check_flag
from asgrad.experiments.choice import MEASURES, Measure, Rule
from asgrad.experiments.grid import Found, Line, Panel, lines_of
from asgrad.experiments.question import Question, ask
from asgrad.experiments.run import RunFolder, open_run
from asgrad.experiments.stored import (
    StoredTraces,
    digests,
    is_run,
    metrics_of,
    read_cells,
    read_facts,
    read_results,
    write_run,
)
from asgrad.experiments.work import Horizon, Work
from asgrad.numerics.replay import checked_threads
from asgrad.problems import Problem
from asgrad.progress import progress_bar
from asgrad.simulation.simulate import Said
from asgrad.times import AnyTimes

__all__ = ["Comparison", "compare"]


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Found):
    """What `compare` found.

    Attributes
    ----------
    panels : list of Panel
        The problems, one for every name that was given; a single problem's name is empty.
    cells : list of Cell
        One for every panel, method, stepsize and seed: the whole grid.
    results : dict
        By (panel, method, seed), the `Result` with a lane for every stepsize. Its `steps` are those
        whose models stood at the common moments `times`. In a comparison that was loaded its
        `models` are empty.
    traces : mapping
        By (method, seed).
    rule : Rule
        How stepsizes were chosen.
    horizon : Horizon
        How far the runs went, and when they were looked at.
    notes : list of str
        How the numbers came about, in sentences.
    origin : dict
        What was asked and of which problem, by which a stored comparison can go on.
    complete : bool
        False if the comparison was interrupted; methods that were not finished are left out.
    """

    @property
    def measures(self) -> list[Measure]:
        """All numbers by which models are judged."""
        return list(MEASURES.values())

    @property
    def lines(self) -> list[Line]:
        """One line for every method, panel by panel, at its chosen stepsize, the best first."""
        return [line for panel in self.panels for line in lines_of(panel, self.cells, self.rule)]

    @classmethod
    def load(cls, path: str | Path) -> Comparison:
        """Read a finished comparison.

        Raises
        ------
        AsgradError
            If there is none at `path`, or it is damaged.
        """
        folder = Path(path).expanduser()
        facts = read_facts(folder)
        if not is_run(folder):
            raise AsgradError(f"no finished comparison of asgrad at {folder}.")
        try:
            return cls(
                panels=[Panel(**_with_nan(panel)) for panel in facts["panels"]],
                cells=read_cells(folder),
                results=read_results(folder),
                traces=StoredTraces(folder, [(method, seed) for method, seed in facts["traces"]]),
                rule=Rule(**facts["rule"]),
                horizon=Horizon(**facts["horizon"]),
                notes=list(facts["notes"]),
                origin={name: facts[name] for name in ("identity", "asked")},
                complete=bool(facts["complete"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, AsgradError):
                raise
            raise AsgradError(f"run {folder} is damaged: {error}.") from error

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write results, metrics, traces and figures as a folder; return its path.

        Raises
        ------
        AsgradError
            If there is a run already, unless it is to be overwritten, or it cannot be written.
        """
        target = Path(path).expanduser()
        if is_run(target) and not overwrite:
            raise AsgradError(
                f"{target} holds a finished comparison; replace it with overwrite=True, or choose "
                "another name."
            )
        return write_run(self, target, None, self.draw)

    def to_frame(self) -> Any:
        """Return the metrics as a pandas frame, tidy: a row a panel, method, stepsize, seed and
        evaluation, the chosen stepsizes marked.

        Raises
        ------
        AsgradError
            If pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise AsgradError("to_frame needs pandas: pip install pandas.") from error
        return pd.DataFrame(metrics_of(self))

    def draw(self, folder: Path) -> None:
        """Write convergence.png, delays.png and gantt.png into `folder`, which is made."""
        _report().write_figures(self, folder)

    def plot(self) -> Any:
        """Return the curves by step and by time as a matplotlib figure."""
        return _report().convergence(self)

    def __str__(self) -> str:
        """The table that the command line shows."""
        return str(_report().table_text(self))

    def __repr__(self) -> str:
        """What it is, in one line."""
        n_methods = len({cell.method for cell in self.cells})
        n_seeds = len({cell.seed for cell in self.cells})
        best = "; ".join(
            f"{panel.name + ': ' if panel.name else ''}best {lines[0].method}"
            for panel in self.panels
            if (lines := lines_of(panel, self.cells, self.rule))
        )
        return f"<Comparison of {n_methods} methods over {n_seeds} seeds; {best}; print it>"

    def _repr_html_(self) -> str:
        """The table, for notebooks."""
        return str(_report().table_html(self))


def _report() -> Any:
    """Return the room that draws; it stands above this one, and is looked up when it is needed."""
    return import_module("asgrad.report")


def compare(
    problem: Problem | Mapping[str, Problem],
    times: str | AnyTimes,
    methods: Said | Sequence[Said],
    *,
    stepsizes: Sequence[float] | None = None,
    extra_stepsizes: Sequence[float] | None = None,
    widen: int | None = None,
    seeds: int | Sequence[int] = 3,
    steps: int | None = None,
    until_time: float | None = None,
    best: str | None = None,
    window: float = 0.2,
    target: float | Sequence[float] | None = None,
    evaluations: int = 60,
    out: str | Path | RunFolder | None = None,
    overwrite: bool = False,
    resume: bool = False,
    threads: int | None = None,
    progress: Callable[[float], None] | bool | None = None,
    insist: bool = False,
) -> Comparison:
    """Run every method with every stepsize and seed; choose each method's best stepsize.

    A trace is simulated once per method and seed and serves all stepsizes and problems. To compare
    at equal time, give `until_time`; to compare at equal steps, `steps`. Methods are looked at at
    common moments; one that takes few steps holds its model.

    The best stepsize is the one with the lowest median over the seeds of the median over the last
    window of evaluations, among those at which no seed diverged.

    Parameters
    ----------
    problem : Problem, or mapping of names to problems
        Several problems, with the same number of workers, are compared side by side.
    times : Times or str
    methods : sequence
        Recipes: methods, tuples of a method and parts, `Recipe`s, or texts such as "pure",
        "ringmaster:max_delay=8", "pure+koloskova+clip:0.5"; "shuffled:wait=1|2|5" stands for three.
    stepsizes : sequence of float, optional
        The grid; by default 2^k / L, k = −5, ..., 2.
    extra_stepsizes : sequence of float, optional
        Tried beside the grid, as are those that are given to a run on the default grid that goes
        on.
    widen : int >= 0, optional
        By how many stepsizes the grid of a method may grow on either side while its best lies at
        the edge (downwards only where it ends better than it began); by default 6 for the default
        grid, and not at all for stepsizes that are given.
    seeds : int or sequence of int
        How many seeds (0, 1, ...), or which. A seed fixes worker times, choices, rows and noise.
    steps : int, optional
    until_time : float, optional
        Seconds of virtual time.
    best : str, optional
        What the stepsize is chosen by: "gradient_norm", "loss", "test_loss", "accuracy", or
        "time_to_target"; by default the problem's own measure, which is the loss for networks and
        else the gradient norm.
    window : float, 0 < window <= 1
        The last share of the evaluations whose median judges a run.
    target : float or sequence of float, optional
        Of the measure that is chosen by. By default what tuned "sync" reaches, or the best method
        where "sync" is not compared or does not gain: 1.25 times its gradient norm; for other
        measures nine tenths of the way from the start.
    evaluations : int >= 1
        At even distances of the limit.
    out : path, optional
        Write the run to this folder, piece by piece while it is computed; its run.json says what
        was compared and how.
    overwrite : bool
        Replace a comparison that stands in `out`.
    resume : bool
        Go on with the comparison in `out`, interrupted or finished: what stands there is not
        computed again, and its methods, seeds and stepsizes are added to those given here.
    threads : int >= 1, optional
        By default one a core.
    progress : callable or bool, optional
        Called with the share of the work done since the last call; True shows a bar, on a terminal
        or in a notebook.
    insist : bool
        Compute also what seems to need more memory than there is, or more than two hours; both are
        guessed from the beginning, and otherwise such a comparison is refused.

    Returns
    -------
    Comparison
        After Ctrl-C, with the methods that were finished and complete=False.

    Raises
    ------
    AsgradError
        If an argument is refused.
    KeyboardInterrupt
        If Ctrl-C came before any method was finished.

    Examples
    --------
    >>> import asgrad as ag
    >>> problem = ag.problems.Tridiagonal(8, n_workers=3)
    >>> found = ag.compare(problem, ag.times.Linear(), ["sync", "pure"], until_time=60, seeds=1)
    >>> found
    <Comparison of 2 methods over 1 seeds; best pure; print it>
    """
    if progress is not True and progress is not False:
        check_callable("compare", "progress", progress)
    if resume and out is None:
        raise AsgradError("compare: resume needs out, the run that is to go on.")
    for name, flag in {"overwrite": overwrite, "resume": resume, "insist": insist}.items():
        check_flag("compare", name, flag)
    threads = checked_threads("compare", threads)
    if isinstance(out, RunFolder) or out is None:
        opened: AbstractContextManager[RunFolder | None] = nullcontext(out)
    else:
        opened = open_run(Path(out).expanduser(), overwrite=overwrite, resume=resume)
    bar = progress_bar("comparing") if progress is True else nullcontext(progress or None)
    with opened as run, bar as tell:
        question = ask(
            problem,
            times,
            methods,
            stepsizes=stepsizes,
            extra_stepsizes=extra_stepsizes,
            widen=widen,
            seeds=seeds,
            horizon=Horizon(steps, until_time, evaluations),
            best=best,
            window=window,
            target=target,
            before=run.facts.get("asked") if run else None,
        )
        if not insist and not (run and run.resume):  # what stands there already costs nothing
            question.check_cost(threads)
        traces = question.simulate(insist)
        origin = {"identity": question.identity(), "asked": question.asked()}
        if run:
            run.begin(
                **origin,
                played=digests(traces),
                said={
                    "widen": widen,
                    "best": best,
                    "window": question.rule.window,
                    "target": None if target is None else np.ravel(target).tolist(),
                },
            )
        work = Work(
            question.problems,
            {recipe.label: recipe for recipe in question.recipes},
            traces,
            question.horizon,
            threads,
            known=run.known if run else {},
            keep=run.keep if run else None,
            progress=tell,
            insist=insist,
        )
        work.run(question.first_grids(work.known), lambda pair: question.widen(work, pair))
        if not work.results:
            raise KeyboardInterrupt  # before any method was finished
        comparison = _concluded(question, work, origin)
        if run and comparison.complete:
            run.finish(comparison, comparison.draw)
    return comparison


def _concluded(question: Question, work: Work, origin: dict[str, Any]) -> Comparison:
    """Return what the replays come to; traces of methods that were not finished are left out."""
    panels, cells = question.conclude(work)
    kept = {key[1:] for key in work.results}
    return Comparison(
        panels=panels,
        cells=cells,
        results=question.in_order(work.results),
        traces={key: trace for key, trace in work.traces.items() if key in kept},
        rule=question.rule,
        horizon=question.horizon,
        notes=question.notes(panels),
        origin=origin,
        complete=work.complete,
    )


def _with_nan(panel: dict[str, Any]) -> dict[str, Any]:
    """Return a panel's fields as they were: JSON has no NaN."""
    start = {name: math.nan if v is None else v for name, v in panel["start"].items()}
    smoothness = panel["smoothness"]
    return {**panel, "start": start, "smoothness": math.nan if smoothness is None else smoothness}
