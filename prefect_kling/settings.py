"""What a studio works with, resolved: plain values without Prefect, so that every room can take them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import SecretStr

from prefect_kling.gateway.client import DEFAULT_BASE_URL

__all__ = ["StudioSettings"]


@dataclass(frozen=True)
class StudioSettings:
    """An account, where its clips are kept, and its limits.

    Attributes:
        api_key: of the gateway.
        storage_url: where clips and films are kept: a path or any fsspec URL.
        ledger_url: where purchases are written down: `sqlite:///PATH` or `postgresql://…`; secret.
        home: a folder for what this machine alone needs, such as the journal of answers.
        base_url: of the gateway's API.
        account: a name for what the key pays from; it outlives the key.
        storage_options: passed to fsspec (keys, endpoints); secret.
        public_storage_url: where the storage can be seen from a browser, or empty.
        max_in_flight: generations of the account running at the gateway at once.
        budget_per_run: micro-dollars that one run may spend, its retries included, or None for no limit.
        budget_per_day: micro-dollars that the account may spend in a UTC day.
        budget_per_month: micro-dollars that the account may spend in a UTC month.
        on_uncertain: `stop`, or `buy-again` what may have been bought already.
        callback_base_url: the public address of the receiver's `/kling` path, or empty: without callbacks, shots are
            polled.
        receive_on: `HOST:PORT` where a run receives callbacks itself, or empty where the receiver is elsewhere.
        poll_interval: seconds, see `gateway.waiting`.
        max_wait: seconds a shot is waited for, and a 429 is put up with.
        approval_wait: seconds that a run waits for an approval.
        prices: a price list in place of the built-in one.
    """

    api_key: SecretStr
    storage_url: str
    ledger_url: SecretStr
    home: Path
    base_url: str = DEFAULT_BASE_URL
    account: str = "main"
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    public_storage_url: str = ""
    max_in_flight: int = 20
    budget_per_run: int | None = None
    budget_per_day: int | None = None
    budget_per_month: int | None = None
    on_uncertain: Literal["stop", "buy-again"] = "stop"
    callback_base_url: str = ""
    receive_on: str = ""
    poll_interval: float = 5.0
    max_wait: float = 3600.0
    approval_wait: float = 86400.0
    prices: Path | None = None
