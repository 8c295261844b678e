"""The life of a purchase: what happened in which state, and what follows. Pure; drawn in docs/ledger.md.

    reserved → sending → submitted → completed → stored
       │          ├→ refused
       │          └→ uncertain → submitted | abandoned
       └→ released            submitted → failed | lost, completed → lost, stored → lost
                              stored → pruned → stored | lost

Whoever changes a purchase says what happened; this table alone says what that means for its state and for the money.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = ["IN_FLIGHT", "LIVE", "NEXT", "Event", "Impossible", "Money", "Next", "State", "Step", "from_states", "step"]


class State(StrEnum):
    """Where a purchase stands."""

    RESERVED = "reserved"
    SENDING = "sending"
    SUBMITTED = "submitted"
    COMPLETED = "completed"
    STORED = "stored"
    UNCERTAIN = "uncertain"
    REFUSED = "refused"
    RELEASED = "released"
    FAILED = "failed"
    LOST = "lost"
    PRUNED = "pruned"
    ABANDONED = "abandoned"


class Event(StrEnum):
    """What can happen to a purchase.

    `send`: its POST is about to leave. `not-sent`: the POST surely never arrived, or was turned away for now (429).
    `given-up`: nobody will send it. `refused`: the gateway said no. `accepted`: the gateway's task id is known.
    `answer-lost`: the POST may have been accepted. `lease-ended`: whoever was sending it is gone. `never-created`: a
    person found that there is no task. `bought-again`: bought once more although it may exist. `completed`, `failed`:
    as a poll said. `gone`: the gateway no longer has it. `downloaded`: its clip is in storage. `pruned`: somebody had
    its clip removed from storage.
    """

    SEND = "send"
    NOT_SENT = "not-sent"
    GIVEN_UP = "given-up"
    REFUSED = "refused"
    ACCEPTED = "accepted"
    ANSWER_LOST = "answer-lost"
    LEASE_ENDED = "lease-ended"
    NEVER_CREATED = "never-created"
    BOUGHT_AGAIN = "bought-again"
    COMPLETED = "completed"
    FAILED = "failed"
    GONE = "gone"
    DOWNLOADED = "downloaded"
    PRUNED = "pruned"


class Money(StrEnum):
    """What a step does to the amount that budgets count: leave it, give it back, or count it (again)."""

    KEEP = "keep"
    RELEASE = "release"
    COUNT = "count"


class Next(StrEnum):
    """What has to be done with a purchase in a state, by whoever comes along."""

    SEND = "send it, or give it up"
    ANSWER = "wait for the answer to its POST"
    POLL = "ask the gateway how it stands"
    DOWNLOAD = "download its clip before it expires"
    USE = "use its clip"
    SETTLE = "find out whether it exists"
    NOTHING = "nothing"


class Impossible(Exception):
    """This cannot happen to a purchase in that state; the row is left as it is."""


@dataclass(frozen=True)
class Step:
    """What an event leads to: a state, what becomes of the money, and what to do next."""

    state: State
    money: Money
    next: Next


LIVE: Final = frozenset(
    {
        State.RESERVED,
        State.SENDING,
        State.SUBMITTED,
        State.COMPLETED,
        State.STORED,
        State.UNCERTAIN,
        State.LOST,
        State.PRUNED,
    }
)
"""One row of an account, edition and key is in one of these at most; whoever wants that video joins it."""

IN_FLIGHT: Final = frozenset({State.RESERVED, State.SENDING, State.SUBMITTED})
"""Each takes one of the account's slots; `uncertain` takes one for a while."""

NEXT: Final[dict[State, Next]] = {
    State.RESERVED: Next.SEND,
    State.SENDING: Next.ANSWER,
    State.SUBMITTED: Next.POLL,
    State.COMPLETED: Next.DOWNLOAD,
    State.STORED: Next.USE,
    State.UNCERTAIN: Next.SETTLE,
    State.REFUSED: Next.NOTHING,
    State.RELEASED: Next.NOTHING,
    State.FAILED: Next.NOTHING,
    State.LOST: Next.NOTHING,
    State.PRUNED: Next.NOTHING,
    State.ABANDONED: Next.NOTHING,
}

_KEEP, _RELEASE, _COUNT = Money.KEEP, Money.RELEASE, Money.COUNT

_TABLE: Final[dict[State, dict[Event, tuple[State, Money]]]] = {
    State.RESERVED: {
        Event.SEND: (State.SENDING, _KEEP),
        Event.NOT_SENT: (State.RESERVED, _KEEP),
        Event.GIVEN_UP: (State.RELEASED, _RELEASE),
    },
    State.SENDING: {
        Event.NOT_SENT: (State.RESERVED, _KEEP),
        Event.REFUSED: (State.REFUSED, _RELEASE),
        Event.ACCEPTED: (State.SUBMITTED, _KEEP),
        Event.ANSWER_LOST: (State.UNCERTAIN, _KEEP),
        Event.LEASE_ENDED: (State.UNCERTAIN, _KEEP),
    },
    # Its sender may have been thought dead and yet come back with an answer.
    State.UNCERTAIN: {
        Event.NOT_SENT: (State.RELEASED, _RELEASE),
        Event.REFUSED: (State.REFUSED, _RELEASE),
        Event.ACCEPTED: (State.SUBMITTED, _KEEP),
        Event.ANSWER_LOST: (State.UNCERTAIN, _KEEP),
        Event.LEASE_ENDED: (State.UNCERTAIN, _KEEP),
        Event.NEVER_CREATED: (State.ABANDONED, _RELEASE),
        Event.BOUGHT_AGAIN: (State.ABANDONED, _KEEP),
    },
    # A task that turns up after all is counted and kept, whatever was thought of it.
    State.ABANDONED: {
        Event.NOT_SENT: (State.RELEASED, _RELEASE),
        Event.REFUSED: (State.REFUSED, _RELEASE),
        Event.ACCEPTED: (State.SUBMITTED, _COUNT),
        Event.ANSWER_LOST: (State.ABANDONED, _KEEP),
    },
    State.REFUSED: {Event.REFUSED: (State.REFUSED, _KEEP), Event.ACCEPTED: (State.SUBMITTED, _COUNT)},
    State.RELEASED: {Event.GIVEN_UP: (State.RELEASED, _KEEP), Event.ACCEPTED: (State.SUBMITTED, _COUNT)},
    State.SUBMITTED: {
        Event.ACCEPTED: (State.SUBMITTED, _KEEP),
        Event.COMPLETED: (State.COMPLETED, _KEEP),
        Event.FAILED: (State.FAILED, _RELEASE),
        Event.GONE: (State.LOST, _KEEP),
    },
    State.COMPLETED: {
        Event.ACCEPTED: (State.COMPLETED, _KEEP),
        Event.COMPLETED: (State.COMPLETED, _KEEP),
        Event.GONE: (State.LOST, _KEEP),
        Event.DOWNLOADED: (State.STORED, _KEEP),
    },
    State.STORED: {
        Event.ACCEPTED: (State.STORED, _KEEP),
        Event.COMPLETED: (State.STORED, _KEEP),
        Event.GONE: (State.LOST, _KEEP),
        Event.DOWNLOADED: (State.STORED, _KEEP),
        Event.PRUNED: (State.PRUNED, _KEEP),
    },
    # Its file is gone on purpose; whoever wants it fetches it again, as long as the gateway has it.
    State.PRUNED: {
        Event.ACCEPTED: (State.PRUNED, _KEEP),
        Event.COMPLETED: (State.PRUNED, _KEEP),
        Event.GONE: (State.LOST, _KEEP),
        Event.DOWNLOADED: (State.STORED, _KEEP),
        Event.PRUNED: (State.PRUNED, _KEEP),
    },
    State.FAILED: {Event.ACCEPTED: (State.FAILED, _KEEP), Event.FAILED: (State.FAILED, _KEEP)},
    # What was thought gone and can be had after all is had.
    State.LOST: {
        Event.ACCEPTED: (State.LOST, _KEEP),
        Event.COMPLETED: (State.LOST, _KEEP),
        Event.GONE: (State.LOST, _KEEP),
        Event.DOWNLOADED: (State.STORED, _KEEP),
        Event.FAILED: (State.FAILED, _RELEASE),
    },
}


def step(state: State, event: Event) -> Step:
    """What an event means for a purchase in a state.

    Raises:
        Impossible: it cannot happen there.
    """
    found = _TABLE[state].get(event)
    if found is None:
        raise Impossible(f"a purchase that is {state} cannot be {event}")
    after, money = found
    return Step(after, money, NEXT[after])


def from_states(event: Event) -> tuple[State, ...]:
    """The states in which an event can happen."""
    return tuple(state for state in State if event in _TABLE[state])
