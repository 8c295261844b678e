"""The first picture of a clip, as small as it is in a table."""

from __future__ import annotations

import errno
from typing import Any

from prefect_kling.media.confined.frames import frame_at, shown_frames
from prefect_kling.media.confined.opening import Task, Unwritable, open_clip
from prefect_kling.media.confined.pictures import orientation, plausible_aspect, square_rgb, upright

__all__ = ["thumbnail"]

QUALITY = 55


def thumbnail(path: str, task: Task) -> dict[str, Any]:
    """Writes the first frame that a player shows, of at most `pixels`, as the WebP `name` in the folder `out`."""
    container, video, _ = open_clip(path, task["limits"])
    with container:
        frame = frame_at(container, video, *min(shown_frames(container, video).items()))
        mirrored, rotation = orientation(frame)
        image: Any = upright(square_rgb(frame, plausible_aspect(video), task["pixels"]), mirrored, rotation)
    try:
        image.save(f"{task['out']}/{task['name']}", "WEBP", quality=QUALITY)
    except OSError as error:
        raise Unwritable(error.errno or errno.EIO) from error
    return {}
