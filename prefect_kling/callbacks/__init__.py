"""The receiver of the gateway's calls, and how a waiting shot is woken."""

from __future__ import annotations

from prefect_kling.callbacks.receiving import receiver

__all__ = ["receiver"]
