"""The life of a task: pending → processing → completed or failed (gateway.md, "Answers"). Pure: no clock, no I/O."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from prefect_kling.gateway.requests import OmniVideoRequest

__all__ = ["SimulatedTask", "State", "canonical_digest", "create_data", "generation_seconds", "poll_data", "task_id"]

State = Literal["pending", "processing", "completed", "failed"]

_NEXT: Mapping[State, tuple[State, ...]] = {
    "pending": ("processing",),
    "processing": ("completed", "failed"),
    "completed": (),
    "failed": (),
}

PENDING_SHARE = 0.2
"""Of the generation time, how much passes in `pending`."""

UNKNOWN_STATE = "archiving"


@dataclass
class SimulatedTask:
    """One accepted create.

    Attributes:
        task_id: as answered.
        request: what was ordered.
        body: as it arrived, for the answer's `param`.
        digest: of the body without `callback_url`, contents in place of hosted URLs (`canonical_digest`).
        take: how many creates with this digest there were, this one included.
        cost: micro-dollars held for it.
        created_at, finish_at: seconds since the epoch; `finish_at` is the earliest moment of completion.
        fault: the generation fault that strikes it, if any.
        polls: how often it was asked about and answered.
    """

    task_id: str
    request: OmniVideoRequest
    body: Mapping[str, Any]
    digest: str
    take: int
    cost: int
    created_at: float
    finish_at: float
    fault: str | None = None
    state: State = "pending"
    completed_at: float | None = None
    fail_code: str | None = None
    fail_msg: str | None = None
    video_duration: float | None = None
    sha256: str | None = None
    polls: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def processing_at(self) -> float:
        """When it leaves `pending`, in seconds since the epoch."""
        return self.created_at + (self.finish_at - self.created_at) * PENDING_SHARE

    @property
    def running(self) -> bool:
        """Whether it still counts against the concurrency limit."""
        return self.state in ("pending", "processing")

    def become(self, state: State, *, at: float) -> None:
        """Moves to the next state.

        Raises:
            ValueError: there is no way from here to there.
        """
        if state not in _NEXT[self.state]:
            raise ValueError(f"task {self.task_id}: {self.state} cannot become {state}")
        self.state = state
        if not _NEXT[state]:
            self.completed_at = at


def generation_seconds(seed: int, digest: str, take: int, *, seconds: float, jitter: float) -> float:
    """How long this take's generation lasts, in seconds: `seconds` give or take `jitter` of it, by seed."""
    return seconds * (1 + jitter * (2 * _chance(f"{seed}:jitter:{digest}:{take}") - 1))


def _chance(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def task_id(seed: int, digest: str, take: int, created_at: float) -> str:
    """An id that no other task has, also not of an earlier simulator with the same seed: the moment is in it."""
    millis = int(created_at * 1000)
    return f"{millis:x}{hashlib.sha256(f'{seed}:{digest}:{take}:{created_at!r}'.encode()).hexdigest()[:16]}"


def canonical_digest(body: Mapping[str, Any], content_of: Callable[[str], str | None]) -> str:
    """The sha256 of what a body orders: without `callback_url`, and with contents in place of hosted URLs.

    Args:
        body: the JSON as it arrived.
        content_of: gives the sha256 of what lies at a URL, or None where the URL itself stands for it.
    """

    def stand_in(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: stand_in(part) for name, part in value.items()}
        if isinstance(value, list):
            return [stand_in(part) for part in value]
        if isinstance(value, str) and (sha256 := content_of(value)) is not None:
            return f"sha256:{sha256}"
        return value

    told = stand_in({name: value for name, value in body.items() if name != "callback_url"})
    text = json.dumps(told, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def create_data(task: SimulatedTask) -> dict[str, Any]:
    """`data` of a create's answer."""
    return {"taskId": task.task_id, "state": "pending", "model": f"kling-video/{task.request.model}"}


def poll_data(task: SimulatedTask, result_url: str) -> dict[str, Any]:
    """`data` of a poll's answer; the callback's `data` is made of the same facts."""
    state = UNKNOWN_STATE if task.fault == "unknown-state" and task.state != "pending" else task.state
    done = state == "completed"
    return {
        "taskId": task.task_id,
        "state": state,
        "model": f"kling-video/{task.request.model}",
        "modelType": "TEXT_TO_VIDEO",
        "param": json.dumps(task.body, ensure_ascii=False),
        "resultUrls": [result_url] if done else [],
        "resultJson": _result_json(task, result_url) if done else None,
        "createTime": _millis(task.created_at),
        "completeTime": _millis(task.completed_at) if task.completed_at is not None else None,
        "costTime": _cost_time(task),
        "failCode": task.fail_code,
        "failMsg": task.fail_msg,
        "retryable": task.fault == "failed",
    }


def callback_payload(task: SimulatedTask, result_url: str) -> dict[str, Any]:
    """The whole JSON of a callback (gateway.md, "Callback"), for a task at its end."""
    data = poll_data(task, result_url)
    names = (
        "taskId", "model", "state", "param", "resultJson", "failCode", "failMsg", "costTime", "completeTime",
        "createTime",
    )  # fmt: skip
    return {"code": 200, "msg": "success", "data": {name: data[name] for name in names}}


def _result_json(task: SimulatedTask, result_url: str) -> str:
    return json.dumps({"resultUrls": [result_url], "videoDuration": task.video_duration})


def _cost_time(task: SimulatedTask) -> int | None:
    return None if task.completed_at is None else _millis(task.completed_at) - _millis(task.created_at)


def _millis(moment: float) -> int:
    return int(moment * 1000)
