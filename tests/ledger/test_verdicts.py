"""Verdicts: by purchase and specification, thousands at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from prefect_kling.ledger.ledger import Ledger
from prefect_kling.ledger.money import Limits
from prefect_kling.ledger.purchases import Account
from prefect_kling.ledger.verdicts import Verdict, remember_verdict, verdicts

if TYPE_CHECKING:
    from tests.ledger.conftest import MakeOrder

LENGTH, BLACK = "1e" * 32, "b1" * 32
GOOD, BAD = Verdict(True, ""), Verdict(False, "black from 1.2 s to 3.0 s")


@pytest.fixture
async def rows(ledger: Ledger, account: Account, order: MakeOrder) -> tuple[int, int]:
    """The numbers of two purchases."""
    made = [(await ledger.reserve(account, order(prompt), Limits())).purchase for prompt in ("A fox", "A hare")]
    first, second = (purchase.id for purchase in made if purchase is not None)
    return first, second


async def test_a_verdict_is_found_by_its_purchase_and_specification(ledger: Ledger, rows: tuple[int, int]) -> None:
    fox, hare = rows
    assert await verdicts(ledger, rows) == {}
    await remember_verdict(ledger, fox, LENGTH, GOOD)
    await remember_verdict(ledger, fox, BLACK, BAD)
    await remember_verdict(ledger, hare, BLACK, GOOD)
    assert await verdicts(ledger, rows) == {(fox, LENGTH): GOOD, (fox, BLACK): BAD, (hare, BLACK): GOOD}
    assert await verdicts(ledger, [hare]) == {(hare, BLACK): GOOD}


async def test_what_was_said_first_counts(ledger: Ledger, rows: tuple[int, int]) -> None:
    assert await remember_verdict(ledger, rows[0], BLACK, GOOD) == GOOD
    assert await remember_verdict(ledger, rows[0], BLACK, BAD) == GOOD
    assert await verdicts(ledger, rows) == {(rows[0], BLACK): GOOD}


async def test_what_a_users_own_check_says_can_be_written_down(ledger: Ledger, rows: tuple[int, int]) -> None:
    await remember_verdict(ledger, rows[0], BLACK, Verdict(False, "odd \0 and \ud800"))
    assert await verdicts(ledger, rows) == {(rows[0], BLACK): Verdict(False, "odd \ufffd and ?")}


async def test_thousands_are_asked_for_at_once(ledger: Ledger, rows: tuple[int, int]) -> None:
    fox, hare = rows
    await remember_verdict(ledger, fox, LENGTH, GOOD)
    await remember_verdict(ledger, hare, LENGTH, BAD)
    others = [number + 10**9 for number in range(40_000)]
    assert await verdicts(ledger, [fox, *others, hare]) == {(fox, LENGTH): GOOD, (hare, LENGTH): BAD}
    assert await verdicts(ledger, []) == {}
