"""What the parts of a recipe take from a run: τ_C, n, L."""

from __future__ import annotations

from collections.abc import Callable, Mapping

__all__ = ["Bound"]


class Bound(dict[str, float]):
    """Numbers of a run by name, each found out when a part first asks for it, and then kept.

    What a live run has bound stands in its trace: a replay that begins with that cannot differ from
    the run, whatever the run turned into later.

    Parameters
    ----------
    known : mapping
        What is bound already.
    concurrency, n_workers, smoothness : callable
        Find out τ_C, n and L; L may take long.
    """

    def __init__(
        self,
        known: Mapping[str, float],
        *,
        concurrency: Callable[[], float],
        n_workers: Callable[[], float],
        smoothness: Callable[[], float],
    ):
        super().__init__(known)
        self._find = {
            "concurrency": concurrency,
            "n_workers": n_workers,
            "smoothness": smoothness,
        }

    def __missing__(self, name: str) -> float:
        """Find a number out, and bind it."""
        self[name] = number = float(self._find[name]())
        return number
