"""Tables and figures."""

from asgrad.report.figures import write_figures
from asgrad.report.table import comparison_table, table_text

__all__ = ["comparison_table", "table_text", "write_figures"]
