"""The picture encoded anew: clips of any size, rate and codec become one picture, in one filter graph.

The graph is built with ffmpeg-python and run by the ffmpeg that imageio-ffmpeg ships. It makes the picture only: sound
is always made by sound.py, so that a film sounds the same whichever way its picture went.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import ffmpeg
import imageio_ffmpeg

from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.media.facts import MediaFacts, VideoFacts
from prefect_kling.media.plan import majority
from prefect_kling.media.processes import run

__all__ = ["Target", "film_frames", "fitted", "graph_command", "reencode", "target_of"]

# What cameras, browsers and generators make; a clip of uneven spacing has a mean rate that is none of these.
USUAL_RATES = [Fraction(r) for r in (24, 25, 30, 48, 50, 60)] + [Fraction(r * 1000, 1001) for r in (24, 30, 60)]
MOST_PIXELS = 9_000_000
UNSPECIFIED = 2  # ITU-T H.273, matrix coefficients
# Seconds until ffmpeg is given up: at the start, and for each second of film (measured: 0.7 at 1080p on two cores).
STARTING, SLOWEST = 120.0, 60.0


@dataclass(frozen=True)
class Target:
    """What the film's picture will be: pixels (both even) and frames a second."""

    width: int
    height: int
    frame_rate: Fraction


def target_of(clips: Sequence[MediaFacts]) -> Target:
    """The shown size and the frame rate that most clips have; the first one's among equally frequent ones."""
    width, height = majority(clip.video.shown_size for clip in clips)
    even = [clip.video.frame_rate for clip in clips if clip.video.constant]
    mean = majority(even or [clip.video.frame_rate for clip in clips])
    rate = mean if even else min(USUAL_RATES, key=lambda usual: abs(usual - mean))
    return Target(max(width // 2 * 2, 2), max(height // 2 * 2, 2), rate)


def film_frames(clip: MediaFacts, rate: Fraction) -> int:
    """How many of the film's frames this clip takes: all of its own where the rates agree."""
    return clip.video.frames if clip.video.frame_rate == rate else max(round(clip.video.seconds * rate), 1)


def fitted(size: tuple[int, int], target: Target) -> tuple[int, int, int, int]:
    """Width, height, left and top (all even) of a picture scaled to fit into the film's, with bars around it."""
    width, height = size
    scale = min(Fraction(target.width, width), Fraction(target.height, height))
    inner = [
        min(max(round(side * scale / 2) * 2, 2), most)
        for side, most in ((width, target.width), (height, target.height))
    ]
    # Even offsets: colour is stored for pairs of pixels.
    return inner[0], inner[1], (target.width - inner[0]) // 4 * 2, (target.height - inner[1]) // 4 * 2


def graph_command(clips: Sequence[MediaFacts], target: Target, out: Path) -> list[str]:
    """The ffmpeg command that encodes the clips' pictures in a row into `out`. Pure."""
    pictures = [_picture(clip, target, number) for number, clip in enumerate(clips)]
    frames = [film_frames(clip, target.frame_rate) for clip in clips]
    joined = ffmpeg.concat(*pictures, n=len(pictures), v=1, a=0)
    output = ffmpeg.output(
        joined,
        f"file:{out}",
        format="mp4",
        vcodec="libx264",
        preset="fast",
        crf=17,
        pix_fmt="yuv420p",
        r=str(target.frame_rate),
        # A chapter starts on a keyframe, so that players jump to it at once. Half a frame early: times are rounded.
        force_key_frames=",".join(
            f"{float((sum(frames[:n]) - Fraction(1, 2)) / target.frame_rate):.6f}" for n in range(1, len(frames))
        )
        or "0",
        protocol_whitelist="file",
    )
    everywhere = (
        "-nostdin",
        "-hide_banner",
        "-loglevel",
        "error",
        "-xerror",
        "-progress",
        "pipe:1",
        "-stats_period",
        "0.2",
    )
    command: list[str] = ffmpeg.compile(
        output.global_args(*everywhere), cmd=imageio_ffmpeg.get_ffmpeg_exe(), overwrite_output=True
    )
    return command


def _picture(clip: MediaFacts, target: Target, number: int) -> Any:
    video = clip.video
    source = ffmpeg.input(
        f"file:{clip.path.absolute()}",
        # Hostile text named .mp4 (HLS, ffconcat) is refused for sure only by a forced demuxer and file access alone.
        format="mov",
        protocol_whitelist="file",
        max_pixels=MOST_PIXELS,
        err_detect="explode",
        threads=1,
        # Without effect on files, but different for each: ffmpeg-python merges equal inputs, and a clip may come twice.
        thread_queue_size=8 + number,
    )
    width, height, left, top = fitted(video.shown_size, target)
    frames = film_frames(clip, target.frame_rate)
    return (
        source[str(video.index)]
        .filter("setpts", "PTS-STARTPTS")
        .filter("fps", fps=str(target.frame_rate), start_time=0)
        .filter("scale", width, height, flags="lanczos", out_range="tv", out_color_matrix="bt709", **_matrix(video))
        .filter("setsar", "1")
        .filter("pad", target.width, target.height, left, top)
        .filter("format", "yuv420p")
        .filter("setparams", color_primaries="bt709", color_trc="bt709", colorspace="bt709", range="tv")
        # An uneven clip gave one frame too many at its new rate: the count is forced, not hoped for.
        .filter("tpad", stop_mode="clone", stop=frames)
        .filter("trim", end_frame=frames)
        .filter("setpts", "PTS-STARTPTS")
    )


def _matrix(video: VideoFacts) -> dict[str, str]:
    """Untagged colour is read as players read it: BT.709 from 720 lines on, BT.601 below."""
    if video.colour[-1] != UNSPECIFIED:
        return {}
    return {"in_color_matrix": "bt709" if video.height >= 720 else "bt601"}


async def reencode(clips: Sequence[MediaFacts], target: Target, out: Path, on_frames: Callable[[int], None]) -> None:
    """Encodes the clips' pictures in a row into `out`, an MP4 without sound. Cancelling kills ffmpeg.

    Args:
        clips: probed clips.
        target: the film's size and rate.
        out: the work file.
        on_frames: called with the number of frames encoded so far.

    Raises:
        InvalidMedia: ffmpeg could not decode a clip; the text ends with what it said.
        OSError: the film cannot be written.
    """
    length = sum(film_frames(clip, target.frame_rate) for clip in clips) / target.frame_rate

    def progress(line: str) -> None:
        name, _, value = line.partition("=")
        if name == "frame" and value.strip().isdecimal():
            on_frames(int(value))

    ended = await run(graph_command(clips, target, out), timeout=STARTING + SLOWEST * float(length), on_line=progress)
    if ended.status == 0:
        return
    said = ended.stderr.strip().splitlines()[-8:]
    for full in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        if ended.status == -signal.SIGXFSZ or any(os.strerror(full) in line for line in said):
            raise OSError(full, f"The film cannot be written: {os.strerror(full)}")
    raise InvalidMedia(f"The clips cannot be encoded: ffmpeg {ended.why}. It said: {' / '.join(said) or 'nothing'}.")
