"""The ball: what moves on from clip to clip, so that eyes and tests can see that a clip continues another.

It swings as two springs, one across and one up and down: the path is smooth, never leaves the picture, and can be taken
up again from any place and speed. Positions are fractions of the picture's width and height.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from prefect_kling.simulator.planes import Bytes, Floats, Planes, ycc

__all__ = ["BALL_RGB", "CENTRE", "Ball", "Mirror", "ball_at", "draw_ball", "find_ball", "radius", "start_ball", "step"]

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


@dataclass(frozen=True)
class Mirror:
    """Water that reflects: its far edge as a fraction of the height, and where it is open, in pixels, 0 or 1."""

    horizon: float
    water: Floats


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


def draw_ball(planes: Planes, ball: Ball, *, mirror: Mirror | None = None) -> None:
    """Draws the ball and its glow, and its reflection in open water."""
    width, height = planes.size
    x, y, r = ball.x * width, ball.y * height, radius(planes.size)
    if mirror is not None and ball.y < mirror.horizon:
        below = (mirror.horizon + (mirror.horizon - ball.y) * 0.8) * height
        for plane, scale, value in _colours(planes):
            rows, columns, where = _patch(plane, x / scale, below / scale, 1.9 * r / scale, 4.2)
            across, along = (columns - x / scale) * scale / r, (rows - below / scale) * scale / r
            shape = np.clip(1 - np.abs(across) / 1.9, 0, 1) ** 2 * np.clip(1 - np.abs(along) / 7.9, 0, 1)
            light = 0.5 * shape * mirror.water[::scale, ::scale][where]
            patch = plane[where]
            patch[:] = np.rint(patch + light * (value - patch))
    for plane, scale, value in _colours(planes):
        rows, columns, where = _patch(plane, x / scale, y / scale, HALO_REACH * r / scale, 1.0)
        patch = plane[where]
        distance = np.sqrt((columns - x / scale) ** 2 + (rows - y / scale) ** 2) * np.float32(scale / r)
        alpha = 0.75 * np.clip(1 - distance / HALO_REACH, 0, 1) ** 3
        # Glow lightens, it never darkens what is behind it.
        target = np.maximum(patch, np.float32(0.8 * value)) if scale == 1 else np.float32(value)
        mixed = patch + alpha * (target - patch)
        # The rim is one pixel soft; the disc itself is flat, so that it can be found again.
        disc = np.clip((1 - distance) * (r / scale) + 0.5, 0, 1)
        patch[:] = np.clip(np.rint(mixed + disc * (np.float32(value) - mixed)), 0, 255)


def _colours(planes: Planes) -> tuple[tuple[Bytes, int, float], ...]:
    return (planes.y, 1, _Y), (planes.u, 2, _U), (planes.v, 2, _V)


def _patch(
    plane: Bytes, cx: float, cy: float, reach: float, stretch: float
) -> tuple[Floats, Floats, tuple[slice, slice]]:
    height, width = plane.shape
    left, right = (min(max(int(edge), 0), width) for edge in (cx - reach, cx + reach + 2))
    top, bottom = (min(max(int(edge), 0), height) for edge in (cy - reach * stretch, cy + reach * stretch + 2))
    rows = np.arange(top, bottom, dtype=np.float32)[:, None]
    columns = np.arange(left, right, dtype=np.float32)[None, :]
    return rows, columns, (slice(top, bottom), slice(left, right))


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
