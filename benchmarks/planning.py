"""How long a storyboard of 1,000 shots takes from its text to its plan."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import yaml

from benchmarks.row import Row
from prefect_kling.storyboard.plan import plan
from prefect_kling.storyboard.reader import read_storyboard

__all__ = ["measure"]

SHOTS = 1000
HEAD = "title: Long\nlook: grain\ndefaults:\n  aspect_ratio: 16:9\n  duration: 5\nshots:\n"


def measure() -> list[Row]:
    """Reading and planning chains of four, the best of five; beside it PyYAML's pure loader, which only parses."""
    text = HEAD + "".join(
        f"  - id: s{n}\n    prompt: Scene number {n}\n" + (f"    base: s{n - 1}\n" if n % 4 else "")
        for n in range(SHOTS)
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.yaml"
        path.write_text(text)
        ours = min(_timed(lambda: plan(read_storyboard(path))) for _ in range(5))
    other = _timed(lambda: yaml.load(text, yaml.SafeLoader))
    return [
        Row("plan of 1,000 shots", ours, "s", "bound", 0.5),
        Row("plan of 1,000 shots", ours, "s", "yaml.safe_load alone", other),
    ]


def _timed(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun
