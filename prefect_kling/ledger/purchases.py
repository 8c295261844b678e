"""A purchase as the ledger knows it, and an order: what somebody wants to have bought."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Self

from sqlalchemy import RowMapping

from prefect_kling.clips import Clip
from prefect_kling.gateway.errors import InvalidRequest
from prefect_kling.ledger.money import shown
from prefect_kling.ledger.states import NEXT, Next, State

MAX_EDITION: Final = 255

__all__ = ["Account", "Order", "Purchase"]


@dataclass(frozen=True)
class Account:
    """What a key pays from: the gateway's base URL and a name. It outlives the key."""

    base_url: str
    name: str = "main"


@dataclass(frozen=True)
class Order:
    """One video that somebody wants.

    Attributes:
        edition: separates runs that are meant to give new clips.
        key: see `keys`; what the video is.
        request: the canonical body, kept to say what was asked.
        model, seconds: what is billed.
        micro_usd: the most it can cost.
        storyboard, document, shot, take: where it belongs; empty for a single video.
        folder: of its clip in storage.
        run: the flow run that wants it, for its budget; empty for none.
        also: keys that older versions of this package gave the same video.
    """

    edition: str
    key: str
    request: Mapping[str, Any]
    model: str
    seconds: int
    micro_usd: int
    storyboard: str = ""
    document: str = ""
    shot: str = ""
    take: int = 1
    folder: str = "clips"
    run: str = ""
    also: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < len(self.edition) <= MAX_EDITION or not self.edition.isprintable():
            said = f"{self.edition[:60]!r} with {len(self.edition)}"
            raise InvalidRequest(f"An edition has 1 to {MAX_EDITION} printable characters; this is {said}")

    @property
    def described(self) -> str:
        """What was asked for, in one line for an operator."""
        prompt = str(self.request.get("prompt") or "")
        words = f' "{prompt if len(prompt) <= 60 else prompt[:59] + "…"}"' if prompt else ""
        return f"{self.model}, {self.seconds} s,{words} for up to {shown(self.micro_usd)}"


@dataclass(frozen=True)
class Purchase:
    """One row of the ledger.

    Attributes:
        id: of the row; stands for the purchase where the token may not be shown.
        token: a secret; its first 8 characters are shown to people.
        state: see `states`.
        order: what was asked for.
        counted: micro-dollars that budgets count for it now.
        callback: the address that the gateway was asked to call at its end, without the token; None for none.
        task_id, result_url, expires_at: what the gateway gave, and when the URL stops being safe to use.
        reason, error: why it went wrong, and the name of that error's class.
        clip: the stored file.
        polled_at, missing_since: when it was last asked about, and since when the gateway has not known it.
    """

    id: int
    token: str = field(repr=False)
    state: State
    order: Order
    counted: int
    owner: str = field(repr=False)
    lease_until: datetime | None
    spare: bool
    task_id: str | None
    result_url: str | None = field(repr=False)
    expires_at: datetime | None
    reason: str | None
    error: str | None
    clip: Clip | None
    created_at: datetime
    sent_at: datetime | None
    answered_at: datetime | None
    polled_at: datetime | None
    missing_since: datetime | None
    ended_at: datetime | None
    stored_at: datetime | None
    callback: str | None = None

    @property
    def short(self) -> str:
        """The part of the token that may be shown."""
        return self.token[:8]

    @property
    def next(self) -> Next:
        """What has to be done with it."""
        return NEXT[self.state]

    @property
    def named(self) -> str:
        """What people call it: its shot and take, else its short token."""
        take = f", take {self.order.take}" if self.order.take != 1 else ""
        return f"shot '{self.order.shot}'{take}" if self.order.shot else f"purchase {self.short}"

    @classmethod
    def read(cls, row: RowMapping) -> Self:
        """From a row of `schema.purchases`."""
        order = Order(
            edition=row["edition"],
            key=row["key"],
            request=row["request"],
            model=row["model"],
            seconds=row["seconds"],
            micro_usd=row["price"],
            storyboard=row["storyboard"],
            document=row["document"],
            shot=row["shot"],
            take=row["take"],
            folder=row["folder"],
            run=row["run"],
        )
        same = (
            "id", "token", "counted", "owner", "lease_until", "spare", "callback", "task_id", "result_url",
            "expires_at", "reason", "error", "created_at", "sent_at", "answered_at", "polled_at", "missing_since",
            "ended_at", "stored_at",
        )  # fmt: skip
        return cls(
            state=State(row["state"]),
            order=order,
            clip=None if row["clip"] is None else Clip.model_validate(row["clip"]),
            **{name: row[name] for name in same},
        )
