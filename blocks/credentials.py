"""The account's key as a block."""

from __future__ import annotations

from typing import Any, Self

from prefect.blocks.core import Block
from pydantic import Field, SecretStr

from prefect_kling.blocks.environment import api_key_from_environment, base_url_from_environment
from prefect_kling.gateway.client import KlingClient

__all__ = ["KlingCredentials"]


class KlingCredentials(Block):
    """The key of an account at the Kling Omni-Video gateway.

    Example:
        ```python
        from prefect_kling import KlingCredentials

        credentials = KlingCredentials.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "Kling Credentials"
    _block_type_slug = "kling-credentials"
    _documentation_url = "https://apimodels.app"  # type: ignore[assignment] # Prefect checks the text as a URL itself
    _description = "The key of an account at the Kling Omni-Video gateway. It is stored encrypted and shown masked."

    api_key: SecretStr = Field(
        title="API key", description="The account's key, as in APIMODELS_API_KEY. Stored encrypted, never logged."
    )
    base_url: str = Field(
        default="",
        title="Base URL",
        description="The gateway's API; empty takes APIMODELS_BASE_URL, else https://apimodels.app/api/v1.",
    )
    account: str = Field(
        default="main",
        min_length=1,
        max_length=64,
        title="Account",
        description="A name for what this key pays from. Keep it when the key changes: purchases belong to it.",
    )

    @classmethod
    def from_environment(cls) -> Self:
        """The key in `APIMODELS_API_KEY`; where there is none, the first use says so.

        Returns:
            Credentials that are not saved anywhere.
        """
        return cls(api_key=SecretStr(api_key_from_environment()))

    def get_client(self, **options: Any) -> KlingClient:
        """A client for this account, to be used as `async with credentials.get_client() as client`.

        Args:
            options: further arguments of `KlingClient`.

        Raises:
            AuthenticationFailed: the key is empty or cannot be one.
        """
        return KlingClient(self.api_key, base_url=self.base_url or base_url_from_environment(), **options)
