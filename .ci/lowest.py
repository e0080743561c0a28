"""Print the lowest version of each dependency that pyproject.toml allows, as pip reads them."""

import re
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]
extras = project["optional-dependencies"]
for line in [*project["dependencies"], *(line for extra in extras.values() for line in extra)]:
    if found := re.fullmatch(r"([\w-]+)>=([\w.]+)", line):
        print("==".join(found.groups()))
    elif not re.match(r"asgrad\[|[\w-]+==", line):  # pins are of the tools and the newest versions
        raise SystemExit(f"pyproject.toml: {line!r} names no lowest version.")
