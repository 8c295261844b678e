"""Input media: fetched as the gateway would, decoded, and held against its limits (gateway.md, rules 9 and 10).

Only loopback is ever contacted. A public URL cannot be fetched from here; what the simulator uses instead is a stand-in
made from the URL's text: the same URL gives the same picture, another URL another.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import hashlib
import ipaddress
import uuid
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import httpx

from prefect_kling.gateway.addresses import is_loopback_url
from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.gateway.limits import (
    MAX_IMAGE_BYTES,
    MAX_VIDEO_BYTES,
    ImageFacts,
    VideoFacts,
    image_refusal,
    video_refusal,
)
from prefect_kling.gateway.requests import OmniVideoRequest
from prefect_kling.simulator.store import Stored

__all__ = ["FetchedInputs", "Refused", "Unfetchable", "fetch_inputs", "loopback_target"]

FETCH_SECONDS = 30.0

_Facts = TypeVar("_Facts", ImageFacts, VideoFacts)


class Refused(Exception):
    """An input breaks a limit or cannot be had: the gateway's 400. The text names the field."""


class Unfetchable(Exception):
    """A URL gave nothing."""


@dataclass(frozen=True)
class FetchedInputs:
    """What a request's media turned out to be.

    Attributes:
        images: files in the order of `image_list`.
        video: the file of `video_list`, if any.
        video_seconds: its length as probed.
    """

    images: tuple[Path, ...] = ()
    video: Path | None = None
    video_seconds: float | None = None


def loopback_target(url: str) -> httpx.URL | None:
    """The address to connect to for a loopback URL, never resolved by anybody; None for any other URL.

    Raises:
        Unfetchable: it is written in a way that no client understands.
    """
    if not is_loopback_url(url):
        return None
    try:
        target = httpx.URL(url)
    except httpx.InvalidURL as error:
        # Resolvers know more spellings of an address than clients do.
        raise Unfetchable(f"{url} cannot be fetched: {error}") from error
    try:
        ipaddress.ip_address(target.host)
    except ValueError:
        return target.copy_with(host="127.0.0.1")
    return target


async def fetch_inputs(
    request: OmniVideoRequest,
    *,
    own: Callable[[str], Stored | None],
    directory: Path,
    pool: Executor,
    shrink: int,
    stand_in: Callable[[str, str, Path], None],
) -> FetchedInputs:
    """Fetches and checks every image and video of a request.

    Args:
        request: already valid by itself.
        own: finds the simulator's own file behind a URL; None where the URL is not its own.
        directory: where fetched files go.
        pool: where decoding happens.
        shrink: clips and their stills may be smaller than the limits by this factor (`SimulatorConfig.shrink`).
        stand_in: `(kind, url, path)` makes the stand-in for a public URL; kind is `image` or `video`.

    Raises:
        Refused: an input cannot be fetched, is no image or video, or breaks a limit.
    """
    loop = asyncio.get_running_loop()
    source = _Source(own, directory, pool, stand_in)

    async def checked(
        field: str, kind: str, url: str, measure: Callable[[Path], _Facts], refusal: Callable[[_Facts], str | None]
    ) -> tuple[Path, _Facts]:
        try:
            path = await source.file(kind, url)
            facts = await loop.run_in_executor(pool, measure, path)
        except (Unfetchable, InvalidMedia, LookupError) as error:
            raise Refused(f"{field}: {error}") from error
        reason = _either_size(refusal, facts, shrink)
        if reason is not None:
            raise Refused(f"{field}: {reason}")
        return path, facts

    images = [
        await checked(f"image_list.{n}.image_url", "image", image.image_url, _image_facts, image_refusal)
        for n, image in enumerate(request.image_list or ())
    ]
    paths = tuple(path for path, _ in images)
    video = next(iter(request.video_list or ()), None)
    if video is None:
        return FetchedInputs(paths)
    refusal = functools.partial(video_refusal, model=request.model, refer_type=video.refer_type or "base")
    file, seen = await checked("video_list.0.video_url", "video", video.video_url, _video_facts, refusal)
    return FetchedInputs(paths, file, seen.seconds)


@dataclass(frozen=True)
class _Source:
    own: Callable[[str], Stored | None]
    directory: Path
    pool: Executor
    stand_in: Callable[[str, str, Path], None]

    async def file(self, kind: str, source: str) -> Path:
        """What is behind a URL or in a Base64 text, as a file."""
        name = hashlib.sha256(source.encode()).hexdigest()
        if not source.lower().startswith(("http:", "https:")):
            path = self.directory / f"base64-{name}"
            path.write_bytes(base64.b64decode(source))
            return path
        if (stored := self.own(source)) is not None:
            return stored.path
        if (target := loopback_target(source)) is not None:
            path = self.directory / uuid.uuid4().hex
            await _download(target, path, most=MAX_IMAGE_BYTES if kind == "image" else MAX_VIDEO_BYTES)
            return path
        path = self.directory / f"{kind}-{name}"
        if not path.exists():
            await asyncio.get_running_loop().run_in_executor(self.pool, self.stand_in, kind, source, path)
        return path


def _either_size(check: Callable[[_Facts], str | None], facts: _Facts, shrink: int) -> str | None:
    reason = check(facts)
    if reason is None or shrink == 1:
        return reason
    return check(replace(facts, width=facts.width * shrink, height=facts.height * shrink))


async def _download(url: httpx.URL, path: Path, *, most: int) -> None:
    try:
        async with (
            httpx.AsyncClient(trust_env=False, timeout=FETCH_SECONDS) as client,
            client.stream("GET", url) as answer,
        ):
            if answer.status_code != 200:
                raise Unfetchable(f"{url} answered {answer.status_code}")
            size = 0
            with path.open("wb") as file:
                async for chunk in answer.aiter_bytes():
                    size += len(chunk)
                    if size > most:
                        raise Unfetchable(f"{url} has more than {most // 1024 // 1024} MB")
                    file.write(chunk)
    except httpx.HTTPError as error:
        raise Unfetchable(f"{url} cannot be fetched: {type(error).__name__}") from error


def _image_facts(path: Path) -> ImageFacts:
    from PIL import Image, UnidentifiedImageError  # slow to import, and only requests with images need it

    try:
        with Image.open(path) as image:
            image.load()
            return ImageFacts(image.format or "unknown", image.width, image.height, path.stat().st_size)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InvalidMedia(f"not a readable image: {error}") from error


def _video_facts(path: Path) -> VideoFacts:
    import av  # slow to import, and only requests with videos need it

    try:
        # Only this demuxer: others follow what a file names, to anywhere.
        with av.open(str(path), format="mov") as container:
            stream = container.streams.video[0]
            frame = next(container.decode(stream))
            rate = float(stream.average_rate or 0)
            ticks = stream.duration or 0
            seconds = float(ticks * stream.time_base) if stream.time_base else 0.0
            return VideoFacts(seconds, frame.width, frame.height, rate, path.stat().st_size)
    except (av.FFmpegError, IndexError, StopIteration) as error:
        raise InvalidMedia(f"not a readable mp4 or mov: {error}") from error
