"""Running ffmpeg's encoder on a filter graph: the command's common end, its progress, and what its failures mean."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import ffmpeg
import imageio_ffmpeg

from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.media.picture import Colours
from prefect_kling.media.processes import run
from prefect_kling.media.target import Target

__all__ = ["encode_command", "encoded"]

# Seconds until ffmpeg is given up: at the start, and for each second of film (measured: 0.7 at 1080p on two cores).
STARTING, SLOWEST = 120.0, 60.0
INPUT = re.compile(r"\[(?:in|vist)#(?P<number>[0-9]{1,6})\b")
"""How ffmpeg begins what it says of a file or of a stream in it."""
ADDRESS = re.compile(r" @ 0x[0-9a-f]+")
EVERYWHERE = (
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


def encode_command(
    picture: Any,
    target: Target,
    out: Path,
    options: Mapping[str, Any],
    *,
    pixel_format: str,
    colours: Colours,
    keyframes: Sequence[int] = (),
) -> list[str]:
    """The command that encodes a picture as H.264 into an MP4. Pure.

    Args:
        picture: the end of a filter graph.
        target: the film's rate.
        out: the work file.
        options: of libx264 and the muxer.
        pixel_format: that it is stored in.
        colours: that it is tagged with.
        keyframes: frames before which players may want to begin.
    """
    # Half a frame early: times are rounded.
    forced = [f"{float((frame - Fraction(1, 2)) / target.frame_rate):.6f}" for frame in keyframes]
    output = ffmpeg.output(
        picture,
        f"file:{out}",
        format="mp4",
        vcodec="libx264",
        pix_fmt=pixel_format,
        r=str(target.frame_rate),
        color_range=colours.range,
        color_primaries=colours.primaries,
        color_trc=colours.transfer,
        colorspace=colours.matrix,
        protocol_whitelist="file",
        **({"force_key_frames": ",".join(forced)} if forced else {}),
        **options,
    )
    command: list[str] = ffmpeg.compile(
        output.global_args(*EVERYWHERE), cmd=imageio_ffmpeg.get_ffmpeg_exe(), overwrite_output=True
    )
    return command


async def encoded(command: Sequence[str], seconds: Fraction, on_frames: Callable[[int], None]) -> None:
    """Runs such a command to its end. Cancelling kills ffmpeg.

    Args:
        command: what `encode_command` gave.
        seconds: of picture that it makes.
        on_frames: called with the number of frames encoded so far.

    Raises:
        InvalidMedia: ffmpeg could not decode a clip; the text ends with what it said.
        OSError: the file cannot be written.
    """

    def progress(line: str) -> None:
        name, _, value = line.partition("=")
        if name == "frame" and value.strip().isdecimal():
            on_frames(int(value))

    ended = await run(command, timeout=STARTING + SLOWEST * float(seconds), on_line=progress)
    if ended.status == 0:
        return
    if ended.full:
        raise OSError(ended.full, f"The film cannot be written: {os.strerror(ended.full)}")
    said = [ADDRESS.sub("", line) for line in ended.stderr.strip().splitlines()]
    raise InvalidMedia(
        f"{_complained_of(command, said)} cannot be encoded: ffmpeg {ended.why}. "
        f"It said: {' / '.join(said[:2] + said[2:][-6:]) or 'nothing'}."
    )


def _complained_of(command: Sequence[str], said: Sequence[str]) -> str:
    """The clip that could not be read, by the first of ffmpeg's lines that tells which input it is about."""
    inputs = [name.removeprefix("file:") for word, name in itertools.pairwise(command) if word == "-i"]
    numbers = (int(found["number"]) for line in said if (found := INPUT.match(line)))
    return next((inputs[number] for number in numbers if number < len(inputs)), "The clips")
