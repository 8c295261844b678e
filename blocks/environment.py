"""Settings from the environment, prefect.toml, pyproject.toml or .env: `PREFECT_INTEGRATIONS_KLING_*`.

They count where neither an argument nor a block says otherwise. `prefect config set` refuses names that Prefect itself
does not know.
"""

from __future__ import annotations

import functools
import os
from decimal import Decimal
from pathlib import Path
from typing import Literal

from prefect.settings.base import PrefectBaseSettings, build_settings_config
from pydantic import Field, SecretStr, ValidationError

from prefect_kling.gateway.client import DEFAULT_BASE_URL
from prefect_kling.gateway.errors import KlingError

__all__ = ["KlingEnvironment", "api_key_from_environment", "base_url_from_environment", "settings_from_environment"]


class KlingEnvironment(PrefectBaseSettings):
    """The studio's settings as the environment has them."""

    model_config = build_settings_config(("integrations", "kling"))

    storage_url: str = Field(default="", description="Where clips and films are kept: a path or any fsspec URL.")
    public_storage_url: str = Field(default="", description="Where a browser sees the storage.")
    ledger_url: SecretStr = Field(
        default=SecretStr(""), description="Where purchases are written down: sqlite:///PATH or postgresql://…; secret."
    )
    max_in_flight: int = Field(default=20, ge=1, description="Generations of the account running at once.")
    budget_per_run: Decimal | None = Field(default=None, gt=0, description="USD that one run may spend.")
    budget_per_day: Decimal | None = Field(default=None, gt=0, description="USD that the account may spend in a day.")
    budget_per_month: Decimal | None = Field(
        default=None, gt=0, description="USD that the account may spend in a month."
    )
    on_uncertain: Literal["stop", "buy-again"] = Field(
        default="stop", description="What to do about a purchase whose answer was lost."
    )
    callback_base_url: str = Field(default="", description="The public address of the callback receiver's /kling path.")
    receive_on: str = Field(default="", description="HOST:PORT where a run receives callbacks itself.")
    poll_interval: float = Field(default=5.0, gt=0, description="Seconds between looks at a running generation.")
    max_wait: float = Field(default=3600.0, gt=0, description="Seconds to wait for one shot.")
    approval_wait: float = Field(default=86400.0, gt=0, description="Seconds that a run waits for an approval.")
    prices: Path | None = Field(default=None, description="A JSON price list in place of the built-in one.")


def settings_from_environment() -> KlingEnvironment:
    """The settings; files are read once for each state of the environment's variables, which takes milliseconds.

    Raises:
        KlingError: one of them cannot be used; the text names its variable.
    """
    return _read(frozenset((name, value) for name, value in os.environ.items() if name.startswith("PREFECT_")))


@functools.lru_cache(maxsize=4)
def _read(_variables: frozenset[tuple[str, str]]) -> KlingEnvironment:
    try:
        return KlingEnvironment()
    except ValidationError as error:
        said = "; ".join(
            f"PREFECT_INTEGRATIONS_KLING_{'_'.join(map(str, found['loc'])).upper()} cannot be {found['input']!r}: "
            f"{found['msg']}"
            for found in error.errors(include_url=False)
        )
        raise KlingError(said) from None


def api_key_from_environment() -> str:
    """`APIMODELS_API_KEY`, the name that the gateway's own client reads too; empty where it is not set."""
    return os.environ.get("APIMODELS_API_KEY", "").strip()


def base_url_from_environment() -> str:
    """`APIMODELS_BASE_URL`, or the gateway's public address."""
    return os.environ.get("APIMODELS_BASE_URL", "").strip() or DEFAULT_BASE_URL
