"""Taking the last frame of a clip, for the next shot to start on."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from prefect_kling.blocks import KlingStudio
from prefect_kling.clips import Clip, file_name
from prefect_kling.media.frames import extract_last_frame as extract
from prefect_kling.tasks.results import Still

__all__ = ["extract_last_frame"]


@task(name="last frame", cache_policy=NO_CACHE)
async def extract_last_frame(clip: Clip, studio: KlingStudio | None = None) -> Still:
    """Stores the exact last frame that a clip shows, as an image the gateway takes.

    Raises:
        InvalidMedia: the clip is gone, changed, or cannot be decoded.
        OSError: the storage cannot be written.
    """
    studio = studio or KlingStudio.from_environment()
    storage = studio.get_storage()
    async with storage.at_hand(clip.path, sha256=clip.sha256) as file, storage.incoming() as folder:
        image = await extract(file, folder / "last.png")
        location = await storage.publish(image, f"frames/{file_name(clip.task_id)}-last{image.suffix}")
    return Still(path=location, media_type="image/png" if location.endswith(".png") else "image/jpeg")
