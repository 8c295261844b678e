"""Takes: which one is wanted, what a retake pins, and who follows it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from prefect_kling.ledger.keys import key_of
from prefect_kling.ledger.ledger import Ledger
from prefect_kling.ledger.money import Limits
from prefect_kling.ledger.purchases import Account
from prefect_kling.ledger.states import Event, State
from prefect_kling.ledger.takes import FINISHED, Pin, Slate, pin_take, pinned, retake

if TYPE_CHECKING:
    from tests.ledger.conftest import Ledgers, MakeOrder

SLATE = Slate("main", "lighthouse", "dawn", "k1:abc")
ENDS: dict[State, tuple[Event, ...]] = {
    State.RESERVED: (),
    State.SUBMITTED: (Event.SEND, Event.ACCEPTED),
    State.COMPLETED: (Event.SEND, Event.ACCEPTED, Event.COMPLETED),
    State.STORED: (Event.SEND, Event.ACCEPTED, Event.COMPLETED, Event.DOWNLOADED),
    State.LOST: (Event.SEND, Event.ACCEPTED, Event.GONE),
    State.PRUNED: (Event.SEND, Event.ACCEPTED, Event.COMPLETED, Event.DOWNLOADED, Event.PRUNED),
    State.FAILED: (Event.SEND, Event.ACCEPTED, Event.FAILED),
    State.UNCERTAIN: (Event.SEND, Event.ANSWER_LOST),
    State.REFUSED: (Event.SEND, Event.REFUSED),
}


async def take_made(
    ledger: Ledger, account: Account, order: MakeOrder, take: int, state: State, slate: Slate = SLATE
) -> None:
    """A purchase of a take, in a state."""
    wanted = order(take=take, key=key_of(slate.base_key, take), edition=slate.edition, storyboard="any", shot="any")
    purchase = (await ledger.reserve(account, wanted, Limits())).purchase
    assert purchase is not None
    for event in ENDS[state]:
        purchase = await ledger.happened(purchase, event)
    assert purchase.state is state


async def pinned_take(ledger: Ledger, account: Account, slate: Slate = SLATE) -> int:
    """The take that a run uses."""
    found = await pinned(ledger, account, slate.edition, slate.storyboard)
    pin = found.get((slate.shot, slate.base_key))
    return 1 if pin is None else pin.take


async def test_without_a_retake_it_is_the_first(ledger: Ledger, account: Account, order: MakeOrder) -> None:
    assert await pinned(ledger, account, "main", "lighthouse") == {}
    await take_made(ledger, account, order, 1, State.STORED)
    assert await pinned_take(ledger, account) == 1


async def test_a_retake_pins_the_next_for_later_runs_and_a_retry_gets_the_same(
    ledger: Ledger, account: Account, order: MakeOrder
) -> None:
    await take_made(ledger, account, order, 1, State.STORED)
    assert (await retake(ledger, account, SLATE, "r1")).take == 2
    assert await pinned_take(ledger, account) == 2
    assert (await pinned(ledger, account, SLATE.edition, SLATE.storyboard)).popitem()[1] == Pin(2, "r1", 2)
    await take_made(ledger, account, order, 2, State.STORED)
    assert (await retake(ledger, account, SLATE, "r1")).take == 2  # a retry of that run, also when its take is done
    assert (await retake(ledger, account, SLATE, "r2")).take == 3
    assert await pinned_take(ledger, account) == 3


@pytest.mark.parametrize("state", ENDS)
async def test_an_unfinished_take_is_gone_on_with(
    ledger: Ledger, account: Account, order: MakeOrder, state: State
) -> None:
    await take_made(ledger, account, order, 1, state)
    assert (await retake(ledger, account, SLATE, "r1")).take == (2 if state in FINISHED else 1)
    assert {State.COMPLETED, State.STORED, State.LOST, State.PRUNED} == set(FINISHED)


async def test_a_shot_that_was_never_bought_has_its_first_take_retaken(ledger: Ledger, account: Account) -> None:
    assert (await retake(ledger, account, SLATE, "r1")).take == 1
    assert (await retake(ledger, account, SLATE, "")).take == 1


async def test_takes_bought_for_other_reasons_are_passed_over(
    ledger: Ledger, account: Account, order: MakeOrder
) -> None:
    for take in (1, 2, 5):
        await take_made(ledger, account, order, take, State.STORED)
    assert (await retake(ledger, account, SLATE, "r1")).take == 6


async def test_runs_without_a_name_are_each_a_run(ledger: Ledger, account: Account, order: MakeOrder) -> None:
    await take_made(ledger, account, order, 1, State.STORED)
    assert (await retake(ledger, account, SLATE, "")).take == 2
    await take_made(ledger, account, order, 2, State.STORED)
    assert (await retake(ledger, account, SLATE, "")).take == 3


async def test_a_pin_is_for_its_shot_key_edition_storyboard_and_account(
    ledger: Ledger, account: Account, order: MakeOrder
) -> None:
    await take_made(ledger, account, order, 1, State.STORED)
    await retake(ledger, account, SLATE, "r1")
    for field in ("edition", "storyboard", "shot", "base_key"):
        assert await pinned_take(ledger, account, replace(SLATE, **{field: "other"})) == 1
    assert await pinned_take(ledger, Account(account.base_url, "second")) == 1
    # A key that only begins alike is another video.
    longer = replace(SLATE, base_key="k1:abcd")
    assert (await retake(ledger, account, longer, "r1")).take == 1


async def test_two_retakes_at_once_pin_one_take(ledgers: Ledgers, account: Account, order: MakeOrder) -> None:
    first, second = await ledgers(), await ledgers()
    await take_made(first, account, order, 1, State.STORED)
    one, other = await asyncio.gather(retake(first, account, SLATE, "r1"), retake(second, account, SLATE, "r2"))
    assert (one, other) == (Pin(2, "r1", 2), Pin(2, "r2", 2))  # the second goes on with what the first has not finished


async def test_what_a_film_chose_is_pinned_in_the_series_of_the_last_retake(
    ledger: Ledger, account: Account, order: MakeOrder
) -> None:
    await pin_take(ledger, account, SLATE, 2, "r1")
    first = Pin(2, "r1", 1)
    assert (await pinned(ledger, account, "main", "lighthouse"))["dawn", "k1:abc"] == first
    for take in (1, 2):
        await take_made(ledger, account, order, take, State.STORED)
    retaken = await retake(ledger, account, SLATE, "r2")
    assert retaken == Pin(3, "r2", 3)
    # Who chose before somebody retook it chose for itself alone.
    await pin_take(ledger, account, SLATE, 1, "r1", seen=first)
    assert (await pinned(ledger, account, "main", "lighthouse"))["dawn", "k1:abc"] == retaken
    await pin_take(ledger, account, SLATE, 4, "r2", seen=retaken)
    assert await retake(ledger, account, SLATE, "r2") == Pin(4, "r2", 3)
