"""What one shot of a clip looks like: its backgrounds, what moves, and where its ball starts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from prefect_kling.simulator.ball import Ball, Mirror, ball_at, find_ball, radius, start_ball
from prefect_kling.simulator.grading import graded, look_of
from prefect_kling.simulator.motion import Life
from prefect_kling.simulator.order import ClipOrder, ScriptedShot, frame_size
from prefect_kling.simulator.planes import Floats, Planes, from_rgb
from prefect_kling.simulator.props import paint_element, paint_prints
from prefect_kling.simulator.scene import Scene, chance_of, next_scene, read_scene
from prefect_kling.simulator.scenery import paint
from prefect_kling.simulator.trace import Trace, read_planes, read_rgb, read_trace, read_video_end

__all__ = ["Background", "Stage", "Start", "clip_size", "remove_ball", "stage_shot", "start_of"]


@dataclass(frozen=True)
class Background:
    """A still picture, what moves in it and the water that mirrors the ball; a picture nobody painted has neither."""

    planes: Planes
    life: Life | None = None
    mirror: Mirror | None = None


@dataclass(frozen=True)
class Stage:
    """One shot: it turns from one background into the other, and `end`, if any, is what it arrives at."""

    scene: Scene
    first: Background
    then: Background
    end: Planes | None = None


@dataclass(frozen=True)
class Start:
    """What a clip begins with: its ball, the scene it follows, and the still it opens on, if any."""

    ball: Ball
    before: Scene | None = None
    frame: int = 0
    opening: Background | None = None
    same_ground: bool = False


def clip_size(order: ClipOrder) -> tuple[int, int]:
    """Pixels of a clip whose order leaves them to the first frame or to the input video."""
    if order.size is not None:
        return order.size
    if order.first_frame is not None:
        with Image.open(order.first_frame) as image:
            width, height = image.size
        wanted = float(np.log(width / height))
        shapes = {"16:9": np.log(16 / 9), "1:1": 0.0, "9:16": np.log(9 / 16)}
        nearest = min(shapes, key=lambda name: abs(shapes[name] - wanted))
        return frame_size(nearest, order.mode, order.shrink)
    if order.feature is not None:
        return read_video_end(order.feature).size
    return frame_size("16:9", order.mode, order.shrink)


def start_of(order: ClipOrder, size: tuple[int, int], continued: Trace | None) -> Start:
    """Where a clip takes up from.

    Args:
        order: what is to be rendered.
        size: its pixels.
        continued: the trace of the clip that the order's first frame is the end of, where that is known.
    """
    fresh = start_ball(chance_of(order.identity, "ball"))
    if order.first_frame is not None:
        if continued is not None:
            opening = painted(continued.scene, size) if continued.steady else None
            if opening is None:
                opening = Background(_without_ball(read_planes(order.first_frame, size), continued.ball))
            return Start(continued.ball, continued.scene, continued.frame, opening, same_ground=continued.steady)
        still = read_planes(order.first_frame, size)
        place = find_ball(still)
        ball = fresh if place is None else ball_at(*place)
        return Start(ball, None, 0, Background(still if place is None else _without_ball(still, ball)))
    if order.feature is not None:
        trace = read_trace(order.feature)
        if trace is not None:
            return Start(trace.ball, trace.scene, 0)
        place = find_ball(read_video_end(order.feature))
        return Start(fresh if place is None else ball_at(*place))
    return Start(fresh)


def stage_shot(order: ClipOrder, shot: ScriptedShot, number: int, start: Start, size: tuple[int, int]) -> Stage:
    """Sets up shot `number` (from 0) of a clip."""
    identity = f"{order.identity}:{number}"
    if start.before is not None:
        scene = next_scene(start.before, shot.prompt, identity, same_ground=start.same_ground and number == 0)
    else:
        scene = read_scene(shot.prompt, identity)
    end = None
    if order.end_frame is not None and number == len(order.shots) - 1:
        end = read_planes(order.end_frame, size)
    opening = start.opening if number == 0 else None
    if opening is not None and opening.life is None and not (order.references or order.elements):
        # A still that nobody painted stays; only its light follows the prompt.
        target = Background(graded(opening.planes, look_of(painted(scene, size).planes), 0.45))
        return Stage(scene, opening, target, end)
    target = painted(scene, size, order)
    return Stage(scene, opening or target, target, end)


def painted(scene: Scene, size: tuple[int, int], order: ClipOrder | None = None) -> Background:
    """Paints a scene, with an order's reference images and elements in it."""
    plate: Floats | None = None
    if order is not None and order.references:
        plate = read_rgb(order.references[0], size)
    painting = paint(scene, size, plate=plate)
    if order is not None:
        paint_prints(painting.rgb, [read_rgb(path, (480, 360)) for path in order.references[1:]])
        for n, element in enumerate(order.elements):
            paint_element(painting.rgb, element, n)
    mirror = Mirror(painting.ground.horizon, painting.water) if painting.water is not None else None
    return Background(from_rgb(painting.rgb), Life(scene, painting.ground, size, painting.water), mirror)


def remove_ball(planes: Planes, x: float, y: float) -> None:
    """Fills the ball's disc at this place with what is on either side of it, in place."""
    width, height = planes.size
    for plane, scale in ((planes.y, 1), (planes.u, 2), (planes.v, 2)):
        reach = radius(planes.size) * 1.35 / scale
        cx, cy = x * width / scale, y * height / scale
        left, right = max(int(cx - reach), 0), min(int(cx + reach) + 2, width // scale)
        top, bottom = max(int(cy - reach), 0), min(int(cy + reach) + 2, height // scale)
        patch = plane[top:bottom, left:right].astype(np.float32)
        if patch.size == 0:
            continue
        across = np.linspace(0, 1, right - left, dtype=np.float32)[None, :]
        filled = patch[:, :1] * (1 - across) + patch[:, -1:] * across
        rows, columns = np.mgrid[top:bottom, left:right]
        inside = np.clip((reach - np.hypot(columns - cx, rows - cy)) / (0.3 * reach), 0, 1)
        plane[top:bottom, left:right] = np.rint(patch + inside * (filled - patch))


def _without_ball(planes: Planes, ball: Ball) -> Planes:
    planes = planes.copy()
    remove_ball(planes, ball.x, ball.y)
    return planes
