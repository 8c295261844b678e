"""What importing the package adds to importing Prefect."""

from __future__ import annotations

import statistics
import subprocess
import sys

from benchmarks.row import Row

__all__ = ["measure"]

PREFECT = "import prefect; from prefect import flow, task; from prefect.blocks.core import Block"
OURS = f"{PREFECT}; import prefect_kling; [getattr(prefect_kling, name) for name in prefect_kling.__all__]"
PAIRS = 7


def measure() -> list[Row]:
    """Whole processes in pairs, so that the machine's moods meet both; ours with every public name loaded."""
    pairs = [(_seconds(OURS), _seconds(PREFECT)) for _ in range(PAIRS + 1)][1:]
    ours, prefect = (statistics.median(times) for times in zip(*pairs, strict=True))
    return [Row("import prefect and prefect_kling, every name", ours, "s", "import prefect (bound 1.15)", prefect)]


def _seconds(program: str) -> float:
    timed = f"import time; t = time.perf_counter(); exec({program!r}); print(time.perf_counter() - t)"
    return float(subprocess.run([sys.executable, "-c", timed], capture_output=True, text=True, check=True).stdout)
