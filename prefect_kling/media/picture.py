"""A scene's picture as filters of ffmpeg: read, fitted into the film, cut to its frames, words laid over. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import ffmpeg

from prefect_kling.media.cut import Fit
from prefect_kling.media.facts import MediaFacts, VideoFacts
from prefect_kling.media.target import Target, covering, fitted
from prefect_kling.media.timeline import Scene, Timeline

__all__ = ["BT709", "Colours", "Images", "faded", "scene_picture"]

MOST_PIXELS = 9_000_000
UNSPECIFIED = 2  # ITU-T H.273, for primaries, transfer and matrix
# ffmpeg's names for the matrices of ITU-T H.273 that its scaler knows.
MATRICES = {1: "bt709", 5: "bt601", 6: "bt601", 9: "bt2020"}
# It reads these too: RGB's own, FCC's and SMPTE 240M's. At any other it ends, and no camera or generator uses them.
READ = {0, 4, 7, *MATRICES}
FULL_RANGE = 2
HD_LINES = 720


@dataclass(frozen=True)
class Colours:
    """How an encoded picture stores its colour: ffmpeg's numbers of range, primaries, transfer and matrix."""

    range: int
    primaries: int
    transfer: int
    matrix: int

    def matrix_name(self, height: int) -> str:
        """The matrix by ffmpeg's name; untagged colour is read as players read it, by the number of lines."""
        return MATRICES.get(self.matrix) or ("bt709" if height >= HD_LINES else "bt601")

    @property
    def is_known(self) -> bool:
        """Whether a picture can be brought into these colours here."""
        return self.matrix == UNSPECIFIED or self.matrix in MATRICES


BT709 = Colours(1, 1, 1, 1)


@dataclass(frozen=True)
class Images:
    """What is drawn into the picture, by the number of its scene: PNGs as large as the film.

    Attributes:
        cards: whole pictures.
        captions: with transparency, to be laid over.
    """

    cards: Mapping[int, Path] = field(default_factory=dict)
    captions: Mapping[int, Path] = field(default_factory=dict)


def scene_picture(
    scene: Scene,
    number: int,
    first: int,
    frames: int,
    target: Target,
    images: Images,
    *,
    fit: Fit = "pad",
    colours: Colours = BT709,
    pixel_format: str = "yuv420p",
    aspect_stated: bool = True,
) -> Any:
    """Some of a scene's frames as the film shows them, by hard cuts and without the film's fades.

    Args:
        scene: of the film.
        number: of the scene, which has to be another one for each input of a command.
        first: the first of its frames that is wanted, counted from where the scene begins.
        frames: how many are wanted; exactly as many come out.
        target: the film's size and rate.
        images: for cards and captions.
        fit: what is done with a picture of another shape.
        colours: that it is brought into.
        pixel_format: likewise.
        aspect_stated: whether it says that its pixels are square, or leaves that open.
    """
    rate = target.frame_rate
    if isinstance(scene.source, MediaFacts):
        start = scene.first + first
        picture = _clip(scene.source, number, target, fit, colours)
    else:
        start = 0
        picture = _still(images.cards[number], number, rate).filter("loop", loop=-1, size=1)
        # Frames are counted, not timed: at 24000/1001 a second ffmpeg's arithmetic falls short and cuts a tick off.
        picture = picture.filter("settb", f"1/({rate})").filter("setpts", "N")
        picture = picture.filter("scale", out_range="tv", **_out(colours, target))
    picture = (
        picture.filter("format", pixel_format)
        # An uneven clip gave one frame too many at its new rate: the count is forced, not hoped for.
        .filter("tpad", stop_mode="clone", stop=frames)
        .filter("trim", start_frame=start, end_frame=start + frames)
        .filter("settb", f"1/({rate})")
        .filter("setpts", "PTS-STARTPTS")
    )
    if number in images.captions:
        words = _still(images.captions[number], number, rate).filter("format", "rgba")
        # Left to itself it lays words over 10 bits by way of RGB, and every pixel comes back a little different.
        depth = "yuv420p10" if pixel_format.endswith("p10le") else "yuv420"
        picture = ffmpeg.filter([picture, words], "overlay", format=depth).filter("format", pixel_format)
    return picture.filter("setsar", "1" if aspect_stated else "0").filter(
        "setparams",
        range=colours.range,
        color_primaries=colours.primaries,
        color_trc=colours.transfer,
        colorspace=colours.matrix,
    )


def faded(picture: Any, timeline: Timeline, start: int, frames: int) -> Any:
    """A stretch of the film's picture with as much of the film's fades as lies in it; no fade may begin before it.

    Args:
        picture: its frames.
        timeline: the film.
        start: the film's frame that it begins with.
        frames: how many it has.
    """
    falls = timeline.frames - timeline.fade_out
    if timeline.fade_in and start == 0:
        picture = picture.filter("fade", type="in", start_frame=0, nb_frames=timeline.fade_in)
    if timeline.fade_out and start + frames > falls:
        # ffmpeg is at black one frame behind these; the film's last frame is to be black as its first one is.
        black = max(timeline.fade_out - 1, 1)
        picture = picture.filter("fade", type="out", start_frame=falls - start, nb_frames=black)
    return picture


def _clip(clip: MediaFacts, number: int, target: Target, fit: Fit, colours: Colours) -> Any:
    video = clip.video
    source = ffmpeg.input(
        f"file:{clip.path.absolute()}",
        # Hostile text named .mp4 (HLS, ffconcat) is refused for sure only by a forced demuxer and file access alone.
        format="mov",
        protocol_whitelist="file",
        max_pixels=MOST_PIXELS,
        err_detect="explode",
        threads=1,
        # A clip that changes its size or colours on its way would have the whole graph begin anew, counts and all.
        reinit_filter=0,
        # Without effect on files, but different for each: ffmpeg-python merges equal inputs, and a clip may come twice.
        thread_queue_size=8 + number,
    )
    size = (video.height, video.width) if video.rotation in (90, 270) else (video.width, video.height)
    picture = (
        source[str(video.index)]
        .filter("setpts", "PTS-STARTPTS")
        .filter("fps", fps=str(target.frame_rate), start_time=0)
    )
    if video.colour[-1] not in READ:
        picture = picture.filter("setparams", colorspace="unknown")
    if video.parameters_inside:
        # It may change its size, which the filters behind count upon.
        picture = picture.filter("scale", *size)
    options = {"flags": "lanczos", "out_range": "tv", **_out(colours, target), **_in(video)}
    if fit == "stretch":
        return picture.filter("scale", target.width, target.height, **options)
    if fit == "crop":
        middle, scaled = covering(size, video.shown_size, target)
        # Without a place it is the middle that is cut out.
        picture = picture.filter("crop", *middle).filter("scale", *scaled, **options)
        return picture.filter("crop", target.width, target.height)
    width, height, left, top = fitted(video.shown_size, target)
    return picture.filter("scale", width, height, **options).filter("pad", target.width, target.height, left, top)


def _still(image: Path, number: int, rate: Fraction) -> Any:
    where = f"file:{image.absolute()}"
    return ffmpeg.input(
        where, format="png_pipe", framerate=str(rate), protocol_whitelist="file", thread_queue_size=8 + number
    ).video


def _out(colours: Colours, target: Target) -> dict[str, str]:
    return {"out_color_matrix": colours.matrix_name(target.height)}


def _in(video: VideoFacts) -> dict[str, str]:
    if video.colour[-1] in READ:
        return {}
    return {"in_color_matrix": "bt709" if video.height >= HD_LINES else "bt601"}
