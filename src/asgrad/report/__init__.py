"""Tables and figures."""

from asgrad.report.figures import write_figures
from asgrad.report.table import print_comparison, table_text

__all__ = ["print_comparison", "table_text", "write_figures"]
