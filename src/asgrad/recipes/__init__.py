"""A paper's algorithm as one thing: a method, a stepsize rule, and what happens to gradients."""

from asgrad.recipes.base import Named, Part, Parts, Recipe, is_part
from asgrad.recipes.bound import Bound
from asgrad.recipes.compensated import DCASGD
from asgrad.recipes.federated import FADAS, FedAsync, FedBuff
from asgrad.recipes.grammar import parts_of, recipe_of, recipes_of

__all__ = [
    "Bound",
    "DCASGD",
    "FADAS",
    "FedAsync",
    "FedBuff",
    "Named",
    "Part",
    "Parts",
    "Recipe",
    "is_part",
    "parts_of",
    "recipe_of",
    "recipes_of",
]
