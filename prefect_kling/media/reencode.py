"""The picture encoded anew: clips of any size, rate and codec, and transitions, become one picture in filter graphs.

The graphs are built with ffmpeg-python and run by the ffmpeg that imageio-ffmpeg ships. They make the picture only:
sound is always made by itself, so that a film sounds the same whichever way its picture went.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ffmpeg

from prefect_kling.media.cut import Fit
from prefect_kling.media.encoding import encode_command, encoded
from prefect_kling.media.picture import BT709, Images, faded, scene_picture
from prefect_kling.media.target import Target
from prefect_kling.media.timeline import Timeline

__all__ = ["Part", "Piece", "graph_command", "parts_of", "reencode"]

# One ffmpeg holds pictures for each of its clips: at 1080p it takes 410 MB for one, 660 MB for 4 that cross over, and
# 915 MB for 8, of which it needs no less time (all measured). With equal options x264 writes equal parameter sets, so
# parts are spliced without loss.
CLIPS_AT_ONCE = 4
OPTIONS = {"preset": "fast", "crf": 17}


@dataclass(frozen=True)
class Piece:
    """Some of a scene's frames.

    Attributes:
        scene: its number.
        first: the first of its frames, counted from where it begins.
        frames: how many.
        before: how many of them it shares with the piece before it.
    """

    scene: int
    first: int
    frames: int
    before: int


@dataclass(frozen=True)
class Part:
    """What one ffmpeg makes: pieces in a row, and the film's frame that they begin with."""

    start: int
    pieces: tuple[Piece, ...]

    @property
    def frames(self) -> int:
        """How many frames of the film it has."""
        return sum(piece.frames - piece.before for piece in self.pieces)


def parts_of(timeline: Timeline) -> list[Part]:
    """The film in parts of a few clips each. Pure.

    One ends at a hard cut where there is one, else within a clip, at a frame that belongs to no transition; none ends
    within a fade of the film.
    """
    parts: list[Part] = []
    pieces: list[Piece] = []
    start = 0
    last = len(timeline.scenes) - 1
    for number, scene in enumerate(timeline.scenes):
        pieces.append(Piece(number, 0, scene.frames, scene.before if pieces else 0))
        hard = len(pieces) >= CLIPS_AT_ONCE - 1 and not scene.after
        if number == last or (hard and _outside_of_fades(timeline, scene.end)):
            parts.append(Part(start, tuple(pieces)))
            start, pieces = scene.end, []
        elif len(pieces) >= CLIPS_AT_ONCE and scene.after:
            own = scene.frames - scene.before - scene.after
            here = scene.before + (own + 1) // 2
            if _outside_of_fades(timeline, scene.start + here):
                pieces[-1] = Piece(number, 0, here, pieces[-1].before)
                parts.append(Part(start, tuple(pieces)))
                start, pieces = scene.start + here, [Piece(number, here, scene.frames - here, 0)]
    return parts


def _outside_of_fades(timeline: Timeline, frame: int) -> bool:
    return timeline.fade_in <= frame <= timeline.frames - timeline.fade_out


async def reencode(
    timeline: Timeline,
    part: Part,
    target: Target,
    images: Images,
    out: Path,
    on_frames: Callable[[int], None],
    *,
    fit: Fit = "pad",
) -> None:
    """Encodes a part of the film's picture into `out`, an MP4 without sound. Cancelling kills ffmpeg.

    Args:
        timeline: the film.
        part: of it.
        target: the film's size and rate.
        images: for its cards and captions.
        out: the work file.
        on_frames: called with the number of frames encoded so far.
        fit: what is done with pictures of another shape.

    Raises:
        InvalidMedia: ffmpeg could not decode a clip; the text ends with what it said.
        OSError: the film cannot be written.
    """
    command = graph_command(timeline, part, target, images, out, fit=fit)
    await encoded(command, part.frames / timeline.rate, on_frames)


def graph_command(
    timeline: Timeline, part: Part, target: Target, images: Images, out: Path, *, fit: Fit = "pad"
) -> list[str]:
    """The ffmpeg command of `reencode`. Pure."""
    runs: list[tuple[Any, int]] = []  # pictures that transitions join, and their frames
    for piece in part.pieces:
        scene = timeline.scenes[piece.scene]
        picture = scene_picture(scene, piece.scene, piece.first, piece.frames, target, images, fit=fit)
        if not piece.before:
            runs.append((picture, piece.frames))
            continue
        before, frames = runs.pop()
        crossed = ffmpeg.filter(
            [before, picture],
            "xfade",
            transition=scene.transition.xfade,
            # Both are read in millionths of a second and rounded to frames.
            duration=f"{float(piece.before / timeline.rate):.6f}",
            offset=f"{float((frames - piece.before) / timeline.rate):.6f}",
        )
        runs.append((crossed, frames + piece.frames - piece.before))
    joined = ffmpeg.concat(*(picture for picture, _ in runs), n=len(runs), v=1, a=0) if len(runs) > 1 else runs[0][0]
    joined = faded(joined, timeline, part.start, part.frames)
    # A chapter starts on a keyframe, so that players jump to it at once.
    within = range(part.start + 1, part.start + part.frames)
    keyframes = [chapter.start - part.start for chapter in timeline.chapters if chapter.start in within]
    return encode_command(joined, target, out, OPTIONS, pixel_format="yuv420p", colours=BT709, keyframes=keyframes)
