"""What tells a ledger from others where strangers may read it."""

from __future__ import annotations

import hashlib

__all__ = ["ledger_mark"]


def ledger_mark(ledger_id: str) -> str:
    """16 hex digits; the ledger's id cannot be had from them."""
    return hashlib.sha256(ledger_id.encode()).hexdigest()[:16]
