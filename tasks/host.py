"""Putting a file where the gateway can fetch it."""

from __future__ import annotations

import mimetypes

from prefect import task
from prefect.cache_policies import NO_CACHE

from prefect_kling.blocks import KlingStudio
from prefect_kling.clips import Clip, ClipStorage
from prefect_kling.tasks.results import Hosted, Still
from prefect_kling.tasks.retries import RETRIES

__all__ = ["host_file"]


@task(name="host file", cache_policy=NO_CACHE, **RETRIES)
async def host_file(
    file: Clip | Still | str, studio: KlingStudio | None = None, *, sha256: str | None = None
) -> Hosted:
    """Uploads a file through `POST /files` (gateway.md), which keeps it for 7 days and costs nothing.

    Args:
        file: a stored clip or still, a path on this machine, or an fsspec URL.
        studio: the account that hosts it; None for the environment's.
        sha256: what a path or URL has to hold, where that is known; a stored clip says so itself.

    Raises:
        InvalidMedia: the file is not there, or is another one.
        GatewayUnavailable: the gateway could not take it.
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
    async with storage.at_hand(location, sha256=sha256) as path, studio.get_client() as client:
        return Hosted(url=await client.upload(path, media_type=media_type))
