"""The first picture of a clip, or some from it side by side, as small as they are in a table."""

from __future__ import annotations

import errno
from typing import Any

from prefect_kling.media.confined.frames import frame_at, shown_frames
from prefect_kling.media.confined.opening import Task, Unwritable, open_clip
from prefect_kling.media.confined.pictures import orientation, plausible_aspect, square_rgb, upright

__all__ = ["thumbnail"]

QUALITY = 55


def thumbnail(path: str, task: Task) -> dict[str, Any]:
    """Writes the first frame that a player shows as the WebP `name` in the folder `out`.

    Args:
        path: the clip.
        task: `frames`: how many from the first to the last, side by side, each of at most `pixels`.
    """
    from PIL import Image

    container, video, _ = open_clip(path, task["limits"])
    with container:
        shown = shown_frames(container, video)
        images: list[Any] = []
        for pts in _spread(sorted(shown), task["frames"]):
            frame = frame_at(container, video, pts, shown[pts])
            images.append(upright(square_rgb(frame, plausible_aspect(video), task["pixels"]), *orientation(frame)))
    image = Image.new("RGB", (sum(one.width for one in images), images[0].height))
    for number, one in enumerate(images):
        image.paste(one, (number * one.width, 0))
    try:
        image.save(f"{task['out']}/{task['name']}", "WEBP", quality=QUALITY)
    except OSError as error:
        raise Unwritable(error.errno or errno.EIO) from error
    return {}


def _spread(times: list[int], count: int) -> list[int]:
    """So many of them, evenly chosen, the first and the last among them."""
    return [times[number * (len(times) - 1) // max(count - 1, 1)] for number in range(count)]
