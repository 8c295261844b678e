"""The gateway's call at a task's end, read from bytes that anybody may have sent (gateway.md, "Callback"). Pure.

Nothing of it is believed: it only says which task is worth a GET.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, ValidationError

from prefect_kling.gateway.answers import MAX_TASK_ID

__all__ = ["MAX_CALLBACK_BYTES", "Callback", "NoCallback", "read_callback"]

MAX_CALLBACK_BYTES: Final = 64 * 1024


class NoCallback(ValueError):
    """What came is no callback of the gateway's; the text says why, and quotes nothing of it."""


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("it is no id")
    return value


class Callback(_Part):
    """What a callback says: a task, and how it is said to have ended."""

    taskId: Annotated[str, StringConstraints(min_length=1, max_length=MAX_TASK_ID), AfterValidator(_printable)]  # noqa: N815 - as on the wire
    state: Literal["completed", "failed"]
    param: str | None = None
    resultJson: str | None = None  # noqa: N815 - as on the wire


class _Envelope(_Part):
    code: int
    data: Callback


def read_callback(raw: bytes) -> Callback:
    """Reads a callback's body.

    Args:
        raw: the body; at most 64 kB.

    Raises:
        NoCallback: it is too large, no JSON, or of another shape, such as the upstream's own callback.
    """
    if len(raw) > MAX_CALLBACK_BYTES:
        raise NoCallback(f"it has more than {MAX_CALLBACK_BYTES} bytes")
    try:
        return _Envelope.model_validate_json(raw).data
    except ValidationError as error:
        # Not their text: it quotes what a stranger has sent.
        places = [".".join(map(str, found["loc"])) or "the body" for found in error.errors(include_input=False)]
        raise NoCallback(f"it is not the gateway's: {', '.join(places)[:200]}") from None
