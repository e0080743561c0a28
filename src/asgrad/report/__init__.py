"""Tables and figures; what follows a live run."""

from asgrad.report.figures import write_figures
from asgrad.report.live import live_line
from asgrad.report.table import print_comparison, table_text
from asgrad.report.tensorboard import logged

__all__ = ["live_line", "logged", "print_comparison", "table_text", "write_figures"]
