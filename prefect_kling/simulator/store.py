"""Files with an end of life: results and uploads, deleted after the retention (gateway.md, "Answers" and `/files`)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from prefect_kling.simulator.clock import Clock

__all__ = ["Store", "Stored", "sha256_of"]


@dataclass(frozen=True)
class Stored:
    """One file: where it is, what it is called outside, its sha256 and when it ends, in seconds since the epoch."""

    path: Path
    filename: str
    content_type: str
    sha256: str
    expires_at: float


class Store:
    """Files by id. An expired one is remembered as gone, so that 404 and 410 can be told apart.

    Args:
        directory: where the files lie; it exists.
        retention_seconds: how long each lives.
        clock: the simulator's time.
    """

    def __init__(self, directory: Path, *, retention_seconds: float, clock: Clock) -> None:
        self.directory = directory
        self._retention = retention_seconds
        self._clock = clock
        self._files: dict[str, Stored] = {}

    def add(self, key: str, path: Path, *, filename: str, content_type: str) -> Stored:
        """Takes over a finished file under `key`; its retention starts now."""
        stored = Stored(path, filename, content_type, sha256_of(path), self._clock.now() + self._retention)
        self._files[key] = stored
        return stored

    def get(self, key: str) -> Stored | None:
        """The file, or None where there never was one.

        Raises:
            LookupError: it has expired.
        """
        stored = self._files.get(key)
        if stored is not None and self._clock.now() >= stored.expires_at:
            stored.path.unlink(missing_ok=True)
            raise LookupError(f"{key} has expired")
        return stored

    def expire(self, key: str) -> None:
        """Ends a file's life now."""
        stored = self._files[key]
        self._files[key] = Stored(stored.path, stored.filename, stored.content_type, stored.sha256, self._clock.now())


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
