"""The ledger on both databases: one live row, slots, budgets, holds, and what the dead leave behind."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Table, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from prefect_kling.gateway.errors import BudgetExceeded
from prefect_kling.ledger.answers import Answer
from prefect_kling.ledger.backroom import in_backroom
from prefect_kling.ledger.holds import HOLD_SECONDS, Hold
from prefect_kling.ledger.ledger import LEASE_SECONDS, Ledger
from prefect_kling.ledger.money import Limits, Spent
from prefect_kling.ledger.owners import this_process
from prefect_kling.ledger.purchases import Account, Order, Purchase
from prefect_kling.ledger.schema import counters, hold_items, hold_runs, purchases
from prefect_kling.ledger.states import LIVE, Event, Impossible, State, from_states, step

if TYPE_CHECKING:
    from tests.ledger.conftest import Ledgers, MakeOrder, Shift, ToMoment

ALIVE_ELSEWHERE = "elsewhere|00000000-0000-0000-0000-000000000000|pid:[1]|4711|1"
PRICE = 316_500
DAY = timedelta(days=1)


def dead(owner: str | None = None) -> str:
    """An owner of this machine that is surely gone: this process, had it started at another time."""
    *parts, start = (owner or this_process()).split("|")
    return "|".join((*parts, f"{int(start) - 1}"))


async def reserved(ledger: Ledger, account: Account, order: Order, **limits: Any) -> Purchase:
    """A reservation that has to succeed and be ours."""
    found = await ledger.reserve(account, order, Limits(**limits))
    assert found.mine
    assert found.purchase is not None
    return found.purchase


async def brought_to(ledger: Ledger, purchase: Purchase, state: State, task_id: str = "task-1") -> Purchase:
    """The purchase after the usual events that lead to a state."""
    paths: dict[State, tuple[Event, ...]] = {
        State.RESERVED: (),
        State.SENDING: (Event.SEND,),
        State.SUBMITTED: (Event.SEND, Event.ACCEPTED),
        State.COMPLETED: (Event.SEND, Event.ACCEPTED, Event.COMPLETED),
        State.STORED: (Event.SEND, Event.ACCEPTED, Event.COMPLETED, Event.DOWNLOADED),
        State.UNCERTAIN: (Event.SEND, Event.ANSWER_LOST),
        State.REFUSED: (Event.SEND, Event.REFUSED),
        State.RELEASED: (Event.GIVEN_UP,),
        State.FAILED: (Event.SEND, Event.ACCEPTED, Event.FAILED),
        State.LOST: (Event.SEND, Event.ACCEPTED, Event.GONE),
        State.PRUNED: (Event.SEND, Event.ACCEPTED, Event.COMPLETED, Event.DOWNLOADED, Event.PRUNED),
        State.ABANDONED: (Event.SEND, Event.ANSWER_LOST, Event.NEVER_CREATED),
    }
    for event in paths[state]:
        facts: dict[str, Any] = {"task_id": task_id} if event is Event.ACCEPTED else {}
        purchase = await ledger.happened(purchase, event, **facts)
    assert purchase.state is state
    return purchase


async def count(ledger: Ledger, account: Account, table: Table) -> int:
    """How many of a table's rows are the account's."""
    account_id = await ledger.account_id(account)

    async def work(connection: AsyncConnection) -> int:
        query = select(func.count()).select_from(table).where(table.c.account_id == account_id)
        return int((await connection.execute(query)).scalar_one())

    return await in_backroom(ledger.db.read(work))


# --- one live row ---


async def test_an_order_is_reserved_once_and_then_joined(ledger: Ledger, account: Account, order: MakeOrder) -> None:
    first = await reserved(ledger, account, order(run="r1"))
    assert (first.state, first.counted, first.order.key, first.task_id) == (State.RESERVED, PRICE, order().key, None)
    assert len(first.token) == 32
    again = await ledger.reserve(account, order(run="r2"), Limits())
    assert not again.mine
    assert again.purchase == first
    assert await ledger.find(account, "main", [order().key, "none"]) == {order().key: first}
    assert await ledger.audit(account) == {}


async def test_what_tells_purchases_apart(ledger: Ledger, account: Account, order: MakeOrder) -> None:
    wanted = [
        (account, order()),
        (account, order("A hare")),
        (account, order(take=2)),
        (account, order(edition="2026-11-22")),
        (Account(account.base_url, "second"), order()),
        (Account(f"{account.base_url}/elsewhere"), order()),
    ]
    rows = [await reserved(ledger, whose, one) for whose, one in wanted]
    assert len({row.id for row in rows}) == len({row.token for row in rows}) == 6
    # Where it belongs and what it costs do not.
    found = await ledger.reserve(account, order(shot="dawn", storyboard="s", micro_usd=1, run="r"), Limits())
    assert found.purchase == rows[0]


async def test_a_key_of_an_older_version_is_joined(ledger: Ledger, account: Account, order: MakeOrder) -> None:
    old = await reserved(ledger, account, order(key="k0:abc#1"))
    found = await ledger.reserve(account, order(also=("k0:abc#1",)), Limits())
    assert (found.purchase, found.mine) == (old, False)


async def test_a_live_row_is_joined_and_a_dead_one_is_not(ledger: Ledger, account: Account, order: MakeOrder) -> None:
    for state in State:
        wanted = order(state)
        purchase = await brought_to(ledger, await reserved(ledger, account, wanted), state, f"task-{state}")
        found = await ledger.reserve(account, wanted, Limits())
        assert found.mine is (state not in LIVE)
        assert found.purchase is not None
        assert (found.purchase.id == purchase.id) is (state in LIVE)
        assert found.purchase.state is (state if state in LIVE else State.RESERVED)
    assert await ledger.audit(account) == {}


async def test_fifty_at_once_from_several_processes_make_one_row(
    ledgers: Ledgers, account: Account, order: MakeOrder
) -> None:
    several = [await ledgers() for _ in range(4)]
    found = await asyncio.gather(*(several[n % 4].reserve(account, order(), Limits()) for n in range(50)))
    assert [one.mine for one in found].count(True) == 1
    assert len({one.purchase.id for one in found if one.purchase}) == 1
    assert all(one.purchase for one in found)
    assert await several[0].audit(account) == {}
    hold = Hold("", "", "")
    assert (await several[0].spent(account, hold)).day == PRICE


async def test_the_database_itself_allows_one_live_row(ledger: Ledger, account: Account, order: MakeOrder) -> None:
    await reserved(ledger, account, order())
    other = await reserved(ledger, account, order("A hare"))

    async def forge(connection: AsyncConnection) -> None:
        await connection.execute(purchases.update().where(purchases.c.id == other.id).values(key=order().key))

    with pytest.raises(IntegrityError):
        await in_backroom(ledger.db.write(forge))


# --- compare and set ---


RACES = [
    (State.RESERVED, Event.SEND, Event.GIVEN_UP),
    (State.SENDING, Event.ACCEPTED, Event.LEASE_ENDED),
    (State.SENDING, Event.REFUSED, Event.LEASE_ENDED),
    (State.UNCERTAIN, Event.NEVER_CREATED, Event.BOUGHT_AGAIN),
    (State.SUBMITTED, Event.FAILED, Event.GONE),
]


async def test_of_two_events_at_once_the_second_finds_what_the_first_made(
    ledgers: Ledgers, account: Account, order: MakeOrder
) -> None:
    first, second = await ledgers(), await ledgers()
    for number, (state, one, other) in enumerate(RACES):
        reservation = await reserved(first, account, order(f"{number}"))
        seen = await brought_to(first, reservation, state, f"task-{number}")
        facts: dict[Event, dict[str, Any]] = {Event.ACCEPTED: {"task_id": f"task-{number}"}}
        found = await asyncio.gather(
            first.happened(seen, one, **facts.get(one, {})), second.happened(seen, other, **facts.get(other, {}))
        )
        now = await first.get(seen.id)
        assert now.state in {after(state, one, other), after(state, other, one)}
        assert now in found
    assert await first.audit(account) == {}


def after(state: State, *events: Event) -> State:
    """Where events lead, those passed over that cannot happen."""
    for event in events:
        with suppress(Impossible):
            state = step(state, event).state
    return state


async def test_what_cannot_happen_changes_nothing(ledger: Ledger, account: Account, order: MakeOrder) -> None:
    purchase = await brought_to(ledger, await reserved(ledger, account, order()), State.STORED)
    for event in (Event.SEND, Event.GIVEN_UP, Event.REFUSED, Event.FAILED, Event.LEASE_ENDED, Event.NEVER_CREATED):
        assert await ledger.happened(purchase, event, reason="nonsense") == purchase
    assert await ledger.get(purchase.id) == purchase


async def test_a_loser_judges_what_happened_by_what_there_is_now(
    ledger: Ledger, account: Account, order: MakeOrder
) -> None:
    seen = await brought_to(ledger, await reserved(ledger, account, order()), State.SENDING)
    await ledger.happened(seen, Event.LEASE_ENDED)
    late = await ledger.happened(seen, Event.ACCEPTED, task_id="task-1")
    assert (late.state, late.task_id) == (State.SUBMITTED, "task-1")


async def test_a_task_that_turns_up_after_all_is_counted_and_kept_as_a_spare(
    ledger: Ledger, account: Account, order: MakeOrder
) -> None:
    first = await brought_to(ledger, await reserved(ledger, account, order()), State.UNCERTAIN)
    first = await ledger.happened(first, Event.NEVER_CREATED)
    assert first.counted == 0
    second = await brought_to(ledger, await reserved(ledger, account, order()), State.SUBMITTED, "task-2")
    first = await ledger.happened(first, Event.ACCEPTED, task_id="task-1")
    assert (first.state, first.spare, first.counted) == (State.SUBMITTED, True, PRICE)
    assert (await ledger.find(account, "main", [order().key]))[order().key].id == second.id
    assert await ledger.audit(account) == {}


async def test_one_that_turns_up_where_nobody_bought_again_takes_its_place_back(
    ledger: Ledger, account: Account, order: MakeOrder
) -> None:
    first = await brought_to(ledger, await reserved(ledger, account, order()), State.ABANDONED)
    first = await ledger.happened(first, Event.ACCEPTED, task_id="task-1")
    assert (first.state, first.spare, first.counted) == (State.SUBMITTED, False, PRICE)
    assert (await ledger.reserve(account, order(), Limits())).purchase == first


# --- slots ---


async def test_no_more_are_on_their_way_than_may_be(ledgers: Ledgers, account: Account, order: MakeOrder) -> None:
    several = [await ledgers() for _ in range(3)]
    limits = Limits(in_flight=4)
    found = await asyncio.gather(*(several[n % 3].reserve(account, order(f"A fox, {n}"), limits) for n in range(12)))
    got = [one.purchase for one in found if one.purchase is not None]
    assert len(got) == 4
    assert [one.mine for one in found if one.purchase is None] == [False] * 8
    ledger = several[0]
    assert (await ledger.spent(account, Hold("", "", ""))).day == 4 * PRICE
    # Joining takes no slot.
    assert (await ledger.reserve(account, got[0].order, limits)).purchase == got[0]
    await ledger.happened(got[0], Event.GIVEN_UP)
    assert (await ledger.reserve(account, order("One more"), limits)).mine
    assert (await ledger.reserve(account, order("And another"), limits)).purchase is None
    assert (await ledger.reserve(Account(account.base_url, "second"), order(), limits)).mine


async def test_which_states_take_a_slot_and_what_counts_in_them(
    ledger: Ledger, account: Account, order: MakeOrder
) -> None:
    for state in State:
        whose = Account(account.base_url, state)
        purchase = await brought_to(ledger, await reserved(ledger, whose, order(run="r1")), state)
        given_back = state in (State.REFUSED, State.RELEASED, State.FAILED, State.ABANDONED)
        counted = 0 if given_back else PRICE
        assert purchase.counted == counted
        assert await ledger.spent(whose, Hold("", "", "r1")) == Spent(counted, counted, counted, 0, 0)
        assert await ledger.audit(whose) == {}
        found = await ledger.reserve(whose, order("A hare"), Limits(in_flight=1))
        takes = {State.RESERVED, State.SENDING, State.SUBMITTED, State.UNCERTAIN}
        assert (found.purchase is None) is (state in takes)


async def test_an_uncertain_purchase_keeps_its_slot_for_a_while(
    ledger: Ledger, account: Account, order: MakeOrder, shift: Shift
) -> None:
    await brought_to(ledger, await reserved(ledger, account, order()), State.UNCERTAIN)
    limits = Limits(in_flight=1, uncertain_seconds=600)
    shift.advance(590)
    assert (await ledger.reserve(account, order("A hare"), limits)).purchase is None
    shift.advance(11)
    assert (await ledger.reserve(account, order("A hare"), limits)).mine


# --- budgets ---


async def test_a_budget_is_never_exceeded_by_many_at_once(ledgers: Ledgers, account: Account, order: MakeOrder) -> None:
    several = [await ledgers() for _ in range(3)]
    for budget in ("per_run", "per_day", "per_month"):
        whose, limits = Account(account.base_url, budget), Limits(**{budget: 3 * PRICE + PRICE // 2})
        found = await asyncio.gather(
            *(several[n % 3].reserve(whose, order(f"A fox, {n}", run="r1"), limits) for n in range(6)),
            return_exceptions=True,
        )
        refused = [one for one in found if isinstance(one, BaseException)]
        assert len(refused) == 3
        assert {type(one) for one in refused} == {BudgetExceeded}
        assert "0.9495 USD are bought" in str(refused[0])
        assert await several[0].audit(whose) == {}


async def test_a_runs_budget_is_its_own_a_days_is_everybodys(
    ledger: Ledger, account: Account, order: MakeOrder
) -> None:
    await reserved(ledger, account, order("1", run="r1"), per_run=PRICE)
    with pytest.raises(BudgetExceeded, match="of this run"):
        await ledger.reserve(account, order("2", run="r1"), Limits(per_run=PRICE))
    await reserved(ledger, account, order("3", run="r2"), per_run=PRICE)
    with pytest.raises(BudgetExceeded, match="of this UTC day"):
        await ledger.reserve(account, order("4", run="r3"), Limits(per_run=PRICE, per_day=2 * PRICE))
    assert await ledger.spent(account, Hold("", "", "r2")) == Spent(PRICE, 2 * PRICE, 2 * PRICE, 0, 0)
    assert await ledger.spent(Account(account.base_url, "second"), Hold("", "", "r2")) == Spent()


async def test_money_is_given_back_where_it_was_counted_also_after_midnight(
    ledger: Ledger, account: Account, order: MakeOrder, to_moment: ToMoment
) -> None:
    today = (await ledger.time()).replace(hour=0, minute=0, second=0, microsecond=0)
    eve = datetime(today.year + 1, 1, 31, 23, 59, tzinfo=UTC)
    await to_moment(eve)
    purchase = await brought_to(ledger, await reserved(ledger, account, order(run="r1")), State.SUBMITTED)
    assert await ledger.spent(account, Hold("", "", "r1")) == Spent(PRICE, PRICE, PRICE, 0, 0)
    await to_moment(eve + timedelta(minutes=2))
    # Another day and month; the same run.
    assert await ledger.spent(account, Hold("", "", "r1")) == Spent(PRICE, 0, 0, 0, 0)
    await reserved(ledger, account, order("A hare"), per_day=PRICE, per_month=PRICE)
    await ledger.happened(purchase, Event.FAILED)
    assert await ledger.spent(account, Hold("", "", "r1")) == Spent(0, PRICE, PRICE, 0, 0)
    assert await ledger.audit(account) == {}


async def test_a_dead_reservation_makes_room_in_a_budget(ledgers: Ledgers, account: Account, order: MakeOrder) -> None:
    gone, ours = await ledgers(owner=dead()), await ledgers()
    left = await reserved(gone, account, order())
    assert (await ours.reserve(account, order("A hare"), Limits(per_day=PRICE))).mine
    assert (await ours.get(left.id)).state is State.RELEASED


# --- holds ---


def hold_of(run: str = "r1", document: str = "doc", edition: str = "main") -> Hold:
    return Hold(edition, document, run)


THREE = {("dawn", 1): PRICE, ("storm", 1): PRICE, ("coast", 2): PRICE}


async def test_a_storyboard_is_admitted_whole_or_not_at_all(ledger: Ledger, account: Account) -> None:
    with pytest.raises(BudgetExceeded, match="Nothing was bought"):
        await ledger.admit(account, hold_of(), THREE, Limits(per_day=3 * PRICE - 1))
    assert await ledger.spent(account, hold_of()) == Spent()
    assert await count(ledger, account, hold_items) == 0
    assert await count(ledger, account, hold_runs) == 0
    await ledger.admit(account, hold_of(), THREE, Limits(per_day=3 * PRICE, per_run=3 * PRICE))
    assert await ledger.spent(account, hold_of()) == Spent(held=3 * PRICE, held_by_run=3 * PRICE)


async def test_who_buys_nothing_is_admitted_whatever_was_spent(
    ledger: Ledger, account: Account, order: MakeOrder
) -> None:
    await reserved(ledger, account, order())
    await ledger.admit(account, hold_of("r2"), {}, Limits(per_day=PRICE - 1, per_month=PRICE - 1))
    with pytest.raises(BudgetExceeded):
        await ledger.admit(account, hold_of("r3"), {("dawn", 1): 1}, Limits(per_day=PRICE - 1))


async def test_a_hold_moves_into_rows_and_never_counts_twice(
    ledger: Ledger, account: Account, order: MakeOrder
) -> None:
    limits = Limits(per_run=3 * PRICE, per_day=3 * PRICE)
    await ledger.admit(account, hold_of(), THREE, limits)
    bought = 0
    for shot, take in THREE:
        wanted = order(shot, take=take, shot=shot, document="doc", run="r1")
        await reserved(ledger, account, wanted, **vars(limits))
        bought += PRICE
        left = 3 * PRICE - bought
        assert await ledger.spent(account, hold_of()) == Spent(bought, bought, bought, left, left)
    # Something that was not admitted finds the budget used up.
    with pytest.raises(BudgetExceeded):
        await ledger.reserve(account, order("A hare", run="r1"), limits)
    await ledger.end_hold(account, hold_of())
    assert await ledger.spent(account, hold_of()) == Spent(bought, bought, bought, 0, 0)
    assert await ledger.audit(account) == {}


async def test_a_reservation_that_finds_no_slot_leaves_the_hold_as_it_was(
    ledger: Ledger, account: Account, order: MakeOrder
) -> None:
    await ledger.admit(account, hold_of(), THREE, Limits())
    wanted = order(shot="dawn", document="doc", run="r1")
    assert (await ledger.reserve(account, wanted, Limits(in_flight=0))).purchase is None
    with pytest.raises(BudgetExceeded):
        await ledger.reserve(account, wanted, Limits(per_run=1))
    assert (await ledger.spent(account, hold_of())).held == 3 * PRICE


async def test_runs_of_a_document_share_a_hold_and_others_do_not(
    ledger: Ledger, account: Account, order: MakeOrder
) -> None:
    limits = Limits(per_day=4 * PRICE)
    await ledger.admit(account, hold_of("r1"), THREE, limits)
    await reserved(ledger, account, order(shot="dawn", document="doc", run="r1"), **vars(limits))
    # The second run wants what the first still needs, and what it has bought it does not hold again.
    await ledger.admit(account, hold_of("r2"), THREE, limits)
    assert await ledger.spent(account, hold_of("r2")) == Spent(0, PRICE, PRICE, 2 * PRICE, 2 * PRICE)
    for other in (hold_of("r3", document="other"), hold_of("r3", edition="other")):
        with pytest.raises(BudgetExceeded):
            await ledger.admit(account, other, {("dawn", 1): PRICE + 1}, limits)
    await ledger.end_hold(account, hold_of("r1"))
    assert (await ledger.spent(account, hold_of("r2"))).held == 2 * PRICE
    await ledger.end_hold(account, hold_of("r2"))
    assert (await ledger.spent(account, hold_of("r2"))).held == 0
    assert await count(ledger, account, hold_items) == 0


async def test_a_hold_can_grow_and_does_not_shrink(ledger: Ledger, account: Account) -> None:
    await ledger.admit(account, hold_of(), {("dawn", 1): 10}, Limits())
    await ledger.admit(account, hold_of(), {("dawn", 1): 20, ("storm", 1): 5}, Limits())
    await ledger.admit(account, hold_of(), {("dawn", 1): 1}, Limits())
    assert (await ledger.spent(account, hold_of())).held == 25


async def test_a_hold_that_nobody_renews_lapses_and_one_that_is_renewed_does_not(
    ledger: Ledger, account: Account, shift: Shift
) -> None:
    await ledger.admit(account, hold_of("r1"), THREE, Limits())
    shift.advance(HOLD_SECONDS - 10)
    await ledger.renew_hold(account, hold_of("r1"))
    shift.advance(HOLD_SECONDS - 10)
    assert (await ledger.spent(account, hold_of())).held == 3 * PRICE
    with pytest.raises(BudgetExceeded, match="are held"):
        await ledger.admit(account, hold_of("r2", "other"), {("x", 1): 1}, Limits(per_day=3 * PRICE))
    shift.advance(11)
    assert (await ledger.spent(account, hold_of())).held == 0
    await ledger.admit(account, hold_of("r2", "other"), {("x", 1): 1}, Limits(per_day=3 * PRICE))
    assert await ledger.reclaim(account) == 1
    assert await count(ledger, account, hold_items) == 1


async def test_a_dead_runs_hold_is_dropped_when_the_money_is_needed(ledgers: Ledgers, account: Account) -> None:
    gone, elsewhere, ours = await ledgers(owner=dead()), await ledgers(owner=ALIVE_ELSEWHERE), await ledgers()
    await gone.admit(account, hold_of("r1"), THREE, Limits())
    await elsewhere.admit(account, hold_of("r2", "other"), {("x", 1): 5}, Limits())
    await ours.admit(account, hold_of("r3", "third"), {("y", 1): PRICE}, Limits(per_day=PRICE + 5))
    assert (await ours.spent(account, hold_of("r3", "third"))).held == PRICE + 5


# --- the dead ---


LEFT = {State.RESERVED: State.RELEASED, State.SENDING: State.UNCERTAIN}


async def left_by(ledger: Ledger, account: Account, order: MakeOrder) -> dict[State, int]:
    """A row in each state that has an owner, by its number."""
    rows = [await brought_to(ledger, await reserved(ledger, account, order(f"{s} {ledger.owner}")), s) for s in LEFT]
    return {row.state: row.id for row in rows}


async def test_what_a_dead_owner_left_is_taken_back_at_once(
    ledgers: Ledgers, account: Account, order: MakeOrder
) -> None:
    gone, ours = await ledgers(owner=dead()), await ledgers()
    left = await left_by(gone, account, order)
    assert await ours.reclaim(account) == 2
    for state, number in left.items():
        found = await ours.get(number)
        assert (found.state, found.counted) == (LEFT[state], PRICE if state is State.SENDING else 0)
        assert "gone" in str(found.reason)
    assert await ours.reclaim(account) == 0
    assert await ours.audit(account) == {}


async def test_who_may_be_alive_has_its_lease(
    ledgers: Ledgers, account: Account, order: MakeOrder, shift: Shift
) -> None:
    elsewhere, ours = await ledgers(owner=ALIVE_ELSEWHERE), await ledgers()
    left = [*(await left_by(elsewhere, account, order)).items(), *(await left_by(ours, account, order)).items()]
    shift.advance(LEASE_SECONDS - 20)
    assert await ours.reclaim(account) == 0
    for state, number in left:
        assert (await ours.get(number)).state is state
    shift.advance(21)
    assert await ours.reclaim(account) == 4
    for state, number in left:
        assert (await ours.get(number)).state is LEFT[state]


async def test_nobody_owns_what_was_submitted(ledgers: Ledgers, account: Account, order: MakeOrder) -> None:
    gone, ours = await ledgers(owner=dead()), await ledgers()
    states = (State.SUBMITTED, State.COMPLETED, State.STORED, State.UNCERTAIN, State.LOST)
    for number, state in enumerate(states):
        await brought_to(gone, await reserved(gone, account, order(f"{number}")), state, f"task-{number}")
    before = await ours.of_account(account)
    assert await ours.reclaim(account) == 0
    assert await ours.of_account(account) == before


# --- the journal ---


async def test_an_answer_in_the_journal_is_replayed_into_the_row(
    ledgers: Ledgers, account: Account, order: MakeOrder
) -> None:
    gone, ours = await ledgers(owner=dead()), await ledgers()
    left = await brought_to(gone, await reserved(gone, account, order()), State.SENDING)
    gone.journal.append(Answer(gone.id, left.token, "task-9"))
    gone.journal.append(Answer("another ledger", left.token, "task-8"))
    gone.journal.append(Answer(gone.id, "0" * 32, "task-7"))
    assert await ours.replay() == 1
    found = await ours.get(left.id)
    assert (found.state, found.task_id) == (State.SUBMITTED, "task-9")
    assert await ours.replay() == 0
    assert await ours.by_task(account, "task-9") == found
    assert await ours.by_task(account, "task-8") is None


async def test_whoever_reclaims_replays_first(ledgers: Ledgers, account: Account, order: MakeOrder) -> None:
    gone, ours = await ledgers(owner=dead()), await ledgers()
    left = await brought_to(gone, await reserved(gone, account, order()), State.SENDING)
    gone.journal.append(Answer(gone.id, left.token, "task-9"))
    assert await ours.reclaim(account) == 1
    assert (await ours.get(left.id)).state is State.SUBMITTED


async def test_an_answer_to_a_row_given_up_as_uncertain_or_abandoned_is_not_lost(
    ledger: Ledger, account: Account, order: MakeOrder
) -> None:
    for number, state in enumerate((State.UNCERTAIN, State.ABANDONED, State.REFUSED, State.RELEASED)):
        left = await brought_to(ledger, await reserved(ledger, account, order(f"{number}")), state)
        ledger.journal.append(Answer(ledger.id, left.token, f"task-{number}"))
    assert await ledger.replay() == 4
    rows = await ledger.of_account(account)
    assert [(row.state, row.task_id, row.counted) for row in rows] == [
        (State.SUBMITTED, f"task-{number}", PRICE) for number in range(4)
    ]
    assert await ledger.audit(account) == {}


# --- everything together ---


@dataclass
class Walk:
    """Random orders and events, from several processes."""

    ledgers: list[Ledger]
    account: Account
    order: MakeOrder
    task_id: Callable[[], str]
    rng: random.Random
    limits: Limits
    rows: dict[int, Purchase] = field(default_factory=dict)

    async def reserve(self) -> None:
        rng = self.rng
        wanted = self.order(
            f"{rng.randrange(8)}",
            take=rng.randint(1, 2),
            run=rng.choice(["", "r1", "r2"]),
            document=rng.choice(["", "doc"]),
            shot=rng.choice(["dawn", "storm"]),
            micro_usd=rng.randint(1, PRICE),
        )
        with suppress(BudgetExceeded):
            found = await rng.choice(self.ledgers).reserve(self.account, wanted, self.limits)
            if found.purchase is not None:
                self.rows[found.purchase.id] = found.purchase

    async def happen(self) -> None:
        if not self.rows:
            return
        seen = self.rows[self.rng.choice(list(self.rows))]
        event = self.rng.choice([event for event in Event if seen.state in from_states(event)])
        facts: dict[str, Any] = {}
        if event is Event.ACCEPTED and seen.task_id is None:
            facts = {"task_id": self.task_id()}
        self.rows[seen.id] = await self.rng.choice(self.ledgers).happened(seen, event, **facts)

    async def admit(self) -> None:
        with suppress(BudgetExceeded):
            hold = hold_of(self.rng.choice(["r1", "r2"]))
            await self.rng.choice(self.ledgers).admit(self.account, hold, {("dawn", 1): 9}, self.limits)

    async def reclaim(self) -> None:
        await self.rng.choice(self.ledgers).reclaim(self.account)


@pytest.mark.parametrize("seed", range(2))
async def test_whatever_happens_the_counters_are_the_sum_of_the_rows(
    ledgers: Ledgers, account: Account, order: MakeOrder, shift: Shift, seed: int, task_id: Callable[[], str]
) -> None:
    rng, limits = random.Random(seed), Limits(in_flight=6, per_day=12 * PRICE, per_run=9 * PRICE)
    walk = Walk([await ledgers(), await ledgers()], account, order, task_id, rng, limits)
    steps = [walk.reserve] * 5 + [walk.happen] * 14 + [walk.admit] * 2 + [walk.reclaim]
    for _ in range(20):
        shift.advance(rng.choice([0, 0, 0, 100, 40_000, 86_400]))
        await asyncio.gather(*(rng.choice(steps)() for _ in range(6)))
    for ledger in walk.ledgers:
        assert await ledger.audit(account) == {}
    found = await walk.ledgers[0].of_account(account)
    assert len(found) > 5
    live = [(row.order.edition, row.order.key) for row in found if row.state in LIVE and not row.spare]
    assert len(live) == len(set(live))
    for row in found:
        possible = (
            {0, row.order.micro_usd} if row.state is State.ABANDONED else {row.order.micro_usd * (row.state in LIVE)}
        )
        assert row.counted in possible


async def test_an_audit_finds_a_counter_that_is_wrong(ledger: Ledger, account: Account, order: MakeOrder) -> None:
    await reserved(ledger, account, order(run="r1"))

    account_id = await ledger.account_id(account)

    async def forge(connection: AsyncConnection) -> None:
        await connection.execute(
            counters.update()
            .where(counters.c.account_id == account_id, counters.c.period == "run:r1")
            .values(micro_usd=1)
        )

    await in_backroom(ledger.db.write(forge))
    assert await ledger.audit(account) == {"run:r1": (1, PRICE)}


async def test_a_row_that_is_not_there_is_told(ledger: Ledger, account: Account) -> None:
    with pytest.raises(LookupError, match="4711"):
        await ledger.get(4711)
    assert await ledger.find(account, "main", []) == {}
    assert await ledger.by_task(account, "none") is None


async def test_polls_are_noted(ledger: Ledger, account: Account, order: MakeOrder, shift: Shift) -> None:
    purchase = await brought_to(ledger, await reserved(ledger, account, order()), State.SUBMITTED)
    assert (purchase.polled_at, purchase.missing_since) == (None, None)
    await ledger.polled(purchase, missing=True)
    first = await ledger.get(purchase.id)
    assert first.polled_at == first.missing_since is not None
    shift.advance(60)
    await ledger.polled(purchase, missing=True)
    second = await ledger.get(purchase.id)
    assert second.missing_since == first.missing_since
    assert first.polled_at is not None
    assert second.polled_at is not None
    assert second.polled_at - first.polled_at >= timedelta(seconds=60)
    await ledger.polled(purchase)
    assert (await ledger.get(purchase.id)).missing_since is None
