"""The life of a purchase: every state against every event, what that does to the money, and the drawing of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefect_kling.ledger.states import (
    IN_FLIGHT,
    LIVE,
    NEXT,
    Event,
    Impossible,
    Money,
    Next,
    State,
    from_states,
    step,
)

DOCUMENT = Path(__file__).parents[2] / "docs" / "ledger.md"

# state, event, state afterwards, what becomes of the money; whatever is not here is impossible.
STEPS = """
reserved   send           sending    keep
reserved   not-sent       reserved   keep
reserved   given-up       released   release
sending    not-sent       reserved   keep
sending    refused        refused    release
sending    accepted       submitted  keep
sending    answer-lost    uncertain  keep
sending    lease-ended    uncertain  keep
submitted  accepted       submitted  keep
submitted  completed      completed  keep
submitted  failed         failed     release
submitted  gone           lost       keep
completed  accepted       completed  keep
completed  completed      completed  keep
completed  gone           lost       keep
completed  downloaded     stored     keep
stored     accepted       stored     keep
stored     completed      stored     keep
stored     gone           lost       keep
stored     downloaded     stored     keep
stored     pruned         pruned     keep
pruned     accepted       pruned     keep
pruned     completed      pruned     keep
pruned     gone           lost       keep
pruned     downloaded     stored     keep
pruned     pruned         pruned     keep
uncertain  not-sent       released   release
uncertain  refused        refused    release
uncertain  accepted       submitted  keep
uncertain  answer-lost    uncertain  keep
uncertain  lease-ended    uncertain  keep
uncertain  never-created  abandoned  release
uncertain  bought-again   abandoned  keep
refused    refused        refused    keep
refused    accepted       submitted  count
released   given-up       released   keep
released   accepted       submitted  count
failed     accepted       failed     keep
failed     failed         failed     keep
lost       accepted       lost       keep
lost       completed      lost       keep
lost       gone           lost       keep
lost       downloaded     stored     keep
lost       failed         failed     release
abandoned  not-sent       released   release
abandoned  refused        refused    release
abandoned  accepted       submitted  count
abandoned  answer-lost    abandoned  keep
"""
TABLE = {
    (State(state), Event(event)): (State(after), Money(money))
    for state, event, after, money in (line.split() for line in STEPS.strip().splitlines())
}

# Whether its money may be counted: always, never, or as it comes.
COUNTED = {
    State.RESERVED: {True},
    State.SENDING: {True},
    State.SUBMITTED: {True},
    State.COMPLETED: {True},
    State.STORED: {True},
    State.UNCERTAIN: {True},
    State.LOST: {True},
    State.PRUNED: {True},
    State.REFUSED: {False},
    State.RELEASED: {False},
    State.FAILED: {False},
    State.ABANDONED: {True, False},  # bought again; never created
}
TO_DO = {
    State.RESERVED: Next.SEND,
    State.SENDING: Next.ANSWER,
    State.SUBMITTED: Next.POLL,
    State.COMPLETED: Next.DOWNLOAD,
    State.STORED: Next.USE,
    State.UNCERTAIN: Next.SETTLE,
    State.LOST: Next.NOTHING,
    State.PRUNED: Next.NOTHING,
    State.REFUSED: Next.NOTHING,
    State.RELEASED: Next.NOTHING,
    State.FAILED: Next.NOTHING,
    State.ABANDONED: Next.NOTHING,
}


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("state", State)
def test_every_event_in_every_state(state: State, event: Event) -> None:
    expected = TABLE.get((state, event))
    if expected is None:
        with pytest.raises(Impossible, match=f"{state} cannot be {event}"):
            step(state, event)
        return
    found = step(state, event)
    assert (found.state, found.money, found.next) == (*expected, TO_DO[expected[0]])


def test_what_is_to_be_done_is_said_of_every_state() -> None:
    assert NEXT == TO_DO


@pytest.mark.parametrize("event", Event)
def test_the_states_in_which_an_event_can_happen(event: Event) -> None:
    assert from_states(event) == tuple(state for state in State if (state, event) in TABLE)
    assert from_states(event)


def reachable(*start: tuple[State, bool]) -> set[tuple[State, bool]]:
    """States, each with whether its money is counted, that can come of some, those included."""
    found, todo = set(start), list(start)
    while todo:
        state, counted = todo.pop()
        for (before, _), (after, money) in TABLE.items():
            then = (after, {Money.KEEP: counted, Money.RELEASE: False, Money.COUNT: True}[money])
            if before is state and then not in found:
                found.add(then)
                todo.append(then)
    return found


def test_every_state_comes_of_a_reservation_with_the_money_it_has_to_have() -> None:
    found = reachable((State.RESERVED, True))
    assert {state: {counted for of, counted in found if of is state} for state in State} == COUNTED


@pytest.mark.parametrize("state", [state for state in State if TO_DO[state] not in (Next.NOTHING, Next.USE)])
def test_whatever_is_to_be_done_an_end_can_be_reached(state: State) -> None:
    ends = {after for after, _ in reachable((state, True)) if TO_DO[after] in (Next.NOTHING, Next.USE)}
    assert State.STORED in ends
    assert ends & {State.RELEASED, State.REFUSED, State.FAILED, State.ABANDONED, State.LOST}


def test_what_is_live_and_what_takes_a_slot() -> None:
    assert {State.REFUSED, State.RELEASED, State.FAILED, State.ABANDONED} == set(State) - LIVE
    assert {State.RESERVED, State.SENDING, State.SUBMITTED} == IN_FLIGHT
    assert IN_FLIGHT < LIVE
    # Live is what may be paid for and stays so; all of it is counted.
    assert all(COUNTED[state] == {True} for state in LIVE)


def test_only_a_task_that_turned_up_brings_a_row_back_to_life_and_is_counted_then() -> None:
    for (state, event), (after, money) in TABLE.items():
        revived = state not in LIVE and after in LIVE
        assert revived is (money is Money.COUNT)
        if revived:
            assert event is Event.ACCEPTED


@pytest.mark.parametrize(("state", "event"), TABLE)
def test_what_is_written_down_twice_changes_nothing(state: State, event: Event) -> None:
    """As after a commit whose success nobody heard of."""
    after, _ = TABLE[state, event]
    assert TABLE.get((after, event), (after, Money.KEEP)) == (after, Money.KEEP)


@pytest.mark.parametrize("state", [state for state in State if state not in (State.RESERVED, State.ABANDONED)])
def test_a_task_id_is_taken_wherever_a_post_may_have_left(state: State) -> None:
    assert step(state, Event.ACCEPTED).state not in (State.REFUSED, State.RELEASED, State.ABANDONED)


# --- docs/ledger.md ---


def section(title: str) -> str:
    """A section of the document."""
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", DOCUMENT.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert found is not None, title
    return found[1]


def rows(text: str) -> Iterator[list[str]]:
    """The rows of the tables in a text, without their heads."""
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        for line in block.splitlines()[2:]:
            yield [cell.strip() for cell in line.strip("|").split("|")]


def test_the_drawing_is_the_table() -> None:
    drawn = {
        (State(before), Event(event.strip()), State(after))
        for before, after, events in re.findall(r"^ *(\w+) --> (\w+): (.+)$", section("States"), re.MULTILINE)
        for event in events.split(",")
    }
    assert drawn == {(before, event, after) for (before, event), (after, _) in TABLE.items() if before is not after}
    assert "[*] --> reserved" in section("States")


def test_the_states_are_told_with_what_they_take_and_what_is_to_be_done() -> None:
    words = {(True,): "yes", (False,): "no", (False, True): "either"}
    expected = {
        state: [
            "yes" if state in LIVE else "no",
            "yes" if state in IN_FLIGHT else "for one `max_wait`" if state is State.UNCERTAIN else "no",
            words[tuple(sorted(COUNTED[state]))],
            str(TO_DO[state]),
        ]
        for state in State
    }
    assert {State(name.strip("`")): cells for name, *cells in rows(section("States"))} == expected


def test_every_transition_is_told_with_its_money() -> None:
    told = [
        (State(state.strip("`")), Event(event.strip("`")), State(after.strip("`")), Money(money))
        for state, event, after, money in rows(section("Every transition"))
    ]
    assert len(told) == len(set(told))
    assert set(told) == {(*key, *value) for key, value in TABLE.items()}


def test_the_events_are_told_in_words() -> None:
    assert {Event(name.strip("`")) for name, _ in rows(section("What can happen"))} == set(Event)
