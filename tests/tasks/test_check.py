"""A check of the user's own: whatever it does, it is an answer, or an error that says so."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prefect.logging import disable_run_logger

from prefect_kling import Clip, KlingCredentials, KlingStudio
from prefect_kling.clips import sha256_of
from prefect_kling.gateway.errors import StoryboardError
from prefect_kling.media.checks import Wanted
from prefect_kling.simulator.standin import stand_in_video
from prefect_kling.tasks import check_clip

pytestmark = pytest.mark.timeout(60)
Check = Callable[[Path], Any]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    """A clip in storage."""
    path = tmp_path_factory.mktemp("checked") / "t-1.mp4"
    stand_in_video("https://films.example.com/fox.mp4", path)
    return Clip(
        path=str(path),
        sha256=sha256_of(path),
        bytes=path.stat().st_size,
        seconds=5.04,
        frames=121,
        width=1280,
        height=720,
        task_id="t-1",
        url="https://gateway.example.com/t-1.mp4",
        url_expires_at=datetime(2026, 11, 29, tzinfo=UTC),
    )


@pytest.fixture
def checked(clip: Clip) -> Callable[[Check], Any]:
    """What a check finds."""

    async def check(function: Check) -> tuple[str, ...]:
        with disable_run_logger():
            studio = KlingStudio(
                credentials=KlingCredentials(api_key="sk-check-40ab77"), storage_url=str(Path(clip.path).parent)
            )
            return tuple((await check_clip.fn(clip, Wanted(), studio, function=function)).faults)

    return check


async def slowly(path: Path) -> str:
    await asyncio.sleep(0)
    return f"{path.name} is odd"


def stops(_: Path) -> None:
    sys.exit(0)


def ends(_: Path) -> Any:
    return next(iter(()))


@pytest.mark.parametrize(
    ("function", "faults"),
    [
        (lambda path: None, ()),
        (lambda path: True, ()),
        (lambda path: " ", ()),
        (lambda path: f"{path.name} is odd", ("t-1.mp4 is odd",)),
        (slowly, ("t-1.mp4 is odd",)),
    ],
)
async def test_what_it_answers(checked: Any, function: Check, faults: tuple[str, ...]) -> None:
    assert await checked(function) == faults


async def test_a_plain_no_names_the_check(checked: Any) -> None:
    (said,) = await checked(lambda path: False)
    assert said.endswith("<lambda> says no")


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda path: 1 / 0, "raised ZeroDivisionError"),
        (lambda path: 0, "returned int"),
        (lambda path: [str(path)], "returned list"),
        (stops, "stops raised SystemExit: 0"),
        (ends, "StopIteration"),
    ],
)
async def test_what_is_no_answer_is_an_error(checked: Any, function: Check, said: str) -> None:
    with pytest.raises(StoryboardError, match=said):
        await asyncio.wait_for(checked(function), 20)


def test_one_that_hangs_holds_up_neither_a_cancelled_run_nor_its_process(checked: Any) -> None:
    hanging, over = threading.Event(), threading.Event()

    def hangs(_: Path) -> None:
        hanging.set()
        over.wait()

    async def cancelled() -> None:
        running = asyncio.create_task(checked(hangs))
        await asyncio.to_thread(hanging.wait, 20)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    try:
        asyncio.run(asyncio.wait_for(cancelled(), 20))  # which waits for the threads of its executor
    finally:
        over.set()
