"""A recipe: a method, and what else makes it a paper's algorithm, as one object."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

from asgrad.corrections import Correction
from asgrad.encoders import Encoder
from asgrad.errors import check_kind
from asgrad.kernels import HasKernel
from asgrad.methods import AnyMethod
from asgrad.optimizers import SGD, Optimizer
from asgrad.registry import label
from asgrad.stepsizes import Constant, Stepsize
from asgrad.work import Work

__all__ = ["KINDS", "Kind", "Named", "Part", "Parts", "Recipe", "head_of", "is_part", "kind_of"]


Part = Stepsize | Work | Encoder | Correction | Optimizer


class Kind(NamedTuple):
    """A kind of part; the package that its base is from exports the classes."""

    words: str
    base: type
    remedy: str


KINDS = {
    "stepsize": Kind("stepsize rule", Stepsize, "ag.stepsizes.Mishchenko()"),
    "work": Kind("work", Work, "ag.work.LocalSteps(10, 0.1)"),
    "encoder": Kind("encoder", Encoder, "ag.encoders.Clip(1.0)"),
    "correction": Kind("correction", Correction, "ag.corrections.DelayCompensation(0.04)"),
    "optimizer": Kind("optimizer", Optimizer, "ag.optimizers.HeavyBall(0.9)"),
}
"""By the field of `Parts` that holds one, in the order in which a label has them."""
_MAY_LACK = ("work", "encoder", "correction")


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a recipe says beside its method: all that a replay needs of it.

    Parameters
    ----------
    stepsize : Stepsize
        How the stepsize depends on the delay; by default not at all.
    work : Work, optional
        Of how many gradients a job is made, and how one leads to the next; by default of one.
    encoder : Encoder, optional
        What happens to each gradient at its worker; by default nothing.
    correction : Correction, optional
        What happens to it at the server, when a step uses it; by default nothing.
    optimizer : Optimizer
        What the server does with a direction; by default SGD.
    """

    stepsize: Stepsize = field(default_factory=Constant)
    work: Work | None = None
    encoder: Encoder | None = None
    correction: Correction | None = None
    optimizer: Optimizer = field(default_factory=SGD)

    def __post_init__(self) -> None:
        for name, kind in KINDS.items():
            part = getattr(self, name)
            if part is not None or name not in _MAY_LACK:
                check_kind(type(self).__name__, name, part, kind.base, kind.remedy)
            if isinstance(part, HasKernel):
                part.check_kernel()

    def code_bytes(self, dim: int, itemsize: int) -> float:
        """Return how many bytes a gradient of so many numbers takes on its way."""
        return self.encoder.n_bytes(dim, itemsize) if self.encoder else dim * itemsize

    def beside(self, other: Parts) -> list[str]:
        """Return the labels of the parts that are not those of `other`, in their order."""
        mine = {name: getattr(self, name) for name in KINDS}
        return [label(part) for name, part in mine.items() if part != getattr(other, name) and part]


@dataclass(frozen=True)
class Recipe(Parts):
    """A paper's algorithm as one thing: a method and its parts.

    It is what `simulate`, `replay`, `train` and `compare` take; a bare method is the recipe of that
    method. As a text: METHOD:parameters+PART:parameters+…, the parts in any order.

    Parameters
    ----------
    method : method
        An object such as `ag.methods.Pure()`, or one of your own.
    stepsize, work, encoder, correction, optimizer
        See `Parts`.

    Examples
    --------
    >>> import asgrad as ag
    >>> ag.Recipe(ag.methods.Pure(), stepsize=ag.stepsizes.Koloskova(stale="drop")).label
    'pure+koloskova:stale=drop'
    """

    method: AnyMethod
    named: Named | None = field(default=None, kw_only=True, compare=False, repr=False)
    """Whose recipe this is, if it has a name of its own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_kind("Recipe", "method", self.method, AnyMethod, "ag.methods.Pure()")

    @property
    def label(self) -> str:
        """The recipe as a text, its identity in results: the parts in a fixed order, no default."""
        if self.named is None:
            return "+".join([self.method.label, *self.beside(Parts())])
        return "+".join([label(self.named), *self.beside(self.named.recipe)])


class Named(ABC):
    """A recipe with a name of its own, which may stand in a method's place.

    A subclass is a frozen dataclass of its parameters and gives `build`.
    """

    name: ClassVar[str] = ""
    reference: ClassVar[str] = ""

    @abstractmethod
    def build(self) -> Recipe:
        """Return the method and the parts that the name stands for."""

    @property
    def recipe(self) -> Recipe:
        """The recipe, which keeps the name."""
        return replace(self.build(), named=self)


def head_of(thing: Any) -> Recipe | None:
    """Return the recipe that an object is the beginning of; None for a part."""
    if isinstance(thing, Named):
        return thing.recipe
    if isinstance(thing, AnyMethod):
        return Recipe(thing)
    return thing if isinstance(thing, Recipe) else None


def kind_of(thing: Any) -> str | None:
    """Return the field of `Parts` that an object belongs to; None for what is no part."""
    return next((name for name, kind in KINDS.items() if isinstance(thing, kind.base)), None)


def is_part(thing: Any) -> bool:
    """Say whether an object is a part."""
    return kind_of(thing) is not None
