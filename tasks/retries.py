"""When Prefect may repeat a task: only where the error says that the same call, unchanged, can help."""

from __future__ import annotations

from typing import Any

from prefect import Task
from prefect.client.schemas.objects import State, TaskRun

from prefect_kling.gateway.errors import GenerationFailed, KlingError, RateLimited

__all__ = ["RETRIES", "is_retryable", "is_retryable_create"]


async def is_retryable(_task: Task[..., Any], _task_run: TaskRun, state: State[Any]) -> bool:
    """Prefect's `retry_condition_fn`. A create's errors are retryable only where the gateway surely bought nothing."""
    error = await state.aresult(raise_on_failure=False)
    # What the gateway calls retryable of a failed generation is to buy it again; waiting again changes nothing.
    return isinstance(error, KlingError) and error.retryable and not isinstance(error, GenerationFailed)


async def is_retryable_create(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """The same for a create, which has put up with 429 for `max_wait` by itself; repeats would treble that."""
    error = await state.aresult(raise_on_failure=False)
    return not isinstance(error, RateLimited) and await is_retryable(task, task_run, state)


RETRIES: dict[str, Any] = {
    "retries": 2,
    "retry_delay_seconds": [2, 10],
    "retry_jitter_factor": 0.3,
    "retry_condition_fn": is_retryable,
}
