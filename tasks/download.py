"""Bringing a result home: streamed, measured, probed, and only then in storage."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from prefect_kling.blocks import KlingStudio
from prefect_kling.clips import Clip, file_name
from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.gateway.results import fetch
from prefect_kling.media.probe import probe
from prefect_kling.tasks.results import Generated
from prefect_kling.tasks.retries import RETRIES

__all__ = ["download_video"]


@task(name="download video", cache_policy=NO_CACHE, **RETRIES)
async def download_video(generated: Generated, studio: KlingStudio | None = None, *, folder: str = "clips") -> Clip:
    """Downloads a result into the studio's storage.

    The clip appears there under its task id only when it is whole and a video; downloading it again writes the same
    file again.

    Args:
        generated: what `wait_for_video` returned.
        studio: whose storage; None for the environment's.
        folder: in storage, with `/` between parts.

    Raises:
        TaskNotFound: the result is gone; it is kept for 7 days.
        GatewayUnavailable: it could not be had this time.
        InvalidMedia: what came is no video that can be joined.
        OSError: the storage cannot be written.
    """
    studio = studio or KlingStudio.from_environment()
    storage = studio.get_storage()
    name = f"{folder}/{file_name(generated.task_id)}.mp4"
    async with storage.incoming() as incoming:
        file = incoming / "clip.mp4"
        fetched = await fetch(generated.url, file)
        try:
            (facts,) = await probe([file])
        except InvalidMedia as error:
            # The file is gone by the time somebody reads this.
            raise InvalidMedia(str(error).replace(str(file), f"The result of task {generated.task_id}")) from error
        location = await storage.publish(file, name)
    width, height = facts.video.shown_size
    get_run_logger().info(
        "Kept %s: %.2f s, %dx%d, %.1f MB", location, facts.seconds, width, height, fetched.bytes / 1e6
    )
    return Clip(
        path=location,
        sha256=fetched.sha256,
        bytes=fetched.bytes,
        seconds=float(facts.seconds),
        frames=facts.video.frames,
        width=width,
        height=height,
        task_id=generated.task_id,
        url=generated.url,
        url_expires_at=generated.url_expires_at,
    )
