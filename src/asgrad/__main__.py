"""python -m asgrad: the command line, as the script `asgrad` starts it."""

import os
import sys

if sys.path[:1] == [os.getcwd()] and not sys.flags.safe_path:
    del sys.path[0]  # files of the current folder are no modules of ours, whatever their names

from asgrad.cli import main

main()
