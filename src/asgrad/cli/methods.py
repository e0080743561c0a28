"""asgrad methods."""

from __future__ import annotations

import sys

__all__ = ["methods"]


def methods() -> None:
    """List methods, stepsize rules and worker times, with their parameters and references."""
    from rich.console import Console
    from rich.table import Table

    from asgrad import methods as method_room
    from asgrad import stepsizes as stepsize_room
    from asgrad import times as times_room
    from asgrad.registry import references

    console = Console() if sys.stdout.isatty() else Console(width=200)
    rooms = (("method", method_room), ("+stepsize", stepsize_room), ("--times", times_room))
    for title, room in rooms:
        table = Table(box=None, header_style="bold", pad_edge=False)
        for column in (title, "parameters", "what it does", "reference"):
            table.add_column(column)
        for row in references(room):
            table.add_row(*row)
        console.print(table)
        print()
    print("Write name:parameter=value,parameter=value; one number for each worker as 1/2/5.")
