"""The studio as a block: an account, where its clips are kept, and its limits."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Literal, Self

from prefect.blocks.core import Block
from prefect.blocks.fields import SecretDict
from prefect.settings import get_current_settings
from pydantic import Field, SecretStr

from prefect_kling.blocks.credentials import KlingCredentials
from prefect_kling.blocks.environment import base_url_from_environment, settings_from_environment
from prefect_kling.clips import ClipStorage
from prefect_kling.gateway.client import KlingClient
from prefect_kling.gateway.prices import micro_usd
from prefect_kling.settings import StudioSettings

__all__ = ["KlingStudio"]


class KlingStudio(Block):
    """An account at the gateway with its clip storage and limits; every flow of prefect-kling takes one.

    A field left at 0 or empty comes from `PREFECT_INTEGRATIONS_KLING_*`, else from the default its description names.

    Example:
        ```python
        from prefect_kling import KlingStudio

        studio = KlingStudio.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "Kling Studio"
    _block_type_slug = "kling-studio"
    _documentation_url = "https://apimodels.app"  # type: ignore[assignment] # Prefect checks the text as a URL itself
    _description = "An account at the Kling Omni-Video gateway, where its clips and films are kept, and its limits."

    credentials: KlingCredentials = Field(
        description="The account that pays. Pick it again whenever you edit this block."
    )
    storage_url: str = Field(
        default="",
        title="Storage URL",
        description="Where clips and films are kept: a path as the worker sees it, or any fsspec URL such as "
        "s3://bucket/films. Keys go into the storage options. Empty: the folder kling/storage in PREFECT_HOME.",
    )
    storage_options: SecretDict = Field(
        default_factory=lambda: SecretDict({}),
        title="Storage options",
        description="Passed to fsspec for that URL: keys, endpoint, region. Stored encrypted.",
    )
    public_storage_url: str = Field(
        default="",
        title="Public storage URL",
        description="Where a browser sees the storage; links in the UI begin with it. Empty: paths are shown.",
    )
    ledger_url: SecretStr = Field(
        default=SecretStr(""),
        title="Ledger URL",
        description="Where purchases are written down: sqlite:///PATH or postgresql://USER:PASSWORD@HOST/DATABASE. "
        "Every worker of an account needs the same one. Stored encrypted. Empty: kling/ledger.db in PREFECT_HOME.",
    )
    max_in_flight: int = Field(
        default=0, ge=0, title="In flight", description="Generations of the account running at once. 0 means 20."
    )
    budget_per_run: float = Field(
        default=0,
        ge=0,
        title="Budget per run",
        description="USD that one run may spend at most, its retries included. 0 means no limit.",
    )
    budget_per_day: float = Field(
        default=0,
        ge=0,
        title="Budget per day",
        description="USD that the account may spend in a UTC day. 0 means no limit.",
    )
    budget_per_month: float = Field(
        default=0,
        ge=0,
        title="Budget per month",
        description="USD that the account may spend in a UTC month. 0 means no limit.",
    )
    on_uncertain: Literal["", "stop", "buy-again"] = Field(
        default="",
        title="When a purchase is uncertain",
        description="Its answer was lost, so it may have been bought. stop waits for a decision; buy-again risks "
        "paying twice. Empty means stop.",
    )
    callback_base_url: str = Field(
        default="",
        title="Callback base URL",
        description="The public https address of the receiver's /kling path, as the gateway reaches it; see "
        "docs/callbacks.md. Empty: shots are polled.",
    )
    receive_on: str = Field(
        default="",
        title="Receive on",
        description="HOST:PORT where a run receives callbacks itself. Empty: prefect-kling receive runs elsewhere.",
    )
    poll_interval: float = Field(
        default=0,
        ge=0,
        title="Poll interval",
        description="Seconds between looks at a running generation. 0 means 5.",
    )
    max_wait: float = Field(
        default=0, ge=0, title="Longest wait", description="Seconds to wait for one shot. 0 means 3600."
    )
    approval_wait: float = Field(
        default=0,
        ge=0,
        title="Wait for approval",
        description="Seconds that a run with approve waits for an answer before it fails. 0 means 86400, a day.",
    )

    @classmethod
    def from_environment(cls) -> Self:
        """A studio on `APIMODELS_API_KEY` and `PREFECT_INTEGRATIONS_KLING_*`, saved nowhere."""
        return cls(credentials=KlingCredentials.from_environment())

    def settings(self) -> StudioSettings:
        """What this studio works with: the block's fields, then the environment, then the defaults.

        Raises:
            KlingError: the environment says something that cannot be used.
        """
        found = settings_from_environment()
        home = get_current_settings().home
        return StudioSettings(
            api_key=self.credentials.api_key,
            base_url=self.credentials.base_url or base_url_from_environment(),
            account=self.credentials.account,
            storage_url=self.storage_url or found.storage_url or str(home / "kling" / "storage"),
            storage_options=self.storage_options.get_secret_value(),
            public_storage_url=self.public_storage_url or found.public_storage_url,
            max_in_flight=self.max_in_flight or found.max_in_flight,
            ledger_url=_first(self.ledger_url, found.ledger_url, default=str(home / "kling" / "ledger.db")),
            home=home / "kling",
            budget_per_run=_limit(self.budget_per_run, found.budget_per_run),
            budget_per_day=_limit(self.budget_per_day, found.budget_per_day),
            budget_per_month=_limit(self.budget_per_month, found.budget_per_month),
            on_uncertain=self.on_uncertain or found.on_uncertain,
            callback_base_url=self.callback_base_url or found.callback_base_url,
            receive_on=self.receive_on or found.receive_on,
            poll_interval=self.poll_interval or found.poll_interval,
            max_wait=self.max_wait or found.max_wait,
            approval_wait=self.approval_wait or found.approval_wait,
            prices=found.prices,
        )

    def get_client(self, **options: Any) -> KlingClient:
        """A client for the studio's account; see `KlingCredentials.get_client`."""
        return self.credentials.get_client(**options)

    def get_storage(self) -> ClipStorage:
        """The studio's clip storage.

        Raises:
            KlingError: no driver for its URL.
        """
        settings = self.settings()
        return ClipStorage(settings.storage_url, settings.storage_options, public_url=settings.public_storage_url)


def _limit(block: float, environment: Decimal | None) -> int | None:
    usd = Decimal(str(block)) if block else environment
    return None if usd is None else micro_usd(usd)


def _first(*secrets: SecretStr, default: str) -> SecretStr:
    return next((secret for secret in secrets if secret.get_secret_value()), SecretStr(default))
