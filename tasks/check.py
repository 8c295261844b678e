"""Looking at a clip before the film uses it."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from prefect_kling.blocks import KlingStudio
from prefect_kling.clips import Clip
from prefect_kling.gateway.errors import StoryboardError
from prefect_kling.media.checks import Wanted, faults_of
from prefect_kling.tasks.results import Checked

__all__ = ["check_clip"]


@task(name="check", cache_policy=NO_CACHE)
async def check_clip(
    clip: Clip, wanted: Wanted, studio: KlingStudio | None = None, *, function: Callable[..., Any] | None = None
) -> Checked:
    """Holds a stored clip against what it has to be. Nothing is bought, and the clip is kept either way.

    Args:
        clip: what `download_video` returned.
        wanted: what is looked at.
        studio: whose storage; None for the environment's.
        function: a check of the user's own: gets the clip's path, and returns None or True where it passes, False or
            text that says what is wrong where it does not; it may be async.

    Raises:
        InvalidMedia: the clip is gone or changed, or is no video at all.
        StoryboardError: the user's own check failed to give an answer, which says nothing about the clip.
    """
    studio = studio or KlingStudio.from_environment()
    async with studio.get_storage().at_hand(clip.path, sha256=clip.sha256) as file:
        faults = await faults_of(file, wanted)
        if function is not None:
            faults += await _own(function, file)
    if faults:
        get_run_logger().warning("%s: %s", clip.path, "; ".join(faults))
    return Checked(faults=list(faults))


async def _own(function: Callable[..., Any], file: Path) -> tuple[str, ...]:
    name = f"{function.__module__}:{getattr(function, '__qualname__', function)}"
    try:
        answer = await _called(function, file)
        if inspect.isawaitable(answer):
            answer = await answer
    except (Exception, SystemExit) as error:
        raise StoryboardError(f"The check {name} raised {type(error).__name__}: {error}") from error
    match answer:
        case None | True:
            return ()
        case False:
            return (f"{name} says no",)
        case str(said):
            return (said,) if said.strip() else ()
    raise StoryboardError(f"The check {name} returned {type(answer).__name__}; it returns nothing, or text")


async def _called(function: Callable[..., Any], file: Path) -> Any:
    """What a function returns or raises, called in a thread that nobody waits for at the end of the run or process.

    Not by `asyncio.to_thread`: a check that hangs would then outlive every Ctrl-C, and no future carries StopIteration.
    """
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    answers: list[Any] = []
    errors: list[BaseException] = []

    def call() -> None:
        try:
            answers.append(function(file))
        except BaseException as error:  # noqa: BLE001 - raised below, where it is awaited
            errors.append(error)
        with suppress(RuntimeError):  # the loop is closed: the run was stopped meanwhile
            loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=contextvars.copy_context().run, args=(call,), name="kling-check", daemon=True).start()
    await ended.wait()
    for error in errors:
        raise error
    return answers[0]
