"""Joining clips into the film."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from prefect_kling.blocks import KlingStudio
from prefect_kling.clips import Clip
from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.media.join import CutClip, join
from prefect_kling.tasks.results import Film

__all__ = ["join_clips"]


@task(name="join", cache_policy=NO_CACHE)
async def join_clips(
    clips: Sequence[Clip],
    studio: KlingStudio | None = None,
    *,
    name: str = "films/film.mp4",
    titles: Sequence[str] | None = None,
) -> Film:
    """Joins stored clips, in order, into one MP4 with a chapter each, and stores it.

    Pictures are copied where that is safe and encoded anew where clips differ; sound is always rebuilt as one track.

    Args:
        clips: what `download_video` returned, at least one.
        studio: whose storage; None for the environment's.
        name: of the film in storage, with `/` between folders; written over where it exists.
        titles: of the chapters; None numbers them.

    Raises:
        InvalidMedia: a clip is gone, changed or broken, or the film did not come out exact.
        OSError: the storage cannot be written.
    """
    studio = studio or KlingStudio.from_environment()
    storage = studio.get_storage()
    names = titles or [f"Shot {n}" for n in range(1, len(clips) + 1)]
    async with AsyncExitStack() as stack:
        try:
            cut = [
                CutClip(await stack.enter_async_context(storage.at_hand(clip.path, sha256=clip.sha256)), title)
                for clip, title in zip(clips, names, strict=True)
            ]
        except InvalidMedia as error:
            raise InvalidMedia(
                f"{error}. Remove it and run again: it is fetched once more from the gateway, which keeps it for 7 "
                "days, and costs nothing"
            ) from error
        folder = await stack.enter_async_context(storage.incoming())
        film = await join(cut, folder / "film.mp4")
        location = await storage.publish(film.path, name)
    get_run_logger().info(
        "Film %s: %d frames, %.2f s, %s (%s)",
        storage.link(location),
        film.frames,
        film.seconds,
        film.method,
        film.reason,
    )
    return Film(
        path=location,
        frames=film.frames,
        seconds=float(film.seconds),
        width=film.width,
        height=film.height,
        bytes=film.bytes,
        sha256=film.sha256,
        method=film.method,
        reason=film.reason,
    )
