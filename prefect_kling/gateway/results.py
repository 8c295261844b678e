"""Fetching a result: streamed to a file, resumed after a break, complete or not there at all.

Results and hosted files lie on another host than the API and are fetched without the key.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from prefect_kling.gateway.addresses import is_loopback_url
from prefect_kling.gateway.client import backoff, tls
from prefect_kling.gateway.errors import GatewayUnavailable, InvalidMedia, TaskNotFound

__all__ = ["MAX_RESULT_BYTES", "Fetched", "fetch"]

MAX_RESULT_BYTES: Final = 2 * 1024**3
_SPAN: Final = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.IGNORECASE)
_TIMEOUT: Final = httpx.Timeout(connect=10.0, pool=10.0, write=10.0, read=60.0)


@dataclass(frozen=True)
class Fetched:
    """A file that arrived whole: its length in bytes and its sha256 in hex."""

    bytes: int
    sha256: str


class _Broken(Exception):
    """The transfer ended early; what arrived stays, and the rest is asked for."""


async def fetch(
    url: str,
    to: Path,
    *,
    attempts: int = 6,
    transport: httpx.AsyncBaseTransport | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    rand: Callable[[], float] = random.random,
) -> Fetched:
    """Streams `url` into the new file `to`, which exists afterwards only if all of it arrived.

    A transfer that breaks goes on where it stopped (Range, with If-Range, so that two versions are never mixed); where
    the server cannot do that it begins again.

    Args:
        url: a result URL, without credentials.
        to: the file to write; written over where it exists. Its folder has to exist.
        attempts: tries in a row that bring no new byte, before giving up.
        transport: an httpx transport in place of the network, for tests.
        sleep, rand: time and chance, for tests.

    Raises:
        TaskNotFound: the result is gone for good (404, 410) or not for us (401, 403).
        GatewayUnavailable: it could not be had this time.
        InvalidMedia: it is larger than 2 GiB.
        OSError: the file cannot be written.
    """
    _check(url)
    file = to.open("wb")  # before the `try`: a file that may not be written is not removed either
    done = False
    try:
        with file:
            async with httpx.AsyncClient(
                transport=transport,
                timeout=_TIMEOUT,
                follow_redirects=True,
                trust_env=not is_loopback_url(url),
                verify=tls(),
                headers={"Accept-Encoding": "identity"},
            ) as client:
                await _fill(client, url, _Partial(file.fileno()), attempts, sleep, rand)
            os.fsync(file.fileno())
        fetched = await asyncio.to_thread(_measure, to)
        done = True
        return fetched
    finally:
        if not done:
            to.unlink(missing_ok=True)  # noqa: ASYNC240 - one unlink, also while being cancelled


def _check(url: str) -> None:
    try:
        _ = httpx.URL(url).host  # a host is decoded only when it is asked for
    except (httpx.InvalidURL, ValueError) as error:
        raise GatewayUnavailable(f"The gateway named a result URL that is none: {error}") from error


class _Partial:
    """A file being filled, and which version of the result its bytes come from."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.length = 0
        self.reached = 0
        self.version: str | None = None

    def expect(self, start: int | None, version: str | None) -> None:
        """Makes ready for bytes from `start` on, of this version; begins again where they do not fit what is here."""
        if start != self.length or (start and version not in (None, self.version)):
            self.begin_again()
        if start != self.length:
            raise _Broken("the bytes that came are not those that were asked for")
        if start == 0:
            self.version = version

    def begin_again(self) -> None:
        os.ftruncate(self.descriptor, 0)
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        self.length = 0

    def append(self, chunk: bytes) -> None:
        view = memoryview(chunk)
        while view:
            view = view[os.write(self.descriptor, view) :]
        self.length += len(chunk)
        self.reached = max(self.reached, self.length)


async def _fill(
    client: httpx.AsyncClient,
    url: str,
    partial: _Partial,
    attempts: int,
    sleep: Callable[[float], Awaitable[None]],
    rand: Callable[[], float],
) -> None:
    failures = most = 0
    while True:
        try:
            return await _transfer(client, url, partial)
        except (httpx.RequestError, _Broken) as error:
            # Measured against the longest part so far: a server that begins again may bring less, then more.
            failures = 1 if partial.reached > most else failures + 1
            most = partial.reached
            if failures >= attempts:
                reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
                raise GatewayUnavailable(
                    f"The result could not be downloaded ({reason}); it stays at the gateway for 7 days, run again"
                ) from error
            await sleep(backoff(failures, rand))


async def _transfer(client: httpx.AsyncClient, url: str, partial: _Partial) -> None:
    headers = {}
    if partial.length and partial.version:
        headers = {"Range": f"bytes={partial.length}-", "If-Range": partial.version}
    async with client.stream("GET", url, headers=headers) as response:
        if response.status_code == 416:
            partial.begin_again()
        _refuse(response)
        start, expected = _span(response)
        partial.expect(start, _strong_version(response))
        if expected is not None and expected > MAX_RESULT_BYTES:
            raise _too_large()
        async for chunk in response.aiter_bytes():  # as they come: whole blocks would lose the last one to a break
            partial.append(chunk)
            if partial.length > MAX_RESULT_BYTES:
                raise _too_large()
    if expected is not None and partial.length != expected:
        got = partial.length
        if got > expected:
            partial.begin_again()
        raise _Broken(f"{got:,} of {expected:,} bytes arrived")


def _refuse(response: httpx.Response) -> None:
    status = response.status_code
    if status in (401, 403, 404, 410):
        raise TaskNotFound(f"The result is not there (HTTP {status}); results are kept for 7 days", status=status)
    if not 200 <= status < 300:
        raise _Broken(f"HTTP {status}")


def _too_large() -> InvalidMedia:
    return InvalidMedia(f"The result is larger than {MAX_RESULT_BYTES / 1024**3:g} GiB; no clip is")


def _span(response: httpx.Response) -> tuple[int | None, int | None]:
    """Where an answer's bytes begin, None where that is not said, and how long the whole is, None where unknown.

    A part may end before the whole does: its own length says nothing about the whole.
    """
    if response.status_code == 206:
        found = _SPAN.fullmatch(response.headers.get("content-range", "").strip())
        if found is None:
            return None, None
        start, end, whole = found.groups()
        return int(start), int(end) + 1 if whole == "*" else int(whole)
    length = response.headers.get("content-length", "")
    return 0, int(length) if length.isdigit() and "content-encoding" not in response.headers else None


def _strong_version(response: httpx.Response) -> str | None:
    etag = response.headers.get("etag", "")
    # Places in an encoded answer are not places in the file.
    return etag if etag.startswith('"') and "content-encoding" not in response.headers else None


def _measure(path: Path) -> Fetched:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return Fetched(file.tell(), digest.hexdigest())
