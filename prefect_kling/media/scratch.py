"""A file gets its name when it is whole, not before."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["publish", "scratch", "workshop", "writable"]

NAMES_BESIDE = (".srt", ".vtt", ".otio")
"""What names of files beside a film are made with in place of the film's own ending: one of them would replace it."""


@contextmanager
def scratch(beside: Path) -> Iterator[Path]:
    """An empty work file in the same directory, hidden, named by us; it is gone afterwards unless it was published.

    Args:
        beside: the name that the finished file will get; its directory has to exist and be writable.

    Raises:
        OSError: the directory is missing or cannot be written to, or the name belongs to a directory.
    """
    beside = beside.absolute()
    if beside.is_dir():
        raise IsADirectoryError(f"{beside} is a directory; give the name of a file in it.")
    # Short and ours: a clip's or a user's name could be too long, or mean something to a demuxer.
    work = beside.parent / f".kling-{secrets.token_hex(8)}.part"
    # Mode 0666 less the umask, unlike tempfile's 0600: the finished film is for whoever may read its neighbours.
    os.close(os.open(work, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield work
    finally:
        work.unlink(missing_ok=True)


@contextmanager
def workshop(beside: Path) -> Iterator[Path]:
    """An empty hidden folder in the same directory, for work files of any number; it is gone afterwards with all in it.

    Args:
        beside: the name that the finished file will get, as for `scratch`.

    Raises:
        OSError: as for `scratch`.
    """
    beside = beside.absolute()
    if beside.is_dir():
        raise IsADirectoryError(f"{beside} is a directory; give the name of a file in it.")
    folder = Path(tempfile.mkdtemp(prefix=".kling-", suffix=".part", dir=beside.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def writable(out: Path) -> None:
    """Finds out, before any work is done or money spent, whether a film could be put there; makes its folder.

    Raises:
        OSError: it could not; the text says why.
    """
    if out.suffix in NAMES_BESIDE:
        raise OSError(errno.EINVAL, f"is the name of what lies beside a film; name it {out.stem}.mp4", str(out))
    if out.is_dir():
        raise IsADirectoryError(21, "is a folder; name a file such as film.mp4", str(out))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            out.lstat()  # a name that is too long, say
        with scratch(out):
            pass
    except FileExistsError as error:
        raise NotADirectoryError(20, "is a file, not a folder", error.filename) from None
    except OSError as error:
        raise OSError(error.errno, f"cannot be written: {error.strerror}", str(out)) from None


def publish(work: Path, name: Path) -> None:
    """Gives a finished work file its name, replacing what had it; after a power cut it is there whole or not at all."""
    _synced(work)
    work.replace(name)
    _synced(name.absolute().parent)


def _synced(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
