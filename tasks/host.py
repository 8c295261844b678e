"""Putting a file where the gateway can fetch it."""

from __future__ import annotations

import asyncio
import mimetypes
from contextlib import AsyncExitStack
from pathlib import Path
from weakref import WeakValueDictionary

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from prefect_kling.blocks import KlingStudio
from prefect_kling.clips import Clip, ClipStorage, sha256_of, without_password
from prefect_kling.ledger.desk import Desk, desk
from prefect_kling.ledger.hosted import hosted_url, remember_hosted
from prefect_kling.ledger.purchases import Account
from prefect_kling.tasks.results import Hosted, Still
from prefect_kling.tasks.retries import RETRIES

__all__ = ["host_file"]

# Shots that want the same content at once: one uploads it, the others find it hosted.
_turns: WeakValueDictionary[tuple[int, str, Account, str], asyncio.Lock] = WeakValueDictionary()


@task(name="host file", cache_policy=NO_CACHE, **RETRIES)
async def host_file(
    file: Clip | Still | str, studio: KlingStudio | None = None, *, sha256: str | None = None, fit: bool = False
) -> Hosted:
    """Uploads a file through `POST /files` (gateway.md), which keeps it for 7 days and costs nothing.

    A content that the account uploaded before is not uploaded again while its URL can be used; whether the gateway
    still serves that URL is not asked.

    Args:
        file: a stored clip or still, a path on this machine, or an fsspec URL.
        studio: the account that hosts it; None for the environment's.
        sha256: what a path or URL has to hold, where that is known; a stored clip says so itself.
        fit: make an image that the gateway would not take into one that it takes.

    Raises:
        InvalidMedia: the file is not there, is another one, or is no image where one is to be fitted.
        GatewayUnavailable: the gateway could not take it.
        LedgerUnavailable: the ledger, which knows what is hosted, cannot be used.
    """
    studio = studio or KlingStudio.from_environment()
    if isinstance(file, str):
        # A document's file lies beside the document, wherever the studio keeps its clips.
        storage, location = ClipStorage(file), file
        media_type = mimetypes.guess_type(file)[0] or "application/octet-stream"
    else:
        storage, location = studio.get_storage(), file.path
        sha256 = file.sha256 if isinstance(file, Clip) else sha256
        media_type = file.media_type if isinstance(file, Still) else "video/mp4"
    ours = await desk(studio.settings())
    async with AsyncExitStack() as stack:
        path = await stack.enter_async_context(storage.at_hand(location, sha256=sha256))
        if fit:
            fitted = await _fitted(path, await stack.enter_async_context(studio.get_storage().incoming()))
            if fitted != path:
                path, sha256 = fitted, None
                media_type = mimetypes.guess_type(fitted.name)[0] or media_type
        digest = await asyncio.to_thread(sha256_of, path) if sha256 is None else sha256
        return Hosted(url=await _hosted(ours, path, digest, media_type, without_password(location)))


async def _hosted(ours: Desk, path: Path, digest: str, media_type: str, name: str) -> str:
    logger = get_run_logger()
    turn = (id(asyncio.get_running_loop()), ours.ledger.id, ours.account, digest)
    async with _turns.setdefault(turn, asyncio.Lock()):
        known = await hosted_url(ours.ledger, ours.account, digest)
        if known is not None:
            logger.info("%s is hosted already", name)
            return known
        async with ours.client(logger) as client:
            url = await client.upload(path, media_type=media_type)
        await remember_hosted(ours.ledger, ours.account, digest, url)
        return url


async def _fitted(path: Path, folder: Path) -> Path:
    # Needed for few files, and slow to import.
    from prefect_kling.media.fitting import fitted_image

    return await fitted_image(path, folder)
