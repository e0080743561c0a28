"""All benchmarks: a table and a JSON file. python -m bench [--data W7A] [--only NAME]."""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import cluster, networks, notebook, quadratic, simulation, startup, threads

SUITES = {
    "notebook": notebook,
    "quadratic": quadratic,
    "simulation": simulation,
    "startup": startup,
    "threads": threads,
    "cluster": cluster,
    "networks": networks,
}


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(prog="bench")
    parser.add_argument("--data", help="the LIBSVM file w7a; without it random data like it")
    parser.add_argument("--only", choices=SUITES, help="one suite")
    parser.add_argument("--out", default="bench/results/bench.json")
    said = parser.parse_args()
    chosen = [said.only] if said.only else list(SUITES)
    rows = [row for name in chosen for row in SUITES[name].run(said.data)]
    table = Table(box=None, pad_edge=False)
    for title in ("job", "asgrad", "plain NumPy/Python", "ratio", "goal"):
        table.add_column(title)
    for row in rows:
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.1f}×"
        goal = "" if row["goal"] is None else f"{row['goal']:g}×"
        table.add_row(str(row["job"]), str(row["asgrad"]), str(row["plain"]), ratio, goal)
    Console(width=150).print(table)
    out = Path(said.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(
        json.dumps({"machine": platform.processor() or platform.machine(), "rows": rows}, indent=1)
    )
    print(f"JSON: {out}")


if __name__ == "__main__":
    main()
