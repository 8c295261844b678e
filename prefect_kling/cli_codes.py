"""The exit codes of `prefect-kling`, which the module `cli` lists."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from prefect_kling.gateway.errors import (
    BudgetExceeded,
    CheckFailed,
    GenerationFailed,
    GenerationTimeout,
    InsufficientCredits,
    InvalidMedia,
    KlingError,
    LedgerUnavailable,
    PurchaseUncertain,
    StoryboardError,
    TaskNotFound,
)

__all__ = ["INTERRUPTED", "MONEY", "REFUSED", "USAGE", "exit_code"]

USAGE, REFUSED, MONEY, UNCERTAIN, MEDIA, GENERATION, INTERRUPTED = 2, 3, 4, 5, 6, 7, 130
_ORDER: Final = (INTERRUPTED, UNCERTAIN, MONEY, REFUSED, GENERATION, MEDIA)
_CODES: Final[dict[str, int]] = {
    kind.__name__: code
    for kind, code in (
        (PurchaseUncertain, UNCERTAIN),
        (BudgetExceeded, MONEY),
        (InsufficientCredits, MONEY),
        (InvalidMedia, MEDIA),
        (CheckFailed, MEDIA),
        (GenerationFailed, GENERATION),
        (GenerationTimeout, GENERATION),
        (TaskNotFound, GENERATION),
        (StoryboardError, USAGE),
        (LedgerUnavailable, USAGE),
    )
}


def exit_code(errors: Iterable[str]) -> int:
    """The code for errors, given by their class names; 0 without any.

    What the gateway answered otherwise counts as refused, what this machine could not do (a full disk) as usage.
    """
    refusals = {kind.__name__ for kind in KlingError.__subclasses__()}
    codes = {_CODES.get(name, REFUSED if name in refusals else USAGE) for name in errors}
    return next((code for code in _ORDER if code in codes), USAGE if codes else 0)
