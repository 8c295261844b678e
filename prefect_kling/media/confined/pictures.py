"""A decoded frame as a player shows it: its pixels square, turned, in RGB."""

from __future__ import annotations

import math
import struct
from fractions import Fraction
from typing import Any

import av
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from prefect_kling.media.confined.opening import Refused

__all__ = ["decoded", "mean_luma", "orientation", "plausible_aspect", "square_rgb", "upright"]

# The eight ways in which a display matrix can turn and flip (the signs of a, b, c, d): mirrored first, then turned
# clockwise.
ORIENTATIONS = {
    (1, 0, 0, 1): (False, 0),
    (0, 1, -1, 0): (False, 90),
    (-1, 0, 0, -1): (False, 180),
    (0, -1, 1, 0): (False, 270),
    (-1, 0, 0, 1): (True, 0),
    (0, -1, -1, 0): (True, 90),
    (1, 0, 0, -1): (True, 180),
    (0, 1, 1, 0): (True, 270),
}


def decoded(packet: Packet[Any], what: str) -> list[VideoFrame]:
    """The frames that a packet completes."""
    try:
        frames: list[VideoFrame] = packet.decode()
    except av.EOFError:
        return []
    except MemoryError:
        raise
    except (av.FFmpegError, ValueError, OSError) as error:
        raise Refused(f"is damaged: {what} cannot be decoded ({getattr(error, 'strerror', error)})") from error
    return frames


def plausible_aspect(video: VideoStream) -> Fraction:
    """Width of a pixel over its height."""
    aspect = video.sample_aspect_ratio or Fraction(1)
    if not Fraction(1, 4) <= aspect <= 4:
        raise Refused(f"has pixels {aspect.numerator} wide and {aspect.denominator} high, as no camera makes them")
    return aspect


def orientation(frame: VideoFrame) -> tuple[bool, int]:
    """Whether a player mirrors the picture, and how many degrees clockwise it then turns it."""
    # Taken by name: iterating gives the data itself up to av 18, and its types from av 19 on.
    side_data: Any = frame.side_data
    try:
        matrix = bytes(side_data["DISPLAYMATRIX"])
    except KeyError:
        return False, 0
    a, b, _, c, d, *_ = struct.unpack("=9i", matrix)
    signs = tuple((value > 0) - (value < 0) for value in (a, b, c, d))
    if signs not in ORIENTATIONS:
        raise Refused("is turned by an angle that is no quarter turn")
    return ORIENTATIONS[signs]


def mean_luma(frame: VideoFrame) -> float:
    """How bright a frame is on average, from 0 for black to 1 for white."""
    from PIL import ImageStat

    small = frame.to_image(width=64, height=36, interpolation="AREA", dst_color_range="JPEG", threads=1)  # type: ignore[no-untyped-call]  # av's stub says no types here
    return float(ImageStat.Stat(small.convert("L")).mean[0]) / 255


def square_rgb(frame: VideoFrame, aspect: Fraction, most: int | None = None) -> Any:
    """The frame in RGB and square pixels; the side that the aspect stretches grows, so nothing is lost.

    Args:
        frame: as it was decoded.
        aspect: width of a pixel over its height.
        most: how many pixels it may have in the end; None: all of them.
    """
    width, height = frame.width, frame.height
    if aspect > 1:
        width = round(width * aspect)
    else:
        height = round(height / aspect)
    if small := most is not None and width * height > most:
        scale = math.sqrt(most / (width * height))
        width, height = max(round(width * scale), 1), max(round(height * scale), 1)
    # Untagged colour is what players take it for: BT.709 from 720 lines on, BT.601 below.
    matrix = ("ITU709" if frame.height >= 720 else "ITU601") if frame.colorspace == 2 else None
    return frame.to_image(  # type: ignore[no-untyped-call]  # av's stub says no types here
        width=width,
        height=height,
        src_colorspace=matrix,
        interpolation="AREA" if small else "LANCZOS",
        dst_color_range="JPEG",
        threads=1,
    )


def upright(image: Any, mirrored: bool, rotation: int) -> Any:
    """The image as a player turns it. Pillow counts its turns the other way round."""
    from PIL.Image import Transpose

    if mirrored:
        image = image.transpose(Transpose.FLIP_LEFT_RIGHT)
    turns = {90: Transpose.ROTATE_270, 180: Transpose.ROTATE_180, 270: Transpose.ROTATE_90}
    return image.transpose(turns[rotation]) if rotation else image
