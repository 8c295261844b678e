"""Colour grading: giving one picture the light of another, by matching each plane's mean and spread."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prefect_kling.simulator.planes import Bytes, Planes
from prefect_kling.simulator.title import bar_height

__all__ = ["Look", "curves", "graded", "look_of"]


@dataclass(frozen=True)
class Look:
    """Mean and spread of Y, U and V between the bars."""

    mean: tuple[float, float, float]
    spread: tuple[float, float, float]


def look_of(planes: Planes) -> Look:
    """Measures a picture."""
    bar = bar_height(planes.size)
    inner = (
        planes.y[bar:-bar:3, ::3],
        planes.u[bar // 2 : -bar // 2 : 2, ::2],
        planes.v[bar // 2 : -bar // 2 : 2, ::2],
    )
    mean, spread = zip(*((float(part.mean()), float(part.std())) for part in inner), strict=True)
    return Look(mean, spread)


def curves(before: Look, after: Look, strength: float) -> tuple[Bytes, Bytes, Bytes]:
    """One table of 256 values for each plane that takes `before` towards `after`."""
    levels = np.arange(256, dtype=np.float32)
    tables = []
    for n in range(3):
        # Stretching a flat plane would only show its noise.
        gain = float(np.clip(after.spread[n] / max(before.spread[n], 2.0), 0.4, 1.8))
        matched = (levels - before.mean[n]) * gain + after.mean[n]
        table = levels + strength * (matched - levels)
        tables.append(np.clip(np.rint(table), 16, 235 if n == 0 else 240).astype(np.uint8))
    y, u, v = tables
    return y, u, v


def graded(planes: Planes, after: Look, strength: float) -> Planes:
    """The picture in another light."""
    result = planes.copy()
    for plane, table in zip((result.y, result.u, result.v), curves(look_of(planes), after, strength), strict=True):
        plane[:] = table[plane]
    return result
