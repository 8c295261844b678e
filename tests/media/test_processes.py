"""A child process that misbehaves ends, and so does waiting for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefect_kling.media.processes import run


async def test_a_child_that_never_stops_talking_is_ended() -> None:
    """What it wrote and nobody read must not keep the wait from ending."""
    with pytest.raises(ValueError, match="wrote more than 16777216 bytes"):
        await run(["yes"], timeout=30)


async def test_a_child_that_talks_when_its_time_is_up_is_ended() -> None:
    said: list[str] = []
    ended = await run(["sh", "-c", "echo first; exec yes >&2"], timeout=0.2, on_line=said.append)
    assert (ended.timed_out, ended.status, said) == (True, -9, ["first"])
    assert ended.stderr.endswith("y\n")


async def test_a_listener_that_fails_ends_the_child() -> None:
    def listener(_line: str) -> None:
        raise KeyError("unheard of")

    with pytest.raises(KeyError, match="unheard of"):
        await run(["yes"], timeout=30, on_line=listener)


async def test_a_child_that_talks_is_ended_when_nobody_waits_any_more() -> None:
    began = asyncio.Event()
    task = asyncio.create_task(run(["yes"], timeout=30, on_line=lambda _line: began.set()))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("steps", range(12))
async def test_a_child_is_ended_whenever_its_caller_is(steps: int, tmp_path: Path) -> None:
    """Also in the middle of its start: asyncio waits for ever for a child that it has half connected."""
    task = asyncio.create_task(run(["sh", "-c", f"sleep 300 # {tmp_path}"], timeout=300))
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task], timeout=20)
    assert task.cancelled()
    assert str(tmp_path) not in "".join(_command_lines())


def _command_lines() -> Iterator[str]:
    for found in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended
            yield found.read_text(errors="replace")
