"""Taking the last frame of a clip, for the next shot to start on."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from prefect_kling.blocks import KlingStudio
from prefect_kling.clips import Clip, file_name
from prefect_kling.media.frames import take_last_frame
from prefect_kling.tasks.results import Still

__all__ = ["extract_last_frame"]


@task(name="last frame", cache_policy=NO_CACHE)
async def extract_last_frame(clip: Clip, studio: KlingStudio | None = None) -> Still:
    """Stores the exact last frame that a clip shows before it ends or goes black, as an image the gateway takes.

    Raises:
        InvalidMedia: the clip is gone, changed, or cannot be decoded.
        OSError: the storage cannot be written.
    """
    studio = studio or KlingStudio.from_environment()
    storage = studio.get_storage()
    async with storage.at_hand(clip.path, sha256=clip.sha256) as file, storage.incoming() as folder:
        last = await take_last_frame(file, folder / "last.png")
        if last.skipped:
            get_run_logger().info(
                "%s: the last %d frames are black or fade to it; took frame %d", clip.path, last.skipped, last.number
            )
        location = await storage.publish(last.image, f"frames/{file_name(clip.task_id)}-last{last.image.suffix}")
    return Still(path=location, media_type="image/png" if location.endswith(".png") else "image/jpeg")
