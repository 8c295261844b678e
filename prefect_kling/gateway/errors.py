"""Every error this package raises on purpose, named by what the caller can do about it.

KlingError
├── InvalidRequest         400, other 4xx: change the request
├── AuthenticationFailed   401, 403, 1304: change the key, or what it may do
├── InsufficientCredits    402, 1100 to 1102: top up, then run again
├── TaskNotFound           404: wrong task id, or its result has expired
├── RateLimited            429, 1302, 1303: wait and repeat
├── GatewayUnavailable     408, 5xx, no connection, unreadable answer: repeat what is safe to repeat
├── PurchaseUncertain      a create whose answer was lost: find out before buying again
├── GenerationFailed       the gateway made no clip; nothing was billed
├── GenerationTimeout      the wait ended first; the task goes on, and running again continues to wait
├── BudgetExceeded         more money than the budget allows; nothing was bought
├── LedgerUnavailable      what was bought cannot be looked up or written down, so nothing is bought
├── InvalidMedia           a file is not the video or image it has to be
├── CheckFailed            a clip was bought and kept, and is not what its checks want: use it all the same, or retake
└── StoryboardError        the document says something that cannot be rendered
"""

from __future__ import annotations

__all__ = [
    "AuthenticationFailed",
    "BudgetExceeded",
    "CheckFailed",
    "GatewayUnavailable",
    "GenerationFailed",
    "GenerationTimeout",
    "InsufficientCredits",
    "InvalidMedia",
    "InvalidRequest",
    "KlingError",
    "LedgerUnavailable",
    "PurchaseUncertain",
    "RateLimited",
    "StoryboardError",
    "TaskNotFound",
]


class KlingError(Exception):
    """The root of the tree above; its text is one that an operator can act on.

    Attributes:
        retryable: whether repeating the same call, unchanged, can help.
        status: HTTP status of the gateway's answer, where there was one.
        code: the gateway's or the upstream's own error code, where the answer carried one.
        task_id: the gateway's task this is about, where known.
    """

    retryable: bool = False

    def __init__(
        self, message: str, *, status: int | None = None, code: int | str | None = None, task_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.task_id = task_id


class InvalidRequest(KlingError):
    """The gateway refuses the request as it stands. Nothing was bought."""


class AuthenticationFailed(KlingError):
    """The key is wrong, or may not do this. Nothing was bought."""


class InsufficientCredits(KlingError):
    """The account cannot pay. Nothing was bought; what already runs goes on."""


class TaskNotFound(KlingError):
    """The gateway does not know this task, or no longer."""


class RateLimited(KlingError):
    """Too many calls or too many running tasks; the same call can be repeated later.

    Attributes:
        retry_after: seconds to wait as the gateway asked, capped at 60, or None.
    """

    retryable = True

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        status: int | None = None,
        code: int | str | None = None,
        task_id: str | None = None,
    ) -> None:
        super().__init__(message, status=status, code=code, task_id=task_id)
        self.retry_after = retry_after


class GatewayUnavailable(KlingError):
    """The gateway could not be reached or gave no usable answer.

    For a create it means that the request surely never left this machine; where that is not sure, the error is
    `PurchaseUncertain`.
    """

    retryable = True


class PurchaseUncertain(KlingError):
    """A create may have been accepted although its answer never arrived; repeating it could pay twice."""


class GenerationFailed(KlingError):
    """The gateway's task ended as failed. Failed tasks are not billed (gateway.md, source Gc)."""


class GenerationTimeout(KlingError):
    """The task did not end within the time given to the wait. It may still complete."""


class BudgetExceeded(KlingError):
    """Buying this would exceed the budget. Nothing was bought."""


class LedgerUnavailable(KlingError):
    """The ledger cannot be read or written. Nothing is bought without it, and what was bought stays in it."""

    retryable = True


class InvalidMedia(KlingError):
    """A file is broken, hostile, or not what its place needs."""


class CheckFailed(KlingError):
    """No take of a shot passed its checks. All of them are kept; the text names them and what is wrong with each."""


class StoryboardError(KlingError):
    """A storyboard cannot be read or planned; the text names the file, line and column where there are any."""
