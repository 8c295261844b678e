"""Waiting for a video that was bought."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from prefect_kling.blocks import KlingStudio
from prefect_kling.callbacks.alarms import Alarm
from prefect_kling.callbacks.listening import Listener, listener_of
from prefect_kling.gateway.answers import Task
from prefect_kling.gateway.errors import InvalidRequest
from prefect_kling.ledger.desk import desk
from prefect_kling.ledger.purchases import Purchase
from prefect_kling.tasks.live import live_state
from prefect_kling.tasks.results import Generated, Submitted
from prefect_kling.tasks.retries import RETRIES

__all__ = ["wait_for_video"]


@task(name="wait for video", cache_policy=NO_CACHE, **RETRIES)
async def wait_for_video(submitted: Submitted | str, studio: KlingStudio | None = None) -> Generated:
    """Waits until a generation has completed. Waiting again, after a timeout or a crash, costs nothing.

    Args:
        submitted: what `create_video` returned, or the id of a task that is in the ledger.
        studio: whose account it was bought on; None for the environment's.

    Raises:
        GenerationFailed: the gateway made no clip; failed tasks are not billed.
        GenerationTimeout: it did not end within the studio's `max_wait`; it goes on at the gateway.
        TaskNotFound: the gateway no longer knows it.
        InvalidRequest: the ledger has no such task.
    """
    studio = studio or KlingStudio.from_environment()
    settings = studio.settings()
    logger = get_run_logger()
    ours = await desk(settings)
    if isinstance(submitted, str):
        found = await ours.ledger.by_task(ours.account, submitted)
        if found is None:
            raise InvalidRequest(f"The ledger of account '{settings.account}' has no task {submitted}")
    else:
        found = await ours.ledger.get(submitted.purchase)

    name = f"Task {found.task_id} of {found.named}"
    async with (
        ours.keeper(logger) as keeper,
        _alarm(await listener_of(ours), found) as alarm,
        live_state("Generating", name) as live,
    ):

        async def say(state: Task) -> None:
            logger.info("Task %s of %s is %s", state.task_id, found.named, state.state)
            if live is not None:
                live.say("Queued" if state.state == "pending" else "Generating", name)

        done = await keeper.wait(
            found, alarm=alarm, poll_interval=settings.poll_interval, max_wait=settings.max_wait, on_state=say
        )
    return Generated(purchase=done.id, task_id=str(done.task_id))


def _alarm(listener: Listener | None, purchase: Purchase) -> AbstractAsyncContextManager[Alarm | None]:
    """An alarm for a purchase's callback, where one comes to this process."""
    if listener is None or not listener.expects(purchase):
        return nullcontext()
    return listener.alarm(purchase)
