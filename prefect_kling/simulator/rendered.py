"""What rendering gives besides the file."""

from __future__ import annotations

from dataclasses import dataclass

from prefect_kling.simulator.planes import Planes
from prefect_kling.simulator.trace import Trace

__all__ = ["Rendered"]


@dataclass(frozen=True)
class Rendered:
    """A clip that was written: its picture's length in seconds, its last frame, and what it hands on."""

    seconds: float
    last: Planes
    trace: Trace
