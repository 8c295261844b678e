"""Budget arithmetic: what may be spent, in which period it counts, and how amounts are told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from prefect_kling.ledger.money import Limits, Spent, periods, refusal, shown

USD = 1_000_000


@pytest.mark.parametrize(
    ("limits", "spent", "asked", "names"),
    [
        (Limits(), Spent(run=10**15, day=10**15, month=10**15, held=10**15), 10**15, None),
        (Limits(per_run=USD), Spent(), USD, None),  # to the last micro-dollar
        (Limits(per_run=USD), Spent(), USD + 1, "of this run"),
        (Limits(per_run=USD), Spent(run=USD), 0, None),
        (Limits(per_run=0), Spent(), 0, None),
        (Limits(per_run=0), Spent(), 1, "of this run"),  # nought is a limit, not none
        (Limits(per_run=USD), Spent(run=USD - 5, held_by_run=4), 1, None),
        (Limits(per_run=USD), Spent(run=USD - 5, held_by_run=4), 2, "of this run"),
        (Limits(per_run=USD), Spent(day=USD, month=USD, held=USD), 1, None),  # others' money is not this run's
        (Limits(per_day=USD), Spent(day=USD), 1, "of this UTC day"),
        (Limits(per_day=USD), Spent(day=USD - 2, held=1), 1, None),
        (Limits(per_day=USD), Spent(day=USD - 2, held=2), 1, "of this UTC day"),
        (Limits(per_day=USD), Spent(run=USD, month=USD, held_by_run=USD), 1, None),
        (Limits(per_month=USD), Spent(month=USD), 1, "of this UTC month"),
        (Limits(per_month=USD), Spent(day=USD, run=USD), 1, None),
        (Limits(per_month=USD), Spent(month=1, held=USD - 2), 1, None),
        (Limits(per_month=USD), Spent(month=1, held=USD - 1), 1, "of this UTC month"),
        (Limits(per_run=1, per_day=1, per_month=1), Spent(), 2, "of this run"),  # the narrowest first
        (Limits(per_day=1, per_month=1), Spent(), 2, "of this UTC day"),
    ],
)
def test_refusals(limits: Limits, spent: Spent, asked: int, names: str | None) -> None:
    why = refusal(limits, spent, asked)
    assert (why is None) is (names is None)
    if why is not None:
        assert f"the budget {names} is" in why


def test_a_refusal_says_every_amount() -> None:
    why = refusal(Limits(per_day=5 * USD), Spent(day=3_200_000, held=1_500_000), 316_500)
    assert why == (
        "this needs up to 0.3165 USD, and the budget of this UTC day is 5.00 USD, of which 3.20 USD are bought, "
        "1.50 USD are held for storyboards on their way"
    )
    assert "held" not in str(refusal(Limits(per_run=1), Spent(), 2))


EAST = timezone(timedelta(hours=9))
WEST = timezone(timedelta(hours=-8))


@pytest.mark.parametrize(
    ("at", "day", "month"),
    [
        (datetime(2026, 11, 22, 12, tzinfo=UTC), "2026-11-22", "2026-11"),
        (datetime(2026, 11, 22, 23, 59, 59, 999_000, tzinfo=UTC), "2026-11-22", "2026-11"),
        (datetime(2026, 11, 23, tzinfo=UTC), "2026-11-23", "2026-11"),
        (datetime(2026, 11, 23, 8, 59, tzinfo=EAST), "2026-11-22", "2026-11"),
        (datetime(2026, 11, 23, 9, tzinfo=EAST), "2026-11-23", "2026-11"),
        (datetime(2026, 11, 30, 15, 59, tzinfo=WEST), "2026-11-30", "2026-11"),
        (datetime(2026, 11, 30, 16, tzinfo=WEST), "2026-12-01", "2026-12"),
        (datetime(2027, 1, 1, 8, tzinfo=EAST), "2026-12-31", "2026-12"),
        (datetime(2028, 2, 29, 23, 59, tzinfo=UTC), "2028-02-29", "2028-02"),
        (datetime(2028, 3, 1, tzinfo=UTC), "2028-03-01", "2028-03"),
    ],
)
def test_an_amount_counts_in_its_utc_day_and_month(at: datetime, day: str, month: str) -> None:
    assert periods(at, "") == (f"day:{day}", f"month:{month}")
    assert periods(at, "r1") == (f"day:{day}", f"month:{month}", "run:r1")


@pytest.mark.parametrize(
    ("micro", "text"),
    [
        (0, "0.00 USD"),
        (1, "0.000001 USD"),
        (10, "0.00001 USD"),
        (10_000, "0.01 USD"),
        (316_500, "0.3165 USD"),
        (500_000, "0.50 USD"),
        (1_550_000, "1.55 USD"),
        (USD, "1.00 USD"),
        (1_234_567_891_234, "1234567.891234 USD"),
        (-1, "-0.000001 USD"),
        (-1_500_000, "-1.50 USD"),
    ],
)
def test_amounts_are_told_exactly(micro: int, text: str) -> None:
    assert shown(micro) == text
