"""Waiting for a video that was bought."""

from __future__ import annotations

from datetime import UTC, datetime

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from prefect_kling.blocks import KlingStudio
from prefect_kling.clips import RESULT_LIFE, RESULT_MARGIN
from prefect_kling.gateway.answers import Task
from prefect_kling.gateway.waiting import wait_for
from prefect_kling.tasks.results import Generated, Submitted
from prefect_kling.tasks.retries import RETRIES

__all__ = ["wait_for_video"]


@task(name="wait for video", cache_policy=NO_CACHE, **RETRIES)
async def wait_for_video(submitted: Submitted | str, studio: KlingStudio | None = None) -> Generated:
    """Waits until a generation has completed. Waiting again, after a timeout or a crash, costs nothing.

    Args:
        submitted: what `create_video` returned, or a task id.
        studio: whose account it was bought on; None for the environment's.

    Raises:
        GenerationFailed: the gateway made no clip; failed tasks are not billed.
        GenerationTimeout: it did not end within the studio's `max_wait`; it goes on at the gateway.
        TaskNotFound: the gateway does not know it.
    """
    studio = studio or KlingStudio.from_environment()
    settings = studio.settings()
    logger = get_run_logger()
    task_id = submitted if isinstance(submitted, str) else submitted.task_id

    async def say(state: Task) -> None:
        logger.info("Task %s is %s", task_id, state.state)

    async with studio.get_client() as client:
        done = await wait_for(
            client,
            task_id,
            poll_interval=settings.poll_interval,
            max_wait=settings.max_wait,
            on_state=say,
            logger=logger,
        )
    completed = done.completed_at or datetime.now(UTC)
    return Generated(
        task_id=done.task_id, url=done.result_urls[0], url_expires_at=completed + RESULT_LIFE - RESULT_MARGIN
    )
