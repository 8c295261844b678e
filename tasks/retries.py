"""When Prefect may repeat a task: only where the error says that the same call, unchanged, can help."""

from __future__ import annotations

from typing import Any

from prefect import Task
from prefect.client.schemas.objects import State, TaskRun

from prefect_kling.gateway.errors import KlingError

__all__ = ["RETRIES", "is_retryable"]


async def is_retryable(_task: Task[..., Any], _task_run: TaskRun, state: State[Any]) -> bool:
    """Prefect's `retry_condition_fn` for every task here.

    A create is among them: its errors are retryable only where the gateway surely bought nothing.
    """
    error = await state.aresult(raise_on_failure=False)
    return isinstance(error, KlingError) and error.retryable


RETRIES: dict[str, Any] = {
    "retries": 2,
    "retry_delay_seconds": [2, 10],
    "retry_jitter_factor": 0.3,
    "retry_condition_fn": is_retryable,
}
