"""What is hosted: found again while its URL can be used, by content and account."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from prefect_kling.clips import RESULT_LIFE, RESULT_MARGIN
from prefect_kling.ledger.hosted import hosted_url, remember_hosted
from prefect_kling.ledger.ledger import Ledger
from prefect_kling.ledger.purchases import Account

if TYPE_CHECKING:
    from tests.ledger.conftest import Shift

FOX, HARE = "f0" * 32, "a7" * 32
FIRST, SECOND = "https://files.example.com/1/fox.png", "https://files.example.com/2/fox.png"
USABLE = (RESULT_LIFE - RESULT_MARGIN) / timedelta(seconds=1)


async def test_what_was_uploaded_is_found_by_its_content(ledger: Ledger, account: Account) -> None:
    assert await hosted_url(ledger, account, FOX) is None
    await remember_hosted(ledger, account, FOX, FIRST)
    assert await hosted_url(ledger, account, FOX) == FIRST
    assert await hosted_url(ledger, account, HARE) is None
    assert await hosted_url(ledger, Account(account.base_url, "second"), FOX) is None


async def test_a_url_is_not_given_out_six_hours_before_its_end(ledger: Ledger, account: Account, shift: Shift) -> None:
    await remember_hosted(ledger, account, FOX, FIRST)
    shift.advance(USABLE - 60)
    assert await hosted_url(ledger, account, FOX) == FIRST
    shift.advance(61)
    assert await hosted_url(ledger, account, FOX) is None
    await remember_hosted(ledger, account, FOX, SECOND)
    assert await hosted_url(ledger, account, FOX) == SECOND
    shift.advance(USABLE - 60)
    assert await hosted_url(ledger, account, FOX) == SECOND
