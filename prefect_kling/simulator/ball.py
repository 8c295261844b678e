"""The ball: the one thing that moves on from clip to clip, so that eyes and tests can see that a clip continues another.

It swings as two springs, one across and one up and down: the path is smooth, never leaves the picture, and can be taken
up again from any place and speed. Positions are fractions of the picture's width and height.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from prefect_kling.simulator.planes import Bytes, Floats, Planes, ycc

__all__ = ["BALL_RGB", "Ball", "ball_at", "draw_ball", "find_ball", "radius", "start_ball", "step"]

BALL_RGB = (255.0, 186.0, 62.0)
HALO_REACH = 4.0
CENTRE = (0.5, 0.43)
# Radians a second; their ratio is no fraction of small numbers, so that the path does not soon repeat.
SWING = (0.83, 1.31)
REACH = (0.36, 0.16)
_Y, _U, _V = ycc(*BALL_RGB)


@dataclass(frozen=True)
class Ball:
    """Place and speed: fractions of the picture's width and height, and those per second."""

    x: float
    y: float
    vx: float
    vy: float


def start_ball(chance: np.random.Generator) -> Ball:
    """A ball somewhere on its way."""
    phases = chance.uniform(0, 2 * math.pi, 2)
    reach = [full * chance.uniform(0.75, 1) for full in REACH]
    place = [CENTRE[i] + reach[i] * math.cos(phases[i]) for i in range(2)]
    speed = [-reach[i] * SWING[i] * math.sin(phases[i]) for i in range(2)]
    return Ball(*place, *speed)


def ball_at(x: float, y: float) -> Ball:
    """A ball at a place whose speed nobody knows: it swings through it within the usual reach, to the right."""
    speed = []
    for place, centre, swing, reach in zip((x, y), CENTRE, SWING, REACH, strict=True):
        speed.append(swing * math.sqrt(max(reach**2 - (place - centre) ** 2, 0.0)))
    return Ball(x, y, *speed)


def step(ball: Ball, seconds: float) -> Ball:
    """Where the ball is `seconds` later: both springs, exactly."""
    moved = []
    for place, speed, centre, swing in zip((ball.x, ball.y), (ball.vx, ball.vy), CENTRE, SWING, strict=True):
        cos, sin = math.cos(swing * seconds), math.sin(swing * seconds)
        away = place - centre
        moved.append((centre + away * cos + speed / swing * sin, speed * cos - away * swing * sin))
    (x, vx), (y, vy) = moved
    return Ball(x, y, vx, vy)


def radius(size: tuple[int, int]) -> float:
    """The ball's radius in pixels, in a picture of this width and height."""
    return 0.042 * min(size)


def draw_ball(planes: Planes, ball: Ball, *, horizon: float | None = None) -> None:
    """Draws the ball and its glow; over water, whose far edge is at `horizon` (0 to 1), also its reflection."""
    width, height = planes.size
    r = radius(planes.size)
    if horizon is not None and ball.y < horizon:
        depth = horizon - ball.y
        _glow(planes, ball.x * width, (horizon + depth * 0.8) * height, r, stretch=3.2, strength=0.42, core=False)
    _glow(planes, ball.x * width, ball.y * height, r, stretch=1.0, strength=0.75, core=True)


def _glow(planes: Planes, cx: float, cy: float, r: float, *, stretch: float, strength: float, core: bool) -> None:
    for plane, scale, value in ((planes.y, 1, _Y), (planes.u, 2, _U), (planes.v, 2, _V)):
        rows, columns, patch = _patch(plane, cx / scale, cy / scale, HALO_REACH * r / scale, stretch)
        if patch.size == 0:
            continue
        distance = np.hypot((columns - cx / scale) / r * scale, (rows - cy / scale) / r * scale / stretch)
        reach = np.clip(1 - distance / HALO_REACH, 0, 1)
        alpha = strength * reach**3
        light = _Y * (0.8 if scale == 1 else 0) + (value if scale == 2 else 0)
        # Glow lightens, it never darkens what is behind it.
        target = np.maximum(patch, light) if scale == 1 else value
        mixed = patch + alpha * (target - patch)
        if core:
            # The rim is one pixel soft; the disc itself is flat, so that it can be found again.
            disc = np.clip((1 - distance) * r / scale + 0.5, 0, 1)
            mixed = mixed + disc * (value - mixed)
        patch[:] = np.clip(np.rint(mixed), 0, 255)


def _patch(plane: Bytes, cx: float, cy: float, reach: float, stretch: float) -> tuple[Floats, Floats, Bytes]:
    height, width = plane.shape
    left, right = max(int(cx - reach), 0), min(int(cx + reach) + 2, width)
    top, bottom = max(int(cy - reach * stretch), 0), min(int(cy + reach * stretch) + 2, height)
    rows = np.arange(top, bottom, dtype=np.float32)[:, None]
    columns = np.arange(left, right, dtype=np.float32)[None, :]
    return rows, columns, plane[top:bottom, left:right]


def find_ball(planes: Planes) -> tuple[float, float] | None:
    """Where the ball is, as fractions of width and height; None where there is none.

    It is looked for by its colour, which nothing else in a simulated clip has, and by its size.
    """
    like = (
        (np.abs(planes.u.astype(np.int16) - round(_U)) < 12)
        & (np.abs(planes.v.astype(np.int16) - round(_V)) < 12)
        & (np.abs(planes.y[::2, ::2].astype(np.int16) - round(_Y)) < 28)
    )
    rows, columns = np.nonzero(like)
    expected = math.pi * (radius(planes.size) / 2) ** 2
    if not 0.4 * expected <= rows.size <= 2.5 * expected:
        return None
    x, y = float(np.median(columns)), float(np.median(rows))
    near = np.hypot(columns - x, rows - y) < radius(planes.size) / 2 * 1.2
    if near.sum() < 0.6 * expected:
        return None
    width, height = planes.size
    return (float(columns[near].mean()) * 2 + 0.5) / width, (float(rows[near].mean()) * 2 + 0.5) / height
