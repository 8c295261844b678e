"""Budget arithmetic: what may still be spent, in integer micro-dollars. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

__all__ = ["Limits", "Spent", "periods", "refusal", "shown"]


@dataclass(frozen=True)
class Limits:
    """What an account may do; None stands for no limit.

    Attributes:
        in_flight: purchases that may be on their way at once.
        per_run: micro-dollars that one run may spend, its retries included.
        per_day: micro-dollars of one UTC day.
        per_month: micro-dollars of one UTC month.
        uncertain_seconds: how long an uncertain purchase keeps its slot.
    """

    in_flight: int = 20
    per_run: int | None = None
    per_day: int | None = None
    per_month: int | None = None
    uncertain_seconds: float = 3600.0


@dataclass(frozen=True)
class Spent:
    """What counts against a budget already: bought in the period, and held for admitted storyboards."""

    run: int = 0
    day: int = 0
    month: int = 0
    held: int = 0
    held_by_run: int = 0


def periods(at: datetime, run: str) -> tuple[str, ...]:
    """The names of the periods that an amount reserved at this time counts in."""
    utc = at.astimezone(UTC)
    day, month = f"day:{utc:%Y-%m-%d}", f"month:{utc:%Y-%m}"
    return (day, month, f"run:{run}") if run else (day, month)


def refusal(limits: Limits, spent: Spent, asked: int) -> str | None:
    """Why `asked` micro-dollars more may not be spent, in words for an operator; None where they may."""
    rows: Iterable[tuple[str, int | None, int, int]] = (
        ("of this run", limits.per_run, spent.run, spent.held_by_run),
        ("of this UTC day", limits.per_day, spent.day, spent.held),
        ("of this UTC month", limits.per_month, spent.month, spent.held),
    )
    for name, limit, bought, held in rows:
        if limit is not None and bought + held + asked > limit:
            holds = f", {shown(held)} are held for storyboards on their way" if held else ""
            return (
                f"this needs up to {shown(asked)}, and the budget {name} is {shown(limit)}, of which {shown(bought)} "
                f"are bought{holds}"
            )
    return None


def shown(micro: int) -> str:
    """An amount for people: `1.55 USD`, with as many digits as it takes."""
    dollars, rest = divmod(abs(micro), 1_000_000)
    digits = f"{rest:06d}".rstrip("0").ljust(2, "0")
    return f"{'-' if micro < 0 else ''}{dollars}.{digits} USD"
