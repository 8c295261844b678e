"""What the Prefect UI stores: the account's key, and the studio around it."""

from prefect_kling.blocks.credentials import KlingCredentials
from prefect_kling.blocks.studio import KlingStudio

__all__ = ["KlingCredentials", "KlingStudio"]
