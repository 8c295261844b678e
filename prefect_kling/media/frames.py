"""One frame of a clip as an image, exact to the frame."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prefect_kling.media.fading import FADING, last_before_black
from prefect_kling.media.scratch import publish, scratch
from prefect_kling.media.untrusted import ProbeLimits, ask

__all__ = ["LastFrame", "extract_last_frame", "take_last_frame"]

FADE_SECONDS = 2.0


@dataclass(frozen=True)
class LastFrame:
    """A frame at the end of a clip, as an image.

    Attributes:
        image: where it is.
        number: which of the frames that a player shows it is, counted from 1.
        skipped: how many frames after it are black or fade to it; 0 where it is the very last.
    """

    image: Path
    number: int
    skipped: int = 0


async def extract_last_frame(clip: Path, out: Path, *, limits: ProbeLimits | None = None) -> Path:
    """Writes the last frame before a clip's end goes black; see `take_last_frame`, which also says which one that is.

    Returns:
        The path of the image, which is `out` where its suffix fits.
    """
    return (await take_last_frame(clip, out, limits=limits)).image


async def take_last_frame(clip: Path, out: Path, *, limits: ProbeLimits | None = None) -> LastFrame:
    """Writes the last frame that a player shows, turned and with square pixels as the player shows it.

    Where the clip's end cuts or fades to black, it is the last frame before that begins; a clip that is dark or black
    throughout gives its very last one.

    It is a PNG, unless that would exceed the 10 MB the gateway takes (gateway.md, `image_list[]`); then it is a JPEG
    at the highest quality that fits. The name follows the content: whatever suffix `out` has becomes `.png` or `.jpg`.

    Args:
        clip: an MP4; not trusted, so it is decoded in a confined child process.
        out: where the image goes. Its name appears only once the image is whole.
        limits: what decoding may cost, each time the clip is decoded: once, or three times for a black end.

    Raises:
        InvalidMedia: the clip is broken or hostile; the text names it and says why.
        OSError: the image cannot be written.
    """
    limits = limits or ProbeLimits()
    with scratch(out) as work:
        [found] = await ask("last-frame", [clip], limits, out=work)
        number, skipped = int(found["number"]), 0
        # A brighter frame ends no fade, so that most clips are decoded once.
        if found["luma"] <= FADING:
            skipped, position = await _skipped(clip, limits)
            if skipped:
                [found] = await ask("frame", [clip], limits, out=work, position=position)
        name = out.with_suffix(".jpg" if found["suffix"] == ".jpg" else ".png")
        publish(work, name)
    return LastFrame(name, number - skipped, skipped)


async def _skipped(clip: Path, limits: ProbeLimits) -> tuple[int, int]:
    """How many frames of a dark end are left out, and the time in ticks of the one before."""
    [found] = await ask("lumas", [clip], limits)
    frames: list[tuple[int, float]] = [(int(pts), float(luma)) for pts, luma in found["lumas"]]
    window = max(round(FADE_SECONDS * float(found["rate"])), 1)
    chosen = last_before_black([luma for _, luma in frames], window)
    return len(frames) - 1 - chosen, frames[chosen][0]
