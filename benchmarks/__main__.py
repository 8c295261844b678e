"""Runs the comparisons that are named, or all of them: `python -m benchmarks [NAME …]`."""

from __future__ import annotations

import importlib
import sys

from rich.console import Console
from rich.table import Table

from benchmarks.row import Row

ALL = (
    *("planning", "importing", "memory", "ledger", "joining", "rendering", "rerunning", "waking"),
    *("workers", "thousand"),
)


def main() -> None:
    """Prints one table, row by row as they are measured."""
    names = sys.argv[1:] or ALL
    unknown = set(names) - set(ALL)
    if unknown:
        raise SystemExit(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(ALL)}")
    rows: list[Row] = []
    for name in names:
        print(f"{name} …", file=sys.stderr, flush=True)
        rows += importlib.import_module(f"benchmarks.{name}").measure()
    table = Table(box=None, pad_edge=False)
    for column in ("what", "ours", "beside", "is", "ours / beside"):
        table.add_column(column, justify="left" if column in ("what", "beside") else "right")
    for row in rows:
        table.add_row(row.what, f"{row.ours:.3g} {row.unit}", row.beside, f"{row.other:.3g} {row.unit}", row.ratio)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
