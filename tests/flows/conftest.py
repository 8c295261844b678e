"""What the flows' tests share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def old_prices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A price list from before prices went up: an account then seems to hold enough, and the gateway says 402."""
    cheap = '{"plain": "0.01", "keep_original_sound": "0.01", "sound": "0.01"}'
    path = tmp_path / "prices.json"
    path.write_text(f'{{"kling-v3-omni": {{"std": {cheap}, "pro": {cheap}}}}}')
    monkeypatch.setenv("PREFECT_INTEGRATIONS_KLING_PRICES", str(path))
