"""The colours of a light: sky, land and water at dawn, by day, at dusk, at night, in storm and under cloud. Data."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from prefect_kling.simulator.planes import Floats
from prefect_kling.simulator.scene import Scene

__all__ = ["Palette", "palette_of"]

Rgb = tuple[int, int, int]


@dataclass(frozen=True)
class Palette:
    """Colours, 0 to 255 each, and how strong the light in the sky is.

    Attributes:
        top, middle, low: the sky, from above down to the horizon.
        sun: the sun or moon and what it lights.
        far, near: land at the horizon and at the camera.
        water: at the camera; at the horizon it takes the sky's colour.
        glow: how far the sun's light spreads, 0 to 1.
        clouds: how much of the sky they cover, 0 to 1.
    """

    top: Rgb
    middle: Rgb
    low: Rgb
    sun: Rgb
    far: Rgb
    near: Rgb
    water: Rgb
    glow: float
    clouds: float

    def colour(self, name: str) -> Floats:
        """One of the colours as an array of three, 0 to 1."""
        return np.array(getattr(self, name), np.float32) / 255


PALETTES = {
    "dawn": Palette(
        (44, 66, 112), (158, 134, 160), (250, 190, 150), (255, 238, 214), (122, 110, 142), (26, 26, 46), (40, 56, 88),
        0.62, 0.5,
    ),
    "day": Palette(
        (52, 108, 172), (126, 176, 210), (222, 232, 228), (255, 252, 240), (136, 164, 178), (30, 56, 58), (24, 84, 116),
        0.34, 0.42,
    ),
    "dusk": Palette(
        (30, 28, 70), (142, 62, 104), (252, 138, 88), (255, 222, 190), (116, 60, 96), (22, 14, 32), (52, 30, 66),
        0.7, 0.55,
    ),
    "night": Palette(
        (5, 9, 24), (14, 28, 58), (46, 76, 108), (226, 234, 250), (28, 46, 74), (4, 8, 18), (8, 18, 38),
        0.3, 0.3,
    ),
    "storm": Palette(
        (16, 22, 30), (44, 58, 68), (118, 134, 132), (206, 218, 220), (58, 72, 80), (8, 14, 20), (18, 34, 42),
        0.22, 0.95,
    ),
    "overcast": Palette(
        (98, 114, 122), (146, 160, 163), (206, 210, 202), (238, 238, 230), (130, 146, 150), (36, 48, 54), (66, 88, 96),
        0.3, 0.8,
    ),
}  # fmt: skip

TINTED = 0.26


def palette_of(scene: Scene) -> Palette:
    """The palette of a scene: its light's, drawn a little towards the colour its prompt names."""
    palette = PALETTES[scene.light]
    if scene.tint is None:
        return palette
    tint = scene.tint

    def drawn(colour: Rgb) -> Rgb:
        # As bright as before: a tint is a filter on the lens, not a coat of paint.
        level = sum(colour) / max(sum(tint), 1)
        red, green, blue = (min(255, round(c + TINTED * (t * level - c))) for c, t in zip(colour, tint, strict=True))
        return red, green, blue

    return replace(
        palette,
        top=drawn(palette.top),
        middle=drawn(palette.middle),
        low=drawn(palette.low),
        far=drawn(palette.far),
        near=drawn(palette.near),
        water=drawn(palette.water),
    )
