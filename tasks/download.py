"""Bringing a result home: streamed, measured, probed, and only then in storage."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from prefect_kling.blocks import KlingStudio
from prefect_kling.clips import Clip
from prefect_kling.ledger.desk import desk
from prefect_kling.tasks.live import live_state
from prefect_kling.tasks.results import Generated
from prefect_kling.tasks.retries import RETRIES

__all__ = ["download_video"]


@task(name="download video", cache_policy=NO_CACHE, **RETRIES)
async def download_video(generated: Generated, studio: KlingStudio | None = None) -> Clip:
    """Downloads a result into the studio's storage, unless it is there.

    The clip appears there under its task id only when it is whole and a video.

    Args:
        generated: what `wait_for_video` returned.
        studio: whose storage; None for the environment's.

    Raises:
        TaskNotFound: the result is gone, and the purchase is written down as lost.
        GatewayUnavailable: it could not be had this time.
        InvalidMedia: what came is no video that can be joined.
        OSError: the storage cannot be written.
    """
    studio = studio or KlingStudio.from_environment()
    ours = await desk(studio.settings())
    async with ours.keeper(get_run_logger()) as keeper, live_state("Downloading", f"Task {generated.task_id}"):
        kept = await keeper.keep(await ours.ledger.get(generated.purchase))
    assert kept.clip is not None  # noqa: S101 - what `stored` means
    return kept.clip
