"""Clips, and where they are kept: any folder or object store that fsspec can write.

A file appears in storage whole or not at all: it is written under another name on the same disk and renamed, or put in
one request where the store has no renaming.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict

from prefect_kling.gateway.errors import InvalidMedia, KlingError

__all__ = ["Clip", "ClipStorage", "file_name", "sha256_of", "without_password"]

RESULT_LIFE: Final = timedelta(days=7)
RESULT_MARGIN: Final = timedelta(hours=6)
"""A result that is about to vanish is no input: the next shot may wait in the gateway's queue for a while."""
SIGNED_SECONDS: Final = 7 * 24 * 3600
"""The longest that S3 signs an address for."""
_logger = logging.getLogger(__name__)


class Clip(BaseModel):
    """The file that one take gave, in storage.

    Every value is made for this clip alone: Prefect draws an arrow wherever the same object turns up again.

    Attributes:
        path: where it is kept: an absolute path, or a URL of the studio's storage.
        sha256: of its bytes, hex.
        bytes: its length.
        seconds: how long it plays.
        frames: how many it shows.
        width: in pixels, as shown.
        height: in pixels, as shown.
        task_id: the gateway's task that made it.
        url: where the gateway keeps it for 7 days.
        url_expires_at: when `url` stops being safe to use, UTC.
    """

    model_config = ConfigDict(frozen=True)

    path: str
    sha256: str
    bytes: int
    seconds: float
    frames: int
    width: int
    height: int
    task_id: str
    url: str
    url_expires_at: datetime

    def live_url(self, now: datetime) -> str | None:
        """Its URL at the gateway while the next shot can still use it, else None."""
        return self.url if now < self.url_expires_at else None


class ClipStorage:
    """A studio's storage.

    Args:
        url: a local path or any fsspec URL (`s3://bucket/prefix`).
        options: for fsspec's file system.
        public_url: where a browser sees what is at `url`.

    Raises:
        KlingError: no file system is known for the URL, or its driver is not installed.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None, *, public_url: str = "") -> None:
        from fsspec.core import url_to_fs

        self.url = url
        self._public_url = public_url.rstrip("/")
        try:
            self._fs, self._root = url_to_fs(
                str(Path(url).expanduser()) if "://" not in url else url, **(options or {})
            )
        except Exception as error:  # drivers raise what they like, some already when they cannot connect
            raise KlingError(f"The storage {without_password(url)} cannot be used: {error}") from error
        self._local = "file" in ([self._fs.protocol] if isinstance(self._fs.protocol, str) else self._fs.protocol)

    @property
    def is_local(self) -> bool:
        """Whether its locations are paths on this machine."""
        return self._local

    def location(self, name: str) -> str:
        """Where the file `name` (with `/` between folders) is or would be: an absolute path or a URL."""
        path = f"{self._root.rstrip('/')}/{name}"
        return path if self._local else str(self._fs.unstrip_protocol(path))

    def link(self, location: str) -> str:
        """What to show people for a stored file: its public URL where there is one, else its location."""
        if not self._public_url:
            return location
        return f"{self._public_url}/{quote(location.removeprefix(self.location('')))}"

    async def page_link(self, location: str) -> str:
        """What a run's page links to: as `link`, else an address that the store has signed and that is good for a week.

        Whoever has a signed address can fetch that one file, so it belongs on a page, and in no log and no event.
        """
        if self._local or self._public_url:
            return self.link(location)
        try:
            return str(await asyncio.to_thread(self._fs.sign, self._path(location), expiration=SIGNED_SECONDS))
        except NotImplementedError:
            return location
        except Exception as error:  # noqa: BLE001 - drivers raise what they like, and a page can do without
            _logger.debug("%s could not be signed: %s", without_password(location), _said(error))
            return location

    async def check(self) -> None:
        """Writes and removes a small file.

        Raises:
            OSError: that cannot be done, which is better known before anything is bought.
        """
        name = f".check-{uuid.uuid4().hex}"
        try:
            async with self.incoming() as folder:
                (folder / "check").write_bytes(b"prefect-kling")
                await asyncio.to_thread(self._publish, folder / "check", self.location(name))
            await asyncio.to_thread(self._fs.rm_file, self._path(self.location(name)))
        except Exception as error:
            if self._local:
                raise
            # Drivers have errors of their own, and their texts do not name the storage.
            raise OSError(f"The storage {without_password(self.url)} cannot be written: {_said(error)}") from error

    @asynccontextmanager
    async def incoming(self) -> AsyncIterator[Path]:
        """A local folder to make a file in, removed at the end; on the same disk as a local storage."""
        parent: Path | None = None
        if self._local:
            parent = Path(self._root) / ".incoming"
            await asyncio.to_thread(parent.mkdir, parents=True, exist_ok=True)
        folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="kling-", dir=parent))
        try:
            yield folder
        finally:
            # Also while being cancelled, so without awaiting anything; a thread may still be moving a file out. What
            # cannot be removed must not make a stored clip look lost.
            shutil.rmtree(folder, ignore_errors=True)

    async def tidy(self, *, older_than: float = 24 * 3600.0) -> int:
        """Removes what killed processes left half-made beside the files, once it is older than so many seconds.

        Returns:
            How many folders.
        """

        def remove() -> int:
            parent = Path(self._root) / ".incoming"
            if not self._local or not parent.is_dir():
                return 0
            left = [folder for folder in parent.iterdir() if time.time() - folder.stat().st_mtime > older_than]
            for folder in left:
                shutil.rmtree(folder, ignore_errors=True)
            return len(left)

        return await asyncio.to_thread(remove)

    async def publish(self, file: Path, name: str) -> str:
        """Moves a finished file of an `incoming` folder into storage, whole or not at all.

        Returns:
            Its location.

        Raises:
            OSError: it cannot be written.
        """
        location = self.location(name)
        try:
            await asyncio.to_thread(self._publish, file, location)
        except Exception as error:
            if self._local:
                raise
            raise OSError(f"{without_password(location)} cannot be written: {_said(error)}") from error
        return location

    def _publish(self, file: Path, location: str) -> None:
        if not self._local:
            self._fs.put_file(str(file), self._path(location))
            return
        target = Path(location)
        target.parent.mkdir(parents=True, exist_ok=True)
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
        file.replace(target)
        _sync(target.parent)

    async def size(self, location: str) -> int | None:
        """The length of a stored file in bytes; None where it is not there."""

        def look() -> int | None:
            if self._local:
                path = Path(location)
                return path.stat().st_size if path.is_file() else None
            try:
                return int(self._fs.size(self._path(location)))
            except FileNotFoundError:
                return None

        return await asyncio.to_thread(look)

    def keeps(self, location: str) -> bool:
        """Whether a location is one of this storage's, going by its text alone."""
        root = f"{self.location('').rstrip('/')}/"
        inside = location.removeprefix(root)
        return inside != location and inside != "" and not {"", ".", ".."} & set(inside.split("/"))

    async def remove(self, location: str) -> bool:
        """Removes a stored file for ever.

        Returns:
            Whether it was there, as far as the store tells.

        Raises:
            OSError: it cannot be removed, or is not in this storage.
        """
        if not self.keeps(location):
            shown, storage = without_password(location), without_password(self.url)
            raise OSError(f"{shown} is not in the storage {storage}, and is left alone")
        try:
            return await asyncio.to_thread(self._remove, location)
        except Exception as error:
            if self._local:
                raise
            raise OSError(f"{without_password(location)} cannot be removed: {_said(error)}") from error

    def _remove(self, location: str) -> bool:
        try:
            if self._local:
                Path(location).unlink()
                _sync(Path(location).parent)
            else:
                self._fs.rm_file(self._path(location))
        except FileNotFoundError:
            return False
        return True

    @asynccontextmanager
    async def at_hand(self, location: str, *, sha256: str | None = None) -> AsyncIterator[Path]:
        """A stored file as a local path, for as long as the block lasts; fetched where storage is not local.

        Raises:
            InvalidMedia: it is missing, or is not the file that `sha256` names.
            OSError: it cannot be read.
        """
        async with self._copied(location) as path:
            if sha256 is not None and await asyncio.to_thread(sha256_of, path) != sha256:
                shown = without_password(location)
                raise InvalidMedia(f"{shown} is not the file that was stored: its sha256 has changed")
            yield path

    @asynccontextmanager
    async def _copied(self, location: str) -> AsyncIterator[Path]:
        if self._local:
            if not await asyncio.to_thread(Path(location).is_file):
                raise InvalidMedia(f"{without_password(location)} is not there")
            yield Path(location)
            return
        async with self.incoming() as folder:
            copy = folder / location.rsplit("/", 1)[-1]
            try:
                await asyncio.to_thread(self._fs.get_file, self._path(location), str(copy))
            except FileNotFoundError:
                raise InvalidMedia(f"{without_password(location)} is not there") from None
            except Exception as error:
                raise OSError(f"{without_password(location)} cannot be read: {_said(error)}") from error
            yield copy

    def _path(self, location: str) -> str:
        return str(self._fs._strip_protocol(location))  # noqa: SLF001 - fsspec's own name for it, used by its drivers


def file_name(text: str, *, most: int = 80) -> str:
    """A part of a path made of text from outside (a task id, an edition): nothing but letters, digits and `._-`."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip(".-")
    if safe and safe == text and len(safe) <= most:
        return safe
    return f"{safe[: most - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}".lstrip("-")


def without_password(url: str) -> str:
    """An address for people."""
    return re.sub(r"(://)[^/]*@", r"\1***@", url)


def _said(error: Exception) -> str:
    """What a driver's error says; drivers have errors of their own, some without a text."""
    return str(error) or type(error).__name__


def _sync(folder: Path) -> None:
    """Makes sure that what a folder lists is on its disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(path: Path) -> str:
    """The sha256 of a local file's bytes, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
