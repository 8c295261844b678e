"""Rendering an order into a file: scenes are painted once, then frame by frame only what moves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from prefect_kling.simulator.ball import draw_ball, step
from prefect_kling.simulator.barcode import Stamp, stamp, tag_of
from prefect_kling.simulator.config import MediaSpec
from prefect_kling.simulator.edits import edit
from prefect_kling.simulator.encode import AUDIO_RATE, ClipWriter
from prefect_kling.simulator.order import ClipOrder
from prefect_kling.simulator.planes import Floats, Planes
from prefect_kling.simulator.rendered import Rendered
from prefect_kling.simulator.scene import chance_of
from prefect_kling.simulator.sound import chord, silence
from prefect_kling.simulator.staging import Background, Stage, clip_size, stage_shot, start_of
from prefect_kling.simulator.title import draw_bars
from prefect_kling.simulator.trace import Trace

__all__ = ["render"]

TURN = (0.1, 0.6)
"""Between these parts of a shot its opening turns into what the prompt shows."""

ARRIVE = (0.65, 0.98)
"""Between these parts it turns into its end frame."""

AUDIO_OVERHANG = {"natural": 0.032, "short": -0.5, "long": 0.5}


def render(
    order: ClipOrder,
    path: Path,
    continued: Trace | None = None,
    *,
    abandoned: Callable[[], bool] = lambda: False,
) -> Rendered:
    """Renders an order.

    Args:
        order: what is wanted.
        path: the file to write.
        continued: the trace of the clip that `order.first_frame` is the end of, where that is known.
        abandoned: asked before each frame; once it is true, rendering stops.

    Raises:
        Abandoned: it was told to stop.
    """
    if order.base is not None:
        return edit(order, order.base, path, abandoned=abandoned)
    size = clip_size(order)
    start = start_of(order, size, continued)
    stages = [stage_shot(order, shot, n, start, size) for n, shot in enumerate(order.shots)]
    rate = order.media.fps
    counts = [shot.seconds * rate for shot in order.shots]
    counts[-1] += 1  # gateway.md: length runs slightly over what was ordered
    balls = [step(start.ball, n / rate) for n in range(sum(counts))]
    opened = start.frame if start.same_ground else 0
    steady = len(stages) == 1 and stages[0].first is stages[0].then and not (order.references or order.elements)
    trace = Trace(stages[-1].scene, balls[-1], opened + counts[-1], steady=steady and stages[0].end is None)
    seconds = sum(counts) / rate
    samples = _samples(order, seconds)
    with ClipWriter(
        path, size, order.media, comment=trace.as_text(), sound=samples is not None, abandoned=abandoned
    ) as writer:
        n, last = 0, stages[0].first.planes
        for number, (stage, count) in enumerate(zip(stages, counts, strict=True)):
            for i in range(count):
                last = _backdrop(stage, i, count)
                life = _nearer(stage, i, count)
                if life.life is not None:
                    life.life.draw(last, opened + i if number == 0 else i)
                if stage.end is None or i < count * ARRIVE[1]:
                    draw_ball(last, balls[n], mirror=life.mirror)
                if stage.end is None or i < count * ARRIVE[1]:
                    draw_bars(last, order.shots[number].prompt)
                if order.barcode:
                    stamp(last.y, Stamp(tag_of(order.task_id), number, n))
                if not (order.media.vfr and _left_out(n, sum(counts))):
                    writer.write(last, n)
                n += 1
        if samples is not None:
            writer.write_samples(samples)
    return Rendered(seconds, last, trace)


def _samples(order: ClipOrder, seconds: float) -> Floats | None:
    media: MediaSpec = order.media
    length = max(seconds + AUDIO_OVERHANG[media.audio], 0.1)
    if order.sound:
        return chord(chance_of("sound", order.shots[0].prompt, order.identity), length, AUDIO_RATE)
    return silence(length, AUDIO_RATE) if media.silent_track else None


def _left_out(frame: int, frames: int) -> bool:
    return frame % 9 == 4 and frame < frames - 1


def _backdrop(stage: Stage, frame: int, frames: int) -> Planes:
    if stage.first is stage.then:
        planes = stage.first.planes.copy()
    else:
        planes = _mixed(stage.first.planes, stage.then.planes, _along(TURN, frame, frames))
    if stage.end is not None:
        planes = _mixed(planes, stage.end, _along(ARRIVE, frame, frames))
    return planes


def _nearer(stage: Stage, frame: int, frames: int) -> Background:
    return stage.first if _along(TURN, frame, frames) < 0.5 else stage.then


def _along(part: tuple[float, float], frame: int, frames: int) -> float:
    t = min(max((frame / frames - part[0]) / (part[1] - part[0]), 0.0), 1.0)
    return t * t * (3 - 2 * t)


def _mixed(first: Planes, second: Planes, share: float) -> Planes:
    level = round(share * 256)
    if level in (0, 256):
        return (second if level else first).copy()
    mixed = (first.whole.astype(np.uint16) * (256 - level) + second.whole.astype(np.uint16) * level + 128) >> 8
    return Planes.of(mixed.astype(np.uint8))
