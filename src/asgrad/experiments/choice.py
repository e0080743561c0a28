"""Which stepsize is a method's best: the measures, the last window, the targets, the rule."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from asgrad.errors import AsgradError, as_number, check_choice, check_positive, n_axes

__all__ = ["BEST", "MEASURES", "Measure", "Rule", "choose", "gains", "moves", "windowed"]

_TIME = "time_to_target"
_NEAR = 1.25  # times the norm that is reached at the end, where noise decides
_LEAST = 1e-6  # times the norm of the start: what is lower is rounding, and no goal
_SHARE = 0.9  # of the way down (or up) from the start to what is reached
_HELP = 0.01  # of the start's value: what moves less may as well be noise


@dataclass(frozen=True)
class Measure:
    """A number by which models are judged."""

    name: str
    """Of the field in `Result` and of the column in results.parquet."""
    words: str
    symbol: str
    form: str
    """How it is written."""
    sign: float = 1.0
    """−1 where higher is better."""

    def text(self, value: float) -> str:
        """Return a value as a text, a dash for NaN."""
        return "—" if math.isnan(value) else format(value, self.form)


MEASURES = {
    measure.name: measure
    for measure in (
        Measure("gradient_norm", "gradient norm", "‖∇f‖", ".2e"),
        Measure("loss", "loss", "loss", ".4g"),
        Measure("test_loss", "test loss", "test loss", ".4g"),
        Measure("accuracy", "accuracy", "accuracy", ".1%", -1.0),
    )
}
BEST = (*MEASURES, _TIME)


@dataclass(frozen=True)
class Rule:
    """What "best" means in a comparison.

    Parameters
    ----------
    best : str
        A measure, or "time_to_target".
    measure : str
        The measure itself; of a time to target, the one that is to reach it.
    window : float, 0 < window <= 1
        The last share of the run over whose evaluations a median is taken: a method that
        oscillates is not judged by one instant.
    """

    best: str
    measure: str
    window: float

    @classmethod
    def of(cls, best: str | None, window: float, natural: str) -> Rule:
        """Make the rule from what was asked; `natural` is the problem's own measure."""
        check_choice("measure of a problem", natural, MEASURES)
        best = natural if best is None else check_choice("best", best, BEST)
        window = check_positive("compare", "window", window)
        if not window <= 1:
            raise AsgradError(f"compare: window must lie in (0, 1], got {window:g}.")
        return cls(best, natural if best == _TIME else best, window)

    @property
    def judged(self) -> Measure:
        """The measure itself."""
        return MEASURES[self.measure]

    @property
    def by_time(self) -> bool:
        """Whether the time to the first target decides."""
        return self.best == _TIME

    def sentence(self, n_seeds: int) -> str:
        """Return the rule in words."""
        measure = self.judged
        least = "highest" if measure.sign < 0 else "lowest"
        over = f"median over {n_seeds} seeds" if n_seeds > 1 else "value"
        last = f"the median over the last {self.window:.0%} of the run's evaluations"
        if self.by_time:
            what = (
                f"smallest {over} of the time to the first target; where it is never reached, or "
                f"equally soon, with the {least} {measure.words}, {last}"
            )
        else:
            what = f"{least} {over} of the {measure.words}, {last}"
        return (
            f"Stepsizes: for each method the one with the {what}; among those at which no seed "
            "diverged."
        )

    def target(self, start: float, reached: float) -> float:
        """Return a target between where a run starts and what is reached; NaN if nothing is.

        For a gradient norm 1.25 times what is reached, or a millionth of the start's if that is
        more, unless it is nearer to the start (in logarithms); for other measures nine tenths of
        the way.
        """
        sign = self.judged.sign
        if not sign * reached < sign * start:
            return math.nan
        if self.measure == "gradient_norm":
            goal = max(_NEAR * reached, _LEAST * start)
            return min(goal, math.sqrt(start * max(reached, _LEAST * start)))
        return start + _SHARE * (reached - start)

    def checked_targets(self, targets: Any, start: float) -> list[float]:
        """Return the targets that were asked for, the easiest first; one that is met is refused."""
        measure = self.judged
        found = []
        for target in [targets] if n_axes(targets) == 0 else targets:
            if measure.name == "loss":  # it may well be negative
                found.append(as_number("compare", "target", target))
            else:
                found.append(check_positive("compare", "target", target))
        for target in found:
            if not measure.sign * target < measure.sign * start:
                raise AsgradError(
                    f"compare: target must be {'above' if measure.sign < 0 else 'below'} the "
                    f"{measure.words} of the start, {start:.6g}, got {target:g}: it would be "
                    "reached at 0 s."
                )
        return sorted(set(found), key=lambda target: -measure.sign * target)

    def first(self, values: np.ndarray, target: float) -> int | None:
        """Return the first evaluation, of shape (n_evaluations,), that meets a target."""
        sign = self.judged.sign
        hits = np.flatnonzero(sign * values <= sign * target)
        return int(hits[0]) if hits.size else None


def windowed(values: np.ndarray, window: float) -> np.ndarray:
    """Return the median over the last window of evaluations.

    Parameters
    ----------
    values : numpy.ndarray, shape (n_evaluations, n_lanes)
        The first row is the start, which belongs to no window but one of a single row.
    window : float
        Share of the evaluations after the start; at least one is taken.

    Returns
    -------
    numpy.ndarray, shape (n_lanes,)
    """
    last = max(1, math.ceil(window * (len(values) - 1) - 1e-9))
    median: np.ndarray = np.median(values[-last:], axis=0)
    return median


def choose(diverged: np.ndarray, *scores: np.ndarray) -> int | None:
    """Return the index of the best stepsize; None if a seed diverged at each of them.

    Parameters
    ----------
    diverged : numpy.ndarray of bool, shape (n_seeds, n_stepsizes)
    scores : numpy.ndarray, shape (n_seeds, n_stepsizes)
        Lower is better; the medians over the seeds decide, those of the first array before those of
        the next, and then the smaller stepsize.
    """
    eligible = np.flatnonzero(~diverged.any(axis=0))
    if not eligible.size:
        return None
    medians = [np.nan_to_num(np.median(s[:, eligible], axis=0), nan=np.inf) for s in scores]
    return int(eligible[np.lexsort(medians[::-1])[0]])


def moves(start: float, value: float) -> bool:
    """Say whether a method ends elsewhere than it began, by more than a hundredth of the start."""
    return bool(abs(start - value) > _HELP * abs(start))


def gains(measure: Measure, start: float, value: float) -> bool:
    """Say whether a method ends better than it began, by more than a hundredth of the start."""
    return moves(start, value) and measure.sign * (start - value) > 0
