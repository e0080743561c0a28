"""asgrad methods."""

from __future__ import annotations

import sys

__all__ = ["methods"]


def methods() -> None:
    """List methods, the parts of a recipe and worker times, with parameters and references."""
    from rich.console import Console
    from rich.table import Table

    from asgrad import times
    from asgrad.recipes.grammar import GRAMMAR, rooms
    from asgrad.registry import references

    console = Console() if sys.stdout.isatty() else Console(width=200)
    for title, room in {**rooms(), "--times": times}.items():
        rows = list(references(room))
        if not rows:
            continue
        table = Table(box=None, header_style="bold", pad_edge=False)
        for column in (title, "parameters", "what it does", "reference"):
            table.add_column(column)
        for row in rows:
            table.add_row(*row)
        console.print(table)
        print()
    print(f"A recipe is {GRAMMAR}. Of worker times: one number for each worker as 1/2/5.")
