"""Buying one video, once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from prefect import runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from prefect_kling.blocks import KlingStudio
from prefect_kling.callbacks.listening import listener_of
from prefect_kling.clips import file_name
from prefect_kling.gateway.prices import PriceTable, billed_seconds, micro_usd, upper_cost
from prefect_kling.gateway.requests import OmniVideoRequest
from prefect_kling.ledger.buying import Buyer, OnUncertain
from prefect_kling.ledger.desk import Desk, Logger, desk
from prefect_kling.ledger.homecoming import bring_home, come_home
from prefect_kling.ledger.keys import base_key, canonical, key_of
from prefect_kling.ledger.money import Limits
from prefect_kling.ledger.purchases import Order, Purchase
from prefect_kling.tasks.live import live_state
from prefect_kling.tasks.results import Submitted
from prefect_kling.tasks.retries import RETRIES, is_retryable_create

__all__ = ["create_video"]


@task(name="create video", cache_policy=NO_CACHE, **{**RETRIES, "retry_condition_fn": is_retryable_create})
async def create_video(
    request: dict[str, Any],
    studio: KlingStudio | None = None,
    *,
    edition: str | None = None,
    take: int = 1,
    order: Order | None = None,
    limits: Limits | None = None,
    on_uncertain: OnUncertain | None = None,
) -> Submitted:
    """Makes sure that one video is bought, and returns as soon as the gateway has accepted it.

    The same request in the same edition is the same purchase: a retry, a rerun, another process or another machine with
    the same ledger joins what was bought and pays nothing. An answer that was lost is never answered by a second POST.

    Args:
        request: the body as gateway.md describes it, such as `OmniVideoRequest.body()` gives; JSON-native.
        studio: whose account pays; None for the environment's.
        edition: separates purchases that are meant to give new clips; None for "main".
        take: a number from 1; another take of the same request is another purchase.
        order: what the ledger writes down; None makes it of the request, edition and take.
        limits: budgets and slots, in place of the studio's.
        on_uncertain: what to do where an answer is lost, in place of what the studio says.

    Raises:
        InvalidRequest: the request breaks a rule; it was not sent, or was refused.
        AuthenticationFailed, InsufficientCredits, BudgetExceeded: nothing was bought.
        PurchaseUncertain: the answer was lost, and no callback has told of the task, which may exist. The text says how
            to settle it.
        TaskNotFound: it was bought, and its result is lost.
        RateLimited, GatewayUnavailable, LedgerUnavailable: nothing was bought, in spite of repeats.
    """
    studio = studio or KlingStudio.from_environment()
    logger = get_run_logger()
    ours = await desk(studio.settings())
    async with ours.client(logger) as client:
        checked = client.validate(request)
    wanted = order or _ordered(checked, ours, edition or "main", take)
    buyer = await _buyer(ours, logger)
    buyer = replace(buyer, limits=limits or buyer.limits, on_uncertain=on_uncertain or buyer.on_uncertain)
    async with live_state("Queued", f"Waits for one of {buyer.limits.in_flight} slots, or for the gateway's answer"):
        purchase = await buyer.buy(wanted, checked)
    how = "Bought" if purchase.order.run == wanted.run else "Joined"
    logger.info("%s %s: task %s, %s", how, purchase.named, purchase.task_id, purchase.order.described)
    return Submitted(purchase=purchase.id, task_id=str(purchase.task_id))


async def _buyer(ours: Desk, logger: Logger) -> Buyer:
    """A buyer that listens for callbacks before its first POST, where the studio has any."""
    listener = await listener_of(ours)

    async def home(purchase: Purchase) -> Purchase:
        async with ours.keeper(logger) as keeper:
            if listener is None or not listener.expects(purchase):
                return await bring_home(keeper, purchase)  # it may have been called back before
            async with listener.alarm(purchase) as alarm:
                return await come_home(keeper, purchase, alarm, max_wait=ours.settings.max_wait)

    return ours.buyer(logger, callback="" if listener is None else listener.base, come_home=home)


def _ordered(request: OmniVideoRequest, ours: Desk, edition: str, take: int) -> Order:
    body = canonical(request.body())
    return Order(
        edition=edition,
        key=key_of(base_key(body), take),
        request=body,
        model=request.model,
        seconds=billed_seconds(request),
        micro_usd=micro_usd(upper_cost(request, prices=PriceTable.load(ours.settings.prices))),
        take=take,
        folder=f"clips/{file_name(edition)}",
        run=str(runtime.flow_run.id or ""),
    )
