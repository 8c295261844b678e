"""Rendering an order into a file: scenes painted once, then frame by frame only what moves."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from prefect_kling.simulator.ball import Ball, ball_at, draw_ball, find_ball, start_ball, step
from prefect_kling.simulator.barcode import Stamp, stamp, tag_of
from prefect_kling.simulator.encode import AUDIO_RATE, ClipWriter
from prefect_kling.simulator.order import ClipOrder, frame_size
from prefect_kling.simulator.planes import Floats, Planes, from_rgb
from prefect_kling.simulator.scene import Scene, chance_of, next_scene, read_scene
from prefect_kling.simulator.scenery import paint
from prefect_kling.simulator.sound import chord
from prefect_kling.simulator.title import draw_bars

__all__ = ["render"]


def render(order: ClipOrder, path: Path) -> float:
    """Renders an order into `path` and returns the picture's length in seconds."""
    size = order.size or (1280, 720)
    chance = chance_of(order.identity)
    ball = start_ball(chance)
    rate = order.media.fps
    n = 0
    with ClipWriter(path, size, order.media, comment="{}", sound=order.sound) as writer:
        for shot in order.shots:
            scene = read_scene(shot.prompt, order.identity)
            painting = paint(scene, size)
            still = from_rgb(painting.rgb)
            for _ in range(shot.seconds * rate + (shot is order.shots[-1])):
                planes = still.copy()
                draw_ball(planes, ball, horizon=painting.ground.horizon if painting.ground.water else None)
                draw_bars(planes, shot.prompt)
                writer.write(planes, n)
                ball = step(ball, 1 / rate)
                n += 1
        if order.sound:
            writer.write_samples(chord(chance, n / rate + 0.03, AUDIO_RATE))
    return n / rate
