"""What the gateway answers: tasks, and the errors that refusals stand for (gateway.md, "Answers").

Pure: status, headers and text in; a task's data or the error to raise out. Fields that the gateway may leave out are
optional, fields nobody knows are ignored.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from prefect_kling.gateway.errors import (
    AuthenticationFailed,
    GatewayUnavailable,
    InsufficientCredits,
    InvalidRequest,
    KlingError,
    RateLimited,
    TaskNotFound,
)

__all__ = ["MAX_RETRY_AFTER", "MAX_TASK_ID", "Task", "error_for", "read_data", "read_task", "retry_after"]

MAX_RETRY_AFTER: Final = 60.0
MAX_TASK_ID: Final = 255
_OK: Final = 200
_UPSTREAM: Final[dict[int, type[KlingError]]] = {
    1100: InsufficientCredits,
    1101: InsufficientCredits,
    1102: InsufficientCredits,
    1302: RateLimited,
    1303: RateLimited,
    1304: AuthenticationFailed,
}
_UPSTREAM_IN_TEXT = re.compile(r"(?<!\d)(" + "|".join(map(str, _UPSTREAM)) + r")(?!\d)")
_MEANING: Final[dict[type[KlingError], str]] = {
    InvalidRequest: "The gateway refuses the request",
    AuthenticationFailed: "The gateway refuses the key; check APIMODELS_API_KEY or the credentials block",
    InsufficientCredits: "The account cannot pay; top it up and run again",
    TaskNotFound: "The gateway does not know this task or address",
    RateLimited: "The gateway asks to slow down",
    GatewayUnavailable: "The gateway gave no usable answer",
}


@dataclass(frozen=True)
class Task:
    """A generation as the gateway describes it.

    Attributes:
        task_id: the gateway's name for it.
        state: `pending`, `processing`, `completed` or `failed`; anything else is a state that gateway.md does not know.
        model: as the gateway writes it, with or without its prefix `kling-video/`.
        result_urls: where the clip can be had, for 7 days; empty unless completed.
        created_at: when the gateway accepted it, UTC.
        completed_at: when it ended, UTC.
        fail_code: the upstream's code of a failure.
        fail_message: why it failed, in the gateway's words.
        retryable: whether the gateway thinks that asking again could help.
        param: the request as the gateway stored it, a JSON string.
    """

    task_id: str
    state: str
    model: str | None = None
    result_urls: tuple[str, ...] = ()
    created_at: datetime | None = None
    completed_at: datetime | None = None
    fail_code: str | None = None
    fail_message: str | None = None
    retryable: bool | None = None
    param: str | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in ("completed", "failed")

    @property
    def known(self) -> bool:
        """Whether its state is one that gateway.md names."""
        return self.state in ("pending", "processing", "completed", "failed")


def read_task(data: Mapping[str, Any]) -> Task:
    """Reads the `data` of a create, a poll or a callback.

    Raises:
        GatewayUnavailable: there is no task id in it, or none that could be written down and asked for.
    """
    task_id = data.get("taskId")
    if not isinstance(task_id, str) or not task_id:
        raise GatewayUnavailable("The gateway's answer names no task")
    if len(task_id) > MAX_TASK_ID or not task_id.isprintable():
        raise GatewayUnavailable(f"The gateway's answer names a task by what is no id: {ascii(task_id)[:300]}")
    retryable = data.get("retryable")
    return Task(
        task_id=task_id,
        state=_text(data.get("state")) or "pending",
        model=_text(data.get("model")),
        result_urls=_result_urls(data),
        created_at=_time(data.get("createTime")),
        completed_at=_time(data.get("completeTime")),
        fail_code=_text(data.get("failCode")),
        fail_message=_text(data.get("failMsg")),
        retryable=retryable if isinstance(retryable, bool) else None,
        param=_text(data.get("param")),
    )


def read_data(status: int, headers: Mapping[str, str], text: str, *, now: datetime) -> dict[str, Any]:
    """The `data` of a good answer.

    Args:
        status: HTTP status.
        headers: with case-insensitive or lower-case names.
        text: the body.
        now: aware; what an HTTP date in Retry-After is measured from.

    Raises:
        KlingError: the one class that `error_for` gives for this answer.
    """
    error = error_for(status, headers, text, now=now)
    if error is not None:
        raise error
    data = json.loads(text)["data"]
    return data if isinstance(data, dict) else {"data": data}


def error_for(status: int, headers: Mapping[str, str], text: str, *, now: datetime) -> KlingError | None:
    """The error that an answer stands for, or None for a good one (gateway.md, table of statuses).

    A 2xx with another `code` in its envelope and no task id is judged by that code. A body that is no JSON envelope,
    such as a proxy's HTML page, is no usable answer whatever its status says, unless the status itself is a refusal.
    """
    envelope = _envelope(text)
    message = _message(envelope)
    code = _number(envelope.get("code")) if envelope else None
    data = envelope.get("data") if envelope else None
    accepted = 200 <= status < 300
    named = isinstance(data, dict) and bool(data.get("taskId"))
    if accepted and data is not None and (code in (None, _OK) or named):
        return None
    upstream = _upstream(message, code)
    kind = _kind(code if accepted and code is not None else status, upstream)
    if not message:
        message = "no message" if envelope is not None else _describe(headers, text)
    shown = upstream or (code if code != status else None)
    said = f"{_MEANING[kind]} (HTTP {status}{'' if shown is None else f', code {shown}'}): {message}"
    if kind is RateLimited:
        return RateLimited(said, retry_after=retry_after(headers, now=now), status=status, code=shown)
    return kind(said, status=status, code=shown)


def retry_after(headers: Mapping[str, str], *, now: datetime) -> float | None:
    """Seconds to wait as the `Retry-After` header asks, in seconds or as an HTTP date; at most 60, at least 0."""
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    if value.isascii() and value.replace(".", "", 1).isdigit():
        return min(float(value), MAX_RETRY_AFTER)
    try:
        at = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return max(0.0, min((at - now).total_seconds(), MAX_RETRY_AFTER))


def _kind(judged: int, upstream: int | None) -> type[KlingError]:
    match judged:
        case 401 | 403:
            return AuthenticationFailed
        case 402:
            return InsufficientCredits
        case 404 | 410:
            return TaskNotFound
        case 408:
            return GatewayUnavailable
        case 429:
            return _UPSTREAM[upstream] if upstream else RateLimited
        case _ if judged in _UPSTREAM:
            return _UPSTREAM[judged]
        case _ if 400 <= judged < 500:
            return InvalidRequest
        case _:
            return GatewayUnavailable


def _upstream(message: str, code: int | None) -> int | None:
    if code in _UPSTREAM:
        return code
    found = _UPSTREAM_IN_TEXT.search(message)
    return int(found.group()) if found else None


def _envelope(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _message(envelope: dict[str, Any] | None) -> str:
    if not envelope:
        return ""
    error = envelope.get("error")
    found = envelope.get("msg") or (error.get("message") if isinstance(error, dict) else error)
    return " ".join(str(found).split())[:500] if found else ""


def _describe(headers: Mapping[str, str], text: str) -> str:
    kind = headers.get("content-type", "").partition(";")[0].strip() or "no content type"
    return f"the answer is not the gateway's JSON but {len(text):,} characters of {kind}"


def _result_urls(data: Mapping[str, Any]) -> tuple[str, ...]:
    urls = _urls(data.get("resultUrls"))
    if not urls and isinstance(data.get("resultJson"), str):
        urls = _urls((_envelope(data["resultJson"]) or {}).get("resultUrls"))
    return urls


def _urls(value: object) -> tuple[str, ...]:
    return tuple(url for url in value if isinstance(url, str) and url) if isinstance(value, list) else ()


def _text(value: object) -> str | None:
    return None if value is None or value == "" else str(value)


def _number(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10 else None


def _time(value: object) -> datetime | None:
    """Milliseconds since 1970, as the gateway writes times."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return datetime.fromtimestamp(value / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None
