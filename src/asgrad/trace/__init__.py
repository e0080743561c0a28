"""The trace of a run: its tables, Parquet in and out, and what can be read off it."""

from asgrad.trace.header import Header
from asgrad.trace.summary import Summary
from asgrad.trace.tables import Contributions, Fate, Jobs, Tables
from asgrad.trace.trace import Trace

__all__ = ["Contributions", "Fate", "Header", "Jobs", "Summary", "Tables", "Trace"]
