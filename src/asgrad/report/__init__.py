"""Tables and figures; what follows a live run."""

from asgrad.report.figures import convergence, write_figures
from asgrad.report.live import live_line
from asgrad.report.table import print_comparison, table_html, table_text
from asgrad.training.tensorboard import logged

__all__ = [
    "convergence",
    "live_line",
    "logged",
    "print_comparison",
    "table_html",
    "table_text",
    "write_figures",
]
