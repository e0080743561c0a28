"""The command line: asgrad compare, train, profile, simulate, replay, show, methods."""

try:
    from asgrad.cli.process import main
except KeyboardInterrupt:  # Ctrl-C while modules are imported
    import sys

    sys.stderr.write("asgrad: interrupted.\n")
    sys.exit(130)

__all__ = ["main"]
