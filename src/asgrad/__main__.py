"""python -m asgrad: the command line, as the script `asgrad` starts it."""

import os
import sys

# Python puts the current folder first; its files are no modules of ours, whatever their names.
if not sys.flags.safe_path and os.path.isdir(sys.path[0]) and os.path.samefile(sys.path[0], "."):
    del sys.path[0]

from asgrad.cli import main

main()
