"""asgrad methods."""

from __future__ import annotations

import sys

__all__ = ["methods"]


def methods() -> None:
    """List methods, what goes with them, and worker times, with parameters and references."""
    from rich.console import Console
    from rich.table import Table

    from asgrad import corrections, encoders, optimizers, stepsizes, times
    from asgrad import methods as method_room
    from asgrad.registry import references

    console = Console() if sys.stdout.isatty() else Console(width=200)
    rooms = (
        ("method", method_room),
        ("+stepsize", stepsizes),
        ("encoder", encoders),
        ("correction", corrections),
        ("optimizer", optimizers),
        ("--times", times),
    )
    for title, room in rooms:
        table = Table(box=None, header_style="bold", pad_edge=False)
        for column in (title, "parameters", "what it does", "reference"):
            table.add_column(column)
        for row in references(room):
            table.add_row(*row)
        console.print(table)
        print()
    print("Write name:parameter=value,parameter=value; one number for each worker as 1/2/5.")
