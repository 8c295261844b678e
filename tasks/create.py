"""Buying one video. The only task here that costs money."""

from __future__ import annotations

import asyncio
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from prefect_kling.blocks import KlingStudio
from prefect_kling.gateway.prices import PriceTable, estimate_cost
from prefect_kling.tasks.results import Submitted
from prefect_kling.tasks.retries import RETRIES, is_retryable_create

__all__ = ["create_video"]


@task(name="create video", cache_policy=NO_CACHE, **{**RETRIES, "retry_condition_fn": is_retryable_create})
async def create_video(request: dict[str, Any], studio: KlingStudio | None = None) -> Submitted:
    """Sends one request and returns as soon as the gateway has accepted it.

    Prefect repeats this task only after errors where nothing was bought. An answer that was lost is no such error.

    Args:
        request: the body as gateway.md describes it, such as `OmniVideoRequest.body()` gives; JSON-native.
        studio: whose account pays; None for the environment's.

    Raises:
        InvalidRequest: the request breaks a rule; it was not sent, or was refused.
        AuthenticationFailed, InsufficientCredits: nothing was bought.
        PurchaseUncertain: the answer was lost; the task may exist.
        RateLimited, GatewayUnavailable: nothing was bought, in spite of repeats.
    """
    studio = studio or KlingStudio.from_environment()
    settings = studio.settings()
    logger = get_run_logger()
    async with studio.get_client(patience=settings.max_wait, logger=logger) as client:
        checked = client.validate(request)
        # Whatever can fail comes before the purchase, and its task id is told at once: nothing may come between.
        usd = estimate_cost(checked, prices=PriceTable.load(settings.prices))
        length = "a base edit, at most" if checked.seconds is None else f"{checked.seconds} s of {checked.model},"
        try:
            created = await client.create(checked)
        except asyncio.CancelledError:
            logger.warning(
                "Cancelled while buying %s %.2f USD; look at the account's tasks before buying it again", length, usd
            )
            raise
        logger.info("Bought %s %.2f USD: task %s", length, usd, created.task_id)
    return Submitted(task_id=created.task_id)
