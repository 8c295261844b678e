"""The frame around the picture: black bars as a wide film has them, and the prompt in the lower one."""

from __future__ import annotations

import bisect
import functools
import re

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from prefect_kling.simulator.planes import Planes

__all__ = ["bar_height", "draw_bars", "has_bars"]

BLACK, GREY = 16, 128
# A prompt names its inputs `<<<image_1>>>` (gateway.md, "What the parts mean"); a viewer reads "image 1".
_TOKEN = re.compile(r"<<<(image|element|video)_(\d+)>>>")
BAR = 0.106
"""Of the picture's height, or of its width where it is upright: 16:9 becomes 2.26:1."""


def bar_height(size: tuple[int, int]) -> int:
    """The height of one bar in pixels, even."""
    return int(BAR * min(size)) // 2 * 2


def draw_bars(planes: Planes, text: str) -> None:
    """Draws both bars and the text, in place; whatever was there before is gone."""
    bar = bar_height(planes.size)
    for plane, high, value in ((planes.y, bar, BLACK), (planes.u, bar // 2, GREY), (planes.v, bar // 2, GREY)):
        plane[:high] = value
        plane[-high:] = value
    width, _ = planes.size
    line = _line(text, width, bar)
    planes.y[-bar:] = np.maximum(planes.y[-bar:], line)


@functools.lru_cache(maxsize=64)
def _line(text: str, width: int, bar: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    font = ImageFont.load_default(size=bar * 0.3)
    words = _TOKEN.sub(r"\1 \2", " ".join(text.split()))
    # By halving: a prompt may have 2,500 characters, of which some 150 fit.
    fits = bisect.bisect_right(range(1, len(words) + 1), width * 0.86, key=lambda n: font.getlength(words[:n]))
    shown = words[:fits]
    if shown != words:
        shown = f"{shown.rstrip(' ,.;:')}…"
    image = Image.new("L", (width, bar), BLACK)
    ImageDraw.Draw(image).text((width / 2, bar * 0.47), shown, font=font, fill=176, anchor="mm")
    return np.asarray(image).copy()


def has_bars(planes: Planes) -> bool:
    """Whether the picture has the bars that `draw_bars` draws."""
    bar = bar_height(planes.size)
    top, bottom = planes.y[2 : bar - 2], planes.y[-bar + 2 : -2]
    edge = planes.y[bar + 2 : bar + 8]
    return bool(top.max() < 30 and np.median(bottom) < 30 and np.median(edge) > 24)
