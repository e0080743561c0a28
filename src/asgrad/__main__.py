"""python -m asgrad: the command line."""

from asgrad.cli import main

main()
