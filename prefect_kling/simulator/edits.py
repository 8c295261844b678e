"""A `base` edit: the input's own frames in another light, as many and as large as they were (gateway.md, "base edits").

Where a simulator made the input, the difference between the scene in its old and in its new light is laid over every
frame, which relights exactly what stands in it. Any other input is graded as a whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from prefect_kling.simulator.ball import CENTRE, ball_at, draw_ball, find_ball
from prefect_kling.simulator.barcode import Stamp, stamp, tag_of
from prefect_kling.simulator.encode import AUDIO_RATE, ClipWriter
from prefect_kling.simulator.grading import curves, look_of
from prefect_kling.simulator.order import ClipOrder
from prefect_kling.simulator.planes import Bytes, Planes
from prefect_kling.simulator.rendered import Rendered
from prefect_kling.simulator.scene import Scene, next_scene, read_scene
from prefect_kling.simulator.sound import silence
from prefect_kling.simulator.staging import Background, painted, remove_ball
from prefect_kling.simulator.title import draw_bars
from prefect_kling.simulator.trace import Trace, planes_of, read_trace

__all__ = ["edit", "even_spacing"]


def edit(order: ClipOrder, source: Path, path: Path, *, abandoned: Callable[[], bool]) -> Rendered:
    """Renders an edit of the video at `source` into `path`, unless `abandoned` says stop."""
    trace = read_trace(source)
    prompt = order.shots[0].prompt
    if trace is not None:
        scene = next_scene(trace.scene, prompt, order.identity, same_ground=True)
    else:
        scene = read_scene(prompt, order.identity)
    # The sound is read by itself: decoding the frames takes the container to its end.
    with av.open(str(source), format="mov") as container, av.open(str(source), format="mov") as heard:
        video = container.streams.video[0]
        size = video.width // 2 * 2, video.height // 2 * 2
        target = painted(scene, size, order)
        kept = heard if order.keep_sound and heard.streams.audio else None
        relight = _Relight(order, trace, target, size)
        ending = _ending(trace, scene, steady=relight.exact)
        # An even input gives an edit with a plain clip's timing, and so with the same parameter sets.
        even = even_spacing(source)
        written, last = 0, None
        with ClipWriter(
            path,
            size,
            order.media,
            comment=ending.as_text(),
            sound=order.media.silent_track and kept is None,
            copied=kept,
            rate=Fraction(video.average_rate or 24),
            time_base=None if even else video.time_base,
            abandoned=abandoned,
        ) as writer:
            for planes, pts in _frames(container, video):
                last = relight.frame(planes, written)
                draw_bars(last, prompt)
                if order.barcode:
                    stamp(last.y, Stamp(tag_of(order.task_id), 0, written))
                writer.write(last, written if even else pts)
                written += 1
            seconds = written / float(video.average_rate or 24)
            if kept is not None:
                writer.copy_sound()
            elif order.media.silent_track:
                writer.write_samples(silence(seconds, AUDIO_RATE))
    if last is None:
        raise ValueError("the input has no frames")
    return Rendered(seconds, last, ending)


def _ending(before: Trace | None, scene: Scene, *, steady: bool) -> Trace:
    if before is None:
        return Trace(scene, ball_at(*CENTRE), 0, steady=False)
    return Trace(scene, before.ball, before.frame, steady=steady)


def _frames(container: InputContainer, video: VideoStream) -> Iterator[tuple[Planes, int]]:
    first = None
    for frame in container.decode(video):
        pts = frame.pts or 0
        first = pts if first is None else first
        yield planes_of(frame), pts - first


def even_spacing(source: Path) -> bool:
    """Whether a clip's frames are spaced as its rate says, each by one frame."""
    with av.open(str(source), format="mov") as container:
        video = container.streams.video[0]
        times = sorted(packet.pts for packet in container.demux(video) if packet.pts is not None)
        between = {after - before for before, after in itertools.pairwise(times)}
        return len(between) == 1 and between.pop() * (video.time_base or 0) * (video.average_rate or 0) == 1


class _Relight:
    """Takes frames out of one light into another."""

    def __init__(self, order: ClipOrder, trace: Trace | None, target: Background, size: tuple[int, int]) -> None:
        self._target = target
        self.exact = trace is not None and trace.steady and not (order.references or order.elements)
        self._difference = None
        self._tables: tuple[Bytes, Bytes, Bytes] | None = None
        if self.exact and trace is not None:
            before = painted(trace.scene, size).planes
            self._difference = target.planes.whole.astype(np.int16) - before.whole
            if np.abs(self._difference).mean() < 2:
                # The same light again: an edit still has to be seen.
                self._difference = None

    def frame(self, planes: Planes, number: int) -> Planes:
        """One frame in the new light."""
        place = find_ball(planes)
        if place is not None:
            planes = planes.copy()
            remove_ball(planes, *place)
        if self._difference is not None:
            lit = np.clip(planes.whole.astype(np.int16) + self._difference, 16, 240).astype(np.uint8)
            result = Planes.of(lit)
        else:
            result = planes.copy()
            if self._tables is None:
                self._tables = curves(look_of(planes), look_of(self._target.planes), 0.85)
            for plane, table in zip((result.y, result.u, result.v), self._tables, strict=True):
                plane[:] = table[plane]
        if self._target.life is not None:
            self._target.life.draw(result, number)
        if place is not None:
            draw_ball(result, ball_at(*place), mirror=self._target.mirror if self.exact else None)
        return result
