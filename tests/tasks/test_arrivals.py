"""Clips on their way into a film: what was made for it is gone at the end, and other bytes are not taken for theirs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prefect.logging import disable_run_logger

from prefect_kling import Clip
from prefect_kling.clips import ClipStorage, sha256_of
from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.media.cut import Cut
from prefect_kling.storyboard.cutting import ShotCut
from prefect_kling.tasks.arrivals import Arrivals


@pytest.fixture(autouse=True)
def _plain_functions() -> Iterator[None]:
    with disable_run_logger():
        yield


@pytest.fixture
def clip(tmp_path: Path) -> Clip:
    path = tmp_path / "storage" / "clip.mp4"
    path.parent.mkdir()
    path.write_bytes(b"what was stored")
    return Clip(
        path=str(path),
        sha256=sha256_of(path),
        bytes=path.stat().st_size,
        frames=24,
        seconds=1.0,
        width=320,
        height=180,
        task_id="task",
        url="https://gateway.invalid/clip.mp4",
        url_expires_at=datetime.now(UTC),
    )


async def test_cancelled_twice_it_leaves_nothing_behind(clip: Clip, tmp_path: Path) -> None:
    storage = ClipStorage(str(tmp_path / "storage"))
    begun = asyncio.Event()

    async def work() -> None:
        async with Arrivals(storage, Cut()) as arrivals:
            arrivals.begin(clip, ShotCut("one"))
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await begun.wait()
    while not task.done():
        task.cancel()
        await asyncio.sleep(0)
    assert task.cancelled()
    assert not list((tmp_path / "storage" / ".incoming").iterdir())


async def test_a_clip_that_was_written_over_since_it_arrived_is_not_taken_for_it(clip: Clip, tmp_path: Path) -> None:
    path = Path(clip.path)
    async with Arrivals(ClipStorage(str(tmp_path / "storage")), Cut()) as arrivals:
        assert await arrivals.local(clip) == path
        path.write_bytes(b"something else!")
        os.utime(path, (0, 0))
        with pytest.raises(InvalidMedia, match="sha256 has changed"):
            await arrivals.local(clip)
