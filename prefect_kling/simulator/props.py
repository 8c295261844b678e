"""What stands in a landscape: a lighthouse, a boat, somebody, a lamp, birds. Drawn as soft-edged silhouettes."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from prefect_kling.simulator.palette import Palette
from prefect_kling.simulator.planes import Floats
from prefect_kling.simulator.scene import Scene

__all__ = ["paint_element", "paint_figure", "paint_prints", "paint_things"]

Point = tuple[float, float]
OVERSAMPLED = 3
LAMPLIGHT = np.array([1.0, 0.95, 0.8], np.float32)


class _Pen:
    """Draws polygons in picture heights from a point of the picture, smooth at the edges."""

    def __init__(self, rgb: Floats, at: Point) -> None:
        self._rgb = rgb
        self._height, self._width, _ = rgb.shape
        self._at = at[0] * self._width, at[1] * self._height

    def fill(self, points: list[Point], colour: Floats, alpha: float = 1.0) -> None:
        """Fills a polygon; points are (right, down) from the pen's place, in picture heights."""
        xs = [self._at[0] + x * self._height for x, _ in points]
        ys = [self._at[1] + y * self._height for _, y in points]
        left, top = max(math.floor(min(xs)) - 1, 0), max(math.floor(min(ys)) - 1, 0)
        right, bottom = min(math.ceil(max(xs)) + 1, self._width), min(math.ceil(max(ys)) + 1, self._height)
        if right <= left or bottom <= top:
            return
        mask = Image.new("L", ((right - left) * OVERSAMPLED, (bottom - top) * OVERSAMPLED))
        flat = [((x - left) * OVERSAMPLED, (y - top) * OVERSAMPLED) for x, y in zip(xs, ys, strict=True)]
        ImageDraw.Draw(mask).polygon(flat, fill=255)
        soft = np.asarray(mask.resize((right - left, bottom - top), Image.Resampling.BOX), np.float32) / 255
        part = self._rgb[top:bottom, left:right]
        part += (alpha * soft)[..., None] * (colour - part)

    def disc(self, x: float, y: float, radius: float, colour: Floats, alpha: float = 1.0) -> None:
        """Fills a circle."""
        turns = np.linspace(0, 2 * math.pi, 32, endpoint=False)
        self.fill([(x + radius * math.cos(a), y + radius * math.sin(a)) for a in turns], colour, alpha)

    def glow(self, x: float, y: float, reach: float, strength: float) -> None:
        """Lightens what is around a lamp."""
        cx, cy, far = self._at[0] + x * self._height, self._at[1] + y * self._height, reach * self._height
        left, right = max(int(cx - far), 0), min(int(cx + far) + 1, self._width)
        top, bottom = max(int(cy - far), 0), min(int(cy + far) + 1, self._height)
        columns = np.arange(left, right, dtype=np.float32)[None, :] - cx
        rows = np.arange(top, bottom, dtype=np.float32)[:, None] - cy
        light = strength * np.clip(1 - np.hypot(columns, rows) / far, 0, 1) ** 2.4
        part = self._rgb[top:bottom, left:right]
        part += light[..., None] * (LAMPLIGHT - part)


def paint_things(
    rgb: Floats, scene: Scene, palette: Palette, *, horizon: float, chance: np.random.Generator
) -> Point | None:
    """Paints the things of a scene; returns where a lighthouse's lamp is, if there is one."""
    dark = palette.colour("near")
    lamp = None
    indoors = scene.place == "interior"
    if "birds" in scene.things and not indoors:
        _birds(rgb, dark, chance)
    if "boat" in scene.things and scene.place == "sea":
        _boat(rgb, palette, (float(chance.uniform(0.44, 0.56)), horizon + 0.045))
    if "lighthouse" in scene.things and not indoors:
        lamp = _lighthouse(rgb, palette, scene, horizon, chance)
    if "figure" in scene.things:
        place = (0.655, 0.655) if indoors else (float(chance.uniform(0.3, 0.45)), 0.84)
        paint_figure(rgb, place, dark * 0.55, palette.colour("low"), lamp="lamp" in scene.things)
    elif "lamp" in scene.things:
        pen = _Pen(rgb, (0.62, 0.72))
        pen.glow(0, 0, 0.34, 0.7)
        pen.disc(0, 0, 0.014, LAMPLIGHT)
    return lamp


def _lighthouse(rgb: Floats, palette: Palette, scene: Scene, horizon: float, chance: np.random.Generator) -> Point:
    at_u, foot = 0.73, horizon - 0.075
    dark, far = palette.colour("near"), palette.colour("far")
    pen = _Pen(rgb, (at_u, foot))
    edge = [(-0.5, 0.42), (-0.42, 0.33), (-0.33, 0.275), (-0.27, 0.2), (-0.2, 0.15), (-0.165, 0.085), (-0.1, 0.03)]
    rough = [(x + chance.uniform(-0.012, 0.012), y + chance.uniform(-0.01, 0.01)) for x, y in edge]
    top = [(-0.06, 0.0), (0.09, -0.012), (0.2, -0.03), (0.34, -0.02), (0.6, -0.065)]
    pen.fill([*rough, *top, (0.9, -0.07), (0.9, 0.7), (-0.5, 0.7)], dark * 0.9 + far * 0.1)
    # Ledges catch the light on the side of the sun.
    for y0, x0 in ((0.07, -0.13), (0.16, -0.2), (0.26, -0.3)):
        face = [(x0, y0), (x0 + 0.06, y0 - 0.03), (x0 + 0.1, y0 + 0.12), (x0 - 0.03, y0 + 0.13)]
        pen.fill(face, far, 0.22)
    white = palette.colour("sun") * 0.5 + far * 0.5
    shade = dark * 0.45 + far * 0.55
    tall = 0.3
    pen.fill([(-0.034, 0.0), (-0.023, -tall), (0.023, -tall), (0.034, 0.0)], white)
    pen.fill([(0.004, 0.0), (0.004, -tall), (0.023, -tall), (0.034, 0.0)], shade, 0.7)
    red = np.array([0.62, 0.16, 0.14], np.float32) * (0.25 + 0.75 * float(white.mean()))
    for low, high in ((0.07, 0.13), (0.19, 0.25)):
        wide_low, wide_high = 0.034 - 0.011 * low / tall, 0.034 - 0.011 * high / tall
        pen.fill([(-wide_low, -low), (-wide_high, -high), (wide_high, -high), (wide_low, -low)], red, 0.85)
        pen.fill([(0.004, -low), (0.004, -high), (wide_high, -high), (wide_low, -low)], dark, 0.45)
    pen.fill([(-0.034, -tall), (-0.034, -tall - 0.008), (0.034, -tall - 0.008), (0.034, -tall)], dark)
    lit = scene.light in ("night", "storm", "dusk", "dawn", "overcast")
    house = LAMPLIGHT if lit else shade
    pen.fill([(-0.017, -tall - 0.008), (-0.017, -tall - 0.046), (0.017, -tall - 0.046), (0.017, -tall - 0.008)], house)
    pen.fill([(-0.022, -tall - 0.046), (0.0, -tall - 0.074), (0.022, -tall - 0.046)], dark)
    if lit:
        pen.glow(0, -tall - 0.027, 0.26, 0.8)
    # A keeper's cottage beside it.
    pen.fill([(0.06, -0.005), (0.06, -0.05), (0.16, -0.056), (0.16, -0.012)], shade)
    pen.fill([(0.05, -0.048), (0.075, -0.084), (0.145, -0.088), (0.17, -0.054)], dark)
    if lit:
        pen.fill([(0.1, -0.022), (0.1, -0.04), (0.116, -0.041), (0.116, -0.023)], LAMPLIGHT, 0.9)
    return at_u, foot - tall - 0.027


def _boat(rgb: Floats, palette: Palette, at: Point) -> None:
    pen = _Pen(rgb, at)
    dark = palette.colour("near") * 0.8
    sail = palette.colour("low") * 0.75 + palette.colour("sun") * 0.25
    pen.fill([(-0.055, 0.0), (0.06, 0.0), (0.04, 0.02), (-0.04, 0.02)], dark)
    pen.fill([(0.002, -0.006), (0.002, -0.13), (0.052, -0.012)], sail, 0.95)
    pen.fill([(-0.004, -0.006), (-0.004, -0.11), (-0.04, -0.012)], sail * 0.8, 0.95)
    pen.fill([(-0.05, 0.024), (0.05, 0.024), (0.02, 0.075), (-0.02, 0.075)], dark, 0.28)


def _birds(rgb: Floats, colour: Floats, chance: np.random.Generator) -> None:
    centre_u, centre_v = chance.uniform(0.3, 0.6), chance.uniform(0.25, 0.35)
    for _ in range(7):
        size = chance.uniform(0.008, 0.016)
        pen = _Pen(rgb, (float(centre_u + chance.normal(0, 0.05)), float(centre_v + chance.normal(0, 0.035))))
        wing = [(-2 * size, -0.5 * size), (-size, -0.9 * size), (0, 0), (size, -0.9 * size), (2 * size, -0.5 * size)]
        back = [(2 * size, -0.35 * size), (size, -0.6 * size), (0, 0.45 * size), (-size, -0.6 * size)]
        pen.fill([*wing, *back, (-2 * size, -0.35 * size)], colour, 0.85)


def paint_figure(rgb: Floats, feet: Point, colour: Floats, rim: Floats, *, lamp: bool, tall: float = 0.21) -> None:
    """Somebody in a long coat, standing at `feet`, perhaps with a lantern in the hand; `tall` in picture heights."""
    pen = _Pen(rgb, feet)
    s = tall

    def body(shift: float, paint: Floats) -> None:
        pen.disc(shift, -0.91 * s, 0.075 * s, paint)
        pen.fill([(shift - 0.11 * s, -0.95 * s), (shift, -1.03 * s), (shift + 0.11 * s, -0.95 * s)], paint)
        coat = [
            (-0.1, -0.8), (-0.04, -0.85), (0.05, -0.85), (0.12, -0.79), (0.15, -0.5), (0.17, -0.2), (0.06, -0.17),
            (-0.02, -0.2), (-0.14, -0.17), (-0.13, -0.5),
        ]  # fmt: skip
        pen.fill([(shift + x * s, y * s) for x, y in coat], paint)
        for x in (-0.08, 0.04):
            leg = [(x, -0.22), (x + 0.09, -0.22), (x + 0.08, 0), (x - 0.01, 0)]
            pen.fill([(shift + a * s, b * s) for a, b in leg], paint)

    if lamp:
        pen.glow(-0.3 * s, -0.42 * s, 1.9 * s, 0.7)
    body(-0.012 * s, rim)
    body(0.0, colour)
    if lamp:
        arm = [(-0.1, -0.76), (-0.3, -0.54), (-0.27, -0.5), (-0.06, -0.64)]
        pen.fill([(a * s, b * s) for a, b in arm], colour)
        pen.fill([(-0.33 * s, -0.5 * s), (-0.25 * s, -0.5 * s), (-0.26 * s, -0.37 * s), (-0.32 * s, -0.37 * s)], colour)
        pen.disc(-0.29 * s, -0.43 * s, 0.035 * s, LAMPLIGHT)


def paint_element(rgb: Floats, element_id: int, number: int) -> None:
    """An element of the request: somebody in the foreground, in a colour of the element's own."""
    hue = (element_id * 0.618) % 1 * 2 * math.pi
    colour = np.array([0.5 + 0.4 * math.cos(hue + shift) for shift in (0.0, 2.1, 4.2)], np.float32)
    paint_figure(rgb, (0.14 + 0.1 * number, 0.86), colour * 0.75, colour * 0.3 + 0.7, lamp=False, tall=0.24)


def paint_prints(rgb: Floats, pictures: list[Floats]) -> None:
    """Further reference images: small prints along the lower left, each with a white edge."""
    height, width, _ = rgb.shape
    tall = round(0.19 * height)
    top = round(0.66 * height)
    left = round(0.03 * width)
    for picture in pictures:
        wide = round(tall * picture.shape[1] / picture.shape[0])
        edge = max(2, height // 180)
        small = Image.fromarray((picture * 255).astype(np.uint8)).resize((wide, tall), Image.Resampling.LANCZOS)
        if left + wide + 2 * edge > width:
            return
        rgb[top - edge : top + tall + edge, left - edge : left + wide + edge] = 0.93
        rgb[top : top + tall, left : left + wide] = np.asarray(small, np.float32) / 255
        left += wide + 4 * edge
