"""ATA: how many gradients each worker is asked for is learnt from the time that they take."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from asgrad.errors import check_integer, check_positive
from asgrad.kernels import compiled, inlined
from asgrad.methods.base import RULE, CompiledMethod, Opening
from asgrad.methods.decisions import apply, assign, job_time, take_step
from asgrad.methods.state import real, set_real

__all__ = ["ATA"]

# state: B, n, gradients that lack, the round, α and the width as numbers (α < 0: from the mean);
# then of every worker the gradients so far, K_i, the sum of their times, its score, and a_i
_BATCH, _N, _MISSING, _ROUND, _ALPHA, _WIDTH, _OWN = range(7)


@inlined
def _set_scores(state):
    """Set s_i = μ_i − 4eα(√(ln(2k²)/K_i) + ln(2k²)/K_i); return how many are not above 0."""
    n = state[_N]
    log = math.log(2.0 * state[_ROUND] * state[_ROUND])
    n_low = 0
    for i in range(n):
        share = log / state[_OWN + i]
        mean = real(state, _OWN + n + i) / state[_OWN + i]
        alpha = real(state, _ALPHA)
        if alpha < 0.0:
            alpha = 2.0 * mean
        score = mean - real(state, _WIDTH) * alpha * (math.sqrt(share) + share)
        set_real(state, _OWN + 2 * n + i, score)
        n_low += score <= 0.0
    return n_low


@inlined
def _allot(state):
    """Share the B gradients of the coming round out: a_i.

    Among workers that were never heard, if there are some; else among those with scores not above
    0; else one at a time to whom it makes the least (a_i + 1) s_i.
    """
    n = state[_N]
    counts, scores, shares = _OWN, _OWN + 2 * n, _OWN + 3 * n
    n_unheard = 0
    for i in range(n):
        state[shares + i] = 0
        n_unheard += state[counts + i] == 0
    n_low = _set_scores(state) if n_unheard == 0 else 0
    left = state[_BATCH]
    while left > 0 and n_unheard + n_low > 0:
        for i in range(n):
            unheard = state[counts + i] == 0
            low = n_unheard == 0 and real(state, scores + i) <= 0.0
            if left > 0 and (unheard or low):
                state[shares + i] += 1
                left -= 1
    for _ in range(left):
        best, least = 0, np.inf
        for i in range(n):
            longest = (state[shares + i] + 1) * real(state, scores + i)
            if longest < least:
                best, least = i, longest
        state[shares + best] += 1


@compiled(RULE)
def _rule(state, worker, read_step, step, out):
    """Note how long the gradient took; after B of them step with their mean, and share out anew."""
    n = state[_N]
    apply(out, 1.0 / state[_BATCH])
    state[_OWN + worker] += 1
    set_real(state, _OWN + n + worker, real(state, _OWN + n + worker) + job_time(out))
    state[_MISSING] -= 1
    if state[_MISSING] > 0:
        return
    take_step(out)
    state[_ROUND] += 1
    state[_MISSING] = state[_BATCH]
    _allot(state)
    for i in range(n):
        for _ in range(state[_OWN + 3 * n + i]):
            assign(out, i)


@dataclass(frozen=True)
class ATA(CompiledMethod):
    """ATA: each round shares B gradients out so that it is over soon, as far as times are known.

    In round k worker i computes a_i gradients at x_k, Σ a_i = B; once all are in, a step with their
    mean. With μ_i the mean of the K_i times seen of worker i, its score is
    s_i = μ_i − 4eα(√(ln(2k²)/K_i) + ln(2k²)/K_i), below its true mean with high probability; the
    a_i make max_i a_i s_i least. So slow workers are asked little, and nobody computes in vain;
    every applied gradient has delay 0.

    Where computing costs, and times are unknown but do not change. For equal data.

    Parameters
    ----------
    batch : int >= 1, optional
        B; by default the number of workers.
    alpha : float > 0, optional
        α, a bound on the sub-exponential norm of the times, in seconds; by default 2 μ_i.
    width : float >= 0
        The factor before α, by default 4e. As theory has it, hundreds of gradients a worker pass
        before the scores tell workers apart; a tenth of it learns sooner, without its guarantee.

    References
    ----------
    Maranjyan, El Mehdi, Richtárik et al.: ATA, arXiv 2502.00775. Deviations: the first rounds are
    shared out among workers that were never heard.
    """

    batch: int | None = None
    alpha: float | None = None
    width: float = 4 * math.e

    name: ClassVar[str] = "ata"
    reference: ClassVar[str] = "ATA, arXiv 2502.00775"
    any_worker: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.batch is not None:
            check_integer("ATA", "batch", self.batch, minimum=1)
        if self.alpha is not None:
            check_positive("ATA", "alpha", self.alpha)
        check_positive("ATA", "width", self.width, zero=True)

    def defaults(self, n_workers: int) -> str:
        """Return what the parameters that were left open come to, empty where none was."""
        return f"batch = B = {n_workers} (the number of workers)" if self.batch is None else ""

    def begin(self, n_workers: int, seed: int) -> Opening:
        """Return the opening: the first round, shared out evenly."""
        n, batch = n_workers, self.batch or n_workers
        state = np.zeros(_OWN + 4 * n, np.int64)
        state[_BATCH] = state[_MISSING] = batch
        state[_N], state[_ROUND] = n, 1
        numbers = np.array([-1.0 if self.alpha is None else self.alpha, self.width])
        state[[_ALPHA, _WIDTH]] = numbers.view(np.int64)
        shares = batch // n + (np.arange(n) < batch % n)
        return Opening(state, np.repeat(np.arange(n), shares), _rule, 0)
