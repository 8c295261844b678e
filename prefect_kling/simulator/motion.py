"""What lives in a scene besides the ball: light on water, a lighthouse's beam, rain, snow. Small patches, drawn anew.

Everything depends on the frame's number alone, so that a clip which continues another takes its motion up as well.
"""

from __future__ import annotations

import math

import numpy as np

from prefect_kling.simulator.palette import palette_of
from prefect_kling.simulator.planes import Bytes, Floats, Planes
from prefect_kling.simulator.scene import Scene, chance_of
from prefect_kling.simulator.scenery import Ground, fractal
from prefect_kling.simulator.title import bar_height

__all__ = ["Life"]

FPS = 24


class Life:
    """The moving parts of one painted scene.

    Args:
        scene: what is to be seen.
        ground: as painted.
        size: width and height in pixels.
        water: where open water is, shape (height, width), 0 or 1, if there is any.
    """

    def __init__(self, scene: Scene, ground: Ground, size: tuple[int, int], water: Floats | None = None) -> None:
        self._size = size
        bar, height = bar_height(size), size[1]
        self._inside = slice(bar, height - bar)
        self._glint = _Glint(scene, ground, size, water) if water is not None else None
        self._beam = _Beam(ground, size) if ground.lamp and scene.light in ("night", "storm", "dusk") else None
        outdoors = scene.place != "interior"
        self._rain = _streaks(scene, size) if outdoors and "rain" in scene.things else None
        self._snow = _Snow(scene, size) if outdoors and "snow" in scene.things else None
        self._flash = scene.light == "storm" and outdoors

    def draw(self, planes: Planes, frame: int) -> None:
        """Draws the moving parts as they are at `frame`, counted from the scene's beginning."""
        if self._glint is not None:
            self._glint.draw(planes, frame)
        if self._beam is not None:
            self._beam.draw(planes, frame)
        if self._flash and frame % 97 in (60, 61, 64):
            sky = planes.y[self._inside]
            sky[:] = np.minimum(sky.astype(np.uint16) * 5 // 4 + 8, 225)
        if self._rain is not None:
            self._fall(planes, frame)
        if self._snow is not None:
            self._snow.draw(planes, frame)

    def _fall(self, planes: Planes, frame: int) -> None:
        rain = self._rain
        if rain is None:
            return
        width, height = self._size
        down = frame * (height // 14) % height
        aside = frame * (height // 70) % width
        tile = np.roll(rain, (down, -aside), axis=(0, 1))[self._inside]
        sky = planes.y[self._inside]
        np.maximum(sky, np.minimum(sky, 190) + tile, out=sky)


def _streaks(scene: Scene, size: tuple[int, int]) -> Bytes:
    width, height = size
    chance = chance_of(scene.seed, "rain")
    rain = np.zeros((height, width), np.uint8)
    for _ in range(150):
        x, y = int(chance.integers(width)), int(chance.integers(height))
        long, level = int(height * chance.uniform(0.03, 0.075)), int(chance.uniform(9, 30))
        for i in range(long):
            rain[(y + i) % height, (x - i // 5) % width] = level
    return rain


class _Glint:
    """The sun's or moon's light on the waves: two fields of noise that turn into each other and back."""

    def __init__(self, scene: Scene, ground: Ground, size: tuple[int, int], water: Floats) -> None:
        width, height = size
        palette = palette_of(scene)
        top = int((ground.horizon + 0.012) * height)
        bottom = height - bar_height(size)
        reach = 0.17 * height
        left = max(int(ground.sun[0] * width - reach), 0)
        right = min(int(ground.sun[0] * width + reach), width)
        self._where = slice(top, bottom), slice(left, right)
        shape = (right - left, bottom - top)
        chance = chance_of(scene.seed, "glint")
        self._fields = [fractal(chance, shape, (5, 30), 2) - 0.5 for _ in range(2)]
        u = (np.arange(left, right, dtype=np.float32)[None, :] / width - ground.sun[0]) * width / height
        t = np.linspace(0, 1, bottom - top, dtype=np.float32)[:, None]
        column = np.exp(-((u / (0.022 + 0.07 * t)) ** 2)) * np.clip(1 - np.abs(u) / 0.165, 0, 1)
        self._light: Floats = column * 330 * palette.glow * np.clip(1.15 - t, 0, 1) * water[self._where]

    def draw(self, planes: Planes, frame: int) -> None:
        turn = frame / FPS * 1.7
        waves = self._fields[0] * math.cos(turn) + self._fields[1] * math.sin(turn)
        patch = planes.y[self._where]
        patch[:] = np.clip(patch + np.clip(waves - 0.08, 0, 1) * self._light, 16, 228)


class _Beam:
    """A lighthouse's beam, which brightens and fades as the lamp turns."""

    def __init__(self, ground: Ground, size: tuple[int, int]) -> None:
        width, height = size
        lamp_u, lamp_v = ground.lamp or (0.5, 0.3)
        top, bottom = bar_height(size), int((lamp_v + 0.16) * height)
        right = int(lamp_u * width) - round(0.016 * height)
        self._where = slice(top, bottom), slice(0, right)
        u = (lamp_u - np.arange(right, dtype=np.float32)[None, :] / width) * width / height
        v = np.arange(top, bottom, dtype=np.float32)[:, None] / height - lamp_v
        spread = np.abs(v - 0.06 * u) / (0.006 + 0.075 * u)
        self._light: Floats = 74 * np.clip(1 - spread, 0, 1) ** 1.3 * np.exp(-u / 0.8)

    def draw(self, planes: Planes, frame: int) -> None:
        strength = 0.3 + 0.7 * max(0.0, math.sin(frame / FPS * 1.25)) ** 2
        patch = planes.y[self._where]
        patch[:] = np.minimum(patch + (strength * self._light).astype(np.uint8), 235)


class _Snow:
    """Flakes that sink and sway."""

    def __init__(self, scene: Scene, size: tuple[int, int]) -> None:
        chance = chance_of(scene.seed, "snow")
        self._size = size
        self._at = chance.random((150, 2))
        self._speed = chance.uniform(0.05, 0.16, 150)
        self._big = chance.uniform(0.0012, 0.0034, 150) * size[1]

    def draw(self, planes: Planes, frame: int) -> None:
        width, height = self._size
        bar = bar_height(self._size)
        seconds = frame / FPS
        for (u, v), speed, big in zip(self._at, self._speed, self._big, strict=True):
            x = int((u + 0.01 * math.sin(seconds + u * 40)) % 1 * width)
            y = bar + int((v + speed * seconds) % 1 * (height - 2 * bar))
            side = max(1, round(big))
            patch = planes.y[y : y + side, x : x + side]
            patch[:] = np.maximum(patch, 205)
