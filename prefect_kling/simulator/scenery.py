"""Landscapes: sky, clouds, land and water of a scene, painted once for a clip as a still picture.

Coordinates are fractions: `u` across and `v` down, 0 to 1; distances are in picture heights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from prefect_kling.simulator.palette import Palette, palette_of
from prefect_kling.simulator.planes import Floats
from prefect_kling.simulator.props import paint_things
from prefect_kling.simulator.scene import Scene, chance_of

__all__ = ["Ground", "Painting", "fractal", "paint"]


@dataclass(frozen=True)
class Ground:
    """The lie of the land: everything about a scene's geometry that its parts have to agree on.

    Attributes:
        horizon: how far down the far edge of land or water is, 0 to 1.
        sun: where the sun or moon stands, as `u` and `v`.
        water: whether the foreground is water.
        lamp: where a lighthouse's lamp is, if there is one.
    """

    horizon: float
    sun: tuple[float, float]
    water: bool
    lamp: tuple[float, float] | None = None


@dataclass(frozen=True)
class Painting:
    """A painted scene.

    Attributes:
        rgb: shape (height, width, 3), 0 to 1.
        ground: its geometry.
        water: where open water is, shape (height, width), 0 or 1; None where there is none.
    """

    rgb: Floats
    ground: Ground
    water: Floats | None


def paint(scene: Scene, size: tuple[int, int], *, plate: Floats | None = None) -> Painting:
    """Paints a scene.

    Args:
        scene: what is to be seen.
        size: width and height in pixels.
        plate: a picture of that size to stand in the place of sky and distance (a reference image).
    """
    canvas = _Canvas(scene, size)
    canvas.sky()
    if plate is not None:
        canvas.plate(plate)
    if scene.place == "interior":
        canvas.room()
    else:
        canvas.land(near_only=plate is not None)
    ground = canvas.ground
    before = canvas.rgb.copy() if ground.water else None
    lamp = paint_things(canvas.rgb, scene, canvas.palette, horizon=ground.horizon, chance=canvas.chance)
    water = None
    if before is not None:
        covered = np.abs(canvas.rgb - before).max(axis=2) > 0.004
        water = (~covered & (canvas.v > ground.horizon)).astype(np.float32)
    canvas.finish()
    return Painting(canvas.rgb, Ground(ground.horizon, ground.sun, ground.water, lamp), water)


def fractal(chance: np.random.Generator, size: tuple[int, int], cells: tuple[int, int], octaves: int = 4) -> Floats:
    """Smooth noise of shape (height, width), 0 to 1: `cells` across and down, each octave twice as fine."""
    width, height = size
    total = np.zeros((height, width), np.float32)
    weight, full = 1.0, 0.0
    across, down = cells
    for _ in range(octaves):
        grid = chance.random((down + 1, across + 1), np.float32)
        layer = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
        total += weight * np.asarray(layer, np.float32)
        full += weight
        weight *= 0.5
        across, down = min(across * 2, width), min(down * 2, height)
    return np.asarray(np.clip(total / full, 0, 1))


def _smooth(edge0: float, edge1: float, value: Floats) -> Floats:
    t = np.clip((value - edge0) / (edge1 - edge0), 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


class _Canvas:
    def __init__(self, scene: Scene, size: tuple[int, int]) -> None:
        self.scene, self.size = scene, size
        width, height = size
        self.aspect = width / height
        self.palette: Palette = palette_of(scene)
        self.chance = chance_of(scene.seed, "ground", scene.place)
        self.u = ((np.arange(width, dtype=np.float32) + 0.5) / width)[None, :]
        self.v = ((np.arange(height, dtype=np.float32) + 0.5) / height)[:, None]
        self.rgb: Floats = np.empty((height, width, 3), np.float32)
        horizon = float(self.chance.uniform(0.6, 0.66))
        sun_u = float(self.chance.uniform(0.24, 0.42))
        sun_v = {"dawn": horizon - 0.1, "dusk": horizon - 0.07, "night": 0.27, "day": 0.24}.get(scene.light, 0.32)
        self.ground = Ground(horizon, (sun_u, sun_v), scene.place == "sea")

    def _blend(self, colour: Floats, alpha: Floats, rows: slice = slice(None)) -> None:
        part = self.rgb[rows]
        part += alpha[..., None] * (colour - part)

    def sky(self) -> None:
        palette, horizon = self.palette, self.ground.horizon
        t = np.clip(self.v / horizon, 0, 1)
        upper, lower = _smooth(0.0, 0.62, t), _smooth(0.5, 1.0, t)
        column = palette.colour("top") + upper[..., None] * (palette.colour("middle") - palette.colour("top"))
        column += lower[..., None] * (palette.colour("low") - column)
        self.rgb[:] = column
        sun_u, sun_v = self.ground.sun
        away = np.hypot((self.u - sun_u) * self.aspect, (self.v - sun_v) * 1.15)
        sun = palette.colour("sun")
        self._blend(palette.colour("low") * 0.4 + sun * 0.6, palette.glow * 0.75 * np.exp(-away / 0.26))
        shown = self.scene.light in ("dawn", "dusk", "night", "day")
        if shown:
            self._blend(sun, palette.glow * np.exp(-away / 0.07))
            size = 0.036 if self.scene.light != "day" else 0.028
            self._blend(sun, _smooth(size, size - 0.004, np.hypot((self.u - sun_u) * self.aspect, self.v - sun_v)))
        if "stars" in self.scene.things:
            self._stars()
        self._clouds(away)

    def _stars(self) -> None:
        width, height = self.size
        chance = chance_of(self.scene.seed, "stars")
        count = 260
        u, v = chance.random(count), chance.random(count) ** 1.4 * self.ground.horizon * 0.92
        level = chance.random(count) ** 2.2 * 0.9 + 0.1
        x, y = (u * (width - 2)).astype(int), (v * (height - 2)).astype(int)
        dots = max(1, round(height / 560))
        for i in range(count):
            patch = self.rgb[y[i] : y[i] + dots, x[i] : x[i] + dots]
            patch += (np.array([0.92, 0.95, 1.0], np.float32) - patch) * level[i]

    def _clouds(self, away: Floats) -> None:
        palette = self.palette
        width, height = self.size
        rows = slice(0, int(self.ground.horizon * height))
        high = rows.stop
        noise = fractal(chance_of(self.scene.seed, "clouds"), (width, high), (3, 5), 5)
        cover = palette.clouds
        thick = _smooth(0.62 - 0.2 * cover, 0.86 - 0.24 * cover, noise)
        # Clouds lie flatter and thinner towards the horizon.
        thick = thick * _smooth(1.02, 0.7, np.broadcast_to(self.v[rows] / self.ground.horizon, thick.shape))
        lit = np.exp(-away[rows] / 0.42)[..., None] * palette.glow * 1.1
        shade = palette.colour("middle") * 0.72 + palette.colour("low") * 0.12
        if self.scene.light == "storm":
            shade = palette.colour("top") * 1.05
        colour = shade + np.clip(lit, 0, 1) * (palette.colour("sun") * 0.55 + palette.colour("low") * 0.45 - shade)
        # A brighter upper edge gives them body.
        edge = np.clip(np.roll(noise, height // 60, axis=0) - noise, -0.05, 0.05)[..., None] * -1.6
        self._blend(np.clip(colour + edge, 0, 1), thick * (0.55 + 0.4 * cover), rows)

    def plate(self, picture: Floats) -> None:
        """A reference image in the place of the distance, in this scene's light."""
        graded = 0.74 * picture + 0.26 * (picture.mean(axis=2, keepdims=True) * self.rgb * 1.6)
        self._blend(graded, np.broadcast_to(np.float32(0.92), self.rgb.shape[:2]))

    def land(self, *, near_only: bool) -> None:
        layers = {"sea": 1, "mountains": 4, "forest": 4, "desert": 3, "city": 3}[self.scene.place]
        if self.scene.place == "sea" and not near_only:
            self._water()
        for n in range(layers):
            depth = n / max(layers - 1, 1)
            if near_only and depth < 0.5 and layers > 1:
                continue
            self._ridge(n, depth)

    def _ridge(self, n: int, depth: float) -> None:
        palette, horizon = self.palette, self.ground.horizon
        place = self.scene.place
        profile = self._profile(n)
        if place == "sea":
            # One far headland; the foreground is the sea's.
            line = horizon - 0.012 - 0.09 * np.clip(profile - 0.35, 0, 1) * _smooth(0.25, 0.75, self.u[0])
            self._fill(line, np.float32(horizon), palette.colour("far") * 0.8 + palette.colour("low") * 0.2)
            return
        base = horizon - 0.05 + depth * (0.34 if place != "city" else 0.24)
        tall = {"mountains": 0.3, "forest": 0.1, "desert": 0.13, "city": 0.05}[place] * (1 - 0.55 * depth)
        line = base - tall * profile
        colour = palette.colour("far") + depth * (palette.colour("near") - palette.colour("far"))
        if place == "desert":
            # Sand, as bright as this light would have any land.
            colour = 0.4 * colour + 0.6 * float(colour.mean()) * np.array([1.42, 1.02, 0.64], np.float32)
            colour = np.clip(colour * 1.25, 0, 1)
        if place == "forest":
            line = line - self._trees(n, depth)
        elif place == "city":
            line = line - self._houses(n, depth)
        self._fill(line.astype(np.float32), None, colour, haze=0.55 * (1 - depth) + 0.12)
        if place == "city" and depth > 0:
            self._windows(line, n)

    def _profile(self, n: int) -> Floats:
        """A ridge's height along the picture, 0 to 1."""
        width, _ = self.size
        chance = chance_of(self.scene.seed, "ridge", n)
        if self.scene.place == "mountains":
            noise = fractal(chance, (width, 1), (4 + 2 * n, 1), 6)[0]
            return np.asarray(1 - np.abs(noise * 2 - 1) * 1.5)
        if self.scene.place == "desert":
            waves = fractal(chance, (width, 1), (3 + n, 1), 1)[0]
            return np.asarray(np.clip(waves, 0, 1))
        return np.asarray(fractal(chance, (width, 1), (4 + n, 1), 4)[0])

    def _trees(self, n: int, depth: float) -> Floats:
        width, _ = self.size
        chance = chance_of(self.scene.seed, "trees", n)
        spacing = 0.012 + 0.03 * depth
        tops = np.zeros(width, np.float32)
        for centre in np.arange(0, 1, spacing / 1.6) + chance.uniform(
            -spacing, spacing, len(np.arange(0, 1, spacing / 1.6))
        ):
            tall = (0.05 + 0.17 * depth) * chance.uniform(0.55, 1.15)
            away = np.abs(self.u[0] - centre) * self.aspect
            # Branches in steps, as firs have them.
            cone = 1 - away / (0.3 * tall)
            cone = cone + 0.07 * np.sin(cone * 34) * (cone > 0)
            tops = np.maximum(tops, tall * np.clip(cone, 0, 1))
        return tops

    def _houses(self, n: int, depth: float) -> Floats:
        width, _ = self.size
        chance = chance_of(self.scene.seed, "houses", n)
        tops = np.zeros(width, np.float32)
        x = -0.02
        while x < 1:
            wide = chance.uniform(0.022, 0.06) * (0.8 + 0.7 * depth)
            tall = chance.uniform(0.05, 0.34) ** 1.15 * (1.0 - 0.25 * depth)
            tops[(self.u[0] >= x) & (self.u[0] < x + wide)] = tall
            x += wide * chance.uniform(0.9, 1.15)
        return tops

    def _windows(self, line: Floats, n: int) -> None:
        width, height = self.size
        chance = chance_of(self.scene.seed, "windows", n)
        lit = self.scene.light in ("night", "dusk", "storm", "dawn")
        if not lit:
            return
        pitch_x, pitch_y = max(width // 150, 3), max(height // 60, 4)
        warm = np.array([1.0, 0.84, 0.58], np.float32)
        for row in range(int(0.2 * height), int(0.95 * height), pitch_y):
            for column in range(0, width - pitch_x, pitch_x):
                if row / height > line[column] + 0.015 and chance.random() < 0.16:
                    patch = self.rgb[row : row + pitch_y // 2, column : column + pitch_x // 2]
                    patch += (warm - patch) * chance.uniform(0.25, 0.75)

    def _fill(self, line: Floats, bottom: np.float32 | None, colour: Floats, haze: float = 0.0) -> None:
        _, height = self.size
        below = np.clip((self.v - line[None, :]) * height, 0, 1)
        if bottom is not None:
            below = below * np.clip((bottom - self.v) * height, 0, 1)
        if haze:
            # The foot of a ridge lies in haze, the next ridge stands before it.
            foot = _smooth(0.06, 0.3, np.broadcast_to(self.v - line.min(), below.shape))[..., None] * haze
            colour = colour + foot * (self.palette.colour("low") * 0.65 + self.palette.colour("far") * 0.35 - colour)
        self._blend(colour, below)

    def _water(self) -> None:
        palette, horizon = self.palette, self.ground.horizon
        width, height = self.size
        top = int(horizon * height)
        rows = slice(top, height)
        t = (self.v[rows] - horizon) / (1 - horizon)
        sea = palette.colour("low") * 0.62 + palette.colour("water") * 0.38
        colour = sea + _smooth(0.0, 0.75, t)[..., None] * (palette.colour("water") - sea)
        self.rgb[rows] = colour
        # Waves: long and fine at the horizon, broad and coarse at the camera.
        noise = fractal(chance_of(self.scene.seed, "waves"), (width, height - top), (7, 34), 4)
        far = fractal(chance_of(self.scene.seed, "waves far"), (width, height - top), (16, 120), 2)
        waves = (noise * t + far * (1 - t) - 0.5) * (0.16 + 0.2 * t)
        self.rgb[rows] += waves[..., None] * (palette.colour("low") * 0.5 + palette.colour("middle") * 0.5)
        sun_u, _ = self.ground.sun
        column = np.exp(-(((self.u - sun_u) * self.aspect / (0.03 + 0.2 * t)) ** 2))
        glint = column * _smooth(0.5, 0.68, noise * 0.55 + far * 0.45) * palette.glow * (1.1 - 0.5 * t)
        self._blend(palette.colour("sun"), np.clip(glint, 0, 0.92), rows)
        np.clip(self.rgb, 0, 1, out=self.rgb)

    def room(self) -> None:
        """A dark room with a tall window: the light outside is the scene's."""
        palette = self.palette
        outside = self.rgb.copy()
        wall = palette.colour("near") * 0.75 + np.array([0.055, 0.04, 0.03], np.float32)
        plaster = fractal(self.chance, self.size, (6, 5), 5)[..., None]
        self.rgb[:] = wall * (0.72 + 0.5 * plaster)
        at, wide, top, bottom = 0.3, 0.085, 0.2, 0.58
        across = np.abs(self.u - at) * self.aspect
        arch = np.hypot(across, np.clip(top + wide - self.v, 0, 1)) < wide
        inside = arch & (self.v < bottom) & (self.v > top)
        bars = (np.abs(across) < 0.004) | (np.abs((self.v - top) % 0.125 - 0.06) < 0.003)
        pane = (inside & ~bars).astype(np.float32)
        # Light falls through the window to the right and down.
        beam_v = self.v - bottom + (bottom - top) * 0.5
        slanted = np.abs((self.u - at) * self.aspect - np.clip(beam_v, 0, 1) * 1.5)
        spread = wide * (1 + 1.4 * np.clip(beam_v, 0, 1))
        shaft = _smooth(1.0, 0.55, slanted / spread) * _smooth(0.0, 0.1, beam_v) * np.exp(-np.clip(beam_v, 0, 1) / 0.5)
        shaft = shaft * (self.u * self.aspect > at * self.aspect - wide)
        self.rgb += (0.36 * shaft)[..., None] * (palette.colour("low") * 0.6 + palette.colour("sun") * 0.4)
        near = np.exp(-np.hypot(across, self.v - (top + bottom) / 2) / 0.22)
        self.rgb += (0.3 * near)[..., None] * palette.colour("low")
        self._blend(np.clip(outside * 1.1 + palette.colour("low") * 0.15, 0, 1), pane)
        floor = _smooth(0.0, 0.004, self.v - 0.8)
        self._blend(self.rgb * 0.5, np.broadcast_to(floor * 0.8, self.rgb.shape[:2]))
        self._stairs(wall)
        np.clip(self.rgb, 0, 1, out=self.rgb)

    def _stairs(self, wall: Floats) -> None:
        steps, left, low, tall = 9, 0.46, 0.86, 0.052
        wide = (1.02 - left) / steps
        for n in range(steps):
            u0, v0 = left + n * wide, low - (n + 1) * tall
            column = ((self.u >= u0) & (self.u < u0 + wide + 0.004)).astype(np.float32)
            self._blend(wall * (0.34 - 0.02 * n), column * np.clip((self.v - v0) * self.size[1], 0, 1))
            edge = np.clip(1 - np.abs(self.v - v0 - 0.003) / 0.003, 0, 1)
            self._blend(wall + self.palette.colour("low") * 0.34 * (1 - 0.07 * n), column * edge)

    def finish(self) -> None:
        """Falling off towards the corners, and a fixed grain that keeps gradients from banding."""
        width, height = self.size
        from_middle = np.hypot((self.u - 0.5) * 1.05, (self.v - 0.48) * 1.0)
        self.rgb *= (1 - 0.5 * _smooth(0.34, 0.86, from_middle))[..., None]
        grain = chance_of(self.scene.seed, "grain").standard_normal((height, width), np.float32)
        self.rgb += (0.009 * grain)[..., None]
        np.clip(self.rgb, 0, 1, out=self.rgb)
