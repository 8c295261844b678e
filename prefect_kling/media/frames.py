"""One frame of a clip as an image, exact to the frame."""

from __future__ import annotations

from pathlib import Path

from prefect_kling.media.scratch import publish, scratch
from prefect_kling.media.untrusted import ProbeLimits, ask

__all__ = ["extract_last_frame"]


async def extract_last_frame(clip: Path, out: Path, *, limits: ProbeLimits | None = None) -> Path:
    """Writes the very last frame that a player shows, turned and with square pixels as the player shows it.

    It is a PNG, unless that would exceed the 10 MB the gateway takes (gateway.md, `image_list[]`); then it is a JPEG
    at the highest quality that fits. The name follows the content: whatever suffix `out` has becomes `.png` or `.jpg`.

    Args:
        clip: an MP4; not trusted, so it is decoded in a confined child process.
        out: where the image goes. Its name appears only once the image is whole.
        limits: what decoding may cost.

    Returns:
        The path of the image, which is `out` where its suffix fits.

    Raises:
        InvalidMedia: the clip is broken or hostile; the text names it and says why.
        OSError: the image cannot be written.
    """
    with scratch(out) as work:
        [found] = await ask("last-frame", [clip], limits or ProbeLimits(), out=work)
        name = out.with_suffix(".jpg" if found["suffix"] == ".jpg" else ".png")
        publish(work, name)
    return name
