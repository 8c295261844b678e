"""The README's pictures of Prefect's UI, which the browser's tests draw (`KLING_RENEW_PICTURES=1`)."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
MOST_BYTES = 150_000


@pytest.mark.parametrize("name", ["run", "review"])
def test_the_readme_shows_it_and_it_is_small(name: str) -> None:
    picture = ROOT / "docs" / f"{name}.jpg"
    assert f"](docs/{picture.name})" in (ROOT / "README.md").read_text("utf-8")
    assert picture.stat().st_size < MOST_BYTES
    with Image.open(picture) as image:
        image.load()
        assert (image.format, image.size) == ("JPEG", (1280, 900))
