"""All benchmarks: a line each, and a JSON file. python -m bench [--data W7A] [--only NAME]."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from importlib.util import find_spec
from pathlib import Path

from asgrad.errors import in_one_line
from bench import (
    cluster,
    networks,
    notebook,
    quadratic,
    replays,
    simulation,
    startup,
    threads,
    worker,
)

SUITES = {
    "notebook": notebook,
    "quadratic": quadratic,
    "replays": replays,
    "simulation": simulation,
    "startup": startup,
    "threads": threads,
    "cluster": cluster,
    "networks": networks,
    "worker": worker,
}
NEEDS = {"cluster": "ray", "networks": "torch"}
"""The package without which a suite cannot run; an extra of asgrad has the same name."""


def main() -> int:
    """Run what is asked for; return the exit code."""
    parser = argparse.ArgumentParser(prog="bench")
    parser.add_argument("--data", help="the LIBSVM file w7a; without it random data like it")
    parser.add_argument("--only", choices=SUITES, help="one suite")
    parser.add_argument("--out", help="by default bench/results/bench.json, or NAME.json with NAME")
    said = parser.parse_args()
    out = Path(said.out or f"bench/results/{said.only or 'bench'}.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, object]] = []
    code = 0
    show("job", "asgrad", "plain NumPy/Python", "ratio", "goal")
    try:
        for name in [said.only] if said.only else list(SUITES):
            package = NEEDS.get(name)
            if package and find_spec(package) is None:
                print(f"{name}: skipped, it needs {package}: pip install 'asgrad[{package}]'.")
                continue
            try:
                for row in SUITES[name].run(said.data):
                    rows.append(row)
                    write(out, rows)
                    ratio = "" if row["ratio"] is None else f"{row['ratio']:.1f}×"
                    goal = "" if row["goal"] is None else f"{row['goal']:g}×"
                    show(row["job"], row["asgrad"], row["plain"], ratio, goal)
            except Exception as error:  # the other suites have nothing to do with it
                print(f"{name}: could not be measured: {in_one_line(error)}", flush=True)
                code = 1
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        code = 130
    print(f"JSON: {out}" if rows else "nothing was measured")
    return code


def show(*cells: object) -> None:
    """Print a line at once, in columns."""
    widths = (78, 46, 30, 8, 5)
    line = "".join(f"{cell!s:<{width}}" for cell, width in zip(cells, widths, strict=True))
    print(line.rstrip(), flush=True)


def write(out: Path, rows: list[dict[str, object]]) -> None:
    """Write what has been measured; the file is whole at any moment."""
    machine = platform.processor() or platform.machine()
    temporary = out.with_suffix(".writing")
    temporary.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1), encoding="utf-8")
    os.replace(temporary, out)


if __name__ == "__main__":
    sys.exit(main())
