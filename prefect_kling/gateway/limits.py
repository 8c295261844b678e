"""What the gateway takes as an image or a video: limits on files, checked with what is known about them (gateway.md).

Pure: facts in, refusals out. Where the facts come from (Base64, a file, a probe) is the caller's business.
"""

from __future__ import annotations

import base64
import binascii
import io
from dataclasses import dataclass

from prefect_kling.gateway.errors import InvalidMedia

__all__ = [
    "CLIP_SIZES",
    "MAX_IMAGE_BYTES",
    "MAX_IMAGE_RATIO",
    "MAX_VIDEO_BYTES",
    "MAX_VIDEO_RATE",
    "MAX_VIDEO_SIDE",
    "MIN_IMAGE_SIDE",
    "MIN_VIDEO_RATE",
    "MIN_VIDEO_SECONDS",
    "MIN_VIDEO_SIDE",
    "SECONDS_TOLERANCE",
    "ImageFacts",
    "VideoFacts",
    "image_facts",
    "image_facts_of_base64",
    "image_refusal",
    "video_refusal",
]

MAX_IMAGE_BYTES = 10 * 1024 * 1024
MIN_IMAGE_SIDE = 300
MAX_IMAGE_RATIO = 2.5
MIN_VIDEO_SIDE, MAX_VIDEO_SIDE = 720, 2160
MIN_VIDEO_SECONDS = 3
MAX_VIDEO_BYTES = 200 * 1024 * 1024
MIN_VIDEO_RATE, MAX_VIDEO_RATE = 24, 60
# Generated clips run slightly over what was ordered (5.04 s for "5"), so a 10 s clip is still a 10 s clip.
SECONDS_TOLERANCE = 0.1

CLIP_SIZES = {
    ("16:9", "std"): (1280, 720),
    ("16:9", "pro"): (1920, 1080),
    ("9:16", "std"): (720, 1280),
    ("9:16", "pro"): (1080, 1920),
    ("1:1", "std"): (960, 960),
    ("1:1", "pro"): (1440, 1440),
}
"""Pixels of a clip, width and height, by aspect ratio and mode (gateway.md, "Output sizes")."""


@dataclass(frozen=True)
class ImageFacts:
    """An image as measured: its format as Pillow names it, its size in pixels and in bytes."""

    format: str
    width: int
    height: int
    bytes: int


@dataclass(frozen=True)
class VideoFacts:
    """A video as probed: seconds, pixels, frames per second, bytes."""

    seconds: float
    width: int
    height: int
    frames_per_second: float
    bytes: int


def image_facts(data: bytes) -> ImageFacts:
    """Measures an image from its bytes; only its header is decoded.

    Raises:
        InvalidMedia: the bytes are no image.
    """
    from PIL import Image, UnidentifiedImageError  # slow to import, and most requests carry URLs

    try:
        with Image.open(io.BytesIO(data)) as image:
            return ImageFacts(image.format or "unknown", image.width, image.height, len(data))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InvalidMedia(f"not a readable image: {type(error).__name__}") from error


def image_facts_of_base64(text: str) -> ImageFacts:
    """Decodes and measures an image sent as Base64 (gateway.md, rule 10).

    Raises:
        InvalidMedia: the text is not Base64, or what it holds is no image.
    """
    if text.startswith("data:"):
        raise InvalidMedia("a data: URI is neither a URL nor Base64; send what follows the comma alone")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidMedia(f"neither an http(s) URL nor Base64: {error}") from error
    return image_facts(data)


def image_refusal(facts: ImageFacts) -> str | None:
    """Why the gateway does not take this image, or None (gateway.md, `image_list[]`)."""
    if facts.format not in ("JPEG", "MPO", "PNG"):  # MPO is what many cameras write as .jpg
        return f"it is {facts.format}; only JPEG and PNG are taken"
    if facts.bytes > MAX_IMAGE_BYTES:
        return f"it has {facts.bytes / 1024 / 1024:.1f} MB; at most 10 MB are taken"
    if min(facts.width, facts.height) < MIN_IMAGE_SIDE:
        return f"it is {facts.width}x{facts.height} pixels; each side needs at least {MIN_IMAGE_SIDE}"
    if max(facts.width, facts.height) > MAX_IMAGE_RATIO * min(facts.width, facts.height):
        return f"it is {facts.width}x{facts.height} pixels; its sides may differ by 1:2.5 at most"
    return None


def video_refusal(facts: VideoFacts, *, model: str, refer_type: str) -> str | None:
    """Why the gateway does not take this video as input, or None (gateway.md, `video_list[]`).

    Args:
        facts: the probed file.
        model: as in the request; V3 takes longer videos as `feature`.
        refer_type: `base` or `feature`.
    """
    most = 15 if refer_type == "feature" and model == "kling-v3-omni" else 10
    if not MIN_VIDEO_SECONDS - SECONDS_TOLERANCE <= facts.seconds <= most + SECONDS_TOLERANCE:
        return f"it is {facts.seconds:.2f} s long; as {refer_type}, {MIN_VIDEO_SECONDS} to {most} s are taken"
    if min(facts.width, facts.height) < MIN_VIDEO_SIDE or max(facts.width, facts.height) > MAX_VIDEO_SIDE:
        return f"it is {facts.width}x{facts.height} pixels; both sides have to be {MIN_VIDEO_SIDE} to {MAX_VIDEO_SIDE}"
    if not MIN_VIDEO_RATE - 0.05 <= facts.frames_per_second <= MAX_VIDEO_RATE + 0.05:  # 23.976 counts as 24
        return f"it has {facts.frames_per_second:g} frames a second; 24 to 60 are taken"
    if facts.bytes > MAX_VIDEO_BYTES:
        return f"it has {facts.bytes / 1024 / 1024:.0f} MB; at most 200 MB are taken"
    return None
