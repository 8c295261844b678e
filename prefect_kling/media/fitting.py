"""An image that the gateway takes, made from one that it would not."""

from __future__ import annotations

from pathlib import Path

from prefect_kling.media.scratch import publish, scratch
from prefect_kling.media.untrusted import ProbeLimits, ask

__all__ = ["IMAGE_LIMITS", "fitted_image"]

IMAGE_LIMITS = ProbeLimits(
    # A photo has more pixels than any clip, and needs three times their bytes at least twice.
    pixels=100_000_000,
    memory=1536 * 1024 * 1024,
    file_bytes=256 * 1024 * 1024,
    cpu_seconds=60,
    seconds=90.0,
)
"""What an image may cost to make fit."""


async def fitted_image(source: Path, folder: Path) -> Path:
    """Makes an image fit the gateway's limits (gateway.md, `image_list[]`), where it does not.

    Another format becomes PNG or JPEG, of which the first picture counts; what is turned by its EXIF data is turned in
    truth; transparency becomes white; a shape beyond 1:2.5 loses both ends of its longer side; sides under 300 pixels
    are scaled up; more than 10 MB become JPEG, of lower quality and at last smaller. The same image gives the same
    bytes.

    Args:
        source: the image; not trusted, so it is decoded in a confined child process. An image that fits is decoded as
            well, so that one that is broken is known before a clip is bought with it.
        folder: where a new image goes, as `fitted.png` or `fitted.jpg`.

    Returns:
        `source` itself where it fits as it is, else the new image.

    Raises:
        InvalidMedia: it is no image, is broken, or is too large to be made fit; the text names it and says why.
        OSError: the new image cannot be written.
    """
    with scratch(folder / "fitted.png") as work:
        [found] = await ask("fit", [source], IMAGE_LIMITS, out=work)
        if not found["suffix"]:
            return source
        name = folder / f"fitted{'.jpg' if found['suffix'] == '.jpg' else '.png'}"
        publish(work, name)
    return name
