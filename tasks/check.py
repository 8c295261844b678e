"""Looking at a clip before the film uses it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
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
        answer = await asyncio.to_thread(function, file)
        if inspect.isawaitable(answer):
            answer = await answer
    except Exception as error:
        raise StoryboardError(f"The check {name} raised {type(error).__name__}: {error}") from error
    match answer:
        case None | True:
            return ()
        case False:
            return (f"{name} says no",)
        case str(said):
            return (said,) if said.strip() else ()
    raise StoryboardError(f"The check {name} returned {type(answer).__name__}; it returns nothing, or text")
