"""The command line: asgrad compare, train, profile, simulate, replay, show, methods."""

from asgrad.cli.app import main

__all__ = ["main"]
