"""What people look at: tables, figures, the line that follows a live run; nothing is run here."""

from asgrad.report.figures import convergence, write_figures
from asgrad.report.live import live_line
from asgrad.report.table import print_comparison, table_html, table_text

__all__ = [
    "convergence",
    "live_line",
    "print_comparison",
    "table_html",
    "table_text",
    "write_figures",
]
